"""CemoBAM: the model and its data. Knows nothing of studies.

The names below are the public API. They are imported when first used, so that what needs no model (a plan, a table)
does not wait for torch-geometric.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cemobam_core.config import CemoBAMConfig, TrainingConfig
    from cemobam_core.errors import InputError
    from cemobam_core.features import FeatureSet, Fold
    from cemobam_core.graph import TopKGraph
    from cemobam_core.systems.cemobam import CemoBAM
    from cemobam_core.training.loop import Batch, TrainingResult, evaluate, train
    from cemobam_core.training.metrics import Metrics

_HOMES = {
    "Batch": "training.loop",
    "CemoBAM": "systems.cemobam",
    "CemoBAMConfig": "config",
    "FeatureSet": "features",
    "Fold": "features",
    "InputError": "errors",
    "Metrics": "training.metrics",
    "TopKGraph": "graph",
    "TrainingConfig": "config",
    "TrainingResult": "training.loop",
    "evaluate": "training.loop",
    "train": "training.loop",
}

__all__ = [
    "Batch",
    "CemoBAM",
    "CemoBAMConfig",
    "FeatureSet",
    "Fold",
    "InputError",
    "Metrics",
    "TopKGraph",
    "TrainingConfig",
    "TrainingResult",
    "evaluate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"cemobam_core.{_HOMES[name]}"), name)
