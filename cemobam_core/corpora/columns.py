"""The utterances to split, as columns: one view of a raw corpus and of a feature file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cemobam_core.corpora.sentences import sentence
from cemobam_core.corpora.utterances import RawCorpus
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet

DEFAULT_PROTOCOL = "random:80/10/10"

Rows = npt.NDArray[np.int64]
"""Numbers of rows of the columns, or one number per row."""

_COLUMNS = {"speakers": "speaker", "sessions": "session", "scripts": "script", "texts": "text"}
"""The columns that a protocol may need, with their names in a manifest."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The utterances of a corpus, sorted by id, so that a split does not depend on their order in a file.

    Attributes:
        source: Name of the utterances in error messages, usually their file.
        raw: Whether they are a raw corpus. If not, they are one feature file.
        class_names: Names of the C classes.
        ids: Ids of the N utterances, distinct and sorted.
        labels: (N,), class indices.
        speakers: Speakers, None where unknown.
        sessions: Sessions, None where unknown.
        scripts: Scripts or scenarios, None where unknown.
        texts: Transcripts, None where unknown.
        splits: The corpus's own split of each utterance, one for each of the corpus's own folds.
        unusable: Ids of the corpus's utterances that cannot be used.
        places: (N,), the place of each row in the corpus or file.
    """

    source: str
    raw: bool
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Rows
    speakers: tuple[str | None, ...]
    sessions: tuple[str | None, ...]
    scripts: tuple[str | None, ...]
    texts: tuple[str | None, ...]
    splits: tuple[tuple[str, ...], ...]
    unusable: frozenset[str]
    places: Rows

    @classmethod
    def of_corpus(cls, corpus: RawCorpus) -> Columns:
        """Return the columns of a raw corpus."""
        places = sorted(range(len(corpus.utterances)), key=lambda i: corpus.utterances[i].id)
        rows = [corpus.utterances[i] for i in places]
        number = {name: c for c, name in enumerate(corpus.class_names)}
        return cls(
            source=str(corpus.root),
            raw=True,
            class_names=corpus.class_names,
            ids=tuple(u.id for u in rows),
            labels=np.array([number[u.label] for u in rows], dtype=np.int64),
            speakers=tuple(u.speaker for u in rows),
            sessions=tuple(u.session for u in rows),
            scripts=tuple(u.script for u in rows),
            texts=tuple(u.text or None for u in rows),
            splits=tuple(u.splits for u in rows),
            unusable=frozenset(bad.id for bad in corpus.bad),
            places=np.array(places, dtype=np.int64),
        )

    @classmethod
    def of_features(cls, features: FeatureSet) -> Columns:
        """Return the columns of a feature set."""
        places = sorted(range(len(features)), key=lambda i: features.utterance_ids[i])

        def sorted_by_id(values: Sequence[str] | None) -> tuple[str | None, ...]:
            return tuple(None if values is None else values[i] for i in places)

        return cls(
            source=features.source,
            raw=False,
            class_names=features.class_names,
            ids=tuple(features.utterance_ids[i] for i in places),
            labels=features.labels.numpy()[places],
            speakers=sorted_by_id(features.speakers),
            sessions=sorted_by_id(features.sessions),
            scripts=sorted_by_id(features.scripts),
            texts=sorted_by_id(features.texts),
            splits=tuple(() for _ in places),
            unusable=frozenset(),
            places=np.array(places, dtype=np.int64),
        )

    def __len__(self) -> int:
        """Return N, the number of utterances."""
        return len(self.ids)

    def known(self, column: str, protocol: str) -> tuple[str, ...]:
        """Return a column without unknown values.

        Args:
            column: ``speakers``, ``sessions``, ``scripts`` or ``texts``.
            protocol: Protocol that needs it, for the error message.

        Raises:
            InputError: A value is unknown. The message says how to add it.
        """
        values: tuple[str | None, ...] = getattr(self, column)
        name, needed = _COLUMNS[column], f"which --split-protocol {protocol} needs"
        known = tuple(value for value in values if value is not None)
        if not known:
            remedy = (
                f"list the corpus in a --manifest with a column {name}"
                if self.raw
                else f"add them to the file's metadata as {column}"
            )
            raise InputError(
                f"{self.source}: does not contain its {column}, {needed}; {remedy}, or use {DEFAULT_PROTOCOL}"
            )
        if len(known) < len(values):
            first = self.ids[values.index(None)]
            raise InputError(
                f"{self.source}: {len(values) - len(known)} of {len(values)} utterances have no {name} (first "
                f"{first!r}), {needed}; fill it in, or use {DEFAULT_PROTOCOL}"
            )
        return known

    def groups(self, column: str, protocol: str) -> tuple[tuple[str, ...], Rows]:
        """Return the distinct values of a column, sorted, and the number of each row's value among them.

        Transcripts are compared as sentences, without case, punctuation and white space. A transcript without words
        is a sentence of its own.

        Args:
            column: ``speakers``, ``sessions``, ``scripts`` or ``texts``.
            protocol: Protocol that needs it, for the error message.

        Raises:
            InputError: A value is unknown.
        """
        values = self.known(column, protocol)
        if column == "texts":
            values = tuple(sentence(text) or f"\0{key}" for text, key in zip(values, self.ids, strict=True))
        names = sorted(set(values))
        number = {name: i for i, name in enumerate(names)}
        return tuple(names), np.array([number[value] for value in values], dtype=np.int64)

    def fewest_of_a_class(self) -> int:
        """Return the size of the smallest class.

        Raises:
            InputError: It is too small for three splits.
        """
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        rarest = int(counts.argmin())
        if counts[rarest] < 3:
            raise InputError(
                f"{self.source}: {int(counts[rarest])} utterances of class {self.class_names[rarest]!r}; give at least "
                "three, so that every split has one"
            )
        return int(counts[rarest])
