from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from more_trees import link, make_emobox, write_rows

from cemobam_core.corpora.emobox import is_emobox
from cemobam_core.corpora.manifest import read_manifest
from cemobam_core.corpora.utterances import Part, RawCorpus
from cemobam_core.errors import InputError

Rows = list[dict[str, object]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_emobox(tmp_path / "EmoBox")


def read(path: Path) -> RawCorpus:
    return read_manifest(path, name="cafe", class_names=("anger", "joy"))  # its labels are its own


def change(folder: Path, how: Callable[[Rows], object], file: str = "cafe.jsonl") -> None:
    path = folder / file
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    how(rows)
    write_rows(path, rows)


def test_labels_folds_and_audio(folder: Path) -> None:
    corpus = read(folder)
    assert corpus.class_names == ("angry", "happy", "neutral")
    assert Counter(u.label for u in corpus.utterances) == {"angry": 6, "happy": 12, "neutral": 6}
    assert corpus.bad == ()
    assert not corpus.transcribed
    assert {u.text for u in corpus.utterances} == {""}
    assert {len(u.splits) for u in corpus.utterances} == {3}
    assert all(Counter(u.splits) == {"train": 2, "test": 1} for u in corpus.utterances)
    one = {u.id: u for u in corpus.utterances}["cafe-01 e"]
    assert one.splits == ("train", "test", "train")
    assert one.audio == folder.parent.parent / "downloads/cafe/Colère/01 (e).wav"
    assert corpus.notes == (
        "24 of 24 utterances: 6 angry, 12 happy, 6 neutral; without transcripts",
        "3 official folds, without a validation split",
        "merged labels: happy is j and e",
    )


def test_the_list_and_its_folder_are_the_same(folder: Path) -> None:
    assert read(folder / "cafe.jsonl").utterances == read(folder).utterances
    assert is_emobox(folder) and is_emobox(folder / "cafe.jsonl")
    assert not is_emobox(folder / "cafe.json")
    assert not is_emobox(folder.parent)
    assert not is_emobox(folder / "nothing.jsonl")


@pytest.mark.parametrize("given", [".", "cafe.jsonl", "../cafe", "../cafe/cafe.jsonl"])
def test_from_inside_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.chdir(folder)
    assert read(Path(given)).utterances == read(folder).utterances
    assert read(Path(given)).fingerprint() == read(folder).fingerprint()


def test_an_empty_list_is_an_error(folder: Path) -> None:
    (folder / "cafe.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"cafe.jsonl: no utterances; get the file again"):
        read(folder)


def test_the_fingerprint_knows_the_folds(folder: Path) -> None:
    before = read(folder).fingerprint()
    assert read(folder).fingerprint() == before
    (folder / "fold_3/cafe_train_fold_3.jsonl").unlink()
    corpus = read(folder)
    assert corpus.fingerprint() != before
    assert "fold_3: left out, because it has no list cafe_train_fold_3.jsonl" in corpus.notes
    assert {len(u.splits) for u in corpus.utterances} == {2}


def test_an_official_validation_split_and_an_utterance_in_no_split(folder: Path) -> None:
    for k in (2, 3):
        for file in (folder / f"fold_{k}").iterdir():
            file.unlink()
    train = folder / "fold_1/cafe_train_fold_1.jsonl"
    rows = train.read_text().splitlines()
    train.write_text("\n".join(rows[4:]))
    (folder / "fold_1/cafe_valid_fold_1.jsonl").write_text("\n".join(rows[2:4]))
    corpus = read(folder)
    assert Counter(u.splits for u in corpus.utterances) == {("train",): 12, ("val",): 2, ("test",): 8, ("",): 2}
    assert "1 official fold" in corpus.notes


def test_without_its_list_the_folds_are_read(folder: Path) -> None:
    whole = read(folder)
    (folder / "cafe.jsonl").unlink()
    corpus = read(folder)
    assert corpus.utterances == whole.utterances
    assert "cafe.jsonl: not found; the utterances are those of the folds" in corpus.notes


def test_a_list_without_folds_has_no_splits(folder: Path) -> None:
    alone = folder.parent.parent / "cafe.jsonl"
    alone.write_bytes((folder / "cafe.jsonl").read_bytes())
    corpus = read(alone)
    assert {u.splits for u in corpus.utterances} == {()}
    assert corpus.class_names == ("c", "e", "j", "n")
    assert "no label_map.json: labels keep their names" in corpus.notes


@pytest.mark.parametrize("file", ["label_map.json", "label_dict.json"])
def test_labels_that_the_map_lacks_or_writes_otherwise(folder: Path, file: str) -> None:
    (folder / "label_map.json").unlink()
    names = {"C": "Angry", "j": "pain, groan", "e": "Happy"}
    (folder / file).write_text(json.dumps(names))
    corpus = read(folder)
    assert corpus.class_names == ("angry", "happy", "n", "pain or groan")
    assert f"{file}: does not name n, which keep their names" in corpus.notes


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_accents_on_disk_may_be_written_otherwise(folder: Path, form: str, listed: str) -> None:
    clips = folder.parent.parent / "downloads/cafe"
    (clips / "Colère").rename(clips / unicodedata.normalize(form, "Colère"))
    change(folder, lambda rows: [row.update(wav=unicodedata.normalize(listed, str(row["wav"]))) for row in rows])
    assert read(folder).bad == ()


def test_names_from_an_old_zip_archive(folder: Path) -> None:
    clips = folder.parent.parent / "downloads/cafe"
    (clips / "Colère").rename(clips / "Dégoût")
    change(folder, lambda rows: [row.update(wav=str(row["wav"]).replace("Colère", "D\u201ago\u2013t")) for row in rows])
    corpus = read(folder)
    assert corpus.bad == ()
    assert corpus.utterances[0].audio.is_file()


def test_clips_beside_the_metadata(folder: Path) -> None:
    (folder.parent.parent / "downloads").rename(folder / "downloads")
    assert read(folder).bad == ()


def test_parts_of_long_files(folder: Path) -> None:
    def cut(rows: Rows) -> None:
        for i, row in enumerate(rows):
            row.update(start_time=i / 1000, end_time=i / 1000 + 0.02, wav=rows[0]["wav"])

    before = read(folder).fingerprint()
    change(folder, cut)
    corpus = read(folder)
    assert corpus.bad == ()
    file = folder.parent.parent / "downloads/cafe/Colère/00 (c).wav"
    one = {u.id: u for u in corpus.utterances}["cafe-05 c"]
    assert one.audio == Part(file=file, start=0.005, end=0.025)
    assert (one.start, one.end) == (0.005, 0.025)
    fingerprint = corpus.fingerprint()
    assert fingerprint != before
    change(folder, lambda rows: rows[0].update(end_time=0.03))
    assert read(folder).fingerprint() != fingerprint
    change(folder, lambda rows: rows[0].update(start_time=None))
    with pytest.raises(InputError, match=r"cafe.jsonl line 1: start_time and end_time are None and 0.03, not a part"):
        read(folder)


def test_audio_that_is_missing_is_bad(folder: Path) -> None:
    (folder.parent.parent / "downloads/cafe/Colère/03 (n).wav").unlink()
    (bad,) = read(folder).bad
    assert bad.id == "cafe-03 n"
    assert bad.reason == (
        f"no audio file downloads/cafe/Colère/03 (n).wav in {folder.parent.parent} (cafe.jsonl line 22)"
    )


def test_no_audio_at_all_is_an_error(folder: Path) -> None:
    (folder.parent.parent / "downloads").rename(folder.parent.parent / "elsewhere")
    with pytest.raises(
        InputError, match=r"no utterance of cafe can be used \(cafe-00 c: no audio file downloads/cafe/"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda rows: rows.append(rows[0]), "cafe.jsonl line 25: key 'cafe-00 c' already occurs in line 1"),
        (lambda rows: rows[1].pop("wav"), "cafe.jsonl line 2: no column 'wav'; it has 'key', 'dataset', 'type', "),
        (lambda rows: rows[1].update(emo=[]), "line 2: emo is []; it must be a string or an integer"),
        (lambda rows: rows[1].update(emo=" "), "line 2: has no key, wav and emo; get the file again"),
        (lambda rows: rows[1].update(key="a\nb"), r"line 2: key 'a\nb' contains a character that cannot be printed"),
        (lambda rows: [row.update(emo="j") for row in rows], "every label is 'j'; give a list of at least two classes"),
    ],
)
def test_a_damaged_list_is_an_error(folder: Path, how: Callable[[Rows], object], said: str) -> None:
    change(folder, how)
    with pytest.raises(InputError) as raised:
        read(folder)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_damage_is_an_error(folder: Path) -> None:
    with (folder / "cafe.jsonl").open("ab") as file:
        file.write(b'{"key": \n')
    with pytest.raises(InputError, match=r"cafe.jsonl line 25: not JSON .*; write one object per line"):
        read(folder)
    (folder / "cafe.jsonl").write_bytes((folder / "cafe.jsonl").read_bytes() + b"\xff")
    with pytest.raises(InputError, match=r"cafe.jsonl: not UTF-8 \(byte \d+\)"):
        read(folder / "cafe.jsonl")


def test_a_damaged_map_or_a_key_in_two_splits_is_an_error(folder: Path) -> None:
    (folder / "label_map.json").write_text("[]")
    with pytest.raises(InputError, match=r"label_map.json: is damaged; it must map labels to names"):
        read(folder)
    test = (folder / "fold_1/cafe_test_fold_1.jsonl").read_text()
    with (folder / "fold_1/cafe_train_fold_1.jsonl").open("a") as file:
        file.write(test)
    with pytest.raises(InputError, match=r"fold_1.jsonl line \d+: key 'cafe-00 c' is also in t"):
        read(folder)


def test_one_list_of_a_fold_is_refused(folder: Path) -> None:
    path = folder / "fold_1/cafe_train_fold_1.jsonl"
    with pytest.raises(InputError, match=rf"lists one split of one fold; give the folder of the corpus, {folder}$"):
        read(path)


def test_a_key_that_only_a_fold_has_is_told(folder: Path) -> None:
    change(folder, lambda rows: rows.pop())
    assert "fold_1: 1 keys are not in cafe.jsonl: cafe-05 n" in read(folder).notes


def test_a_manifest_of_ours_stays_one(tmp_path: Path) -> None:
    clip = link(tmp_path / "b.wav", make_emobox(tmp_path / "E").parent.parent / "a_clip_of_emobox.wav")
    rows = [{"audio": clip.name, "text": "a", "label": label, "id": label} for label in ("x", "y")]
    write_rows(tmp_path / "m.jsonl", rows)
    assert read_manifest(tmp_path / "m.jsonl", name="mine").transcribed
