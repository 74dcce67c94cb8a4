"""Audio: from waveforms to frames. ``builds`` has what the architectures differ in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.corpora.utterances import Part
from cemobam_core.encoders.builds import audio_build
from cemobam_core.encoders.layers import Layer, hidden_state, layers_used
from cemobam_core.encoders.pretrained import Pretrained
from cemobam_core.encoders.sound import read_audio
from cemobam_core.operators.pooling import masked_mean


class AudioEncoder(nn.Module):
    """A pretrained audio encoder of one of the families in ``builds``.

    Args:
        pretrained: Encoder to load.
        max_seconds: Maximum length of a window in seconds, unless the encoder takes less. Longer clips are cut into
            windows of equal length, as few as possible.
        steps: Largest number of steps of a sequence.
        layer: The hidden state that gives the frames.
        batch_seconds: Seconds of audio, including padding, in one batch of the transformer.

    Raises:
        InputError: Files cannot be loaded, the model has another architecture, or it has fewer layers.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        max_seconds: float,
        steps: int,
        layer: Layer = "last",
        batch_seconds: float = 60.0,
    ) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.build = audio_build(pretrained)
        self.model = self.build.model
        self.layer: Layer = layer
        self.used = layers_used(layer, len(self.build.layers), option="--audio-layer", name=pretrained.name)
        self.steps = steps
        self.rate = self.build.rate
        longest = self.build.longest(self.model.config.to_dict())
        self.max_inputs = max(1, round(min(max_seconds, longest or max_seconds) * self.rate))
        self.batch_inputs = round(batch_seconds * self.rate)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers that are used, from the lowest to the highest."""
        return self.build.layers[: self.used]

    @property
    def on_top(self) -> list[nn.Module]:
        """The modules after the last layer, which are tuned with it: the final norm, if the model has one."""
        return self.build.on_top if self.used == len(self.build.layers) else []

    def forward(self, windows: Sequence[Float[Tensor, "_ ..."]]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
        """Return the frames of windows, padded at the end, and a mask of the valid ones.

        Args:
            windows: Windows that are not longer than ``max_seconds``.
        """
        x, mask = self.build.front(windows)
        frames = hidden_state(lambda: self.build.encode(x, mask), self.build.layers, self.layer)
        return frames[:, : mask.shape[1]], mask

    def pool(self, frames: Float[Tensor, "B T E"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Return the mean over the valid frames."""
        return masked_mean(frames, mask)

    @staticmethod
    def read(sound: Path | Part) -> npt.NDArray[np.float32]:
        """Read the clip of a sound file, see ``read_audio``."""
        return read_audio(sound)

    def prepare(self, clip: npt.NDArray[np.float32]) -> Float[Tensor, "inputs ..."]:
        """Return a clip as inputs of the model, ``rate`` of them per second, as the model was trained."""
        return self.build.prepare(torch.from_numpy(clip).to(next(self.parameters()).device))

    def windows(self, clip: Float[Tensor, "inputs ..."]) -> list[Float[Tensor, "_ ..."]]:
        """Cut a prepared clip into windows of equal length (to one input), as few as ``max_seconds`` allows."""
        return list(clip.tensor_split(math.ceil(len(clip) / self.max_inputs)))

    def embed(self, clips: Sequence[npt.NDArray[np.float32]], *, sequence: bool) -> list[Float[Tensor, "_ E"]]:
        """Return embeddings of whole clips: the mean over frames (T = 1), or a sequence of at most ``steps``."""
        return [averaged_down(frames, self.steps if sequence else 1) for frames in self.encode(clips)]

    @torch.no_grad()
    def encode(self, clips: Sequence[npt.NDArray[np.float32]]) -> list[Float[Tensor, "_ E"]]:
        """Return the frames of whole clips of any length, on the CPU. The windows of a clip follow each other.

        The mean over these frames is the mean over the windows, weighted by their lengths.
        """
        windows = [(i, window) for i, clip in enumerate(clips) for window in self.windows(self.prepare(clip))]
        frames: list[list[Tensor]] = [[] for _ in clips]
        for batch in self._batches(windows):
            hidden, mask = self([window for _, window in batch])
            for (i, _), rows, valid in zip(batch, hidden, mask, strict=True):
                frames[i].append(rows[valid].float().cpu())
        return [torch.cat(parts) for parts in frames]

    def save(self, folder: Path) -> None:
        """Write the model and the settings of its front end in the format of transformers."""
        self.build.save(folder)

    def _batches(self, windows: list[tuple[int, Tensor]]) -> list[list[tuple[int, Tensor]]]:
        """Group windows in order. A batch holds at most ``batch_seconds``, including padding."""
        batches: list[list[tuple[int, Tensor]]] = []
        longest = 0
        for window in windows:
            longest = max(longest, len(window[1]), self.build.padded_to)
            if not batches or longest * (len(batches[-1]) + 1) > self.batch_inputs:
                batches.append([])
                longest = max(len(window[1]), self.build.padded_to)
            batches[-1].append(window)
        return batches


def averaged_down(frames: Float[Tensor, "T E"], steps: int) -> Float[Tensor, "S E"]:
    """Return the means of ``steps`` segments of nearly equal length. A shorter sequence is returned unchanged."""
    if len(frames) <= steps:
        return frames
    return torch.stack([stretch.mean(dim=0) for stretch in frames.tensor_split(steps)])
