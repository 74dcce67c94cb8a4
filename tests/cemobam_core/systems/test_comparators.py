"""Properties of every neural comparator: masks, gradients, stacks, fields, settings of its source, the demo."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from batches import SIZES, any_batch
from torch import Tensor

from cemobam_core import Batch, InputError, Inputs, NeuralSystem, TrainingConfig, train
from cemobam_core.corpora.synthetic import demo_fold
from cemobam_core.graph import GraphConfig
from cemobam_core.systems import group, names, system_class
from cemobam_core.systems.search import Between, OneOf
from cemobam_core.training.stacks import why_alone
from cemobam_core.training.step import settle_batch_norm

SMALL: dict[str, dict[str, Any]] = {
    "audio_mlp": {"hidden_dim": 8},
    "concat_mlp": {"hidden_dim": 8},
    "glomer": {"hidden_dim": 8, "heads": 2, "classifier_dim": 6},
    "hemogat": {"hidden_dim": 8, "heads": 2},
    "late_fusion": {"hidden_dim": 8},
    "lmf": {"hidden_dim": 8, "rank": 3},
    "memocmt": {"hidden_dim": 8, "heads": 2, "classifier_dim": 6},
    "ser_fuse": {"hidden_dim": 8, "classifier_dim": 6},
    "server": {"hidden_dim": 8, "classifier_dim": 6},
    "text_mlp": {"hidden_dim": 8},
    "tfn": {"hidden_dim": 6},
}
NAMES = sorted(SMALL)
STEPS = [(0, 0), (4, 0), (0, 3), (4, 3)]


def small(name: str, **changes: object) -> NeuralSystem:
    system = system_class(name)(**{**SMALL[name], **changes})
    assert isinstance(system, NeuralSystem)
    return system


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", STEPS)
def test_models_can_be_stacked(name: str, steps: tuple[int, int]) -> None:
    assert why_alone(lambda: small(name).build(SIZES), any_batch(16, steps, 0).inputs) == ""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", STEPS[1:])
def test_padded_steps_change_nothing(name: str, steps: tuple[int, int]) -> None:
    """An utterance has the same logits alone and in a padded batch, for any content of the padding."""
    torch.manual_seed(0)
    network = small(name).build(SIZES).double()
    batch = any_batch(12, steps, 1, torch.float64)
    settle_batch_norm(network, batch)
    network.eval()
    audio, text = batch.inputs.audio, batch.inputs.text
    alone = torch.arange(12).expand(2, -1)  # every utterance gathers only from itself
    spoilt = [torch.where(one.mask.unsqueeze(-1), one.as_subclass(Tensor), 1e3) for one in (audio, text)]
    together = network(Inputs.from_features(spoilt[0], spoilt[1], alone, audio.mask, text.mask))
    for i in range(12):
        of = [one.as_subclass(Tensor)[i : i + 1, : one.mask[i].sum()] for one in (audio, text)]
        mine = network(Inputs.from_features(of[0], of[1], torch.zeros(2, 1, dtype=torch.int64)))
        torch.testing.assert_close(together[i : i + 1], mine)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_reaches_every_weight(name: str, training: bool) -> None:
    torch.manual_seed(0)
    network = small(name).build(SIZES).train(training)
    batch = any_batch(30, (4, 3), 0)
    torch.nn.functional.cross_entropy(network(batch.inputs), batch.labels).backward()
    for weight_name, weight in network.named_parameters():
        assert weight.grad is not None, weight_name
        assert weight.grad.abs().max() > 0, weight_name


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_there_in_training_alone(name: str) -> None:
    inputs = any_batch(30, (4, 3), 0).inputs
    torch.manual_seed(0)
    dropping, whole = small(name, dropout=0.5).build(SIZES), small(name, dropout=0.0).build(SIZES)
    assert not torch.equal(dropping(inputs), dropping(inputs))
    torch.testing.assert_close(whole(inputs), whole(inputs))
    dropping.eval()
    assert torch.equal(dropping(inputs), dropping(inputs))


@pytest.mark.parametrize("name", NAMES)
def test_a_field_out_of_range_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"dropout=1.0 must be less than 1"):
        small(name, dropout=1.0)
    for field in fields(small(name)):
        if isinstance(field.default, int):
            with pytest.raises(InputError, match=f"{field.name}=0 must be a whole number of at least 1"):
                small(name, **{field.name: 0})
        if field.name == "heads":
            with pytest.raises(InputError, match="hidden_dim=8 must be a multiple of heads=3"):
                small(name, heads=3)


def test_an_odd_size_cannot_be_halved() -> None:
    with pytest.raises(InputError, match="hidden_dim=7 must be even"):
        small("lmf", hidden_dim=7)


@pytest.mark.parametrize("name", [*NAMES, "cemobam"])
def test_what_is_prescribed_and_searched_are_settings_with_values_that_they_may_have(name: str) -> None:
    kind = system_class(name)
    known = {field.name: part for part in (kind, TrainingConfig, GraphConfig) for field in fields(part)}
    made: dict[type, dict[str, Any]] = {}
    for setting, value in kind.prescribed.items():
        made.setdefault(known[setting], {})[setting] = value
    for part, values in made.items():
        part(**values)
    assert 3 <= len(kind.search) <= 7
    assert {"lr", "weight_decay"} <= kind.search.keys()
    assert kind.uses_graph == ("k_audio" in kind.search) == ("k_text" in kind.search)
    for setting, values in kind.search.items():
        hint = get_type_hints(known[setting])[setting]
        for value in values.values if isinstance(values, OneOf) else (values.low, values.high):
            known[setting](**{setting: value})
        if isinstance(values, Between):
            assert hint is float
        else:
            assert set(values.values) <= set(get_args(hint)) if get_origin(hint) is Literal else hint is int


def test_the_groups_hold_them() -> None:
    assert {"cemobam", "glomer", "hemogat", "memocmt", "ser_fuse", "server"} <= set(group("paper"))
    assert {"audio_mlp", "concat_mlp", "late_fusion", "lmf", "text_mlp", "tfn"} <= set(group("baselines"))
    assert set(group("paper")) & set(group("baselines")) == {"cemobam"}
    assert set(NAMES) <= set(group("all")) == set(names())


@pytest.mark.parametrize("name", NAMES)
def test_it_beats_the_class_prior_on_the_demo(name: str) -> None:
    fold, system = demo_fold(), small(name, **{"hidden_dim": 32} if name != "tfn" else {})
    batches = {n: Batch.from_features(s, s.rank(4).edge_index(4, 4)) for n, s in fold.splits.items()}
    given = {k: v for k, v in system.prescribed.items() if k in {f.name for f in fields(TrainingConfig)}}
    training = TrainingConfig(**{**given, "epochs": 40, "lr": 5e-3})  # type: ignore[arg-type]
    result = train(system, batches, training=training, seed=0)
    share = fold.train.labels.bincount().double() / len(fold.train.labels)
    for split in ("val", "test"):
        labels = batches[split].labels
        assert result.metrics[split].wa > (labels == share.argmax()).double().mean() + 0.12
        assert result.metrics[split].loss < -share.log()[labels].mean() - 0.1
