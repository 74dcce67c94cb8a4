from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import make_manifest, write_wav

from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.manifest import read_clips, read_manifest
from cemobam_core.corpora.utterances import BadUtterance, RawCorpus
from cemobam_core.errors import InputError

CLASSES = CORPORA["iemocap"].class_names


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with a.wav to f.wav."""
    for name in "abcdef":
        write_wav(tmp_path / f"{name}.wav", 200, seconds=0.01)
    return tmp_path


def read(folder: Path, text: str, name: str = "m.csv", class_names: tuple[str, ...] | None = None) -> RawCorpus:
    path = folder / name
    path.write_text(text, "utf-8")
    return read_manifest(path, name="mine", class_names=class_names)


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "jsonl"])
def test_every_form_reads_alike(tmp_path: Path, kind: str) -> None:
    path = make_manifest(tmp_path, kind=kind, per_class=3)
    corpus = read_manifest(path, name="mine")
    assert (corpus.name, corpus.title, corpus.root) == ("mine", "mine", path)
    assert corpus.class_names == ("anger", "happiness", "sadness")
    assert corpus.notes == ("54 of 54 utterances: 18 anger, 18 happiness, 18 sadness",)
    assert corpus.bad == ()
    first = corpus.utterances[0]
    assert (first.id, first.label, first.speaker, first.session) == ("spk0_anger_00", "anger", "spk0", "1")
    assert first.text == "I am furious, get out, I hate this, “Anna” zero."
    assert first.audio == tmp_path / "audio/spk0_anger_00.wav"
    assert Counter(u.splits[0] for u in corpus.utterances) == {"train": 18, "val": 18, "test": 18}
    assert corpus.fingerprint() == read_manifest(make_manifest(tmp_path / "b", per_class=3), name="x").fingerprint()


def test_the_authors_metadata_is_read_as_it_is(tmp_path: Path) -> None:
    path = make_manifest(tmp_path, kind="authors", per_class=1)
    corpus = read_manifest(path, name="iemocap", class_names=CLASSES)
    assert corpus.class_names == CLASSES
    labels = {u.id: u.label for u in corpus.utterances}
    # Numbers are indices of the class names: make_manifest's sadness has the index 2, which is neutral.
    assert (labels["spk0_anger_00"], labels["spk0_sadness_00"]) == ("anger", "neutral")
    assert corpus.notes[1] == "labels: 0 is anger, 1 is happiness, 2 is neutral"
    assert read_manifest(path, name="mine").class_names == ("class_0", "class_1", "class_2")


def test_the_authors_three_files_are_one_corpus(clips: Path) -> None:
    for split, rows in {"train": "a.wav,A,0\nb.wav,B,1\n", "val": "c.wav,C,0\n", "test": "d.wav,D,1\n"}.items():
        (clips / f"IEMOCAP_metadata_{split}.csv").write_text(f"audio_file,raw_text,label\n{rows}")
    corpus = read_manifest(clips, name="mine", class_names=CLASSES)
    assert [(u.id, u.text, u.label, u.splits) for u in corpus.utterances] == [
        ("a", "A", "anger", ("train",)),
        ("b", "B", "happiness", ("train",)),
        ("c", "C", "anger", ("val",)),
        ("d", "D", "happiness", ("test",)),
    ]
    assert corpus.root == clips
    (clips / "ESD_metadata_val.csv").write_text("")
    with pytest.raises(InputError, match=r"both ESD_metadata_val.csv and IEMOCAP_metadata_val.csv could be val"):
        read_manifest(clips, name="mine")
    for file in clips.glob("*_val.csv"):
        file.unlink()
    with pytest.raises(InputError, match="a folder without train, val and test"):
        read_manifest(clips, name="mine")


def test_columns_may_stand_in_any_order_and_case_with_others_between(clips: Path) -> None:
    corpus = read(clips, "Label,note, TEXT ,Audio\nx,1,hello   there,a.wav\n\ny,2,you,b.wav\n")
    assert [(u.id, u.text, u.label, u.speaker) for u in corpus.utterances] == [
        ("a", "hello there", "x", None),
        ("b", "you", "y", None),
    ]


def test_a_label_that_is_mistyped_names_its_line(clips: Path) -> None:
    rows = "".join(f"a.wav,A,{label},{i}\n" for i, label in enumerate(["happy", "sad"] * 4))
    with pytest.raises(
        InputError,
        match=r"m.csv line 10: label 'hapy' occurs only here and is similar to 'happy', which occurs 4 times",
    ):
        read(clips, f"audio,text,label,id\n{rows}b.wav,B,hapy,x\n")
    assert read(clips, f"audio,text,label,id\n{rows}b.wav,B,fear,x\n").class_names == ("fear", "happy", "sad")
    numbered = rows.replace("happy", "class_10").replace("sad", "class_2")
    assert "class_1" in read(clips, f"audio,text,label,id\n{numbered}b.wav,B,class_1,x\n").class_names
    with pytest.raises(
        InputError, match=r"line 2: label 'Sadnes' is not a class of .*; did you mean 'sadness'\?; correct it"
    ):
        read(clips, "audio,text,label\na.wav,A,Sadnes\n", class_names=CLASSES)


def test_absolute_paths_and_own_ids(clips: Path, tmp_path: Path) -> None:
    corpus = read(clips, f"audio,text,label,id,speaker\n{tmp_path}/a.wav,A,x,one,\nb.wav,B,y,,s1\n")
    assert [(u.id, u.audio, u.speaker) for u in corpus.utterances] == [
        ("b", clips / "b.wav", "s1"),
        ("one", clips / "a.wav", None),
    ]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [("train", "train"), ("Valid", "val"), ("dev", "val"), ("evaluation", "val"), (" TEST ", "test"), ("", "")],
)
def test_splits_have_many_names(clips: Path, written: str, read_as: str) -> None:
    corpus = read(clips, f"audio,text,label,split\na.wav,A,x,{written}\nb.wav,B,y,test\n")
    assert "".join(corpus.utterances[0].splits) == read_as


def test_json_values_may_be_numbers_or_missing(clips: Path) -> None:
    rows = [
        {"audio": "a.wav", "text": "A\u2028a", "label": 3, "speaker": 11, "extra": [1]},
        {"audio": "b.wav", "text": "B", "label": 10, "speaker": None},
    ]
    corpus = read(clips, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "m.jsonl")
    assert [(u.text, u.label, u.speaker) for u in corpus.utterances] == [
        ("A a", "class_3", "11"),
        ("B", "class_10", None),
    ]
    assert corpus.class_names == ("class_3", "class_10")


def test_names_are_matched_to_the_data_sets_whatever_their_case(clips: Path) -> None:
    corpus = read(clips, "audio,text,label\na.wav,A,Anger\nb.wav,B,SADNESS\n", class_names=CLASSES)
    assert [u.label for u in corpus.utterances] == ["anger", "sadness"]
    assert corpus.class_names == CLASSES


def test_one_bad_line_is_bad_alone(clips: Path) -> None:
    corpus = read(clips, "audio,text,label\na.wav,A,x\nb.wav, ,x\nno.wav,C,y\nd.wav,D,y\n.,E,y\n")
    assert [u.id for u in corpus.utterances] == ["a", "d"]
    assert corpus.notes == ("2 of 5 utterances: 1 x, 1 y",)
    assert corpus.bad == (
        BadUtterance(id=".", reason=f"no audio file {clips} (m.csv line 6)", label="y"),
        BadUtterance(id="b", reason="its text is empty (m.csv line 3)", label="x"),
        BadUtterance(id="no", reason=f"no audio file {clips / 'no.wav'} (m.csv line 4)", label="y"),
    )


def test_one_audio_file_in_several_lines_is_noted(clips: Path) -> None:
    corpus = read(clips, "audio,text,label,id\na.wav,A,x,1\na.wav,A,y,2\n")
    assert "1 audio files occur in several lines: a.wav" in corpus.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            r"m.csv line 1: no column 'audio'; it has nothing; required are audio, label, optional are text, id",
        ),
        ("audio,text\na.wav,A\n", r"m.csv line 1: no column 'label'; it has 'audio', 'text'; required are"),
        ("audio,text,label\n", "m.csv: no utterances; give one per line"),
        (
            "audio,text,label\na.wav,A, b, c,x\n",
            "line 2: 5 values for 3 columns; give one for each, and put a value that contains ',' in double",
        ),
        ("audio,text,label\na.wav,A\n", "line 2: 2 values for 3 columns"),
        ('audio,text,label\na.wav,"A,x\nb.wav,B,y\n', r"line 3: cannot be read as CSV \(.*\); fix the quotes"),
        ("audio,text,label\na.wav,A,\n", "line 2: label is empty; fill it in or delete the line"),
        ("audio,text,label\na.wav,A,x\n ,B,y\n", "line 3: audio is empty"),
        (
            "audio,text,label\na.wav,A,x\nb.wav,B,x\n",
            "m.csv: every label is 'x'; give utterances of at least two classes",
        ),
        (
            "audio,text,label\na.wav,A,Joy\nb.wav,B,joy\n",
            r"line 3: label 'joy' and 'Joy' \(line 2\) differ only in case",
        ),
        (
            "audio,text,label,id\na.wav,A,x,1\nb.wav,B,y,1\n",
            "line 3: id '1' already occurs in line 2; give each its own id",
        ),
        ("audio,text,label\na.wav,A,x\nq/a.wav,B,y\n", "line 3: id 'a' already occurs in line 2; add a column id"),
        ("audio,text,label,split\na.wav,A,x,holdout\n", "line 2: split 'holdout' is unknown; write train, val or test"),
        (
            "audio,text,label\nu.wav,A,x\nv.wav,B,y\n",
            r"none of its 2 utterances can be used \(u: no audio file .*; audio",
        ),
    ],
)
def test_mistakes_are_told_by_line_and_value(clips: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(clips, text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "line 1: not JSON"),
        ('{"audio": ' + "1" * 5000 + "}", "line 1: not JSON"),
        ("[1]\n", r"m.jsonl line 1: '\[1\]' is not an object"),
        ('{"audio": "a.wav", "text": "A", "label": "x"}\n{"audio":\n', "line 2: not JSON"),
        ('{"audio": "a.wav", "text": "x"}\n', "line 1: no column 'label'"),
        ('{"audio": "a.wav", "text": "A", "label": true}\n', "line 1: label is True; it must be a string"),
        ('{"audio": "a.wav", "text": ["A"], "label": 1}\n', "line 1: text is .*; it must be a string"),
    ],
)
def test_mistakes_in_jsonl(clips: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(clips, text, "m.jsonl")


def test_labels_outside_the_data_sets_classes(clips: Path) -> None:
    text = "audio,text,label\na.wav,A,anger\nb.wav,B,fru\n"
    with pytest.raises(
        InputError,
        match=r"line 3: label 'fru' is not a class of this data set \(anger, happiness, .*another --dataset name",
    ):
        read(clips, text, class_names=CLASSES)
    text = "audio,text,label\na.wav,A,0\nb.wav,B,4\n"
    with pytest.raises(
        InputError, match=r"label '4' is not a class of this data set \(0 anger, 1 happiness, 2 neutral, 3 "
    ):
        read(clips, text, class_names=CLASSES)


def test_files_that_are_no_manifest(clips: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.csv: cannot be read \(No such file"):
        read_manifest(clips / "nowhere.csv", name="mine")
    (clips / "m.xlsx").write_text("PK")
    with pytest.raises(InputError, match=r"m.xlsx: neither CSV \(.csv, .tsv, .txt\) nor JSONL"):
        read_manifest(clips / "m.xlsx", name="mine")
    (clips / "m.csv").write_bytes("audio,text,label\na.wav,caf\xe9,x\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"m.csv: not UTF-8 \(byte 26\); save it in UTF-8"):
        read_manifest(clips / "m.csv", name="mine")


def test_an_absurd_audio_name_is_bad_alone(clips: Path) -> None:
    corpus = read(clips, f"audio,text,label\na.wav,A,x\nb.wav,B,y\n{'long' * 100},C,y\n")
    assert [b.reason[:14] for b in corpus.bad] == ["no audio file "]


@given(
    suffix=st.sampled_from([".csv", ".jsonl"]),
    header=st.sampled_from(["audio,text,label\n", "audio\ttext\tlabel\tid\n", '{"audio": "a.wav", "text": "A"}\n', ""]),
    body=st.text(st.sampled_from("a.wv,;\t\n\r\"'{}[]:\\01x\0 "), max_size=80),
)
def test_whatever_is_in_it_the_user_is_told(suffix: str, header: str, body: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_wav(Path(folder) / "a.wav", 200, seconds=0.001)
        path = Path(folder) / f"m{suffix}"
        path.write_bytes((header + body).encode())
        with contextlib.suppress(InputError):
            assert read_manifest(path, name="mine").utterances


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("text", "hello \ud800", "lone surrogate"),
        ("id", "x\ud800", "cannot be printed"),
        ("label", "an\nger\x1b[31m", "cannot be printed"),
        ("speaker", "a\u0007", "cannot be printed"),
    ],
)
def test_what_no_file_could_hold_is_refused_by_line(tmp_path: Path, column: str, value: str, said: str) -> None:
    manifest = make_manifest(tmp_path, kind="jsonl")
    lines = manifest.read_text().splitlines()
    lines[4] = json.dumps({**json.loads(lines[4]), column: value})
    manifest.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"line 5: {column} .*{said}"):
        read_manifest(manifest, name="mine")


def test_a_header_of_any_length(tmp_path: Path) -> None:
    (tmp_path / "huge.csv").write_text("a" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"huge\.csv line 1: cannot be read as CSV \(field larger"):
        read_manifest(tmp_path / "huge.csv", name="mine")


def test_all_transcripts_may_be_missing(clips: Path) -> None:
    for text in ("audio,label\na.wav,x\nb.wav,y\n", "audio,text,label\na.wav,,x\nb.wav, ,y\n"):
        corpus = read(clips, text)
        assert [u.text for u in corpus.utterances] == ["", ""]
        assert corpus.bad == ()


def test_clips_to_label_need_nothing_but_audio(clips: Path) -> None:
    (clips / "m.csv").write_text("audio\nb.wav\na.wav\n")
    assert [(u.id, u.text, u.label) for u in read_clips(clips / "m.csv", CLASSES)] == [("b", "", ""), ("a", "", "")]
    (clips / "m.csv").write_text("audio,label,text\na.wav,ANGER,A\n")
    (one,) = read_clips(clips / "m.csv", CLASSES)
    assert (one.audio, one.label, one.text) == (clips / "a.wav", "anger", "A")
    for text, message in (
        ("audio\n", "no clips; give one per line"),
        ("audio\nno.wav\n", "line 2: no audio file .*no.wav; correct the path"),
        ("audio,label\na.wav,x\n", "label 'x' is not a class of this data set"),
        ("audio,label\na.wav,anger\nb.wav,\n", "line 3: label is empty, but other lines have one"),
        ("audio\na.wav\na.wav\n", "id 'a' already occurs in line 2"),
    ):
        (clips / "m.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            read_clips(clips / "m.csv", CLASSES)
