"""wav2vec2-BERT 2.0, the speech encoder of SeamlessM4T v2 (Barrault et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.encoders.builds.build import AudioBuild, Example, padded
from cemobam_core.encoders.builds.front_end import extractor_of, has_settings, refuse_other_width
from cemobam_core.encoders.pretrained import Pretrained, load_model

_FEWEST_SAMPLES = 560
"""Two frames of the filter bank, 25 ms each and 10 ms apart. Shorter clips are padded with silence to this length."""


class Wav2Vec2Bert(AudioBuild):
    """wav2vec2-BERT: a conformer on a mel filter bank.

    The filter bank is computed on the whole clip, and each band is normalised over it. Two frames of 10 ms are laid
    side by side, so the model sees 50 frames a second.
    """

    types = ("wav2vec2-bert",)
    front_end = "a mel filter bank, normalised over the clip: 50 frames a second"
    layers_at = "encoder.layers"
    rate = 50
    examples = (Example(name="facebook/w2v-bert-2.0", layers=24, size=1024, millions=580.5, licence="mit"),)

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        """Return why an encoder with this ``config.json`` is not supported, or an empty text if it is."""
        return "it has an adapter, which shortens the sequence" if config.get("add_adapter") else ""

    def __init__(self, pretrained: Pretrained) -> None:
        from transformers import SeamlessM4TFeatureExtractor

        self.model = load_model(pretrained, spare=("masked_spec_embed",))
        if has_settings(pretrained):
            self.extractor = extractor_of(pretrained, SeamlessM4TFeatureExtractor)
        else:
            self.extractor = SeamlessM4TFeatureExtractor()
        theirs = self.extractor.num_mel_bins * self.extractor.stride
        refuse_other_width(pretrained, theirs=theirs, needed=self.model.config.feature_projection_input_dim)

    @property
    def on_top(self) -> list[nn.Module]:
        """The dense layers after the last layer, in the models that have them."""
        return [self.model.intermediate_ffn] if self.model.intermediate_ffn is not None else []

    def prepare(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frames M"]:
        """Return the normalised filter bank of a clip."""
        clip = nn.functional.pad(samples, (0, max(0, _FEWEST_SAMPLES - len(samples))))
        bank = self.extractor(clip.cpu().numpy(), sampling_rate=super().rate, return_tensors="pt")
        frames: Tensor = bank.input_features[0][bank.attention_mask[0].bool()]  # without an incomplete last frame
        return frames.to(samples.device, torch.float32)

    def front(self, windows: Sequence[Float[Tensor, "_ M"]]) -> tuple[Float[Tensor, "B T M"], Bool[Tensor, "B T"]]:
        """Return windows of the filter bank as a batch, and the mask of the valid frames."""
        return padded(windows)

    def encode(self, x: Float[Tensor, "B T M"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        """Return the output of the conformer."""
        hidden: Tensor = self.model(x, attention_mask=mask).last_hidden_state
        return hidden

    def save(self, folder: Path) -> None:
        """Write the model and the settings of the filter bank in the format of transformers."""
        self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
