"""What every worker needs and takes seconds to import; engines load it before a worker's first trial."""

import torch._dynamo  # noqa: F401  (torch's optimizers import it at their first step)

import cemobam_core.training.loop  # noqa: F401
