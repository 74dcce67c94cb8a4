"""The comparison of systems: its table, its figures, and the table over several corpora."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from compared import EVERY, compared
from invented import demo_utterances
from matplotlib.figure import Figure
from test_blocks import ran

from study import Block
from study.commands import cemobam
from study.findings.analysis import Analysis
from study.findings.results import Results
from study.output.compare import compare, ranks_figure
from study.output.figures import drawings
from study.output.figures.comparison import Dots, comparison_figure
from study.output.report import make_report, plot_files, result_files
from study.papers.cemobam.published import published
from study.papers.cemobam.systems import parameters_cell, seconds_cell, systems_table

POINTS = {"cemobam": 3.0, "gcn": -3.0, "memocmt": 9.0, "server": -6.0, "svm": 3.0}
LEVELS = {name: (-40.0 if name == "prior" else 3.0 - i % 7) for i, name in enumerate(EVERY)}


def table_of(results: Results) -> Any:
    table = systems_table(Analysis(results))
    assert table
    return table


def test_both_halves_stand_side_by_side_sorted_by_what_is_measured() -> None:
    table = table_of(compared(POINTS))
    assert table.name == "table3"
    names = [row[0].text for row in table.rows]
    assert names[0] == "Khan (MemoCMT)"
    assert names[4] == "Pham (SERVER)"
    assert set(names[5:]) == {"Padi", "Priyasad", "Naderi", "Khan (AAD-Net)", "Kyung", "Nguyen (HuBERT-CLAP)"}
    frame = table.frame.set_index("runs_as")
    assert frame.loc["memocmt", ["wa_published", "ua_published", "year"]].tolist() == [81.85, 81.33, 2025]
    measured = compared(POINTS)
    own = measured.trials.query("system == 'memocmt'")
    assert frame.loc["memocmt", "wa"] == pytest.approx(100 * own["test_wa"].mean())
    assert frame.loc["gcn", "parameters"] == 2000
    assert np.isnan(frame.loc["svm", "parameters"])
    cells = {row[0].text: row for row in table.rows}
    assert [cell.text for cell in cells["gcn"][-6:]] == ["2k", "1", "", "", "", ""]
    assert cells["Pham (SERVER)"][-1].text == "random 80/20, 4 classes"
    assert cells["Kyung"][-1].text == "not stated"
    assert all(cell.text == "" for cell in cells["Kyung"][1:-4])


def test_differences_are_to_cemobam_and_marked_after_holm() -> None:
    results = compared(POINTS)
    table, analysis = table_of(results), Analysis(results)
    frame, cells = table.frame.set_index("runs_as"), {row[0].text: row for row in table.rows}
    family = {c.second: c for c in analysis.of("systems")["wa"]}  # its reference is CemoBAM
    for name, c in family.items():
        assert frame.loc[name, "difference"] == pytest.approx(-100 * c.difference.mean)
        assert frame.loc[name, "difference_low"] == pytest.approx(-100 * c.difference.high)
        assert frame.loc[name, "p_holm"] == pytest.approx(c.p_holm)
        shown = {"memocmt": "Khan (MemoCMT)", "server": "Pham (SERVER)"}.get(name, name)
        assert (cells[shown][4].mark == "*") == (c.p_holm < 0.05)
    assert cells["CemoBAM"][4].text == ""
    assert "Holm's correction over 4" in " ".join(table.notes)


def test_tuned_systems_have_their_defaults_beside_them() -> None:
    results = compared(POINTS, tuned={name: x + 2 for name, x in POINTS.items()})
    table = table_of(results)
    assert table.groups[0][1][3] == "Defaults"
    frame = table.frame.set_index("runs_as")
    for name in POINTS:
        own = results.trials.query(f"system == {name!r}")
        assert frame.loc[name, "wa"] == pytest.approx(100 * own.query(f"profile == {name!r}")["test_wa"].mean())
        assert frame.loc[name, "wa_defaults"] == pytest.approx(100 * own.query("profile == 'paper'")["test_wa"].mean())
    assert "chose over an equal budget" in " ".join(table.notes)
    assert "so the budgets are not equal" in " ".join(table_of(compared(POINTS)).notes)


def test_on_other_data_there_is_no_published_half() -> None:
    table = table_of(compared(POINTS, dataset="demo"))
    assert table.name == "comparison"
    assert [title for title, _ in table.groups] == ["Measured here"]
    assert [row[0].text for row in table.rows] == ["memocmt", "svm", "CemoBAM", "gcn", "server"] or len(table.rows) == 5
    assert "ublished" not in table.markdown()


def test_transductive_systems_are_named() -> None:
    notes = " ".join(table_of(compared({**POINTS, "label_propagation": 0.0})).notes)
    assert "label_propagation: the evaluated utterances and the training utterances form one graph" in notes
    assert "transductive" not in " ".join(table_of(compared(POINTS)).notes)


def test_missing_seeds_are_said_and_leave_the_row() -> None:
    results = compared(POINTS)
    results.trials.loc[(results.trials["system"] == "gcn") & (results.trials["seed"] > 1), "status"] = "failed"
    results.trials.loc[results.trials["system"] == "svm", "status"] = "failed"
    table = table_of(results)
    assert "Finished seeds, where fewer than 5: gcn 2, svm 0." in table.notes
    assert {row[0].text for row in table.rows} >= {"gcn", "svm"}


def test_known_errors_of_published_rows_are_noted_at_their_place() -> None:
    notes = table_of(compared(POINTS)).notes
    assert any("authors' repository has UA 63.10 and WA 63.00" in note for note in notes)
    assert any("calls this figure weighted accuracy" in note for note in notes)
    assert any("EMO-DB and RAVDESS" in note for note in notes)
    unbuilt = next(note for note in notes if note.startswith("Not measured: Padi"))
    assert unbuilt.startswith(
        "Not measured: Padi, Priyasad, Naderi, Khan (AAD-Net) and Kyung: there is no published code"
    )


def test_published_rows_name_systems_that_rebuild_them_or_say_why_not() -> None:
    for table, dataset in (("table3", "iemocap"), ("table4", "esd")):
        rows = published(table, dataset)
        assert (rows["runs_as"].notna() != rows["not_run"].notna()).all()
        assert set(rows["not_run"].dropna()) <= {"unbuilt", "encoders"}
        assert set(rows["runs_as"].dropna()) == {"server", "memocmt", "cemobam"}


@pytest.mark.parametrize(
    ("n", "told"), [(812, "812"), (45_210, "45.2k"), (3_100_000, "3.1M"), (412_000_000, "412M"), (np.nan, "–")]
)
def test_parameters_are_told_short(n: float, told: str) -> None:
    assert parameters_cell(n) == told


@pytest.mark.parametrize(("seconds", "told"), [(0.0214, "0.021"), (1.26, "1.3"), (129.7, "130"), (np.nan, "–")])
def test_seconds_are_told_short(seconds: float, told: str) -> None:
    assert seconds_cell(seconds) == told


@pytest.mark.latex
def test_the_table_of_all_systems_fits_a_page(tmp_path: Path) -> None:
    results = compared(LEVELS, tuned=LEVELS)
    tables = [table_of(results), *compare({"iemocap": results, "esd": compared(LEVELS, dataset="esd")})]
    for table in tables:
        table.write(tmp_path)
    inputs = "".join(rf"See Table~\ref{{tab:{table.name}}}. \input{{{table.name}}}" for table in tables)
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[journal]{IEEEtran}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}"
        rf"\title{{A paper}}\maketitle {inputs} \end{{document}}"
    )
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, done.stdout
    assert "undefined" not in done.stdout


def drawn(results: Results, name: str) -> Figure | str:
    blocks = {"systems": Block("systems", systems=["gcn"])}
    evidence: Any = SimpleNamespace(
        results=results, about=results.about, analysis=Analysis(results), blocks=blocks, waiting=()
    )
    return drawings(evidence)[name].draw(evidence)


def test_the_figure_has_a_row_for_every_system_the_best_above() -> None:
    figure = drawn(compared(LEVELS, tuned=LEVELS), "comparison")
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(labels) == len(LEVELS)
    assert labels[-1] == "prior"
    assert any("←" in text.get_text() for text in ax.texts)  # it stands at the edge
    assert ax.get_xlim()[0] > 50
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert not any(above.overlaps(below) for above, below in pairwise(boxes))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        *("mean, with a graph", "mean, without a graph", "95% interval (another seed)", "a seed"),
        *("mean of default settings", "published (own protocol)", "← mean left of the axis"),
    ]


def test_a_figure_of_few_systems_needs_no_edge() -> None:
    dots = [
        Dots(name=name, seeds=(mean,), mean=mean, low=np.nan, high=np.nan, defaults=np.nan, published=np.nan,
             uses_graph=False)
        for name, mean in (("a", 30.0), ("b", 70.0))
    ]  # fmt: skip
    figure = comparison_figure(dots, measure="WA", title="demo")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a"]
    assert not figure.axes[0].texts


def test_ranks_are_drawn_over_five_folds_and_not_over_fewer() -> None:
    figure = drawn(compared(LEVELS, folds=5, seeds=2), "critical-difference")
    assert isinstance(figure, Figure)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any(text.startswith("CD ") for text in texts)
    assert sum(any(name in text for name in ("CemoBAM", "prior", "svm")) for text in texts) == 3
    assert drawn(compared(POINTS, folds=2), "critical-difference") == "it takes 5 folds or more; this has 2"


def test_corpora_stand_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = {"iemocap": compared(POINTS, tuned=POINTS), "esd": compared({**POINTS, "knn": 0.0}, dataset="esd", rng=1)}
    (table,) = [table for table in compare(studies) if table.name == "compare_systems"]
    rows = {row[0].text: row for row in table.rows}
    assert [title for title, _ in table.groups] == ["iemocap", "esd", ""]
    assert rows["knn"][1].text == "–"
    assert rows["knn"][-1].text == "–"
    assert rows["memocmt"][-1].text == "1.00"
    frame = table.frame.set_index(["study", "system"])
    own = studies["esd"].trials.query("system == 'gcn'")
    assert frame.loc[("esd", "gcn"), "wa_mean"] == pytest.approx(100 * own["test_wa"].mean())
    assert frame.loc[("iemocap", "gcn"), "block"] == "tuned"
    assert "iemocap: each system tuned over an equal budget." in table.notes
    assert ranks_figure(studies) == "it takes 5 corpora or more; this has 2"
    for name, results in studies.items():
        results.save(tmp_path / name)
    assert cemobam(["compare", *(str(tmp_path / name) for name in studies), "--to", str(tmp_path / "both")]) == 0
    assert "No critical-difference diagram: it takes 5 corpora or more; this has 2." in capsys.readouterr().out
    assert (tmp_path / "both" / "compare_systems.csv").is_file()


def test_five_corpora_are_ranked_and_one_twice_is_not() -> None:
    five = {f"d{i}": compared(POINTS, dataset=f"d{i}", rng=i, seeds=2) for i in range(5)}
    assert isinstance(ranks_figure(five), Figure)
    assert "same data set" in str(ranks_figure({**five, "again": five["d0"]}))


TUNED = Block(
    "tuned",
    question="Which system is best at an equal budget?",
    configurations={
        "cemobam": {"system": "cemobam", "heads": 2},
        "gcn": {"system": "gcn", "hidden_dim": 32},
        "concat_mlp": {"system": "concat_mlp"},
        "logistic": {"system": "logistic"},
    },
    reference="cemobam",
)
SYSTEMS = Block("systems", systems=["cemobam", "gcn", "concat_mlp", "logistic"], reference="cemobam")


def test_a_report_of_systems_alone_answers_both_questions(tmp_path: Path) -> None:
    _, evidence = ran((TUNED, SYSTEMS), utterances=demo_utterances())
    report = make_report(evidence, again="python run_grid.py --systems all --budget 2")
    assert [claim.id for claim in report.claims] == ["best_system", "graph_helps"]
    assert all("(block tuned)" in claim.numbers[-1] for claim in report.claims)
    assert set(report.tables) >= {"comparison", "tuned", "systems"}
    frame = report.tables["comparison"].frame.set_index("runs_as")
    assert frame.loc[["cemobam", "gcn"], "graph"].all()
    assert not frame.loc[["concat_mlp", "logistic"], "graph"].any()
    assert frame["wa_defaults"].notna().all()
    assert isinstance(report.figures["comparison"], Figure)
    assert report.missing["critical-difference"] == "it takes 5 folds or more; this has 1"
    paths = {path.name for path in report.write(tmp_path / "results", tmp_path / "plots")}
    assert paths >= {"comparison.csv", "comparison.md", "comparison.tex", "comparison.png", "comparison.pdf"}
    assert paths <= {*result_files(evidence.about), *plot_files(evidence.about)}
    assert pd.read_csv(tmp_path / "results/claims.csv")["id"].tolist() == ["best_system", "graph_helps"]
    assert "A graph helps" in (tmp_path / "results/report.html").read_text()


def test_defaults_stand_alone_until_a_tuned_trial_is_done() -> None:
    _, evidence = ran((TUNED, SYSTEMS), fails=lambda trial: trial.configuration.profile != "paper")
    table = make_report(evidence, again="x").tables["comparison"]
    assert "Defaults" not in table.groups[0][1]
