"""Families of encoders, one per file. The tool finds every file in this folder, so nothing lists them."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import cast

from cemobam_core.encoders.builds.build import AudioBuild, Build, TextBuild
from cemobam_core.encoders.builds.refused import REASONS
from cemobam_core.encoders.pretrained import Pretrained, read_json
from cemobam_core.errors import InputError

_NO_BUILDS = {"build", "front_end", "refused"}
"""Modules of this folder that define no family."""


@cache
def builds() -> tuple[type[Build], ...]:
    """Return all families, in the order of their files."""
    modules = [
        import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if module.name not in _NO_BUILDS
    ]
    return tuple(
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Build) and value.__module__ == module.__name__
    )


def types(modality: str) -> list[str]:
    """Return the values of ``model_type`` that are supported for a modality."""
    return [model_type for build in builds() if build.modality == modality for model_type in build.types]


def family_of(model_type: str) -> type[Build] | None:
    """Return the family of a ``model_type``, or ``None`` if it is not supported."""
    return next((build for build in builds() if model_type in build.types), None)


def model_type_of(pretrained: Pretrained) -> str:
    """Return the type of an encoder's model, as ``config.json`` names it.

    Raises:
        InputError: It is not named.
    """
    model_type = pretrained.config.get("model_type")
    if not isinstance(model_type, str):
        raise InputError(
            f"{pretrained.folder / 'config.json'}: has no model_type; use the config.json that was published with the "
            "encoder"
        )
    return model_type


def why_not(modality: str, pretrained: Pretrained) -> str:
    """Return why an encoder is not supported for a modality, or an empty text if it is.

    Raises:
        InputError: ``config.json`` does not name the type of the model.
    """
    config, model_type = pretrained.config, model_type_of(pretrained)
    if build := family_of(model_type):
        if build.modality != modality:
            return f"it is for --{build.modality}-encoder"
        return build.refusal(config) or _further_modules(pretrained)
    if reason := REASONS[modality].get(model_type):
        return reason
    return "it needs code of its own, which is not run" if "auto_map" in config else "the type is not known"


def build_of(modality: str, pretrained: Pretrained) -> type[Build]:
    """Return the family of an encoder.

    Raises:
        InputError: The encoder is not supported, or ``config.json`` does not name the type of the model.
    """
    model_type = model_type_of(pretrained)
    if reason := why_not(modality, pretrained):
        raise InputError(
            f"--{modality}-encoder {pretrained.name}: this {model_type} model is not supported ({reason}); give one "
            f"of these types: {', '.join(types(modality))} (cemobam encoders lists examples)"
        )
    found = family_of(model_type)
    assert found is not None
    return found


def audio_build(pretrained: Pretrained) -> AudioBuild:
    """Load an audio encoder.

    Raises:
        InputError: The encoder is not supported, or files cannot be loaded.
    """
    return cast(type[AudioBuild], build_of("audio", pretrained))(pretrained)


def text_build(pretrained: Pretrained, *, pooler: bool) -> TextBuild:
    """Load a text encoder.

    Args:
        pretrained: Encoder to load.
        pooler: Whether its pooler is used.

    Raises:
        InputError: The encoder is not supported or has no pooler, or files cannot be loaded.
    """
    kind = cast(type[TextBuild], build_of("text", pretrained))
    if pooler and not kind.has_pooler:
        raise InputError(
            f"--text-pool pooler: {pretrained.name} is a {model_type_of(pretrained)} model, which has no pooler; "
            "give --text-pool cls or --text-pool mean"
        )
    return kind(pretrained, pooler=pooler)


def _further_modules(pretrained: Pretrained) -> str:
    """Return a reason if sentence-transformers runs more than the encoder, a pooling and a normalisation."""
    path = pretrained.folder / "modules.json"
    if not path.is_file():
        return ""
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in read_json(path)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: is damaged; replace it with the published file, or remove it") from None
    other = [kind for kind in kinds if kind not in {"Transformer", "Pooling", "Normalize"}]
    return f"its sentence embeddings need a module {other[0]} (modules.json), which is not run" if other else ""
