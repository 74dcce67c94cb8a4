"""EmoBox (Ma et al., 2024): a reader of its metadata, which describe 32 corpora in one form.

``data/<corpus>/<corpus>.jsonl`` lists the clips (key, wav, emo), ``label_map.json`` gives the labels their names and
merges some, and ``fold_<k>/<corpus>_{train,valid,test}_fold_<k>.jsonl`` give the official folds. The audio is below a
folder ``downloads`` beside ``data``. EmoBox has no transcripts.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cemobam_core.corpora.table import Layout, Place, Row, check_labels, read_json_lines
from cemobam_core.corpora.text_files import read_utf8
from cemobam_core.corpora.utterances import (
    BadUtterance,
    Found,
    Part,
    RawCorpus,
    Utterance,
    counted,
    examples,
    gathered,
    listed,
    split_named,
    visible,
)
from cemobam_core.errors import InputError

_TREE = "EmoBox/data/<corpus>/<corpus>.jsonl, with the audio below EmoBox/downloads/"
_FOLD = re.compile(r"fold_(\d{1,3})")
_MAPS = ("label_map.json", "label_dict.json")
"""Names of the file that names and merges the labels. Only EMOVO has the second."""
_LARGEST_MAP = 100_000
"""Size in bytes of the largest such file."""
_LAYOUT = Layout(required=("key", "wav", "emo"), optional=("start_time", "end_time"))
_LONGEST_SOUND = 10**7
"""Seconds in a sound file."""
_LONGEST_NAME = 100
_START = 100_000
"""Number of bytes at the start of a list that tell whether it is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row(Place):
    """One line of a list."""

    key: str
    wav: str
    emo: str
    part: tuple[float, float] | None


def is_emobox(path: Path) -> bool:
    """Return whether a file or folder holds EmoBox's metadata of a corpus.

    Args:
        path: A JSONL file whose first line has ``key``, ``wav`` and ``emo``, or the folder of such a list or of its
            folds.
    """
    if path.is_dir():
        folder = _folder(path)
        return _is_list(_main(folder)) or any(_folds(folder).values())
    return _is_list(path)


def read_emobox(path: Path, *, name: str) -> RawCorpus:
    """Read the metadata of one corpus. Its folds become the utterances' own splits, and texts are empty.

    Args:
        path: Folder of the corpus, such as ``EmoBox/data/cafe``, or its list, such as ``cafe.jsonl`` in that folder.
        name: Name of the corpus, as in ``--dataset``.

    Raises:
        InputError: A list cannot be read, a key occurs twice, there are fewer than two labels, or no audio file exists.
    """
    folder = _folder(path)
    if _FOLD.fullmatch(folder.name):
        raise InputError(f"{path}: lists one split of one fold; give the folder of the corpus, {folder.parent}")
    folds = _folds(folder)
    notes: list[str] = []
    splits = _splits(folder, folds, notes)
    main = path if path.is_file() else _main(folder)
    rows = list(_rows(main)) if main.is_file() else _of_folds(main, folds, notes)
    if not rows:
        raise InputError(f"{main}: no utterances; get the file again")
    _check_keys(rows)
    keys = {row.key for row in rows}
    for k, of in splits.items():
        if unlisted := sorted(of.keys() - keys):
            notes.append(f"fold_{k}: {len(unlisted)} keys are not in {main.name}: {examples(unlisted)}")
    label_of = _labels(folder, rows, notes)
    if len(set(label_of.values())) < 2:
        raise InputError(f"{path}: every label is {rows[0].emo!r}; give a list of at least two classes")
    places = _audio(rows, [folder.parent.parent, folder.parent, folder])
    found: list[Found] = []
    for row in rows:
        place = places[row.wav]
        if place is None:
            reason = f"no audio file {row.wav} in {folder.parent.parent} ({row.file.name} line {row.line})"
            found.append(BadUtterance(id=row.key, reason=reason))
            continue
        own = tuple(of.get(row.key, "") for of in splits.values())
        start, end = row.part or (None, None)
        found.append(
            Utterance(
                id=row.key,
                audio=Part(file=place, start=row.part[0], end=row.part[1]) if row.part else place,
                text="",
                label=label_of[row.emo],
                splits=own,
                start=start,
                end=end,
            )
        )
    usable = [one for one in found if isinstance(one, Utterance)]
    names = sorted(set(label_of.values()))
    counts = listed(counted(usable, names))
    return gathered(
        found,
        (f"{len(usable)} of {len(rows)} utterances: {counts}; without transcripts", *notes),
        name=name,
        title=name,
        root=path,
        class_names=names,
        tree=_TREE,
    )


# -- lists -----------------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Path:
    """Return the folder of the metadata with its true name and parents, also for ``.``."""
    return Path(os.path.abspath(path if path.is_dir() else path.parent))  # noqa: PTH100  (resolve would follow links)


def _main(folder: Path) -> Path:
    return folder / f"{folder.name}.jsonl"


def _is_list(path: Path) -> bool:
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(_START).decode("utf-8-sig", errors="replace")
        first = json.loads(next((line for line in start.split("\n") if line.strip()), "null"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"key", "wav", "emo"} <= first.keys()


def _rows(path: Path) -> Iterator[_Row]:
    for row in read_json_lines(path, _LAYOUT):
        key, wav, emo = row.word("key"), row.word("wav"), row.label("emo")
        if not (key and wav and emo):
            raise row.error("has no key, wav and emo; get the file again")
        yield _Row(file=path, line=row.line, key=key, wav=wav, emo=emo, part=_part(row))


def _part(row: Row) -> tuple[float, float] | None:
    times = (row.values.get("start_time"), row.values.get("end_time"))
    if times == (None, None):
        return None
    start, end = (float(t) if isinstance(t, int | float) and abs(t) < _LONGEST_SOUND else -1.0 for t in times)
    if not 0 <= start < end:
        raise row.error(f"start_time and end_time are {times[0]!r:.60} and {times[1]!r:.60}, not a part of a file")
    return start, end


def _of_folds(main: Path, folds: Mapping[int, Mapping[str, Path]], notes: list[str]) -> list[_Row]:
    """Return the rows of all folds, each once, in place of a missing list."""
    notes.append(f"{main.name}: not found; the utterances are those of the folds")
    files = [file for of in folds.values() for file in of.values()]
    return list({row.key: row for file in files for row in _rows(file)}.values())


def _check_keys(rows: Sequence[_Row]) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        if (other := first.setdefault(row.key, row)) is not row:
            raise InputError(f"{row.file} line {row.line}: key {row.key!r} already occurs in line {other.line}")


# -- folds -----------------------------------------------------------------------------------------------------------


def _folds(folder: Path) -> dict[int, dict[str, Path]]:
    """Return the lists of each fold by split. Twins of other names are passed over, such as emodb_test_fold1.jsonl."""
    found: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    for fold in visible(folder):
        number = _FOLD.fullmatch(fold.name)
        for file in visible(fold) if number else []:
            match = re.fullmatch(rf".+_([a-z]+)_{fold.name}\.jsonl", file.name)
            if match and number and (split := split_named(match[1])) and _is_list(file):
                found[int(number[1])][split] = file
    return {k: found[k] for k in sorted(found)}


def _splits(folder: Path, folds: Mapping[int, Mapping[str, Path]], notes: list[str]) -> dict[int, dict[str, str]]:
    """Return the split of each key in each fold that has train and test."""
    splits: dict[int, dict[str, str]] = {}
    for k, files in folds.items():
        if missing := [name for name in ("train", "test") if name not in files]:
            notes.append(f"fold_{k}: left out, because it has no list {folder.name}_{missing[0]}_fold_{k}.jsonl")
            continue
        splits[k] = {}
        for split, file in files.items():
            for row in _rows(file):
                if splits[k].setdefault(row.key, split) != split:
                    raise InputError(f"{file} line {row.line}: key {row.key!r} is also in {splits[k][row.key]}")
    if splits:
        validated = any("val" in of.values() for of in splits.values())
        what = f"{len(splits)} official fold" + "s" * (len(splits) > 1)
        notes.append(what + ("" if validated else ", without a validation split"))
    return splits


# -- labels ----------------------------------------------------------------------------------------------------------


def _labels(folder: Path, rows: Sequence[_Row], notes: list[str]) -> dict[str, str]:
    """Return the class of each label, in lower-case words."""
    file = next((folder / name for name in _MAPS if (folder / name).is_file()), None)
    names: dict[str, str] = {}
    if file:
        names = _names(file)
    else:
        notes.append(f"no {_MAPS[0]}: labels keep their names")
    folded = {label.casefold(): name for label, name in names.items()}
    labels = Counter(row.emo for row in rows)
    check_labels(rows[0].file, list(labels))
    unnamed = [label for label in labels if label.casefold() not in folded]
    if file and unnamed:
        notes.append(f"{file.name}: does not name {examples(sorted(unnamed))}, which keep their names")
    chosen = {label: names.get(label) or folded.get(label.casefold()) or label for label in labels}
    # A comma would end a name in a list of classes.
    classes = {label: " or ".join(name.lower().split(", ")).strip() for label, name in chosen.items()}
    merged: defaultdict[str, list[str]] = defaultdict(list)
    for label, name in classes.items():
        merged[name].append(label)
    if several := {name: of for name, of in merged.items() if len(of) > 1}:
        notes.append("merged labels: " + ", ".join(f"{name} is {' and '.join(of)}" for name, of in several.items()))
    return classes


def _names(file: Path) -> dict[str, str]:
    """Return the names of labels in a map, which may be numbers."""
    try:
        read = json.loads(read_utf8(file, _LARGEST_MAP))
        names = {label: str(name) for label, name in read.items() if isinstance(name, str | int)}
    except (json.JSONDecodeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        names = {}
    if not names or not all(len(name) <= _LONGEST_NAME and name.isprintable() for name in names.values()):
        raise InputError(f"{file}: is damaged; it must map labels to names, as {{...}}; get the file again")
    return names


# -- audio -----------------------------------------------------------------------------------------------------------


def _audio(rows: Sequence[_Row], roots: Sequence[Path]) -> dict[str, Path | None]:
    """Return the audio files by their names in the list, below the first folder that has any of them."""
    wavs = dict.fromkeys(row.wav for row in rows)
    for root in roots:
        found = {wav: _file(root, wav) for wav in wavs}
        if any(found.values()):
            return found
    return dict.fromkeys(wavs)


def _file(root: Path, wav: str) -> Path | None:
    for spelling in _SPELLINGS[:1] if wav.isascii() else _SPELLINGS:
        try:
            if os.path.isfile(path := os.path.join(root, spelling(wav))):  # noqa: PTH113, PTH118  (ten times as fast)
                return Path(path)
        except (OSError, ValueError):  # a name too long for a file, or characters that the spelling does not have
            continue
    return None


def _from_dos(name: str) -> str:
    """Return a name that an old zip archive has in code page 437, and the list in Windows-1252 (CaFE)."""
    return name.encode("cp1252").decode("cp437")


_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda name: unicodedata.normalize("NFC", name),
    lambda name: unicodedata.normalize("NFD", name),
    _from_dos,
    lambda name: unicodedata.normalize("NFD", _from_dos(name)),
)
"""Spellings of one name on disk: programs that unpack archives differ in accents."""
