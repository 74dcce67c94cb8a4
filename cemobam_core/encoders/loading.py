"""The encoder of a modality, as the settings of extraction describe it."""

from __future__ import annotations

import numpy as np

from cemobam_core.encoders.audio import AudioEncoder
from cemobam_core.encoders.builds import build_of
from cemobam_core.encoders.decoding import SAMPLE_RATE
from cemobam_core.encoders.finetune import Encoder
from cemobam_core.encoders.pretrained import Pretrained
from cemobam_core.encoders.settings import FeatureSettings
from cemobam_core.encoders.text import TextEncoder
from cemobam_core.encoders.trial import tried_first
from cemobam_core.errors import InputError

_TEXTS = ("a", "What? 12 drawers, over there … “Ünïcode” 漢字 🙂", "a" * 60 + "!", "a " * 2_000)
"""Texts of the trial: short, odd, and too long."""


def load_encoder(modality: str, pretrained: Pretrained, settings: FeatureSettings) -> Encoder:
    """Load the encoder of a modality, on the CPU and in evaluation mode.

    A child process loads and tries it first, see :mod:`cemobam_core.encoders.trial`.

    Args:
        modality: ``audio`` or ``text``.
        pretrained: Encoder on disk.
        settings: Settings of extraction.

    Raises:
        InputError: Files cannot be loaded, or the model or a setting is not supported.
    """
    build_of(modality, pretrained).size(pretrained)
    tried_first(_try, pretrained, modality, settings)
    return _loaded(pretrained, modality, settings)


def _loaded(pretrained: Pretrained, modality: str, settings: FeatureSettings) -> Encoder:
    if modality == "audio":
        return AudioEncoder(
            pretrained, max_seconds=settings.max_seconds, steps=settings.audio_steps, layer=settings.audio_layer
        )
    return TextEncoder(pretrained, pool=settings.text_pool, max_tokens=settings.max_tokens, layer=settings.text_layer)


def _try(pretrained: Pretrained, modality: str, settings: FeatureSettings) -> None:
    """Load an encoder and run its first layer: an odd value in its files may only show then."""
    encoder = _loaded(pretrained, modality, settings)
    encoder.layer = min(1, len(encoder.build.layers))
    try:
        if isinstance(encoder, AudioEncoder):
            noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE, dtype=np.float32)
            encoder.embed([noise], sequence=True)
        else:
            largest = max(encoder.tokenizer.get_vocab().values())
            if largest >= encoder.model.config.vocab_size:
                raise ValueError(f"its tokenizer has the token {largest}, its model {encoder.model.config.vocab_size}")
            encoder.embed(_TEXTS, sequence=True)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise InputError(
            f"--{modality}-encoder {pretrained.name}: cannot encode ({type(error).__name__}: {said}); use the "
            "files that were published with it"
        ) from None
