"""The settings of an audio front end, from the files of the encoder."""

from __future__ import annotations

from typing import Any

from cemobam_core.encoders.pretrained import NO_CODE, Pretrained
from cemobam_core.errors import InputError


def has_settings(pretrained: Pretrained) -> bool:
    """Return whether an encoder comes with the settings of its front end."""
    return any((pretrained.folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))


def extractor_of(pretrained: Pretrained, kind: Any = None) -> Any:
    """Return the feature extractor that an encoder's own files describe.

    Args:
        pretrained: Encoder on disk.
        kind: Class of the feature extractor. The files decide if it is not given.

    Raises:
        InputError: The files cannot be read, or they describe another front end or another sampling rate.
    """
    from transformers import AutoFeatureExtractor

    from cemobam_core.encoders.decoding import SAMPLE_RATE

    try:
        extractor = AutoFeatureExtractor.from_pretrained(pretrained.folder, **NO_CODE)
    except Exception as error:  # broken files can raise any exception
        raise InputError(
            f"--audio-encoder {pretrained.name}: its preprocessor_config.json cannot be read ({type(error).__name__}); "
            "replace it with the published file"
        ) from None
    if kind is not None and not isinstance(extractor, kind):
        raise InputError(
            f"--audio-encoder {pretrained.name}: its preprocessor_config.json describes a {type(extractor).__name__}, "
            f"but the model needs a {kind.__name__}; replace it with the published file"
        )
    if getattr(extractor, "sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise InputError(
            f"--audio-encoder {pretrained.name}: expects audio at {extractor.sampling_rate} Hz; "
            f"give an encoder for {SAMPLE_RATE} Hz"
        )
    return extractor


def refuse_other_width(pretrained: Pretrained, *, theirs: int, needed: int) -> None:
    """Refuse a front end that gives another number of mel bands than the model takes.

    Raises:
        InputError: The numbers differ.
    """
    if theirs != needed:
        raise InputError(
            f"--audio-encoder {pretrained.name}: its preprocessor_config.json gives {theirs} numbers per frame, but "
            f"its model takes {needed}; replace it with the published file"
        )
