"""The classes that a corpus is reduced to: sets by name, lists of labels, and files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import make_esd, make_iemocap

from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.classes import chosen_classes, read_corpus, reduced
from cemobam_core.corpora.iemocap import COUNTS, IEMOCAP
from cemobam_core.corpora.utterances import BadUtterance, RawCorpus, Utterance
from cemobam_core.errors import InputError

ALL = ("anger", "joy", "calm", "fear")
LABELS = "the labels are 2 anger, 3 joy, 1 calm, 0 fear"


def corpus_of(labels: list[str], *, bad: tuple[BadUtterance, ...] = (), names: tuple[str, ...] = ALL) -> RawCorpus:
    """A corpus in memory with these labels."""
    return RawCorpus(
        name="mine",
        title="Mine",
        root=Path("mine"),
        class_names=names,
        utterances=tuple(
            Utterance(id=f"u{i:03d}", audio=Path(f"u{i}.wav"), text="Hm.", label=label)
            for i, label in enumerate(labels)
        ),
        notes=("a note",),
        bad=bad,
    )


@pytest.fixture
def raw() -> RawCorpus:
    return corpus_of(
        ["anger", "joy", "joy", "calm", "joy"], bad=(BadUtterance(id="b", reason="broken", label="anger"),)
    )


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_iemocap(
        tmp_path_factory.mktemp("IEMOCAP_full_release"), sessions=(1, 2), others=7, seconds=(0.01, 0.01)
    )


IN_RELEASE = (
    *("anger", "happiness", "excited", "neutral", "sadness"),
    *("frustration", "surprise", "fear", "disgust", "other"),
)


def totals() -> dict[str, int]:
    """Utterances of each label in the complete release of IEMOCAP."""
    return dict(zip(IN_RELEASE, (sum(numbers) for numbers in zip(*COUNTS.values(), strict=True)), strict=True))


@pytest.mark.parametrize(
    ("name", "classes", "total"),
    [
        ("4", ("anger", "happiness", "neutral", "sadness"), 5531),
        ("5", ("anger", "happiness", "neutral", "sadness", "frustration"), 7380),
        ("6", ("anger", "happiness", "neutral", "sadness", "frustration", "surprise"), 7487),
        ("erc", ("happiness", "sadness", "neutral", "anger", "excited", "frustration"), 7380),
    ],
)
def test_the_sets_of_iemocap(release: Path, name: str, classes: tuple[str, ...], total: int) -> None:
    assert sum(totals()[label] for labels in IEMOCAP.choices[name].values() for label in labels) == total
    corpus = read_corpus(IEMOCAP, release, name)
    assert corpus.class_names == classes
    assert {u.label for u in corpus.utterances} == set(classes)
    assert corpus.notes[0].startswith(f"{len(corpus.utterances)} of {total} utterances: ")
    assert any(note.startswith("session 1: ") for note in corpus.notes)
    assert ("excited" in corpus.reduction) == (name != "erc")
    assert "fear" in corpus.reduction.split("left out: ")[1]


def test_the_first_set_is_the_default_and_the_classes_of_the_published_files(release: Path) -> None:
    assert read_corpus(IEMOCAP, release) == read_corpus(IEMOCAP, release, "4")
    for corpus in CORPORA.values():
        first = next(iter(corpus.choices.values()))
        assert tuple(first) == corpus.class_names


def test_a_corpus_without_sets_has_one_of_all_its_classes(tmp_path: Path) -> None:
    esd = CORPORA["esd"]
    assert list(esd.choices) == ["5"]
    tree = make_esd(tmp_path, per_class=1, speakers=("0011",), seconds=(0.01, 0.01))
    whole = read_corpus(esd, tree)
    assert whole.reduction == "" and whole == read_corpus(esd, tree, "5")
    assert esd.reader and whole == esd.reader(tree)
    two = read_corpus(esd, tree, "sad,happy")
    assert two.class_names == ("sad", "happy")
    assert two.reduction == "classes: left out: 1 neutral, 1 angry, 1 surprise"


def test_a_complete_release_is_called_complete_for_each_set() -> None:
    labels = [
        (session, label)
        for session, numbers in COUNTS.items()
        for label, n in zip(IN_RELEASE, numbers, strict=True)
        for _ in range(n)
    ]
    whole = RawCorpus(
        name="iemocap", title="IEMOCAP", root=Path("x"), class_names=IN_RELEASE,
        utterances=tuple(
            Utterance(id=f"{i:05d}", audio=Path("x.wav"), text="x", label=label, session=session)
            for i, (session, label) in enumerate(labels)
        ),
        release={s: dict(zip(IN_RELEASE, numbers, strict=True)) for s, numbers in COUNTS.items()},
    )  # fmt: skip
    four = reduced(whole, IEMOCAP.choices["4"])
    assert four.notes == ("5531 of 5531 utterances: 1103 anger, 1636 happiness, 1708 neutral, 1084 sadness; complete",)
    assert four.reduction == (
        "classes: happiness = 595 happiness + 1041 excited; "
        "left out: 1849 frustration, 107 surprise, 40 fear, 3 other, 2 disgust"
    )
    for name, classes in IEMOCAP.choices.items():
        (note,) = reduced(whole, classes).notes
        assert note.endswith("; complete"), name
    assert reduced(whole, {name: (name,) for name in IN_RELEASE}).reduction == ""


def test_a_file_merges_renames_and_leaves_out(raw: RawCorpus, tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("label,class\njoy,bright\ncalm,bright\nanger,dark\nfear,\n")
    corpus = reduced(raw, chosen_classes(raw, str(path), {}))
    assert corpus.class_names == ("bright", "dark")
    assert [u.label for u in corpus.utterances] == ["dark", "bright", "bright", "bright", "bright"]
    assert corpus.reduction == "classes: bright = 3 joy + 1 calm, dark = 1 anger"
    assert corpus.notes == ("a note",)
    assert corpus.bad == (BadUtterance(id="b", reason="broken", label="dark"),)


@pytest.mark.parametrize(
    "text",
    [
        "label,class\nanger,anger\njoy,joy\ncalm,\n",
        "\ufeffLabel;Class\r\nAnger;anger\r\n\r\n JOY ; joy\r\ncalm;\r\n",
        'class\tcomment\tlabel\nanger\t"as it is"\tanger\njoy\t\tjoy\n\t\tcalm\n',
    ],
)
def test_as_spreadsheets_write_it(raw: RawCorpus, tmp_path: Path, text: str) -> None:
    path = tmp_path / "classes.CSV"
    path.write_text(text, encoding="utf-8")
    assert chosen_classes(raw, str(path), {}) == {"anger": ("anger",), "joy": ("joy",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column 'label'; it has nothing; required are label, class"),
        ("anger,anger\n", "line 1: no column 'label'; it has 'anger', 'anger'; required are"),
        ("label,class,class\n", "line 1: several columns 'class'; keep one of them"),
        ("label,class\nanger,a\njoy\n", "line 3: 1 values for 2 columns; give one for each"),
        ("label,class\nanger,a\n,b\n", "line 3: no label for class 'b'"),
        ("label,class\nanger,a\nang,b\n", f"3: 'ang' is not a label of Mine; correct it or delete the line; {LABELS}"),
        ("label,class\nanger,a\n\nAnger,b\n", "line 4: label 'anger' already occurs in line 2; keep one"),
        ("label,class\nanger,a\njoy,A\n", "line 3: class 'A' and 'a' differ only in case; use one of them"),
        (
            "label,class\nanger,a\njoy,b\n",
            "does not mention 'calm'; add a line with the label and its class, or with the label and an empty class to "
            f"leave it out; {LABELS}",
        ),
        ("label,class\nanger,a\njoy,a\ncalm,\n", f"the only class is 'a'; give at least two classes; {LABELS}"),
        ("label,class\nanger,\njoy,\ncalm,\n", "no class; give at least two classes"),
        (
            "label,class\nanger,a\njoy,b\ncalm,b\nfear,c\n",
            f"line 5: no utterance of class 'c' can be used; leave the class empty; {LABELS}",
        ),
        ('label,class\n"anger,a\n', "cannot be read as CSV"),
        ("label,class\nanger,a\x07\n", "line 2: class 'a\\x07' contains a character that cannot be printed"),
    ],
)  # fmt: skip
def test_a_file_with_a_mistake(raw: RawCorpus, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        chosen_classes(raw, str(path), {})
    assert str(error.value).startswith(str(path))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(raw: RawCorpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.csv: cannot be read \(No such file or directory\); check the path"):
        chosen_classes(raw, str(tmp_path / "nowhere.csv"), {})
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder.csv: is a folder; give a regular file"):
        chosen_classes(raw, str(tmp_path / "folder.csv"), {})
    (tmp_path / "old.csv").write_bytes(b"label,class\nanger,w\xfctend\n")
    with pytest.raises(InputError, match=r"old.csv: not UTF-8 \(byte 19\); save it"):
        chosen_classes(raw, str(tmp_path / "old.csv"), {})


def test_a_list_keeps_these_labels_in_its_order(raw: RawCorpus) -> None:
    corpus = reduced(raw, chosen_classes(raw, "joy, Anger", {}))
    assert corpus.class_names == ("joy", "anger")
    assert [u.id for u in corpus.utterances] == ["u000", "u001", "u002", "u004"]
    assert corpus.reduction == "classes: left out: 1 calm"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("7", f"--classes 7: no such classes; give one of the sets of Mine (4, 5), labels such as anger,joy, or a "
         f".csv file with the columns label and class; {LABELS}"),
        ("anger", "--classes anger: no such classes; give"),
        ("", "--classes : no such classes; give"),
        ("classes.json", "--classes classes.json: no such classes"),
        ("anger,jy", f"--classes anger,jy: 'jy' is not a label of Mine; {LABELS}"),
        ("anger,", "--classes anger,: '' is not a label"),
        ("anger,joy,anger", "--classes anger,joy,anger: anger occurs twice; give each label once"),
        ("anger,fear", "--classes anger,fear: no utterance of fear can be used; leave it out"),
    ],
)  # fmt: skip
def test_a_value_with_a_mistake(raw: RawCorpus, value: str, message: str) -> None:
    sets = {"4": {name: (name,) for name in ALL}, "5": {name: (name,) for name in ALL}}
    with pytest.raises(InputError) as error:
        chosen_classes(raw, value, sets)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_many_labels_are_not_all_listed() -> None:
    names = tuple(f"label {i}" for i in range(50))
    with pytest.raises(InputError, match=r"1 label 19 and 30 more$"):
        chosen_classes(corpus_of(list(names), names=names), "x", {})


def test_bad_utterances_count_only_if_their_label_has_a_class(raw: RawCorpus) -> None:
    unknown = BadUtterance(id="c", reason="unknown label 'x'")
    fear = BadUtterance(id="d", reason="no WAV file", label="fear")
    corpus = reduced(corpus_of(["joy", "calm"], bad=(*raw.bad, unknown, fear)), {"joy": ("joy",), "fear": ("fear",)})
    assert corpus.bad == (unknown, fear)
    assert corpus.reduction == "classes: left out: 1 anger, 1 calm"


def test_nothing_that_belongs_to_a_class(raw: RawCorpus) -> None:
    with pytest.raises(InputError, match=f"mine: no utterance belongs to the classes a, b; {LABELS}"):
        reduced(raw, {"a": ("fear",), "b": ("boredom",)})


def test_a_release_without_wav_files_of_other_labels_has_no_bad_utterance(tmp_path: Path) -> None:
    tree = make_iemocap(tmp_path, sessions=(1,), others=6, seconds=(0.01, 0.01))
    four = read_corpus(IEMOCAP, tree)
    used = {u.audio for u in four.utterances}
    for wav in tree.glob("Session*/sentences/wav/*/Ses*.wav"):
        if wav not in used:
            wav.unlink()
    assert read_corpus(IEMOCAP, tree) == four and four.bad == ()
    five = read_corpus(IEMOCAP, tree, "5")
    assert [b.label for b in five.bad] == ["frustration", "frustration"]


@given(
    labels=st.lists(st.sampled_from(ALL), min_size=1, max_size=30),
    class_of=st.dictionaries(st.sampled_from(ALL), st.sampled_from("xyz")),
)
def test_exactly_the_utterances_whose_label_has_a_class_are_kept_in_order(
    labels: list[str], class_of: dict[str, str]
) -> None:
    names = dict.fromkeys(class_of.values())
    classes = {name: tuple(label for label in class_of if class_of[label] == name) for name in names}
    whole = corpus_of(labels)
    kept = [(u.id, class_of[u.label]) for u in whole.utterances if u.label in class_of]
    if not kept:
        with pytest.raises(InputError, match="no utterance belongs"):
            reduced(whole, classes)
        return
    corpus = reduced(whole, classes)
    assert [(u.id, u.label) for u in corpus.utterances] == kept
    assert corpus.class_names == tuple(classes)
    told = corpus.reduction.partition("left out: ")[2]
    out = Counter(label for label in labels if label not in class_of)
    order = sorted(out, key=lambda label: (-out[label], ALL.index(label)))
    assert told == ", ".join(f"{out[label]} {label}" for label in order)


def test_the_documentation_has_these_counts_and_a_file_that_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "corpus.md").read_text(encoding="utf-8")
    assert f"| session | {' | '.join(IN_RELEASE)} |" in page
    for session, numbers in COUNTS.items():
        assert f"| {session} | {' | '.join(map(str, numbers))} |" in page
    assert f"| all | {' | '.join(map(str, totals().values()))} |" in page
    path = tmp_path / "mine.csv"
    path.write_text(page.split("```csv\n")[1].split("```")[0])
    classes = chosen_classes(corpus_of(list(IN_RELEASE), names=IN_RELEASE), str(path), {})
    assert list(classes) == ["negative", "positive"]
