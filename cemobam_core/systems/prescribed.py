"""Settings of training that several sources prescribe alike."""

from __future__ import annotations

from collections.abc import Mapping

from cemobam_core.systems.search import Value

ADAM_IN_STEPS: Mapping[str, Value] = {
    "lr": 1e-4,
    "weight_decay": 0.0,
    "schedule": "step",
    "lr_step": 30,
    "lr_gamma": 0.1,
}
"""Of MemoCMT, SER-Fuse and SERVER: Adam, and a tenth of the rate after every 30 epochs."""

MERBENCH: Mapping[str, Value] = {
    "epochs": 100,
    "weights": "best_epoch",
    "lr": 1e-3,
    "weight_decay": 1e-5,
    "schedule": "step",
    "lr_gamma": 1.0,
}
"""Of MERBench's toolkit: Adam at one rate, of its two (1e-3 and 1e-4) the one that suits the few full-batch steps."""
