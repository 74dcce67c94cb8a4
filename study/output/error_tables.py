"""Tables about errors: recall by group, hard utterances, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from study.findings.calibration import Calibration
from study.findings.errors import (
    FEWEST_TRIALS,
    FEWEST_UTTERANCES,
    HARD,
    Hard,
    Recall,
    left_out,
    shown_groups,
)
from study.findings.results import About
from study.findings.statistics import SEEDS_FOR_INTERVAL, SHARES, mean_interval
from study.findings.wording import WHOSE, cut, listed, seeds_in_words
from study.output.tables import Cell, Table, mean_cell, number, with_interval

SHOWN_HARD = 20
"""The most hard utterances that the table shows."""


def errors_table(recalls: Sequence[Recall], about: About) -> Table | None:
    """Return the recall of the study's own configuration by group, or `None` without predictions."""
    if not recalls:
        return None
    frame = pd.DataFrame(
        [
            {
                **{"by": one.by, "group": one.group, "utterances": one.utterances, "n_seeds": one.seeds},
                **{"recall": 100 * one.mean, "recall_low": 100 * one.low, "recall_high": 100 * one.high},
            }
            for one in recalls
        ]
    )
    cells: list[tuple[str | Cell, ...]] = [
        (
            f"{by} {cut(one.group)}" if by != "length" else one.group,
            number(100 * one.mean) + _ends(100 * one.low, 100 * one.high),
            str(one.utterances),
        )
        for by, groups in shown_groups(recalls).items()
        for one in groups
    ]
    seeds, known = recalls[0].seeds, frame["recall_low"].notna().any()
    notes = []
    if known:
        wider = [by for by in ("class", "length") if any(one.over_speakers for one in recalls if one.by == by)]
        speakers = f"; those by {listed(wider)} hold for other speakers too" if wider else ""
        notes.append(f"The 95% intervals hold for {WHOSE['utterances']}{speakers}. n: number of test utterances.")
    else:
        notes.append(
            f"A mean over fewer than {SEEDS_FOR_INTERVAL} seeds has no interval. n: number of test utterances."
        )
    if known and (frame["utterances"] < FEWEST_UTTERANCES).any():
        notes.append(f"A group of fewer than {FEWEST_UTTERANCES} utterances has no interval.")
    notes += [f"{said}; the csv has all." for said in left_out(recalls)]
    return Table(
        name="errors",
        caption=f"Recall by group: percent of a group's test utterances that are labelled correctly on {_at(about)}; "
        f"mean over {seeds_in_words(seeds)}" + (" [95% interval]" if known else ""),
        notes=tuple(notes),
        frame=frame,
        head="Group",
        groups=(("", ("Recall", "n")),),
        cells=tuple(cells),
    )


def hard_table(hard: Hard | None, about: About) -> Table | None:
    """Return the utterances that nearly every trial mislabels, or `None` without such utterances or predictions."""
    if hard is None or hard.frame.empty:
        return None
    frame = hard.frame.assign(
        taken_for_share=100 * hard.frame["taken_for_share"], wrong_share=100 * hard.frame["wrong_share"]
    )
    cells: list[tuple[str | Cell, ...]] = [
        (
            cut(x["id"]),
            cut(x["label"]),
            f"{cut(x['taken_for'])} {x['taken_for_share']:.0f}%",
            f"{x['wrong_share']:.0f}%",
            str(x["trials"]),
        )
        for x in frame.head(SHOWN_HARD).to_dict("records")
    ]
    more = len(frame) - SHOWN_HARD
    notes = [
        "These utterances are candidates for mislabelled data, but this is no proof: an utterance may also be hard to "
        "recognise, or its features may miss what a listener hears. Listen to them. Taken for: the most frequent wrong "
        "label, with its share of the trials.",
        *([f"The table shows {SHOWN_HARD}; the csv has all {len(frame)}."] if more > 0 else []),
    ]
    return Table(
        name="hard",
        caption=f"Hard utterances: {len(frame)} of {hard.utterances} test utterances of {about.title} that at least "
        f"{HARD:.0%} of the {hard.trials} trials of {about.system} mislabel, over all configurations",
        notes=tuple(notes),
        frame=frame,
        head="Utterance",
        groups=(("", ("Label", "Taken for", "Wrong", "Trials")),),
        cells=tuple(cells),
        wide=True,
    )


def calibration_table(calibration: Calibration | None, about: About) -> Table | None:
    """Return the calibration of the probabilities, or `None` if none are kept."""
    if calibration is None:
        return None
    seeds = calibration.seeds
    frame = seeds.assign(
        overconfidence=100 * (seeds["confidence"] - seeds["accuracy"]),
        **{name: 100 * seeds[name] for name in ("accuracy", "confidence", "ece")},
    )[["seed", "accuracy", "confidence", "overconfidence", "ece", "brier"]]
    cells: list[tuple[str | Cell, ...]] = [
        ("accuracy (%)", _over_seeds(seeds["accuracy"])),
        ("mean confidence (%)", _over_seeds(seeds["confidence"])),
        ("confidence − accuracy (points)", _between(100 * (seeds["confidence"] - seeds["accuracy"]))),
        ("expected calibration error (points)", _over_seeds(seeds["ece"])),
        ("Brier score (0 to 2)", _brier(seeds["brier"])),
    ]
    interval = len(seeds) >= SEEDS_FOR_INTERVAL
    notes = [
        "Confidence is the probability of the predicted class; a system whose confidence exceeds its accuracy is "
        "overconfident. The expected calibration error uses 15 bins of equal width (Guo et al., 2017); with few "
        "utterances it is above zero by chance alone.",
        "The 95% intervals hold for another seed on the same test utterances."
        if interval
        else f"A mean over fewer than {SEEDS_FOR_INTERVAL} seeds has no interval.",
    ]
    return Table(
        name="calibration",
        caption=f"Calibration: {calibration.utterances} test utterances of {_at(about)}; mean over "
        f"{seeds_in_words(len(seeds))}" + (" with its 95% interval" if interval else ""),
        notes=tuple(notes),
        frame=frame,
        head="Measure",
        groups=(("", ("Mean",)),),
        cells=tuple(cells),
    )


def _ends(low: float, high: float) -> str:
    """Return the ends of an interval that is longer to one side. Empty without an interval."""
    return f" [{number(low)}, {number(high)}]" if np.isfinite(low) else ""


def _over_seeds(shares: pd.Series) -> Cell:
    of = mean_interval(shares.to_numpy(float), SHARES)
    return mean_cell(*(100 * end for end in (of.mean, of.low, of.high)))


def _brier(scores: pd.Series) -> str:
    of = mean_interval(scores.to_numpy(float))
    return f"{of.mean:.3f}" + (f" ± {of.high - of.mean:.3f}" if np.isfinite(of.high) else "")


def _between(points: pd.Series) -> str:
    of = mean_interval(points.to_numpy(float))
    return with_interval(of.mean, of.low, of.high)


def _at(about: About) -> str:
    """Return the data set and the pair, if the study has one."""
    pair = about.at if about.value("k_audio") is not None else None
    return f"{about.title}, K_audio = {pair.k_audio}, K_text = {pair.k_text}" if pair else about.title


def no_hard_sentence(hard: Hard | None) -> str:
    """Return a sentence if no utterance is hard. Empty if some are, or without predictions."""
    if hard is None or len(hard.frame):
        return ""
    return (
        f"No test utterance of {hard.utterances} is mislabelled by at least {HARD:.0%} of its trials (with at least "
        f"{FEWEST_TRIALS} trials)."
    )
