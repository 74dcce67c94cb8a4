"""Audio: from waveforms to frames with wav2vec 2.0 (Baevski et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from cemobam_core.corpora.utterances import Part
from cemobam_core.encoders.pretrained import NO_CODE, Pretrained, load_model
from cemobam_core.encoders.sound import SAMPLE_RATE, read_audio
from cemobam_core.errors import InputError
from cemobam_core.operators.pooling import masked_mean

_BUILDS = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")
"""Model types whose convolutional front end and transformer can be run separately, without influence of padding."""

_FEWEST_SAMPLES = 400
"""Receptive field of wav2vec 2.0's first frame: 25 ms. Shorter clips are padded with silence to this length."""


class AudioEncoder(nn.Module):
    """A pretrained wav2vec 2.0, or a model with the same architecture (HuBERT, WavLM).

    A clip has the same frames alone and in a batch. The convolutional front end runs on each window separately, because
    the group norm of wav2vec2-base computes its statistics over time and would include padding. The transformer runs
    on the batch with an attention mask.

    Args:
        pretrained: Encoder to load.
        max_seconds: Maximum length of a window in seconds. Longer clips are cut into windows of equal length, as few as
            possible.
        steps: Largest number of steps of a sequence.
        batch_seconds: Seconds of audio, including padding, in one batch of the transformer.

    Raises:
        InputError: Files cannot be loaded, or the model has another architecture.
    """

    def __init__(self, pretrained: Pretrained, *, max_seconds: float, steps: int, batch_seconds: float = 60.0) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.model = load_model(pretrained, spare=("masked_spec_embed",))
        config = self.model.config
        if config.model_type not in _BUILDS or getattr(config, "add_adapter", False):
            adapter = " with an adapter" if getattr(config, "add_adapter", False) else ""
            raise InputError(
                f"--audio-encoder {pretrained.name}: {config.model_type} models{adapter} are not supported; "
                f"give a model of one of these types: {', '.join(_BUILDS)}"
            )
        self.steps = steps
        self.max_samples = round(max_seconds * SAMPLE_RATE)
        self.batch_samples = round(batch_seconds * SAMPLE_RATE)
        self.normalise = _normalises(pretrained)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, from the lowest to the highest."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    @property
    def on_top(self) -> list[nn.Module]:
        """The modules after the last layer, which are tuned with it: the final layer norm, if the model has one."""
        return [self.model.encoder.layer_norm] if getattr(self.model.config, "do_stable_layer_norm", False) else []

    def forward(self, windows: Sequence[Float[Tensor, " _"]]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
        """Return the frames of windows, padded at the end, and a mask of the valid ones.

        Args:
            windows: Windows that are not longer than ``max_seconds``.
        """
        fronts = [
            self.model.feature_extractor(_at_least_a_frame(window)[None])[0].T for window in windows
        ]  # (T_i, 512)
        lengths = torch.tensor([len(front) for front in fronts], device=fronts[0].device)
        x = pad_sequence(fronts, batch_first=True)  # (B, T, 512)
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (B, T)
        x = self.model.feature_projection(x)
        x = x[0] if isinstance(x, tuple) else x  # (B, T, E)
        return self.model.encoder(x, attention_mask=mask).last_hidden_state, mask

    def pool(self, frames: Float[Tensor, "B T E"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Return the mean over the valid frames."""
        return masked_mean(frames, mask)

    @staticmethod
    def read(sound: Path | Part) -> npt.NDArray[np.float32]:
        """Read the clip of a sound file, see ``read_audio``."""
        return read_audio(sound)

    def prepare(self, clip: npt.NDArray[np.float32]) -> Float[Tensor, " samples"]:
        """Return a clip as input of the model: with zero mean and unit variance, if the model was trained so."""
        samples = torch.from_numpy(clip).to(next(self.parameters()).device)
        if self.normalise:
            samples = (samples - samples.mean()) / (samples.var(correction=0) + 1e-7).sqrt()
        return samples

    def windows(self, clip: Float[Tensor, " samples"]) -> list[Float[Tensor, " _"]]:
        """Cut a clip into windows of equal length (to one sample), as few as ``max_seconds`` allows."""
        return list(clip.tensor_split(math.ceil(len(clip) / self.max_samples)))

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
        """Write the model and the configuration of its preprocessor in the format of transformers."""
        from transformers import Wav2Vec2FeatureExtractor

        self.model.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=self.normalise).save_pretrained(folder)

    def _batches(self, windows: list[tuple[int, Tensor]]) -> list[list[tuple[int, Tensor]]]:
        """Group windows in order. A batch holds at most ``batch_seconds``, including padding."""
        batches: list[list[tuple[int, Tensor]]] = []
        longest = 0
        for window in windows:
            longest = max(longest, len(window[1]))
            if not batches or longest * (len(batches[-1]) + 1) > self.batch_samples:
                batches.append([])
                longest = len(window[1])
            batches[-1].append(window)
        return batches


def _at_least_a_frame(window: Tensor) -> Tensor:
    return nn.functional.pad(window, (0, max(0, _FEWEST_SAMPLES - len(window))))


def averaged_down(frames: Float[Tensor, "T E"], steps: int) -> Float[Tensor, "S E"]:
    """Return the means of ``steps`` segments of nearly equal length. A shorter sequence is returned unchanged."""
    if len(frames) <= steps:
        return frames
    return torch.stack([stretch.mean(dim=0) for stretch in frames.tensor_split(steps)])


def _normalises(pretrained: Pretrained) -> bool:
    """Return whether the model needs normalised audio, according to its own files."""
    from transformers import AutoFeatureExtractor

    if not any((pretrained.folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        return True  # the default of transformers
    try:
        extractor = AutoFeatureExtractor.from_pretrained(pretrained.folder, **NO_CODE)
    except Exception as error:  # broken files can raise any exception
        raise InputError(
            f"--audio-encoder {pretrained.name}: its preprocessor_config.json cannot be read ({type(error).__name__}); "
            "replace it with the published file"
        ) from None
    if getattr(extractor, "sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise InputError(
            f"--audio-encoder {pretrained.name}: expects audio at {extractor.sampling_rate} Hz; "
            f"give an encoder for {SAMPLE_RATE} Hz"
        )
    return bool(getattr(extractor, "do_normalize", True))
