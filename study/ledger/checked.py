"""What a ledger holds, checked while it is read: anybody may have written to it, and a disk may have damaged it."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cemobam_core.errors import InputError
from study.ledger.outcomes import METRICS, Outcome, StudyFacts
from study.ledger.packing import unpacked
from study.ledger.storages import Row

_log = logging.getLogger(__name__)

PREDICTED = "cemobam:predicted"
"""Prefix of the system attributes that hold the predictions of a trial, one byte per utterance."""

MOST_FOLDS = 1000
"""Largest number of folds. Leaving out one speaker at a time has fewer, in every corpus of emotional speech."""

MOST_CLASSES = 1000
_MOST_STEPS = 1_000_000
_MOST_PARAMETERS = 10**13
_LONGEST_NAME = 500
_LONGEST_TEXT = 100_000

_STUDY_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._-]{0,100}( \S.*)?"
"""Pattern of the name of an Optuna study: ``<name>/<block> <tag>``. The name is also that of a folder."""

_SIGNATURE = r"[A-Za-z0-9_-]{1,64}"

Check = Callable[[str, Any], None]


def _wrong(name: str, value: Any, wanted: str) -> InputError:
    text = repr(value)
    return InputError(f"{name} is {text if len(text) <= 60 else text[:60] + '…'}, but must be {wanted}")


def _text(name: str, value: Any, longest: int = _LONGEST_NAME) -> None:
    if type(value) is not str or len(value) > longest:
        raise _wrong(name, value, f"text of at most {longest} characters")


def _long_text(name: str, value: Any) -> None:
    _text(name, value, _LONGEST_TEXT)


def _whole(least: int, most: int) -> Check:
    def check(name: str, value: Any) -> None:
        if type(value) is not int or not least <= value <= most:
            raise _wrong(name, value, f"a whole number from {least} to {most}")

    return check


def _number(least: float = -math.inf, most: float = math.inf) -> Check:
    limits = "a finite number" if most == math.inf else f"a number from {least:g} to {most:g}"
    limits += " of at least 0" if (least, most) == (0, math.inf) else ""

    def check(name: str, value: Any) -> None:
        # An int of any length is a number in JSON, but may be too large for a float.
        if type(value) not in (int, float) or not least <= value <= most or abs(value) > 1e300:
            raise _wrong(name, value, limits)

    return check


def _list(of: Check, most: int) -> Check:
    def check(name: str, value: Any) -> None:
        if type(value) not in (list, tuple) or len(value) > most:
            raise _wrong(name, value, f"a list of at most {most} values")
        for one in value:
            of(f"a value of {name}", one)

    return check


def _dict(of: Check, most: int = 10_000) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, Mapping) or len(value) > most:
            raise _wrong(name, value, f"an object of at most {most} values")
        for key, one in value.items():
            _text(f"a name in {name}", key)
            of(f"{name}[{key!r}]"[:_LONGEST_NAME], one)

    return check


def _scalar(name: str, value: Any) -> None:
    if type(value) in (int, float):
        _number()(name, value)
    elif not (value is None or type(value) in (bool, str)) or len(str(value)) > _LONGEST_TEXT:
        raise _wrong(name, value, "text, a finite number, true, false or null")


def _setting(name: str, value: Any) -> None:
    if type(value) is list:
        _list(_scalar, 10_000)(name, value)
    else:
        _scalar(name, value)


def _factor(name: str, value: Any) -> None:
    if type(value) is not list or len(value) != 2:
        raise _wrong(name, value, "a pair")
    _setting(name, value[0])
    _setting(name, value[1])


def _fields(name: str, value: Any, checks: Mapping[str, Check]) -> None:
    """Check the fields of an object that are known. A newer version may have written others."""
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "an object")
    for field, check in checks.items():
        if field in value:
            check(field, value[field])


_FACTS: dict[str, Check] = {
    "dataset": _text,
    "title": _text,
    "fingerprint": _text,
    "folds": _whole(1, MOST_FOLDS),
    "settings": _dict(_setting),
    "class_names": _list(_text, MOST_CLASSES),
    "made_with": _dict(_text),
    "recipe": _text,
    "recall": _dict(_number(0, 1)),
}

_BLOCK: dict[str, Check] = {
    "question": _long_text,
    "factors": _list(_factor, 100),
    "configurations": _dict(_dict(_setting)),
    "reference": _scalar,
    "title": _long_text,
    "labels": _list(_factor, 10_000),
    "tunes": _text,
    "search": _dict(_dict(_setting)),
}

_TRIAL: dict[str, Check] = {
    "seconds": _number(0),
    "device": _text,
    "reason": _long_text,
    "log": _long_text,
    "test_confusion": _list(_list(_whole(0, 10**9), MOST_CLASSES), MOST_CLASSES),
    **{name: _number() if name.endswith("_loss") else _number(0, 1) for name in METRICS},
}


def check_study_name(name: str) -> None:
    """Check the name of an Optuna study that has facts.

    Raises:
        InputError: If no study of this tool has such a name.
    """
    if not re.fullmatch(_STUDY_NAME, name, re.DOTALL) or not name.isprintable():
        raise _wrong("the name of a study", name, "like demo/grid, of letters, digits and ._-")


def facts_of(kept: Any) -> StudyFacts:
    """Return the facts that a ledger keeps about a study.

    Raises:
        InputError: If a fact has another type, or is out of range.
    """
    _fields("it", kept, _FACTS)
    facts = StudyFacts.of(kept)
    if len(set(facts.class_names)) < len(facts.class_names):
        raise _wrong("class_names", kept["class_names"], "a list without repeated names")
    return facts


def options_of(kept: Any) -> tuple[str, ...]:
    """Return the options of a study's last run.

    Raises:
        InputError: If they are not a list of words.
    """
    _list(_long_text, 10_000)("it", kept)
    return tuple(kept)


def block_data_of(kept: Any) -> dict[str, Any]:
    """Return the description of a block as JSON data that :func:`study.ledger.ledger.block_of` takes.

    Raises:
        InputError: If a field has another type, or is out of range.
    """
    _fields("it", kept, _BLOCK)
    return dict(kept)


def signature_of(row: Row) -> str | None:
    """Return the signature of a trial, or `None` if it has none because somebody else added it.

    Raises:
        InputError: If it is not a signature.
    """
    signature = row.attributes.get("signature")
    if signature is None:
        return None
    if type(signature) is not str or not re.fullmatch(_SIGNATURE, signature):
        raise _wrong("signature", signature, "16 letters and digits")
    return signature


def outcome_of(row: Row) -> Outcome:
    """Return the outcome of a trial.

    Raises:
        InputError: If a value has another type, or is out of range.
    """
    attributes = row.attributes
    _fields("it", attributes, _TRIAL)
    if (parameters := attributes.get("parameters")) is not None:
        _whole(0, _MOST_PARAMETERS)("parameters", parameters)
    confusion = tuple(map(tuple, attributes.get("test_confusion", ())))
    if any(len(counts) != len(confusion) for counts in confusion):
        raise _wrong("test_confusion", attributes["test_confusion"], "as many rows as columns")
    _check_curve(row.curve)
    return Outcome(
        status="done" if row.done else "failed",
        seconds=attributes.get("seconds", math.nan),
        device=attributes.get("device", ""),
        parameters=parameters,
        metrics={name: attributes[name] for name in METRICS if name in attributes} if row.done else {},
        curve=row.curve,
        reason=attributes.get("reason", ""),
        confusion=confusion,
        predicted=_predicted(row) if row.done else b"",
        log=attributes.get("log", ""),
    )


def _check_curve(curve: Mapping[int, float]) -> None:
    if len(curve) > _MOST_STEPS:
        raise InputError(f"its learning curve has {len(curve)} steps, but must have at most {_MOST_STEPS}")
    step, value = _whole(0, 2**31), _number(0, 1)
    for epoch, score in curve.items():
        step("a step of its learning curve", epoch)
        value(f"step {epoch} of its learning curve", score)


def _predicted(row: Row) -> bytes:
    """Return the predictions of a trial. Empty if they were not kept or are damaged."""
    try:
        return unpacked(PREDICTED, row.unseen) or b""
    except InputError as error:
        _log.warning("trial %s is read without its predictions: %s", row.attributes.get("signature"), error)
        return b""


def outcomes_of(rows: Iterable[Row], named: Callable[[Row, InputError], InputError]) -> dict[str, Outcome]:
    """Return the outcomes by signature. If there are several for one signature, the done one wins.

    Args:
        rows: Trials of one study.
        named: Function that adds the study and the trial to an error.

    Raises:
        InputError: If a trial holds something that no run writes.
    """
    outcomes: dict[str, Outcome] = {}
    for row in rows:
        try:
            signature = signature_of(row)
            if signature and (signature not in outcomes or outcomes[signature].status != "done"):
                outcomes[signature] = outcome_of(row)
        except InputError as error:
            raise named(row, error) from None
    return outcomes


def mismatch(outcome: Outcome, labels: Sequence[int] | None, classes: int) -> str:
    """Return how the parts of a done trial contradict each other, or an empty string if they do not.

    Args:
        outcome: Outcome of the trial.
        labels: Labels of the test utterances of its fold. `None` if they are not known.
        classes: Number of classes. 0 if it is not known.
    """
    tested = [sum(row) for row in outcome.confusion]
    if sum(tested):
        accuracy = sum(row[i] for i, row in enumerate(outcome.confusion)) / sum(tested)
        if abs(outcome.metrics.get("test_wa", accuracy) - accuracy) > 1e-4:
            return f"test_wa is {outcome.metrics['test_wa']:g}, but the confusion matrix gives {accuracy:g}"
    if outcome.predicted:
        if labels is not None and len(outcome.predicted) != len(labels):
            return f"it has {len(outcome.predicted)} predictions for {len(labels)} test utterances"
        if classes and max(outcome.predicted) >= classes:
            return f"it predicts the class {max(outcome.predicted)} of {classes}"
        if labels is not None and outcome.confusion and not _agree(outcome, labels):
            return "its predictions do not give its confusion matrix"
    return ""


def _agree(outcome: Outcome, labels: Sequence[int]) -> bool:
    counts = [[0] * len(outcome.confusion) for _ in outcome.confusion]
    for label, predicted in zip(labels, outcome.predicted, strict=True):
        if max(label, predicted) >= len(counts):
            return False
        counts[label][predicted] += 1
    return tuple(map(tuple, counts)) == outcome.confusion
