"""Systems, features, graphs and training: everything that learns. This package knows nothing of studies.

The names below are the public API. Each one is imported on first use, so commands that need no model (a plan or a
table, for example) do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cemobam_core.errors import InputError
    from cemobam_core.features import FeatureSet, Fold
    from cemobam_core.graph import GraphConfig, TopKGraph
    from cemobam_core.inputs import Inputs, Sizes
    from cemobam_core.systems.cemobam import CemoBAM
    from cemobam_core.systems.search import Between, OneOf
    from cemobam_core.systems.system import EstimatorSystem, FittedSystem, NeuralSystem, System
    from cemobam_core.training.batch import Batch
    from cemobam_core.training.config import TrainingConfig
    from cemobam_core.training.loop import TrainingResult, evaluate, train
    from cemobam_core.training.metrics import Metrics

_MODULES = {
    "Batch": "training.batch",
    "CemoBAM": "systems.cemobam",
    "Between": "systems.search",
    "OneOf": "systems.search",
    "EstimatorSystem": "systems.system",
    "FittedSystem": "systems.system",
    "FeatureSet": "features",
    "Fold": "features",
    "GraphConfig": "graph",
    "InputError": "errors",
    "Inputs": "inputs",
    "Metrics": "training.metrics",
    "NeuralSystem": "systems.system",
    "Sizes": "inputs",
    "System": "systems.system",
    "TopKGraph": "graph",
    "TrainingConfig": "training.config",
    "TrainingResult": "training.loop",
    "evaluate": "training.loop",
    "train": "training.loop",
}

__all__ = [
    "Batch",
    "Between",
    "CemoBAM",
    "EstimatorSystem",
    "FeatureSet",
    "FittedSystem",
    "Fold",
    "GraphConfig",
    "InputError",
    "Inputs",
    "Metrics",
    "NeuralSystem",
    "OneOf",
    "Sizes",
    "System",
    "TopKGraph",
    "TrainingConfig",
    "TrainingResult",
    "evaluate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"cemobam_core.{_MODULES[name]}"), name)
