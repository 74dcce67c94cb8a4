"""Tables that say where a study errs, and the vote of the seeds as one more row."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from predicted import CLASSES, results_of

from study.findings.analysis import Analysis
from study.findings.calibration import measured
from study.findings.errors import Errors
from study.findings.results import Results
from study.output.error_tables import (
    SHOWN_HARD,
    calibration_table,
    errors_table,
    hard_table,
    no_hard_sentence,
)
from study.output.tables import Cell, Table, block_table
from study.papers.cemobam.published import published

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 60)


def labelled(share: float, seeds: int = 5) -> list[list[int]]:
    """Labels of which about this share is right, differently for each seed."""
    wrong = RNG.random((seeds, len(LABELS))) > share
    return np.where(wrong, (LABELS + RNG.integers(1, 4, wrong.shape)) % 4, LABELS).tolist()


def a_study(seeds: int = 5, **known: object) -> Results:
    predicted = {name: labelled(share, seeds) for name, share in (("cls", 0.5), ("min", 0.6), ("max", 0.9))}
    return results_of(predicted, LABELS.tolist(), **known)  # type: ignore[arg-type]


def fusion_table(results: Results, *, beside: bool = False) -> Table:
    block = results.about.block("fusion")
    assert block
    return block_table(Analysis(results), block, published("table1", "iemocap") if beside else None)


@pytest.mark.parametrize("beside", [False, True])
def test_the_vote_is_one_more_row_that_takes_nothing_from_the_others(beside: bool) -> None:
    results = a_study()
    without = fusion_table(Results(about=results.about, trials=results.trials), beside=beside)
    table = fusion_table(results, beside=beside)
    assert table.cells[:-1] == without.cells
    assert table.caption == without.caption
    notes = [note.replace("another seed and other utterances", "another seed") for note in table.notes]
    assert notes[: len(without.notes)] == list(without.notes)
    pd.testing.assert_frame_equal(table.frame.iloc[:-1], without.frame)
    label, *cells = table.rows[-1]
    assert label == Cell("MIN, vote of 5 seeds", mark="‡")
    assert not any(cell.bold or cell.mark for cell in cells)
    assert len(cells) == len(table.rows[0]) - 1
    row = table.frame.iloc[-1]
    assert (row["fusion"], row["n_seeds"]) == ("min vote", 5)
    assert np.isnan(row[["wa_std", "wa_low", "wa_high"]].astype(float)).all()
    assert cells[0].text == f"{row['wa_mean']:.2f}"
    assert row["wa_mean"] > 60
    note = table.notes[-1]
    gain = row["wa_mean"] - table.frame.set_index("fusion").loc["min", "wa_mean"]
    assert note.startswith("‡ The label that most of the 5 seeds give.")
    assert (
        f"Compared with the mean of these seeds: WA {gain:.1f} points more (95% interval for other utterances +" in note
    )
    assert (
        "needs 5 trainings and 5 evaluations instead of one. It is not a mean, so it has no interval over seeds."
        in note
    )


def test_the_vote_in_every_form(tmp_path: Path) -> None:
    table = fusion_table(a_study())
    csv, markdown, latex = (path.read_text() for path in table.write(tmp_path))
    assert "\nmin vote,5," in csv
    assert "| MIN, vote of 5 seeds‡ |" in markdown
    assert "MIN, vote of 5 seeds$^{\\ddagger}$ & " in latex
    assert "$\\ddagger$ The label that most" in latex
    assert "‡" not in latex


def test_two_seeds_have_no_vote() -> None:
    assert len(fusion_table(a_study(seeds=2)).frame) == 4  # the fusions


def test_recall_is_told_with_its_interval_and_its_number() -> None:
    speakers = ["Ann", "Bob"] * 30
    results = a_study(speakers=speakers)
    table = errors_table(Errors(results).recalls, results.about)
    assert table
    labels = [row[0].text for row in table.rows]
    assert labels[:4] == [f"class {name}" for name in CLASSES]
    assert set(labels[4:]) == {"speaker Ann", "speaker Bob"}
    frame = table.frame.set_index("group")
    expected = np.mean(np.array(results.kept.predicted[5:10] == LABELS)[:, LABELS == 0])  # type: ignore[union-attr]
    assert frame.loc["anger", "recall"] == pytest.approx(100 * expected)
    assert table.rows[0][1].text.startswith(f"{100 * expected:.2f} [")
    assert table.rows[0][2].text == str((LABELS == 0).sum())
    assert "another seed and other utterances" in table.notes[0]
    assert "other speakers" not in table.notes[0]


def test_few_seeds_and_few_utterances_are_said() -> None:
    results = a_study(seeds=2)
    table = errors_table(Errors(results).recalls, results.about)
    assert table
    assert "interval" not in table.caption
    assert "A mean over fewer than 3 seeds has no interval" in table.notes[0]
    assert not any("[" in cell.text for row in table.rows for cell in row)
    speakers = ["Ann"] * 56 + ["Bob"] * 4
    few = errors_table(Errors(a_study(speakers=speakers)).recalls, results.about)
    assert few
    assert "A group of fewer than 5 utterances has no interval." in few.notes


def test_speakers_are_capped_and_the_csv_has_all() -> None:
    results = a_study(speakers=[f"s{i % 30}" for i in range(60)])
    table = errors_table(Errors(results).recalls, results.about)
    assert table
    assert len(table.rows) == 4 + 20
    assert (table.frame["by"] == "speaker").sum() == 30
    assert table.notes[-1] == "Of the 30 groups by speaker the 10 worst and the 10 best are shown; the csv has all."
    assert "those by class hold for other speakers too" in table.notes[0]


def test_hard_utterances_are_candidates_and_the_csv_has_all() -> None:
    results = results_of({"min": [[1] * 30 + [0] * 30] * 10}, [0] * 60)
    hard = Errors(results).hard
    table = hard_table(hard, results.about)
    assert table
    assert len(table.rows) == SHOWN_HARD
    assert len(table.frame) == 30
    assert [cell.text for cell in table.rows[0]] == ["u0", "anger", "happiness 100%", "100%", "10"]
    assert table.caption.startswith("Hard utterances: 30 of 60 test utterances")
    assert "no proof" in table.notes[0]
    assert "the csv has all 30" in table.notes[1]
    assert no_hard_sentence(hard) == ""


def test_no_hard_utterance_is_a_sentence_and_no_predictions_are_nothing() -> None:
    results = results_of({"min": [[0, 0]] * 10}, [0, 0])
    hard = Errors(results).hard
    assert hard_table(hard, results.about) is None
    assert no_hard_sentence(hard).startswith("No test utterance of 2 is mislabelled by at least 90% of its trials")
    assert hard_table(None, results.about) is None
    assert no_hard_sentence(None) == ""
    assert errors_table([], results.about) is None
    assert calibration_table(None, results.about) is None


def test_calibration_says_that_its_intervals_are_over_seeds() -> None:
    results = a_study()
    right = np.array([[0.9, 0.1], [0.6, 0.4]])
    made = measured({seed: (right + np.array([[-0.01, 0.01]]) * seed, np.array([0, 1])) for seed in range(5)})
    table = calibration_table(made, results.about)
    assert table
    texts = {row[0].text: row[1].text for row in table.rows}
    assert texts["accuracy (%)"] == "50.00 ± 0.00"
    assert texts["mean confidence (%)"] == "73.00 ± 1.96"  # 75, 74, 73, 72, 71
    assert texts["confidence − accuracy (points)"].startswith("+23.0 [+21.0, +25.0]")
    assert "for another seed on the same test utterances" in table.notes[1]
    assert table.frame["overconfidence"].tolist() == pytest.approx([25, 24, 23, 22, 21])
    two = calibration_table(replace(made, seeds=made.seeds.head(2)), results.about)
    assert two
    assert "95%" not in two.caption
    assert not any("±" in row[1].text for row in two.rows)


NASTY = "50% of $x_1 & \\input{secret} | <b>" + "n" * 300


@pytest.mark.latex
def test_the_tables_fit_a_paper(tmp_path: Path) -> None:
    results = results_of(
        {"min": labelled(0.05), "max": labelled(0.05)}, LABELS.tolist(), speakers=[f"{NASTY} {i}" for i in range(60)],
        class_names=[f"{i} {NASTY}" for i in range(4)], ids=[f"{NASTY} {i}" for i in range(60)],
        seconds=np.arange(60).tolist(),
    )  # fmt: skip
    calibration = measured({seed: (np.full((8, 4), 0.25), np.arange(8) % 4) for seed in range(5)})
    tables = [
        fusion_table(a_study()),
        replace(fusion_table(a_study(), beside=True), name="beside"),
        errors_table(Errors(results).recalls, results.about),
        hard_table(Errors(results).hard, results.about),
        calibration_table(calibration, results.about),
    ]
    inputs = ""
    for table in tables:
        assert table
        table.write(tmp_path)
        inputs += rf"See Table~\ref{{tab:{table.name}}}. \input{{{table.name}}}"
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[journal]{IEEEtran}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}"
        rf"\title{{A paper}}\maketitle {inputs} \end{{document}}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, done.stdout


def test_the_vote_of_a_block_over_numbers_and_several_columns(tmp_path: Path) -> None:
    results = a_study()
    block = results.about.block("fusion")
    assert block
    over = replace(block, columns=("k_audio", "fusion"), labels={})
    results = replace(results, about=replace(results.about, blocks=(over,)))
    table = block_table(Analysis(results), over)
    assert table.rows[-1][0].text == "8, min, vote of 5 seeds"
    assert table.frame.iloc[-1][["k_audio", "fusion", "n_seeds"]].tolist() == ["8 vote", "min", 5]
    assert table.frame["k_audio"].tolist()[:-1] == [8] * 4
    read = pd.read_csv(table.write(tmp_path)[0])
    assert read["n_seeds"].tolist() == [5, 5, 5, 0, 5]
    assert read["k_audio"].tolist() == ["8"] * 4 + ["8 vote"]
