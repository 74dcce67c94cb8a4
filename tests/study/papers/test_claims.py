from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from runs import ROOT
from simulated import Noise, about, hill, row, study, worse

from study.design.factors import Pair
from study.findings.aggregate import columns
from study.findings.analysis import Analysis
from study.findings.results import About, Results
from study.findings.wording import points
from study.output.report import VERDICT_SIGNS
from study.output.tables import block_table, comparisons_table
from study.papers.cemobam.claims import Claim, Verdict, about_what, claims
from study.papers.cemobam.paper import LABELS

Change = Callable[[Results], Results]


def verdicts(results: Results) -> dict[str, str]:
    made = claims(Analysis(results))
    assert all(claim.numbers.endswith((".", ").")) for claim in made)
    return {claim.id: claim.verdict for claim in made}


def at(results: Results, **changes: object) -> Results:
    return Results(about=replace(results.about, **changes), trials=results.trials)  # type: ignore[arg-type]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_study_in_which_all_is_as_the_paper_says(rng: np.random.Generator) -> None:
    """Its hill is where the paper's best pair is, and its variants are worse."""
    a, t = np.mgrid[1:11, 1:11]
    peak = 8 * np.exp(-((a - 8) ** 2 + (t - 7) ** 2) / 4)
    assert verdicts(study(rng, Noise(), effect=peak, variants=worse(6.0))) == {
        **dict.fromkeys(("k_matters", "best_k", "min_wins", "xcbam_needed", "chgat_needed"), "confirmed"),
        "level": "contradicted",
        "best_system": "not tested",
    }


def test_a_study_in_which_all_is_the_other_way_round(rng: np.random.Generator) -> None:
    made = verdicts(study(rng, Noise(), effect=hill(8.0), variants=worse(-6.0)))
    assert made["best_k"] == made["min_wins"] == made["xcbam_needed"] == made["chgat_needed"] == "contradicted"
    assert made["k_matters"] == "confirmed"


def test_a_study_of_luck_alone(rng: np.random.Generator) -> None:
    made = verdicts(study(rng, Noise(), variants=worse(0.0)))
    assert {name: made[name] for name in ("k_matters", "best_k", "min_wins", "xcbam_needed")} == dict.fromkeys(
        ("k_matters", "best_k", "min_wins", "xcbam_needed"), "within noise"
    )


def test_one_seed_tests_nothing(rng: np.random.Generator) -> None:
    made = claims(Analysis(study(rng, Noise(), seeds=1, variants=worse(6.0))))
    assert {claim.verdict for claim in made} == {"not tested"}
    assert "--seeds 5" in made[0].numbers


def level(wa: float, std: float) -> Claim:
    figures = wa + std * np.array([-1.2, -0.6, 0.0, 0.6, 1.2])
    trials = pd.DataFrame([row(8, 7, seed, 0.8, x / 100) for seed, x in enumerate(figures)], columns=list(columns()))
    results = Results(about=replace(about((8, 7), 5, Pair(8, 7)), title="IEMOCAP"), trials=trials)
    return next(claim for claim in claims(Analysis(results)) if claim.id == "level")


@pytest.mark.parametrize(
    ("wa", "std", "verdict"),
    [
        (82.0, 0.3, "confirmed"),
        (80.0, 0.3, "contradicted"),
        (81.0, 2.0, "within noise"),
        (98.9, 0.3, "higher than published"),
        (85.0, 0.3, "higher than published"),
    ],
)
def test_the_published_level_is_reproduced_or_not(wa: float, std: float, verdict: str) -> None:
    claim = level(wa, std)
    assert claim.verdict == verdict, claim.numbers
    assert "published 82.17" in claim.numbers
    assert claim.claim == "The published level is reproduced: the study reaches 82.17 WA and 81.85 UA"


def test_two_seeds_say_nothing_of_the_level(rng: np.random.Generator) -> None:
    made = {claim.id: claim for claim in claims(Analysis(study(rng, Noise(), seeds=2, size=(2, 2))))}
    assert made["level"].verdict == "not tested"
    assert "3 seeds at least" in made["level"].numbers


def test_every_verdict_has_a_sign_and_a_colour() -> None:
    assert tuple(VERDICT_SIGNS) == get_args(Verdict)
    page = ROOT / "study" / "output" / "templates" / "report.html"
    for verdict in get_args(Verdict):
        if verdict != "not tested":  # has the border that all have
            assert f".claims .{verdict.replace(' ', '-')} {{ border-left-color" in page.read_text()


def picked_by_luck() -> Results:
    """A grid of luck alone, whose chosen pair shines on test too, and variants as good as the others are."""
    return study(np.random.default_rng(32), Noise(val_test=1.0), variants=worse(0.0), size=(8, 7))


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rougher reference distribution, which no test here is about."""
    monkeypatch.setattr("study.findings.statistics.DRAWS", 50)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("name", ["fusion", "ablation"])
def test_the_raw_difference_is_that_of_the_tables_cells(name: str) -> None:
    """Claims once gave a corrected difference as if it were the table's: 81.11 against 78.78 became -0.8."""
    results = picked_by_luck()
    analysis = Analysis(results)
    block = results.about.block(name)
    assert block
    cells = block_table(analysis, block).frame.set_index(block.columns[0])
    told = " ".join(claim.numbers for claim in claims(analysis))
    for c in analysis.of(name)["wa"]:
        raw = cells.loc[c.first, "wa_mean"] - cells.loc[c.second, "wa_mean"]
        assert 100 * c.raw == pytest.approx(raw)
        assert c.corrected
        more = "more" if raw > 0 else "less"
        size = f"{abs(raw):.1f} point{'s' if f'{abs(raw):.1f}' != '1.0' else ''}"
        expected = f"{LABELS[c.first]} scores {size} {more} than {LABELS[c.second]} in the table; corrected for "
        assert expected + f"having chosen K on these seeds, {points(c.difference)} (p " in told
        assert c.raw > 0.005  # alone, the corrected figure would contradict the table
        assert c.difference.mean < -0.002


@pytest.mark.usefixtures("few_draws")
def test_the_raw_difference_of_pairs_is_that_of_their_means() -> None:
    results = picked_by_luck()
    analysis = Analysis(results)
    means = results.grid.set_index(["k_audio", "k_text"])["test_wa_mean"]
    assert analysis.compared["chosen"] == results.about.at
    for c in analysis.pairs["wa"]:
        first, second = (means[analysis.compared[side].k_audio, analysis.compared[side].k_text]
                         for side in (c.first, c.second))  # fmt: skip
        assert c.raw == pytest.approx(first - second)
        assert c.corrected
    told = next(claim.numbers for claim in claims(analysis) if claim.id == "best_k")
    against = analysis.pairs["wa"][0]
    assert (against.first, against.second) == ("chosen", "paper")
    assert f"K {results.about.at} (chosen) scores {100 * against.raw:.1f} points more than K 8,7 (the paper's)" in told
    assert f"corrected for having picked the pairs on these seeds, {points(against.difference)} (p " in told


@pytest.mark.usefixtures("few_draws")
def test_where_nothing_was_chosen_one_difference_is_shown() -> None:
    given = Analysis(at(picked_by_luck(), pair_from="given", pair=(1, 1)))
    assert not given.chosen_here
    made = [*given.of("fusion")["wa"], *given.of("ablation")["wa"]]
    assert len(made) == 5
    assert all(not c.corrected and c.raw == c.difference.mean for c in made)
    told = {claim.id: claim.numbers for claim in claims(given)}
    for name in ("min_wins", "xcbam_needed", "chgat_needed"):
        assert "corrected" not in told[name]


@pytest.mark.usefixtures("few_draws")
def test_seeds_that_one_side_lacks_are_said(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), variants=worse(1.0), size=(3, 3))
    lost = (results.trials["modules"] == "no_chgat") & (results.trials["seed"] == 3)
    told = {c.id: c.numbers for c in claims(Analysis(Results(about=results.about, trials=results.trials[~lost])))}
    assert "than w/o CH-GAT on the 4 seeds that both have" in told["chgat_needed"]
    assert "than w/o xCBAM in the table" in told["xcbam_needed"]


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("dataset", ["demo", "mine"])
def test_where_the_paper_names_no_pair_none_is_tested(dataset: str) -> None:
    """The pair of IEMOCAP was once held against every data set."""
    analysis = Analysis(study(np.random.default_rng(2), Noise(), dataset=dataset, size=(8, 7)))
    assert {(c.first, c.second) for c in analysis.pairs["wa"]} == {("chosen", "middle")}
    claim = next(claim for claim in claims(analysis) if claim.id == "best_k")
    assert claim.verdict == "not tested"
    assert claim.numbers.startswith("The paper names no best pair for this data")
    assert claim.claim == "The best pair is K_audio = 8, K_text = 7 on IEMOCAP and K_audio = 4, K_text = 5 on ESD"
    table = comparisons_table(analysis)
    assert table
    assert not table.frame[["first", "second"]].isin(["paper"]).any(axis=None)


def test_a_pair_that_was_given_took_part_in_no_choice(rng: np.random.Generator) -> None:
    results = study(rng, Noise(val_test=1.0), variants=worse(1.0))
    free, given = Analysis(results), Analysis(at(results, pair_from="given"))
    for one, other in zip(free.of("fusion")["wa"], given.of("fusion")["wa"], strict=True):
        assert other.difference.mean == one.difference.mean
        assert other.difference.p <= one.difference.p
    assert {(c.first, c.second) for c in given.pairs["wa"]} == {
        ("chosen", "paper"), ("chosen", "middle"), ("paper", "middle")
    }  # fmt: skip


def test_a_grid_without_the_papers_pair_says_so(rng: np.random.Generator) -> None:
    made = {claim.id: claim for claim in claims(Analysis(study(rng, Noise(), size=(3, 3))))}
    assert made["best_k"].verdict == "not tested"
    assert "K 8,7 is not on the grid" in made["best_k"].numbers


def test_what_is_not_run_is_not_tested(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), size=(2, 2))
    nothing = Results(about=replace(results.about, pair=None), trials=results.trials.iloc[:0])
    assert set(verdicts(nothing).values()) == {"not tested"}
    some = study(rng, Noise(), size=(2, 2), variants={"max": 0.0})
    made = {claim.id: claim for claim in claims(Analysis(some))}
    assert made["min_wins"].verdict == "not tested"
    assert "Only 1 of 3" in made["min_wins"].numbers


def test_the_answer_says_what_it_is_about() -> None:
    assert "about the demo data alone" in about_what("demo", "demo (synthetic)")
    assert "on which the paper reports nothing" in about_what("mine", "mine")
    assert "IEMOCAP with these features" in about_what("iemocap", "IEMOCAP")


@pytest.mark.parametrize("lost", [0.02, 0.3, 0.9])
def test_holes_anywhere_are_named_and_never_averaged_over(rng: np.random.Generator, lost: float) -> None:
    results = study(rng, Noise(), size=(4, 5), variants=worse(1.0))
    trials = results.trials.copy()
    trials.loc[rng.random(len(trials)) < lost, "status"] = "failed"
    holed = Results(about=results.about, trials=trials)
    verdicts(holed)
    scores = holed.scores
    if scores is not None:
        assert not any(np.isnan(values).any() for values in scores.values.values())
        missing = 100 - sum(map(len, (scores.seeds,))) * len(scores.k_audio) * len(scores.k_text)
        assert bool(scores.left_out) == (missing > 0)
    done = trials[trials["status"] == "done"]
    assert holed.grid["n_seeds"].sum() == len(done[(done["fusion"] == "min") & (done["modules"] == "full")])


def test_an_unfinished_seed_is_left_out_of_the_analysis_and_named(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), size=(4, 5))
    trials = results.trials
    cut = trials[~((trials["seed"] == 4) & (trials["k_audio"] > 1))]
    scores = Results(about=results.about, trials=cut).scores
    assert scores
    assert (scores.seeds, scores.left_out) == ((0, 1, 2, 3), "seed 4")
    assert scores.values["test_wa"].shape == (4, 4, 5)


def test_a_seed_counts_when_it_is_done_on_every_fold(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), size=(2, 2), seeds=3)
    second = results.trials.assign(fold=1, test_wa=results.trials["test_wa"] + 0.1)
    about: About = replace(results.about, folds=2)
    scores = Results(about=about, trials=pd.concat([results.trials, second[second["seed"] < 2]])).scores
    assert scores
    assert scores.left_out == "seed 2"
    once = results.scores
    assert once
    np.testing.assert_allclose(scores.values["test_wa"], once.values["test_wa"][:2] + 0.05)


@pytest.mark.slow
def test_a_pair_beside_the_best_is_not_the_best(rng: np.random.Generator) -> None:
    """Where 7,6 is the best by far, not to have found it better than 8,7 is no evidence for 8,7."""
    a, t = np.mgrid[1:11, 1:11]
    peak = 10 * np.exp(-((a - 7) ** 2 + (t - 6) ** 2) / 10)  # 8,7 falls 1.8 points short of it
    made = [verdicts(study(rng, Noise(smooth=1.0, val_test=0.3), effect=peak))["best_k"] for _ in range(12)]
    assert made.count("confirmed") == 0


def test_a_k_that_does_nothing_at_all_has_no_effect(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), size=(3, 2))
    trials = results.trials.copy()
    figures = [column for column in trials if column.startswith(("train_", "val_", "test_"))]
    for (_, _), rows in trials.groupby(["k_audio", "seed"]):
        first = rows.index[rows["k_text"] == 1][0]
        for column in figures:
            trials.loc[rows.index, column] = trials.loc[first, column]
    analysis = Analysis(Results(about=results.about, trials=trials))
    effects = {effect.name: effect for effect in analysis.variance["wa"].effects}
    assert effects["K_text"].p == effects["interaction"].p == 1.0
    assert effects["K_text"].f == 0.0


@pytest.mark.slow
def test_to_give_the_pair_that_the_grid_chose_is_to_choose_it(rng: np.random.Generator) -> None:
    results = study(rng, Noise(smooth=1.0, val_test=0.3), variants=worse(0.0))
    given = at(results, pair_from="given")
    assert Analysis(given).chosen_here
    ours, theirs = (Analysis(r) for r in (given, results))
    for mine, their in (
        (ours.pairs, theirs.pairs), *((ours.of(name), theirs.of(name)) for name in ("fusion", "ablation"))
    ):  # fmt: skip
        assert [c.p_holm for c in mine["wa"]] == [c.p_holm for c in their["wa"]]
    elsewhere = at(results, pair_from="given", pair=(1, 1) if results.about.pair != (1, 1) else (2, 2))
    assert not Analysis(elsewhere).chosen_here


def test_seeds_that_do_not_differ_say_nothing_of_the_level(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), seeds=3, size=(2, 2))
    trials = results.trials.assign(test_wa=0.815, test_ua=0.815)
    made = {claim.id: claim for claim in claims(Analysis(Results(about=results.about, trials=trials)))}
    assert made["level"].verdict == "not tested"
    assert "do not differ" in made["level"].numbers


def test_what_is_left_out_of_the_grid_stands_with_the_numbers(rng: np.random.Generator) -> None:
    results = study(rng, Noise())
    hole = (results.trials["k_audio"] == 2) & (results.trials["k_text"] == 3) & (results.trials["seed"] == 1)
    made = {c.id: c for c in claims(Analysis(Results(about=results.about, trials=results.trials[~hole])))}
    for name in ("k_matters", "best_k"):
        assert "Left out of the grid, as not complete:" in made[name].numbers
