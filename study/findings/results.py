"""The results of a study, for your own figures and computations: ``from study import load_results``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from cemobam_core.corpora import CORPORA
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from cemobam_core.json_files import read_json
from cemobam_core.metrics import METRICS as SCORES
from cemobam_core.wall import tried
from study.design.block import shown
from study.design.factors import Pair, displayed
from study.design.seeds import LOOKS
from study.findings.aggregate import IDENTITY, PAIR, aggregate, columns, per_seed, whole_numbers
from study.findings.overview import overview
from study.findings.predictions import NO_UTTERANCES, PREDICTIONS, UTTERANCES, Predictions, load_predictions, read_csv
from study.findings.statistics import Array
from study.findings.wording import in_words
from study.ledger.outcomes import METRICS, Metric, Split

ABOUT = "study.json"
TRIALS = "trials.csv"

_MEMORY = 2**30
"""Memory in bytes that reading a study may take beyond four times the size of its files."""
_SECONDS = 10
_LARGEST_LOSS = 1e30
_MOST_CELLS = 10**6
"""Most seeds times K_audio times K_text of a grid."""

_EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
"""Options with which pandas reads a float exactly as it was written. From 3.1 on, pandas always does, and warns."""


@dataclass(frozen=True, kw_only=True)
class AboutBlock:
    """The description of a block of a study.

    Attributes:
        name: Name of the block.
        question: Question that the block answers.
        title: Title of the block's table and figures.
        columns: Columns of ``trials.csv`` that distinguish the block's configurations.
        rows: Values of each configuration in the columns :attr:`About.identity` of ``trials.csv``.
        reference: Index of the configuration that the others are compared with.
        chooses: Whether the study's pair is chosen among the configurations.
        compared: Whether each configuration is compared with the reference.
        needs_pair: Whether the configurations run at the study's pair.
        seeds: Seeds that the configurations run with.
        n_seeds: Number of these seeds that each configuration runs with.
        confirms: Whether these seeds took no part in choosing the pair or in tuning.
        tunes: System whose configuration the block chooses by validation. Empty if the block does not tune.
        decided_by: The luck that the intervals must cover: that of another ``seed``, or that of another seed and other
            ``utterances``.
        transductive: For each configuration, whether the measured utterances are in the graph of the training
            utterances.
        labels: Labels of the values of the block's only column, by the value as text.
        table: Name of the table's files.
        drawing: Name of the figure.
        file: Name of the figure's files.
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
        """The head of the column that names the configurations in tables."""
        return ", ".join(map(displayed, self.columns))

    def label(self, key: Sequence[Any]) -> str:
        """Return the label of a configuration below the name of its factor.

        Args:
            key: Values of the configuration in :attr:`columns`.
        """
        if len(key) == 1:
            return self.labels.get(shown(key[0]), shown(key[0]))
        return ", ".join(f"{in_words(column)} {shown(value)}" for column, value in zip(self.columns, key, strict=True))

    def told(self, key: Sequence[Any]) -> str:
        """Return the name of a configuration in a sentence. Numbers, True and False get the name of their setting."""
        label = self.label(key)
        plain = len(key) == 1 and label == shown(key[0]) and isinstance(key[0], int | float)
        return f"{in_words(self.columns[0])} {label}" if plain else label

    def brief(self, key: Sequence[Any]) -> str:
        """Return the label of a configuration beside :attr:`head`."""
        return self.label(key) if len(key) == 1 else ", ".join(map(shown, key))

    def name_of(self, key: Sequence[Any]) -> str:
        """Return the name of a configuration in csv files, given its values in :attr:`columns`."""
        if len(key) == 1:
            return shown(key[0])
        return ", ".join(f"{column} {shown(value)}" for column, value in zip(self.columns, key, strict=True))


@dataclass(frozen=True, kw_only=True)
class About:
    """The description of a study: the settings that its trials share, and the request of the user.

    Attributes:
        name: Name of the study, and of the folder with its results.
        dataset: Name of the data set.
        title: Name of the data set in tables.
        profile: Reading of the method.
        system: System that the blocks vary.
        settings: Settings that all trials share.
        identity: Columns of ``trials.csv`` that distinguish all configurations.
        base: Values of the study's own configuration in these columns, at its pair if it has one.
        blocks: Blocks that were asked for or have been run before.
        seeds: Seeds that were asked for. If a pair is chosen, they choose it.
        confirm: Fresh seeds at the pair, which took no part in choosing it. Empty if no block runs with fresh seeds.
        folds: Number of folds of a complete seed.
        select_by: Metric that chooses the pair of K.
        select_on: Split that chooses the pair of K.
        pair: K_audio and K_text of the blocks that need a pair. `None` if none is chosen yet.
        pair_from: Whether that pair was ``chosen``, ``given`` by the user, or is the ``usual`` one.
        rope: Points within which two configurations are practically the same (the region of practical equivalence).
        looks: Whether configurations get more seeds until their differences are clear.
        class_names: The emotions. Empty if the ledger does not have them.
        made_with: Versions of the software that ran the study's first trial. Empty if the ledger does not have them.
        splits: Fingerprint of the ids, folds and splits of the utterances. Empty if the ledger does not have it.
        recall: Recall of the approximate index that ranked the neighbours, by modality and K. Empty if all rankings
            are exact.
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
    splits: str = ""
    recall: dict[str, float] = field(default_factory=dict)

    @property
    def in_papers(self) -> str:
        """Name of the data set in the tables of papers. Empty if the study has other classes than these tables."""
        known = CORPORA.get(self.dataset)
        return "" if known and self.class_names and known.has_other(self.class_names) else self.dataset

    @property
    def at(self) -> Pair | None:
        """The pair of the blocks that need one."""
        return Pair(*self.pair) if self.pair else None

    @property
    def given(self) -> bool:
        """Whether no block chose the pair."""
        return self.pair_from != "chosen"

    @property
    def how(self) -> str:
        """Description of where the pair comes from."""
        if self.given:
            return "given" if self.pair_from == "given" else "the usual one, as none was chosen"
        return (
            "chosen on validation" if self.select_on == "val" else "chosen on the test split, as the released code does"
        )

    def value(self, column: str) -> Any:
        """Return the study's own value in a column of :attr:`identity`, or `None` if its system lacks the setting."""
        return dict(zip(self.identity, self.base, strict=True))[column]

    @property
    def fusion(self) -> Any:
        """The fusion of the study's own configuration. `None` if its system does not have this setting."""
        return self.value("fusion")

    def block(self, name: str) -> AboutBlock | None:
        """Return a block by its name, or `None` if the study does not have it."""
        return next((block for block in self.blocks if block.name == name), None)

    @property
    def choosing(self) -> AboutBlock | None:
        """The block that chooses the pair. `None` if there is no such block."""
        return next((block for block in self.blocks if block.chooses), None)

    def values(self, column: str) -> tuple[Any, ...]:
        """Return the values of the choosing block in a column, in their order. Empty if no block chooses."""
        if self.choosing is None:
            return ()
        place = self.identity.index(column)
        return tuple(dict.fromkeys(row[place] for row in self.choosing.rows if row[place] is not None))

    @property
    def k_audio(self) -> tuple[int, ...]:
        """The values of K_audio that the pair is chosen from."""
        return self.values("k_audio")

    @property
    def k_text(self) -> tuple[int, ...]:
        """The values of K_text that the pair is chosen from."""
        return self.values("k_text")


@dataclass(frozen=True, eq=False, kw_only=True)
class GridScores:
    """The complete part of the grid: it has a value for every pair and seed.

    Attributes:
        k_audio: Values of K_audio in the complete part.
        k_text: Values of K_text in the complete part.
        seeds: Seeds in the complete part.
        values: Metrics by name, as (S, A, B) arrays of fractions.
        left_out: Description of the incomplete seeds and K that are left out. Empty if there are none.
    """

    k_audio: tuple[int, ...]
    k_text: tuple[int, ...]
    seeds: tuple[int, ...]
    values: dict[str, Array]
    left_out: str

    def index(self, pair: Pair | None) -> int | None:
        """Return the index of a pair in the flattened grid, or `None` if the pair is not in the grid."""
        if pair is None or pair.k_audio not in self.k_audio or pair.k_text not in self.k_text:
            return None
        return self.k_audio.index(pair.k_audio) * len(self.k_text) + self.k_text.index(pair.k_text)

    def pair(self, index: int) -> Pair:
        """Return the pair at an index of the flattened grid."""
        return Pair(self.k_audio[index // len(self.k_text)], self.k_text[index % len(self.k_text)])


@dataclass(frozen=True, eq=False, kw_only=True)
class Results:
    """The trials of a study and their aggregates.

    Every aggregate has one row per configuration: the columns that distinguish it, ``n_seeds``, and for every metric
    (``test_wa``, ``val_loss`` …) ``_mean``, ``_std``, and ``_low`` and ``_high`` of the 95% interval over seeds.
    Metrics are fractions. A seed counts if it is done on every fold.

    Attributes:
        about: Description of the study.
        trials: One row per trial, as in ``trials.csv``.
        kept: Predictions of the trials. `None` if the ledger is older than this field.
        folder: Folder that the results were loaded from. `None` if they come from the ledger.
    """

    about: About
    trials: pd.DataFrame
    kept: Predictions | None = None
    folder: Path | None = None

    def __repr__(self) -> str:
        """Return a description of the study, and a line for each of its blocks."""
        head, table, frames = overview(self)
        return "\n\n".join([*head, table.to_string(index=False), frames])

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        head, table, frames = overview(self)
        lines = "".join(f"<p>{escape(line)}</p>" for line in head)
        return f"{lines}{table.to_html(index=False, border=0, justify='left')}<p>{escape(frames)}</p>"

    def __getattr__(self, name: str) -> pd.DataFrame:
        """Return the aggregate of a block by its name, like :meth:`block`: ``results.grid``."""
        if name.startswith("_") or "about" not in self.__dict__ or self.about.block(name) is None:
            there = ", ".join(block.name for block in self.__dict__["about"].blocks) if "about" in self.__dict__ else ""
            raise AttributeError(f"no block is called {name!r}; the study has {there or 'no blocks'}")
        return self.block(name)

    def block(self, name: str) -> pd.DataFrame:
        """Return the aggregate of a block: one row per configuration, in the block's order.

        Args:
            name: Name of the block. If the study does not have it, the frame has no row.
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
        """Return the trials of a block's configurations with its seeds, even if another block ran them."""
        about = self.about.block(name)
        return self._of_rows(about.rows, about.seeds) if about else self._of_rows((), ())

    def of_row(self, row: tuple[Any, ...]) -> pd.DataFrame:
        """Return all trials of one configuration, with all seeds."""
        return self.trials.iloc[self._places.get(row, [])]

    def _of_rows(self, rows: Sequence[tuple[Any, ...]], seeds: Sequence[int]) -> pd.DataFrame:
        trials = self.trials.iloc[sorted(place for row in set(rows) for place in self._places.get(row, []))]
        return trials[trials["seed"].isin(seeds)]

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], list[int]]:
        """The positions of each configuration's trials, by the configuration's row in :attr:`AboutBlock.rows`."""
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, key in enumerate(self.trials[list(self.about.identity)].itertuples(index=False, name=None)):
            places.setdefault(tuple(map(plain_value, key)), []).append(place)
        return places

    def keys(self, block: AboutBlock) -> list[tuple[Any, ...]]:
        """Return the values of each configuration in the block's columns, in the block's order."""
        places = [self.about.identity.index(column) for column in block.columns]
        return [tuple(row[place] for place in places) for row in block.rows]

    def marked(self, block: AboutBlock) -> list[bool]:
        """Return whether each configuration of a block needs a mark that it is transductive.

        No mark is needed if the caption says it, because all trials of the study are transductive, or if a column or
        the configuration's name says it.

        Args:
            block: Block of the study.
        """
        is_said = "evaluation_graph" in block.columns or (
            self.about.settings.get("evaluation_graph") == "joint" and all(block.transductive)
        )
        configurations = zip(block.transductive, self.keys(block), strict=True)
        return [joint and not is_said and "transductive" not in block.brief(key) for joint, key in configurations]

    def by_seed(self, block: AboutBlock, metric: str) -> pd.DataFrame:
        """Return a metric with one row per seed and one column per configuration, numbered in the block's order."""
        known = self.per_seed(self.trials_of(block.name), block.columns)
        keys = self.keys(block)
        numbers = [
            keys.index(tuple(map(plain_value, key))) for key in known[list(block.columns)].itertuples(index=False)
        ]
        shaped = known.assign(configuration=numbers).pivot(index="seed", columns="configuration", values=metric)
        return shaped.reindex(columns=range(len(keys)))

    def of_seeds(self, row: tuple[Any, ...], metric: str) -> pd.Series:
        """Return a configuration's metric by seed, as the mean over folds, for seeds that are done on every fold."""
        return self.per_seed(self.of_row(row), []).set_index("seed")[metric]

    @property
    def utterances(self) -> pd.DataFrame:
        """The test utterances of all folds: id, fold, label (index of the class), speaker, session and seconds."""
        return NO_UTTERANCES if self.kept is None else self.kept.utterances

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The predicted class indices: one row per trial that has predictions, one column per utterance.

        Rows have the same index as in :attr:`trials`, and columns are the ids of utterances. A trial has <NA> for the
        utterances of other folds, which it did not predict.
        """
        return pd.DataFrame() if self.kept is None else self.kept.frame()

    @cached_property
    def measures(self) -> dict[Metric, str]:
        """The labels of the metrics that every done trial has, by name. A new metric may be missing."""
        done = self.trials[self.trials["status"] == "done"]
        known = {name: done[f"test_{name}"].notna().all() for name in SCORES}
        return {name: metric.label for name, metric in SCORES.items() if known[name]}

    @cached_property
    def own_seeds(self) -> tuple[int, ...]:
        """The seeds of the study's own configuration: fresh ones if any is done, else those that chose its pair."""
        fresh = self.about.confirm
        return fresh if fresh and len(self._of_rows([self.about.base], fresh)) else self.about.seeds

    @cached_property
    def own(self) -> pd.DataFrame:
        """The aggregate of the study's own configuration at its pair over :attr:`own_seeds`: one row or none."""
        trials = self._of_rows([self.about.base], self.own_seeds)
        return aggregate(trials, list(self.about.identity), self.about.folds)

    def per_seed(self, trials: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
        """Return the metrics of every seed, as means over folds, by the columns that distinguish these trials."""
        return per_seed(trials, by, self.about.folds)

    @cached_property
    def scores(self) -> GridScores | None:
        """The complete part of the grid, where every pair has every seed. `None` if there is no such part."""
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
        """Write the files that :func:`load_results` reads: ``trials.csv``, ``study.json`` and the predictions."""
        with written_atomically(folder / TRIALS) as temporary:
            self.trials.to_csv(temporary, index=False)
        with written_atomically(folder / ABOUT) as temporary:
            temporary.write_text(json.dumps(asdict(self.about), indent=2) + "\n", encoding="utf-8")
        return [folder / TRIALS, folder / ABOUT, *(self.kept.save(folder) if self.kept else ())]


def load_results(folder: Path | str) -> Results:
    """Return the results of a study from its folder, such as ``results/demo``, as frames.

    Args:
        folder: Folder in which ``cemobam run`` wrote ``trials.csv`` and ``study.json``. It also has
            ``predictions.npz`` and ``utterances.csv``, except in studies of earlier releases.

    Raises:
        InputError: If it is not such a folder, or a changed file cannot be read.
    """
    return load_studies([folder])[0]


def load_studies(folders: Iterable[Path | str]) -> list[Results]:
    """Return the results of several studies, as :func:`load_results` does, read behind one wall.

    Args:
        folders: Folders in which ``cemobam run`` wrote its files.

    Raises:
        InputError: If one is not such a folder, or a changed file cannot be read.
    """
    loaded = []
    with tried(_load, memory=_MEMORY, seconds=_SECONDS) as load:
        for folder in map(Path, folders):
            for name in (TRIALS, ABOUT):
                if not (folder / name).exists():
                    raise InputError(
                        f"{folder}: this is not the results folder of a study, because it has no {name}; give a folder "
                        "such as results/demo (if an earlier release wrote it, run the study's command with "
                        "--report-only first)"
                    )
            beside = [folder / name for name in (TRIALS, PREDICTIONS, UTTERANCES) if (folder / name).exists()]
            loaded.append(load(folder / ABOUT, beside=beside))
    return loaded


def _load(path: Path) -> Results:
    """Return the results in the folder of a :data:`ABOUT` file."""
    folder, about = path.parent, read_about(path)
    path = folder / TRIALS
    trials = read_csv(path, keep_default_na=False, na_values=[""], dtype=_texts(about), **_EXACT)
    for added in {*METRICS, "parameters"} - set(trials.columns):  # columns that are newer than the study
        trials[added] = np.nan
    if missing := [column for column in columns(about.identity[len(IDENTITY) :]) if column not in trials.columns]:
        raise InputError(f"{path}: has no column {missing[0]!r}; make it again with --report-only")
    trials = whole_numbers(trials)
    numbers = ["k_audio", "k_text", "fold", "seed", "epochs", "parameters", *METRICS]
    numbers = [name for name in numbers if not trials[name].isna().all()]
    if wrong := [name for name in numbers if len(trials) and not pd.api.types.is_numeric_dtype(trials[name])]:
        raise InputError(
            f"{path}: column {wrong[0]!r} has a value that is not a number; make it again with --report-only"
        )
    if unsound := _unsound(trials, about):
        raise InputError(f"{path}: {unsound}; make it again with --report-only")
    kept = load_predictions(folder, trials, folds=about.folds, classes=len(about.class_names))
    return Results(about=about, trials=trials, kept=kept, folder=folder)


def _texts(about: About) -> dict[str, type[str]]:
    """Return the columns of names, which must be read as text even if a name looks like a number."""
    rows = [about.base, *(row for block in about.blocks for row in block.rows)]
    columns = zip(about.identity, *rows, strict=True)
    return {column: str for column, *values in columns if any(type(x) is str for x in values)}


def _unsound(trials: pd.DataFrame, about: About) -> str:
    """Return the fault of rows that no study would write, or an empty string if there is none."""
    strange = trials.loc[~trials["status"].isin(["done", "failed"]), "status"]
    if len(strange):
        return f"row {strange.index[0] + 2} has status {str(strange.iloc[0])[:40]!r} instead of done or failed"
    known = {about.base, *(row for block in about.blocks for row in block.rows)}
    for place, key in zip(trials.index, trials[list(about.identity)].itertuples(index=False, name=None), strict=True):
        if tuple(map(plain_value, key)) not in known:
            given = ", ".join(f"{n} {plain_value(value)!r}" for n, value in zip(about.identity, key, strict=True))
            return f"row {place + 2} does not belong to any block of {ABOUT} ({given[:160]})"
    done = trials[trials["status"] == "done"]
    metrics = [metric for metric in METRICS if not done[metric].isna().all()]
    for metric in metrics:
        values, highest = done[metric].to_numpy(float), _LARGEST_LOSS if metric.endswith("_loss") else 1 + 1e-6
        wrong = ~((values >= 0) & (values <= highest))
        if wrong.any():
            what = "is not a number" if np.isnan(values[wrong][0]) else f"is {values[wrong][0]:g}"
            return f"row {done.index[wrong][0] + 2} is done, but {metric} {what}; it must be from 0 to {highest:g}"
    if (again := trials.duplicated([*about.identity, "fold", "seed"])).any():
        return f"row {trials.index[again][0] + 2} is the same trial as another"
    return ""


_SINCE = {"evaluation_graph": "own", "evaluation_size": 0, "ties": "index", "index": "exact"}
"""Settings that studies of earlier releases ran with but did not record."""


def read_about(path: Path) -> About:
    """Return the content of a ``study.json``.

    Raises:
        InputError: If the file cannot be read, or no study wrote it.
    """
    try:
        content = {"splits": "", "recall": {}, **read_json(path)}
        for block in content["blocks"]:  # earlier releases had no transductive systems and no tuning
            block.setdefault("transductive", [False] * len(block["rows"]))
            block.setdefault("tunes", "")
        made: About = _read_as(About, content, "the file")
        if "gather_from" in made.settings:  # the study's system uses a graph
            made = replace(made, settings={**_SINCE, **made.settings})
        _check_about(made)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = str(error).removeprefix(f"{path}: ")
        raise InputError(
            f"{path}: this file is not as a study writes it ({said}); make it again with --report-only"
        ) from None
    return made


def _read_as(kind: Any, value: Any, name: str) -> Any:
    """Return a JSON value as the type of a field, or raise TypeError if it does not fit."""
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"{name} must not be {str(value)[:40]!r}")
        hints = get_type_hints(kind)
        return kind(**{f.name: _read_as(hints[f.name], value[f.name], f.name) for f in fields(kind)})  # type: ignore[operator]
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _read_as(parts[0], value, name)
    if origin is tuple and isinstance(value, list):
        if parts[-1] is not ... and len(value) != len(parts):
            raise TypeError(f"{name} has {len(value)} values instead of {len(parts)}")
        return tuple(_read_as(parts[0], one, name) for one in value)
    if origin is dict and isinstance(value, dict):
        return {_read_as(str, key, name): _read_as(parts[1], one, name) for key, one in value.items()}
    if origin is Literal and value in parts:
        return value
    if kind is Any and (value is None or isinstance(value, str | int | float)):
        kind = type(value)
    if type(value) is not kind or (kind is str and not value.isprintable()):
        raise TypeError(f"{name} must not be {str(value)[:40]!r}")
    return value


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}"
"""Pattern of the names of studies, blocks and their files. Files are moved and removed by these names."""


def _check_about(about: About) -> None:
    """Raise ValueError if values that are valid one by one do not fit together."""
    if about.folds < 1 or min(about.pair or (1,)) < 1 or not 0 < about.rope < 100:
        raise ValueError("folds and K must be at least 1, and rope must be between 0 and 100 points")
    seeds = (*about.seeds, *about.confirm)
    if len(set(seeds)) < len(seeds) or len(set(about.class_names)) < len(about.class_names):
        raise ValueError("a seed or a class is listed twice")
    if about.identity[: len(IDENTITY)] != IDENTITY or len(set(about.identity)) < len(about.identity):
        raise ValueError(f"identity must not be {str(about.identity)[:80]}")
    if about.select_by not in SCORES:
        raise ValueError(f"select_by {about.select_by[:40]!r} is not a metric")
    names = [block.name for block in about.blocks]
    if len(set(names)) < len(names):
        raise ValueError("a block is listed twice")
    for name in (about.name, *names, *(x for block in about.blocks for x in (block.table, block.drawing, block.file))):
        if not re.fullmatch(_NAME, name):
            raise ValueError(f"{name[:40]!r} is not a valid name of a study, a block or a file")
    for block in about.blocks:
        _check_block(about, block)
    if (cells := len(seeds) * len(about.k_audio) * len(about.k_text)) > _MOST_CELLS:
        raise ValueError(f"the grid of K has {cells} cells, more than {_MOST_CELLS}")


def _check_block(about: About, block: AboutBlock) -> None:
    """Raise ValueError if a block does not fit its study."""
    if {len(row) for row in (*block.rows, about.base)} != {len(about.identity)}:
        raise ValueError(f"a row of the block {block.name} must have a value for each of {', '.join(about.identity)}")
    if not block.columns or not set(block.columns) <= set(about.identity):
        raise ValueError(f"columns of the block {block.name} must be among {', '.join(about.identity)}")
    if not 0 <= block.reference < len(block.rows):
        raise ValueError(f"reference of the block {block.name} is not the number of a row")
    if len(block.n_seeds) != len(block.rows) or any(not 0 <= n <= len(block.seeds) for n in block.n_seeds):
        raise ValueError(f"n_seeds of the block {block.name} must have a number of seeds for each row")
    if len(block.transductive) != len(block.rows):
        raise ValueError(f"transductive of the block {block.name} must have a value for each row")
    if about.looks and block.compared and not set(block.n_seeds) <= set(LOOKS):
        raise ValueError(
            f"n_seeds of the block {block.name} must be {', '.join(map(str, LOOKS))} in a study with looks"
        )
    if len(set(block.seeds)) < len(block.seeds):
        raise ValueError(f"the block {block.name} lists a seed twice")
    if len(set(block.rows)) < len(block.rows):
        raise ValueError(f"the block {block.name} lists a row twice")
    places = [about.identity.index(column) for column in PAIR]
    known = [row[i] for row in block.rows for i in places if row[i] is not None]
    if any(type(k) is not int or k < 1 for k in known):
        raise ValueError(f"K in the block {block.name} is not a whole number of at least 1")


def plain_value(value: Any) -> Any:
    """Return a value of a frame as a JSON value: `None` if it is missing, and Python's own numbers."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _complete(present: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the indices along each axis that span no missing value.

    The row with the largest share of missing values is removed first, on any axis, until none is missing.
    """
    kept = [np.arange(n) for n in present.shape]
    while True:
        rest = present[np.ix_(*kept)]
        if rest.size == 0 or rest.all():
            return tuple(kept)
        lacking = [1 - rest.mean(axis=tuple(i for i in range(3) if i != axis)) for axis in range(3)]
        axis = max(range(3), key=lambda i: lacking[i].max())
        kept[axis] = np.delete(kept[axis], int(lacking[axis].argmax()))
