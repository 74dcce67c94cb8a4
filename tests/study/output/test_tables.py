from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from predicted import results_of
from simulated import Noise, about, hill, row, study, with_predictions, worse

from study.design.design import Design
from study.design.factors import Pair
from study.driver import Plan, StudyRun
from study.findings.aggregate import columns
from study.findings.analysis import Analysis
from study.findings.evidence import about_study
from study.findings.results import Results
from study.ledger.ledger import Ledger
from study.ledger.outcomes import StudyFacts
from study.output.compare import compare
from study.output.tables import (
    Cell,
    Table,
    agreement_table,
    block_table,
    comparisons_table,
    mean_cell,
    selection_table,
    variance_table,
)
from study.papers.cemobam.gaps import gaps_figure, gaps_table
from study.papers.cemobam.paper import FUSIONS, GAPS, MODULES, gaps
from study.papers.cemobam.published import published
from study.papers.cemobam.systems import systems_table

SEEDS = 0.012 / 2.5**0.5 * np.array([-2, -1, 0, 1, 2])
"""Of five seeds, with a standard deviation of 1.2 points."""


def table_of(
    name: str, variants: tuple[str, ...], *, dataset: str = "iemocap", seeds: np.ndarray = SEEDS, asked: int = 0,
    mean: float = 0.6, title: str = "simulated",
) -> Table:  # fmt: skip
    """The table of a block whose configurations, less than it has perhaps, are each better by 3.33 points."""
    asked = max(asked, len(seeds))
    study_of = about((8, 7), asked, Pair(8, 7), dataset)
    block = study_of.block(name)
    assert block
    trials = pd.DataFrame(
        [
            row(8, 7, seed, 0.8, mean + i / 30 + x, **{block.columns[0]: variant})
            for i, variant in enumerate(variants)
            for seed, x in enumerate(seeds, asked)  # fresh ones
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
    assert (
        r"test split of my\_data \#1, 100 \% \& more, $K_\mathrm{audio}$ = 8, $K_\mathrm{text}$ = 7; mean over" in latex
    )
    assert r"MIN & $63.33_{\pm 1.49}$ & $63.33_{\pm 1.49}$" in latex
    assert r"MEAN & \textbf{\boldmath $70.00_{\pm 1.49}$}" in latex


def test_missing_seeds_and_rows_are_said() -> None:
    table = table_of("ablation", MODULES[:2], dataset="esd", seeds=SEEDS[1:4], asked=5)
    assert "Finished seeds, where fewer than 5: CemoBAM 3, w/o xCBAM 3, w/o CH-GAT 0." in table.markdown()
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
    results = study(
        np.random.default_rng(0), Noise(), variants=worse(2.0), effect=hill(3.0), dataset=dataset, utterances=60
    )
    titled = replace(results.about, title={"iemocap": "IEMOCAP", "esd": "ESD"}[dataset])
    analysis = Analysis(replace(results, about=titled))
    blocks = [block for block in analysis.results.about.blocks if block.compared]
    known = {"table1", "table2"}
    made = [
        *(block_table(analysis, x, published(x.table, dataset) if x.table in known else None) for x in blocks),
        systems_table(analysis), variance_table(analysis), comparisons_table(analysis), agreement_table(analysis),
        selection_table(analysis),
    ]  # fmt: skip
    return [*(table for table in made if table), table_of_gaps(gap_trials())]


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


COMPARED = (
    *("family", "metric", "first", "second", "difference", "decided_by", "seed_low", "seed_high", "seed_p"),
    *("utterances_low", "utterances_high", "utterances_p", "d_z", "p", "p_holm", "p_equivalent"),
    *("chance_better", "chance_same", "chance_worse", "verdict", "level", "n_seeds", "n_utterances"),
)
"""The columns of comparisons.csv."""


def lines_of(table: Table) -> dict[str, list[str]]:
    """The cells of each row of a Markdown table, by the first."""
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.markdown().splitlines() if "| " in line]
    return {row[0].strip("| "): [cell.strip("| ") for cell in row[1:]] for row in rows}


def test_a_comparison_without_predictions_is_another_seeds() -> None:
    results = study(np.random.default_rng(2), Noise(), variants=worse(3.0), size=(3, 3))
    analysis = Analysis(results)
    table = comparisons_table(analysis)
    assert table
    assert tuple(table.frame.columns) == COMPARED
    assert table.groups == (
        ("", ("Points",)),
        ("95% interval", ("Another seed",)),
        ("", ("p (Holm)", "Better / same / worse", "Verdict", "Seeds")),
    )
    assert len(table.frame) == len(results.measures) * (3 + 2)  # the grid has not got the paper's pair
    means = 100 * results.ablation.set_index("modules")["test_wa_mean"]
    row = table.frame[(table.frame["metric"] == "wa") & (table.frame["second"] == "no_xcbam")].iloc[0]
    assert row["difference"] == pytest.approx(means["full"] - means["no_xcbam"])
    assert row["decided_by"] == "another seed"
    assert row[["utterances_low", "utterances_high", "utterances_p"]].isna().all()
    assert (row["n_seeds"], row["n_utterances"], row["level"]) == (5, 0, 0.05)
    assert row["p"] == pytest.approx(row["seed_p"])
    assert row["p"] <= row["p_holm"]
    assert row[["chance_better", "chance_same", "chance_worse"]].sum() == pytest.approx(1)
    points, interval, p, chances, verdict, n = lines_of(table)["CemoBAM − w/o xCBAM"]
    assert points == f"{row['difference']:+.1f}"
    assert interval == rf"[{row['seed_low']:+.1f}, {row['seed_high']:+.1f}]\*".replace("-", "−")
    assert (p.strip("*"), verdict, n) == (f"{row['p_holm']:.3f}", row["verdict"], "5")
    assert len(chances.split(" / ")) == 3
    assert "Intervals hold for another seed on the same test utterances." in " ".join(table.notes)


def test_a_comparison_with_predictions_has_both_intervals_and_the_wider_decides() -> None:
    results = study(np.random.default_rng(2), Noise(), variants=worse(3.0), size=(3, 3), utterances=200)
    table = comparisons_table(Analysis(results))
    assert table
    frame = table.frame
    assert set(frame["decided_by"]) == {"another seed and other utterances"}
    assert set(frame["n_utterances"]) == {200}
    assert frame["p"].tolist() == pytest.approx(frame["utterances_p"].tolist())
    of_wa = frame[frame["metric"] == "wa"]
    assert (of_wa["utterances_low"] < of_wa["seed_low"]).all()
    assert (of_wa["utterances_high"] > of_wa["seed_high"]).all()
    _, seed, both, *_ = lines_of(table)["MIN − MAX"]
    row = of_wa[of_wa["second"] == "max"].iloc[0]
    for told, kind in ((seed, "seed"), (both.removesuffix(r"\*"), "utterances")):
        assert told == f"[{row[f'{kind}_low']:+.1f}, {row[f'{kind}_high']:+.1f}]".replace("-", "−")
    assert both.endswith(r"\*")
    assert "or for another seed and other utterances. * marks the interval that decides." in " ".join(table.notes)


def test_utterances_are_drawn_with_their_speakers_and_folds() -> None:
    results = study(np.random.default_rng(2), Noise(), variants=worse(3.0), size=(2, 2))
    said = {}
    for speakers in (0, 7, 8):
        with_them = with_predictions(np.random.default_rng(0), results, 80, speakers=speakers)
        table = comparisons_table(Analysis(with_them))
        assert table
        said[speakers] = next(note for note in table.notes if note.startswith("Intervals hold"))
    assert "another seed and other utterances. * marks" in said[0]
    # of seven the variance is not known well enough
    assert "another seed and other utterances of the same speakers. * marks" in said[7]
    assert "another seed and other utterances of other speakers. * marks" in said[8]


def test_agreement_by_hand() -> None:
    """Two seeds and four utterances. MIN's seeds differ in the last one, CLS's in the second."""
    results = results_of(
        {"min": [[0, 1, 2, 3], [0, 1, 2, 0]], "cls": [[0, 1, 0, 3], [0, 0, 0, 3]]}, labels=[0, 1, 2, 3]
    )
    table = agreement_table(Analysis(results))
    assert table
    assert table.frame.to_dict("records") == [
        {
            **{"family": "fusion", "first": "min", "second": "cls"},
            **{"within_first": 75.0, "within_second": 75.0},
            "between": 50.0,  # the four pairs of seeds label 3, 2, 2 and 1 of the four alike
            # the votes are 0 1 2 0 and 0 0 0 3: of two classes with a seed each the first one counts
            **{"only_first": 2, "only_second": 1, "p_mcnemar": 1.0},
        }
    ]
    assert lines_of(table)["MIN and CLS"] == ["75.0", "75.0", "50.0", "2", "1", "1.000"]
    one = results_of({"min": [[0, 1, 2, 3]], "cls": [[0, 1, 0, 3]]}, labels=[0, 1, 2, 3])
    table = agreement_table(Analysis(one))
    assert table
    assert lines_of(table)["MIN and CLS"] == ["–", "–", "75.0", "1", "0", "1.000"]
    assert agreement_table(Analysis(replace(one, kept=None))) is None


def test_names_of_a_users_own_stay_text_in_tables_of_differences() -> None:
    results = study(np.random.default_rng(2), Noise(), variants=worse(3.0), size=(2, 2), utterances=40)
    blocks = tuple(
        replace(block, labels={**block.labels, "cls": r"C|L_S & 5% *x*"}) if block.name == "fusion" else block
        for block in results.about.blocks
    )
    analysis = Analysis(replace(results, about=replace(results.about, blocks=blocks, title="my|data_1 #2")))
    for table, joined in ((comparisons_table(analysis), "−"), (agreement_table(analysis), "and")):
        assert table
        markdown, latex = table.markdown(), table.latex().replace("$-$", "−")
        assert rf"| MIN {joined} C\|L_S & 5% *x* " in markdown
        assert r"my\|data_1 \#2" in markdown.splitlines()[0]
        assert rf"MIN {joined} C$|$L\_S \& 5\% *x* & " in latex
        assert r"my$|$data\_1 \#2" in latex


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
    assert any("with both ends" in note for note in cut.notes)
    assert not any("with both ends" in note for note in table1().notes)
    two = table1(seeds=SEEDS[:2])
    assert any("has no interval" in note for note in two.notes)
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
        ours = table.rows[0]
        assert ours[0] == Cell("CemoBAM")
        assert "±" in ours[1].text
        assert ours[-4].text == {"iemocap": "82.17", "esd": "95.09"}[dataset]
        assert all(cell.text == "" for row in table.rows[1:] for cell in row[1:-4])
        assert "their own splits, folds and sometimes classes" in " ".join(table.notes)
    assert "a four classes, without surprise." in " ".join(table.notes)


def test_the_best_is_bold_and_what_noise_does_not_explain_is_marked() -> None:
    tables = {table.name: table for table in every_table()}
    cells = {row[0]: row[1:] for row in tables["table1"].rows}
    own = {label.text: cells_[0] for label, cells_ in cells.items()}
    assert [label for label, cell in own.items() if cell.bold] == ["MIN"]
    assert {label for label, cell in own.items() if cell.mark == "*"} <= {"CLS", "MAX", "MEAN"}
    markdown = tables["table1"].markdown()
    assert "\n\n† Outside our 95% interval." in markdown
    frame, rows = tables["table1"].frame.iloc[:-1], tables["table1"].rows[:-1]  # the last one is the vote
    for ours, printed in zip(frame.to_dict("records"), (r[5] for r in rows), strict=True):
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
    assert others.loc["Pham (SERVER)", "note"] == "four classes, without surprise"
    assert pd.isna(others.loc["Zhou", "wa"])


def gap_trials(seeds: int = 3) -> pd.DataFrame:
    """Trials in which the schedule costs paper exactly 2 points, and all else nothing but noise that is paired away."""
    rows = []
    for start, level in (("paper", 0.60), ("released", 0.70)):
        for gap in ("", *GAPS):
            for seed in range(seeds):
                wa = level + 0.03 * seed - (0.02 if gap == "schedule" and start == "paper" else 0.0)
                wa += 0.01 * (seed - 1) if gap == "spatial axis" else 0.0
                rows.append(row(8, 7, seed, wa, wa, profile=f"{start}+{gap}" if gap else start))
    return pd.DataFrame(rows, columns=list(columns()))


def table_of_gaps(trials: pd.DataFrame) -> Table:
    """The table of a study of the gaps alone, in which nothing chooses a pair."""
    design = Design(blocks={gaps.name: gaps}, dataset="demo", seeds=(0, 1, 2))
    plan = Plan(design=design, blocks=(gaps.name,), at=Pair(8, 7), select_by="wa", select_on="val")
    facts = StudyFacts(dataset="demo", title="demo", fingerprint="", folds=1, settings={})
    study_of = about_study(
        StudyRun(plan, Ledger("sqlite:///:memory:", name="sim"), facts), name="sim", blocks=design.blocks
    )
    return gaps_table(Analysis(Results(about=study_of, trials=trials)), caption="x")


def test_a_gaps_cost_is_paired_by_seed() -> None:
    table = table_of_gaps(gap_trials())
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
    line = next(line for line in table_of_gaps(trials).markdown().splitlines() if "| channel" in line)
    assert "−0.0" not in line


def test_gaps_with_holes_say_so() -> None:
    trials = gap_trials()
    trials.loc[(trials["profile"] == "paper+schedule") & (trials["seed"] > 0), "status"] = "failed"
    trials = trials[trials["profile"] != "released"]
    table = table_of_gaps(trials)
    rows = table.frame.set_index(["start", "switched"])
    assert rows.loc[("paper", "schedule"), "n_seeds"] == 1
    assert pd.isna(rows.loc[("paper", "schedule"), "wa_low"])
    assert rows.loc[("released", "schedule"), "n_seeds"] == 0
    assert "fewer than 3 seeds" in table.markdown()
    gaps_figure(table.frame, title="x")
