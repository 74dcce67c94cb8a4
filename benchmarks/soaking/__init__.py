"""The parts of ``soak.py``: its processes, its servers, what it does to them, and how it judges the results."""
