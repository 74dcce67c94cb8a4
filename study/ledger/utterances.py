"""The test utterances of a study, as its ledger keeps them: what the predictions of its trials are of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any

from cemobam_core.errors import InputError

if TYPE_CHECKING:
    from cemobam_core.features import Fold


@dataclass(frozen=True, kw_only=True)
class TestUtterances:
    """Every test utterance of every fold: folds in their order, and within a fold its test split's order.

    An utterance that is tested in two folds stands twice.

    Attributes:
        ids: of the utterances.
        labels: indices of their classes.
        folds: in which they are tested.
        speakers: who speaks; None: not known of all.
        sessions: in which recording session; None: not known of all.
        seconds: how long the clips are; None: not known of all.
        train_sizes: how many utterances each fold trains on.

    Raises:
        InputError: lists that do not fit together.
    """

    __test__ = False  # pytest takes it for a test by its name

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    folds: tuple[int, ...]
    speakers: tuple[str, ...] | None
    sessions: tuple[str, ...] | None
    seconds: tuple[float, ...] | None
    train_sizes: tuple[int, ...]

    def __post_init__(self) -> None:  # noqa: D105
        for fault in self._faults():
            raise InputError(f"the list of test utterances has {fault}")

    @classmethod
    def of(cls, folds: Sequence[Fold]) -> TestUtterances:
        """Return the test utterances of a study's folds."""
        tests = [fold.test for fold in folds]

        def known(name: str) -> tuple[Any, ...] | None:
            lists = [getattr(test, name) for test in tests]
            return None if any(one is None for one in lists) else tuple(chain.from_iterable(lists))

        return cls(
            ids=tuple(chain.from_iterable(test.utterance_ids for test in tests)),
            labels=tuple(chain.from_iterable(test.labels.tolist() for test in tests)),
            folds=tuple(number for number, test in enumerate(tests) for _ in range(len(test))),
            speakers=known("speakers"),
            sessions=known("sessions"),
            seconds=known("seconds"),
            train_sizes=tuple(len(fold.train) for fold in folds),
        )

    def encoded(self) -> bytes:
        """Return all of it as JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decoded(cls, content: bytes) -> TestUtterances:
        """Return what :meth:`encoded` gave.

        Raises:
            InputError: content that is something else.
        """
        try:
            told: Any = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the list of test utterances is no JSON ({error})") from None
        names = {field.name for field in fields(cls)}
        if not isinstance(told, dict) or told.keys() != names:
            raise InputError(f"the list of test utterances must have {', '.join(sorted(names))}, and nothing else")
        if wrong := [name for name, values in told.items() if not isinstance(values, list | None)]:
            raise InputError(f"the list of test utterances has {wrong[0]} that are no list")
        held: dict[str, Any] = {name: None if values is None else tuple(values) for name, values in told.items()}
        return cls(**held)

    def _faults(self) -> Iterator[str]:
        """Yield what does not fit together, the first of which is told."""
        columns = (self.ids, self.labels, self.folds, self.speakers, self.sessions, self.seconds)
        if any(given is None for given in (*columns[:3], self.train_sizes)):
            yield "no ids, labels, folds or train_sizes"
        if len({len(column) for column in columns if column is not None}) > 1 or not self.ids:
            yield "lists of several lengths, or no utterance"
        if not _all(str, chain(self.ids, self.speakers or (), self.sessions or ())):
            yield "a name that is no text"
        if not _all(int, chain(self.labels, self.folds, self.train_sizes), lambda x: 0 <= x < 2**31):
            yield "a label, a fold or a size that is no whole number"
        if not _all(float, self.seconds or (), lambda x: math.isfinite(x) and x >= 0):
            yield "seconds that are no length"
        if list(self.folds) != sorted(self.folds) or set(self.folds) != set(range(len(self.train_sizes))):
            yield f"folds that are not 0 to {len(self.train_sizes) - 1} in order"
        if 0 in self.train_sizes:
            yield "a fold without an utterance to train on"
        if len(set(zip(self.folds, self.ids, strict=True))) < len(self.ids):
            yield "an utterance twice in a fold"


def _all(kind: type, values: Iterable[Any], sound: Callable[[Any], bool] = lambda _: True) -> bool:
    """Return whether all values are of a type, in JSON's sense, and sound."""
    return all(type(value) is kind and sound(value) for value in values)
