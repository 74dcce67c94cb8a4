"""The predictions of trials: as arrays and frames, and in files."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented import demo_facts, demo_plan, invented
from predicting import predicting, some_utterances
from simulated import Noise, study, worse

from cemobam_core import InputError
from study import load_results
from study.design.configuration import Trial
from study.design.design import ANY_PAIR
from study.driver import StudyRun
from study.findings import predictions
from study.findings.evidence import Evidence
from study.findings.predictions import Predictions, load_predictions
from study.findings.results import Results
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.utterances import TestUtterances

NA = pd.NA


def outcome(*predicted: int, status: Any = "done") -> Outcome:
    return Outcome(status=status, seconds=1.0, device="cpu", predicted=bytes(predicted))


# Two folds by hand. The utterance a is tested in both.

TESTED = TestUtterances(
    ids=("a", "b", "c", "d", "a"),
    labels=(0, 1, 1, 0, 0),
    folds=(0, 0, 0, 1, 1),
    speakers=None,
    sessions=("x", "x", "y", "y", "x"),
    seconds=None,
    train_sizes=(10, 11),
)
TRIALS = pd.DataFrame(
    {
        "fold": [0, 1, 0, 1, 0, 1],
        "seed": [7, 7, 3, 3, 5, 5],
        "status": ["done", "done", "done", "failed", "done", "done"],
        "test_wa": [2 / 3, 0.5, 2 / 3, np.nan, 0.5, 0.0],
    }
)
OUTCOMES = [outcome(0, 1, 0), outcome(0, 1), outcome(1, 1, 1), outcome(status="failed"), outcome(), outcome(1, 2)]


@pytest.fixture
def kept() -> Predictions:
    made = Predictions.of(TESTED, TRIALS["fold"], OUTCOMES, classes=3)
    assert made is not None
    return made


def test_each_trial_predicts_the_utterances_of_its_fold(kept: Predictions) -> None:
    assert kept.predicted.dtype == np.int16
    assert kept.predicted.tolist() == [
        [0, 1, 0, -1, -1],
        [-1, -1, -1, 0, 1],
        [1, 1, 1, -1, -1],
        [-1] * 5,
        [-1] * 5,
        [-1, -1, -1, 1, 2],
    ]
    assert kept.has.tolist() == [True, True, True, False, False, True]
    assert kept.train_sizes == (10, 11)
    frame = kept.utterances
    assert frame.columns.tolist() == ["id", "fold", "label", "speaker", "session", "seconds"]
    assert frame["id"].tolist() == ["a", "b", "c", "d", "a"]
    assert frame["fold"].tolist() == [0, 0, 0, 1, 1]
    assert frame["label"].tolist() == [0, 1, 1, 0, 0]
    assert frame["speaker"].tolist() == [None] * 5
    assert frame["session"].tolist() == ["x", "x", "y", "y", "x"]
    assert frame["seconds"].isna().all()


def test_a_seed_that_predicted_everything_has_each_utterance_once(kept: Predictions) -> None:
    """Seed 3 failed on fold 1, and fold 0 of seed 5 is older than the keeping of predictions."""
    assert kept.matrix(TRIALS, 2).to_dict("index") == {7: {0: 0, 1: 1, 2: 0, 3: 0, 4: 1}}
    assert kept.matrix(TRIALS, 2).index.name == "seed"
    assert kept.matrix(TRIALS.iloc[2:], 2).shape == (0, 5)
    assert kept.matrix(TRIALS[TRIALS["fold"] == 1], 1).to_dict("index") == {
        5: {0: -1, 1: -1, 2: -1, 3: 1, 4: 2},
        7: {0: -1, 1: -1, 2: -1, 3: 0, 4: 1},
    }
    every = kept.by_seed(TRIALS.index, TRIALS["seed"])
    assert every.index.tolist() == [3, 5, 7]
    assert every.loc[3].tolist() == [1, 1, 1, -1, -1]
    assert every.loc[5].tolist() == [-1, -1, -1, 1, 2]
    assert kept.by_seed([1], [7]).loc[7].tolist() == [-1, -1, -1, 0, 1]


def test_a_user_sees_a_row_per_trial_and_a_column_per_utterance(kept: Predictions) -> None:
    about = study(np.random.default_rng(0), Noise(), size=(2, 2)).about
    results = Results(about=about, trials=TRIALS, kept=kept)
    expected = pd.DataFrame(
        {"a": [0, 1, 1, 2], "b": [1, NA, 1, NA], "c": [0, NA, 1, NA], "d": [NA, 0, NA, 1]},
        index=[0, 1, 2, 5],
        dtype="Int16",
    )
    pd.testing.assert_frame_equal(results.predictions, expected)
    assert results.utterances is kept.utterances
    without = Results(about=about, trials=TRIALS)
    assert without.predictions.empty
    assert without.utterances.empty
    assert without.utterances.columns.tolist() == kept.utterances.columns.tolist()


@pytest.mark.parametrize("utterances", [None, TESTED])
def test_where_nothing_is_kept_there_is_nothing(utterances: TestUtterances | None) -> None:
    assert Predictions.of(utterances, [0, 1], [outcome(), outcome(status="failed")]) is None
    assert Predictions.of(None, [0], [outcome(1, 2, 3)]) is None


@pytest.mark.parametrize("given", [outcome(0, 1), outcome(0, 1, 0, 1), outcome(0, 1, 3)])
def test_predictions_of_something_else_are_left_out(given: Outcome, caplog: pytest.LogCaptureFixture) -> None:
    made = Predictions.of(TESTED, [0, 0, 2], [outcome(0, 1, 2), given, outcome(0)], classes=3)
    assert made is not None
    assert made.has.tolist() == [True, False, False]
    assert "2 trials are read without their predictions" in caplog.text


def test_labels_that_are_no_class_are_refused() -> None:
    with pytest.raises(InputError, match="has the label 1, but there are 1 classes; run the study's command again"):
        Predictions.of(TESTED, [0], [outcome(0, 0, 0)], classes=1)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10_000))
def test_what_a_matrix_holds_is_what_the_trials_predicted(folds: int, seeds: int, draw: int) -> None:
    rng = np.random.default_rng(draw)
    sizes = rng.integers(1, 5, folds)
    places = np.repeat(np.arange(folds), sizes)
    known = TestUtterances(
        ids=tuple(f"u{i}" for i in range(len(places))), labels=(0,) * len(places), folds=tuple(places.tolist()),
        speakers=None, sessions=None, seconds=None, train_sizes=(5,) * folds,
    )  # fmt: skip
    trials = pd.DataFrame([(s, f) for s in range(seeds) for f in range(folds)], columns=["seed", "fold"])
    trials = trials.sample(frac=1, random_state=draw).reset_index(drop=True)
    trials["status"] = rng.choice(["done", "done", "done", "failed"], len(trials))
    outcomes = [
        outcome(*rng.integers(0, 4, sizes[row.fold]).tolist()) if row.status == "done" else outcome(status="failed")
        for row in trials.itertuples()
    ]
    made = Predictions.of(known, trials["fold"], outcomes)
    if made is None:
        assert (trials["status"] == "failed").all()
        return
    matrix = made.matrix(trials, folds)
    complete = trials[trials["status"] == "done"].groupby("seed").size()
    assert matrix.index.tolist() == sorted(complete.index[complete == folds])
    assert (matrix >= 0).all(axis=None)
    for place, row in trials.iterrows():
        if row["seed"] in matrix.index:
            assert matrix.loc[row["seed"], places == row["fold"]].tolist() == list(outcomes[int(str(place))].predicted)


# From the ledger: each row has its own predictions, in any order of trials.


def by_fold(trial: Trial) -> Outcome:
    """Return an invented outcome with predictions that depend only on the trial and differ from other trials'."""
    digest = hashlib.shake_256(repr(trial).encode()).digest(40 if trial.fold else 60)
    return replace(invented(trial), predicted=bytes(byte % 4 for byte in digest))


def test_every_row_of_the_results_has_the_predictions_of_its_trial(tmp_path: Path) -> None:
    plan = demo_plan()
    plan = replace(plan, design=replace(plan.design, folds=2))
    facts: StudyFacts = replace(demo_facts(), folds=2, class_names=("a", "b", "c", "d"))
    known = TestUtterances(
        ids=tuple(f"u{i}" for i in range(100)), labels=(0, 1, 2, 3) * 25, folds=(0,) * 60 + (1,) * 40,
        speakers=None, sessions=None, seconds=None, train_sizes=(7, 8),
    )  # fmt: skip
    ledger = Ledger(f"sqlite:///{tmp_path / 'study.db'}", name="demo")
    ledger.open(facts, known)
    first = StudyRun(replace(plan, at=ANY_PAIR), ledger, facts)
    trials = {block: first.trials(block) for block in ("fusion", "grid", "ablation")}
    recorded = [(block, trial) for block, of in trials.items() for trial in of][::-1]
    for number, (block, trial) in enumerate(recorded):
        done = by_fold(trial) if number % 5 else Outcome(status="failed", seconds=0.1, device="cpu", reason="x")
        ledger.record(plan.design.blocks[block], trial, done)
    again = Ledger(f"sqlite:///{tmp_path / 'study.db'}", name="demo")  # as --report-only reads it
    run = StudyRun(replace(plan, at=ANY_PAIR), again, facts)
    results = Evidence.of(run, name="demo", models=tmp_path).results
    assert results.kept is not None
    assert len(results.trials) == len({trial.signature("abc") for _, trial in recorded})
    identity = (*results.about.identity, "fold", "seed")
    by_key = {tuple(trial.parameters(identity).items()): trial for _, trial in recorded}
    shown = 0
    for place, row in results.trials.iterrows():
        trial = by_key[tuple((name, row[name]) for name in identity)]
        predicted = results.kept.predicted[int(str(place))]
        if row["status"] == "failed":
            assert (predicted == -1).all()
            continue
        here = slice(60, 100) if trial.fold else slice(0, 60)
        assert predicted[here].tolist() == list(by_fold(trial).predicted)
        assert (np.delete(predicted, np.r_[here]) == -1).all()
        shown += 1
    assert shown == len(results.predictions)
    assert 0 < shown < len(results.trials)


# Files.


@pytest.fixture
def results() -> Results:
    return predicting(study(np.random.default_rng(0), Noise(), size=(3, 3), variants=worse(1.0)))


def test_what_is_saved_is_loaded(results: Results, tmp_path: Path) -> None:
    written = [path.name for path in results.save(tmp_path)]
    assert written == ["trials.csv", "study.json", "predictions.npz", "utterances.csv"]
    again = load_results(tmp_path)
    assert again.kept is not None
    assert results.kept is not None
    assert again.kept.predicted.dtype == np.int16
    assert (again.kept.predicted == results.kept.predicted).all()
    assert again.kept.train_sizes == (200,)
    pd.testing.assert_frame_equal(again.utterances, results.utterances)
    pd.testing.assert_frame_equal(again.predictions, results.predictions)
    read = pd.read_csv(tmp_path / "utterances.csv")
    assert read.iloc[1].to_dict() | {"session": None} == {
        "id": "u001", "fold": 0, "label": 1, "speaker": "s1", "session": None, "seconds": 1.125
    }  # fmt: skip


def test_two_folds_are_loaded(kept: Predictions, tmp_path: Path) -> None:
    kept.save(tmp_path)
    trials = TRIALS.assign(test_wa=[2 / 3, 0.5, 2 / 3, np.nan, np.nan, 0.0])
    again = load_predictions(tmp_path, trials, folds=2, classes=3)
    assert again is not None
    assert (again.predicted == kept.predicted).all()
    pd.testing.assert_frame_equal(again.utterances, kept.utterances)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@given(st.lists(texts, min_size=1, max_size=6, unique=True), st.data())
def test_any_names_are_read_back(tmp_path_factory: pytest.TempPathFactory, ids: list[str], data: st.DataObject) -> None:
    speakers = data.draw(st.lists(texts.filter(bool), min_size=len(ids), max_size=len(ids)))
    known = replace(some_utterances(len(ids)), ids=tuple(ids), speakers=tuple(speakers))
    made = Predictions.of(known, [0], [outcome(*[0] * len(ids))])
    assert made is not None
    folder = tmp_path_factory.mktemp("x")
    made.save(folder)
    right = np.mean(np.array(known.labels) == 0)
    trials = pd.DataFrame({"fold": [0], "seed": [0], "status": ["done"], "test_wa": [right]})
    again = load_predictions(folder, trials, folds=1, classes=4)
    assert again is not None
    pd.testing.assert_frame_equal(again.utterances, made.utterances)


def test_a_name_that_is_no_utf8_is_written(results: Results, tmp_path: Path) -> None:
    known = replace(some_utterances(), ids=("\ud800", *some_utterances().ids[1:]))
    predicting(results, known).save(tmp_path)
    assert load_results(tmp_path).utterances["id"][0] == "\\ud800"


@pytest.mark.parametrize("missing", [("predictions.npz",), ("utterances.csv",), ("predictions.npz", "utterances.csv")])
def test_a_study_of_before_has_none(results: Results, tmp_path: Path, missing: tuple[str, ...]) -> None:
    results.save(tmp_path)
    for name in missing:
        (tmp_path / name).unlink()
    again = load_results(tmp_path)
    assert again.kept is None
    assert again.predictions.empty


def refused(folder: Path, said: str) -> None:
    """Check that results are refused in one line that says what to do."""
    with pytest.raises(InputError, match=said) as error:
        load_results(folder)
    line = str(error.value)
    assert line.endswith("; make it again with --report-only")
    assert "\n" not in line
    assert len(line) < 400


def column(name: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return a function that puts one value into a column."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame[name] = frame[name].astype(object)
        frame.loc[3, name] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="label"), "utterances.csv: has no column 'label'"),
        (lambda frame: frame.iloc[:-1], r"predictions.npz: predicted is int16 \(75, 60\), but .* \(75, 59\)"),
        (lambda frame: frame.iloc[:0], "utterances.csv: column 'fold' "),
        (lambda frame: frame[::-1], "predictions.npz: the predictions do not give the trials' test_wa"),
        (column("label", 255), "utterances.csv: column 'label' must have whole numbers from 0 to 254"),
        (column("label", -1), "utterances.csv: column 'label' must have"),
        (column("label", 0.5), "utterances.csv: column 'label' must have"),
        (column("label", None), "utterances.csv: column 'label' must have"),
        (column("label", 10**30), "utterances.csv: column 'label' must have"),
        (column("label", "x"), "utterances.csv: column 'label' must have"),
        (column("label", 2), "predictions.npz: the predictions do not give the trials' test_wa"),
        (column("fold", 1), "utterances.csv: column 'fold' must have whole numbers from 0 to 0"),
        (column("id", "u001"), "utterances.csv: an utterance is listed twice in a fold"),
        (column("seconds", "long"), "utterances.csv: column 'seconds' must have numbers"),
        (column("seconds", -1), "utterances.csv: column 'seconds' must have numbers"),
        (column("seconds", "inf"), "utterances.csv: column 'seconds' must have numbers"),
    ],
)
def test_utterances_that_no_study_wrote(
    results: Results, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    results.save(tmp_path)
    path = tmp_path / "utterances.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    refused(tmp_path, said)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"id,fold\n1,2,3\n", b'"', b"\0" * 100])
def test_utterances_that_are_no_csv(results: Results, tmp_path: Path, content: bytes) -> None:
    results.save(tmp_path)
    (tmp_path / "utterances.csv").write_bytes(content)
    refused(tmp_path, "utterances.csv: ")


def written(path: Path, **changes: Any) -> None:
    """Write a predictions.npz with other arrays."""
    with np.load(path) as arrays:
        made = {**arrays, **changes}
    np.savez_compressed(path, **{name: array for name, array in made.items() if array is not None})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p[1:], r"predicted is int16 \(74, 60\), but the trials and utterances ask for int16 \(75, 60\)"),
        (lambda p: p.T, r"predicted is int16 \(60, 75\)"),
        (lambda p: p[0], r"predicted is int16 \(60,\)"),
        (lambda p: p.astype(np.int64), "predicted is larger than the trials"),
        (lambda p: p.astype(np.float16), "predicted is float16"),
        (lambda p: p.astype(">i2"), "predicted is >i2"),
        (lambda p: p.astype(str), "predicted is larger than the trials"),
        (lambda p: None, "cannot be read as npz .*predicted"),
        (lambda p: np.where(p == p[0, 0], np.int16(255), p), "predicted must have classes from 0 to 254"),
        (lambda p: p - np.int16(3), "predicted must have classes from 0 to 254, or -1"),
        (lambda p: np.where(np.arange(60) == 3, np.int16(-1), p), "a trial of fold 0 must predict"),
        (lambda p: np.roll(p, 1, axis=0), "the predictions do not give the trials' test_wa"),
        (lambda p: (p + np.int16(1)) % np.int16(4), "the predictions do not give the trials' test_wa"),
    ],
)
def test_predictions_that_no_study_wrote(
    results: Results, tmp_path: Path, change: Callable[[np.ndarray[Any, Any]], Any], said: str
) -> None:
    results.save(tmp_path)
    assert results.kept is not None
    written(tmp_path / "predictions.npz", predicted=change(results.kept.predicted))
    refused(tmp_path, "predictions.npz: " + said)


@pytest.mark.parametrize("what", ["numbers", "header"])
def test_a_bomb_is_refused(results: Results, tmp_path: Path, what: str) -> None:
    results.save(tmp_path)
    path = tmp_path / "predictions.npz"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    zeros = bytes(100_000_000)
    header = b"\x93NUMPY\x02\x00" + len(zeros).to_bytes(4, "little")
    parts["predicted.npy"] = (parts["predicted.npy"] if what == "numbers" else header) + zeros
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 200_000
    refused(tmp_path, r"predictions.npz: predicted is larger than the trials and utterances ask for")


@pytest.mark.parametrize("sizes", [[2**62], [], [0], [1, 2], [1.5], [-3], ["9"]])
def test_sizes_that_no_study_wrote(results: Results, tmp_path: Path, sizes: list[Any]) -> None:
    results.save(tmp_path)
    written(tmp_path / "predictions.npz", train_sizes=np.array(sizes))
    refused(tmp_path, "predictions.npz: train_sizes ")


def test_predictions_of_trials_that_failed(results: Results, tmp_path: Path) -> None:
    trials = results.trials.copy()
    trials.loc[3, "status"] = "failed"
    replace(results, trials=trials).save(tmp_path)
    refused(tmp_path, "predictions.npz: the predictions do not give the trials' test_wa")


def test_an_archive_that_is_cut_short_or_something_else(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    path = tmp_path / "predictions.npz"
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:100], whole[:-10], whole[: len(whole) // 2], b"\x93NUMPY\x01\0"):
        path.write_bytes(content)
        refused(tmp_path, "predictions.npz: cannot be read as npz")
    for place in range(40, len(whole) - 40, len(whole) // 40):  # every wrong byte is detected or harmless
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert (load_results(tmp_path).kept.predicted == results.kept.predicted).all()  # type: ignore[union-attr]
        except InputError as error:
            assert str(error).endswith("; make it again with --report-only")


def archive(path: Path, head: bytes, body: bytes = b"") -> None:
    """Write a predictions.npz whose array begins with some bytes."""
    sizes = io.BytesIO()
    np.save(sizes, np.array([200]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("predicted.npy", head + body)
        made.writestr("train_sizes.npy", sizes.getvalue())


def header(said: str) -> bytes:
    """Return the header of a numpy file, version 1.0."""
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said.encode()


@pytest.mark.parametrize(
    "said",
    [
        "{'descr': '<i2', 'fortran_order': False, 'shape': (4000000000, 4000000000), }",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (75, 600000000000), }",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (-1, 60), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (75, 60), }",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (75, 60), }",  # and nothing follows
        "__import__('os').system('false')",
        "{" * 5000,
    ],
)
def test_what_an_array_claims_is_looked_at_before_it_is_read(results: Results, tmp_path: Path, said: str) -> None:
    results.save(tmp_path)
    archive(tmp_path / "predictions.npz", header(said))
    refused(tmp_path, "predictions.npz: ")


def test_pickles_are_not_read(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    written(tmp_path / "predictions.npz", predicted=np.array([[print] * 60] * 75, dtype=object))
    refused(tmp_path, "predictions.npz: predicted is object")


def test_more_than_memory_takes_is_not_read(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.save(tmp_path)
    monkeypatch.setattr(predictions, "_MOST_NUMBERS", 75 * 60 - 1)
    refused(tmp_path, re.escape("predictions.npz: 75 trials times 60 utterances are too many to read"))
