"""The profile ``released``, compared with values recorded from the authors' code and with a plain rewrite of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import READINGS
from safetensors.torch import load_file
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GATConv

from cemobam_core import Batch, Fold, InputError, Inputs, NeuralSystem, Sizes, TrainingConfig, train
from cemobam_core.operators.fusion import FUSIONS, Fusion
from cemobam_core.released import RELEASED, load_released_checkpoint, model_from_released, our_name
from cemobam_core.training import loop as training_module

TRAINING = READINGS["released"].training
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "released" / "golden"


@pytest.fixture(params=FUSIONS)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    path = GOLDEN / f"released_{request.param}.safetensors"
    if not path.exists():
        pytest.skip(f"the values recorded from the released code are not at hand ({path.name} beside the checkout)")
    tensors = load_file(path)
    parts: dict[str, Any] = {"fusion": request.param, "state": {}, "grad": {}}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if rest:
            parts[kind][rest] = value
        else:
            parts[name] = value
    return parts


def test_the_recorded_logits_loss_and_gradients_come_out(golden: dict[str, Any]) -> None:
    model = model_from_released(golden["state"], golden["fusion"])
    logits = model(Inputs.from_features(golden["audio"], golden["text"], golden["edge_index"]))
    torch.testing.assert_close(logits, golden["logits"], rtol=1e-5, atol=1e-5)
    loss = F.cross_entropy(logits, golden["labels"])
    torch.testing.assert_close(loss, golden["loss"], rtol=1e-5, atol=1e-5)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    named = {our_name(name): value for name, value in golden["grad"].items()}
    assert named.keys() == gradients.keys()
    for name, value in named.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-4, msg=name)


def test_a_checkpoint_file_is_read_and_its_sizes_inferred(golden: dict[str, Any], tmp_path: Path) -> None:
    for content in (golden["state"], {"model_state_dict": golden["state"], "epoch": 3}):
        torch.save(content, tmp_path / "best.pt")
        model = load_released_checkpoint(tmp_path / "best.pt", golden["fusion"])
        assert model.system == replace(RELEASED, hidden_dim=16, fusion=golden["fusion"])
        assert model.sizes == Sizes(audio_dim=768, text_dim=768, num_classes=4)
        logits = model(Inputs.from_features(golden["audio"], golden["text"], golden["edge_index"]))
        torch.testing.assert_close(logits, golden["logits"], rtol=1e-5, atol=1e-5)


class Theirs(nn.Module):
    """The released model, written from its description without any of our code."""

    def __init__(self, d: int, e: int, c: int, heads: int, middle: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.audio_projection = nn.Sequential(nn.Linear(e, d), nn.BatchNorm1d(d))
        self.text_projection = nn.Sequential(nn.Linear(e, d), nn.BatchNorm1d(d))
        self.gnn = nn.Module()
        self.gnn.conv1 = GATConv(2 * d, d, heads=heads)
        self.gnn.convs = nn.ModuleList(GATConv(heads * d, d, heads=heads) for _ in range(middle))
        self.gnn.conv_last = GATConv(heads * d, d, heads=1)
        self.gnn.batch_norm = nn.BatchNorm1d(heads * d)
        self.cross_fusion = nn.Module()
        for name in ("audio", "text"):
            setattr(self.cross_fusion, f"{name}_attention", nn.MultiheadAttention(d, heads, dropout, batch_first=True))
            setattr(self.cross_fusion, f"{name}_linear", nn.Linear(d, d))
            setattr(self.cross_fusion, f"{name}_layer_norm", nn.LayerNorm(d))
            cbam = nn.Module()
            cbam.channel_attention_mlp = nn.Sequential(
                nn.Linear(d, max(1, d // 16), bias=False), nn.ReLU(), nn.Linear(max(1, d // 16), d, bias=False)
            )
            cbam.spatial_attention = nn.Sequential(nn.Conv1d(2, 1, 7, padding=3, bias=False), nn.Sigmoid())
            setattr(self.cross_fusion, f"cbam_{name}", cbam)
        self.mlp = nn.Sequential(nn.Linear(2 * d, d), nn.LayerNorm(d), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d, c))

    def stream(self, query: Tensor, key: Tensor, name: str) -> Tensor:
        part = self.cross_fusion
        answer, _ = getattr(part, f"{name}_attention")(query[:, None], key[:, None], key[:, None])
        x = getattr(part, f"{name}_layer_norm")(getattr(part, f"{name}_linear")(answer[:, 0]) + query)
        x = self.dropout(x)
        cbam = getattr(part, f"cbam_{name}")
        x = x * (torch.sigmoid(cbam.channel_attention_mlp(x)) + torch.sigmoid(cbam.channel_attention_mlp(x)))
        return x * cbam.spatial_attention(torch.stack([x, x], dim=1))[:, 0]

    def forward(self, audio: Tensor, text: Tensor, edges: Tensor, fusion: Fusion) -> Tensor:
        a, t = (self.dropout(x.relu()) for x in (self.audio_projection(audio), self.text_projection(text)))
        h = F.leaky_relu(self.gnn.batch_norm(self.gnn.conv1(torch.cat([t, a], 1), edges)), 0.01)
        for conv in self.gnn.convs:
            h = self.dropout(F.leaky_relu(self.gnn.batch_norm(conv(h, edges)), 0.01)) + h
        h = self.gnn.conv_last(h, edges)
        both = torch.stack([self.stream(a, t, "text"), self.stream(t, a, "audio")])
        fused = {"cls": both[0], "min": both.amin(0), "max": both.amax(0), "mean": both.mean(0)}[fusion]
        return self.mlp(torch.cat([h, fused], 1))


@dataclass(frozen=True, kw_only=True)
class Given(NeuralSystem):
    """A system with a given network."""

    make: Any

    def build(self, sizes: Sizes) -> nn.Module:
        network: nn.Module = self.make()
        return network


def embeddings(batch: Batch, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return the inputs of their model: (N, E) of audio and of text."""
    return batch.inputs.audio.pooled.to(dtype), batch.inputs.text.pooled.to(dtype)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("middle", [1, 2])
def test_a_training_follows_theirs_for_30_epochs(
    small_fold: Fold, fusion: Fusion, middle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = {
        name: Batch.from_features(s, s.rank(3).edge_index(3, 2, gather_from="choosers"))
        for name, s in small_fold.splits.items()
    }
    torch.manual_seed(7)
    theirs = Theirs(16, 12, 4, 4, middle).double()
    start = {name: value.clone() for name, value in theirs.state_dict().items()}

    batch = batches["train"]
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.05, weight_decay=5e-4)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    expected, rates = [], []
    theirs.train()  # once, before the first epoch
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(theirs(*embeddings(batch, torch.float64), batch.inputs.edge_index, fusion), batch.labels)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
        theirs.eval()  # for the validation, and never reset
        val = batches["val"]
        with torch.no_grad():
            logits = theirs(*embeddings(val, torch.float64), val.inputs.edge_index, fusion)
            plateau.step(F.cross_entropy(logits, val.labels).item())
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[-1] < 0.05  # the schedule has changed the rate

    ours: list[float] = []

    def with_their_weights() -> nn.Module:
        model = model_from_released(start, fusion).double()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
        return model

    plain_epoch = training_module.train_epoch

    def recorded(*arguments: Any) -> Tensor:
        ours.append(plain_epoch(*arguments).item())
        return torch.tensor(ours[-1])

    monkeypatch.setattr(training_module, "train_epoch", recorded)
    double = {name: replace(b, inputs=b.inputs.to("cpu", torch.float64)) for name, b in batches.items()}
    train(Given(make=with_their_weights), double, training=replace(TRAINING, epochs=30, lr=0.05, lr_patience=3))
    assert ours == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_with_dropout_the_losses_are_theirs_in_distribution(small_fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = {
        name: Batch.from_features(s, s.rank(3).edge_index(3, 2, gather_from="choosers"))
        for name, s in small_fold.splits.items()
    }
    batch = batches["train"]
    torch.manual_seed(7)
    start = {name: value.clone() for name, value in Theirs(16, 12, 4, 4, 1).state_dict().items()}
    runs, epochs = 120, 3

    theirs = []
    for seed in range(runs):
        model = Theirs(16, 12, 4, 4, 1, dropout=0.3)
        model.load_state_dict(start)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
        torch.manual_seed(10_000 + seed)
        losses = []
        for _ in range(epochs):
            optimizer.zero_grad()
            logits = model(*embeddings(batch), batch.inputs.edge_index, "mean")
            loss = F.cross_entropy(logits, batch.labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            model.eval()
        theirs.append(losses)

    ours: list[list[float]] = []
    plain_epoch = training_module.train_epoch

    def recorded(*arguments: Any) -> Tensor:
        loss = plain_epoch(*arguments)
        ours[-1].append(loss.item())
        return loss

    system = Given(make=lambda: model_from_released(start, "mean"))
    monkeypatch.setattr(training_module, "train_epoch", recorded)
    for seed in range(runs):
        ours.append([])
        train(system, batches, training=replace(TRAINING, epochs=epochs, lr=0.01), seed=seed)
    for epoch in range(epochs):
        mine, reference = ([losses[epoch] for losses in side] for side in (ours, theirs))
        assert stats.ks_2samp(mine, reference).pvalue > 0.01
        assert len(set(mine)) == runs  # dropout was active


def test_dropout_is_theirs_in_the_first_epoch_alone(small_fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = {name: Batch.from_features(s, s.rank(3).edge_index(3, 2)) for name, s in small_fold.splits.items()}
    modes: list[bool] = []
    plain_epoch = training_module.train_epoch

    def watched(model: nn.Module, *rest: Any) -> Tensor:
        modes.append(any(module.training for module in model.modules()))
        return plain_epoch(model, *rest)

    monkeypatch.setattr(training_module, "train_epoch", watched)
    system = replace(RELEASED, hidden_dim=8, heads=2)
    train(system, batches, training=replace(TRAINING, epochs=4))
    assert modes == [True, False, False, False]
    modes.clear()
    train(system, batches, training=TrainingConfig(epochs=4))
    assert modes == [True] * 4


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(("heads", "middle"), [(2, 1), (4, 2), (2, 2)])
def test_a_checkpoint_of_two_heads_or_four_layers_gives_their_logits_and_gradients(
    small_fold: Fold, tmp_path: Path, heads: int, middle: int, fusion: Fusion
) -> None:
    split = small_fold.test
    batch = Batch.from_features(split, split.rank(3).edge_index(3, 2, gather_from="choosers"))
    torch.manual_seed(heads + middle)
    theirs = Theirs(16, 12, 4, heads, middle)
    for _ in range(3):
        theirs(*embeddings(batch), batch.inputs.edge_index, fusion)  # random statistics
    torch.save(theirs.state_dict(), tmp_path / "best.pt")
    expected = theirs.eval()(*embeddings(batch), batch.inputs.edge_index, fusion)
    F.cross_entropy(expected, batch.labels).backward()
    gradients = {our_name(name): parameter.grad for name, parameter in theirs.named_parameters()}
    ours = load_released_checkpoint(tmp_path / "best.pt", fusion)
    assert (ours.system.heads, ours.system.gat_layers) == (heads, middle + 2)
    logits = ours(batch.inputs)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    F.cross_entropy(logits, batch.labels).backward()
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)


def spoilt(state: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


def test_a_checkpoint_that_is_something_else_is_named(tmp_path: Path) -> None:
    state = Theirs(16, 12, 4, 4, 1).state_dict()
    path = tmp_path / "best.pt"

    def refused(content: object, message: str) -> None:
        torch.save(content, path)
        with pytest.raises(InputError, match=message) as caught:
            load_released_checkpoint(path, "min")
        assert str(path) in str(caught.value)

    refused([1, 2], "contains no state dict")
    refused({"a": torch.zeros(1)}, "'audio_projection.0.weight' is missing")
    refused(spoilt(state, **{"mlp.0.bias": None}), "no weight for 'classifier.0.bias'")
    refused(spoilt(state, **{"decoder.weight": torch.zeros(1)}), "'decoder.weight' is not a part of")
    refused(spoilt(state, **{"mlp.0.bias": torch.zeros(3)}), r"'classifier.0.bias' is \(3,\), but the other")
    refused(spoilt(state, **{"mlp.0.bias": torch.full((16,), float("nan"))}), "'classifier.0.bias' holds NaN")
    refused(
        spoilt(state, **{"mlp.0.bias": torch.zeros(16, dtype=torch.complex64)}), "is complex64 .*, but must be float32"
    )
    refused(
        spoilt(state, **{"audio_projection.0.weight": torch.zeros(2**40, 0)}), "hidden_dim=1099511627776 is more than"
    )
    refused(spoilt(state, **{"gnn.conv1.att_src": torch.zeros(1, 10**9, 0)}), "heads=1000000000 is more than")
    refused(spoilt(state, **{"gnn.conv1.att_src": torch.zeros(1, 0, 4)}), "heads=0 must be")
    refused(spoilt(state, **{f"gnn.convs.{'9' * 5_000}.bias": torch.zeros(1)}), "is not a part of")
    refused(spoilt(state, **{f"gnn.convs.{i}.bias": torch.zeros(1) for i in range(65)}), "layers=65 is more than 64")
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_released_checkpoint(path, "min")


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"model": Runs(f"touch {mark}")}, tmp_path / "best.pt")
    with pytest.raises(InputError, match="cannot be read as a checkpoint of weights only"):
        load_released_checkpoint(tmp_path / "best.pt", "min")
    assert not mark.exists()
