"""The fast forward pass against the reference: ``model(...)``, plain and torch-geometric's."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from batches import BEFORE_BATCH_NORM, TOLERANCE, any_batch, one_step, plain
from hypothesis import given
from hypothesis import strategies as st
from pairwise import pairwise

from cemobam_core import Batch, CemoBAM, CemoBAMConfig, Fold, InputError, TrainingConfig, fast, train
from cemobam_core.config import FUSIONS, MODULES, PROFILES
from cemobam_core.training.loop import settle_batch_norm, train_epoch


@given(
    profile=st.sampled_from(sorted(PROFILES)),
    modules=st.sampled_from(MODULES),
    fusion=st.sampled_from(FUSIONS),
    heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(2, 4),
    n=st.integers(12, 30),  # of fewer, batch norm divides by variances near zero
    k=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    steps=st.sampled_from([(0, 0), (0, 0), (1, 0), (1, 1), (4, 0), (0, 3), (4, 3)]),
    training=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_logits_loss_every_gradient_and_every_random_number_are_the_references(
    profile: str,
    modules: str,
    fusion: str,
    heads: int,
    layers: int,
    n: int,
    k: tuple[int, int],
    steps: tuple[int, int],
    training: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    shape = {"audio_dim": 10, "text_dim": 6, "hidden_dim": 32, "heads": heads, "gat_layers": layers, "num_classes": 3}
    config = replace(PROFILES[profile].model, **shape, fusion=fusion, modules=modules)
    torch.manual_seed(seed)
    model = CemoBAM(config).to(dtype).train(training)
    batch = any_batch(n, steps, seed, dtype, k=k, turned=PROFILES[profile].graph.gather_from == "choosers")
    start = {name: value.clone() for name, value in model.state_dict().items()}
    expected = one_step(model, batch, reference=True, seed=seed)
    model.load_state_dict(start)
    ours = one_step(model, batch, reference=False, seed=seed)
    tolerance = TOLERANCE[dtype]
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pairwise(profile=sorted(PROFILES), modules=MODULES, steps=[(0, 0), (4, 3)], dtype=[torch.float64, torch.float32])
def test_a_training_of_20_epochs_is_the_references(
    profile: str, modules: str, steps: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"audio_dim": 10, "text_dim": 6, "hidden_dim": 32, "num_classes": 3, "modules": modules}
    config = replace(PROFILES[profile].model, **shape)  # with its dropout: both draw the same
    turned = PROFILES[profile].graph.gather_from == "choosers"
    batch, val = (any_batch(60, steps, seed, dtype, k=(3, 2), turned=turned) for seed in (0, 1))

    def trained() -> tuple[list[float], dict[str, torch.Tensor], torch.Tensor]:
        torch.manual_seed(0)
        model = CemoBAM(config).to(dtype)
        for name, parameter in model.named_parameters():
            if dtype == torch.float32 and name.endswith(BEFORE_BATCH_NORM):
                parameter.requires_grad_(False)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4, fused=True)
        losses = []
        for epoch in range(20):
            model.train(epoch == 0 or PROFILES[profile].training.train_mode == "every_epoch")
            losses.append(train_epoch(model, batch, optimizer).item())
        if PROFILES[profile].training.batch_norm == "settled":
            settle_batch_norm(model, batch)
        model.eval()
        return losses, model.state_dict(), val.logits(model).detach()

    losses, state, logits = trained()
    with monkeypatch.context() as patch:
        patch.setattr(fast, "applies", lambda *_: False)
        expected_losses, expected_state, expected_logits = trained()
    tolerance = TOLERANCE[dtype]
    assert losses == pytest.approx(expected_losses, rel=tolerance)
    torch.testing.assert_close(logits, expected_logits, rtol=tolerance, atol=tolerance)
    for name, value in expected_state.items():
        if name.endswith((*BEFORE_BATCH_NORM, "running_mean")):
            continue
        part = slice(-(len(value) // 3), None) if "in_proj" in name else ...  # over a single key Q and K are idle
        torch.testing.assert_close(
            state[name][part], value[part], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_fast_pass_is_what_training_and_evaluation_use(small_fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = {name: Batch.from_features(s, s.rank(3).edge_index(3, 2)) for name, s in small_fold.splits.items()}
    config = CemoBAMConfig(audio_dim=12, text_dim=12, hidden_dim=8, heads=2)
    monkeypatch.setattr(CemoBAM, "forward", lambda *_: pytest.fail("the reference was called"))
    made: list[object] = []
    inputs = fast.Inputs.from_features
    monkeypatch.setattr(fast.Inputs, "from_features", lambda *a, **k: made.append(a) or inputs(*a, **k))
    train(config, batches, training=TrainingConfig(epochs=4))
    assert len(made) == 3  # once for each split, whatever the epochs


class Another(CemoBAM):
    """A model of a user's."""


def test_a_model_of_another_class_runs_as_it_is_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = Another(CemoBAMConfig(audio_dim=10, text_dim=6, hidden_dim=8, heads=2, num_classes=3)).eval()
    batch = any_batch(9, (0, 0), 0, torch.float32, k=(2, 2), turned=False)
    with caplog.at_level(logging.INFO, logger="cemobam_core"):
        assert torch.equal(batch.logits(model), plain(model, batch))
    assert "Another runs as it is" in caplog.text


def test_wrong_input_is_named_as_the_reference_does() -> None:
    model = CemoBAM(CemoBAMConfig(audio_dim=11, text_dim=6, hidden_dim=8, heads=2))
    batch = any_batch(9, (0, 0), 0, torch.float32, k=(2, 2), turned=False)
    with pytest.raises(InputError, match="audio embeddings have 10 numbers, the model expects 11"):
        batch.logits(model)
    beyond = replace(batch, edge_index=batch.edge_index + 1)
    with pytest.raises(InputError, match="edge_index names utterances 1 to 9, but there are 9"):
        beyond.logits(model)


def test_bf16_rounds_the_products_alone() -> None:
    """Attention's softmax and sums stay in float32 under autocast, and gradients arrive in the weights' type."""
    torch.manual_seed(0)
    model = CemoBAM(CemoBAMConfig(audio_dim=10, text_dim=6, hidden_dim=32, num_classes=3, dropout=0.0))
    batch = any_batch(20, (0, 0), 0, torch.float32, k=(3, 3), turned=False)
    seen = []
    chgat = model.chgat
    assert chgat is not None
    chgat.norms[0].register_forward_pre_hook(lambda _, x: seen.append(x[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = batch.logits(model)
    rounded.float().square().sum().backward()
    assert seen == [torch.float32]
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    torch.testing.assert_close(rounded.float(), batch.logits(model), rtol=0.1, atol=0.1)


def test_weights_that_cannot_matter_decay_as_in_the_reference(small_fold: Fold) -> None:
    """With one step a modality, query and key projections have no influence; Adam's L2 penalty still moves them."""
    batches = {name: Batch.from_features(s, s.rank(3).edge_index(3, 2)) for name, s in small_fold.splits.items()}
    config = CemoBAMConfig(audio_dim=12, text_dim=12, hidden_dim=8, heads=2)
    torch.manual_seed(0)
    before = CemoBAM(config).xcbam
    after = train(config, batches, training=TrainingConfig(epochs=5, weight_decay=0.1), seed=0).model.xcbam
    assert before is not None
    assert after is not None
    for name in ("audio_to_text", "text_to_audio"):
        old, new = (getattr(xcbam, name).attention.in_proj_weight[:16] for xcbam in (before, after))
        assert (new.abs() < old.abs()).float().mean() > 0.9  # each a little nearer to zero
