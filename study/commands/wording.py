"""Write files, durations and lists of numbers for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


def by_folder(paths: Sequence[Path]) -> list[str]:
    """Return a line for each folder with the names of its files: ``plots/demo/: curves.png, curves.pdf``."""
    folders: dict[Path, list[str]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(path.name)
    return [f"{folder}/: {', '.join(names)}" for folder, names in folders.items()]


def rounded(seconds: float) -> str:
    """Return seconds with two significant digits, or as a whole number from 100 on: ``0.82``, ``140``."""
    return f"{seconds:.2g}" if seconds < 100 else f"{seconds:.0f}"


def duration(seconds: float) -> str:
    """Return a duration in a suitable unit: ``80 s``, ``45 min``, ``3 h 20 min``, ``16 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 600 else f"{round(minutes / 60)} h"


def spanned(numbers: Sequence[int]) -> str:
    """Return numbers in a short form: ``5 to 9`` for a range, ``1, 4, 8`` for a list."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))
