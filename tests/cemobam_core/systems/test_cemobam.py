from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core import CemoBAM, CemoBAMConfig, FeatureSet, InputError, TopKGraph
from cemobam_core.config import FUSIONS, MODULES
from cemobam_core.systems.cemobam import fuse

SMALL = CemoBAMConfig(audio_dim=10, text_dim=6, hidden_dim=8, heads=2, num_classes=3)


def sequences(n: int, steps: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (n, 1), generator=generator)
    return torch.randn(n, steps, dim, generator=generator), torch.arange(steps) < lengths


def padded(x: torch.Tensor, mask: torch.Tensor, by: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Longer padding, with anything in it."""
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
    config = replace(SMALL, fusion=fusion, modules=modules, dropout=0.0)
    model = CemoBAM(config).double().train(training)
    audio, audio_mask = sequences(12, 5, 10, seed)
    text, text_mask = sequences(12, 4, 6, seed + 1)
    audio, text = audio.double(), text.double()
    edges = TopKGraph.from_features(audio, text, 3, audio_mask=audio_mask, text_mask=text_mask).edge_index(3, 2)
    plain = model(audio, text, edges, audio_mask, text_mask)
    longer_audio, longer_text = padded(audio, audio_mask, more[0]), padded(text, text_mask, more[1])
    longer = model(longer_audio[0], longer_text[0], edges, longer_audio[1], longer_text[1])
    torch.testing.assert_close(longer, plain, rtol=1e-9, atol=1e-9)
    regraphed = TopKGraph.from_features(
        longer_audio[0], longer_text[0], 3, audio_mask=longer_audio[1], text_mask=longer_text[1]
    )
    assert torch.equal(regraphed.edge_index(3, 2), edges)


@pytest.mark.parametrize("modules", MODULES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_utterance_level_is_a_sequence_of_one_step(fusion: str, modules: str) -> None:
    torch.manual_seed(0)
    model = CemoBAM(replace(SMALL, fusion=fusion, modules=modules)).eval()
    audio, text = torch.randn(9, 10), torch.randn(9, 6)
    edges = TopKGraph.from_features(audio, text, 2).edge_index(2, 2)
    logits = model(audio, text, edges)
    assert logits.shape == (9, 3)
    torch.testing.assert_close(model(audio.unsqueeze(1), text.unsqueeze(1), edges), logits)


@pytest.mark.parametrize("modules", MODULES)
def test_every_weight_learns(modules: str) -> None:
    torch.manual_seed(0)
    model = CemoBAM(replace(SMALL, modules=modules, fusion="mean", hidden_dim=32, dropout=0.0))
    audio, audio_mask = sequences(16, 5, 10, 0)
    text, text_mask = sequences(16, 4, 6, 1)
    edges = TopKGraph.from_features(audio, text, 3, audio_mask=audio_mask, text_mask=text_mask).edge_index(3, 3)
    model(audio, text, edges, audio_mask, text_mask).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_an_ablated_branch_has_no_weights() -> None:
    names = {
        m: {n.partition(".")[0] for n, _ in CemoBAM(replace(SMALL, modules=m)).named_parameters()} for m in MODULES
    }
    shared = {"audio_projection", "text_projection", "classifier"}
    assert names == {
        "full": shared | {"chgat", "xcbam"},
        "no_xcbam": shared | {"chgat"},
        "no_chgat": shared | {"xcbam"},
    }


def test_without_chgat_an_utterance_stands_alone() -> None:
    torch.manual_seed(0)
    model = CemoBAM(replace(SMALL, modules="no_chgat")).eval()
    audio, text = torch.randn(9, 10), torch.randn(9, 6)
    edges = TopKGraph.from_features(audio, text, 2).edge_index(2, 2)
    alone = model(audio[:1], text[:1], torch.zeros(2, 1, dtype=torch.int64))
    torch.testing.assert_close(model(audio, text, edges)[:1], alone)


@pytest.mark.parametrize("modules", MODULES)
def test_the_order_of_utterances_does_not_matter(modules: str) -> None:
    torch.manual_seed(0)
    model = CemoBAM(replace(SMALL, modules=modules)).eval()
    audio, text, order = torch.randn(9, 10), torch.randn(9, 6), torch.randperm(9)
    plain = model(audio, text, TopKGraph.from_features(audio, text, 2).edge_index(2, 1))
    audio, text = audio[order], text[order]
    shuffled = model(audio, text, TopKGraph.from_features(audio, text, 2).edge_index(2, 1))
    torch.testing.assert_close(shuffled, plain[order])


def test_fusion_by_hand() -> None:
    streams = torch.tensor([[[1.0, -5.0], [3.0, 2.0], [99.0, -99.0], [-2.0, 0.0]]])
    mask = torch.tensor([[True, True, False, True]])
    assert fuse(streams, mask, "cls").tolist() == [[1.0, -5.0]]
    assert fuse(streams, mask, "min").tolist() == [[-2.0, -5.0]]
    assert fuse(streams, mask, "max").tolist() == [[3.0, 2.0]]
    torch.testing.assert_close(fuse(streams, mask, "mean"), torch.tensor([[2 / 3, -1.0]]))


def test_the_size_is_the_authors_but_for_the_known_differences() -> None:
    parameters = sum(p.numel() for p in CemoBAM(CemoBAMConfig()).parameters())
    last_layers_other_heads = 3 * (2048 * 512 + 2 * 512)  # theirs has one head
    a_linear_in_each_stream = 2 * (512 * 512 + 512)  # theirs has one after the attention
    theirs = parameters - last_layers_other_heads + a_linear_in_each_stream
    assert round(theirs / 1e6, 1) == 11.4


def test_a_wrong_embedding_size_is_named(make_features: Callable[..., FeatureSet]) -> None:
    features = make_features(8)
    with pytest.raises(InputError, match="audio embeddings have 12 numbers, the model expects 10"):
        CemoBAM(SMALL)(features.audio, features.text, features.rank(2).edge_index(1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_dim": 10, "heads": 4}, "hidden_dim=10 must be a multiple of heads=4"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"heads": 0}, "heads=0 must be a whole number of at least 1"),
        ({"cbam_kernel": 4}, "cbam_kernel=4 must be odd"),
        ({"gat_layers": True}, "gat_layers=True"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CemoBAMConfig(**change)


def test_an_unknown_choice_is_named() -> None:
    config = CemoBAMConfig()
    object.__setattr__(config, "fusion", "sum")  # the tests' own type checks would stop it before ours
    with pytest.raises(InputError, match="fusion='sum' is not one of cls, min, max, mean"):
        config.__post_init__()
