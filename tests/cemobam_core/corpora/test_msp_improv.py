from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from more_trees import make_msp_improv

from cemobam_core.corpora import CORPORA
from cemobam_core.corpora.msp_improv import COUNTS, read_msp_improv
from cemobam_core.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_msp_improv(tmp_path / "MSP-IMPROV")


def test_names_and_labels_give_everything(tree: Path) -> None:
    corpus = read_msp_improv(tree)
    assert corpus.class_names == CORPORA["msp-improv"].class_names == tuple(COUNTS)
    assert corpus.bad == ()
    assert Counter(u.label for u in corpus.utterances) == dict.fromkeys(COUNTS, 12)
    assert {u.session for u in corpus.utterances} == set("123456")
    by_id = {u.id: u for u in corpus.utterances}
    own, partner = by_id["MSP-IMPROV-S01A-F02-P-FM01"], by_id["MSP-IMPROV-S01A-F02-P-MF01"]
    assert (own.speaker, own.session, own.script, own.scenario) == ("F02", "2", "S01", "natural")
    assert (partner.speaker, partner.session) == ("M02", "2")
    assert own.text == "I’m late for class, anger 1."
    assert (own.activation, own.valence, own.dominance) == (2.2, 3.0, 2.8)
    assert by_id["MSP-IMPROV-S01A-F01-P-FM01"].activation is None  # NaN
    assert own.audio == tree / "session2/S01A/P/MSP-IMPROV-S01A-F02-P-FM01.wav"
    assert {u.id[20]: u.scenario for u in corpus.utterances} == {
        "P": "natural", "R": "scripted", "S": "improvised", "T": "improvised"
    }  # fmt: skip


def test_what_is_missing_and_left_out_is_told(tree: Path) -> None:
    shutil.rmtree(tree / "session4")
    corpus = read_msp_improv(tree)
    assert corpus.notes == (
        "40 of 7798 utterances: 10 of 792 anger, 10 of 2644 happiness, 10 of 3477 neutral, 10 of 885 sadness",
        "no turns of session 4",
        "left out, because they are not in the four classes: 12 other, 12 without agreement",
    )
    assert {b.reason for b in corpus.bad} == {"it has a label, but no WAV file"}


@pytest.mark.slow
def test_the_whole_release(tmp_path: Path) -> None:
    corpus = read_msp_improv(make_msp_improv(tmp_path / "MSP", counts={**COUNTS, "other": 85, "no agreement": 555}))
    assert corpus.notes == (
        "7798 of 7798 utterances: 792 anger, 2644 happiness, 3477 neutral, 885 sadness; complete",
        "left out, because they are not in the four classes: 85 other, 555 without agreement",
    )
    assert corpus.bad == ()


@pytest.mark.parametrize("transcripts", ["All_human_transcriptions", "Human_transcriptions/All_human_transcriptions"])
@pytest.mark.parametrize(("table", "audio"), [("Evaluation.txt", ""), ("Evalution.txt", "Audio")])
def test_other_places_make_no_difference(tree: Path, table: str, audio: str, transcripts: str) -> None:
    other = make_msp_improv(tree.parent / "x" / "MSP", table=table, audio=audio, transcripts=transcripts).parent
    usual = read_msp_improv(tree)
    assert [(u.id, u.text, u.label) for u in read_msp_improv(other).utterances] == [
        (u.id, u.text, u.label) for u in usual.utterances
    ]


def test_without_transcripts_it_is_read_and_says_so(tmp_path: Path) -> None:
    tree = make_msp_improv(tmp_path / "MSP", transcripts="")
    corpus = read_msp_improv(tree)
    assert not corpus.transcribed
    assert len(corpus.utterances) == 48
    assert f"no transcripts: there is no folder All_human_transcriptions in {tree}" in corpus.notes


def test_what_cannot_be_used_is_named(tree: Path) -> None:
    first = tree / "All_human_transcriptions/MSP-IMPROV-S01A-F01-P-FM01.txt"
    first.write_text("\n")
    (tree / "All_human_transcriptions/MSP-IMPROV-S01A-F02-P-FM01.txt").unlink()
    with (tree / "Evalution.txt").open("a") as table:
        table.write("\nUTD-IMPROV-S01A-F03-P-FM01.avi; H; A:1.0; V:1.0; D:1.0 ; N:1.0;")
        table.write("\nUTD-IMPROV-S01A-F04-P-FM01.avi; A; A:1.0; V:1.0; D:1.0 ; N:1.0;")  # the same label again
        table.write("\nUTD-IMPROV-S99.avi; H;")
        table.write("\nUTD-IMPROV-S20H-F04-P-FM77.avi; Q; A:1.0;")
    shutil.copy(
        tree / "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav", tree / "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM88.wav"
    )
    corpus = read_msp_improv(tree)
    lines = len((tree / "Evalution.txt").read_text().splitlines())
    assert [(b.id, b.reason) for b in corpus.bad] == [
        (f"Evalution.txt line {lines - 3}", "another label for S01A-F03-P-FM01"),
        (f"Evalution.txt line {lines - 1}", "not the label of a turn: 'UTD-IMPROV-S99.avi; H;'"),
        ("MSP-IMPROV-S01A-F01-P-FM01", "its transcript is empty"),
        ("MSP-IMPROV-S01A-F02-P-FM01", "it has a label, but no transcript"),
        ("MSP-IMPROV-S20H-F04-P-FM77", "unknown label 'Q'"),
    ]
    assert "1 WAV files without a label: MSP-IMPROV-S01A-F01-P-FM88" in corpus.notes


def test_another_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not MSP-IMPROV; it contains nothing, expected: Evalution.txt, session"):
        read_msp_improv(tmp_path)
