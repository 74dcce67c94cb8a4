"""The classes that a corpus is reduced to: which of its labels form a class together, and which are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cemobam_core.corpora.corpus import ClassSet, Corpus
from cemobam_core.corpora.reading import read_raw, read_walled
from cemobam_core.corpora.table import MOST_LABELS, Layout, Place, read_table
from cemobam_core.corpora.utterances import BadUtterance, RawCorpus, Utterance, counted, examples, listed
from cemobam_core.errors import InputError

_LAYOUT = Layout(required=("label", "class"))
_SHOWN = 20
"""The most labels that a message lists."""


def read_corpus(corpus: Corpus, root: Path, classes: str | None = None) -> RawCorpus:
    """Read a corpus from its unpacked folder, and reduce it to classes.

    Args:
        corpus: The corpus. It must have a reader.
        root: Folder of the corpus.
        classes: Value of ``--classes``. ``None`` for the corpus's default.

    Raises:
        InputError: The corpus cannot be read, or the classes do not fit it.
    """
    assert corpus.reader
    raw = read_raw(corpus.reader, root)
    sets = corpus.choices
    return reduced(raw, next(iter(sets.values())) if classes is None else chosen_classes(raw, classes, sets))


def chosen_classes(raw: RawCorpus, value: str, sets: Mapping[str, ClassSet]) -> ClassSet:
    """Return the classes that ``--classes`` names.

    Args:
        raw: The corpus with its own labels.
        value: The name of a set, a list of labels such as ``anger,sadness``, or a CSV file with the columns ``label``
            and ``class``. An empty class leaves the label out.
        sets: Sets of classes of the corpus by name.

    Raises:
        InputError: There is no such set, label or file, the file does not fit the corpus, there are fewer than two
            classes, or a class has no utterance.
    """
    if value in sets:
        return sets[value]
    if value.lower().endswith(".csv"):
        return _of_file(raw, Path(value))
    if "," in value:
        return _of_list(raw, value)
    named = f"one of the sets of {raw.title} ({', '.join(sets)}), " if sets else ""
    two = ",".join(list(raw.class_names)[:2])
    raise InputError(
        f"--classes {value}: no such classes; give {named}labels such as {two}, or a .csv file with the columns label "
        f"and class; {_there(raw)}"
    )


def reduced(raw: RawCorpus, classes: ClassSet) -> RawCorpus:
    """Return the utterances whose label belongs to a class, in their order and under the name of the class.

    Bad utterances whose label is left out are left out, too. Notes on completeness are about the classes.

    Args:
        raw: The corpus with its own labels.
        classes: The classes.

    Raises:
        InputError: No utterance belongs to a class.
    """
    class_of = {label: name for name, labels in classes.items() for label in labels}
    utterances = tuple(replace(u, label=class_of[u.label]) for u in raw.utterances if u.label in class_of)
    if not utterances:
        raise InputError(f"{raw.root}: no utterance belongs to the classes {', '.join(classes)}; {_there(raw)}")
    return replace(
        raw,
        class_names=tuple(classes),
        utterances=utterances,
        bad=tuple(_reduced_bad(raw.bad, class_of)),
        notes=(*_completeness(raw.release, utterances, classes), *raw.notes),
        reduction=_reduction(raw, classes),
    )


def _reduced_bad(bad: Iterable[BadUtterance], class_of: Mapping[str, str]) -> Iterator[BadUtterance]:
    for one in bad:
        if one.label is None:
            yield one
        elif one.label in class_of:
            yield replace(one, label=class_of[one.label])


def _completeness(
    release: Mapping[str, Mapping[str, int]], utterances: Sequence[Utterance], classes: ClassSet
) -> Iterator[str]:
    """Report whether all utterances of the classes are there, and which sessions lack some."""
    if not release:
        return
    expected = {
        session: {name: sum(counts[label] for label in labels) for name, labels in classes.items()}
        for session, counts in release.items()
    }
    everything = {name: sum(counts[name] for counts in expected.values()) for name in classes}
    have = counted(utterances, list(classes))
    what = f"{len(utterances)} of {sum(everything.values())} utterances"
    if have == everything:
        yield f"{what}: {listed(have)}; complete"
    else:
        yield f"{what}: {_of_all(have, everything)}"
    for session, numbers in expected.items():
        here = counted((u for u in utterances if u.session == session), list(classes))
        if not any(here.values()) and any(numbers.values()):
            yield f"session {session}: its {sum(numbers.values())} utterances are missing"
        elif wrong := {name: number for name, number in here.items() if number != numbers[name]}:
            yield f"session {session}: {_of_all(wrong, numbers)}"


def _of_all(have: Mapping[str, int], everything: Mapping[str, int]) -> str:
    return ", ".join(f"{number} of {everything[name]} {name}" for name, number in have.items())


def _reduction(raw: RawCorpus, classes: ClassSet) -> str:
    """Return a line about the classes that have other labels than their name, and the labels that are left out."""
    usable = Counter(u.label for u in raw.utterances)
    formed = [
        f"{name} = {' + '.join(f'{usable[label]} {label}' for label in labels)}"
        for name, labels in classes.items()
        if labels != (name,)
    ]
    kept = {label for labels in classes.values() for label in labels}
    out = {label: number for label, number in _labels(raw).most_common() if label not in kept}
    parts = [*([", ".join(formed)] if formed else []), *([f"left out: {listed(out)}"] if out else [])]
    return f"classes: {'; '.join(parts)}" if parts else ""


def _labels(raw: RawCorpus) -> Counter[str]:
    """Count the utterances of each label that occurs, with those that cannot be used."""
    counts = Counter([u.label for u in raw.utterances] + [b.label for b in raw.bad if b.label])
    return Counter({label: counts[label] for label in raw.class_names if counts[label]})  # ties in this order


def _there(raw: RawCorpus) -> str:
    """Return a list of the labels for the end of a message."""
    counts = _labels(raw)
    return f"the labels are {examples((f'{counts[label]} {label}' for label in raw.class_names), _SHOWN)}"


# -- a list of labels ------------------------------------------------------------------------------------------------


def _of_list(raw: RawCorpus, value: str) -> ClassSet:
    known = {label.casefold(): label for label in raw.class_names}
    usable = Counter(u.label for u in raw.utterances)
    classes: dict[str, tuple[str, ...]] = {}
    for word in value.split(","):
        label = known.get(word.strip().casefold())
        if label is None:
            raise InputError(f"--classes {value}: {word.strip()!r} is not a label of {raw.title}; {_there(raw)}")
        if label in classes:
            raise InputError(f"--classes {value}: {label} occurs twice; give each label once")
        if not usable[label]:
            raise InputError(f"--classes {value}: no utterance of {label} can be used; leave it out; {_there(raw)}")
        classes[label] = (label,)
    if len(classes) < 2:
        raise InputError(f"--classes {value}: one class; give at least two labels; {_there(raw)}")
    return classes


# -- a file ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row(Place):
    """One line of a file of classes."""

    label: str
    name: str


def _of_file(raw: RawCorpus, path: Path) -> ClassSet:
    known = {label.casefold(): label for label in raw.class_names}
    first: dict[str, _Row] = {}
    classes: dict[str, tuple[str, ...]] = {}
    for row in read_walled(_Row, _rows, path):
        label = known.get(row.label.casefold())
        if label is None:
            raise row.error(
                f"{row.label!r} is not a label of {raw.title}; correct it or delete the line; {_there(raw)}"
            )
        if label in first:
            raise row.error(f"label {label!r} already occurs in line {first[label].line}; keep one of the lines")
        first[label] = row
        if row.name:
            if like := [name for name in classes if name.casefold() == row.name.casefold() and name != row.name]:
                raise row.error(f"class {row.name!r} and {like[0]!r} differ only in case; use one of them")
            classes[row.name] = (*classes.get(row.name, ()), label)
    if missing := [label for label in _labels(raw) if label not in first]:
        raise InputError(
            f"{path}: does not mention {examples(map(repr, missing))}; add a line with the label and its class, or "
            f"with the label and an empty class to leave it out; {_there(raw)}"
        )
    if len(classes) < 2:
        there = f"the only class is {next(iter(classes))!r}" if classes else "no class"
        raise InputError(f"{path}: {there}; give at least two classes; {_there(raw)}")
    usable = Counter(u.label for u in raw.utterances)
    for name, labels in classes.items():
        if not any(usable[label] for label in labels):
            raise first[labels[0]].error(
                f"no utterance of class {name!r} can be used; leave the class empty; {_there(raw)}"
            )
    return classes


def _rows(path: Path) -> tuple[_Row, ...]:
    rows = []
    for row in read_table(path, _LAYOUT):
        label, name = row.label("label"), row.label("class")
        if not label:
            raise row.error(f"no label for class {name!r}; fill it in or delete the line")
        rows.append(_Row(file=path, line=row.line, label=label, name=name))
        if len(rows) > MOST_LABELS:
            raise row.error(f"more than {MOST_LABELS} labels; give each label of the corpus once")
    return tuple(rows)
