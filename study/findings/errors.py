"""The errors of a study: recall by group, and the utterances that nearly every trial labels wrong.

Both are computed from the predictions that the ledger keeps. Shares are fractions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from study.findings.luck import cluster_by, components
from study.findings.results import About, Results
from study.findings.statistics import LEVEL, SEEDS_FOR_INTERVAL, Array, Indices

By = Literal["class", "speaker", "session", "length"]

FEWEST_UTTERANCES = 5
"""Smallest number of utterances of a group that gets an interval."""

HARD = 0.9
"""Share of trials that must label an utterance wrong for it to count as hard."""

FEWEST_TRIALS = 10
"""Smallest number of trials that must label an utterance for it to count as hard."""

SHOWN_GROUPS = 20
"""Largest number of groups of a kind that are shown. If there are more, the worst and the best are shown."""

_AS_MANY = 10
"""Number of additional utterances whose variance :func:`share_interval` assumes."""

_TRIALS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Recall:
    """The share of a group's utterances that the study's own configuration labels correctly.

    Attributes:
        by: Property that the group has in common.
        group: Name of the group.
        mean: Mean over seeds and utterances.
        low: Lower end of the 95% interval over other seeds and other utterances. NaN with fewer than
            :data:`FEWEST_UTTERANCES` utterances or :data:`SEEDS_FOR_INTERVAL` seeds.
        high: Upper end of that interval.
        utterances: Number of utterances in the group.
        seeds: Number of seeds that label them.
        over_speakers: Whether the interval also covers other speakers.
    """

    by: By
    group: str
    mean: float
    low: float
    high: float
    utterances: int
    seeds: int
    over_speakers: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Hard:
    """The utterances that nearly every trial of the study's own system labels wrong.

    Attributes:
        frame: One row per hard utterance, the hardest first: ``id``, ``label``, ``taken_for`` (the most frequent wrong
            label), ``taken_for_share`` and ``wrong_share`` (of the trials), ``trials``, ``speaker``, ``session``,
            ``seconds``.
        utterances: Number of utterances that were checked.
        trials: Number of trials that labelled them.
    """

    frame: pd.DataFrame
    utterances: int
    trials: int


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of a study. Each part is computed when it is first used.

    Attributes:
        results: Results of the study.
    """

    results: Results

    @cached_property
    def recalls(self) -> list[Recall]:
        """Recall by class, speaker, session and length, as far as they are known. Empty without predictions."""
        return recalls(self.results)

    @cached_property
    def hard(self) -> Hard | None:
        """The hard utterances. `None` without predictions of :data:`FEWEST_TRIALS` trials."""
        return hard_utterances(self.results)


def recalls(results: Results) -> list[Recall]:
    """Return the recall of the study's own configuration by class, speaker, session and length.

    A group by speaker, session or length is left out if there is no other group to compare it with. An utterance that
    several folds test counts once, with the mean over these folds.
    """
    if results.kept is None:
        return []
    predicted = predictions_of(results, results.about.base, results.own_seeds)
    if predicted is None:
        return []
    utterances, right = _once(results.kept.utterances, predicted == results.kept.utterances["label"].to_numpy())
    speakers = utterances["speaker"].to_numpy() if utterances["speaker"].notna().all() else None
    made = []
    for by, (numbers, names) in _groups(utterances, results.about).items():
        there = np.unique(numbers[numbers >= 0])
        for number in there if by == "class" or len(there) > 1 else ():
            places = np.flatnonzero(numbers == number)
            clusters = cluster_by(speakers[places]) if speakers is not None and by in ("class", "length") else None
            low, high = share_interval(right[:, places], clusters)
            made.append(
                Recall(
                    by=by, group=names[number], mean=float(right[:, places].mean()), low=low, high=high,
                    utterances=len(places), seeds=len(right),
                    over_speakers=clusters is not None,
                )
            )  # fmt: skip
    return made


def shown_groups(recalls: Sequence[Recall]) -> dict[By, list[Recall]]:
    """Return the groups to show by kind, each kind in its order and speakers from the worst to the best.

    If a kind has more than :data:`SHOWN_GROUPS` groups, only the worst and the best are returned.
    """
    kinds: dict[By, list[Recall]] = {}
    for one in recalls:
        kinds.setdefault(one.by, []).append(one)
    for by, groups in kinds.items():
        if by == "speaker" or len(groups) > SHOWN_GROUPS:
            groups.sort(key=lambda one: one.mean)
        if len(groups) > SHOWN_GROUPS:
            kinds[by] = groups[: SHOWN_GROUPS // 2] + groups[-SHOWN_GROUPS // 2 :]
    return kinds


def left_out(recalls: Sequence[Recall]) -> list[str]:
    """Return a note for each kind whose groups are not all shown."""
    counts = pd.Series([one.by for one in recalls]).value_counts(sort=False)
    half = SHOWN_GROUPS // 2
    return [
        f"Of the {n} groups by {by} the {half} worst and the {half} best are shown"
        for by, n in counts.items()
        if n > SHOWN_GROUPS
    ]


def share_interval(right: Array, clusters: Indices | None = None) -> tuple[float, float]:
    """Return the ends of the 95% interval of a share over other seeds and other utterances.

    This is Wilson's (1927) interval of a share with the effective number of utterances p (1 − p) / SE² instead of
    their number (Franco et al., 2019, "Comparative study of confidence intervals for proportions in complex sample
    surveys"). SE is the standard error of the crossed design (:func:`study.findings.luck.components`), and Student's t
    with its degrees of freedom replaces the normal quantile. A few utterances that are nearly all correct do not show
    how much they vary. SE² is therefore averaged, with the weight of ten utterances, with its value for utterances
    that are each correct with every seed or with none. A plain interval by Student's t fails here: with 25 utterances
    of which 95% are correct, it covers the true share in 76 to 96% of simulated studies (docs/simulations.md).

    Args:
        right: (S, U), whether a seed labels an utterance correctly, or the share of its folds that do.
        clusters: (U,), the cluster of each utterance. Utterances of one cluster belong together.

    Returns:
        Lower and upper end. NaN with fewer than :data:`FEWEST_UTTERANCES` utterances or :data:`SEEDS_FOR_INTERVAL`
        seeds.
    """
    seeds, utterances = right.shape
    if utterances < FEWEST_UTTERANCES or seeds < SEEDS_FOR_INTERVAL:
        return np.nan, np.nan
    share = float(right.mean())
    parts = components(right, clusters=clusters)
    alike = share * (1 - share) / utterances
    if alike < 1e-12:  # all are correct, or none
        share, size = round(share), float(utterances)
    else:
        size = share * (1 - share) * (utterances + _AS_MANY) / (utterances * parts.se**2 + _AS_MANY * alike)
    df = parts.clusters - 1 if np.isnan(parts.df) else parts.df
    t = float(stats.t.ppf(1 - LEVEL / 2, df))
    whole = 1 + t**2 / size
    centre = (share + t**2 / (2 * size)) / whole
    half = t * np.sqrt(share * (1 - share) / size + t**2 / (4 * size**2)) / whole
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def hard_utterances(results: Results) -> Hard | None:
    """Return the utterances that at least 90% of the trials of the study's own system label wrong.

    All configurations count, so no single choice of the graph or the fusion causes the errors. An utterance that
    several folds test is counted over all of them.
    """
    kept, about = results.kept, results.about
    if kept is None:
        return None
    ours = (results.trials["status"] == "done") & (results.trials["system"] == about.value("system"))
    trials = np.flatnonzero(ours.to_numpy(bool))
    labels = kept.utterances["label"].to_numpy()
    known, wrong = np.zeros(len(labels), np.int64), np.zeros(len(labels), np.int64)
    labelling = 0
    for start in range(0, len(trials), _TRIALS_AT_ONCE):
        predicted = kept.predicted[trials[start : start + _TRIALS_AT_ONCE]]
        there = predicted >= 0
        known += there.sum(axis=0)
        wrong += (there & (predicted != labels)).sum(axis=0)
        labelling += int(there.any(axis=1).sum())
    utterances, place = _distinct(kept.utterances)
    known, wrong = (np.bincount(place, counts, len(utterances)).astype(np.int64) for counts in (known, wrong))
    if not (known >= FEWEST_TRIALS).any():
        return None
    hard = np.flatnonzero((known >= FEWEST_TRIALS) & (wrong >= HARD * known - 1e-9))
    names = class_names(about, max(int(labels.max()), int(kept.predicted.max(initial=0))) + 1)
    rows = []
    for number in hard:
        columns = np.flatnonzero(place == number)
        given = kept.predicted[np.ix_(trials, columns)].ravel()
        counts = np.bincount(given[(given >= 0) & (given != labels[columns[0]])], minlength=len(names))
        rows.append((number, int(counts.argmax()), counts.max() / known[number], wrong[number] / known[number]))
    shares = pd.DataFrame(rows, columns=["number", "taken_for", "taken_for_share", "wrong_share"])
    about_hard = utterances.iloc[hard].reset_index(drop=True)
    frame = pd.DataFrame(
        {
            "id": about_hard["id"],
            "label": [names[label] for label in about_hard["label"]],
            "taken_for": [names[label] for label in shares["taken_for"]],
            "taken_for_share": shares["taken_for_share"].astype(float),
            "wrong_share": shares["wrong_share"].astype(float),
            "trials": known[hard],
            **{name: about_hard[name] for name in ("speaker", "session", "seconds")},
        }
    ).sort_values(["wrong_share", "taken_for_share", "id"], ascending=[False, False, True], ignore_index=True)
    return Hard(frame=frame, utterances=len(utterances), trials=labelling)


def class_names(about: About, num_classes: int) -> list[str]:
    """Return the class names in the ledger, or numbered names if it has fewer than ``num_classes``."""
    names = list(about.class_names)
    return names if len(names) >= num_classes else [f"class {i}" for i in range(num_classes)]


def predictions_of(results: Results, row: Sequence[Any], seeds: Sequence[int]) -> npt.NDArray[np.int16] | None:
    """Return the (S, U) classes that a configuration predicts, or `None` if no predictions are kept.

    Args:
        results: Results of the study.
        row: Row of the configuration in its block.
        seeds: Seeds that count if they are done on every fold.
    """
    if results.kept is None:
        return None
    frame = results.kept.matrix(results.of_row(tuple(row)), results.about.folds)
    frame = frame[frame.index.isin(seeds)]
    return frame.to_numpy() if frame.size else None


def _distinct(utterances: pd.DataFrame) -> tuple[pd.DataFrame, Indices]:
    """Return the distinct utterances, and for each row of ``utterances`` the index of its utterance."""
    place, _ = pd.factorize(utterances["id"])
    return utterances[~utterances["id"].duplicated()].reset_index(drop=True), place.astype(np.int64)


def _once(utterances: pd.DataFrame, right: npt.NDArray[np.bool_]) -> tuple[pd.DataFrame, Array]:
    """Return the distinct utterances, and for each seed and utterance the share of folds that label it correctly."""
    once, place = _distinct(utterances)
    if len(once) == len(utterances):
        return once, right.astype(float)
    counts = np.bincount(place, minlength=len(once))
    return once, np.stack([np.bincount(place, row, len(once)) / counts for row in right])


def _groups(utterances: pd.DataFrame, about: About) -> dict[By, tuple[Indices, list[str]]]:
    """Return the groupings of the utterances by kind.

    A grouping has the group index of each utterance, which is -1 if the group is not known, and the groups' names.
    """
    labels = utterances["label"].to_numpy(np.int64)
    return {
        "class": (labels, class_names(about, int(labels.max()) + 1)),
        "speaker": _named(utterances["speaker"]),
        "session": _named(utterances["session"]),
        "length": _lengths(utterances["seconds"].to_numpy(float)),
    }


def _named(column: pd.Series) -> tuple[Indices, list[str]]:
    """Return the groups of a column of names, in natural order: Ses2 before Ses10."""
    names = sorted({str(name) for name in column.dropna()}, key=_natural_key)
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([-1 if pd.isna(name) else numbers[str(name)] for name in column], dtype=np.int64), names


def _natural_key(name: str) -> str:
    return re.sub(r"\d+", lambda digits: digits[0].zfill(12), name)


def _lengths(seconds: Array) -> tuple[Indices, list[str]]:
    """Return the groups of the utterances by quartile of their length. The names give the limits in seconds."""
    known = np.isfinite(seconds)
    if not known.any():
        return np.full(len(seconds), -1), []
    ends = np.unique(np.quantile(seconds[known], (0.25, 0.5, 0.75)))
    ends = ends[ends < seconds[known].max()]
    digits = next((d for d in range(1, 4) if len({f"{end:.{d}f}" for end in ends}) == len(ends)), 4)
    limits = [f"{end:.{digits}f}" for end in ends]
    names = [f"{low} to {high} s" for low, high in pairwise(limits)]
    names = [f"up to {limits[0]} s", *names, f"over {limits[-1]} s"] if limits else ["of one length"]
    return np.where(known, np.searchsorted(ends, np.nan_to_num(seconds)), -1), names
