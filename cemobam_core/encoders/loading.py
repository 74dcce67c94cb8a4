"""The encoder of a modality, as the settings of extraction describe it."""

from __future__ import annotations

from cemobam_core.encoders.audio import AudioEncoder
from cemobam_core.encoders.finetune import Encoder
from cemobam_core.encoders.pretrained import Pretrained
from cemobam_core.encoders.settings import FeatureSettings
from cemobam_core.encoders.text import TextEncoder


def load_encoder(modality: str, pretrained: Pretrained, settings: FeatureSettings) -> Encoder:
    """Load the encoder of a modality, on the CPU and in evaluation mode.

    Args:
        modality: ``audio`` or ``text``.
        pretrained: Encoder on disk.
        settings: Settings of extraction.

    Raises:
        InputError: Files cannot be loaded, or the model or a setting is not supported.
    """
    if modality == "audio":
        return AudioEncoder(
            pretrained, max_seconds=settings.max_seconds, steps=settings.audio_steps, layer=settings.audio_layer
        )
    return TextEncoder(pretrained, pool=settings.text_pool, max_tokens=settings.max_tokens, layer=settings.text_layer)
