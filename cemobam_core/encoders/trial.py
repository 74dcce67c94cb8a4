"""A trial of a pretrained model behind the wall: it is loaded there first, and loaded here only if that went well.

The weights are too large to be passed on, and what transformers makes of a folder is no plain content. So a child does
all that this process is going to do with the files, and a crash, an endless loop or a demand for terabytes ends there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from cemobam_core.encoders.pretrained import Pretrained, files_in, weight_files
from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.wall import HAS_LIMITS, Content, Wall

_ATTENTIONS = (None, "eager", "sdpa")
"""Implementations of attention that a configuration may name. Others can be code on the hub."""

_passed: set[Hashable] = set()
"""Trials that went well in this process."""


def tried_first(load: Callable[..., Any], pretrained: Pretrained, *arguments: Hashable) -> None:
    """Load a pretrained model in a child process, and raise an error if that fails.

    A trial that went well is not repeated, unless the files have no revision, because they may change then.

    Args:
        load: Function of the model on disk and further arguments that does everything that could fail.
        pretrained: Model on disk.
        arguments: Further arguments.

    Raises:
        InputError: The function raised one, or loading crashed or exceeded a limit, or a file is no regular file.
    """
    trial = (load, pretrained, arguments)
    if pretrained.revision and trial in _passed:
        return
    folder, config = pretrained.folder, pretrained.config
    files_in(folder)
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"{folder / 'adapter_config.json'}: names another model, which would be loaded instead; merge the adapter "
            "into the weights and save the whole model, or remove the file if it is not needed"
        )
    for key, value in config.items():
        if key == "quantization_config" or (key.endswith("attn_implementation") and value not in _ATTENTIONS):
            raise InputError(
                f"{folder / 'config.json'}: {key} asks for code that does not come with transformers; remove it, or "
                "use the config.json that was published with the model"
            )
    if HAS_LIMITS:
        _import_for(str(config.get("model_type")))
        with Wall(_attempt, folders=True) as wall:
            wall(folder, load, pretrained, arguments, beside=weight_files(folder))
    _passed.add(trial)


def _attempt(folder: Path, load: Callable[..., Any], pretrained: Pretrained, arguments: tuple[Any, ...]) -> Content:
    names = {path.name for path in weight_files(folder)}
    for index in (folder / f"{name}.index.json" for name in ("model.safetensors", "pytorch_model.bin")):
        if index.is_file() and not names >= (others := set(json.loads(index.read_bytes())["weight_map"].values())):
            raise InputError(
                f"{index}: names {min(others - names)!r:.80}, which is not one of the weights in this folder; use the "
                "files that were published with the model"
            )
    load(pretrained, *arguments)
    return {}, None


def _import_for(model_type: str) -> None:
    """Import what a model of a type needs: if only the child did, it would be imported twice, which takes seconds."""
    require("features", "cemobam_core.encoders")
    from transformers import AutoFeatureExtractor, AutoTokenizer  # noqa: F401
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    if model_type in CONFIG_MAPPING:
        config = CONFIG_MAPPING[model_type]
        for kinds in (MODEL_MAPPING, TOKENIZER_MAPPING):
            if config in kinds:
                kinds[config]
