"""Every number of the method, and the profiles: named readings of the paper.

The paper's text leaves gaps (projection, dropout, weight decay, epochs …). Each default below says in the README's
table whether it is the paper's or comes from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

from cemobam_core.errors import InputError

Fusion = Literal["cls", "min", "max", "mean"]
Modules = Literal["full", "no_xcbam", "no_chgat"]
Precision = Literal["fp32", "tf32", "bf16"]
GatherFrom = Literal["chosen", "choosers"]
ChannelGate = Literal["sigmoid_of_sum", "sum_of_sigmoids"]
SpatialAxis = Literal["time", "channels"]
Split = Literal["val", "test"]
Metric = Literal["wa", "ua", "wf1"]

FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
MODULES: tuple[Modules, ...] = get_args(Modules)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

METHOD_VERSION = 2
"""Part of every trial's signature: raised whenever a change of the code changes a trial's numbers."""


def _check(config: object) -> None:
    """Check a configuration's values against its type hints and the ranges common to all of them."""
    hints = get_type_hints(type(config))
    for field in fields(config):  # type: ignore[arg-type]
        name, value = field.name, getattr(config, field.name)
        choices = get_args(hints[name])
        if choices and value not in choices:
            raise InputError(f"{name}={value!r} is not one of {', '.join(map(str, choices))}")
        if hints[name] is bool and not isinstance(value, bool):
            raise InputError(f"{name}={value!r} must be true or false")
        if hints[name] is int and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name}={value!r} must be a whole number of at least 1")
        if hints[name] is float and not 0 <= value < float("inf"):
            raise InputError(f"{name}={value!r} must be a finite number of at least 0")


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Choices of the graph, beside its two K; the defaults are the profile ``paper``.

    Args:
        gather_from: a node gathers from those it has ``chosen`` (Eq. 2), or from the ``choosers`` that chose it.

    Raises:
        InputError: an unknown choice.
    """

    gather_from: GatherFrom = "chosen"

    def __post_init__(self) -> None:  # noqa: D105
        _check(self)


@dataclass(frozen=True, kw_only=True)
class CemoBAMConfig:
    """Sizes and choices of the model; the defaults are the profile ``paper``.

    Args:
        num_classes: C, the number of emotions.
        audio_dim: size of an audio embedding (768 for wav2vec 2.0 base).
        text_dim: size of a text embedding (768 for BERT base).
        hidden_dim: d, the size of the projected features.
        heads: H, attention heads in the GAT layers and in the cross-modal transformer.
        gat_layers: GAT layers; the last averages its heads, the others concatenate them.
        dropout: probability used wherever the model has dropout.
        fusion: how the two cross-modal streams become one vector.
        modules: ``full``, or the ablation without xCBAM or without CH-GAT.
        cbam_kernel: kernel of 1D-CBAM's spatial convolution (Eq. 4), odd.
        cbam_reduction: reduction of 1D-CBAM's channel MLP (Eq. 3).
        gat_last: the last GAT layer's heads are ``averaged``, or it has a ``single`` one.
        gat_norm: each hidden GAT layer has its ``own`` batch norm, or all have one ``shared``.
        gat_first_dropout: whether dropout follows the first GAT layer, as it does the other hidden ones.
        stream_output: what makes a stream of an attention's answer: the ``residual`` and LayerNorm, or a
            ``linear_residual_dropout``: Linear, residual and LayerNorm, dropout.
        channel_gate: Eq. 3's gate is the ``sigmoid_of_sum``, or the ``sum_of_sigmoids`` (between 0 and 2).
        spatial_axis: Eq. 4's convolution runs along ``time``, or along the ``channels``.

    Raises:
        InputError: a value out of range.
    """

    num_classes: int = 4
    audio_dim: int = 768
    text_dim: int = 768
    hidden_dim: int = 512
    heads: int = 4
    gat_layers: int = 3
    dropout: float = 0.3
    fusion: Fusion = "min"
    modules: Modules = "full"
    cbam_kernel: int = 7
    cbam_reduction: int = 16
    gat_last: Literal["averaged", "single"] = "averaged"
    gat_norm: Literal["own", "shared"] = "own"
    gat_first_dropout: bool = True
    stream_output: Literal["residual", "linear_residual_dropout"] = "residual"
    channel_gate: ChannelGate = "sigmoid_of_sum"
    spatial_axis: SpatialAxis = "time"

    def __post_init__(self) -> None:  # noqa: D105
        _check(self)
        if self.hidden_dim % self.heads:
            raise InputError(f"hidden_dim={self.hidden_dim} must be a multiple of heads={self.heads}")
        if self.dropout >= 1:
            raise InputError(f"dropout={self.dropout} must be less than 1")
        if self.gat_norm == "shared" and self.gat_layers < 2:
            raise InputError("gat_norm='shared' needs hidden layers: gat_layers of at least 2")
        if self.cbam_kernel % 2 == 0:
            raise InputError(f"cbam_kernel={self.cbam_kernel} must be odd, so that a step keeps its place")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one model is trained; the defaults are the profile ``paper``.

    Full batch: one step of Adam on the cross entropy of all training utterances is one epoch.

    Args:
        epochs: steps in all; metrics are those after the last.
        lr: Adam's initial learning rate.
        weight_decay: Adam's L2 penalty.
        schedule: the rate is multiplied by ``lr_gamma`` in ``step``s, every ``lr_step`` epochs, or at a ``plateau``,
            when the validation loss has not fallen for ``lr_patience`` epochs.
        lr_step: see ``schedule``.
        lr_gamma: see ``schedule``.
        lr_patience: see ``schedule``.
        train_mode: the model is in training mode (dropout, batch statistics) in ``every_epoch``, or in the
            ``first_epoch`` alone: from the second on it learns in evaluation mode.
        batch_norm: what evaluation normalises with: statistics ``settled`` on the train split under the weights as
            they are, or the ``running`` averages that training left.
        precision: ``fp32``; ``tf32``, matrix products in TF32 (CUDA alone); ``bf16``, autocast to bfloat16.

    Raises:
        InputError: a value out of range.
    """

    epochs: int = 100
    lr: float = 1e-4
    weight_decay: float = 5e-4
    schedule: Literal["step", "plateau"] = "step"
    lr_step: int = 30
    lr_gamma: float = 0.1
    lr_patience: int = 15
    train_mode: Literal["every_epoch", "first_epoch"] = "every_epoch"
    batch_norm: Literal["settled", "running"] = "settled"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:  # noqa: D105
        _check(self)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A named reading of the method, as data.

    Attributes:
        name: as ``--profile`` takes it.
        graph: which way the graph points.
        model: what the model is.
        training: how it is trained and evaluated.
        select_on: the split that chooses the K pair.
        select_by: the metric that does.
    """

    name: str
    graph: GraphConfig
    model: CemoBAMConfig
    training: TrainingConfig
    select_on: Split
    select_by: Metric


PAPER = Profile(
    name="paper",
    graph=GraphConfig(),
    model=CemoBAMConfig(),
    training=TrainingConfig(),
    select_on="val",
    select_by="wa",
)

RELEASED = Profile(
    name="released",
    graph=GraphConfig(gather_from="choosers"),
    model=CemoBAMConfig(
        gat_last="single",
        gat_norm="shared",
        gat_first_dropout=False,
        stream_output="linear_residual_dropout",
        channel_gate="sum_of_sigmoids",
        spatial_axis="channels",
    ),
    training=TrainingConfig(
        schedule="plateau", lr_gamma=0.5, lr_patience=15, train_mode="first_epoch", batch_norm="running"
    ),
    select_on="test",
    select_by="wf1",
)
"""The authors' released code, as its grid search runs: what it does, not what it should."""

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (PAPER, RELEASED)}
