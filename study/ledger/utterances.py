"""The test utterances of a study, which its ledger keeps so that the predictions of trials can be read."""

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
    """All test utterances of all folds, fold by fold, in the order of each fold's test split.

    An utterance that is tested in two folds is listed twice.

    Attributes:
        ids: Identifiers of the utterances.
        labels: Class indices of the utterances.
        folds: Folds in which the utterances are tested.
        speakers: Speakers of the utterances. `None` if not all are known.
        sessions: Recording sessions of the utterances. `None` if not all are known.
        seconds: Lengths of the clips in seconds. `None` if not all are known.
        train_sizes: Number of training utterances of each fold.

    Raises:
        InputError: If the lists do not fit together.
    """

    __test__ = False  # pytest would collect it as a test because of its name

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
        """Return the list as JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decoded(cls, content: bytes) -> TestUtterances:
        """Return the test utterances from the output of :meth:`encoded`.

        Raises:
            InputError: If the content is something else.
        """
        try:
            parsed: Any = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the list of test utterances is not JSON ({error})") from None
        names = {field.name for field in fields(cls)}
        if not isinstance(parsed, dict) or parsed.keys() != names:
            raise InputError(f"the list of test utterances must have {', '.join(sorted(names))}, and nothing else")
        if wrong := [name for name, values in parsed.items() if not isinstance(values, list | None)]:
            raise InputError(f"{wrong[0]} in the list of test utterances is not a list")
        columns: dict[str, Any] = {name: None if values is None else tuple(values) for name, values in parsed.items()}
        return cls(**columns)

    def _faults(self) -> Iterator[str]:
        """Yield the faults of the lists. The error names the first one."""
        columns = (self.ids, self.labels, self.folds, self.speakers, self.sessions, self.seconds)
        if any(given is None for given in (*columns[:3], self.train_sizes)):
            yield "no ids, labels, folds or train_sizes"
        if len({len(column) for column in columns if column is not None}) > 1 or not self.ids:
            yield "lists of different lengths, or no utterance"
        if not _all(str, chain(self.ids, self.speakers or (), self.sessions or ())):
            yield "a name that is not text"
        if not _all(int, chain(self.labels, self.folds, self.train_sizes), lambda x: 0 <= x < 2**31):
            yield "a label, a fold or a size that is not a whole number of at least 0"
        if not _all(float, self.seconds or (), lambda x: math.isfinite(x) and x >= 0):
            yield "seconds that are not a finite number of at least 0"
        if list(self.folds) != sorted(self.folds) or set(self.folds) != set(range(len(self.train_sizes))):
            yield f"folds that are not numbered from 0 to {len(self.train_sizes) - 1} in order"
        if 0 in self.train_sizes:
            yield "a fold without an utterance to train on"
        if len(set(zip(self.folds, self.ids, strict=True))) < len(self.ids):
            yield "an utterance twice in a fold"


def _all(kind: type, values: Iterable[Any], is_valid: Callable[[Any], bool] = lambda _: True) -> bool:
    """Return whether all values have the type ``kind``, in JSON's sense, and are valid."""
    return all(type(value) is kind and is_valid(value) for value in values)
