"""Metrics of a labelling, one a file: a file here is found by its name, and shown in every table and figure."""

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
"""By the name that columns have, ``test_wa``, in the order in which they are shown."""
