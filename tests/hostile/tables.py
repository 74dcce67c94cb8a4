"""Hostile tables: manifests, lists of clips, split files, files of classes, EmoBox's lists."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from hostile.harness import Reader

from cemobam_core.corpora.classes import chosen_classes
from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.manifest import read_clips, read_manifest
from cemobam_core.corpora.split_file import SplitFile
from cemobam_core.corpora.utterances import RawCorpus, Utterance

Table = list[dict[str, str]]

SOUND = str(Path(__file__).resolve())
"""A file that is there, for the column with the sound. Readers of tables do not open it."""

ODD = [
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "x\x1b[2J\x1b[31m",
        "a\nb",
        "a\rb",
        "\u2028",
        "\u202egpj",
        "\ufffe",
        "é" * 50,
        "=1+1",
        '"',
    ),
    *("../../../../etc/passwd", "/dev/zero", "..", "%s%n{0}", "9" * 10_000, "-1", "1e999", "NaN", "null", "\U000e0001"),
    *("x" * 5_000, "x" * 90_000, "\ufdfa" * 90_000, " " * 90_000),
]
"""Values that no column expects."""

ODD_JSON: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**4000, float("nan"), float("inf"), [], {}, [[]], {"x": {"y": []}}, ["x"] * 1000),
    *("\ud800", "\udcff", "\x1b[2J", "\0", "x" * 200_000),
]
"""JSON values that no column expects."""

ODD_LINES = [
    *(
        '"\\ud800"',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        '{"key": ' + "9" * 5000 + "}",
        "nul",
        "{",
        "\0",
        "'x'",
    ),
    *("[" + "[]," * 100_000 + "[]]", "{" + ",".join(f'"c{i}": 1' for i in range(100_000)) + "}", '{"a": 1, "a": 2}'),
]
"""Lines that are not an object in JSON, or not one with columns."""


def irregular(path: Path) -> Iterator[str]:
    """Put things in place of a file, one after the other, that are no file to read, and yield what they are."""
    for what, make in (
        ("a pipe", os.mkfifo),
        ("a folder", Path.mkdir),
        ("a link to an endless device", lambda place: place.symlink_to("/dev/zero")),
        ("a link to a link to itself", lambda place: place.symlink_to(place.name)),
        ("a link to nothing", lambda place: place.symlink_to("nothing")),
        ("a link to a file without a size", lambda place: place.symlink_to("/proc/self/maps")),
        ("a gigabyte of holes", _holes),
    ):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)
        yield what


def _holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def odd_bytes(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield contents that no text file should have, made of a good one."""
    text = good.decode()
    yield "nothing", b""
    yield "zeros", bytes(1 << 20)
    yield "no text", b"\xff" * 100_000
    yield "a pickle", b"\x80\x04\x95cposix\nsystem\n"
    for encoding in ("utf-16", "utf-16-be", "utf-32", "utf-7", "cp037", "utf-8-sig"):
        yield f"in {encoding}", text.encode(encoding, errors="replace")
    yield "half a character", good + b"\xed\xa0\x80"
    yield "lines that end as on an old Mac", good.replace(b"\n", b"\r")
    yield "each line a thousand times", b"".join(line * 1000 for line in good.splitlines(keepends=True))


def huge_bytes(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield contents that are too long, made of a good one."""
    yield "a line of 90 MB", good + b"x" * 90_000_000
    yield "more than 100 MB", good + b"x\n" * 51_000_000
    yield "90 MB of line breaks", good + b"\n" * 90_000_000


def _of_csv(rows: Table, delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(errors="surrogatepass")


def _of_json(rows: Sequence[object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _changed(rows: Table, place: int, column: str, value: Any) -> Any:
    return [{**row, column: value} if i == place else row for i, row in enumerate(rows)]


def _csv_contents(rows: Table) -> Iterator[tuple[str, bytes]]:
    """Yield hostile tables in CSV."""
    dice = random.Random(1)
    good = _of_csv(rows)
    columns = list(rows[0])
    for odd in ODD:
        column, place = dice.choice(columns), dice.randrange(len(rows))
        yield f"{column} = {odd!r:.40}", _of_csv(_changed(rows, place, column, odd))
    yield "odd columns", _of_csv([{**dict.fromkeys(ODD, "x"), **row} for row in rows])
    first, _, rest = good.partition(b"\n")
    yield "a quote that is never closed", good + b'"' + b"x, \n" * 2_500_000
    yield "a quote in the header that is never closed", b'"' + good * 10_000
    yield "a value of 10 MB", good + b'"' + b"x" * 10_000_000 + b'"' + b"," * (len(columns) - 1) + b"\n"
    yield "a million columns", b"".join((first, b"," * 10**6, b"\n", rest))
    yield "a million values", b"".join((good, b"," * 10**6, b"\n"))
    yield "a million values over lines", good + b'"\n",' * 10**6
    yield "a thousand columns in many rows", b"".join((first, b"," * 990, b"\n", (b"," * 990 + b"x\n") * 20_000))
    yield "each column twice", b"".join(line + b"," + line + b"\n" for line in good.splitlines())
    yield "one column", b"\n".join(line.split(b",")[0] for line in good.splitlines())
    yield "a header alone", first
    yield "quotes in the middle", good.replace(b"a", b'a"')
    for delimiter in ";\t|\0":
        yield f"delimiter {delimiter!r}", _of_csv(rows, delimiter)
    key = "id" if "id" in columns else columns[0]
    for column in columns:
        many = [{**rows[i % len(rows)], key: f"u{i}", column: f"{'ab' * 20}{i}"} for i in range(5_000)]
        yield f"5000 times another {column}", _of_csv(many)
        alike = "".join(chr(97 + i % 26) for i in range(100))
        turned = [{**rows[i % len(rows)], key: f"u{i}", column: alike[i % 99 :] + alike[: i % 99]} for i in range(400)]
        yield f"{column}s of the same letters", _of_csv(turned)


def _json_contents(rows: Table) -> Iterator[tuple[str, bytes]]:
    """Yield hostile tables in JSONL."""
    dice = random.Random(2)
    good = _of_json(rows)
    for odd in [*ODD, *ODD_JSON]:
        column, place = dice.choice(list(rows[0])), dice.randrange(len(rows))
        yield f"{column} = {odd!r:.40}", _of_json(_changed(rows, place, column, odd))
    for line in ODD_LINES:
        for before in (b"", good):
            yield f"a line {line:.40}", before + line.encode() + b"\n"
    yield "objects of many forms", _of_json([{f"x{i}": 1, **rows[i % len(rows)]} for i in range(20_000)])
    yield "an object over lines", json.dumps(rows[0], indent=1).encode()
    yield "a list of objects", json.dumps(rows).encode()


def _cases(
    name: str, rows: Table, contents: Callable[[Table], Iterator[tuple[str, bytes]]], huge: bool, folder: Path
) -> Iterator[tuple[str, Path]]:
    """Yield the hostile files of one reader."""
    path = folder / name
    good = _of_json(rows) if path.suffix == ".jsonl" else _of_csv(rows)
    for case, content in chain(odd_bytes(good), contents(rows), huge_bytes(good) if huge else ()):
        path.write_bytes(content)
        yield case, path
    for what in irregular(path):
        yield what, path
    for strange in ("a\nb", "\x1b[2J\x1b[31m", "\udcff\udcfe", "\u202egpj", "x" * 200):
        path = folder / f"{strange}{Path(name).suffix}"
        yield f"no file {strange!r:.30}", path
        path.write_bytes(good + b"\n,,,,,,,,,,,,,,,")
        yield f"a file {strange!r:.30}", path


def _good(name: str, rows: Table, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(_of_json(rows) if path.suffix == ".jsonl" else _of_csv(rows))
    return path


_N = 12
_LABELS = ("anger", "joy", "calm")

_UTTERANCES: Table = [
    {
        "audio": SOUND,
        "text": f"Well, “that” was {i}.",
        "label": _LABELS[i % 3],
        "id": f"u{i}",
        "speaker": f"s{i // 4}",
        "session": f"{i // 6}",
        "script": f"scene {i % 2}",
        "split": ("train", "val", "test")[i // 4],
    }
    for i in range(_N)
]
_CLIPS: Table = [{name: row[name] for name in ("audio", "text", "label", "id")} for row in _UTTERANCES]
_SPLITS: Table = [
    {"id": row["id"], "fold": str(k), "split": _UTTERANCES[(i + 4 * k) % _N]["split"]}
    for k in range(2)
    for i, row in enumerate(_UTTERANCES)
]
_CLASSES: Table = [
    {"label": label, "class": name} for label, name in zip(_LABELS, ("bad", "good", "good"), strict=True)
]
_LIST: Table = [
    {"key": f"clip {i}", "wav": SOUND, "emo": _LABELS[i % 3], "start_time": "", "end_time": ""} for i in range(_N)
]
_LIST = [{name: value for name, value in row.items() if value} for row in _LIST]

_RAW = RawCorpus(
    name="mine",
    title="Mine",
    root=Path("mine"),
    class_names=_LABELS,
    utterances=tuple(
        Utterance(id=row["id"], audio=Path(SOUND), text=row["text"], label=row["label"]) for row in _UTTERANCES
    ),
)


def told(raw: RawCorpus) -> None:
    """Print what commands print of a corpus."""
    print(*raw.notes, raw.reduction, *(f"{bad.id}: {bad.reason}" for bad in raw.bad), sep="\n")


def _read_manifest(path: Path) -> None:
    told(read_manifest(path, name="mine"))


def _read_clips(path: Path) -> None:
    read_clips(path, _LABELS)


def _read_splits(path: Path) -> None:
    SplitFile.read(path).cut(Columns.of_corpus(_RAW))


def _read_classes(path: Path) -> None:
    chosen_classes(_RAW, str(path), {})


def _reader(title: str, name: str, rows: Table, read: Callable[[Path], object], *, huge: bool = False) -> Reader:
    contents = _json_contents if name.endswith(".jsonl") else _csv_contents
    return Reader(title, partial(_cases, name, rows, contents, huge), partial(_good, name, rows), read, every=10)


READERS = [
    _reader("manifest", "m.csv", _UTTERANCES, _read_manifest, huge=True),
    _reader("manifest in JSONL", "m.jsonl", _UTTERANCES, _read_manifest, huge=True),
    _reader("clips", "clips.tsv", _CLIPS, _read_clips),
    _reader("split file", "splits.csv", _SPLITS, _read_splits),
    _reader("classes", "classes.csv", _CLASSES, _read_classes),
    _reader("list of EmoBox", "cafe.jsonl", _LIST, _read_manifest),
]
