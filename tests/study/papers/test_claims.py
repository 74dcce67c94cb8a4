from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from runs import ROOT
from simulated import Noise, hill, study, worse

from study.findings.analysis import Analysis
from study.findings.results import About, Results
from study.output.document import VERDICT_SIGNS
from study.output.tables import block_table
from study.papers.cemobam.claims import Claim, Verdict, claims, scope

LEVELS = ("level", "level_wf1", "level_fusions", "level_xcbam", "level_chgat")
NEVER_TESTED = dict.fromkeys(("best_system", "balance", "graph_helps"), "not tested")
"""By studies that compare no systems."""
OF_MODULES = ("min_wins", "min_consistent", "xcbam_needed", "chgat_needed", "synergy", "xcbam_more")


def verdicts(results: Results) -> dict[str, str]:
    made = claims(Analysis(results))
    for claim in made:
        assert all(text.endswith(".") and text[0] != " " for text in (claim.answer, *claim.numbers)), claim
    return {claim.id: claim.verdict for claim in made}


def at(results: Results, **changes: object) -> Results:
    return replace(results, about=replace(results.about, **changes))  # type: ignore[arg-type]


def numbers_of(claim: Claim) -> str:
    return " ".join(claim.numbers)


def of(results: Results, name: str) -> Claim:
    return next(claim for claim in claims(Analysis(results)) if claim.id == name)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("utterances", [0, 551])
def test_a_study_in_which_all_is_as_the_paper_says(rng: np.random.Generator, utterances: int) -> None:
    """Its hill is where the paper's best pair is, and its variants are worse, with or without predictions."""
    a, t = np.mgrid[1:11, 1:11]
    peak = 8 * np.exp(-((a - 8) ** 2 + (t - 7) ** 2) / 4)
    variants = {**worse(6.0), "no_xcbam": -20.0}
    made = verdicts(study(rng, Noise(), effect=peak, variants=variants, utterances=utterances))
    assert {name: verdict for name, verdict in made.items() if name not in LEVELS} == {
        **dict.fromkeys(("k_matters", "best_k", *OF_MODULES), "confirmed"),
        **NEVER_TESTED,
    }
    assert all((made[name] == "not tested") == (utterances == 0) for name in LEVELS)


def test_a_study_in_which_all_is_the_other_way_round(rng: np.random.Generator) -> None:
    variants = {**worse(-6.0), "no_xcbam": 12.0}
    made = verdicts(study(rng, Noise(), effect=hill(8.0), variants=variants, utterances=551))
    assert {made[name] for name in ("best_k", *OF_MODULES)} == {"contradicted"}
    assert made["k_matters"] == "confirmed"


def test_a_study_of_luck_alone(rng: np.random.Generator) -> None:
    made = verdicts(study(rng, Noise(), variants=worse(0.0), utterances=551, size=(8, 7)))
    assert {made[name] for name in ("k_matters", "best_k", *OF_MODULES)} == {"undecided"}


def precise(rng: np.random.Generator, **changes: object) -> Results:
    """A study of 20,000 test utterances and next to no luck, at the published level."""
    of: dict[str, object] = {"variants": worse(0.0), "size": (2, 2), "point": 0.0005, "spread": 0.1, "level": 0.8217}
    return study(rng, Noise(seed=0.1), utterances=20_000, **{**of, **changes})  # type: ignore[arg-type]


def test_what_brings_nothing_is_equivalent_if_that_can_be_told(rng: np.random.Generator) -> None:
    results = precise(rng)
    assert {verdicts(results)[name] for name in OF_MODULES} == {"equivalent"}
    assert {verdicts(at(results, rope=0.01))[name] for name in OF_MODULES} == {"undecided"}
    claim = of(results, "xcbam_needed")
    assert claim.answer == "Without xCBAM, WA on test changes by less than 1 point."
    assert "practically the same: > 0.99;" in numbers_of(claim)
    assert claim.intervals == "Tests and 95% intervals hold for another seed and other test utterances."
    assert of(results, "min_wins").answer == "MIN scores the same as CLS, MAX and MEAN within 1 point."
    assert of(results, "xcbam_more").answer == "Leaving out xCBAM or CH-GAT costs the same within 1 point."


def test_far_more_is_more_than_the_rope(rng: np.random.Generator) -> None:
    """Two points more is far more than one point, and not far more than three."""
    results = precise(rng, variants={**worse(20.0), "no_xcbam": -60.0})  # in units of 0.05 points
    assert of(results, "xcbam_more").verdict == "confirmed"
    wide = at(results, rope=3.0)
    assert of(wide, "xcbam_more").verdict == "undecided"
    assert "scores more than 3 points more than" in of(wide, "xcbam_more").confirmed
    assert of(wide, "xcbam_more").answer.endswith(", but this is not clearly more than 3 points.")


def test_one_seed_tests_nothing(rng: np.random.Generator) -> None:
    made = claims(Analysis(study(rng, Noise(), seeds=1, variants=worse(6.0))))
    assert {claim.verdict for claim in made} == {"not tested"}
    assert "--seeds 5" in made[0].answer


@pytest.mark.parametrize(
    ("wa", "utterances", "verdict"),
    [
        (0.8217, 20_000, "confirmed"),
        (0.7917, 20_000, "contradicted"),
        (0.8517, 20_000, "higher than published"),
        (0.8217, 551, "undecided"),
        (0.8017, 551, "undecided"),  # two points are the luck of two test splits of this size
        (0.7217, 551, "contradicted"),
    ],
)
def test_the_published_level_counts_the_luck_of_both_sides(
    rng: np.random.Generator, wa: float, utterances: int, verdict: str
) -> None:
    luck = Noise(seed=0.1)
    results = study(rng, luck, utterances=utterances, size=(2, 2), point=0.0005, spread=0.1, level=wa)
    claim = of(results, "level")
    assert claim.verdict == verdict, claim.numbers
    assert f"{utterances} test utterances" in numbers_of(claim)
    assert "published 82.17" in numbers_of(claim)
    assert claim.claim == "The published level is reproduced: the study reaches 82.17 WA and 81.85 UA"
    assert ("by chance, so a difference of 1 point cannot be shown." in claim.answer) == (verdict == "undecided")


def test_two_seeds_say_nothing_of_the_level(rng: np.random.Generator) -> None:
    claim = of(study(rng, Noise(), seeds=2, size=(2, 2), utterances=40), "level")
    assert claim.verdict == "not tested"
    assert claim.answer == "2 seeds are too few: the test needs 3."


def test_without_predictions_the_luck_of_the_test_split_is_not_known(rng: np.random.Generator) -> None:
    claim = of(study(rng, Noise(), size=(2, 2)), "level")
    assert claim.verdict == "not tested"
    assert "before predictions were kept" in claim.answer


def test_every_verdict_has_a_sign_and_a_colour() -> None:
    assert tuple(VERDICT_SIGNS) == get_args(Verdict)
    page = ROOT / "study" / "output" / "templates" / "report.html"
    for verdict in get_args(Verdict):
        if verdict != "not tested":  # has the border that all have
            assert f".claim.{verdict.replace(' ', '-')} {{ border-left-color" in page.read_text()


@pytest.mark.parametrize("name", ["fusion", "ablation"])
def test_the_difference_is_that_of_the_tables_cells(rng: np.random.Generator, name: str) -> None:
    """Claims once gave a corrected difference as if it were the table's: 81.11 against 78.78 became -0.8."""
    results = study(rng, Noise(val_test=1.0), variants=worse(0.0), size=(8, 7), utterances=551)
    analysis = Analysis(results)
    block = results.about.block(name)
    assert block
    assert block.seeds == (5, 6, 7, 8, 9)
    cells = block_table(analysis, block).frame.set_index(block.columns[0])
    for c in analysis.of(name)["wa"]:
        assert 100 * c.difference.mean == pytest.approx(cells.loc[c.first, "wa_mean"] - cells.loc[c.second, "wa_mean"])
        assert c.seed.mean == pytest.approx(c.difference.mean)


def test_seeds_that_one_side_lacks_do_not_count(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), variants=worse(1.0), size=(3, 3))
    lost = (results.trials["modules"] == "no_chgat") & (results.trials["seed"] == 8)
    some = Results(about=results.about, trials=results.trials[~lost])
    assert "4 seeds)" in numbers_of(of(some, "chgat_needed"))
    assert "5 seeds)" in numbers_of(of(some, "xcbam_needed"))


@pytest.mark.parametrize("dataset", ["demo", "mine"])
def test_where_the_paper_names_no_pair_none_is_tested(dataset: str) -> None:
    """The pair of IEMOCAP was once held against every data set."""
    results = study(np.random.default_rng(2), Noise(), dataset=dataset, size=(8, 7))
    assert results.about.block("confirm") is None
    claim = of(results, "best_k")
    assert claim.verdict == "not tested"
    assert claim.answer == f"The paper names no best pair for {results.about.title}."
    assert claim.claim == "The best pair is K_audio = 8, K_text = 7 on IEMOCAP and K_audio = 4, K_text = 5 on ESD"


def test_the_papers_pair_must_be_measured_beside_the_chosen_one(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), size=(8, 7))
    assert results.about.pair != (8, 7)
    without = replace(results.about, blocks=tuple(b for b in results.about.blocks if b.name != "confirm"))
    claim = of(Results(about=without, trials=results.trials), "best_k")
    assert claim.verdict == "not tested"
    assert "Run the block confirm" in claim.answer


def test_k_matters_takes_both_of_them(rng: np.random.Generator) -> None:
    a, _ = np.mgrid[1:11, 1:11]
    claim = of(study(rng, Noise(), effect=1.0 * a), "k_matters")
    assert claim.verdict == "undecided"
    assert claim.answer == "WA on test changes with K_audio, but an effect of K_text is not shown."
    one = of(study(rng, Noise(), size=(4, 1)), "k_matters")
    assert (one.verdict, one.answer) == ("not tested", "The grid varies only one of K_audio and K_text.")


def test_a_grid_without_the_papers_pair_says_so(rng: np.random.Generator) -> None:
    made = {claim.id: claim for claim in claims(Analysis(study(rng, Noise(), size=(3, 3))))}
    assert made["best_k"].verdict == "not tested"
    assert made["best_k"].answer == "The paper's pair K 8,7 is not on the grid of this study."


def test_what_is_not_run_is_not_tested(rng: np.random.Generator) -> None:
    results = study(rng, Noise(), size=(2, 2))
    nothing = Results(about=replace(results.about, pair=None), trials=results.trials.iloc[:0])
    assert set(verdicts(nothing).values()) == {"not tested"}
    some = study(rng, Noise(), size=(2, 2), variants={"max": 0.0})
    made = {claim.id: claim for claim in claims(Analysis(some))}
    assert made["min_wins"].verdict == "not tested"
    assert made["min_wins"].answer == "Only 1 of 3 other configurations are finished."


def test_the_answer_says_what_it_is_about() -> None:
    assert "for the demo data alone" in scope("demo", "demo (synthetic)")
    assert "The paper reports no results on these data." in scope("mine", "mine")
    assert "IEMOCAP with these features" in scope("iemocap", "IEMOCAP")


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
    done = trials[(trials["status"] == "done") & trials["seed"].isin(results.about.seeds)]
    assert holed.grid["n_seeds"].sum() == len(done)


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


def test_what_is_left_out_of_the_grid_stands_with_the_numbers(rng: np.random.Generator) -> None:
    results = study(rng, Noise())
    hole = (results.trials["k_audio"] == 2) & (results.trials["k_text"] == 3) & (results.trials["seed"] == 1)
    made = {c.id: c for c in claims(Analysis(Results(about=results.about, trials=results.trials[~hole])))}
    for name in ("k_matters", "best_k"):
        assert "Left out of the grid because it is not complete:" in numbers_of(made[name])
