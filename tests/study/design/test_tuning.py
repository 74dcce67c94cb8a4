"""Tuning: the configurations that are tried, which depend neither on the engine nor on the number of calls."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import qmc

from cemobam_core import Between, NeuralSystem, OneOf, System
from cemobam_core.systems import system_class
from cemobam_core.systems.search import GRAPH, TRAINING, Space
from study.design.block import Changes
from study.design.design import ANY_PAIR, Design
from study.design.tuning import TUNED, Search, Tuning, block_name, tuned_block

SPACE: Space = {
    "lr": Between(1e-4, 1e-1, log=True),
    "dropout": Between(0.0, 0.5),
    "k_audio": OneOf(1, 2, 3, 4),
    "hidden_dim": OneOf(8, 64),
}


@dataclass(frozen=True, kw_only=True)
class Tuned(NeuralSystem):
    """A system with its own search space."""

    search: ClassVar[Space] = SPACE
    hidden_dim: int = 16
    dropout: float = 0.1

    def build(self, sizes: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Plain(Tuned):
    """A system without its own search space."""

    search: ClassVar[Space] = {}


def tuning(budget: int, search: Search = "sobol", kind: type[System] = Tuned, **pinned: object) -> Tuning:
    return Tuning(systems={"x": kind}, budget=budget, search=search, pinned=frozenset(pinned))


def tried(budget: int, **how: Any) -> list[Changes]:
    return list(tuning(budget, **how).block("x").configurations.values())


def test_the_defaults_come_first_and_all_others_lie_in_the_space() -> None:
    first, *others = tried(33)
    assert first == {"system": "x"}
    assert len(others) == 32
    for one in others:
        assert one.keys() == {"system", *SPACE}
        assert 1e-4 <= float(one["lr"]) <= 1e-1
        assert 0 <= float(one["dropout"]) <= 0.5
        assert one["k_audio"] in (1, 2, 3, 4)
        assert one["hidden_dim"] in (8, 64)


def test_they_fill_the_space_evenly() -> None:
    others = tried(65)[1:]
    assert [sum(one["k_audio"] == k for one in others) for k in (1, 2, 3, 4)] == pytest.approx([16] * 4, abs=3)
    assert sum(one["hidden_dim"] == 8 for one in others) == pytest.approx(32, abs=2)
    decades = np.log10([float(one["lr"]) for one in others])
    assert [sum((decades >= low) & (decades < low + 1)) for low in (-4, -3, -2)] == pytest.approx([64 / 3] * 3, abs=2)
    unit = np.column_stack([(decades + 4) / 3, [float(one["dropout"]) / 0.5 for one in others]]).clip(0, 1)
    luck = [qmc.discrepancy(np.random.default_rng(i).random(unit.shape)) for i in range(20)]
    assert qmc.discrepancy(unit) < min(luck)  # none of twenty random draws is as even


def test_a_larger_budget_goes_on_where_a_smaller_one_ends() -> None:
    assert tried(20)[:7] == tried(7)
    assert tried(1) == [{"system": "x"}]


def test_another_process_draws_the_same() -> None:
    code = (
        "from study.design.tuning import Tuning\nfrom cemobam_core.systems import system_class\n"
        "print(list(Tuning(systems={'concat_mlp': system_class('concat_mlp')}, budget=9)"
        ".block('concat_mlp').configurations.values()))"
    )
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    here = Tuning(systems={"concat_mlp": system_class("concat_mlp")}, budget=9).block("concat_mlp")
    assert said[0].stdout.strip() == said[1].stdout.strip() == str(list(here.configurations.values()))
    assert said[0].stderr == ""  # Optuna prints no warning


def test_what_the_user_pins_is_not_tuned() -> None:
    assert all("lr" not in one for one in tried(5, lr=1))
    assert tried(5, lr=1, dropout=1, k_audio=1, hidden_dim=1) == [{"system": "x"}]


def test_a_neural_system_without_a_space_tunes_its_training_and_its_graph() -> None:
    assert tried(3, kind=Plain)[1].keys() == {"system", *TRAINING, *GRAPH}
    assert tuning(3, kind=Plain).k_max == 10
    assert tuning(3).k_max == 4


def test_a_small_space_is_tried_once() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Small(Tuned):
        """Two values."""

        search: ClassVar[Space] = {"hidden_dim": OneOf(8, 64)}

    assert len(tried(30, kind=Small)) == 3
    assert tuning(30, kind=Small).left("x", 3) == 0


def peak(changes: Changes) -> float:
    """Return a score that is best at a learning rate of 0.01."""
    return 1 - abs(np.log10(float(changes.get("lr", 1e-4))) + 2) / 3


def rounds(budget: int, fails: int = -1) -> list[Changes]:
    """Return the configurations of all rounds of TPE."""
    tuned, known = tuning(budget, "tpe"), list(tuning(budget, "tpe").block("x").configurations.values())
    sizes = [len(known)]
    while tuned.goes_on("x", len(known)):
        scores = [None if i == fails else peak(one) for i, one in enumerate(known)]
        grown = list(tuned.block("x", list(zip(known, scores, strict=True))).configurations.values())
        assert grown[: len(known)] == known  # configurations that were tried stay
        sizes.append(len(grown))
        known = grown
    assert sizes[-1] == budget
    assert sizes == [min(budget, 10), *range(15, budget, 5), *([budget] if budget > 10 else [])]
    return known


def test_tpe_learns_from_the_rounds_before_and_from_nothing_else() -> None:
    known = rounds(32)
    assert known == rounds(32)
    assert known[:10] == tried(10)
    later = np.mean([peak(one) for one in known[20:]])
    assert later > np.mean([peak(one) for one in tried(32)[1:]]) + 0.1
    assert known != rounds(32, fails=5)


def test_tpe_of_a_small_budget_is_sobol() -> None:
    assert rounds(6) == tried(6)


def test_its_block_is_of_the_system_and_has_no_comparisons() -> None:
    block = tuning(4).block("x")
    assert block.name == "tune-tuned" or block.name.startswith("tune-")
    assert not block.compared
    assert block.varied == tuple(SPACE)
    assert block_name("tpe", "mine.py:MyModel") == "tpe-mine-MyModel"
    assert len(block_name("sobol", f"{'x' * 60}.py:A")) <= 41


def test_the_chosen_are_compared_with_cemobam() -> None:
    chosen: dict[str, Changes] = {"logistic": {"system": "logistic", "c": 0.1}, "cemobam": {"system": "cemobam"}}
    block = tuned_block(chosen, budget=7)
    assert (block.name, block.reference, block.fresh) == (TUNED, "cemobam", True)
    assert tuned_block({"logistic": {"system": "logistic"}}, budget=7).reference is None
    design = Design(blocks={TUNED: block})
    made = design.configurations(TUNED, ANY_PAIR)
    assert [one.get("c") for one in made] == [0.1, None]
    assert [one.profile for one in made] == ["logistic", "cemobam"]
