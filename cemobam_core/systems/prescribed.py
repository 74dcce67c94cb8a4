"""Training settings that several sources prescribe."""

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
"""MemoCMT, SER-Fuse and SERVER: Adam, with the learning rate multiplied by 0.1 after every 30 epochs."""

MERBENCH: Mapping[str, Value] = {
    "epochs": 100,
    "weights": "best_epoch",
    "lr": 1e-3,
    "weight_decay": 1e-5,
    "schedule": "step",
    "lr_gamma": 1.0,
}
"""MERBench's toolkit: Adam at a constant rate. Of its two rates (1e-3 and 1e-4), 1e-3 suits few full-batch steps."""
