"""The state of a ledger: what of it is whole, and a new ledger with that.

A trial is whole if everything that a run records about it can be read, is within its range, and agrees with the rest.
What is not whole is left out, and the next run trains it again.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.ledger.checked import (
    PREDICTED,
    block_data_of,
    check_study_name,
    facts_of,
    mismatch,
    options_of,
    outcome_of,
)
from study.ledger.found import Found, FoundStudy, FoundTrial, find
from study.ledger.ledger import BLOCK, FACTS, OPTIONS, UTTERANCES, block_of, taken_apart
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.packing import packed, unpacked
from study.ledger.storages import Row, place_of
from study.ledger.storages.sql import SQLStorage
from study.ledger.utterances import TestUtterances

_METRIC_NAMES, _NOTE = "study:metric_names", "dashboard:note"
"""System attributes of Optuna and its dashboard that are copied: the label of an axis, and notes that a user wrote."""

_FINISHED = (TrialState.COMPLETE.name, TrialState.FAIL.name)

Shared = tuple[str, str]
"""Name and tag of a study: what its Optuna studies share."""


@dataclass
class WholeStudy:
    """One Optuna study, with what is whole of it.

    Attributes:
        name: Name of the Optuna study.
        facts: Facts about the study. `None` if no Optuna study of its name and tag has them.
        options: Options of its last run. `None` if they are lost.
        block: Description of its block. `None` if it is lost.
        utterances: Its test utterances. `None` if they are lost, or it has none.
        system: Other system attributes.
        trials: Its whole trials, ready to be written.
        done: Number of these that are done. The others failed.
        lost: Number of its trials that are not whole.
    """

    name: str
    facts: StudyFacts | None = None
    options: tuple[str, ...] | None = None
    block: dict[str, Any] | None = None
    utterances: TestUtterances | None = None
    system: dict[str, Any] = field(default_factory=dict)
    trials: list[FrozenTrial] = field(default_factory=list)
    done: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Diagnosis:
    """What is whole of a ledger, and what is not.

    Attributes:
        unit: What the ledger consists of: pages, lines or tables.
        units: Numbers of these that are whole, and that are damaged.
        studies: Its studies.
        faults: What is damaged or lost, a line for each.
        others: Number of trials that no run of this tool recorded. They are not faults.
    """

    unit: str
    units: tuple[int, int]
    studies: tuple[WholeStudy, ...]
    faults: tuple[str, ...]
    others: int

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.faults and not self.units[1]

    @property
    def done(self) -> int:
        """Number of done trials that are whole."""
        return sum(study.done for study in self.studies)


def examine(url: str) -> Diagnosis:
    """Return the state of a ledger, which is only read.

    Raises:
        InputError: If there is no ledger, or nothing of it can be read.
    """
    found = find(url)
    faults = list(found.faults)
    studies = dict(_whole_studies(found, faults))
    others = _sort_trials(found, studies, faults)
    damaged = bool(faults or found.damaged)
    if damaged and not studies:
        raise InputError(f"{place_of(url)}: nothing of this ledger can be read ({(faults or ['it is damaged'])[0]})")
    return Diagnosis(found.unit, (found.whole, found.damaged), tuple(studies.values()), tuple(faults), others)


def write(diagnosis: Diagnosis, file: Path) -> None:
    """Write what is whole into a new ledger, an SQLite file. The file appears when it is complete.

    Args:
        diagnosis: The state of a ledger.
        file: The new file.

    Raises:
        InputError: If the file exists.
        LedgerFailed: If it cannot be written.
    """
    if file.exists():
        raise InputError(f"--to {file}: this file exists, and is not overwritten; give a new name")
    with written_atomically(file) as temporary:
        storage = SQLStorage(f"sqlite:///{temporary}")

        def all_studies() -> None:
            for study in diagnosis.studies:
                _write_study(storage, study)

        try:
            storage.retried(all_studies)
        finally:
            storage.optuna.remove_session()
            storage.optuna.engine.dispose()


def _write_study(storage: SQLStorage, study: WholeStudy) -> None:
    optuna = storage.optuna
    number = optuna.create_new_study([StudyDirection.MAXIMIZE], study.name)
    user = {
        FACTS: None if study.facts is None else asdict(study.facts),
        OPTIONS: None if study.options is None else list(study.options),
        BLOCK: study.block,
    }
    for key, value in user.items():
        if value is not None:
            optuna.set_study_user_attr(number, key, value)
    listed = {} if study.utterances is None else packed(UTTERANCES, study.utterances.encoded())
    for key, value in {**study.system, **listed}.items():
        optuna.set_study_system_attr(number, key, value)
    with storage.transaction(number) as transaction:
        for trial in study.trials:
            transaction.add(trial)


def _whole_studies(found: Found, faults: list[str]) -> Iterator[tuple[int, WholeStudy]]:
    """Yield the studies by id. What one Optuna study has lost is taken from another of the same name and tag."""
    ours: dict[int, WholeStudy] = {}
    for number, study in sorted(found.studies.items()):
        recorded = any(trial.study == number for trial in found.trials.values())
        if not study.name:
            if recorded or study.user:
                faults.append(f"the name of the study with id {number} is lost")
        elif FACTS in study.user or recorded:  # an Optuna study without either was only just created
            try:
                check_study_name(study.name)
            except InputError as error:
                faults.append(f"{str(error)[:200]}; the study and its trials are left out")
            else:
                ours[number] = _whole_study(study, faults)
    siblings: dict[Shared, list[WholeStudy]] = defaultdict(list)
    for one in ours.values():
        siblings[taken_apart(one.name)[::2]].append(one)
    for group in siblings.values():
        if all(one.facts is None for one in group):
            faults.append(f"{group[0].name}: run its command once without --report-only, which writes its facts again")
        for one in group:
            for name in ("facts", "options", "utterances"):
                if getattr(one, name) is None:
                    setattr(one, name, next((x for y in group if (x := getattr(y, name)) is not None), None))
    yield from ours.items()


def _whole_study(study: FoundStudy, faults: list[str]) -> WholeStudy:
    whole = WholeStudy(study.name)

    def fault(attribute: str, error: object) -> None:
        faults.append(f"{study.name}: attribute {attribute!r}: {str(error)[:200]}")

    try:
        whole.facts = facts_of(study.user[FACTS])
    except KeyError:
        fault(FACTS, "it is lost")
    except InputError as error:
        fault(FACTS, error)
    try:
        whole.options = options_of(study.user[OPTIONS]) if OPTIONS in study.user else None
    except InputError as error:
        fault(OPTIONS, error)
    try:
        if BLOCK in study.user:
            block_of(taken_apart(study.name)[1], block := block_data_of(study.user[BLOCK]))
            whole.block = block
    except InputError as error:
        fault(BLOCK, error)
    kept = {key: value for key, value in study.system.items() if key.startswith(f"{UTTERANCES}:")}
    try:
        content = unpacked(UTTERANCES, {key: value or None for key, value in kept.items()})  # parts may be emptied
        whole.utterances = None if content is None else TestUtterances.decoded(content)
        if content is None and any(kept.values()):
            fault(UTTERANCES, "its beginning is lost")
        if whole.utterances and whole.facts and len(whole.utterances.train_sizes) != whole.facts.folds:
            fault(FACTS, f"folds is {whole.facts.folds}, but the list of test utterances has another number of folds")
            whole.facts = replace(whole.facts, folds=len(whole.utterances.train_sizes))
    except InputError as error:
        fault(UTTERANCES, error)
    copied = (_METRIC_NAMES, _NOTE)
    whole.system = {key: value for key, value in study.system.items() if key.startswith(copied)}
    return whole


def _sort_trials(found: Found, studies: Mapping[int, WholeStudy], faults: list[str]) -> int:
    """Put the whole trials into their studies, add the faults of the others, and return how many are not ours."""
    others, adopted, homeless = 0, 0, 0
    # Blocks share trials, which are known by their signatures, so a run finds a trial in any of them.
    groups = {taken_apart(study.name)[::2] for study in studies.values()}
    adopting = next(iter(studies), None) if len(groups) == 1 else None
    expected = _expected(found, studies)
    seen: set[tuple[int, str]] = set()
    lost_params = 0
    for number, trial in sorted(found.trials.items()):
        home = trial.study
        if home is None or home not in studies:
            if home is not None and found.studies[home].name:
                continue  # of another program
            if adopting is None or (adopting, trial.user.get("signature")) in seen:
                homeless += 1
                continue
            home = adopting
            adopted += 1
        study = studies[home]
        signature = trial.user.get("signature")
        if signature is None and not trial.faults and not found.lost_rows:
            others += 1
            continue
        if trial.state and trial.state not in _FINISHED:
            others += 1  # running or waiting: of another program
            continue
        outcome, fault = _examined(trial, study, expected[home] if found.lost_rows else {})
        if outcome and outcome.status == "done" and (home, str(signature)) in seen:
            fault = f"its signature {signature} is there twice"
        if fault or outcome is None:
            study.lost += 1
            faults.append(f"{study.name}: trial with id {number}: {fault}")
            continue
        if outcome.status == "done":
            seen.add((home, str(signature)))
            study.done += 1
        lost_params += found.lost_rows and not trial.params
        study.trials.append(_frozen(trial, outcome))
    if adopted and adopting is not None:
        faults.append(
            f"{adopted} trials have lost their block; those that are whole are now in {studies[adopting].name}"
        )
    if homeless:
        faults.append(f"{homeless} trials belong to no study whose name can be read")
    if lost_params:
        faults.append(f"{lost_params} trials have lost their parameters, which only the dashboard shows")
    return others


def _expected(found: Found, studies: Mapping[int, WholeStudy]) -> dict[int, dict[str, Any]]:
    """Return what each study's done trials should have, where rows are lost: what any of them has.

    Returns:
        By id of the study: the names of attributes, and, by number of epochs, the usual steps of a learning curve.
    """
    expected: dict[int, dict[str, Any]] = {}
    for number in studies:
        done = [trial for trial in found.trials.values() if trial.study == number and trial.state == "COMPLETE"]
        names = {name for trial in done for name in trial.user if name in {*METRICS, "test_confusion", "seconds"}}
        with_curve = sorted((trial for trial in done if trial.user.get("parameters") is not None), key=_epochs)
        steps = {
            epochs: Counter(tuple(sorted(map(str, trial.curve))) for trial in group).most_common(1)[0][0]
            for epochs, group in groupby(with_curve, key=_epochs)
        }
        predicted = any(key.startswith(PREDICTED) for trial in done for key in trial.system)
        expected[number] = {"names": names, "steps": steps, "predicted": predicted}
    return expected


def _epochs(trial: FoundTrial) -> str:
    return str(trial.user.get("epochs"))


def _examined(trial: FoundTrial, study: WholeStudy, expected: Mapping[str, Any]) -> tuple[Outcome | None, str]:
    """Return the outcome of a trial, and its fault, which is empty if the trial is whole.

    Args:
        trial: The trial.
        study: Its study.
        expected: What it should have, if rows of the ledger are lost.
    """
    if fault := next(_unreadable(trial), ""):
        return None, fault
    done = trial.state == TrialState.COMPLETE.name
    try:
        outcome = outcome_of(Row(trial.id, done, trial.user, trial.curve, trial.system))
        content = unpacked(PREDICTED, trial.system)
    except InputError as error:
        return None, str(error)[:200]
    if not done:
        return outcome, ""
    missing = _missing(trial, outcome, content, expected)
    return outcome, next(missing, "") or next(_contradictions(trial, outcome, study), "")


def _unreadable(trial: FoundTrial) -> Iterator[str]:
    """Yield the faults because of which a trial has no outcome."""
    yield from trial.faults
    if not re.fullmatch(r"[0-9a-f]{16}", str(trial.user.get("signature"))):
        yield "its signature is lost or damaged"
    if not trial.state:
        yield "its state is lost"
    status = {"COMPLETE": "done", "FAIL": "failed"}.get(trial.state)
    if trial.user.get("status", status) != status:
        yield f"its status is {str(trial.user['status'])[:40]!r}, but Optuna's state is {trial.state}"


def _missing(trial: FoundTrial, outcome: Outcome, content: bytes | None, expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a done trial lacks."""
    if not {"val_wa", "test_wa"} <= outcome.metrics.keys():
        yield "its metrics are lost"
    yield from (f"{name} is lost" for name in sorted(expected.get("names", set()) - trial.user.keys()))
    if content == b"" or (content is None and expected.get("predicted")):
        yield "its predictions are lost"
    if expected and outcome.parameters is not None:
        usual = expected["steps"].get(_epochs(trial), ())
        if tuple(sorted(map(str, trial.curve))) != usual:
            yield "a part of its learning curve is lost"


def _contradictions(trial: FoundTrial, outcome: Outcome, study: WholeStudy) -> Iterator[str]:
    """Yield how the parts of a done trial contradict each other."""
    if trial.value is not None and not abs(trial.value - outcome.metrics["val_wa"]) <= 1e-9:
        yield f"val_wa is {outcome.metrics['val_wa']:g}, but Optuna's objective is {trial.value:g}"
    if fault := mismatch(outcome, _labels(trial, study), len(study.facts.class_names) if study.facts else 0):
        yield fault


def _labels(trial: FoundTrial, study: WholeStudy) -> list[int] | None:
    """Return the labels of the test utterances of a trial's fold, or `None` if they are not known."""
    if study.utterances is None:
        return None
    one = len(study.utterances.train_sizes) == 1
    fold = 0 if one else trial.params.get("fold")
    if fold not in study.utterances.folds:
        return None
    pairs = zip(study.utterances.folds, study.utterances.labels, strict=True)
    return [label for of, label in pairs if of == fold]


def _frozen(trial: FoundTrial, outcome: Outcome) -> FrozenTrial:
    """Return a trial as Optuna takes it. Where its times are lost, it has ended now."""
    done = outcome.status == "done"
    frozen = create_trial(
        state=TrialState.COMPLETE if done else TrialState.FAIL,
        value=outcome.metrics["val_wa"] if done else None,
        user_attrs=trial.user,
        system_attrs={key: value for key, value in trial.system.items() if key.startswith(PREDICTED)},
        intermediate_values=dict(outcome.curve),
    )
    with suppress(ValueError, KeyError):  # parameters out of range: only the dashboard shows them
        frozen = create_trial(
            **{name: getattr(frozen, name) for name in ("state", "value", "user_attrs", "system_attrs")},
            intermediate_values=frozen.intermediate_values,
            params=trial.params,
            distributions=trial.distributions,
        )
    seconds = outcome.seconds if outcome.seconds < 10**9 else 0.0  # NaN if it is not known
    frozen.datetime_complete = trial.end or datetime.now()
    frozen.datetime_start = trial.start or frozen.datetime_complete - timedelta(seconds=seconds)
    return frozen
