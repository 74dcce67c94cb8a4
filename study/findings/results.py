"""A study's results, to draw and compute with: ``from study import load_results``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from cemobam_core.metrics import METRICS as SCORES
from study.design.block import shown
from study.design.factors import Pair, displayed
from study.design.seeds import LOOKS
from study.findings.aggregate import IDENTITY, PAIR, aggregate, columns, per_seed, whole_numbers
from study.findings.overview import overview
from study.findings.predictions import NO_UTTERANCES, Predictions, load_predictions
from study.findings.statistics import Array
from study.findings.wording import in_words
from study.ledger.outcomes import METRICS, Metric, Split

ABOUT = "study.json"
TRIALS = "trials.csv"

_EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
"""What lets pandas read a float as it was written, to the last bit; from 3.1 on it always does, and warns of this."""


@dataclass(frozen=True, kw_only=True)
class AboutBlock:
    """What a block of a study is.

    Attributes:
        name: of the block.
        question: that it answers.
        title: of its table and figures.
        columns: of ``trials.csv``, that tell its configurations apart.
        rows: of each configuration, what ``trials.csv`` has in :attr:`About.identity`.
        reference: which of them the others are compared with.
        chooses: whether the study's pair is chosen among them.
        compared: whether each of them is compared with the reference.
        needs_pair: whether they are at the study's pair.
        seeds: that its configurations run with.
        n_seeds: of each configuration, with how many of them.
        confirms: whether these seeds took no part in choosing the pair, or in tuning.
        tunes: the system of which it chooses a configuration by validation; empty: it does not.
        decided_by: whose luck its intervals must hold for: that of another ``seed``, or of another seed and other
            ``utterances``.
        transductive: of each configuration, whether utterances that are measured are in the training utterances' graph.
        labels: how values of its only column are shown, by how they are written.
        table: the name of its table's files.
        drawing: the name of its figure.
        file: the name of its figure's files.
    """

    name: str
    question: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    reference: int
    chooses: bool
    compared: bool
    needs_pair: bool
    seeds: tuple[int, ...]
    n_seeds: tuple[int, ...]
    confirms: bool
    tunes: str
    decided_by: Literal["seed", "utterances"]
    transductive: tuple[bool, ...]
    labels: dict[str, str]
    table: str
    drawing: str
    file: str

    @property
    def head(self) -> str:
        """What tells its configurations apart, as the head of a column has it."""
        return ", ".join(map(displayed, self.columns))

    def label(self, key: Sequence[Any]) -> str:
        """Return how a configuration is shown below the name of what it varies, given its values in :attr:`columns`."""
        if len(key) == 1:
            return self.labels.get(shown(key[0]), shown(key[0]))
        return ", ".join(f"{in_words(column)} {shown(value)}" for column, value in zip(self.columns, key, strict=True))

    def told(self, key: Sequence[Any]) -> str:
        """Return how a configuration is named in a sentence: a number or a yes or no says of what it is."""
        label = self.label(key)
        plain = len(key) == 1 and label == shown(key[0]) and isinstance(key[0], int | float)
        return f"{in_words(self.columns[0])} {label}" if plain else label

    def brief(self, key: Sequence[Any]) -> str:
        """Return how a configuration is shown where :attr:`head` stands beside it."""
        return self.label(key) if len(key) == 1 else ", ".join(map(shown, key))

    def name_of(self, key: Sequence[Any]) -> str:
        """Return how a configuration is written in csv files, given its values in :attr:`columns`."""
        if len(key) == 1:
            return shown(key[0])
        return ", ".join(f"{column} {shown(value)}" for column, value in zip(self.columns, key, strict=True))


@dataclass(frozen=True, kw_only=True)
class About:
    """What a study is: what its trials have in common, and what was asked for.

    Attributes:
        name: of the study; its results are in a folder of that name.
        dataset: the data set's name.
        title: the data set's name as tables show it.
        profile: the reading of the method.
        system: that the blocks vary.
        settings: what all trials share.
        identity: the columns of ``trials.csv`` that tell all configurations apart.
        base: what ``trials.csv`` has in these for the study's own configuration, at its pair where it has one.
        blocks: that were asked for or have been run before.
        seeds: as asked for; those that choose the pair, where one is chosen.
        confirm: the fresh seeds at the pair, which took no part in choosing it; empty: no block runs with any.
        folds: how many folds a complete seed has.
        select_by: the metric that chooses the K pair.
        select_on: the split that does.
        pair: K_audio and K_text of the blocks that need a pair; None: none is chosen yet.
        pair_from: whether that pair was ``chosen``, ``given`` by the user, or is the ``usual`` one.
        rope: points within which two configurations are practically the same (the region of practical equivalence).
        looks: whether configurations get more seeds until their differences are clear.
        class_names: the emotions, where the ledger knows them.
        made_with: versions of what ran the study's first trial, where the ledger knows them.
    """

    name: str
    dataset: str
    title: str
    profile: str
    system: str
    settings: dict[str, Any]
    identity: tuple[str, ...]
    base: tuple[Any, ...]
    blocks: tuple[AboutBlock, ...]
    seeds: tuple[int, ...]
    confirm: tuple[int, ...]
    folds: int
    select_by: Metric
    select_on: Split
    pair: tuple[int, int] | None
    pair_from: Literal["chosen", "given", "usual"]
    rope: float
    looks: bool
    class_names: tuple[str, ...]
    made_with: dict[str, str]

    @property
    def at(self) -> Pair | None:
        """The pair of the blocks that need one."""
        return Pair(*self.pair) if self.pair else None

    @property
    def given(self) -> bool:
        """Whether nothing was chosen."""
        return self.pair_from != "chosen"

    @property
    def how(self) -> str:
        """How the pair was come by, in words."""
        if self.given:
            return "given" if self.pair_from == "given" else "the usual one, as none was chosen"
        return (
            "chosen on validation" if self.select_on == "val" else "chosen on the test split, as the released code does"
        )

    def value(self, column: str) -> Any:
        """Return what the study's own configuration has in a column of :attr:`identity`; None: no such choice."""
        return dict(zip(self.identity, self.base, strict=True))[column]

    @property
    def fusion(self) -> Any:
        """The fusion of the study's own configuration; None: its system has no such choice."""
        return self.value("fusion")

    def block(self, name: str) -> AboutBlock | None:
        """Return a block by its name; None: it is not in the study."""
        return next((block for block in self.blocks if block.name == name), None)

    @property
    def choosing(self) -> AboutBlock | None:
        """The block among whose configurations the pair is chosen; None: there is none."""
        return next((block for block in self.blocks if block.chooses), None)

    def values(self, column: str) -> tuple[Any, ...]:
        """Return the values that the choosing block gives a column, in their order; empty: there is no such block."""
        if self.choosing is None:
            return ()
        place = self.identity.index(column)
        return tuple(dict.fromkeys(row[place] for row in self.choosing.rows if row[place] is not None))

    @property
    def k_audio(self) -> tuple[int, ...]:
        """The K_audio among which the pair is chosen."""
        return self.values("k_audio")

    @property
    def k_text(self) -> tuple[int, ...]:
        """The K_text among which the pair is chosen."""
        return self.values("k_text")


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
        kept: what the trials predicted; None: the ledger is of before that was kept.
        folder: that they were loaded from; None: they come from the ledger.
    """

    about: About
    trials: pd.DataFrame
    kept: Predictions | None = None
    folder: Path | None = None

    def __repr__(self) -> str:
        """Return what the study is, and a line for each of its blocks."""
        head, table, frames = overview(self)
        return "\n\n".join([*head, table.to_string(index=False), frames])

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        head, table, frames = overview(self)
        lines = "".join(f"<p>{escape(line)}</p>" for line in head)
        return f"{lines}{table.to_html(index=False, border=0, justify='left')}<p>{escape(frames)}</p>"

    def __getattr__(self, name: str) -> pd.DataFrame:
        """Return a block's configurations by the block's name, as :meth:`block` does: ``results.grid``."""
        if name.startswith("_") or "about" not in self.__dict__ or self.about.block(name) is None:
            there = ", ".join(block.name for block in self.__dict__["about"].blocks) if "about" in self.__dict__ else ""
            raise AttributeError(f"no block is called {name!r}; the study has {there or 'none'}")
        return self.block(name)

    def block(self, name: str) -> pd.DataFrame:
        """Return the aggregate of a block: a row per configuration, in the block's order.

        Args:
            name: of the block; a study that has not got it has no row.
        """
        if name not in self._frames:
            about = self.about.block(name)
            columns = list(about.columns) if about else ["profile"]
            frame = aggregate(self.trials_of(name), columns, self.about.folds)
            if about:
                places = [self.about.identity.index(column) for column in columns]
                order = {tuple(row[i] for i in places): place for place, row in enumerate(about.rows)}
                keys = [tuple(map(plain_value, key)) for key in frame[columns].itertuples(index=False)]
                frame = frame.iloc[np.argsort([order[key] for key in keys], kind="stable")].reset_index(drop=True)
            self._frames[name] = frame
        return self._frames[name]

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        return {}

    def trials_of(self, name: str) -> pd.DataFrame:
        """Return the trials of a block: of its configurations and its seeds, whatever block they were run for."""
        about = self.about.block(name)
        return self._of_rows(about.rows, about.seeds) if about else self._of_rows((), ())

    def of_row(self, row: tuple[Any, ...]) -> pd.DataFrame:
        """Return the trials of one configuration, whatever their seeds."""
        return self.trials.iloc[self._places.get(row, [])]

    def _of_rows(self, rows: Sequence[tuple[Any, ...]], seeds: Sequence[int]) -> pd.DataFrame:
        trials = self.trials.iloc[sorted(place for row in set(rows) for place in self._places.get(row, []))]
        return trials[trials["seed"].isin(seeds)]

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], list[int]]:
        """Where each configuration's trials are, by the configuration as :attr:`AboutBlock.rows` has it."""
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, key in enumerate(self.trials[list(self.about.identity)].itertuples(index=False, name=None)):
            places.setdefault(tuple(map(plain_value, key)), []).append(place)
        return places

    def keys(self, block: AboutBlock) -> list[tuple[Any, ...]]:
        """Return each configuration's values in the block's columns, in its order."""
        places = [self.about.identity.index(column) for column in block.columns]
        return [tuple(row[place] for place in places) for row in block.rows]

    def marked(self, block: AboutBlock) -> list[bool]:
        """Return whether each configuration of a block must be marked as transductive, as nothing else there says so.

        Args:
            block: of the study. Its caption says so where all trials of the study are, its columns where it is varied.
        """
        said = "evaluation_graph" in block.columns or (
            self.about.settings.get("evaluation_graph") == "joint" and all(block.transductive)
        )
        of = zip(block.transductive, self.keys(block), strict=True)
        return [one and not said and "transductive" not in block.brief(key) for one, key in of]

    def by_seed(self, block: AboutBlock, metric: str) -> pd.DataFrame:
        """Return a metric with a row per seed and a column per configuration, numbered in the block's order."""
        known = self.per_seed(self.trials_of(block.name), block.columns)
        keys = self.keys(block)
        numbers = [
            keys.index(tuple(map(plain_value, key))) for key in known[list(block.columns)].itertuples(index=False)
        ]
        shaped = known.assign(configuration=numbers).pivot(index="seed", columns="configuration", values=metric)
        return shaped.reindex(columns=range(len(keys)))

    def of_seeds(self, row: tuple[Any, ...], metric: str) -> pd.Series:
        """Return a configuration's metric by seed, its mean over folds, of the seeds that are done on every fold."""
        return self.per_seed(self.of_row(row), []).set_index("seed")[metric]

    @property
    def utterances(self) -> pd.DataFrame:
        """The test utterances: id, fold, label (the index of its class), speaker, session, seconds; of all folds."""
        return NO_UTTERANCES if self.kept is None else self.kept.utterances

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """What trials predicted: a row per trial that has predictions, a column per utterance, indices of classes.

        Rows have the index that they have in :attr:`trials`, columns the utterances' ids. A trial did not predict the
        utterances of other folds: <NA>.
        """
        return pd.DataFrame() if self.kept is None else self.kept.frame()

    @cached_property
    def measures(self) -> dict[Metric, str]:
        """The metrics that every done trial has, by name, and how they are shown; one that is new may be missing."""
        done = self.trials[self.trials["status"] == "done"]
        known = {name: done[f"test_{name}"].notna().all() for name in SCORES}
        return {name: metric.label for name, metric in SCORES.items() if known[name]}

    @cached_property
    def own_seeds(self) -> tuple[int, ...]:
        """The seeds of the study's own configuration: fresh ones where any is done, else those that chose its pair."""
        fresh = self.about.confirm
        return fresh if fresh and len(self._of_rows([self.about.base], fresh)) else self.about.seeds

    @cached_property
    def own(self) -> pd.DataFrame:
        """The aggregate of the study's own configuration, at its pair, over :attr:`own_seeds`: one row, or none."""
        trials = self._of_rows([self.about.base], self.own_seeds)
        return aggregate(trials, list(self.about.identity), self.about.folds)

    def per_seed(self, trials: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
        """Return every seed's figures, its mean over folds, by the columns that tell these trials apart."""
        return per_seed(trials, by, self.about.folds)

    @cached_property
    def scores(self) -> GridScores | None:
        """The pairs without holes, for what needs every pair with every seed; None: no pair has any."""
        about = self.about
        if about.choosing is None or not about.k_audio:
            return None
        known = per_seed(self.trials_of(about.choosing.name), PAIR, about.folds)
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

    def save(self, folder: Path) -> list[Path]:
        """Write what :func:`load_results` reads: ``trials.csv``, ``study.json``, and what the trials predicted."""
        with written_atomically(folder / TRIALS) as temporary:
            self.trials.to_csv(temporary, index=False)
        with written_atomically(folder / ABOUT) as temporary:
            temporary.write_text(json.dumps(asdict(self.about), indent=2) + "\n", encoding="utf-8")
        return [folder / TRIALS, folder / ABOUT, *(self.kept.save(folder) if self.kept else ())]


def load_results(folder: Path | str) -> Results:
    """Return the results of a study from its folder, such as ``results/demo``, as frames.

    Args:
        folder: where ``run_grid.py`` wrote ``trials.csv`` and ``study.json``; beside them ``predictions.npz`` and
            ``utterances.csv``, which studies of before have not got.

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
        trials = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=_texts(about), **_EXACT)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as csv ({error}); make it again with --report-only") from None
    for added in {*METRICS, "parameters"} - set(trials.columns):  # since the study was written
        trials[added] = np.nan
    if missing := [column for column in columns(about.identity[len(IDENTITY) :]) if column not in trials.columns]:
        raise InputError(f"{path}: has no column {missing[0]!r}; make it again with --report-only")
    trials = whole_numbers(trials)
    numbers = ["k_audio", "k_text", "fold", "seed", "epochs", "parameters", *METRICS]
    numbers = [name for name in numbers if not trials[name].isna().all()]
    if wrong := [name for name in numbers if len(trials) and not pd.api.types.is_numeric_dtype(trials[name])]:
        raise InputError(f"{path}: column {wrong[0]!r} holds what is no number; make it again with --report-only")
    if unsound := _unsound(trials, about):
        raise InputError(f"{path}: {unsound}; make it again with --report-only")
    kept = load_predictions(folder, trials, folds=about.folds, classes=len(about.class_names))
    return Results(about=about, trials=trials, kept=kept, folder=folder)


def _texts(about: About) -> dict[str, type[str]]:
    """Return the columns that hold names, which may look like numbers."""
    rows = [about.base, *(row for block in about.blocks for row in block.rows)]
    return {column: str for column, *of in zip(about.identity, *rows, strict=True) if any(type(x) is str for x in of)}


def _unsound(trials: pd.DataFrame, about: About) -> str:
    """Return what is wrong with rows that a study did not write so; empty: nothing."""
    strange = trials.loc[~trials["status"].isin(["done", "failed"]), "status"]
    if len(strange):
        return f"row {strange.index[0] + 2} has status {str(strange.iloc[0])[:40]!r}"
    known = {about.base, *(row for block in about.blocks for row in block.rows)}
    for place, key in zip(trials.index, trials[list(about.identity)].itertuples(index=False, name=None), strict=True):
        if tuple(map(plain_value, key)) not in known:
            told = ", ".join(f"{n} {plain_value(value)!r}" for n, value in zip(about.identity, key, strict=True))
            return f"row {place + 2} is of no block of {ABOUT} ({told[:160]})"
    done = trials[trials["status"] == "done"]
    metrics = [metric for metric in METRICS if not done[metric].isna().all()]
    finite = np.isfinite(done[metrics].to_numpy(float)).all(axis=1) if len(done) else np.ones(0, bool)
    if not finite.all():
        return f"row {done.index[~finite][0] + 2} is done, and a metric of it is no number"
    if (again := trials.duplicated([*about.identity, "fold", "seed"])).any():
        return f"row {trials.index[again][0] + 2} is the same trial as another"
    return ""


_SINCE = {"evaluation_graph": "own", "evaluation_size": 0, "ties": "index"}
"""Settings that a study of an earlier release does not tell, as it was run."""


def read_about(path: Path) -> About:
    """Return what a ``study.json`` holds.

    Raises:
        InputError: a file that cannot be read, or that a study did not write.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for block in content["blocks"]:  # an earlier release had no system that is transductive, and tuned none
            block.setdefault("transductive", [False] * len(block["rows"]))
            block.setdefault("tunes", "")
        made: About = _read_as(About, content, "the file")
        if "gather_from" in made.settings:  # its system uses a graph
            made = replace(made, settings={**_SINCE, **made.settings})
        _check_about(made)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: is not what a study writes there ({error}); make it again with --report-only"
        ) from None
    return made


def _read_as(kind: Any, value: Any, name: str) -> Any:
    """Return JSON as the type that a field has; TypeError where it is something else."""
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"{name} is {str(value)[:40]!r}")
        hints = get_type_hints(kind)
        return kind(**{f.name: _read_as(hints[f.name], value[f.name], f.name) for f in fields(kind)})  # type: ignore[operator]
    of, parts = get_origin(kind), get_args(kind)
    if of is UnionType:
        return None if value is None else _read_as(parts[0], value, name)
    if of is tuple and isinstance(value, list):
        if parts[-1] is not ... and len(value) != len(parts):
            raise TypeError(f"{name} has {len(value)} values")
        return tuple(_read_as(parts[0], one, name) for one in value)
    if of is dict and isinstance(value, dict):
        return {_read_as(str, key, name): _read_as(parts[1], one, name) for key, one in value.items()}
    if of is Literal and value in parts:
        return value
    if kind is Any and (value is None or isinstance(value, str | int | float)):
        kind = type(value)
    if type(value) is not kind or (kind is str and not value.isprintable()):
        raise TypeError(f"{name} is {str(value)[:40]!r}")
    return value


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}"
"""Of a study, of a block and of its files, which are moved and removed by these names."""


def _check_about(about: About) -> None:
    """Raise ValueError where values that are sound each for itself are not together."""
    if about.folds < 1 or min(about.pair or (1,)) < 1 or not 0 < about.rope < 100:
        raise ValueError("folds and K are at least 1, and rope is between 0 and 100 points")
    seeds = (*about.seeds, *about.confirm)
    if len(set(seeds)) < len(seeds) or len(set(about.class_names)) < len(about.class_names):
        raise ValueError("a seed or a class is named twice")
    if about.identity[: len(IDENTITY)] != IDENTITY or len(set(about.identity)) < len(about.identity):
        raise ValueError(f"identity is {str(about.identity)[:80]}")
    if about.select_by not in SCORES:
        raise ValueError(f"select_by is {about.select_by[:40]!r}")
    names = [block.name for block in about.blocks]
    if len(set(names)) < len(names):
        raise ValueError("a block is named twice")
    for name in (about.name, *names, *(x for block in about.blocks for x in (block.table, block.drawing, block.file))):
        if not re.fullmatch(_NAME, name):
            raise ValueError(f"{name[:40]!r} is not the name of a study, a block or a file")
    for block in about.blocks:
        _check_block(about, block)


def _check_block(about: About, block: AboutBlock) -> None:
    """Raise ValueError where a block does not go with its study."""
    if {len(row) for row in (*block.rows, about.base)} != {len(about.identity)}:
        raise ValueError(f"a row of the block {block.name} has not a value for each of {', '.join(about.identity)}")
    if not block.columns or not set(block.columns) <= set(about.identity):
        raise ValueError(f"columns of the block {block.name}")
    if not 0 <= block.reference < len(block.rows):
        raise ValueError(f"reference of the block {block.name}")
    if len(block.n_seeds) != len(block.rows) or any(not 0 <= n <= len(block.seeds) for n in block.n_seeds):
        raise ValueError(f"n_seeds of the block {block.name}")
    if len(block.transductive) != len(block.rows):
        raise ValueError(f"transductive of the block {block.name}")
    if about.looks and block.compared and not set(block.n_seeds) <= set(LOOKS):
        raise ValueError(f"n_seeds of the block {block.name} are not those of looks")
    if len(set(block.seeds)) < len(block.seeds):
        raise ValueError(f"the block {block.name} has a seed twice")
    if len(set(block.rows)) < len(block.rows):
        raise ValueError(f"the block {block.name} has a row twice")
    places = [about.identity.index(column) for column in PAIR]
    known = [row[i] for row in block.rows for i in places if row[i] is not None]
    if any(type(k) is not int or k < 1 for k in known):
        raise ValueError(f"K in the block {block.name} is not a whole number of at least 1")


def plain_value(value: Any) -> Any:
    """Return a value of a frame as JSON has it: None for what is missing, Python's own numbers."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


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
