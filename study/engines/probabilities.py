"""The predicted probabilities of the test utterances on disk: one file per trial, if the user asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from cemobam_core.files import written_atomically
from cemobam_core.operators.precision import at_least_fp32
from study.design.configuration import Trial


@dataclass(frozen=True, kw_only=True)
class KeptProbabilities:
    """The place for the probabilities of a study's trials.

    Attributes:
        folder: Folder of all the files.
        fingerprint: Fingerprint of the features in their splits.
    """

    folder: Path
    fingerprint: str

    def place(self, trial: Trial) -> Path:
        """Return the file of a trial. Its name is the trial's signature, which the ledger has too."""
        return self.folder / f"{trial.signature(self.fingerprint)}.safetensors"

    def keep(self, trial: Trial, logits: Tensor) -> None:
        """Write the probabilities of a trial, as float16.

        Args:
            trial: The trained trial.
            logits: Logits (N, C) of the test utterances in the fold's order.

        Raises:
            OSError: If the folder cannot be written to or the disk is full.
        """
        probabilities = torch.softmax(at_least_fp32(logits), dim=1).half().cpu().contiguous()
        with written_atomically(self.place(trial)) as temporary:
            save_file({"probabilities": probabilities}, temporary)
