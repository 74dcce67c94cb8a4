"""As many seeds as it takes: a study of known predictions that looks at its differences after 5, 10 and 20 seeds.

Of 400 test utterances the first hundred are wrong for all. With MIN as it is, every other configuration has a fate:
CLS is clearly worse, MEAN takes ten seeds, MAX is never clear; without xCBAM it is practically the same, and without
CH-GAT other utterances would make such a difference that no number of seeds can tell it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from invented import FakeEngine, demo_facts, run_to_the_end, small_design
from scipy import stats

from study import load_results
from study.design.configuration import Trial
from study.design.factors import Pair
from study.design.seeds import LOOKS, SPENT
from study.driver import Plan, StudyRun
from study.findings.analysis import Analysis, Comparison
from study.findings.evidence import Evidence
from study.findings.looks import catch_up
from study.findings.luck import equivalence
from study.findings.statistics import holm
from study.findings.votes import scores
from study.ledger.ledger import Ledger
from study.ledger.outcomes import METRICS, Outcome
from study.ledger.utterances import TestUtterances
from study.output.tables import block_table, comparisons_table
from study.papers.cemobam.claims import claims

N = 400
LABELS = np.arange(N) % 4
WRONG = 100
"""Number of utterances, the first of all, that are wrong for every configuration."""

UTTERANCES = TestUtterances(
    ids=tuple(f"u{i}" for i in range(N)), labels=tuple(LABELS.tolist()), folds=(0,) * N, speakers=None, sessions=None,
    seconds=None, train_sizes=(4 * N,),
)  # fmt: skip

MORE_WRONG = {"max": (16, -8), "mean": (16, 4)}
"""Number of additional utterances that are wrong with even and with odd seeds. They differ from seed to seed."""


def known(trial: Trial) -> Outcome:
    """Return the outcome of a trial, as the module's docstring describes."""
    fusion, modules = (str(trial.configuration.get(name)) for name in ("fusion", "modules"))
    rng = np.random.default_rng([trial.seed, *map(ord, f"{fusion} {modules}")])
    wrong = np.arange(N) < WRONG
    wrong[rng.choice(np.arange(350, N), rng.integers(3), replace=False)] = True  # the luck of a seed
    if fusion == "cls":
        wrong[WRONG : WRONG + 40] = True
    more = MORE_WRONG.get(fusion, (0, 0))[trial.seed % 2]
    wrong[rng.choice(np.arange(WRONG, 350) if more > 0 else np.arange(WRONG), abs(more), replace=False)] = more > 0
    if modules == "no_chgat":
        wrong[200:220], wrong[:16] = True, False  # one point less, with the same utterances for every seed
    predicted = np.where(wrong, (LABELS + 1) % 4, LABELS)
    tested = {f"test_{name}": score for name, score in scores(predicted, LABELS, np.zeros(N, int), 4).items()}
    return Outcome(
        status="done", seconds=0.1, device="cpu", metrics={**dict.fromkeys(METRICS, 0.5), **tested},
        curve={1: 0.5}, predicted=predicted.astype(np.uint8).tobytes(),
    )  # fmt: skip


def plan(**changes: object) -> Plan:
    design = small_design(k_audio=(1,), k_text=(1,), seeds=(0, 1))
    made = Plan(
        design=design, blocks=("grid", "fusion", "ablation"), at=None, select_by="wa", select_on="val", until_clear=True
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def opened(storage: str = "sqlite:///:memory:") -> Ledger:
    ledger = Ledger(storage, name="demo")
    ledger.open(demo_facts(), UTTERANCES)
    return ledger


def evidence_of(run: StudyRun) -> Evidence:
    return Evidence.of(run, name="demo", models=Path())


def seeds_of(run: StudyRun) -> dict[str, int]:
    """Return the number of seeds of each configuration of the blocks fusion and ablation."""
    about = evidence_of(run).about
    found = {}
    for name in ("fusion", "ablation"):
        block = about.block(name)
        assert block
        names = [block.name_of(key) for key in evidence_of(run).results.keys(block)]
        found |= dict(zip(names, block.n_seeds, strict=True))
    return found


FATES = {"cls": 5, "min": 20, "max": 20, "mean": 10, "full": 5, "no_xcbam": 5, "no_chgat": 5}

TRIALS = 2 + 20 + 5 + 20 + 10 + 5 + 5
"""The grid, MIN, CLS, MAX, MEAN and both ablations. The full model is MIN."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRun, FakeEngine, str]:
    """Run the study to its end, and return it with the place of its ledger."""
    storage = f"sqlite:///{tmp_path_factory.mktemp('looks') / 'study.db'}"
    engine = FakeEngine(outcome=known)
    return run_to_the_end(plan(), opened(storage), engine), engine, storage


@pytest.fixture(scope="module")
def compared(whole: tuple[StudyRun, FakeEngine, str]) -> dict[str, Comparison]:
    analysis = evidence_of(whole[0]).analysis
    return {c.second: c for name in ("fusion", "ablation") for c in analysis.of(name)["wa"]}


def test_each_has_as_many_seeds_as_it_takes(whole: tuple[StudyRun, FakeEngine, str]) -> None:
    run, engine, _ = whole
    assert seeds_of(run) == FATES
    assert len(engine.ran) == len(set(engine.ran)) == TRIALS
    assert run.counts() == (TRIALS, TRIALS)
    assert {trial.seed for trial in run.trials("grid")} == {0, 1}
    assert {trial.seed for trial in run.trials("fusion")} == set(range(2, 22))
    # no trial runs before its look: first all with five seeds, then those with ten
    assert {trial.seed for trial in engine.ran[2 : 2 + 6 * 5]} == set(range(2, 7))
    second = engine.ran[2 + 6 * 5 : 2 + 6 * 5 + 3 * 5]
    assert {(trial.configuration.get("fusion"), trial.seed) for trial in second} == {
        (fusion, seed) for fusion in ("min", "max", "mean") for seed in range(7, 12)
    }
    assert {trial.configuration.get("fusion") for trial in engine.ran[2 + 6 * 5 + 3 * 5 :]} == {"min", "max"}


def test_the_verdicts_are_those_of_the_look_that_decided(compared: dict[str, Comparison]) -> None:
    assert {name: (c.verdict, c.difference.n, c.level) for name, c in compared.items()} == {
        "cls": ("better", 5, 0.01),
        "mean": ("better", 10, 0.02),
        "max": ("undecided", 20, 0.02),
        "no_xcbam": ("equivalent", 5, 0.01),
        "no_chgat": ("undecided", 5, 0.01),
    }


def test_p_values_and_intervals_hold_for_all_looks_together(compared: dict[str, Comparison]) -> None:
    for c in compared.values():
        assert c.level == SPENT[LOOKS.index(c.difference.n)]
        assert c.p == pytest.approx(min(1, c.difference.p * 0.05 / c.level))
        assert c.p_equivalent == pytest.approx(min(1, equivalence(c.difference, 0.01) * 0.05 / c.level))
        for one in (c.seed, c.utterances):
            assert one
            half = stats.t.ppf(1 - c.level / 2, one.df) * one.se
            assert (one.low, one.high) == pytest.approx((one.mean - half, one.mean + half))
    fusion = [compared[name] for name in ("cls", "max", "mean")]
    assert [c.p_holm for c in fusion] == pytest.approx(holm([c.p for c in fusion]))
    assert [c.p_same for c in fusion] == pytest.approx(holm([c.p_equivalent for c in fusion]))


def test_with_ten_seeds_it_would_not_have_been_clear_after_five(compared: dict[str, Comparison]) -> None:
    """Ten seeds decide where five do not: the first five of MEAN alone are not significant at their level."""
    first = run_to_the_end(
        plan(until_clear=False, design=replace(plan().design, confirm=5)), opened(), FakeEngine(outcome=known)
    )
    early = next(c for c in evidence_of(first).analysis.of("fusion")["wa"] if c.second == "mean")
    assert early.difference.p * 5 > 0.05  # not below the look's level, even without correction for the family
    assert compared["mean"].difference.n == 10


def test_without_differences_that_are_true_looking_again_finds_no_more_than_it_may() -> None:
    """In 20,000 studies with 20 paired seeds each and no difference, at most 5% have a false alarm at any look."""
    differences = np.random.default_rng(0).standard_normal((20_000, max(LOOKS)))
    found = np.zeros(len(differences), bool)
    for n, level in zip(LOOKS, SPENT, strict=True):
        found |= stats.ttest_1samp(differences[:, :n], 0, axis=1).pvalue < level
    assert 0.04 < found.mean() < 0.05


def test_asked_again_it_has_nothing_to_do(whole: tuple[StudyRun, FakeEngine, str]) -> None:
    engine = FakeEngine(outcome=known)
    again = run_to_the_end(plan(), opened(whole[2]), engine)
    assert engine.ran == []
    assert seeds_of(again) == FATES


def told(run: StudyRun) -> tuple[object, ...]:
    """Return all findings in a study's tables and claims."""
    evidence = evidence_of(run)
    analysis, about = evidence.analysis, evidence.about
    table = comparisons_table(analysis)
    assert table
    blocks = [block_table(analysis, block).markdown() for block in about.blocks if block.compared]
    return about, table.frame.to_csv(), table.markdown(), blocks, claims(analysis)


def test_the_ledger_alone_gives_the_same_tables(whole: tuple[StudyRun, FakeEngine, str]) -> None:
    """This is how --report-only works: each look uses its own seeds, even if more are recorded."""
    report_only = StudyRun(plan(), opened(whole[2]), demo_facts())
    assert seeds_of(report_only)["max"] == 5
    catch_up(report_only, name="demo")
    assert told(report_only) == told(whole[0])
    # if only some blocks are asked for, the other recorded ones are reported in the same way
    of_one = StudyRun(plan(blocks=("fusion",)), opened(whole[2]), demo_facts())
    catch_up(of_one, name="demo")
    assert told(of_one) == told(whole[0])


def test_its_files_give_the_same_comparisons(whole: tuple[StudyRun, FakeEngine, str], tmp_path: Path) -> None:
    evidence = evidence_of(whole[0])
    evidence.results.save(tmp_path)
    read = Analysis(load_results(tmp_path))
    assert read.results.about == evidence.about
    assert read.results.about.looks
    before, after = (comparisons_table(analysis) for analysis in (evidence.analysis, read))
    assert before
    assert after
    pd.testing.assert_frame_equal(after.frame, before.frame, rtol=1e-12)


@pytest.mark.parametrize("after", [20, 32, 40, 47])
def test_stopped_anywhere_it_goes_on_as_if_nothing_had_been(after: int, tmp_path: Path) -> None:
    """The first look comes after 32 trials, and the second after 47."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    stopped, engine = FakeEngine(outcome=known, stop_after=after), FakeEngine(outcome=known)
    with pytest.raises(KeyboardInterrupt):
        run_to_the_end(plan(), opened(storage), stopped)
    assert len(stopped.ran) == after
    run = run_to_the_end(plan(), opened(storage), engine)
    assert len(engine.ran) == TRIALS - after
    assert len({*stopped.ran, *engine.ran}) == TRIALS
    assert seeds_of(run) == FATES


def test_seeds_of_an_earlier_run_are_looked_at_before_more_are_run(tmp_path: Path) -> None:
    """Ten seeds are recorded. Those after the fifth count only if a look asks for them."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    ten = plan(until_clear=False, design=replace(plan().design, confirm=10))
    run_to_the_end(ten, opened(storage), FakeEngine(outcome=known))
    engine = FakeEngine(outcome=known)
    run = run_to_the_end(plan(), opened(storage), engine)
    assert seeds_of(run) == FATES
    assert {(trial.configuration.get("fusion"), trial.seed) for trial in engine.ran} == {
        (fusion, seed) for fusion in ("min", "max") for seed in range(12, 22)
    }
    about = evidence_of(run).about
    fusion = evidence_of(run).results.fusion.set_index("fusion")
    assert fusion["n_seeds"].to_dict() == {"cls": 5, "min": 20, "max": 20, "mean": 10}
    assert about.confirm == tuple(range(2, 22))


def test_a_block_that_is_not_run_gets_no_more_seeds(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    five = plan(until_clear=False, design=replace(plan().design, confirm=5))
    run_to_the_end(five, opened(storage), FakeEngine(outcome=known))
    engine = FakeEngine(outcome=known)
    run = run_to_the_end(plan(blocks=("ablation",)), opened(storage), engine)
    assert engine.ran == []
    assert set(seeds_of(run).values()) == {5}
    assert run.counts() == (15, 15)
    fusion = {c.second: c for c in evidence_of(run).analysis.of("fusion")["wa"]}
    assert (fusion["max"].verdict, fusion["max"].level) == ("undecided", 0.01)


def test_what_has_no_predictions_is_decided_by_seeds() -> None:
    """Without the luck of utterances, the ablation of CH-GAT is significant: one point less with every seed."""

    def unpredicted(trial: Trial) -> Outcome:
        return replace(known(trial), predicted=b"")

    run = run_to_the_end(plan(), opened(), FakeEngine(outcome=unpredicted))
    ablation = {c.second: c for c in evidence_of(run).analysis.of("ablation")["wa"]}
    assert (ablation["no_chgat"].verdict, ablation["no_chgat"].decided_by) == ("better", "seed")
    assert seeds_of(run)["no_chgat"] == 5


@pytest.mark.parametrize("lost", ["max", "min"])
def test_a_configuration_that_always_fails_is_not_asked_for_again(lost: str) -> None:
    engine = FakeEngine(outcome=known, fails=lambda t: t.seed > 1 and t.configuration.get("fusion") == lost)
    run = run_to_the_end(plan(blocks=("grid", "fusion")), opened(), engine)
    n_seeds = dict(zip(("cls", "min", "max", "mean"), evidence_of(run).about.blocks[1].n_seeds, strict=True))
    assert n_seeds == ({"cls": 5, "min": 10, "max": 5, "mean": 10} if lost == "max" else dict.fromkeys(n_seeds, 5))


def test_blocks_that_are_compared_with_nothing_do_not_look() -> None:
    """The gaps have their own table, with as many seeds as were asked for."""
    engine = FakeEngine(outcome=known)
    asked = plan(blocks=("grid", "gaps"), design=small_design(k_audio=(1,), k_text=(1,), seeds=(0, 1, 2)))
    run = run_to_the_end(asked, opened(), engine)
    evidence = evidence_of(run)
    gaps = evidence.about.block("gaps")
    assert gaps
    assert set(gaps.n_seeds) == {3}
    made = evidence.analysis.between(gaps, "released", "paper")
    assert made
    assert made.level == 0.05


def test_where_nothing_chooses_the_seeds_asked_for_come_first() -> None:
    design = small_design(k_audio=(1,), k_text=(1,), seeds=(0, 1, 7))
    alone = replace(design, blocks={"ablation": design.blocks["ablation"]})
    bare = plan(blocks=("ablation",), design=alone, at=Pair(1, 1))
    run = StudyRun(bare, opened(), demo_facts())
    assert not run.confirms("ablation")
    assert run.seeds_of("ablation") == (0, 1, 7, 8, 9)
    many = replace(bare, design=replace(bare.design, seeds=tuple(range(12))))
    assert StudyRun(many, opened(), demo_facts()).seeds_of("ablation") == (0, 1, 2, 3, 4)
