"""CemoBAM, compared with its formulas built from library modules (``epoch.Plain``), and its properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from batches import (
    BEFORE_BATCH_NORM,
    READINGS,
    SIZES,
    TOLERANCE,
    any_batch,
    model_of,
    one_step,
)
from epoch import Plain
from hypothesis import given
from hypothesis import strategies as st
from pairwise import pairwise
from torch import nn

from cemobam_core import Batch, CemoBAM, FeatureSet, Fold, InputError, Inputs, Sizes, TopKGraph, TrainingConfig, train
from cemobam_core.operators.fusion import FUSIONS, fuse
from cemobam_core.systems.cemobam import MODULES, CemoBAMNetwork
from cemobam_core.training.step import settle_batch_norm, train_epoch

SMALL = CemoBAM(hidden_dim=8, heads=2)


@given(
    reading=st.sampled_from(sorted(READINGS)),
    modules=st.sampled_from(MODULES),
    fusion=st.sampled_from(FUSIONS),
    heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(2, 4),
    kernel=st.sampled_from([1, 3, 7]),
    n=st.integers(12, 30),  # with fewer, batch norm divides by variances near zero
    k=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    steps=st.sampled_from([(0, 0), (0, 0), (1, 0), (1, 1), (4, 0), (0, 3), (4, 3)]),
    training=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_logits_loss_every_gradient_and_every_random_number_are_those_of_the_formulas(
    reading: str,
    modules: str,
    fusion: str,
    heads: int,
    layers: int,
    kernel: int,
    n: int,
    k: tuple[int, int],
    steps: tuple[int, int],
    training: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(seed)
    choices = {"heads": heads, "gat_layers": layers, "cbam_kernel": kernel, "fusion": fusion, "modules": modules}
    model = model_of(reading, **choices).to(dtype).train(training)
    batch = any_batch(n, steps, seed, dtype, k=k, gather_from=READINGS[reading].gather_from)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    expected = one_step(model, batch, seed=seed, forward=Plain(model).train(training))
    model.load_state_dict(start)
    ours = one_step(model, batch, seed=seed)
    tolerance = TOLERANCE[dtype]
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pairwise(reading=sorted(READINGS), modules=MODULES, steps=[(0, 0), (4, 3)], dtype=[torch.float64, torch.float32])
def test_a_training_of_20_epochs_is_that_of_the_formulas(
    reading: str, modules: str, steps: tuple[int, int], dtype: torch.dtype
) -> None:
    as_read = READINGS[reading]
    batch, val = (any_batch(60, steps, seed, dtype, k=(3, 2), gather_from=as_read.gather_from) for seed in (0, 1))

    def trained(*, plain: bool) -> tuple[list[float], dict[str, torch.Tensor], torch.Tensor]:
        torch.manual_seed(0)
        network = model_of(reading, modules=modules).to(dtype)  # with dropout: both draw the same numbers
        for name, parameter in network.named_parameters():
            if dtype == torch.float32 and name.endswith(BEFORE_BATCH_NORM):
                parameter.requires_grad_(False)
        model: nn.Module = Plain(network) if plain else network
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4, fused=True)
        losses = []
        for epoch in range(20):
            model.train(epoch == 0 or as_read.training.train_mode == "every_epoch")
            losses.append(train_epoch(model, batch, optimizer).item())
        if as_read.training.batch_norm == "settled":
            settle_batch_norm(model, batch)
        return losses, network.state_dict(), model.eval()(val.inputs).detach()

    losses, state, logits = trained(plain=False)
    expected_losses, expected_state, expected_logits = trained(plain=True)
    tolerance = TOLERANCE[dtype]
    assert losses == pytest.approx(expected_losses, rel=tolerance)
    torch.testing.assert_close(logits, expected_logits, rtol=tolerance, atol=tolerance)
    for name, value in expected_state.items():
        if name.endswith((*BEFORE_BATCH_NORM, "running_mean")):
            continue
        part = slice(-(len(value) // 3), None) if "in_proj" in name else ...  # with a single key, Q and K are not used
        torch.testing.assert_close(
            state[name][part], value[part], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_bf16_rounds_the_products_alone() -> None:
    """Attention's softmax and sums stay in float32 under autocast, and gradients arrive in the weights' type."""
    torch.manual_seed(0)
    model, batch = model_of("paper", dropout=0.0), any_batch(20, (0, 0), 0, k=(3, 3))
    seen = []
    assert model.chgat is not None
    model.chgat.norms[0].register_forward_pre_hook(lambda _, x: seen.append(x[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(batch.inputs)
    rounded.float().square().sum().backward()
    assert seen == [torch.float32]
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    torch.testing.assert_close(rounded.float(), model(batch.inputs), rtol=0.1, atol=0.1)


def test_weights_that_cannot_matter_decay(small_fold: Fold) -> None:
    """With one step per modality, query and key projections have no influence. Adam's L2 penalty still moves them."""
    batches = {name: Batch.from_features(s, s.rank(3).edge_index(3, 2)) for name, s in small_fold.splits.items()}
    torch.manual_seed(0)
    before = SMALL.build(batches["train"].sizes).xcbam
    after = train(SMALL, batches, training=TrainingConfig(epochs=5, weight_decay=0.1), seed=0).model
    assert before is not None
    assert isinstance(after, CemoBAMNetwork)
    for name in ("audio_to_text", "text_to_audio"):
        old, new = (getattr(xcbam, name).attention.in_proj_weight[:16] for xcbam in (before, after.xcbam))
        assert (new.abs() < old.abs()).float().mean() > 0.9  # each is slightly nearer to zero


def sequences(n: int, steps: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (n, 1), generator=generator)
    return torch.randn(n, steps, dim, generator=generator), torch.arange(steps) < lengths


def padded(x: torch.Tensor, mask: torch.Tensor, by: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs with longer padding that holds arbitrary numbers."""
    x = torch.cat([x, torch.zeros(len(x), by, x.shape[-1], dtype=x.dtype)], dim=1)
    mask = torch.cat([mask, torch.zeros(len(x), by, dtype=torch.bool)], dim=1)
    return torch.where(mask.unsqueeze(-1), x, 1e3), mask


@given(
    fusion=st.sampled_from(FUSIONS),
    modules=st.sampled_from(MODULES),
    training=st.booleans(),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 100),
)
def test_padding_never_changes_a_result(
    fusion: str, modules: str, training: bool, more: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    model = replace(SMALL, fusion=fusion, modules=modules, dropout=0.0).build(SIZES).double().train(training)
    audio, audio_mask = sequences(12, 5, 10, seed)
    text, text_mask = sequences(12, 4, 6, seed + 1)
    audio, text = audio.double(), text.double()
    edges = TopKGraph.from_features(audio, text, 3, audio_mask=audio_mask, text_mask=text_mask).edge_index(3, 2)
    plain = model(Inputs.from_features(audio, text, edges, audio_mask, text_mask))
    longer_audio, longer_text = padded(audio, audio_mask, more[0]), padded(text, text_mask, more[1])
    longer = model(Inputs.from_features(longer_audio[0], longer_text[0], edges, longer_audio[1], longer_text[1]))
    torch.testing.assert_close(longer, plain, rtol=1e-9, atol=1e-9)
    regraphed = TopKGraph.from_features(
        longer_audio[0], longer_text[0], 3, audio_mask=longer_audio[1], text_mask=longer_text[1]
    )
    assert torch.equal(regraphed.edge_index(3, 2), edges)


@pytest.mark.parametrize("modules", MODULES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_utterance_level_is_a_sequence_of_one_step(fusion: str, modules: str) -> None:
    torch.manual_seed(0)
    model = replace(SMALL, fusion=fusion, modules=modules).build(SIZES).eval()
    audio, text = torch.randn(9, 10), torch.randn(9, 6)
    edges = TopKGraph.from_features(audio, text, 2).edge_index(2, 2)
    logits = model(Inputs.from_features(audio, text, edges))
    assert logits.shape == (9, 3)
    one_step_each = Inputs.from_features(audio.unsqueeze(1), text.unsqueeze(1), edges)
    assert torch.equal(model(one_step_each), logits)


@pytest.mark.parametrize("modules", MODULES)
def test_every_weight_learns(modules: str) -> None:
    torch.manual_seed(0)
    model = replace(SMALL, modules=modules, fusion="mean", hidden_dim=32, dropout=0.0).build(SIZES)
    audio, audio_mask = sequences(16, 5, 10, 0)
    text, text_mask = sequences(16, 4, 6, 1)
    edges = TopKGraph.from_features(audio, text, 3, audio_mask=audio_mask, text_mask=text_mask).edge_index(3, 3)
    model(Inputs.from_features(audio, text, edges, audio_mask, text_mask)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_an_ablated_branch_has_no_weights() -> None:
    names = {
        m: {n.partition(".")[0] for n, _ in replace(SMALL, modules=m).build(SIZES).named_parameters()} for m in MODULES
    }
    shared = {"audio_projection", "text_projection", "classifier"}
    assert names == {
        "full": shared | {"chgat", "xcbam"},
        "no_xcbam": shared | {"chgat"},
        "no_chgat": shared | {"xcbam"},
    }


def test_without_chgat_an_utterance_stands_alone() -> None:
    torch.manual_seed(0)
    model = replace(SMALL, modules="no_chgat").build(SIZES).eval()
    audio, text = torch.randn(9, 10), torch.randn(9, 6)
    edges = TopKGraph.from_features(audio, text, 2).edge_index(2, 2)
    alone = model(Inputs.from_features(audio[:1], text[:1]))
    torch.testing.assert_close(model(Inputs.from_features(audio, text, edges))[:1], alone)


@pytest.mark.parametrize("modules", MODULES)
def test_the_order_of_utterances_does_not_matter(modules: str) -> None:
    torch.manual_seed(0)
    model = replace(SMALL, modules=modules).build(SIZES).eval()
    audio, text, order = torch.randn(9, 10), torch.randn(9, 6), torch.randperm(9)
    plain, shuffled = (
        model(Inputs.from_features(a, t, TopKGraph.from_features(a, t, 2).edge_index(2, 1)))
        for a, t in ((audio, text), (audio[order], text[order]))
    )
    torch.testing.assert_close(shuffled, plain[order])


def test_fusion_by_hand() -> None:
    streams = torch.tensor([[[1.0, -5.0], [3.0, 2.0], [99.0, -99.0], [-2.0, 0.0]]])
    mask = torch.tensor([[True, True, False, True]])
    assert fuse(streams, mask, "cls").tolist() == [[1.0, -5.0]]
    assert fuse(streams, mask, "min").tolist() == [[-2.0, -5.0]]
    assert fuse(streams, mask, "max").tolist() == [[3.0, 2.0]]
    torch.testing.assert_close(fuse(streams, mask, "mean"), torch.tensor([[2 / 3, -1.0]]))


def test_the_size_is_the_authors_but_for_the_known_differences() -> None:
    sizes = Sizes(audio_dim=768, text_dim=768, num_classes=4)
    parameters = sum(p.numel() for p in CemoBAM().build(sizes).parameters())
    last_layers_other_heads = 3 * (2048 * 512 + 2 * 512)  # theirs has a single head
    a_linear_in_each_stream = 2 * (512 * 512 + 512)  # theirs has one after the attention
    theirs = parameters - last_layers_other_heads + a_linear_in_each_stream
    assert round(theirs / 1e6, 1) == 11.4


def test_a_wrong_embedding_size_is_named(make_features: Callable[..., FeatureSet]) -> None:
    features = make_features(8)
    with pytest.raises(InputError, match="audio embeddings have 12 numbers, but the model needs 10"):
        SMALL.build(SIZES)(Batch.from_features(features, features.rank(2).edge_index(1, 1)).inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_dim": 10, "heads": 4}, "hidden_dim=10 must be a multiple of heads=4"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1 must be a finite number of at least 0"),
        ({"gat_layers": 1, "gat_norm": "shared"}, "gat_norm='shared' needs gat_layers of at least 2, not 1"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"heads": 0}, "heads=0 must be a whole number of at least 1"),
        ({"cbam_kernel": 4}, "cbam_kernel=4 must be odd"),
        ({"gat_layers": True}, "gat_layers=True"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CemoBAM(**change)


def test_an_unknown_choice_is_named() -> None:
    config = CemoBAM()
    object.__setattr__(config, "fusion", "sum")  # bypasses the type checks of the tests
    with pytest.raises(InputError, match="fusion='sum' is not one of cls, min, max, mean"):
        config.__post_init__()
