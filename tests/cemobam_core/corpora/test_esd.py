from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from trees import ENGLISH, esd_sentence, make_esd, write_wav

from cemobam_core.corpora import CORPORA, esd
from cemobam_core.corpora.esd import read_esd
from cemobam_core.corpora.utterances import RawCorpus
from cemobam_core.errors import InputError

SHORT = (0.01, 0.01)
THREE = ENGLISH[:3]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_esd(tmp_path / "ESD", speakers=THREE, seconds=SHORT)


def said(corpus: RawCorpus) -> dict[str, tuple[str, str, str | None]]:
    return {u.id: (u.text, u.label, u.speaker) for u in corpus.utterances}


def transcripts(tree: Path, lines: dict[str, str]) -> None:
    """Rewrite lines of speaker 0011 by utterance."""
    path = tree / "0011/0011.txt"
    old = path.read_text("utf-8").splitlines()
    path.write_text("".join(f"{lines.get(line.split()[0], line)}\n" for line in old), "utf-8")


def test_the_whole_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esd, "SENTENCES", 2)
    corpus = read_esd(make_esd(tmp_path, per_class=2, seconds=SHORT))
    assert corpus.notes == ("100 of 100 utterances: 20 neutral, 20 angry, 20 happy, 20 sad, 20 surprise; complete",)
    assert corpus.bad == ()
    assert corpus.class_names == CORPORA["esd"].class_names == ("neutral", "angry", "happy", "sad", "surprise")
    assert Counter(u.speaker for u in corpus.utterances) == dict.fromkeys(ENGLISH, 10)
    assert said(corpus)["0011_000351"] == (esd_sentence(0), "angry", "0011")
    assert "Tom’s" in esd_sentence(0)
    assert {u.splits for u in corpus.utterances} == {()}
    for u in corpus.utterances:
        assert u.audio.is_file() and u.audio.parent.name.lower() == u.label


@pytest.mark.parametrize("separator", ["\t", " ", "   ", " \t "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gbk", "cp1252"])
def test_layouts_encodings_and_separators_make_no_difference(tmp_path: Path, encoding: str, separator: str) -> None:
    plain = said(read_esd(make_esd(tmp_path / "plain", speakers=THREE[:1], seconds=SHORT)))
    for layout in ("flat", "split"):
        for capitalised in (True, False):
            tree = make_esd(
                tmp_path / f"{layout}{capitalised}",
                speakers=THREE[:1],
                layout=layout,
                encoding=encoding,
                separator=separator,
                capitalised=capitalised,
                seconds=SHORT,
            )
            corpus = read_esd(tree)
            assert said(corpus) == plain
            assert corpus.bad == ()


def test_the_folders_say_the_split(tmp_path: Path) -> None:
    corpus = read_esd(make_esd(tmp_path, per_class=4, layout="split", speakers=THREE, seconds=SHORT))
    assert Counter(u.splits[0] for u in corpus.utterances) == {"train": 30, "val": 15, "test": 15}
    assert {u.audio.parent.name for u in corpus.utterances if u.splits == ("val",)} == {"evaluation"}


def test_mandarin_speakers_are_left_out(tree: Path) -> None:
    whole = read_esd(tree)
    make_esd(tree, speakers=("0001", "0010"), encoding="gbk", seconds=SHORT)
    assert read_esd(tree).utterances == whole.utterances


def test_the_root_or_a_folder_above_it(tree: Path) -> None:
    whole = read_esd(tree)
    assert read_esd(tree.parent) == whole
    nested = tree.parent / "Emotional Speech Dataset (ESD)" / "Emotion Speech Dataset"
    nested.parent.mkdir()
    tree.rename(nested)
    assert said(read_esd(nested.parent.parent)) == said(whole)
    with pytest.raises(
        InputError, match=r"not ESD \(English\); it contains nothing, expected: <speaker 0011\.\.0020>/"
    ):
        (nested.parent / "empty").mkdir()
        read_esd(nested.parent / "empty")


def test_missing_speakers_are_said(tree: Path) -> None:
    notes = read_esd(tree).notes
    assert notes[0].startswith("45 of 17500 utterances: 9 of 3500 neutral, ")
    assert notes[1].startswith("0011, 0012, 0013: 3 of 350 neutral, ")
    assert f"0020: no such folder in {tree}" in notes


def test_what_cannot_be_used_is_named(tree: Path) -> None:
    whole = said(read_esd(tree))
    angry, happy = tree / "0011/Angry", tree / "0011/Happy"
    (angry / "0011_000351.wav").unlink()
    (angry / "0011_000352.wav").rename(happy / "0011_000352.wav")  # Angry by its transcript
    shutil.copy(angry / "0011_000353.wav", happy / "0011_000353.wav")
    write_wav(happy / "0011_000800.wav", 200, seconds=0.01)
    write_wav(happy / "0012_000701.wav", 200, seconds=0.01)
    transcripts(tree, {"0011_000701": "0011_000701\t\tHappy", "0011_000702": "Not a line"})
    corpus = read_esd(tree)
    bad = [(b.id, b.reason) for b in corpus.bad]
    assert bad == sorted(bad)
    assert dict(bad) == {
        "0011.txt line 8": "not a transcript line: 'Not a line'",
        "0011_000351": "a transcript without its WAV file",
        "0011_000352": "its transcript says Angry, but it is in the folder happy",
        "0011_000353": "it is in several folders: angry, happy",
        "0011_000701": "its transcript is empty",
        "0011_000702": "a WAV file without a transcript",
        "0011_000800": "a WAV file without a transcript",
        "0012_000701": "it is in the folder of speaker 0011",
    }
    gone = dict(bad).keys() - {"0012_000701"}
    assert said(corpus) == {name: u for name, u in whole.items() if name not in gone}


def test_odd_lines_are_read_as_meant(tree: Path) -> None:
    transcripts(
        tree,
        {
            "0011_000001": "0011_000001\tI am happy.Neutral",  # nothing between them
            "0011_000002": "0011_000002\tA tab\there.\tneutral",
            "0011_000003": "0011_000003 No emotion.",
            "0011_000351": "0011_000351\tIt is odd.\tAngery",
            "0011_000352": "0011_000352\tAnna  was\u00a0angry. \tANGRY\t",
        },
    )
    with (tree / "0011/0011.txt").open("a") as file:
        file.write("0011_000353\tAnother one.\tAngry\n\n")
    (tree / "0011/Takes").mkdir()
    corpus = read_esd(tree)
    texts = {u.id: u.text for u in corpus.utterances if u.speaker == "0011"}
    assert texts["0011_000001"] == "I am happy."
    assert texts["0011_000002"] == "A tab here."
    assert texts["0011_000003"] == "No emotion."
    assert texts["0011_000351"] == "It is odd."
    assert texts["0011_000352"] == "Anna was angry."
    assert texts["0011_000353"] == esd_sentence(2)
    assert corpus.bad == ()
    assert "0011: left out, because they are not emotions of ESD: Takes" in corpus.notes
    assert "0011: 1 utterances have several transcripts, the first is used: 0011_000353" in corpus.notes
    assert "0011.txt: emotions unknown to ESD; the folders decide instead: 1 Angery" in corpus.notes


def test_both_layouts_unpacked_over_each_other_are_one(tmp_path: Path) -> None:
    make_esd(tmp_path, speakers=THREE, seconds=SHORT)
    split = read_esd(make_esd(tmp_path / "split", speakers=THREE, layout="split", seconds=SHORT))
    shutil.copytree(tmp_path / "split", tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "split")
    both = read_esd(tmp_path)
    assert said(both) == said(split)
    assert [u.splits for u in both.utterances] == [u.splits for u in split.utterances]
    shutil.copy(tmp_path / "0011/Angry/train/0011_000353.wav", tmp_path / "0011/Angry/test/0011_000353.wav")
    (bad,) = read_esd(tmp_path).bad
    assert (bad.id, bad.reason) == ("0011_000353", "it is in several folders: test, train")


def test_no_transcripts_at_all_is_an_error(tree: Path) -> None:
    for speaker in THREE:
        (tree / speaker / f"{speaker}.txt").unlink()
    with pytest.raises(InputError, match=r"no utterance of ESD can be used \(0011_000001: a WAV file without"):
        read_esd(tree)
