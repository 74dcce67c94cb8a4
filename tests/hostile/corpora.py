"""Hostile folders of corpora: damaged text files, things in place of files, links in circles, names made to do harm."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import more_trees
import trees
from hostile.harness import Reader
from hostile.tables import irregular, odd_bytes, told

from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.classes import read_corpus
from cemobam_core.corpora.manifest import read_manifest

SHORT = (0.01, 0.01)

ODD_LINES = [
    # Nothing but an expression without an end: each is slow if a pattern is tried at every place.
    *("Ses" + "[" * 90_000, "Ses01F_impro" + "_F" * 45_000 + "-", "0011_000001" + " " * 90_000, " sad" * 22_000),
    "[" + "1" * 90_000 + " - 2] Ses01F_impro01_F000 neu",
    "[1." + "1" * 90_000 + " - 2] Ses01F_impro01_F000\tang\t[2.5, 2.5, 2.5]",
    f"[1 - 2]\tSes01F_impro01_F{'0' * 90_000}\tang",
    "[1 - 2]\tSes01F_impro01_F000\tang\t[" + "9" * 5_000 + ", 2.5, 2.5]",
    "[1 - 2]\tSes01F_impro01_F000\tang\x1b[2J\x1b[31m",
    "[1 - 2]\tSes\u0661\u0661F_impro01_F000\tang",
    "UTD-IMPROV-" + ".avi" * 22_000,
    "UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:" + "9" * 90_000,
    "UTD-IMPROV-S01A-F01-P-FM01.avi; \x1b; A:1.0",
    "0011_000001\tWell.\x1b[2J\tAngry\x1b[31m",
    "0011_000001" + "\t" * 90_000,
    "1,\u0130\u0130,Ross,anger,neutral,9999999,0,4,7,0,0",
    '1,"' + "x" * 90_000,
    "x" * 300_000,
]
"""Lines for the text files of any corpus."""

NAMES = ["a\nb", "\x1b[2J\x1b[31m", "\udcff\udcfe", "\u202egpj", "x" * 200, "=1+1", "-rf", "%s%n"]
"""Names for files and folders of any corpus."""


def _make_iemocap(folder: Path) -> Path:
    return trees.make_iemocap(folder / "IEMOCAP_full_release", sessions=(1, 2), seconds=SHORT)


def _make_esd(folder: Path) -> Path:
    return trees.make_esd(folder / "ESD", per_class=2, speakers=("0011", "0012"), seconds=SHORT)


def _make_meld(folder: Path) -> Path:
    return more_trees.make_meld(folder / "MELD.Raw", counts=1, suffix=".wav")


def _make_crema_d(folder: Path) -> Path:
    return more_trees.make_crema_d(folder / "CREMA-D", actors=(1001, 1076), per_class=1)


def _make_ravdess(folder: Path) -> Path:
    return more_trees.make_ravdess(folder / "RAVDESS", actors=(1,))


def _make_msp_improv(folder: Path) -> Path:
    return more_trees.make_msp_improv(folder / "MSP-IMPROV", counts=2)


def _make_emobox(folder: Path) -> Path:
    more_trees.make_emobox(folder / "EmoBox", folds=2, per_class=2)
    return folder / "EmoBox"


def _read(name: str, path: Path) -> None:
    told(read_corpus(CORPORA[name], path))


def _read_emobox(path: Path) -> None:
    told(read_manifest(path / "data" / "cafe", name="cafe"))


def _good(make: Callable[[Path], Path], folder: Path) -> Path:
    """Make a good folder whose files are not the same file: damage to one would be damage to all."""
    made = make(folder)
    copy = folder / "corpus"
    shutil.copytree(made, copy)
    return copy


def _cases(make: Callable[[Path], Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the hostile folders of one corpus."""
    dice = random.Random(3)
    good = make(folder)
    texts, sounds, inside = _texts(good), _sounds(good), _inside(good)
    copy = folder / "copy"

    def fresh() -> None:
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(good, copy, copy_function=os.link)

    def rewritten(place: Path, content: bytes) -> Path:
        fresh()
        (copy / place).unlink()
        (copy / place).write_bytes(content)
        return copy

    for what, content in odd_bytes((good / texts[0]).read_bytes()) if texts else ():
        place = dice.choice(texts)
        yield f"{place}: {what}", rewritten(place, content)
    for line in ODD_LINES if texts else ():
        for place in dice.sample(texts, min(2, len(texts))):
            more = f"\n{line}\n".encode() * dice.choice([1, 20])
            yield f"{place}: {line:.40}", rewritten(place, (good / place).read_bytes() + more)
    for place in (dice.choice(sounds), *([dice.choice(texts)] if texts else [])):
        fresh()
        for what in irregular(copy / place):
            yield f"{place}: {what}", copy
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    yield "a pointer", rewritten(dice.choice(sounds), pointer)
    yield from _named(good, folder, dice)
    for there in dice.sample(inside, min(3, len(inside))):
        for target in ("..", "/", None):
            fresh()
            shutil.rmtree(copy / there)
            if target:
                (copy / there).symlink_to(target)
            yield f"{there} is {f'a link to {target}' if target else 'gone'}", copy
    fresh()
    for i in range(200):
        (copy / f"link{i}").symlink_to(".")
    yield "links in circles", copy
    fresh()
    (copy / Path(*["a"] * 100)).mkdir(parents=True)
    for i in range(1000):
        (copy / f"f{i % 50}" / f"g{i}").mkdir(parents=True)
    yield "many folders", copy
    shutil.rmtree(copy)
    for what in irregular(folder / "corpus"):
        yield f"the corpus is {what}", folder / "corpus"
    yield "nothing", folder / "nothing"
    yield "a name of any length", folder / ("x" * 5_000)
    yield "everything", Path("/proc")


def _named(good: Path, folder: Path, dice: random.Random) -> Iterator[tuple[str, Path]]:
    """Yield copies of a corpus with odd names of files and folders in it, and of itself."""
    for name in NAMES:
        copy = folder / name
        shutil.copytree(good, copy, copy_function=os.link)
        (copy / dice.choice(_inside(good)) / name).mkdir()
        sound = copy / dice.choice(_sounds(good))
        os.link(sound, sound.with_name(f"{name}.wav"))
        for text in (copy / dice.choice(_texts(good)),) if _texts(good) else ():
            text.rename(text.with_name(f"{name}{text.suffix}"))
        yield f"named {name!r:.30}", copy
        for place in _sounds(good):
            (copy / place).unlink()
        yield f"named {name!r:.30} without sound", copy
        shutil.rmtree(copy)


def _texts(good: Path) -> list[Path]:
    """Return the text files that the readers of a corpus read, below its folder."""
    unread = {"Categorical", "Attribute", "Self-evaluation"}
    found = [path for path in good.rglob("*") if path.suffix in (".txt", ".csv", ".json", ".jsonl") and path.is_file()]
    read = [path for path in found if not path.name.startswith(".") and path.parent.name not in unread]
    return sorted(path.relative_to(good) for path in read if path.stem.lower() != "readme")


def _sounds(good: Path) -> list[Path]:
    return sorted(path.relative_to(good) for path in good.rglob("*.wav") if not path.name.startswith("."))


def _inside(good: Path) -> list[Path]:
    return sorted(path.relative_to(good) for path in good.rglob("*") if path.is_dir())


def _reader(title: str, make: Callable[[Path], Path], read: Callable[[Path], object]) -> Reader:
    return Reader(title, partial(_cases, make), partial(_good, make), read, every=10)


READERS = [
    *(
        _reader(CORPORA[name].title, make, partial(_read, name))
        for name, make in {
            "iemocap": _make_iemocap,
            "esd": _make_esd,
            "meld": _make_meld,
            "crema-d": _make_crema_d,
            "ravdess": _make_ravdess,
            "msp-improv": _make_msp_improv,
        }.items()
    ),
    _reader("EmoBox", _make_emobox, _read_emobox),
]
