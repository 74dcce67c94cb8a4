from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from iemocap_counts import CLASSES, TESTED, TURNS, true_size
from trees import make_esd, make_iemocap

from cemobam_core import FeatureSet, InputError
from cemobam_core.corpora.classes import read_corpus
from cemobam_core.corpora.columns import Columns
from cemobam_core.corpora.esd import read_esd
from cemobam_core.corpora.iemocap import COUNTS, IEMOCAP
from cemobam_core.corpora.leaks import leaks
from cemobam_core.corpora.protocols import PROTOCOLS, default_protocol, is_drawn
from cemobam_core.corpora.sentences import sentence
from cemobam_core.corpora.splits import Assignment, load_folds, split, split_utterances, splits_fingerprint
from cemobam_core.corpora.utterances import RawCorpus, Utterance
from study.commands.options import CORPUS

SHARED = Path(__file__).resolve().parents[4] / "shared"
_SEED = st.integers(0, 2**32 - 1)


def corpus_of(*utterances: Utterance) -> RawCorpus:
    names = tuple(sorted({u.label for u in utterances}))
    return RawCorpus(name="mine", title="mine", root=Path("corpus"), class_names=names, utterances=utterances)


def turn(i: int, label: object, **known: object) -> Utterance:
    given_text = {"text": f"Sentence {i}", **known}
    return Utterance(id=f"u{i:04d}", audio=Path(f"u{i}.wav"), label=f"class_{label}", **given_text)  # type: ignore[arg-type]


def shared(sessions: int, each: int, sentences: int, scripts: int, seed: int) -> RawCorpus:
    """Return a corpus of sessions with two speakers each, who share sentences and scripts in any way."""
    rng = np.random.default_rng(seed)
    utterances = [
        turn(
            i,
            c,
            speaker=f"s{2 * session + who}",
            session=f"{session + 1}",
            text=f"Words {rng.integers(sentences)}{'!' * int(rng.integers(2))}",
            script=f"scene {rng.integers(scripts)}",
        )
        for i, (session, who, c, _) in enumerate(np.ndindex(sessions, 2, 3, each))
    ]
    return corpus_of(*utterances)


def parts_of(fold: Assignment) -> list[set[str]]:
    return [{u.id for u in part} for part in fold.splits.values()]


def groups_of(fold: Assignment, column: str) -> list[set[str]]:
    of = (lambda u: sentence(u.text)) if column == "text" else (lambda u: getattr(u, column))
    return [{of(u) for u in part} for part in fold.splits.values()]


_POOL = st.sampled_from([8, 20, 60, 200, 600, 2000])
_SIZES = st.tuples(st.integers(3, 6), st.integers(4, 8), _POOL, _POOL, _SEED)
_ALL = ["random:80/10/10", "speaker", "speaker-N", "session", "session-val", "text", "script", "official"]
_FILTERS = ["", "+text", "+script", "+text+script"]


@given(sizes=_SIZES, first=st.sampled_from(_ALL), filters=st.sampled_from(_FILTERS), seed=_SEED)
def test_splits_are_disjoint_whole_grouped_repeatable_and_independent_of_order(
    sizes: tuple[int, int, int, int, int], first: str, filters: str, seed: int
) -> None:
    assume(f"+{first}" not in filters)
    corpus = shared(*sizes)
    speakers = len({u.speaker for u in corpus.utterances})
    plain = first.replace("speaker-N", f"speaker-{speakers}")
    said = [("train", "test", "train", "train")[i % 4] for i in range(len(corpus.utterances))]
    official = [replace(u, splits=(one,)) for u, one in zip(corpus.utterances, said, strict=True)]
    corpus = replace(corpus, utterances=tuple(official))
    lines: list[str] = []
    try:
        folds = split_utterances(corpus, plain + filters, seed, say=lines.append)
    except InputError as error:  # too little is left, or a class is missing in a split
        assert any(why in str(error) for why in ("because", "no utterance of class", "too few", "needs at least"))
        return
    everyone = {u.id for u in corpus.utterances}
    for fold in folds:
        train, val, test = parts_of(fold)
        assert not (train & val or train & test or val & test)
        assert train | val | test <= everyone
        assert filters or train | val | test == everyone
        for column in ("text", "script", "speaker"):
            if column in (plain, *filters.split("+")):
                one, two, three = groups_of(fold, column)
                assert not (one & two or one & three or two & three), column
    # the same seed gives the same split, whatever the order of the utterances
    order = np.random.default_rng(seed).permutation(len(official))
    shuffled = replace(corpus, utterances=tuple(official[i] for i in order))
    assert splits_fingerprint(split_utterances(shuffled, plain + filters, seed)) == splits_fingerprint(folds)
    # a filter takes nothing from test, and adds nothing to train and val
    if filters:
        for fold, whole in zip(folds, split_utterances(corpus, plain, seed), strict=True):
            assert fold.test == whole.test
            assert set(fold.train) <= set(whole.train) and set(fold.val) <= set(whole.val)
            assert 2 * len(fold.val) >= len(whole.val)
        assert len(lines) == 1 + filters.count("+")
    if first in ("session", "session-val") or first == "speaker-N":
        assert sorted(u.id for fold in folds for u in fold.test) == sorted(everyone)


def test_what_a_filter_leaves_out_is_said_with_numbers() -> None:
    rows = [turn(i, i % 2, session=str(i // 20), text=f"Words {i}") for i in range(60)]
    rows[0] = replace(rows[0], text="It is late")
    rows[25] = replace(rows[25], text="it’s late")  # another sentence
    rows[30] = replace(rows[30], text="It is LATE!")
    lines: list[str] = []
    folds = split_utterances(corpus_of(*rows), "session-val+text", say=lines.append)
    # Utterance 0 tests in fold 0 and 30 validates there; in fold 1, 30 tests and 0 learns; in fold 2, 0 validates
    # and 30 learns.
    assert lines[1] == (
        "left out: 2 of 60 train utterances with a sentence in val or test and 1 of 60 val utterances with a sentence "
        "in test (over 3 folds)"
    )
    left = [sorted({u.id for u in rows} - set().union(*parts_of(fold))) for fold in folds]
    assert left == [["u0030"], ["u0000"], ["u0030"]]
    assert not any(leak.shared for leak in leaks(*folds) if leak.what == "sentences")


def test_esd_without_shared_sentences_is_refused_with_what_to_do(tmp_path: Path) -> None:
    esd = read_esd(make_esd(tmp_path, per_class=10, seconds=(0.01, 0.01)))
    with pytest.raises(
        InputError,
        match=r"speaker\+text leaves 0 of 400 train utterances, because val or test has the sentence of the others; "
        "use text alone, or speaker, whose shared sentences every run reports, or choose the utterances yourself with "
        "--split-file",
    ):
        split_utterances(esd, "speaker+text")
    (fold,) = split_utterances(esd, "text")
    assert [len(part) for part in fold.splits.values()] == [400, 50, 50]  # each sentence is read by all
    assert [leak.shared for leak in leaks(fold) if leak.what == "sentences"] == [0, 0]


def test_a_transcript_without_words_is_a_sentence_of_its_own() -> None:
    rows = [turn(i, i % 2, text="…" if i < 30 else f"Words {i}") for i in range(60)]
    (fold,) = split_utterances(corpus_of(*rows), "text")
    assert [len(part) for part in fold.splits.values()] == [48, 6, 6]


# -- IEMOCAP's true numbers -------------------------------------------------------------------------------------------


def test_the_true_numbers_are_those_of_the_release() -> None:
    corpus = true_size()
    assert len(corpus.utterances) == 5531
    for session, numbers in COUNTS.items():
        counts = Counter(u.label for u in corpus.utterances if u.session == session)
        anger, happiness, excited, neutral, sadness, *_ = numbers
        assert tuple(counts[label] for label in CLASSES) == (anger, happiness + excited, neutral, sadness)


@pytest.mark.parametrize("seed", [0, 5])
def test_leave_one_session_out_tests_what_the_field_tests(seed: int) -> None:
    folds = split_utterances(true_size(), "session", seed)
    assert tuple(len(fold.test) for fold in folds) == TESTED
    for i, fold in enumerate(folds):
        assert {u.session for u in fold.test} == {str(i + 1)}
        assert {u.session for u in fold.val} == {u.session for u in fold.train} == set("12345") - {str(i + 1)}
        assert len(fold.val) == round((5531 - TESTED[i]) / 5)
        shares = Counter(u.label for u in fold.val), Counter(u.label for u in (*fold.val, *fold.train))
        assert all(abs(shares[0][label] - shares[1][label] / 5) < 1 for label in CLASSES)
    assert [fold.test for fold in folds] == [fold.test for fold in split_utterances(true_size(), "session", 99)]
    assert folds[0].val != split_utterances(true_size(), "session", seed + 1)[0].val


def test_the_next_session_validates_with_session_val() -> None:
    folds = split_utterances(true_size(), "session-val")
    assert tuple(len(fold.test) for fold in folds) == TESTED
    assert [len(fold.val) for fold in folds] == [*TESTED[1:], TESTED[0]]


def test_each_of_the_ten_speakers_tests_once_and_the_other_of_the_session_validates() -> None:
    folds = split_utterances(true_size(), "speaker-10")
    numbers = {who: sum(map(sum, scripts.values())) for who, scripts in TURNS.items()}
    assert [len(fold.test) for fold in folds] == [528, 557, 481, 542, 522, 629, 528, 503, 590, 651]
    assert [len(fold.test) for fold in folds] == list(numbers.values())
    for fold, who in zip(folds, TURNS, strict=True):
        other = who[:-1] + ("M" if who.endswith("F") else "F")
        assert {u.speaker for u in fold.test} == {who}
        assert {u.speaker for u in fold.val} == {other} and len(fold.val) == numbers[other]
        assert len({u.speaker for u in fold.train}) == 8


@pytest.mark.parametrize("seed", range(4))
def test_of_iemocaps_ten_speakers_one_tests_and_one_validates(seed: int) -> None:
    (fold,) = split_utterances(true_size(), "speaker", seed)
    assert [len(speakers) for speakers in groups_of(fold, "speaker")] == [8, 1, 1]


def test_another_seed_tests_another_speaker() -> None:
    assert len({split_utterances(true_size(), "speaker", seed)[0].test[0].speaker for seed in range(10)}) >= 4


@pytest.mark.parametrize("seed", range(4))
def test_scripts_of_unequal_size_are_split_as_evenly_as_they_can_be(seed: int) -> None:
    lines: list[str] = []
    (fold,) = split_utterances(true_size(), "script", seed, say=lines.append)
    scripts = groups_of(fold, "script")
    assert sum(map(len, scripts)) == 11 == len(set.union(*scripts))
    for part, (low, high) in zip(fold.splits.values(), ((0.6, 0.85), (0.08, 0.22), (0.08, 0.22)), strict=True):
        assert low < len(part) / 5531 < high
        assert min(Counter(u.label for u in part)[label] for label in CLASSES) >= 25
    assert f"train {len(fold.train)} ({len(fold.train) / 5531:.0%}), val {len(fold.val)} (" in lines[0]


@pytest.mark.parametrize("first", ["speaker", "session", "session-val", "random:80/10/10"])
def test_every_script_of_iemocap_is_played_by_all(first: str) -> None:
    with pytest.raises(InputError, match=r"\+script leaves \d+ of \d+ train utterances, .* the script of the others"):
        split_utterances(true_size(), f"{first}+script")


@pytest.mark.slow
def test_a_release_of_the_true_size_is_split_alike(tmp_path: Path) -> None:
    corpus = read_corpus(IEMOCAP, make_iemocap(tmp_path, per_speaker=TURNS, others=0, seconds=(0.001, 0.001)))
    assert len(corpus.utterances) == 5531
    assert Counter(u.script for u in corpus.utterances) == Counter(u.script for u in true_size().utterances)
    for protocol in ("session", "session-val", "speaker-10", "script"):
        sizes = [
            [len(part) for fold in split_utterances(one, protocol) for part in fold.splits.values()]
            for one in (corpus, true_size())
        ]
        assert protocol == "script" or sizes[0] == sizes[1]
        assert sum(sizes[0]) == 5531 * {"session": 5, "session-val": 5, "speaker-10": 10, "script": 1}[protocol]


@pytest.mark.parametrize("protocol", ["session", "speaker-10"])
def test_real_utterances(protocol: str) -> None:
    path = SHARED / "released" / "features" / "IEMOCAP_551.safetensors"
    if not path.exists():
        pytest.skip(f"the released features are not at hand ({path.name} beside the checkout)")
    features = FeatureSet.load(path)
    folds = load_folds(path, protocol=protocol)
    column = {"session": "sessions", "speaker-10": "speakers"}[protocol]
    tested = [set(getattr(fold.test, column)) for fold in folds]
    assert len(folds) == {"session": 5, "speaker-10": 10}[protocol]
    assert all(len(one) == 1 for one in tested)
    assert sorted(key for fold in folds for key in fold.test.utterance_ids) == sorted(features.utterance_ids)
    for fold in folds:
        assert sum(map(len, fold.splits.values())) == 551
        assert not set(getattr(fold.train, column)) & set(getattr(fold.test, column))
        assert set(fold.test.sessions or ()) == set(fold.val.sessions or ()) or protocol == "session"


# -- speaker-N --------------------------------------------------------------------------------------------------------


def of_speakers(*speakers: tuple[str, str | None]) -> RawCorpus:
    return corpus_of(*(turn(i, i % 2, speaker=who, session=s) for i, (who, s) in enumerate(speakers * 4)))


PAIRS = tuple((f"s{i:02d}", str(i // 2)) for i in range(12) for _ in range(2))


def test_speaker_n_is_for_any_number_of_speakers() -> None:
    folds = split_utterances(of_speakers(*PAIRS), "speaker-12")
    assert [({u.speaker for u in f.test}, {u.speaker for u in f.val}) for f in folds[:3]] == [
        ({"s00"}, {"s01"}),
        ({"s01"}, {"s00"}),
        ({"s02"}, {"s03"}),
    ]


def test_without_sessions_the_next_speaker_validates() -> None:
    folds = split_utterances(of_speakers(*((who, None) for who, _ in PAIRS)), "speaker-12")
    assert [(f.test[0].speaker, f.val[0].speaker) for f in (folds[0], folds[1], folds[11])] == [
        ("s00", "s01"),
        ("s01", "s02"),
        ("s11", "s00"),
    ]


@pytest.mark.parametrize(
    ("speakers", "protocol", "message"),
    [
        (PAIRS, "speaker-10", "--split-protocol speaker-10: corpus has 12 speakers; use speaker-12"),
        (PAIRS[:4], "speaker-10", "corpus has 2 speakers; it needs at least three; use another protocol"),
        (PAIRS[:4], "speaker-2", "it needs at least three speakers"),
        (
            (*PAIRS, ("x", "0"), ("x", "0")),
            "speaker-13",
            r"session '0' has 3 speakers \(s00, s01, x\), but",
        ),
        ((*PAIRS, ("x", "9"), ("x", "9")), "speaker-13", r"session '9' has 1 speakers \(x\)"),
        ((*PAIRS, ("s00", "9"), ("x", "9")), "speaker-13", "speaker 's00' is in several sessions"),
        ((*PAIRS, ("s00", None)), "speaker-12", r"4 of 100 utterances have no session \(first 'u0024'\), which --spl"),
    ],
)
def test_what_speaker_n_needs_is_said(speakers: Sequence[tuple[str, str | None]], protocol: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_utterances(of_speakers(*speakers), protocol)


# -- official ---------------------------------------------------------------------------------------------------------


def of_splits(*splits: tuple[str, ...]) -> RawCorpus:
    return corpus_of(*(turn(i, i % 2, splits=one) for i, one in enumerate(splits)))


def test_official_does_as_the_corpus_says() -> None:
    said = ["train", "train", "test", "test", "val", "val", "train", "train"]
    corpus = of_splits(*((one,) for one in said))
    (fold,) = split_utterances(corpus)  # the default
    assert {name: {u.splits[0] for u in part} for name, part in fold.splits.items()} == {
        "train": {"train"},
        "val": {"val"},
        "test": {"test"},
    }
    assert default_protocol(Columns.of_corpus(corpus)) == "official"
    assert not is_drawn(Columns.of_corpus(corpus), "official")


def test_official_folds_without_val_draw_it_from_their_train_split() -> None:
    rows = [("train", "test") if i // 2 % 4 else ("test", "train") for i in range(60)]
    rows[7] = ("", "test")
    corpus = of_splits(*rows)
    assert is_drawn(Columns.of_corpus(corpus), "official+text")
    said: list[str] = []
    one, other = split_utterances(corpus, "official", 3, say=said.append)
    assert said[1] == "left out: 1 of 120 utterances, which are in no split (over 2 folds)"
    assert [len(part) for part in one.splits.values()] == [34, 9, 16]
    assert [len(part) for part in other.splits.values()] == [13, 3, 44]
    assert "u0007" not in set().union(*parts_of(one))
    assert {u.label for u in one.val} == {"class_0", "class_1"}
    assert split_utterances(corpus, "official", 4)[0].val != one.val
    assert split_utterances(corpus, "official", 4)[0].test == one.test


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            [()] * 6,
            "corpus: does not contain its splits, which --split-protocol official needs; list the co",
        ),
        (
            [("train",), (), ("val",), ("test",), ("val",), ()],
            r"2 of 6 utterances have no split \(first 'u0001'\), which --split-protocol official needs; fill it in",
        ),
        ([("train", "val"), ("test",)] * 3, r"3 of 6 utterances have no split \(first 'u0001'\)"),
        ([("train",)] * 6, "no utterance is in the split test; --split-protocol official needs some in train and in"),
        ([("train", ""), ("test", "test")] * 3, "no utterance is in the split train of fold 1"),
        (
            [("train",), ("train",), ("val",), ("val",), ("test",), ("val",)],
            r"official leaves no utterance of class 'class_1' in the test split \(1 utterances\); every split needs",
        ),
    ],
)
def test_official_needs_every_utterance_and_class_in_the_splits(splits: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_utterances(of_splits(*splits), "official")


# -- names ------------------------------------------------------------------------------------------------------------


def test_every_protocol_is_in_the_help() -> None:
    (option,) = (option for option in CORPUS if option.name == "split_protocol")
    assert len(PROTOCOLS) == 8
    assert all(name in option.help for name in PROTOCOLS)


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("random:80/10/10", True),
        ("speaker", True),
        ("speaker-10", False),
        ("speaker-10+text", False),
        ("session", True),
        ("session-val", False),
        ("session-val+script", False),
        ("text", True),
        ("script+text", True),
    ],
)
def test_the_seed_matters_for_what_is_drawn(name: str, drawn: bool) -> None:
    corpus = true_size()
    assert is_drawn(Columns.of_corpus(corpus), name) == drawn
    if not drawn and "+" not in name:
        first, second = (splits_fingerprint(split_utterances(corpus, name, seed)) for seed in (0, 1))
        assert first == second


def test_sentences_of_features_are_kept_together(make_features) -> None:
    texts = tuple(f"Sentence {i % 50}" for i in range(200))
    features = make_features(200, texts=texts)
    (fold,) = split(features, "text")
    assert [leak.shared for leak in leaks(fold) if leak.what == "sentences"] == [0, 0]
    assert sum(map(len, fold.splits.values())) == 200


@pytest.mark.parametrize("name", ["session", "session-val", "speaker-4"])
def test_folds_that_would_fill_the_memory_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = shared(4 if name != "speaker-4" else 2, 2, 100, 3, 0)
    assert split_utterances(corpus, name)
    monkeypatch.setattr("cemobam_core.corpora.protocols.protocol._MOST_ROWS", 4 * len(corpus.utterances) - 1)
    with pytest.raises(InputError, match=rf"corpus: --split-protocol {name} makes 4 folds of \d+ utterances; use"):
        split_utterances(corpus, name)
