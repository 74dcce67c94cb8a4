from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core.config import PROFILES
from study import design as design_module
from study.design import (
    BLOCKS,
    DEFAULT_BLOCKS,
    GAPS,
    Design,
    Pair,
    Trial,
    base_configuration,
    distinct,
    largest_k,
    readings,
    switched,
)
from study.papers.cemobam import paper_pair

READINGS = readings()
BASE = READINGS["paper"]
PAPERS = Design(
    readings=READINGS, profile="paper", k_audio=tuple(range(1, 11)), k_text=tuple(range(1, 11)), seeds=tuple(range(5))
)


def test_the_papers_study_is_525_trials() -> None:
    blocks = {block: PAPERS.trials(block, Pair(8, 7)) for block in DEFAULT_BLOCKS}
    assert {block: len(trials) for block, trials in blocks.items()} == {"grid": 500, "fusion": 20, "ablation": 15}
    assert len(distinct(t for trials in blocks.values() for t in trials)) == 525
    signatures = {t.signature("f") for trials in blocks.values() for t in trials}
    assert len(signatures) == 525


def test_the_default_configuration_is_the_papers() -> None:
    assert BASE.training.epochs == 100
    assert (BASE.training.lr, BASE.training.weight_decay) == (1e-4, 5e-4)
    assert (BASE.training.lr_step, BASE.training.lr_gamma) == (30, 0.1)
    assert (BASE.model.hidden_dim, BASE.model.heads, BASE.model.gat_layers, BASE.model.dropout) == (512, 4, 3, 0.3)
    assert (BASE.model.cbam_kernel, BASE.model.cbam_reduction, BASE.model.fusion) == (7, 16, "min")


def test_the_gaps_are_all_the_differences_between_the_profiles_and_one_at_a_time() -> None:
    paper, released = READINGS["paper"], READINGS["released"]
    mixed = paper
    for gap in GAPS:
        one = switched(paper, released, gap)
        assert one.profile == f"paper+{gap}"
        back = switched(one, paper, gap)
        assert (back.graph, back.model, back.training) == (paper.graph, paper.model, paper.training)
        assert (one.graph, one.model, one.training) != (paper.graph, paper.model, paper.training)
        mixed = switched(mixed, released, gap)
    assert (mixed.graph, mixed.model, mixed.training) == (released.graph, released.model, released.training)
    configurations = BLOCKS["gaps"](PAPERS, Pair(8, 7))
    assert len(set(configurations)) == 2 + 2 * len(GAPS)
    assert {c.pair for c in configurations} == {Pair(8, 7)}


def test_seeds_come_one_after_the_other() -> None:
    trials = PAPERS.trials("grid", Pair(1, 1))
    assert [t.seed for t in trials] == [seed for seed in range(5) for _ in range(100)]


def test_folds_multiply_trials() -> None:
    design = replace(PAPERS, folds=5, seeds=(0, 7))
    trials = design.trials("ablation", Pair(2, 3))
    assert len(trials) == 3 * 2 * 5
    assert {(t.seed, t.fold) for t in trials} == {(s, f) for s in (0, 7) for f in range(5)}


CHANGES: list[dict[str, Any]] = [
    {"hidden_dim": 256},
    {"heads": 8},
    {"dropout": 0.2},
    {"fusion": "max"},
    {"modules": "no_xcbam"},
    {"epochs": 99},
    {"lr": 2e-4},
    {"weight_decay": 0.0},
    {"lr_gamma": 0.5},
    {"precision": "bf16"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_setting_is_in_the_signature(change: dict[str, Any]) -> None:
    trial = Trial(configuration=BASE, seed=0, fold=0)
    changed = Trial(configuration=base_configuration(PROFILES["paper"], **change), seed=0, fold=0)
    assert changed.signature("f") != trial.signature("f")


def test_seed_fold_pair_features_and_method_are_in_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(configuration=BASE, seed=0, fold=0)
    others = [
        replace(trial, seed=1).signature("f"),
        replace(trial, fold=1).signature("f"),
        replace(trial, configuration=replace(BASE, pair=Pair(1, 2))).signature("f"),
        replace(trial, configuration=replace(BASE, pair=Pair(2, 1))).signature("f"),
        replace(trial, configuration=replace(BASE, profile="other")).signature("f"),
        trial.signature("g"),
    ]
    original = trial.signature("f")
    monkeypatch.setattr(design_module, "METHOD_VERSION", 0)
    design_module._signature.cache_clear()
    others.append(trial.signature("f"))
    design_module._signature.cache_clear()
    assert len({*others, original}) == len(others) + 1


def test_a_signature_is_the_same_in_every_process_and_release() -> None:
    # Ledgers of users depend on it: if this changes without a change of METHOD_VERSION, they would run all again.
    assert Trial(configuration=BASE, seed=3, fold=0).signature("0123456789abcdef") == "3dd04edc764ba72e"


@given(st.sets(st.integers(1, 30), min_size=1), st.sets(st.integers(1, 30), min_size=1), st.integers(1, 3))
def test_a_grid_is_every_pair_with_every_seed_once(audio: set[int], text: set[int], seeds: int) -> None:
    design = Design(
        readings=READINGS,
        profile="paper",
        k_audio=tuple(sorted(audio)),
        k_text=tuple(sorted(text)),
        seeds=tuple(range(seeds)),
    )
    trials = design.trials("grid", Pair(1, 1))
    seen = [(t.configuration.pair.k_audio, t.configuration.pair.k_text, t.seed) for t in trials]
    assert sorted(seen) == [(a, t, s) for a in sorted(audio) for t in sorted(text) for s in range(seeds)]
    assert largest_k(design, []) == max(audio | text)
    assert largest_k(design, [Pair(31, 40)]) == 40


def test_the_papers_pairs() -> None:
    assert paper_pair("iemocap") == Pair(8, 7)
    assert paper_pair("esd") == Pair(4, 5)
    assert paper_pair("demo") is None
