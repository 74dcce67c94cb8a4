"""Every built-in system, found by its file."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

import pytest
import torch
from batches import SIZES, any_batch, joint_batches
from torch import nn

from cemobam_core import (
    Batch,
    CemoBAM,
    FittedSystem,
    GraphConfig,
    InputError,
    NeuralSystem,
    System,
    TrainingConfig,
    train,
)
from cemobam_core.corpora.synthetic import demo_fold
from cemobam_core.systems import GROUPS, group, name_of, names, system_class
from cemobam_core.systems.search import OneOf

SMALL: dict[str, dict[str, Any]] = {
    "audio_mlp": {"hidden_dim": 32},
    "cemobam": {"hidden_dim": 16},
    "concat_mlp": {"hidden_dim": 32},
    "glomer": {"hidden_dim": 32, "classifier_dim": 16},
    "hemogat": {"hidden_dim": 16},
    "late_fusion": {"hidden_dim": 32},
    "lmf": {"hidden_dim": 32},
    "memocmt": {"hidden_dim": 32, "classifier_dim": 16},
    "ser_fuse": {"hidden_dim": 32, "classifier_dim": 16},
    "server": {"hidden_dim": 32, "classifier_dim": 16},
    "text_mlp": {"hidden_dim": 32},
    "tfn": {"hidden_dim": 16},
    **{name: {"hidden_dim": 32} for name in ("gcn", "graphsage", "gatv2", "graph_transformer")},
}


@cache
def demo(evaluation_graph: str = "own") -> dict[str, Batch]:
    splits = demo_fold().splits
    if evaluation_graph == "joint":
        return joint_batches(splits, 4, 4)
    return {name: Batch.from_features(split, split.rank(4).edge_index(4, 4)) for name, split in splits.items()}


def demo_of(name: str) -> dict[str, Batch]:
    """Return the demo with the graph that a system prescribes."""
    return demo(str(system_class(name).prescribed.get("evaluation_graph", "own")))


def test_a_system_is_found_by_its_file() -> None:
    assert {"cemobam", "concat_mlp", "gcn", "logistic"} <= set(names())
    assert names() == sorted(names())
    assert "system" not in names()
    assert system_class("cemobam") is CemoBAM


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    with pytest.raises(
        InputError, match=r"no system is called 'cemo'; choose from .*cemobam, concat_mlp, .*FILE.py:NAME"
    ):
        system_class("cemo")


@pytest.mark.parametrize("name", names())
def test_a_system_is_a_frozen_dataclass_that_tells_its_source_and_has_defaults(name: str) -> None:
    kind = system_class(name)
    assert issubclass(kind, (NeuralSystem, FittedSystem))
    assert is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # the default docstring of a dataclass
    assert all(field.default is not MISSING for field in fields(kind))
    assert name_of(kind) == name_of(kind()) == name
    assert kind() == kind()
    assert len({kind(), kind()}) == 1
    assert all(f"    {field.name}: " in kind.__doc__ for field in fields(kind))


@pytest.mark.parametrize("name", sorted({*names()} - {"prior"}))
def test_a_system_learns_the_demo_and_is_the_same_for_the_same_seed(name: str) -> None:
    system = system_class(name)(**SMALL.get(name, {}))
    training = TrainingConfig(epochs=20, lr=6e-3)
    batches = demo_of(name)
    result = train(system, batches, training=training, seed=1)
    assert set(result.metrics) == {"train", "val", "test"}
    for metrics in result.metrics.values():
        assert metrics.wa > 0.35  # chance is 0.25; one modality alone tells one of two values
        assert metrics.ua > 0.35
        assert metrics.loss < 1.37  # chance is 1.39
    assert train(system, batches, training=training, seed=1).metrics == result.metrics
    logits = batches["test"].measured(result.model(batches["test"].inputs))
    assert logits.shape == (480, 4)
    right = (logits.argmax(dim=1) == batches["test"].labels).double().mean().item()
    assert right == pytest.approx(result.metrics["test"].wa)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("steps", [(0, 0), (4, 3)])
def test_a_system_takes_sequences_and_no_graph_where_it_uses_none(name: str, steps: tuple[int, int]) -> None:
    kind = system_class(name)
    batch = any_batch(40, steps, 0)
    if not kind.uses_graph:
        other = any_batch(40, steps, 0, k=(3, 3))
        torch.testing.assert_close(batch.inputs.audio, other.inputs.audio)
        results = [
            train(kind(**SMALL.get(name, {})), {"train": b, "val": b}, training=TrainingConfig(epochs=2)).metrics
            for b in (batch, other)
        ]
        assert results[0] == results[1]
    result = train(kind(**SMALL.get(name, {})), {"train": batch, "val": batch}, training=TrainingConfig(epochs=2))
    assert result.model(batch.inputs).shape == (40, 3)


@pytest.mark.parametrize("name", [name for name in names() if issubclass(system_class(name), NeuralSystem)])
def test_an_embedding_is_what_the_classifier_sees(name: str) -> None:
    network: Any = system_class(name)(**SMALL.get(name, {})).build(SIZES).eval()  # type: ignore[attr-defined]
    inputs = any_batch(20, (0, 0), 0).inputs
    embedding = network.embedding(inputs)
    assert isinstance(network, nn.Module)
    assert embedding.shape[0] == 20
    torch.testing.assert_close(network.classifier(embedding), network(inputs))


@pytest.mark.parametrize("name", names())
def test_what_a_system_searches_and_prescribes_is_what_its_settings_take(name: str) -> None:
    kind = system_class(name)
    assert kind.group in ("", *GROUPS)
    assert ("k_audio" in kind.search) == ("k_text" in kind.search) == (kind.uses_graph and bool(kind.search))
    for setting, of in kind.search.items():
        for value in of.values if isinstance(of, OneOf) else (of.low, of.high):
            for part in (kind, GraphConfig, TrainingConfig):
                if setting in {field.name for field in fields(part)}:
                    part(**{setting: value})
                    break
            else:
                pytest.fail(f"{setting} is no setting")
    for setting, value in kind.prescribed.items():
        (part,) = (p for p in (GraphConfig, TrainingConfig) if setting in {field.name for field in fields(p)})
        part(**{setting: value})  # type: ignore[arg-type]


def test_a_group_begins_with_cemobam() -> None:
    assert {"cemobam", "prior", "logistic", "svm", "knn"} <= set(group("baselines"))
    assert {"gcn", "graphsage", "gatv2", "graph_transformer", "label_propagation"} <= set(group("graphs"))
    assert group("all")[0] == "cemobam"
    assert sorted(group("all")) == names()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cemobam", {"hidden_dim": 0}, "hidden_dim=0 must be a whole number of at least 1"),
        ("cemobam", {"hidden_dim": 10, "heads": 4}, "hidden_dim=10 must be a multiple of heads=4"),
        ("concat_mlp", {"layers": 0}, "layers=0 must be a whole number of at least 1"),
        ("concat_mlp", {"dropout": 1.0}, "dropout=1.0 must be less than 1"),
        ("concat_mlp", {"dropout": -0.5}, "dropout=-0.5 must be a finite number of at least 0"),
        ("gcn", {"dropout": 1.5}, "dropout=1.5 must be less than 1"),
        ("gcn", {"hidden_dim": True}, "hidden_dim=True must be a whole number"),
        ("gatv2", {"hidden_dim": 10}, "hidden_dim=10 must be a multiple of heads=4"),
        ("graph_transformer", {"heads": 3}, "hidden_dim=512 must be a multiple of heads=3"),
        ("knn", {"neighbours": 0}, "neighbours=0 must be a whole number of at least 1"),
        ("label_propagation", {"alpha": 1.5}, "alpha=1.5 must be at most 1"),
        ("correct_and_smooth", {"smooth_alpha": 2.0}, "smooth_alpha=2.0 must be at most 1"),
        ("correct_and_smooth", {"c": 0.0}, "c=0.0 must be above 0"),
        ("svm", {"c": 0.0}, "c=0.0 must be above 0"),
        ("logistic", {"c": 0.0}, "c=0.0 must be above 0"),
        ("logistic", {"c": float("nan")}, "c=nan must be a finite number"),
        ("logistic", {"max_iter": 0}, "max_iter=0 must be a whole number of at least 1"),
    ],
)
def test_a_wrong_value_is_named(name: str, change: dict[str, Any], message: str) -> None:
    kind: type[System] = system_class(name)
    with pytest.raises(InputError, match=message):
        kind(**change)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="hiden_dim"):
        system_class("gcn")(hiden_dim=3)  # type: ignore[call-arg]
