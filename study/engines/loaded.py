"""Imports that every worker needs and that take seconds. Engines load them before a worker's first trial."""

import torch._dynamo  # noqa: F401  (torch's optimizers import it at their first step)

import cemobam_core.training.loop  # noqa: F401
