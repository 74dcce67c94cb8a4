"""Checkpoints of the authors' released code, loaded under our parameter names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.inputs import Sizes
from cemobam_core.operators.fusion import Fusion
from cemobam_core.systems.cemobam import CemoBAM, CemoBAMNetwork
from cemobam_core.wall import Content, walled

RELEASED = CemoBAM(
    gat_last="single",
    gat_norm="shared",
    gat_first_dropout=False,
    stream_output="linear_residual_dropout",
    channel_gate="sum_of_sigmoids",
    spatial_axis="channels",
)
"""The model of the authors' code."""

# The authors call an attention by its key: in "text_attention" the query is audio. The same holds for its Linear,
# LayerNorm and CBAM.
_NAMES = (
    (r"(audio|text)_projection\.", r"\1_projection.layers."),
    (r"gnn\.conv1\.", "chgat.hidden.0."),
    (r"gnn\.convs\.(\d+)\.", lambda match: f"chgat.hidden.{int(match[1]) + 1}."),
    (r"gnn\.conv_last\.", "chgat.last."),
    (r"gnn\.batch_norm\.", "chgat.norms.0."),
    (r"cross_fusion\.text_attention\.", "xcbam.audio_to_text.attention."),
    (r"cross_fusion\.audio_attention\.", "xcbam.text_to_audio.attention."),
    (r"cross_fusion\.text_linear\.", "xcbam.audio_to_text.linear."),
    (r"cross_fusion\.audio_linear\.", "xcbam.text_to_audio.linear."),
    (r"cross_fusion\.text_layer_norm\.", "xcbam.audio_to_text.norm."),
    (r"cross_fusion\.audio_layer_norm\.", "xcbam.text_to_audio.norm."),
    (r"cross_fusion\.cbam_text\.channel_attention_mlp\.", "xcbam.audio_cbam.channel.mlp."),
    (r"cross_fusion\.cbam_audio\.channel_attention_mlp\.", "xcbam.text_cbam.channel.mlp."),
    (r"cross_fusion\.cbam_text\.spatial_attention\.0\.", "xcbam.audio_cbam.spatial.conv."),
    (r"cross_fusion\.cbam_audio\.spatial_attention\.0\.", "xcbam.text_cbam.spatial.conv."),
    (r"mlp\.", "classifier."),
)


def our_name(theirs: str) -> str | None:
    """Return our name of one of the authors' parameters or buffers, or ``None`` if it is unknown.

    Args:
        theirs: Name in the authors' state dict. Our names are those of ``CemoBAMNetwork``.
    """
    for pattern, ours in _NAMES:
        if re.match(pattern, theirs):
            return re.sub(f"^{pattern}", ours, theirs)
    return None


def model_from_released(state: Mapping[str, Tensor], fusion: Fusion, *, source: str = "state") -> CemoBAMNetwork:
    """Return the model of the profile ``released`` with the authors' weights, in evaluation mode.

    Args:
        state: State dict with the authors' names.
        fusion: Fusion strategy, which the checkpoint does not record.
        source: Name of the checkpoint in error messages.

    Raises:
        InputError: Weights are missing, unknown or do not fit together.
    """
    system, sizes, ours = _fitted(state, fusion, source)
    model = system.build(sizes)
    model.load_state_dict(ours)
    return model.eval()


def _fitted(state: Mapping[str, Tensor], fusion: Fusion, source: str) -> tuple[CemoBAM, Sizes, dict[str, Tensor]]:
    """Return the system, its sizes and the weights under our names, after checks that take no memory."""
    system, sizes = _system_and_sizes(state, fusion, source)
    ours: dict[str, Tensor] = {}
    for theirs, value in state.items():
        name = our_name(theirs)
        if name is None:
            raise InputError(f"{source}: {theirs!r} is not a part of the released model")
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise InputError(f"{source}: {theirs!r} holds NaN or infinity; get the checkpoint again")
        ours[name] = value
    for i in range(1, system.gat_layers - 1):  # one batch norm, listed under each layer that uses it
        ours |= {n.replace("norms.0", f"norms.{i}"): v for n, v in ours.items() if n.startswith("chgat.norms.0.")}
    with torch.device("meta"):  # the sizes may be made up
        expected = system.build(sizes).state_dict()
    for name, value in expected.items():
        if name not in ours:
            raise InputError(f"{source}: no weight for {name!r}; is it a checkpoint of the released model?")
        if ours[name].shape != value.shape:
            raise InputError(
                f"{source}: {name!r} is {tuple(ours[name].shape)}, but the other weights need {tuple(value.shape)}"
            )
    if unknown := sorted(ours.keys() - expected.keys()):
        raise InputError(f"{source}: {unknown[0]!r} is not a part of the released model")
    return system, sizes, ours


def load_released_checkpoint(path: Path, fusion: Fusion) -> CemoBAMNetwork:
    """Read a ``.pt`` file that the authors published. Only weights are read, and no code in the file is run.

    The file may be a state dict or hold one under ``model_state_dict``, ``state_dict`` or ``model``.

    Raises:
        InputError: The file cannot be read in this way, or is not a checkpoint of the released model.
    """
    state, _ = walled(_state, path, fusion)
    return model_from_released(state, fusion, source=str(path))


def _state(path: Path, fusion: Fusion) -> Content:
    """Return the state dict of a checkpoint that fits the released model."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a broken file can raise any exception
        said = " ".join(str(error).split())
        reason = (
            re.sub(".*WeightsUnpickler error: ", "", said)[:120] or type(error).__name__
        )  # torch gives advice first
        raise InputError(f"{path}: cannot be read as a checkpoint of weights only ({reason})") from None
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path}: contains no state dict; give a checkpoint of the released model")
    for name, value in content.items():
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu":
            raise InputError(f"{path}: {name!r} is not made of plain numbers; give a checkpoint of the released model")
    _fitted(content, fusion, str(path))
    return content, None


def _system_and_sizes(state: Mapping[str, Tensor], fusion: Fusion, source: str) -> tuple[CemoBAM, Sizes]:
    """Return the system and its sizes, derived from the shapes of the weights."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        hidden_dim, audio_dim = shapes["audio_projection.0.weight"]
        _, text_dim = shapes["text_projection.0.weight"]
        _, heads, _ = shapes["gnn.conv1.att_src"]
        (num_classes,) = shapes["mlp.4.bias"]
        squeezed, _ = shapes["cross_fusion.cbam_audio.channel_attention_mlp.0.weight"]
        _, _, kernel = shapes["cross_fusion.cbam_audio.spatial_attention.0.weight"]
    except (KeyError, ValueError) as error:
        raise InputError(f"{source}: not a checkpoint of the released model ({error} is missing or invalid)") from None
    if 0 in (hidden_dim, heads, audio_dim, text_dim, num_classes, squeezed, kernel):
        raise InputError(f"{source}: not a checkpoint of the released model (a weight holds no numbers)")
    middle = {match[1] for name in shapes if (match := re.match(r"gnn\.convs\.(\d+)\.", name))}
    system = replace(
        RELEASED,
        hidden_dim=hidden_dim,
        heads=heads,
        gat_layers=2 + len(middle),
        cbam_kernel=kernel,
        cbam_reduction=max(1, hidden_dim // max(1, squeezed)),
        fusion=fusion,
    )
    return system, Sizes(audio_dim=audio_dim, text_dim=text_dim, num_classes=num_classes)
