"""Which models can be stacked, and the reasons given for the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from batches import READINGS, SIZES, any_batch, graphs_of, system_of
from pairwise import pairwise
from torch import Tensor, nn
from torch.nn import functional as F

from cemobam_core import InputError, Inputs, NeuralSystem, Sizes, TrainingConfig, train
from cemobam_core.operators.cross_modal import CrossModalAttention
from cemobam_core.operators.fusion import FUSIONS
from cemobam_core.operators.graph_attention import GraphAttention
from cemobam_core.operators.projection import Projection
from cemobam_core.systems.cemobam import MODULES
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.systems.gcn import GCN
from cemobam_core.training import loop
from cemobam_core.training.loop import TrainingResult, stackable, train_together
from cemobam_core.training.stacks import why_alone

E, D, C = SIZES.audio_dim, 8, SIZES.num_classes


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    loop._STACKABLE.clear()
    loop._warn_once.cache_clear()
    yield
    loop._STACKABLE.clear()
    loop._warn_once.cache_clear()


def why(build: Callable[[], nn.Module], steps: tuple[int, int] = (0, 0)) -> str:
    before = torch.get_rng_state()
    told = why_alone(build, any_batch(16, steps, 0).inputs)
    assert torch.equal(torch.get_rng_state(), before)
    return told


class Net(nn.Module):
    """A user's network: Linear, the part under test, Linear."""

    def __init__(self, between: Callable[[Tensor], Tensor] | None = None, **modules: nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(E, D), nn.Linear(D, C)
        for name, module in modules.items():
            self.add_module(name, module)
        self.between = between

    def forward(self, inputs: Inputs) -> Tensor:
        hidden = self.first(inputs.audio.pooled)
        for name, module in self._modules.items():
            if name not in ("first", "last"):
                hidden = module(hidden)
        if self.between is not None:
            hidden = self.between(hidden)
        out: Tensor = self.last(hidden)
        return out


class Attending(nn.Module):
    """torch's attention between our operators, called as in torch's documentation."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.text = (
            Projection(in_dim=dim, out_dim=D, dropout=0.3) for dim in (SIZES.audio_dim, SIZES.text_dim)
        )
        self.own = nn.MultiheadAttention(D, 2, dropout=0.1, batch_first=True)
        self.cross = CrossModalAttention(dim=D, heads=2, dropout=0.1)
        self.graph = GraphAttention(D, C, heads=2, concat=False)

    def forward(self, inputs: Inputs) -> Tensor:
        audio, text = self.audio(inputs.audio), self.text(inputs.text)
        text, _ = self.own(text, text, text, key_padding_mask=~inputs.text.mask)
        out: Tensor = self.graph(self.cross(audio, text, inputs.text.mask)[..., 0, :], inputs.edge_index)
        return out


@pairwise(reading=sorted(READINGS), modules=MODULES, fusion=FUSIONS, steps=[(0, 0), (4, 0), (0, 3), (4, 3)])
def test_cemobam_can_be_stacked_in_every_variant(
    reading: str, modules: str, fusion: str, steps: tuple[int, int]
) -> None:
    assert not why(lambda: system_of(reading, modules=modules, fusion=fusion, hidden_dim=16).build(SIZES), steps)


@pytest.mark.parametrize("steps", [(0, 0), (4, 3)])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_perceptron_can_be_stacked(layers: int, steps: tuple[int, int]) -> None:
    assert not why(lambda: ConcatMLP(hidden_dim=8, layers=layers).build(SIZES), steps)


def twice() -> nn.Module:
    one = nn.Linear(D, D)
    return Net(several=nn.Sequential(one, nn.ReLU(), one), one=one)


STACKED: dict[str, Callable[[], nn.Module]] = {
    "elementwise": lambda: Net(lambda x: F.gelu(x) * x.sigmoid(), act=nn.SiLU()),
    "over the last axis": lambda: Net(lambda x: F.normalize(x.softmax(dim=-1), dim=-1), norm=nn.LayerNorm(D)),
    "modules that do the same": lambda: Net(soft=nn.Softmax(dim=-1), drop=nn.Dropout(0.5), none=nn.Identity()),
    "options of a batch norm": lambda: Net(norm=nn.BatchNorm1d(D, eps=0.1, momentum=0.5)),
    "a plain average": lambda: Net(norm=nn.BatchNorm1d(D, momentum=None)),
    "a module called twice": twice,
    "no bias": lambda: Net(linear=nn.Linear(D, D, bias=False)),
    "nested": lambda: Net(deep=nn.Sequential(nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D)), nn.ReLU())),
    "dropout of all": lambda: Net(lambda x: x + 1, drop=nn.Dropout(0.0)),
    "an unused layer": lambda: Net(holder=Holding(nn.Linear(3, 4))),
}


class Holding(nn.Module):
    """A network with an unused layer."""

    def __init__(self, held: nn.Module) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("name", STACKED)
def test_what_is_written_for_any_axes_can_be_stacked(name: str) -> None:
    assert why(STACKED[name]) == ""


@pytest.mark.parametrize("steps", [(0, 0), (4, 3)])
def test_a_users_network_of_our_operators_and_torchs_attention_can_be_stacked(steps: tuple[int, int]) -> None:
    assert why(Attending, steps) == ""


class Scale(nn.Module):
    """A user's own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(D))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Scaled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(D))


class Centred(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(D))


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Kind(nn.Linear):
    pass


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.GRU(E, D, batch_first=True), nn.Linear(D, C)

    def forward(self, inputs: Inputs) -> Tensor:
        out: Tensor = self.last(self.rnn(inputs.audio)[0][:, -1])
        return out


def tied() -> nn.Module:
    net = Net(one=nn.Linear(D, D), two=nn.Linear(D, D))
    net.two.weight = net.one.weight  # type: ignore[union-attr, assignment]
    return net


def changed(net: nn.Module, change: Callable[[Any], object]) -> nn.Module:
    change(net)
    return net


class Unlisted(Net):
    """A network that stores a layer where torch does not find it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(D, D).double()]
        self.between = self.hidden

    def hidden(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.layers[0](x)
        return hidden


class ByHand(Net):
    def __init__(self) -> None:
        super().__init__(linear=nn.Linear(D, D, bias=False))

    def forward(self, inputs: Inputs) -> Tensor:
        hidden = F.linear(self.first(inputs.audio.pooled), self.linear.weight)  # type: ignore[union-attr, arg-type]
        out: Tensor = self.last(hidden)
        return out


class Keeping(Net):
    """A network that stores a moving average where torch does not find it."""

    kept: Tensor | None = None

    def forward(self, inputs: Inputs) -> Tensor:
        hidden = self.first(inputs.audio.pooled)
        if self.training:
            self.kept = hidden.detach() if self.kept is None else 0.5 * (self.kept + hidden.detach())
        out: Tensor = self.last(hidden if self.kept is None else hidden + self.kept)
        return out


class Weighing(Net):
    """A network that uses the attention weights, which a stack does not return."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, 2, batch_first=True)

    def forward(self, inputs: Inputs) -> Tensor:
        hidden = self.first(inputs.audio.pooled).unsqueeze(-2)
        answer, weights = self.attention(hidden, hidden, hidden)
        out: Tensor = self.last((answer * weights).squeeze(-2))
        return out


class Both(Net):
    def forward(self, inputs: Inputs) -> Any:
        return super().forward(inputs), None


class FirstGraph(Net):
    """A network that uses only the edges of the first graph."""

    def forward(self, inputs: Inputs) -> Tensor:
        n = len(inputs)
        source, target = inputs.edge_index[:, inputs.edge_index.amax(dim=0) < n]
        hidden = self.first(inputs.audio.pooled)
        gathered = torch.zeros_like(hidden).index_add(-2, target, hidden.index_select(-2, source))
        out: Tensor = self.last(gathered)
        return out


def halves(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, -1))  # (N, 2, D / 2)


OTHERWISE = "its forward is written for one model"
WEIGHTS = "whose weights or buffers have no batched form"
FORM = "which has no batched form"
OPTIONS = "with options that have no batched form"
ALONE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a recurrent layer": (Recurrent, f"rnn is a GRU, {WEIGHTS}"),
    "a bare parameter": (Scaled, f"the model is a Scaled, {WEIGHTS}"),
    "a buffer": (Centred, f"the model is a Centred, {WEIGHTS}"),
    "a list of parameters": (
        lambda: Net(held=Holding(nn.ParameterList([torch.ones(3)]))),
        f"held.held is a ParameterList, {WEIGHTS}",
    ),
    "a layer of its own": (lambda: Net(scale=Scale()), f"scale is a Scale, {WEIGHTS}"),
    "a layer without weights": (lambda: Net(twice=Twice()), f"twice is a Twice, {FORM}"),
    "a kind of Linear": (lambda: Net(kind=Kind(D, D)), f"kind is a Kind, {WEIGHTS}"),
    "a lazy layer": (lambda: Net(lazy=nn.LazyLinear(D)), f"lazy is a LazyLinear, {WEIGHTS}"),
    "an embedding": (lambda: Net(held=Holding(nn.Embedding(3, D))), f"held.held is a Embedding, {WEIGHTS}"),
    "a bilinear layer": (lambda: Net(held=Holding(nn.Bilinear(D, D, D))), f"held.held is a Bilinear, {WEIGHTS}"),
    "channels dropped": (lambda: Net(drop=nn.Dropout1d()), f"drop is a Dropout1d, {FORM}"),
    "alpha dropout": (lambda: Net(drop=nn.AlphaDropout()), f"drop is a AlphaDropout, {FORM}"),
    "a random slope": (lambda: Net(act=nn.RReLU()), f"act is a RReLU, {FORM}"),
    "a learnt slope": (lambda: Net(act=nn.PReLU()), f"act is a PReLU, {WEIGHTS}"),
    "a graph convolution": (lambda: GCN(hidden_dim=D).build(SIZES), f"convolutions.0 is a GCNConv, {WEIGHTS}"),
    "a parametrized weight": (
        lambda: Net(linear=nn.utils.parametrizations.weight_norm(nn.Linear(D, D))),
        f"linear is a ParametrizedLinear, {WEIGHTS}",
    ),
    "batch norm without weights": (lambda: Net(norm=nn.BatchNorm1d(D, affine=False)), f"BatchNorm1d, {OPTIONS}"),
    "batch norm without statistics": (
        lambda: Net(norm=nn.BatchNorm1d(D, track_running_stats=False)),
        f"BatchNorm1d, {OPTIONS}",
    ),
    "layer norm without weights": (
        lambda: Net(norm=nn.LayerNorm(D, elementwise_affine=False)),
        f"LayerNorm, {OPTIONS}",
    ),
    "layer norm without bias": (lambda: Net(norm=nn.LayerNorm(D, bias=False)), f"LayerNorm, {OPTIONS}"),
    "layer norm over two axes": (lambda: Net(held=Holding(nn.LayerNorm((2, D)))), f"LayerNorm, {OPTIONS}"),
    "a strided convolution": (
        lambda: Net(held=Holding(nn.Conv1d(2, 1, 3, stride=2, padding=1, bias=False))),
        f"Conv1d, {OPTIONS}",
    ),
    "a convolution with a bias": (lambda: Net(held=Holding(nn.Conv1d(2, 1, 3, padding=1))), f"Conv1d, {OPTIONS}"),
    "a convolution to two planes": (
        lambda: Net(held=Holding(nn.Conv1d(2, 2, 3, padding=1, bias=False))),
        f"Conv1d, {OPTIONS}",
    ),
    "a convolution without padding": (lambda: Net(held=Holding(nn.Conv1d(2, 1, 3, bias=False))), f"Conv1d, {OPTIONS}"),
    "a convolution padded in a circle": (
        lambda: Net(held=Holding(nn.Conv1d(2, 1, 3, padding=1, padding_mode="circular", bias=False))),
        f"Conv1d, {OPTIONS}",
    ),
    "attention over time first": (lambda: Net(held=Holding(nn.MultiheadAttention(D, 2))), f"Attention, {OPTIONS}"),
    "attention with another key": (
        lambda: Net(held=Holding(nn.MultiheadAttention(D, 2, kdim=3, batch_first=True))),
        f"Attention, {OPTIONS}",
    ),
    "attention with a key of its own": (
        lambda: Net(held=Holding(nn.MultiheadAttention(D, 2, add_bias_kv=True, batch_first=True))),
        f"Attention, {OPTIONS}",
    ),
    "a tied weight": (tied, "two of its modules share a weight"),
    "a frozen weight": (
        lambda: changed(Net(), lambda net: net.first.weight.requires_grad_(False)),
        "first is a Linear, which has a frozen weight",
    ),
    "a hook": (
        lambda: changed(Net(), lambda net: net.first.register_forward_hook(lambda *x: 2 * x[-1])),
        "first is a Linear, which has hooks",
    ),
    "a hook on the way back": (
        lambda: changed(Net(), lambda net: net.first.register_full_backward_hook(lambda *_: None)),
        "first is a Linear, which has hooks",
    ),
    "a hook of a weight": (
        lambda: changed(Net(), lambda net: net.first.weight.register_hook(lambda gradient: 0.5 * gradient)),
        f"{OTHERWISE}: in a stack, the gradient of first.weight differs",
    ),
    "a forward of its own": (
        lambda: changed(Net(), lambda net: setattr(net.first, "forward", lambda x: torch.ones(len(x), D).double())),
        OTHERWISE,
    ),
    "dropout by hand": (lambda: Net(F.dropout), "its forward draws random numbers itself; use nn.Dropout"),
    "a little noise": (lambda: Net(lambda x: x + 1e-12 * torch.randn_like(x)), "draws random numbers itself"),
    "the second axis": (lambda: Net(lambda x: torch.cat([halves(x)[:, 0], halves(x)[:, 1]], dim=1)), OTHERWISE),
    "flattened from the second axis": (lambda: Net(lambda x: halves(x).flatten(1)), OTHERWISE),
    "a softmax over the first axis": (
        lambda: Net(lambda x: x.softmax(dim=0)),
        f"{OTHERWISE}: in a stack, the logits differ",
    ),
    "a softmax over the second axis": (lambda: Net(lambda x: x.softmax(dim=1)), f"{OTHERWISE}: in a stack, "),
    "a softmax module over the second axis": (lambda: Net(soft=nn.Softmax(dim=1)), f"{OTHERWISE}: in a stack, "),
    "the mean of all": (lambda: Net(lambda x: x - x.mean()), f"{OTHERWISE}: in a stack, the logits differ"),
    "the mean of the utterances": (
        lambda: Net(lambda x: x - x.mean(dim=0)),
        f"{OTHERWISE}: in a stack, the logits differ",
    ),
    "the norm of all": (lambda: Net(lambda x: x / x.norm()), f"{OTHERWISE}: in a stack, the logits differ"),
    "a number of rows": (lambda: Net(lambda x: x * len(x)), f"{OTHERWISE}: in a stack, the logits differ"),
    "a hidden mean": (
        lambda: Net(lambda x: x + (x.mean() - x.mean().detach())),
        f"{OTHERWISE}: in a stack, the gradient of ",
    ),
    "batch norm over steps": (
        lambda: Net(lambda x: x.squeeze(-1), steps=nn.Unflatten(-1, (D, 1)), norm=nn.BatchNorm1d(D)),
        f"steps is a Unflatten, {FORM}",
    ),
    "a weight used by hand": (ByHand, OTHERWISE),
    "a layer that is not listed": (Unlisted, f"{OTHERWISE}: in a stack, the logits differ"),
    "something kept": (Keeping, "it keeps numbers that are not in its state"),
    "attention's weights": (Weighing, OTHERWISE),
    "more than logits": (Both, OTHERWISE),
    "one graph for all": (FirstGraph, f"{OTHERWISE}: in a stack, the logits differ"),
    "no number": (lambda: Net(lambda x: x / 0), f"{OTHERWISE}: in a stack, the logits differ"),
}


@pytest.mark.parametrize("name", ALONE)
def test_what_cannot_be_stacked_is_told_in_words(name: str) -> None:
    build, words = ALONE[name]
    assert words in why(build)


class PerUtterance(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(E, C)

    def forward(self, inputs: Inputs) -> Tensor:
        out: Tensor = self.last(inputs.audio.pooled).view(len(inputs), -1)
        return out


@dataclass(frozen=True, kw_only=True)
class Alone(NeuralSystem):
    """A user's system that cannot be stacked, because it has its own dropout."""

    width: int = D

    def build(self, sizes: Sizes) -> nn.Module:
        return nn.Sequential(PerUtterance(), nn.Dropout(0.2), Twice())


def test_a_view_of_the_utterances_is_for_one_model() -> None:
    assert OTHERWISE in why(PerUtterance)


def test_what_cannot_be_stacked_is_trained_alone_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    splits = [{"train": batch, "val": batch} for batch in graphs_of(30, (0, 0), 0, torch.float32, 3)]
    training = TrainingConfig(epochs=4, lr=1e-2)
    with caplog.at_level(logging.WARNING, logger="cemobam_core"):
        together = train_together(Alone(), splits, training=training, seeds=[5, 6, 7])
        train_together(Alone(), splits, training=training, seeds=[5, 6, 7])
        train_together(Alone(width=9), splits, training=training, seeds=[5, 6, 7])
    assert [record.message for record in caplog.records] == [
        "Alone is trained one model at a time, not as a stack: 2 is a Twice, which has no batched form"
    ]
    for result, split, seed in zip(together, splits, (5, 6, 7), strict=True):
        alone = train(Alone(), split, training=training, seed=seed)
        assert isinstance(result, TrainingResult)
        assert (result.metrics, result.curve) == (alone.metrics, alone.curve)
        assert isinstance(result.model, nn.Module)
        assert isinstance(alone.model, nn.Module)
        theirs = alone.model.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in result.model.state_dict().items())


def test_a_single_model_on_the_cpu_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "why_alone", lambda *_: pytest.fail("it was tried"))
    batch = any_batch(30, (0, 0), 0)
    train(Alone(), {"train": batch, "val": batch}, training=TrainingConfig(epochs=1))


class ForPadding(nn.Module):
    """A network that supports only one model if there is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(E, C)

    def forward(self, inputs: Inputs) -> Tensor:
        logits: Tensor = self.last(inputs.audio.pooled)
        return logits.view(len(inputs), -1) if inputs.audio.padded else logits


@dataclass(frozen=True, kw_only=True)
class WithPadding(NeuralSystem):
    """A system that treats padding differently."""

    def build(self, sizes: Sizes) -> nn.Module:
        return ForPadding()


def test_each_split_is_tried_if_its_steps_are_of_another_kind() -> None:
    whole, padded = any_batch(20, (0, 0), 0), any_batch(20, (4, 0), 0)
    assert stackable(WithPadding(), [whole])
    assert not stackable(WithPadding(), [whole, padded])


def test_a_trial_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(loop, "why_alone", lambda *given: tried.append(given) or "")
    for system in (ConcatMLP(), ConcatMLP(), ConcatMLP(hidden_dim=8)):
        assert stackable(system, [any_batch(20, (0, 0), seed) for seed in range(3)])
    assert len(tried) == 2


def test_the_users_mistake_is_told_by_the_training(caplog: pytest.LogCaptureFixture) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong(NeuralSystem):
        """A system that returns more than logits."""

        def build(self, sizes: Sizes) -> nn.Module:
            return Both()

    splits = [{"train": batch, "val": batch} for batch in graphs_of(20, (0, 0), 0, torch.float32, 2)]
    with pytest.raises(InputError, match=r"Both: forward returned a tuple; return logits \(20, 3\)"):
        train_together(Wrong(), splits, training=TrainingConfig(epochs=1), seeds=[1, 2])
