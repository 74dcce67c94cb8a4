"""Signatures, which identify trials."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_systems import GRU

from cemobam_core import CemoBAM, NeuralSystem
from cemobam_core.graph import GraphConfig
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.training.config import TrainingConfig
from study import Block, Factor
from study.design import configuration as module
from study.design.configuration import Configuration, Trial, delta
from study.design.design import ANY_PAIR, Design
from study.design.factors import Pair
from study.papers.cemobam.profiles import PROFILES

DESIGN = Design(blocks={}, dataset="iemocap")
BASE = DESIGN.base
TRIAL = Trial(configuration=BASE, seed=0, fold=0)


def signature(changes: dict[str, Any], pair: Pair = ANY_PAIR, **design: Any) -> str:
    made = replace(DESIGN, **design).configuration(changes, pair)
    return Trial(configuration=made, seed=0, fold=0).signature("f")


@pytest.fixture
def uncached() -> Iterator[None]:
    module._signature.cache_clear()
    yield
    module._signature.cache_clear()


def other_value(default: Any, hint: str) -> Any:
    """Return a value of a setting that is not its default."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, str):
        choices = {"fusion": "max", "modules": "no_xcbam", "gather_from": "choosers", "schedule": "plateau"}
        choices |= {"gat_last": "single", "gat_norm": "shared", "stream_output": "linear_residual_dropout"}
        choices |= {"channel_gate": "sum_of_sigmoids", "spatial_axis": "channels", "precision": "bf16"}
        choices |= {"evaluation_graph": "anchored", "ties": "random", "weights": "best_epoch", "index": "hnsw"}
        return {**choices, "train_mode": "first_epoch", "batch_norm": "running", "step_after": "epoch"}[hint]
    return default / 2 if isinstance(default, float) else default + 4


SETTINGS = {f.name: other_value(f.default, f.name) for part in BASE.parts for f in fields(part)}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_in_the_signature(name: str) -> None:
    changed = replace(TRIAL, configuration=BASE.having({name: SETTINGS[name]}))
    assert changed.configuration != BASE
    assert changed.signature("f") != TRIAL.signature("f")
    assert replace(TRIAL, configuration=BASE.having({name: BASE.get(name)})).signature("f") == TRIAL.signature("f")


def test_seed_fold_pair_system_features_and_method_are_in_the_signature(
    monkeypatch: pytest.MonkeyPatch, uncached: None
) -> None:
    others = [
        replace(TRIAL, seed=1).signature("f"),
        replace(TRIAL, fold=1).signature("f"),
        signature({}, Pair(1, 2)),
        signature({}, Pair(2, 1)),
        signature({"profile": "released"}),
        *(signature({"system": name}) for name in ("gcn", "concat_mlp", "logistic")),
        TRIAL.signature("g"),
    ]
    original = TRIAL.signature("f")
    for name, value in (("METHOD_VERSION", 0), ("version_of", lambda _: "2")):
        module._signature.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            others.append(TRIAL.signature("f"))
    assert len({*others, original}) == len(others) + 1


def test_names_of_profiles_and_configurations_are_not() -> None:
    assert replace(TRIAL, configuration=replace(BASE, profile="other")).signature("f") == TRIAL.signature("f")
    named = Design(
        blocks={
            "x": Block("x", configurations={"mine": {"lr": 1}, "same": {"lr": 1.0, "profile": "paper"}}),
            "y": Block("y", factors=[Factor("lr", [1])]),
        }
    )
    trials = [trial for block in "xy" for trial in replace(named, seeds=(3,)).trials(block, ANY_PAIR)]
    assert len({trial.signature("f") for trial in trials}) == 1


def test_a_system_without_a_graph_has_one_signature_whatever_k() -> None:
    for name in ("concat_mlp", "logistic"):
        assert len({signature({"system": name}, Pair(a, t)) for a in (1, 5, 9) for t in (1, 5)}) == 1
        assert signature({"system": name, "k_audio": 3, "gather_from": "choosers"}) == signature({"system": name})
    # the signature includes the training if the system has one
    assert signature({"system": "concat_mlp", "lr": 1}) != signature({"system": "concat_mlp"})
    assert signature({"system": "logistic", "lr": 1}) == signature({"system": "logistic"})


def test_a_signature_is_the_same_in_every_process_and_release() -> None:
    # Users' ledgers depend on it: if this changes without a change of METHOD_VERSION, all their trials run again.
    trial = replace(TRIAL, seed=3, configuration=replace(BASE, graph=GraphConfig(k_audio=8, k_text=7)))
    assert trial.signature("0123456789abcdef") == "29c48bbf8bfdb5b1"


def grown(kind: type[Any], **more: Any) -> type[Any]:
    """Return the same class one release later: with more settings, and the same name and version."""
    new = [(name, type(value), field(default=value)) for name, value in more.items()]
    made = make_dataclass(kind.__name__, new, bases=(kind,), frozen=True, kw_only=True)
    made.__module__ = kind.__module__
    return made


def test_a_new_setting_with_a_default_re_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"hidden_dim": 8, "fusion": "max", "epochs": 3, "gather_from": "choosers"}
    for some in ({}, changes):
        one = BASE.having(some)
        later = Configuration(
            profile="paper",
            **{
                name: grown(type(part), new=0.5, other="as it was", flag=False, number=3)(**vars(part))
                for name, part in (("system", one.system), ("graph", one.graph), ("training", one.training))
            },
        )
        assert len(later.settings()) == len(one.settings()) + 4
        was = replace(TRIAL, configuration=one).signature("f")
        assert replace(TRIAL, configuration=later).signature("f") == was
        for name, value in (("new", 1), ("other", "as it is"), ("flag", True), ("number", 4)):
            assert replace(TRIAL, configuration=later.having({name: value})).signature("f") != was


def test_another_default_of_a_setting_is_seen(uncached: None) -> None:
    """A new default changes results. The old default is then a setting like any other, and is in the signature."""

    @dataclass(frozen=True, kw_only=True)
    class Later(ConcatMLP):
        hidden_dim: int = 64

    Later.__module__ = ConcatMLP.__module__
    assert delta(Later()) == {}
    assert delta(Later(hidden_dim=512)) == {"hidden_dim": 512}


def test_the_content_of_a_users_file_and_the_class_are_in_the_signature_and_its_place_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").mkdir()
    two = GRU + "\n\n@dataclass(frozen=True)\nclass Other(GRU):\n    pass\n"
    files = {"a.py": two, "b.py": two, "elsewhere/a.py": two, "c.py": two + "# more\n"}
    for name, content in files.items():
        Path(name).write_text(content)
    of = {name: signature({"system": f"{name}:GRU"}) for name in files}
    assert of["a.py"] == of["b.py"] == of["elsewhere/a.py"] != of["c.py"]
    assert signature({"system": "a.py:Other"}) != of["a.py"]
    assert signature({"system": "a.py:GRU", "width": 7}) != of["a.py"]
    assert signature({"system": "a.py:GRU", "width": 6}) == of["a.py"]
    assert signature({"system": "a.py:GRU"}, Pair(9, 9)) == of["a.py"]


def test_equal_numbers_of_two_types_are_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """This also holds if a user writes a default as a whole number."""

    @dataclass(frozen=True, kw_only=True)
    class Mine(NeuralSystem):
        rate: float = 1
        depth: int = 2

        def build(self, sizes: Any) -> Any: ...

    monkeypatch.setitem(sys.modules, Mine.__module__, ModuleType(Mine.__module__))
    Mine.__annotations__.update(rate=float, depth=int)
    one = Configuration(profile="paper", system=Mine(), graph=None, training=TrainingConfig())
    made = [one.having({"rate": rate, "lr": rate}) for rate in (3, 3.0)]
    assert made[0] == made[1]
    assert [type(m.get("rate")) for m in made] == [float, float]
    direct = [replace(one, system=Mine(rate=rate), training=TrainingConfig(lr=3.0)) for rate in (3, 3.0)]
    signatures = {Trial(configuration=m, seed=0, fold=0).signature("f") for m in (*made, *direct)}
    assert len(signatures) == 1
    assert delta(Mine(rate=1.0)) == {}
    assert math.copysign(1, one.having({"weight_decay": -0.0}).get("weight_decay")) == 1  # type: ignore[arg-type]


NUMBERS = st.one_of(st.integers(1, 4), st.sampled_from([0.5, 1.0, 2.0, 1e-4, 1e-300, 1e300, 0.1 + 0.2, 0.3]))
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "profile": st.sampled_from(list(PROFILES)),
        "system": st.sampled_from(["cemobam", "gcn", "concat_mlp", "logistic"]),
        "hidden_dim": st.sampled_from([4, 8, 512]),
        "fusion": st.sampled_from(["min", "max"]),
        "gat_first_dropout": st.booleans(),
        "layers": st.integers(1, 2),
        "c": NUMBERS,
        "lr": NUMBERS,
        "weight_decay": st.one_of(NUMBERS, st.sampled_from([0, 0.0, -0.0])),
        "epochs": st.integers(1, 3),
        "precision": st.sampled_from(["fp32", "bf16"]),
        "gather_from": st.sampled_from(["chosen", "choosers"]),
        "k_audio": st.integers(1, 3),
    },
)


@given(CHANGES, CHANGES, st.integers(0, 1), st.integers(0, 1))
def test_equal_configurations_have_equal_signatures_and_no_others(
    one: dict[str, Any], other: dict[str, Any], seed: int, more: int
) -> None:
    made = [replace(DESIGN.configuration(changes, ANY_PAIR), profile="") for changes in (one, other)]
    # make the second from the first one change at a time, in another order
    by_steps = made[0]
    for name, value in reversed({**made[1].settings(), **{}}.items()):
        by_steps = by_steps.having({name: value})
    if type(made[0].system) is type(made[1].system):
        assert by_steps == made[1]
        made.append(by_steps)
    trials = [Trial(configuration=made[0], seed=seed, fold=0)]
    trials += [Trial(configuration=one, seed=seed + more, fold=0) for one in made[1:]]
    for first in trials:
        for second in trials:
            assert (first == second) == (first.signature("f") == second.signature("f"))


def test_the_order_of_changes_and_of_settings_is_not() -> None:
    changes = {"lr": 0.5, "hidden_dim": 8, "fusion": "max", "epochs": 3}
    reverse = dict(reversed(changes.items()))
    assert signature(changes) == signature(reverse) == signature({}, settings=reverse)
    assert CemoBAM(hidden_dim=8, fusion="max") == DESIGN.configuration(changes, ANY_PAIR).system
