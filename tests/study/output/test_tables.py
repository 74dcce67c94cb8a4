from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulated import Noise, about, hill, row, study, worse

from study.design.factors import Pair
from study.findings.aggregate import columns
from study.findings.analysis import MEASURES, Analysis
from study.findings.results import Results
from study.output.compare import compare
from study.output.tables import (
    Cell,
    Table,
    block_table,
    comparisons_table,
    mean_cell,
    selection_table,
    variance_table,
)
from study.papers.cemobam.gaps import gaps_figure, gaps_table
from study.papers.cemobam.paper import FUSIONS, GAPS, MODULES
from study.papers.cemobam.published import published
from study.papers.cemobam.systems import systems_table

SEEDS = 0.012 / 2.5**0.5 * np.array([-2, -1, 0, 1, 2])
"""Of five seeds, with a standard deviation of 1.2 points."""


def table_of(
    name: str, variants: tuple[str, ...], *, dataset: str = "iemocap", seeds: np.ndarray = SEEDS, asked: int = 0,
    mean: float = 0.6, title: str = "simulated",
) -> Table:  # fmt: skip
    """The table of a block whose configurations, less than it has perhaps, are each better by 3.33 points."""
    study_of = about((8, 7), max(asked, len(seeds)), Pair(8, 7), dataset)
    block = study_of.block(name)
    assert block
    trials = pd.DataFrame(
        [
            row(8, 7, seed, 0.8, mean + i / 30 + x, **{block.columns[0]: variant})
            for i, variant in enumerate(variants)
            for seed, x in enumerate(seeds)
        ],
        columns=list(columns()),
    )
    results = Results(about=replace(study_of, title=title), trials=trials)
    return block_table(Analysis(results), block, published(block.table, dataset))


def table1(dataset: str = "iemocap", **changes: Any) -> Table:
    return table_of("fusion", FUSIONS, dataset=dataset, **changes)


def test_ours_stand_beside_the_published_in_percent() -> None:
    frame = table1().frame.set_index("fusion")
    assert frame.loc["min", "wa_mean"] == pytest.approx(100 * (0.6 + 1 / 30))
    assert frame.loc["min", "wa_std"] == pytest.approx(1.2)
    assert frame.loc["min", ["wa_published", "ua_published", "wf1_published"]].tolist() == [82.17, 81.85, 81.85]
    row = next(line for line in table1().markdown().splitlines() if "| MIN" in line)
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "MIN",
        *["63.33 ± 1.49"] * 4,
        "**82.17**†",
        "**81.85**†",
        "**81.85**†",
    ]
    assert "may be swapped" in table1().markdown()


def test_where_nothing_is_published_ours_stand_alone() -> None:
    table = table1("demo")
    assert "paper" not in table.markdown().lower()
    assert "Paper" not in table.latex()
    assert not any("published" in column for column in table.frame.columns)


def test_latex_has_no_bare_special_characters() -> None:
    latex = table1("demo", title="my_data #1, 100 % & more").latex()
    assert r"(my\_data \#1, 100 \% \& more, $K_\mathrm{audio}$ = 8, $K_\mathrm{text}$ = 7): test split" in latex
    assert r"MIN & $63.33_{\pm 1.49}$ & $63.33_{\pm 1.49}$" in latex
    assert r"MEAN & \textbf{\boldmath $70.00_{\pm 1.49}$}" in latex


def test_missing_seeds_and_rows_are_said() -> None:
    table = table_of("ablation", MODULES[:2], dataset="esd", seeds=SEEDS[1:4], asked=5)
    assert "Fewer than 5 seeds are done: CemoBAM 3, w/o xCBAM 3, w/o CH-GAT 0." in table.markdown()
    row = next(line for line in table.markdown().splitlines() if "w/o CH-GAT " in line)
    assert row.count("–") == 4
    assert "94.86" in row


def test_one_seed_has_no_deviation() -> None:
    one = table1(seeds=SEEDS[:1])
    assert "±" not in "".join(line for line in one.markdown().splitlines() if line.startswith("| M"))
    assert r"\pm" not in "".join(line for line in one.latex().splitlines() if line.startswith("M"))


def test_the_csv_can_be_read_back(tmp_path: Path) -> None:
    paths = table1().write(tmp_path)
    assert [p.name for p in paths] == ["table1.csv", "table1.md", "table1.tex"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), table1().frame, rtol=1e-5)


def every_table(dataset: str = "iemocap") -> list[Table]:
    results = study(np.random.default_rng(0), Noise(), variants=worse(2.0), effect=hill(3.0))
    titled = replace(results.about, dataset=dataset, title={"iemocap": "IEMOCAP", "esd": "ESD"}[dataset])
    analysis = Analysis(Results(about=titled, trials=results.trials))
    blocks = [block for block in analysis.results.about.blocks if block.compared]
    made = [
        *(block_table(analysis, block, published(block.table, dataset)) for block in blocks),
        systems_table(analysis), variance_table(analysis), comparisons_table(analysis), selection_table(analysis),
    ]  # fmt: skip
    return [*(table for table in made if table), gaps_table(gap_trials(), caption="Gaps", seeds=3, folds=1)]


@pytest.mark.latex
@pytest.mark.parametrize("dataset", ["iemocap", "esd"])
def test_every_table_fits_a_two_column_ieee_paper(tmp_path: Path, dataset: str) -> None:
    tables = [*every_table(dataset), *compare({"one": study(np.random.default_rng(1), Noise(), variants=worse(1.0)),
                                               "two": study(np.random.default_rng(2), Noise())})]  # fmt: skip
    for table in tables:
        table.write(tmp_path)
    inputs = "".join(rf"See Table~\ref{{tab:{table.name}}}. \input{{{table.name}}}" for table in tables)
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[journal]{IEEEtran}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}"
        rf"\title{{A paper}}\maketitle {inputs} \end{{document}}"
    )
    for _ in range(2):  # once more for the references
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, done.stdout
    assert "undefined" not in done.stdout


def test_what_was_compared_is_shown_raw_and_corrected() -> None:
    results = study(np.random.default_rng(2), Noise(val_test=1.0), variants=worse(0.0), size=(3, 3))
    table = comparisons_table(Analysis(results))
    assert table
    assert table.groups[0][1][:2] == ("Raw", "Corrected")
    frame = table.frame
    assert "mean" not in frame.columns
    assert set(frame["corrected_for"]) == {"choice of K"}
    means = 100 * results.ablation.set_index("modules")["test_wa_mean"]
    row = frame[(frame["metric"] == "wa") & (frame["second"] == "no_xcbam")].iloc[0]
    assert row["raw_difference"] == pytest.approx(means["full"] - means["no_xcbam"])
    line = next(line for line in table.markdown().splitlines() if "CemoBAM less w/o xCBAM" in line)
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2] == f"{row['raw_difference']:+.1f}".replace("-", "−")
    assert cells[3].startswith(f"{row['corrected_difference']:+.1f} [".replace("-", "−"))
    given = replace(results.about, pair_from="given", pair=(1, 1))
    alone = comparisons_table(Analysis(Results(about=given, trials=results.trials)))
    assert alone
    own = alone.frame[alone.frame["family"] != "pairs"]
    assert (own["corrected_for"] == "nothing").all()
    assert own["raw_difference"].tolist() == own["corrected_difference"].tolist()


@pytest.mark.parametrize(
    ("figures", "text", "latex"),
    [
        ((98.89, 96.5, 100.0), "98.89 [96.50, 100.00]", "$98.89^{+1.11}_{-2.39}$"),
        ((1.5, 0.0, 4.0), "1.50 [0.00, 4.00]", "$1.50^{+2.50}_{-1.50}$"),
        ((63.0, 61.5, 64.5), "63.00 ± 1.50", r"$63.00_{\pm 1.50}$"),
        ((75.0, math.nan, math.nan), "75.00", "75.00"),
    ],
)
def test_an_interval_that_is_cut_shows_both_its_ends(
    figures: tuple[float, float, float], text: str, latex: str
) -> None:
    cell = mean_cell(*figures)
    assert (cell.text, cell.latex()) == (text, latex)


def test_a_table_says_where_intervals_are_cut_or_none() -> None:
    cut = table1(mean=0.89)
    assert any("both of its sides" in note for note in cut.notes)
    assert not any("both of its sides" in note for note in table1().notes)
    two = table1(seeds=SEEDS[:2])
    assert any("no interval" in note for note in two.notes)
    assert "±" not in "".join(line for line in two.markdown().splitlines() if line.startswith("| M"))


def test_two_seeds_are_compared_without_intervals() -> None:
    results = study(np.random.default_rng(0), Noise(), seeds=2, variants=worse(1.0), size=(3, 3))
    analysis = Analysis(results)
    tables = [comparisons_table(analysis), selection_table(analysis), variance_table(analysis), systems_table(analysis)]
    tables += compare({"one": results})
    for table in tables:
        assert table
        printed = " ".join(cell.text for row in table.rows for cell in row)
        assert "[" not in printed, table.name
        assert "±" not in printed, table.name
        assert "95%" not in table.caption, table.name


def test_our_row_stands_with_the_other_systems() -> None:
    for dataset, name in (("iemocap", "table3"), ("esd", "table4")):
        table = next(table for table in every_table(dataset) if table.name == name)
        assert table.cells[-1][0] == Cell("CemoBAM, this study")
        assert "±" in str(table.cells[-1][-1])
        assert "one protocol" in " ".join(table.notes)
    assert "a four classes, without surprise." in " ".join(table.notes)


def test_the_best_is_bold_and_what_noise_does_not_explain_is_marked() -> None:
    tables = {table.name: table for table in every_table()}
    cells = {row[0]: row[1:] for row in tables["table1"].rows}
    own = {label.text: cells_[0] for label, cells_ in cells.items()}
    assert [label for label, cell in own.items() if cell.bold] == ["MIN"]
    assert {label for label, cell in own.items() if cell.mark == "*"} <= {"CLS", "MAX", "MEAN"}
    markdown = tables["table1"].markdown()
    assert "\n\n† outside the 95% interval of ours." in markdown
    frame = tables["table1"].frame
    for ours, printed in zip(frame.to_dict("records"), (r[5] for r in tables["table1"].rows), strict=True):
        outside = not ours["wa_low"] <= ours["wa_published"] <= ours["wa_high"]
        assert (printed.mark == "†") == outside


def test_hostile_text_stays_text() -> None:
    cell = Cell(r"50% of $x_1 & \input{secret} ~ ^ | <b>")
    assert cell.latex() == (
        r"50\% of \$x\_1 \& \textbackslash{}input\{secret\} \textasciitilde{} \textasciicircum{} $|$ $<$b$>$"
    )
    assert r"\|" in cell.markdown()


@pytest.mark.parametrize(
    ("name", "rows"), [("table1", (4, 4)), ("table2", (3, 3)), ("table3", (9, 0)), ("table4", (0, 5))]
)
def test_the_published_tables_are_all_there_with_their_source(name: str, rows: tuple[int, int]) -> None:
    tables = [published(name, dataset) for dataset in ("iemocap", "esd")]
    assert tuple(map(len, tables)) == rows
    for table in tables:
        assert table["source"].str.contains("CemoBAM").all()
        figures = table[["wa", "ua"]]
        assert figures.stack().dropna().between(50, 100).all()
        assert figures.notna().any(axis=1).all()


def test_some_published_figures() -> None:
    fusion = published("table1", "esd").set_index("fusion")
    assert fusion.loc["cls", ["wa", "ua", "wf1"]].tolist() == [94.19, 94.19, 94.20]
    ablation = published("table2", "iemocap").set_index("modules")
    assert ablation.loc["no_xcbam", ["wa", "ua", "wf1"]].tolist() == [62.49, 62.32, 60.07]
    others = published("table4", "esd").set_index("system")
    assert others.loc["Pham", "note"] == "four classes, without surprise"
    assert pd.isna(others.loc["Zhou", "wa"])


def gap_trials(seeds: int = 3) -> pd.DataFrame:
    """Trials in which the schedule costs paper exactly 2 points, and all else nothing but noise that is paired away."""
    rows = []
    for start, level in (("paper", 0.60), ("released", 0.70)):
        for gap in ("", *GAPS):
            for seed in range(seeds):
                wa = level + 0.03 * seed - (0.02 if gap == "schedule" and start == "paper" else 0.0)
                wa += 0.01 * (seed - 1) if gap == "spatial axis" else 0.0
                label = f"{start}+{gap}" if gap else start
                rows.append({"profile": label, "seed": seed, "status": "done", **{f"test_{m}": wa for m in MEASURES}})
    return pd.DataFrame(rows)


def test_a_gaps_cost_is_paired_by_seed() -> None:
    table = gaps_table(gap_trials(), caption="x", seeds=3, folds=1)
    rows = table.frame.set_index(["start", "switched"])
    assert len(rows) == 2 * (1 + len(GAPS))
    assert rows.loc[("paper", ""), "wa_mean"] == pytest.approx(63.0)
    assert rows.loc[("paper", "schedule"), ["wa_difference", "wa_low", "wa_high"]].tolist() == pytest.approx([-2.0] * 3)
    assert rows.loc[("released", "schedule"), "ua_difference"] == pytest.approx(0.0)
    # differences of -1, 0, 1: mean 0, deviation 1, and t with two degrees of freedom is 4.303
    noisy = rows.loc[("released", "spatial axis")]
    assert noisy["wa_high"] == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert noisy["wa_low"] == pytest.approx(-4.3027 / 3**0.5, rel=1e-4)
    line = next(line for line in table.markdown().splitlines() if "| schedule" in line)
    assert "−2.0 [−2.0, −2.0]" in line
    assert r"\begin{table*}" in table.latex()


def test_a_difference_that_rounds_to_zero_has_no_minus() -> None:
    trials = gap_trials()
    trials.loc[trials["profile"] == "released+channel gate", "test_wa"] -= 1e-5
    line = next(
        x for x in gaps_table(trials, caption="x", seeds=3, folds=1).markdown().splitlines() if "| channel" in x
    )
    assert "−0.0" not in line


def test_gaps_with_holes_say_so() -> None:
    trials = gap_trials()
    trials.loc[(trials["profile"] == "paper+schedule") & (trials["seed"] > 0), "status"] = "failed"
    trials = trials[trials["profile"] != "released"]
    table = gaps_table(trials, caption="x", seeds=3, folds=1)
    rows = table.frame.set_index(["start", "switched"])
    assert rows.loc[("paper", "schedule"), "n_seeds"] == 1
    assert pd.isna(rows.loc[("paper", "schedule"), "wa_low"])
    assert rows.loc[("released", "schedule"), "n_seeds"] == 0
    assert "fewer than 3 seeds" in table.markdown()
    gaps_figure(table.frame, title="x")
