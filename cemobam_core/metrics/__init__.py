"""Metrics, one per file. The tool finds every file in this folder and shows its metric in all tables and figures."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from cemobam_core.metrics.metric import Metric

_BASE = "metric"


def _found() -> dict[str, Metric]:
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name != _BASE]
    metrics = {name: import_module(f"{__name__}.{name}").METRIC for name in names}
    return dict(sorted(metrics.items(), key=lambda item: item[1].place))


METRICS: dict[str, Metric] = _found()
"""All metrics by name (as in the column ``test_wa``), in display order."""
