"""The encoder half of Whisper (Radford et al., 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cemobam_core.encoders.builds.build import AudioBuild, Example, whole
from cemobam_core.encoders.builds.front_end import extractor_of, has_settings, refuse_other_width
from cemobam_core.encoders.pretrained import Pretrained, load_model

_PER_FRAME = 320
"""Samples per frame: two hops of the spectrogram (10 ms each) make one frame."""


class Whisper(AudioBuild):
    """Whisper's encoder. Its decoder is not loaded.

    The model was trained on windows of 30 seconds, so every window is padded with silence to that length. Frames after
    the end of the window are dropped: 3 seconds have 150 frames.
    """

    types = ("whisper",)
    front_end = "a log-mel spectrogram of 30 seconds, padded with silence: 50 frames a second"
    size_keys = ("encoder_layers", "d_model")
    layers_at = "encoder.layers"
    final_norm = "encoder.layer_norm"
    examples = (
        Example(name="openai/whisper-base", layers=6, size=512, millions=20.6, licence="apache-2.0"),
        Example(name="openai/whisper-small", layers=12, size=768, millions=88.2, licence="apache-2.0"),
        Example(name="openai/whisper-medium", layers=24, size=1024, millions=307.2, licence="apache-2.0"),
        Example(name="openai/whisper-large-v3", layers=32, size=1280, millions=637.0, licence="apache-2.0"),
    )

    @classmethod
    def longest(cls, config: Mapping[str, Any]) -> int | float | None:
        """Return the seconds that the positions of the encoder cover: 30."""
        return (whole(config, "max_source_positions") or 1500) * _PER_FRAME / cls.rate

    def __init__(self, pretrained: Pretrained) -> None:
        from transformers import WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder, WhisperPreTrainedModel

        class WhisperHalf(WhisperPreTrainedModel):
            """The encoder, under the name that it has in the weights of the whole model."""

            def __init__(self, config: Any) -> None:
                super().__init__(config)
                self.encoder = WhisperEncoder(config)
                self.post_init()  # type: ignore[no-untyped-call]

        self.model = load_model(pretrained, kind=WhisperHalf)
        config = self.model.config
        if has_settings(pretrained):
            self.extractor = extractor_of(pretrained, WhisperFeatureExtractor)
        else:
            self.extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        refuse_other_width(pretrained, theirs=self.extractor.feature_size, needed=config.num_mel_bins)
        self.extractor.dither = 0.0  # random noise, which would make features differ from run to run
        self.padded_to = config.max_source_positions * _PER_FRAME

    def front(self, windows: Sequence[Float[Tensor, " _"]]) -> tuple[Float[Tensor, "B M S"], Bool[Tensor, "B T"]]:
        """Return the log-mel spectrograms of padded windows, and the mask of the frames within each window."""
        device = windows[0].device
        spectrograms = self.extractor(
            [window.cpu().numpy() for window in windows],
            sampling_rate=self.rate,
            padding="max_length",
            max_length=self.padded_to,
            return_tensors="pt",
        ).input_features  # (B, M, 2 * positions)
        lengths = torch.tensor([math.ceil(len(window) / _PER_FRAME) for window in windows], device=device)
        mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
        return spectrograms.to(device), mask

    def encode(self, x: Float[Tensor, "B M S"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B _ E"]:
        """Return all frames, those of the padding included. The mask has no part in it: Whisper attends to silence."""
        hidden: Tensor = self.model.encoder(x).last_hidden_state
        return hidden

    def save(self, folder: Path) -> None:
        """Write the encoder, without a decoder, and the settings of the spectrogram."""
        self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
