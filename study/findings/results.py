"""A study's results, to draw and compute with: ``from study import load_results``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from cemobam_core.config import FUSIONS, MODULES, Metric, Split
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.design import GAPS, Pair
from study.findings.aggregate import COLUMNS, PAIR, aggregate, per_seed
from study.findings.statistics import Array
from study.ledger.outcomes import METRICS

ABOUT = "study.json"
TRIALS = "trials.csv"


@dataclass(frozen=True, kw_only=True)
class About:
    """What a study is: what its trials have in common, and what was asked for.

    Attributes:
        name: of the study; its results are in a folder of that name.
        dataset: the data set's name.
        title: the data set's name as tables show it.
        profile: the reading of the method.
        fusion: of the grid and the ablation.
        settings: what all trials share.
        k_audio: the grid's K_audio, as asked for.
        k_text: likewise.
        seeds: as asked for.
        folds: how many folds a complete seed has.
        select_by: the metric that chooses the K pair.
        select_on: the split that does.
        pair: K_audio and K_text of fusion and ablation; None: none is chosen yet.
        given: whether the user gave that pair, so that nothing was chosen.
        class_names: the emotions, where the ledger knows them.
        made_with: versions of what ran the study's first trial, where the ledger knows them.
    """

    name: str
    dataset: str
    title: str
    profile: str
    fusion: str
    settings: dict[str, Any]
    k_audio: tuple[int, ...]
    k_text: tuple[int, ...]
    seeds: tuple[int, ...]
    folds: int
    select_by: Metric
    select_on: Split
    pair: tuple[int, int] | None
    given: bool
    class_names: tuple[str, ...]
    made_with: dict[str, str]

    @property
    def at(self) -> Pair | None:
        """The pair of fusion and ablation."""
        return Pair(*self.pair) if self.pair else None

    @property
    def how(self) -> str:
        """How the pair was come by, in words."""
        if self.given:
            return "given"
        return (
            "chosen on validation" if self.select_on == "val" else "chosen on the test split, as the released code does"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class GridScores:
    """The grid's figures without holes, a figure for every pair and seed.

    Attributes:
        k_audio: the K_audio that are left.
        k_text: the K_text that are left.
        seeds: the seeds that are left.
        values: by metric (S, A, B), fractions.
        left_out: what was asked for and left out because it is not complete, in words; empty: nothing.
    """

    k_audio: tuple[int, ...]
    k_text: tuple[int, ...]
    seeds: tuple[int, ...]
    values: dict[str, Array]
    left_out: str

    def index(self, pair: Pair | None) -> int | None:
        """Where a pair is when pairs are counted through; None: it is not among them."""
        if pair is None or pair.k_audio not in self.k_audio or pair.k_text not in self.k_text:
            return None
        return self.k_audio.index(pair.k_audio) * len(self.k_text) + self.k_text.index(pair.k_text)

    def pair(self, index: int) -> Pair:
        """The pair at an index."""
        return Pair(self.k_audio[index // len(self.k_text)], self.k_text[index % len(self.k_text)])


@dataclass(frozen=True, eq=False, kw_only=True)
class Results:
    """The trials of a study, and what they come to.

    Every aggregate has a row per configuration: what tells it from the others, ``n_seeds``, and of every metric
    (``test_wa``, ``val_loss`` …) ``_mean``, ``_std``, and ``_low`` and ``_high`` of the 95% interval over seeds.
    Metrics are fractions. A seed counts when it is done on every fold.

    Attributes:
        about: what the study is.
        trials: a row per trial, as ``trials.csv`` has them.
    """

    about: About
    trials: pd.DataFrame

    @cached_property
    def grid(self) -> pd.DataFrame:
        """By ``k_audio`` and ``k_text``."""
        return aggregate(self.grid_trials, PAIR, self.about.folds)

    @cached_property
    def fusion(self) -> pd.DataFrame:
        """By ``fusion``, at the study's pair."""
        return self._variants("fusion", FUSIONS)

    @cached_property
    def ablation(self) -> pd.DataFrame:
        """By ``modules``, at the study's pair."""
        return self._variants("modules", MODULES)

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """By ``profile``, at the study's pair: what each difference between text and code costs."""
        return aggregate(self.gaps_trials, ["profile"], self.about.folds)

    @property
    def grid_trials(self) -> pd.DataFrame:
        """The trials over the K grid."""
        about, trials = self.about, self.trials
        return trials[
            (trials["profile"] == about.profile)
            & (trials["fusion"] == about.fusion)
            & (trials["modules"] == "full")
            & trials["k_audio"].isin(about.k_audio)
            & trials["k_text"].isin(about.k_text)
        ]

    @property
    def fusion_trials(self) -> pd.DataFrame:
        """The trials of every fusion strategy at the study's pair."""
        trials = self._at_pair()
        return trials[(trials["profile"] == self.about.profile) & (trials["modules"] == "full")]

    @property
    def ablation_trials(self) -> pd.DataFrame:
        """The trials with and without either module at the study's pair."""
        trials, about = self._at_pair(), self.about
        return trials[(trials["profile"] == about.profile) & (trials["fusion"] == about.fusion)]

    @property
    def gaps_trials(self) -> pd.DataFrame:
        """The trials of both profiles at the study's pair, as they are and with one choice switched."""
        trials, about = self._at_pair(), self.about
        labels = [label for start in ("paper", "released") for label in (start, *(f"{start}+{gap}" for gap in GAPS))]
        full = (trials["fusion"] == about.fusion) & (trials["modules"] == "full")
        return trials[full & trials["profile"].isin(labels)]

    def per_seed(self, trials: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
        """Every seed's figures, its mean over folds, by the columns that tell these trials apart."""
        return per_seed(trials, by, self.about.folds)

    @cached_property
    def scores(self) -> GridScores | None:
        """The grid without holes, for what needs every pair with every seed; None: no pair has any."""
        about = self.about
        known = per_seed(self.grid_trials, PAIR, about.folds)
        known = known[known["seed"].isin(about.seeds)]
        axes = (about.seeds, about.k_audio, about.k_text)
        names = ("seed", *PAIR)
        s, a, t = (pd.Index(axis).get_indexer(pd.Index(known[x])) for axis, x in zip(axes, names, strict=True))
        values = np.full((len(METRICS), *map(len, axes)), np.nan)
        values[:, s, a, t] = known[list(METRICS)].to_numpy().T
        kept = _complete(~np.isnan(values[0]))
        if not all(len(indices) for indices in kept):
            return None
        left = [tuple(axis[i] for i in indices) for axis, indices in zip(axes, kept, strict=True)]
        missing = [
            f"{what} {', '.join(str(x) for x in axis if x not in rest)}"
            for what, axis, rest in zip(("seed", "K_audio", "K_text"), axes, left, strict=True)
            if len(rest) < len(axis)
        ]
        whole = values[np.ix_(np.arange(len(METRICS)), *kept)]
        return GridScores(
            seeds=left[0],
            k_audio=left[1],
            k_text=left[2],
            values=dict(zip(METRICS, whole, strict=True)),
            left_out="; ".join(missing),
        )

    def _at_pair(self) -> pd.DataFrame:
        pair, trials = self.about.at, self.trials
        if pair is None:
            return trials.iloc[:0]
        return trials[(trials["k_audio"] == pair.k_audio) & (trials["k_text"] == pair.k_text)]

    def _variants(self, key: str, variants: Sequence[str]) -> pd.DataFrame:
        trials = self.fusion_trials if key == "fusion" else self.ablation_trials
        frame = aggregate(trials, [key], self.about.folds)
        return frame.sort_values(key, key=lambda column: column.map(list(variants).index), ignore_index=True)

    def save(self, folder: Path) -> list[Path]:
        """Write what :func:`load_results` reads: ``trials.csv`` and ``study.json``."""
        with written_atomically(folder / TRIALS) as temporary:
            self.trials.to_csv(temporary, index=False)
        with written_atomically(folder / ABOUT) as temporary:
            temporary.write_text(json.dumps(asdict(self.about), indent=2) + "\n", encoding="utf-8")
        return [folder / TRIALS, folder / ABOUT]


def load_results(folder: Path | str) -> Results:
    """The results of a study from its folder, such as ``results/demo``, as frames.

    Args:
        folder: where ``run_grid.py`` wrote ``trials.csv`` and ``study.json``.

    Raises:
        InputError: not such a folder, or files that were changed so that they cannot be read.
    """
    folder = Path(folder)
    for name in (TRIALS, ABOUT):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: not the results of a study: there is no {name} in it; give a folder such as results/demo "
                "(one from before this file was kept gets it with --report-only)"
            )
    about = read_about(folder / ABOUT)
    path = folder / TRIALS
    try:
        trials = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as csv ({error}); make it again with --report-only") from None
    if missing := [column for column in COLUMNS if column not in trials.columns]:
        raise InputError(f"{path}: has no column {missing[0]!r}; make it again with --report-only")
    numbers = ["k_audio", "k_text", "fold", "seed", "epochs", *METRICS]
    if wrong := [name for name in numbers if len(trials) and not pd.api.types.is_numeric_dtype(trials[name])]:
        raise InputError(f"{path}: column {wrong[0]!r} holds what is no number; make it again with --report-only")
    if unsound := _unsound(trials):
        raise InputError(f"{path}: {unsound}; make it again with --report-only")
    return Results(about=about, trials=trials)


def _unsound(trials: pd.DataFrame) -> str:
    """What is wrong with rows that a study did not write so; empty: nothing."""
    for column, values in (("status", ("done", "failed")), ("fusion", FUSIONS), ("modules", MODULES)):
        strange = trials.loc[~trials[column].isin(values), column]
        if len(strange):
            return f"row {strange.index[0] + 2} has {column} {str(strange.iloc[0])[:40]!r}"
    done = trials[trials["status"] == "done"]
    finite = np.isfinite(done[list(METRICS)].to_numpy(float)).all(axis=1) if len(done) else np.ones(0, bool)
    if not finite.all():
        return f"row {done.index[~finite][0] + 2} is done, and a metric of it is no number"
    key = ["profile", *PAIR, "fusion", "modules", "fold", "seed"]
    if (again := trials.duplicated(key)).any():
        return f"row {trials.index[again][0] + 2} is the same trial as another"
    return ""


def read_about(path: Path) -> About:
    """Return what a ``study.json`` holds.

    Raises:
        InputError: a file that cannot be read, or that a study did not write.
    """
    hints = get_type_hints(About)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        given = {field.name: _checked(field.name, hints[field.name], content[field.name]) for field in fields(About)}
        return About(**given)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: is not what a study writes there ({error}); make it again with --report-only"
        ) from None


def _checked(name: str, hint: Any, value: Any) -> Any:
    """A value of ``study.json`` as :class:`About` has it; TypeError where it is something else."""
    if name == "pair" and value is None:
        return None
    kind = get_origin(hint) or hint
    if name == "pair" or kind is tuple:
        of = int if name in ("pair", "k_audio", "k_text", "seeds") else str
        if not isinstance(value, list) or not all(type(x) is of for x in value) or (name == "pair" and len(value) != 2):
            raise TypeError(f"{name} is {str(value)[:40]!r}")
        if name != "pair" and len(set(value)) < len(value):
            raise TypeError(f"{name} holds a value twice")
        if name in ("pair", "k_audio", "k_text") and min(value, default=1) < 1:
            raise TypeError(f"{name} holds less than 1")
        if of is str and not all(map(str.isprintable, value)):
            raise TypeError(f"{name} holds what cannot be printed")
        return tuple(value)
    fits = value in get_args(hint) if kind is Literal else type(value) is kind
    if not fits or (kind is str and not value.isprintable()) or (name == "folds" and value < 1):
        raise TypeError(f"{name} is {str(value)[:40]!r}")
    return value


def _complete(present: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """Indices along each axis that span no hole: what is most lacking is left out first."""
    kept = [np.arange(n) for n in present.shape]
    while True:
        rest = present[np.ix_(*kept)]
        if rest.size == 0 or rest.all():
            return tuple(kept)
        lacking = [1 - rest.mean(axis=tuple(i for i in range(3) if i != axis)) for axis in range(3)]
        axis = max(range(3), key=lambda i: lacking[i].max())
        kept[axis] = np.delete(kept[axis], int(lacking[axis].argmax()))
