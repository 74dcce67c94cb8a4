from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import make_iemocap, write_wav

from cemobam_core.corpora import CORPORA, iemocap
from cemobam_core.corpora.classes import read_corpus
from cemobam_core.corpora.iemocap import COUNTS, read_iemocap
from cemobam_core.corpora.utterances import BadUtterance, RawCorpus, Utterance
from cemobam_core.errors import InputError

LABELS = "Session1/dialog/EmoEvaluation"
TRANSCRIPTS = "Session1/dialog/transcriptions"
WAVS = "Session1/sentences/wav"
IMPRO = "Ses01F_impro01"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_iemocap(tmp_path / "IEMOCAP_full_release", sessions=(1, 2), seconds=(0.01, 0.01))


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def four_classes(root: Path) -> RawCorpus:
    """Read the release as the commands do by default."""
    return read_corpus(CORPORA["iemocap"], root)


def test_the_counts_are_the_fields() -> None:
    totals = dict(zip(iemocap.LABELS, (sum(numbers) for numbers in zip(*COUNTS.values(), strict=True)), strict=True))
    assert totals == {
        "ang": 1103, "hap": 595, "exc": 1041, "neu": 1708, "sad": 1084,
        "fru": 1849, "sur": 107, "fea": 40, "dis": 2, "oth": 3,
    }  # fmt: skip
    without_agreement = 2507
    assert sum(totals.values()) + without_agreement == 10_039
    assert [sum(COUNTS[session][:5]) for session in "12345"] == [1085, 1023, 1151, 1031, 1241]


def test_an_utterance_as_the_release_has_it(tmp_path: Path) -> None:
    write(
        tmp_path / LABELS / f"{IMPRO}.txt",
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\nC-F1:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
        "[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[4.0000, 3.5000, 2.0000]\n"
        "A-M1:\tval 2; act 3; dom  2;\t()\n",
    )
    write(
        tmp_path / TRANSCRIPTS / f"{IMPRO}.txt",
        b"Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n"
        b"M: No.\n"
        b"Ses01F_impro01_MXX0 [-01.0000--01.0000]: [LAUGHTER]\n"
        b"Ses01F_impro01_M000  [010.0100-011.3925]: It\x92s  the caf\xe9\x85 \n",
    )
    for letter in "FM":
        write_wav(tmp_path / WAVS / IMPRO / f"{IMPRO}_{letter}000.wav", 200, seconds=0.01)
    corpus = four_classes(tmp_path)
    assert [u.label for u in read_iemocap(tmp_path).utterances] == ["neutral", "excited"]
    assert corpus.utterances == (
        Utterance(
            id="Ses01F_impro01_F000",
            audio=tmp_path / WAVS / IMPRO / "Ses01F_impro01_F000.wav",
            text="Excuse me.",
            label="neutral",
            speaker="Ses01F",
            session="1",
            script="impro01",
            scenario="improvised",
            start=6.2901,
            end=8.2357,
            valence=2.5,
            activation=2.5,
            dominance=2.5,
        ),
        Utterance(
            id="Ses01F_impro01_M000",
            audio=tmp_path / WAVS / IMPRO / "Ses01F_impro01_M000.wav",
            text="It’s the café…",
            label="happiness",
            speaker="Ses01M",
            session="1",
            script="impro01",
            scenario="improvised",
            start=10.01,
            end=11.3925,
            valence=4.0,
            activation=3.5,
            dominance=2.0,
        ),
    )
    assert corpus.bad == ()
    assert (
        corpus.notes[0]
        == "2 of 5531 utterances: 0 of 1103 anger, 1 of 1636 happiness, 1 of 1708 neutral, 0 of 1084 sadness"
    )


def test_the_whole_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"1": (4, 9, 5, 2), "2": (3, 8, 4, 4), "3": (2, 2, 2, 2), "4": (1, 2, 3, 4), "5": (4, 4, 4, 4)}
    tree = make_iemocap(tmp_path, per_class={int(s): n for s, n in numbers.items()}, seconds=(0.01, 0.01))
    there = Counter((u.session, u.label) for u in read_iemocap(tree).utterances)
    counts = {session: tuple(there[session, label] for label in iemocap.LABELS.values()) for session in numbers}
    monkeypatch.setattr(iemocap, "COUNTS", counts)
    corpus = four_classes(tree)
    assert corpus.notes == (
        "73 of 73 utterances: 14 anger, 25 happiness, 18 neutral, 16 sadness; complete",
        "left out, because the raters do not agree: 10 utterances",
    )
    assert corpus.reduction == "classes: happiness = 13 happiness + 12 excited; left out: 10 frustration"
    assert corpus.bad == ()
    assert corpus.class_names == CORPORA["iemocap"].class_names
    assert [u.id for u in corpus.utterances] == sorted(u.id for u in corpus.utterances)
    for session, expected in numbers.items():
        here = Counter(u.label for u in corpus.utterances if u.session == session)
        assert tuple(here[name] for name in corpus.class_names) == expected
    for u in corpus.utterances:
        turn = u.id.rsplit("_", 1)[1][0]
        assert u.speaker == f"Ses0{u.session}{turn}"  # the speaker of the turn, not of the dialogue
        assert u.scenario == ("scripted" if "script" in u.id else "improvised")
        assert u.audio.is_file() and u.audio.stem == u.id
        assert u.text and "  " not in u.text and u.splits == ()
    assert {(u.scenario, u.id[5]) for u in corpus.utterances} == {("improvised", "F"), ("scripted", "M")}
    assert len({u.speaker for u in corpus.utterances}) == 10


def test_the_root_or_a_folder_above_it(tree: Path) -> None:
    reader = CORPORA["iemocap"].reader
    assert reader is not None
    whole = read_iemocap(tree)
    assert reader(tree.parent) == whole
    tree.parent.joinpath("disk/unpacked").mkdir(parents=True)
    moved = tree.rename(tree.parent / "disk/unpacked" / tree.name)
    assert reader(tree.parent / "disk").root == moved


def test_a_missing_session_is_said_and_the_rest_used(tree: Path) -> None:
    shutil.rmtree(tree / "Session1")
    corpus = four_classes(tree)
    assert {u.session for u in corpus.utterances} == {"2"}
    for session, count in {"1": 1085, "3": 1151, "4": 1031, "5": 1241}.items():
        assert f"Session{session}: no such folder in {tree}" in corpus.notes
        assert f"session {session}: its {count} utterances are missing" in corpus.notes
    assert "session 2: 4 of 137 anger, 4 of 327 happiness, 4 of 362 neutral, 4 of 197 sadness" in corpus.notes


@pytest.mark.parametrize("part", ["dialog/EmoEvaluation", "dialog/transcriptions", "sentences/wav"])
def test_a_missing_part_is_said(tree: Path, part: str) -> None:
    shutil.rmtree(tree / "Session1" / part)
    corpus = four_classes(tree)
    assert f"Session1: no folder {part}" in corpus.notes
    assert {u.session for u in corpus.utterances} == {"2"}
    assert len(corpus.bad) == (0 if "Emo" in part else 16)


def test_a_wrong_root_shows_the_tree(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    write(tmp_path / "notes.txt", "")
    tree = r"expected: IEMOCAP_full_release/Session\{1..5\}/ with dialog/EmoEvaluation/\*.txt, "
    with pytest.raises(InputError, match=rf"not IEMOCAP; it contains notes.txt, photos/, {tree}"):
        read_iemocap(tmp_path)
    with pytest.raises(InputError, match="photos: not IEMOCAP; it contains nothing, expected:"):
        read_iemocap(tmp_path / "photos")
    with pytest.raises(
        InputError, match=r"nowhere: no such folder; give the folder of IEMOCAP: IEMOCAP_full_release/S"
    ):
        read_iemocap(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file, not a folder"):
        read_iemocap(tmp_path / "notes.txt")
    (tmp_path / "photos/Session1").mkdir()
    with pytest.raises(InputError, match="no utterance of IEMOCAP can be used; expected:") as error:
        read_iemocap(tmp_path)
    assert "\n" not in str(error.value)


def test_of_two_releases_one_must_be_chosen(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_iemocap(tmp_path / name, sessions=(1,), seconds=(0.01, 0.01))
    with pytest.raises(InputError, match=r"both .*a and .*b look like IEMOCAP; give one"):
        read_iemocap(tmp_path)


def test_what_cannot_be_used_is_named(tree: Path) -> None:
    labels, transcripts = tree / LABELS / f"{IMPRO}.txt", tree / TRANSCRIPTS / f"{IMPRO}.txt"
    whole = {u.id: u for u in read_iemocap(tree).utterances}
    (tree / WAVS / IMPRO / f"{IMPRO}_F000.wav").unlink()
    text = transcripts.read_bytes().split(b"\n")
    text = [line for line in text if not line.startswith(f"{IMPRO}_M000".encode())]
    text = [line.split(b":")[0] + b":  " if line.startswith(f"{IMPRO}_F001".encode()) else line for line in text]
    transcripts.write_bytes(b"\n".join(text))
    replace(labels, f"{IMPRO}_M001\texc".encode(), f"{IMPRO}_M001\tbored".encode())
    with labels.open("ab") as file:
        file.write(
            b"[1.0 - 2.0]\tSes02F_impro01_F000\tneu\t[2.5, 2.5, 2.5]\n"
            b"[1.0 - ]\tSes01F_impro01_F077\tneu\n"
            b"[1.0 - 2.0]\tSes01F_impro01_F002\tsad\t[2.5, 2.5, 2.5]\n"  # is neutral above
            b"[1.0 - 2.0]\tSes01F_impro01_M002\tneu\t[2.5, 2.5, 2.5]\n"  # as above
        )
    corpus = read_iemocap(tree)
    assert [b.id for b in corpus.bad] == sorted(b.id for b in corpus.bad)
    reasons = {b.id: b.reason for b in corpus.bad}
    number = len(labels.read_bytes().split(b"\n")) - 3
    assert reasons == {
        "Ses01F_impro01_F000": "it has a label, but no WAV file",
        "Ses01F_impro01_F001": "its transcript is empty",
        "Ses01F_impro01_F002": "it has two different labels",
        "Ses01F_impro01_M000": "it has a label, but no transcript",
        "Ses01F_impro01_M001": "unknown label 'bored'",
        "Ses02F_impro01_F000": f"its name has another session than the file {labels}",
        f"Session1/dialog/EmoEvaluation/{IMPRO}.txt line {number}": (
            "not a label line: '[1.0 - ]\\tSes01F_impro01_F077\\tneu'"
        ),
    }
    left = {u.id: u for u in corpus.utterances}
    assert left == {name: u for name, u in whole.items() if name not in reasons or name.startswith("Ses02")}
    assert BadUtterance(id=f"{IMPRO}_F001", reason="its transcript is empty", label="happiness") in corpus.bad


def test_what_is_odd_is_noted(tree: Path) -> None:
    write_wav(tree / WAVS / IMPRO / f"{IMPRO}_F099.wav", 200, seconds=0.01)
    transcripts = tree / TRANSCRIPTS / f"{IMPRO}.txt"
    with transcripts.open("ab") as file:
        file.write(b"Ses01F_impro01_F000 [006.2901-008.2357]: Something else.\n")
    corpus = read_iemocap(tree)
    assert "Session1: 1 WAV files without a label: Ses01F_impro01_F099" in corpus.notes
    assert "Session1: 1 utterances have several transcripts, the first is used: Ses01F_impro01_F000" in corpus.notes
    assert corpus.utterances[0].text.startswith("I am furious")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_line_ends_and_encodings_make_no_difference(tree: Path, encoding: str) -> None:
    whole = read_iemocap(tree)
    for part in (LABELS, TRANSCRIPTS):
        for path in (tree / part).glob("[!.]*.txt"):
            text = path.read_bytes().decode("latin-1").replace("\n", "\r\n")
            path.write_bytes(text.encode(encoding))
    assert read_iemocap(tree) == whole


def test_the_fingerprint_is_of_what_counts(tree: Path, tmp_path: Path) -> None:
    first = read_iemocap(tree).fingerprint()
    assert len(first) == 16 and read_iemocap(tree).fingerprint() == first
    moved = tmp_path / "elsewhere"
    tree.rename(moved)
    assert read_iemocap(moved).fingerprint() == first
    wav = moved / WAVS / IMPRO / f"{IMPRO}_F000.wav"
    samples = wav.read_bytes()
    wav.write_bytes(samples + b"\0\0")
    assert read_iemocap(moved).fingerprint() != first
    wav.write_bytes(samples)
    assert read_iemocap(moved).fingerprint() == first
    replace(moved / TRANSCRIPTS / f"{IMPRO}.txt", b"furious", b"curious")
    changed = read_iemocap(moved).fingerprint()
    assert changed != first
    replace(moved / LABELS / f"{IMPRO}.txt", b"F000\tang", b"F000\tsad")
    assert read_iemocap(moved).fingerprint() not in (first, changed)


@given(
    junk=st.lists(st.binary(max_size=40) | st.sampled_from([b"[1.0 - 2.0]\t", b"Ses01F_impro01_F000 [", b"[", b"% ["]))
)
def test_whatever_else_the_files_hold_is_survived(tree: Path, junk: list[bytes]) -> None:
    files = [tree / part / f"{IMPRO}.txt" for part in (LABELS, TRANSCRIPTS)]
    contents = [path.read_bytes() for path in files]
    whole = read_iemocap(tree).utterances
    try:
        for path, content in zip(files, contents, strict=True):
            path.write_bytes(content + b"\n" + b"\n".join(junk).replace(b"\0", b"") + b"\n")
        assert read_iemocap(tree).utterances == whole
    finally:
        for path, content in zip(files, contents, strict=True):
            path.write_bytes(content)
