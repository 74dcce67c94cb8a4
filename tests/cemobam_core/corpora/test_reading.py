"""Corpora are read behind the wall, and come back as they were."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from more_trees import make_crema_d, make_emobox, make_meld, make_msp_improv, make_ravdess
from trees import make_esd, make_iemocap

from cemobam_core import wall
from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.classes import read_corpus
from cemobam_core.corpora.emobox import read_emobox
from cemobam_core.corpora.manifest import read_manifest
from cemobam_core.corpora.reading import _builder, _plain, _UnlikeError, read_raw, read_walled
from cemobam_core.corpora.utterances import BadUtterance, Part, RawCorpus, Utterance, folders
from cemobam_core.errors import InputError

SHORT = (0.01, 0.01)

RAW = RawCorpus(
    name="mine",
    title="Mine",
    root=Path("/corpus/\udcff"),
    class_names=("a", "b"),
    utterances=(
        Utterance(id="u1", audio=Path("u1.wav"), text="“Hm.”", label="a", splits=("train", ""), valence=2.5),
        Utterance(id="u2", audio=Part(file=Path("x.wav"), start=0.0, end=1.5), text="", label="b", speaker="s"),
    ),
    notes=("a note",),
    bad=(BadUtterance(id="u3", reason="no file"),),
    release={"1": {"a": 3}},
    reduction="classes",
)


def known(path: Path, *more: Any) -> RawCorpus:
    return replace(RAW, title=" ".join(map(str, more)) or "Mine")


def named(path: Path) -> RawCorpus:
    bad = BadUtterance(id="a\x1b[31m", reason="b\nc")
    return replace(RAW, notes=("folder \x1b[2J\n\udcff",), bad=(bad,))


def pid(path: Path) -> tuple[str, ...]:
    return (str(os.getpid()),)


def refusing(path: Path) -> tuple[str, ...]:
    raise InputError(f"{path}: is not a corpus")


def forbidden(path: Path) -> tuple[str, ...]:
    raise PermissionError(13, "Permission denied", str(path / "x"))


def failing(path: Path) -> tuple[str, ...]:
    raise KeyError("x")


def wrong(path: Path) -> tuple[Any, ...]:
    return (1,)


def test_a_corpus_comes_back_as_it_is(tmp_path: Path) -> None:
    assert read_raw(known, tmp_path) == RAW
    assert read_raw(known, tmp_path, "a", 3).title == "a 3"
    assert {type(u.audio) for u in read_raw(known, tmp_path).utterances} == {type(Path()), Part}


def test_what_is_printed_of_it_is_printable(tmp_path: Path) -> None:
    raw = read_raw(named, tmp_path)
    assert raw.notes == (r"folder \x1b[2J \udcff",)
    assert raw.bad == (BadUtterance(id=r"a\x1b[31m", reason="b c"),)


@pytest.mark.skipif(not wall.HAS_LIMITS, reason="this system has no limits of memory and time")
def test_it_is_read_in_another_process(tmp_path: Path) -> None:
    assert read_walled(str, pid, tmp_path) != (str(os.getpid()),)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (refusing, ": is not a corpus"),
        (forbidden, "/x: cannot be read (Permission denied); check the path and its permissions"),
        (failing, ": cannot be read (KeyError: 'x'); the file is damaged"),
        (wrong, ": its content could not be passed on; get it again from a source you trust"),
    ],
)
def test_whatever_goes_wrong_is_one_line(tmp_path: Path, read: Any, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}{said}")):
        read_walled(str, read, tmp_path)


@dataclass(frozen=True)
class Inner:
    x: float | None


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner | Path
    counts: dict[str, int]
    flags: tuple[bool, ...] = ()


_INNER = st.one_of(st.builds(Inner, st.none() | st.floats(allow_nan=False)), st.text(min_size=1).map(Path))


@given(
    value=st.builds(
        Outer, st.text(), _INNER, st.dictionaries(st.text(), st.integers()), st.lists(st.booleans()).map(tuple)
    )
)
def test_any_dataclass_is_the_same_after_its_facts(value: Outer) -> None:
    assert _builder(Outer)(_plain(value)) == value


@pytest.mark.parametrize(
    "facts",
    [
        *(None, 1, "x", [], {}, ["a", [1.0], {}], ["a", [1.0], {}, [], 1], [1, [1.0], {}, []], ["a", 1.0, {}, []]),
        *(["a", [1], {}, []], ["a", [1.0, 2.0], {}, []], ["a", [1.0], [], []], ["a", [1.0], {"x": True}, []]),
        *(["a", [1.0], {"x": 1.0}, []], ["a", [1.0], {}, [0]], ["a", [1.0], {}, "xy"], ["a", None, {}, []]),
    ],
)
def test_facts_of_another_kind_are_refused(facts: Any) -> None:
    assert _builder(Outer)(["a", [1.0], {"x": 1}, [True]]) == Outer("a", Inner(1.0), {"x": 1}, (True,))
    with pytest.raises(_UnlikeError):
        _builder(Outer)(facts)


def test_every_corpus_is_the_same_behind_the_wall(tmp_path: Path) -> None:
    made = {
        "iemocap": make_iemocap(tmp_path / "I", sessions=(1, 2), seconds=SHORT),
        "esd": make_esd(tmp_path / "E", per_class=2, layout="split", seconds=SHORT),
        "meld": make_meld(tmp_path / "M", suffix=".wav"),
        "crema-d": make_crema_d(tmp_path / "C", actors=(1001, 1002)),
        "ravdess": make_ravdess(tmp_path / "R", actors=(1, 2)),
        "msp-improv": make_msp_improv(tmp_path / "P"),
    }
    assert made.keys() == {name for name, corpus in CORPORA.items() if corpus.reader}
    for name, root in made.items():
        reader = CORPORA[name].reader
        assert reader and read_raw(reader, root) == reader(root)
        assert read_corpus(CORPORA[name], root).utterances
    cafe = make_emobox(tmp_path / "EmoBox")
    assert read_manifest(cafe, name="cafe") == read_emobox(cafe, name="cafe")


def test_links_in_circles_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for i in range(100):
        (tmp_path / f"link{i}").symlink_to(tmp_path)
        (tmp_path / "a" / f"link{i}").symlink_to("..")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "c").symlink_to(tmp_path / "a" / "b")
    found = folders(tmp_path, title="x", tree="y", below=6)
    assert found == [tmp_path, tmp_path / "a", tmp_path / "c"]


def test_too_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cemobam_core.corpora.utterances._MOST_FOLDERS", 5)
    for i in range(6):
        (tmp_path / f"f{i}").mkdir()
    with pytest.raises(InputError, match="has more than 5 folders; give the folder of X: x/"):
        folders(tmp_path, title="X", tree="x/")
