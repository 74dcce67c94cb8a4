"""Every claim of the paper's with every verdict that a study can give it, on studies with next to no luck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated import NOTHING, Noise, study

from study.findings.analysis import Analysis
from study.findings.results import Results
from study.papers.cemobam.claims import Claim, claims
from study.papers.cemobam.published import published


def numbers_of(claim: Claim) -> str:
    return " ".join(claim.numbers)


POINT = 0.0001
"""A trial's own deviation, and the unit of effects: a hundredth of a percentage point."""

QUIET = Noise(seed=0.5)

PUBLISHED = {"min": 82.01, "cls": 79.23, "max": 80.28, "mean": 79.33, "no_xcbam": 62.40, "no_chgat": 79.77}
"""The mean of the published WA and UA on IEMOCAP: with balanced classes a study has both alike."""


def of(results: Results) -> dict[str, Claim]:
    made = {claim.id: claim for claim in claims(Analysis(results))}
    assert len(made) == 16
    return made


def roped(results: Results, rope: float) -> Results:
    return replace(results, about=replace(results.about, rope=rope))


def reaching(*, utterances: int = 100_000, **levels: float) -> Results:
    """A study whose configurations reach the published figures, but for those that are given in percent."""
    wanted = {**PUBLISHED, **levels}
    variants = {name: (wanted[name] - wanted["min"]) / (100 * POINT) for name in NOTHING}
    return study(
        np.random.default_rng(7), QUIET, variants=variants, size=(1, 1), point=POINT, level=wanted["min"] / 100,
        utterances=utterances, spread=0.3,
    )  # fmt: skip


def beside(*, utterances: int = 0, spread: float = 0.3, **points: float) -> Results:
    """A study at the published level whose variants are so many percentage points better than the full model."""
    variants = {name: points.get(name, 0.0) / (100 * POINT) for name in NOTHING}
    return study(
        np.random.default_rng(3), QUIET, variants=variants, size=(1, 1), point=POINT, level=0.8, utterances=utterances,
        spread=spread,
    )  # fmt: skip


LEVELS = ("level", "level_wf1", "level_fusions", "level_xcbam", "level_chgat")


def test_all_that_was_published_is_reproduced_with_utterances_enough() -> None:
    made = of(reaching())
    assert {name: made[name].verdict for name in LEVELS} == dict.fromkeys(LEVELS, "confirmed")
    for name, figures in (
        ("level", ("WA: 82.01, published 82.17; 0.2 points lower", "UA: 82.01, published 81.85")),
        ("level_wf1", ("published 81.85",)),
        ("level_fusions", ("WA of CLS: 79.2", "published 79.55", "UA of MEAN: 79.3", "published 79.17")),
        ("level_xcbam", ("WA without xCBAM: 62.4", "published 62.49", "published 62.32")),
        ("level_chgat", ("WA without CH-GAT: 79.7", "published 79.88", "published 79.67")),
    ):
        for figure in figures:
            assert figure in numbers_of(made[name])
        assert "with 5 seeds on 100000 test utterances." in numbers_of(made[name])
    assert made["level"].answer == "WA and UA are within 1 point of the published figures."
    assert made["level_wf1"].answer == "w-F1 is within 1 point of the published figure."


@pytest.mark.parametrize(
    ("levels", "verdicts"),
    [
        ({"min": 78.0}, {"level": "contradicted", "level_wf1": "contradicted"}),
        ({"min": 86.0}, {"level": "higher than published", "level_wf1": "higher than published"}),
        ({"cls": 75.0}, {"level_fusions": "contradicted"}),
        ({"max": 85.0}, {"level_fusions": "higher than published"}),
        ({"max": 85.0, "mean": 75.0}, {"level_fusions": "contradicted"}),  # whatever the others reach
        ({"no_xcbam": 58.0}, {"level_xcbam": "contradicted"}),
        ({"no_xcbam": 78.0}, {"level_xcbam": "higher than published"}),
        ({"no_chgat": 74.0}, {"level_chgat": "contradicted"}),
        ({"no_chgat": 84.0}, {"level_chgat": "higher than published"}),
    ],
)
def test_one_level_that_is_missed_leaves_the_others(levels: dict[str, float], verdicts: dict[str, str]) -> None:
    made = of(reaching(utterances=40_000, **levels))
    assert {name: made[name].verdict for name in LEVELS} == {**dict.fromkeys(LEVELS, "confirmed"), **verdicts}


def test_few_utterances_tell_no_level_whatever_the_seeds() -> None:
    made = of(reaching(utterances=551))
    for name in LEVELS:
        assert made[name].verdict == "undecided"
        assert made[name].answer.startswith(
            "551 test utterances are too few: two test splits of this size differ by up to "
        )


def test_a_wider_rope_reproduces_levels() -> None:
    results = reaching(utterances=4000)
    assert {of(results)[name].verdict for name in LEVELS} == {"undecided"}
    wide = of(roped(results, 3.0))
    assert {wide[name].verdict for name in LEVELS} == {"confirmed"}
    assert wide["level"].confirmed == "WA and UA are within 3 points of the published figures"


@pytest.mark.parametrize("utterances", [0, 20_000])
@pytest.mark.parametrize(
    ("points", "verdicts"),
    [
        (
            dict.fromkeys(NOTHING, -3.0),
            {"min_wins": "confirmed", "min_consistent": "confirmed", "xcbam_needed": "confirmed",
             "chgat_needed": "confirmed", "synergy": "confirmed", "xcbam_more": "equivalent"},
        ),
        (
            {"mean": 3.0, "cls": -3.0, "max": -3.0, "no_xcbam": -3.0, "no_chgat": 3.0},
            {"min_wins": "contradicted", "min_consistent": "contradicted", "xcbam_needed": "confirmed",
             "chgat_needed": "contradicted", "synergy": "contradicted", "xcbam_more": "confirmed"},
        ),
        (
            {"no_xcbam": 3.0, "no_chgat": -3.0},
            {"min_wins": "equivalent", "min_consistent": "equivalent", "xcbam_needed": "contradicted",
             "chgat_needed": "confirmed", "synergy": "contradicted", "xcbam_more": "contradicted"},
        ),
        (
            # MIN is better than two and practically the same as the third: neither the best nor the same as all
            {"cls": -3.0, "max": -3.0, "mean": 0.0, "no_xcbam": -3.0, "no_chgat": 0.0},
            {"min_wins": "undecided", "min_consistent": "undecided", "xcbam_needed": "confirmed",
             "chgat_needed": "equivalent", "synergy": "undecided", "xcbam_more": "confirmed"},
        ),
    ],
)  # fmt: skip
def test_modules_and_fusions(utterances: int, points: dict[str, float], verdicts: dict[str, str]) -> None:
    made = of(beside(utterances=utterances, **points))
    assert {name: made[name].verdict for name in verdicts} == verdicts
    for name in verdicts:
        assert ("another seed and other test utterances" in made[name].intervals) == (utterances > 0)


@pytest.mark.parametrize(
    ("points", "answers"),
    [
        (
            dict.fromkeys(NOTHING, -3.0),
            {
                "min_wins": "MIN scores 3.0 points more than CLS, 3.0 points more than MAX and 3.0 points more than "
                "MEAN.",
                "min_consistent": "MIN scores more than each of the other three on WA, UA and w-F1.",
                "xcbam_needed": "Without xCBAM, WA on test falls by 3.0 points.",
                "synergy": "CemoBAM scores 3.0 points more than CemoBAM without xCBAM and 3.0 points more than CemoBAM "
                "without CH-GAT.",
                "xcbam_more": "Leaving out xCBAM or CH-GAT costs the same within 1 point.",
            },
        ),
        (
            {"mean": 3.0, "cls": -3.0, "max": -3.0, "no_xcbam": -3.0, "no_chgat": 3.0},
            {
                "min_wins": "MEAN scores 3.0 points more than MIN.",
                "min_consistent": "Another strategy scores more than MIN on WA, UA and w-F1.",
                "chgat_needed": "Without CH-GAT, WA on test rises by 3.0 points.",
                "synergy": "CemoBAM without CH-GAT scores 3.0 points more than CemoBAM.",
                "xcbam_more": "Leaving out xCBAM costs 6.0 points more than leaving out CH-GAT.",
            },
        ),
        (
            {"no_xcbam": 3.0, "no_chgat": -3.0},
            {
                "min_wins": "MIN scores the same as CLS, MAX and MEAN within 1 point.",
                "min_consistent": "MIN scores practically the same as each of the other three on WA, UA and w-F1.",
                "xcbam_more": "Leaving out CH-GAT costs 6.0 points more than leaving out xCBAM.",
            },
        ),
        (
            {"cls": -3.0, "max": -3.0, "mean": 0.0, "no_xcbam": -3.0, "no_chgat": 0.0},
            {
                "min_wins": "MIN scores 3.0 points more than CLS and 3.0 points more than MAX. MIN scores the same as "
                "MEAN within 1 point.",
                "min_consistent": "MIN is not shown to be the best on any of WA, UA and w-F1.",
                "chgat_needed": "Without CH-GAT, WA on test changes by less than 1 point.",
            },
        ),
        (
            {"cls": 3.0, "mean": 3.0},
            {"min_wins": "CLS (3.0 points more) and MEAN (3.0 points more) score more than MIN."},
        ),
    ],
)
def test_the_answer_is_one_plain_sentence(points: dict[str, float], answers: dict[str, str]) -> None:
    made = of(beside(**points))
    assert {name: made[name].answer for name in answers} == answers


def test_the_numbers_have_difference_interval_p_value_and_probabilities() -> None:
    numbers = of(beside(**dict.fromkeys(NOTHING, -3.0)))["xcbam_needed"].numbers
    assert numbers == (
        "CemoBAM scores 3.0 points more than CemoBAM without xCBAM (95% interval +3.0 to +3.0; p < 0.001; 5 "
        "seeds). Probability that CemoBAM is better by more than 1 point: > 0.99; practically the same: < 0.01; "
        "worse by more than 1 point: < 0.01.",
        "Differences are in points of WA on test.",
    )


def test_the_same_differences_are_undecided_beside_few_utterances() -> None:
    """Three points with hardly any luck of seeds: on 100 utterances, others could have given none."""
    points = dict.fromkeys(NOTHING, -3.0)
    with_seeds_alone = of(beside(**points))
    on_few = of(beside(utterances=100, spread=1.0, **points))
    for name in ("min_wins", "min_consistent", "xcbam_needed", "chgat_needed", "synergy"):
        assert with_seeds_alone[name].verdict == "confirmed"
        assert on_few[name].verdict == "undecided"
    assert on_few["xcbam_needed"].answer == (
        "Without xCBAM, WA on test falls by 3.0 points, but 5 seeds and 100 test utterances cannot distinguish this "
        "from chance."
    )
    assert on_few["xcbam_more"].answer.endswith("but 5 seeds and 100 test utterances cannot rule out a difference.")
    assert "Test utterances needed to decide: about 940." in on_few["xcbam_needed"].numbers
    assert "on these 100 test utterances" in numbers_of(on_few["xcbam_needed"])


def test_one_metric_can_take_consistency_away() -> None:
    results = beside(**dict.fromkeys(NOTHING, -3.0))
    assert of(results)["min_consistent"].verdict == "confirmed"
    of_max = results.trials["fusion"] == "max"

    def with_ua(more: float) -> Claim:
        trials = results.trials.assign(test_ua=results.trials["test_ua"] + more * of_max)
        made = of(Results(about=results.about, trials=trials))
        assert made["min_wins"].verdict == "confirmed"  # by WA
        return made["min_consistent"]

    assert with_ua(0.03).verdict == "undecided"
    assert with_ua(0.03).answer == "MIN is shown to be the best on WA and w-F1, but not on UA."
    assert with_ua(0.03).numbers[1].startswith("UA (undecided): MIN scores 3.0 points more than CLS (95% interval ")
    assert with_ua(0.06).verdict == "contradicted"
    assert with_ua(0.06).answer == "Another strategy scores more than MIN on UA."


def test_far_more_is_by_more_than_the_rope() -> None:
    results = beside(no_xcbam=-5.0, no_chgat=-3.0)
    assert of(results)["xcbam_more"].verdict == "confirmed"
    wide = of(roped(results, 3.0))
    assert wide["xcbam_more"].verdict == "undecided"  # it does cost more, and not by three points
    assert wide["xcbam_needed"].verdict == "confirmed"  # whether it is needed at all has nothing to do with the rope


def grid_of(*pairs: tuple[int, int], dataset: str = "iemocap", height: float = 600.0) -> Results:
    """A study in which some pairs are six points better than all others."""
    effect = np.zeros((10, 10))
    for k_audio, k_text in pairs:
        effect[k_audio - 1, k_text - 1] = height
    return study(np.random.default_rng(11), QUIET, effect=effect, variants=NOTHING, point=POINT, dataset=dataset)


def test_the_best_pair_is_the_papers_where_it_is_chosen_here_too() -> None:
    made = of(grid_of((8, 7)))["best_k"]
    assert made.verdict == "confirmed"
    assert "K 8,7 is also the pair that is chosen here." in numbers_of(made)
    assert of(grid_of((4, 5), dataset="esd"))["best_k"].verdict == "confirmed"


def test_the_best_pair_is_the_papers_where_the_chosen_one_is_no_better() -> None:
    results = grid_of((8, 7), (3, 3))
    assert str(results.about.at) == "3,3"  # by luck
    made = of(results)["best_k"]
    assert made.verdict == "confirmed"
    assert "The pair chosen here (K 3,3) scores" in numbers_of(made)
    # with fresh seeds it is known to a hundredth of a point, which is too much where a thousandth would be more
    assert of(roped(results, 0.001))["best_k"].verdict == "undecided"
    given = replace(results, about=replace(results.about, pair_from="given"))
    assert "The given pair (K 3,3) scores" in numbers_of(of(given)["best_k"])


def test_the_best_pair_is_another_one() -> None:
    made = of(grid_of((2, 2)))["best_k"]
    assert made.answer == "The pair chosen here (K 2,2) scores 6.0 points more than the paper's (K 8,7)."
    assert made.verdict == "contradicted"
    assert "The pair chosen here (K 2,2) scores 6.0 points more than K 8,7 (95% interval +" in numbers_of(made)
    valley = of(grid_of((8, 7), height=-600.0))["best_k"]
    assert valley.verdict == "contradicted"  # it is worse than the grid's average


def test_without_fresh_seeds_at_the_papers_pair_nothing_is_said_of_it() -> None:
    results = grid_of((2, 2))
    unmeasured = results.trials[results.trials["profile"] == "paper"]
    made = of(Results(about=results.about, trials=unmeasured))["best_k"]
    assert made.verdict == "not tested"
    assert made.answer.endswith("was not measured beside the paper's with fresh seeds. Run the block confirm.")
    one = results.trials[(results.trials["seed"] < 5) | (results.trials["seed"] == 5)]
    assert of(Results(about=results.about, trials=one))["best_k"].verdict == "not tested"


@pytest.mark.parametrize(
    ("audio", "text", "verdict", "answer"),
    [
        (30.0, 30.0, "confirmed", "WA on test changes with K_audio and with K_text."),
        (30.0, 0.0, "undecided", "WA on test changes with K_audio, but an effect of K_text is not shown."),
        (0.0, 30.0, "undecided", "WA on test changes with K_text, but an effect of K_audio is not shown."),
        (0.0, 0.0, "undecided", "Neither K_audio nor K_text has an effect on WA on test that this grid can show."),
    ],
)
def test_k_matters_where_both_do(audio: float, text: float, verdict: str, answer: str) -> None:
    a, t = np.mgrid[1:11, 1:11]
    made = of(study(np.random.default_rng(1), QUIET, effect=audio * a + text * t, point=POINT))["k_matters"]
    assert made.verdict == verdict
    assert made.answer == answer
    assert made.numbers[0].startswith("Share of the variance of WA (ω²): K_audio ")


def test_what_no_study_of_one_data_set_can_tell() -> None:
    """The margins over other systems are told, and why they are no test."""
    margins = {"iemocap": ": its WA is 0.32 points above the best", "esd": ": its WA is 3.25 points above the best"}
    for dataset in ("iemocap", "esd", "demo"):
        made = of(study(np.random.default_rng(1), QUIET, dataset=dataset, size=(2, 2), variants=NOTHING))
        assert made["best_system"].verdict == made["balance"].verdict == "not tested"
        assert made["best_system"].claim == "CemoBAM is better than the other systems" + margins.get(
            dataset, ": its WA is 0.32 points above the best on IEMOCAP and 3.25 points on ESD"
        )
        assert "acted or improvised speech" in numbers_of(made["balance"])
    assert made["best_system"].numbers[0].startswith("Run --systems all --budget 30")
    assert {made[name].verdict for name in LEVELS} == {"not tested"}
    assert made["level"].answer == "The paper reports no figures for simulated."


def test_claims_of_the_other_data_set_name_its_figures() -> None:
    figures = {name: published(name, "esd") for name in ("table1", "table2")}
    wa = figures["table1"].set_index("fusion").loc["min", "wa"]
    made = of(
        study(np.random.default_rng(1), QUIET, dataset="esd", size=(2, 2), level=0.3, utterances=2000, variants=NOTHING)
    )
    assert f"the study reaches {wa:.2f} WA and " in made["level"].claim
    assert f"published {wa:.2f}" in numbers_of(made["level"])
    without = figures["table2"].set_index("modules").loc["no_xcbam", "wa"]
    assert f"{without:.2f} WA" in made["level_xcbam"].claim
    assert {made[name].verdict for name in LEVELS} == {"contradicted"}


def test_a_study_of_other_classes_is_not_compared_with_the_published_figures() -> None:
    results = reaching()
    assert {claim.verdict for name, claim in of(results).items() if name in LEVELS} == {"confirmed"}
    names = (*results.about.class_names, "frustration")
    made = of(replace(results, about=replace(results.about, class_names=names)))
    assert {made[name].verdict for name in LEVELS} == {"not tested"}
    assert "The paper reports no figures for" in made["level"].answer
    reordered = replace(results, about=replace(results.about, class_names=results.about.class_names[::-1]))
    assert of(reordered)["level"].verdict == "confirmed"
