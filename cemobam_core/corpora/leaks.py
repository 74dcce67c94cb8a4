"""Leakage from train into val and test, and copies among the training utterances."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cemobam_core.corpora.sentences import sentence
from cemobam_core.corpora.splits import Assignment
from cemobam_core.features import FeatureSet, Fold

_MEASURED = ("test", "val")


@dataclass(frozen=True, kw_only=True)
class Leak:
    """The overlap of one split with train.

    Attributes:
        split: ``test`` or ``val``.
        what: ``speakers``, ``sentences`` or ``scripts``.
        shared: Number of the split's speakers or scripts (or of its utterances, by sentence) that are also in train.
        total: Number of the split's speakers, utterances or scripts.
        examples: Up to three of those that are also in train.
    """

    split: str
    what: str
    shared: int
    total: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """Return one line for the user: ``10 of 10 test speakers are also in train (Ses01F, Ses01M, Ses02F …)``."""
        line = f"{self.shared} of {self.total} {self.split} {self.what} are also in train"
        if not self.examples:
            return line
        if self.what == "sentences":
            return f"{line} (for example “{textwrap.shorten(self.examples[0], 60, placeholder='…')}”)"
        return f"{line} ({', '.join(self.examples)}{' …' if self.shared > len(self.examples) else ''})"


def leaks(*folds: Assignment | Fold) -> tuple[Leak, ...]:
    """Return the speakers, sentences and scripts that test and val share with train, summed over the folds.

    Speakers and scripts are counted once per fold. Sentences are counted by utterance. Two sentences are equal if they
    differ only in case, punctuation and white space.

    Args:
        *folds: Folds of features or of a raw corpus.

    Returns:
        Test before val; in each, speakers, sentences, then scripts. Anything that is not known for every utterance is
        left out.
    """
    counted = [leak for fold in folds for leak in _leaks_of(fold)]
    sums: dict[tuple[str, str], Leak] = {}
    for leak in counted:
        before = sums.get((leak.split, leak.what))
        sums[leak.split, leak.what] = Leak(
            split=leak.split,
            what=leak.what,
            shared=leak.shared + (before.shared if before else 0),
            total=leak.total + (before.total if before else 0),
            examples=before.examples if before and before.examples else leak.examples,
        )
    return tuple(sums.values())


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The number of training utterances with more copies than neighbours, for which ties decide the links.

    Attributes:
        what: ``text`` or ``audio``.
        utterances: Number of utterances that have more than ``k`` copies.
        total: Number of training utterances.
        k: The largest K.
    """

    what: str
    utterances: int
    total: int
    k: int

    def __str__(self) -> str:
        """Return one line for the user."""
        return (
            f"{self.utterances} of {self.total} train utterances have more than {self.k} others with the same "
            f"{self.what}: every K_{self.what} up to {self.k} only picks among copies (--ties index picks by their "
            "order in the file; the alternatives are random and all)"
        )


def copies(*folds: Assignment | Fold, k: int) -> tuple[Copies, ...]:
    """Count the training utterances with more copies than neighbours, summed over the folds.

    For a raw corpus, texts are compared, as ``leaks`` compares sentences. For features, the embeddings of both
    modalities are compared.

    Args:
        *folds: Folds of features or of a raw corpus.
        k: The largest K.

    Returns:
        Text before audio. A modality without so many copies is left out.
    """
    counted: dict[str, list[int]] = {}
    for fold in folds:
        for what, values in _contents(fold).items():
            often = Counter(values)
            counted.setdefault(what, []).append(sum(often[value] > k + 1 for value in values))
    total = sum(len(fold.train) for fold in folds)
    found = [Copies(what=what, utterances=sum(counts), total=total, k=k) for what, counts in counted.items()]
    return tuple(one for one in found if one.utterances)


def _contents(fold: Assignment | Fold) -> dict[str, list[Hashable]]:
    """Return the content of the training utterances, one value per utterance. Embeddings are given as bytes."""
    if isinstance(fold, Fold):
        pooled = fold.train.pooled()
        return {name: [row.tobytes() for row in getattr(pooled, name).numpy()] for name in ("text", "audio")}
    return {"text": [sentence(utterance.text) for utterance in fold.train]}


def _leaks_of(fold: Assignment | Fold) -> Iterator[Leak]:
    train = _known(fold, "train")
    for name in _MEASURED:
        for what, values in _known(fold, name).items():
            if what in train:
                yield _leak(name, what, values, set(train[what]) - {""})


def _known(fold: Assignment | Fold, name: str) -> Mapping[str, Sequence[str]]:
    """Return what is known of all utterances of a split: the distinct speakers, each sentence, the distinct scripts."""
    part = fold.splits[name]
    if isinstance(part, FeatureSet):
        speakers, texts, scripts = (tuple(values or ()) for values in (part.speakers, part.texts, part.scripts))
    else:
        speakers, texts, scripts = (
            tuple(value for u in part if (value := getattr(u, column))) for column in ("speaker", "text", "script")
        )
    found = {
        "speakers": sorted(set(speakers)) if len(speakers) == len(part) else [],
        "sentences": [sentence(text) for text in texts] if len(texts) == len(part) else [],
        "scripts": sorted(set(scripts)) if len(scripts) == len(part) else [],
    }
    return {what: values for what, values in found.items() if values}


def _leak(split: str, what: str, values: Sequence[str], train: set[str]) -> Leak:
    shared = [value for value in values if value in train]
    return Leak(
        split=split, what=what, shared=len(shared), total=len(values), examples=tuple(dict.fromkeys(shared))[:3]
    )
