from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from cemobam_core.config import FUSIONS, MODULES
from study.analysis import MEASURES
from study.design import GAPS
from study.ledger import METRICS
from study.published import published
from study.tables import Table, comparison, gaps_table


def figures_of(mean: float) -> list[tuple[str, float]]:
    return [("mean", mean), ("std", 0.012), ("low", mean - 0.0149), ("high", mean + 0.0149)]


def summary(key: str, variants: tuple[str, ...], **changes: object) -> pd.DataFrame:
    rows = []
    for i, variant in enumerate(variants):
        figures = {f"{m}_{f}": x for m in METRICS for f, x in figures_of(0.6 + i / 30)}
        rows.append({key: variant, "n_seeds": 5, **figures, **changes})
    return pd.DataFrame(rows)


def table1(dataset: str = "iemocap", **changes: object) -> Table:
    made = summary("fusion", FUSIONS, **changes)
    caption = "Fusion strategies (my_data #1, K_audio = 8, K_text = 7): test split, 100 %, mean ± std & more"
    return comparison(made, "fusion", FUSIONS, name="table1", caption=caption, dataset=dataset, seeds=5)


def test_ours_stand_beside_the_published_in_percent() -> None:
    frame = table1().frame.set_index("fusion")
    assert frame.loc["min", "wa_mean"] == pytest.approx(100 * (0.6 + 1 / 30))
    assert frame.loc["min", "wa_std"] == pytest.approx(1.2)
    assert frame.loc["min", ["wa_published", "ua_published", "wf1_published"]].tolist() == [82.17, 81.85, 81.85]
    row = next(line for line in table1().markdown().splitlines() if "| MIN" in line)
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "MIN",
        *["63.33 ± 1.49"] * 3,
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
    latex = table1("demo").latex()
    assert r"my\_data \#1, $K_\mathrm{audio}$ = 8, $K_\mathrm{text}$ = 7): test split, 100 \%" in latex
    assert r"MIN & $63.33_{\pm 1.49}$ & $63.33_{\pm 1.49}$" in latex
    assert r"MEAN & \textbf{\boldmath $70.00_{\pm 1.49}$}" in latex


def test_missing_seeds_and_rows_are_said() -> None:
    short = summary("modules", MODULES[:2], n_seeds=3)
    table = comparison(short, "modules", MODULES, name="table2", caption="Ablation", dataset="esd", seeds=5)
    assert "Fewer than 5 seeds are done: CemoBAM 3, w/o xCBAM 3, w/o CH-GAT 0." in table.markdown()
    row = next(line for line in table.markdown().splitlines() if "w/o CH-GAT " in line)
    assert row.count("–") == 3
    assert "94.86" in row


def test_one_seed_has_no_deviation() -> None:
    one = table1(**{f"{m}_{x}": math.nan for m in METRICS for x in ("std", "low", "high")})
    assert "±" not in "".join(line for line in one.markdown().splitlines() if line.startswith("| M"))
    assert r"\pm" not in "".join(line for line in one.latex().splitlines() if line.startswith("M"))


def test_the_csv_can_be_read_back(tmp_path: Path) -> None:
    paths = table1().write(tmp_path)
    assert [p.name for p in paths] == ["table1.csv", "table1.md", "table1.tex"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), table1().frame, rtol=1e-5)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here; the LaTeX was compiled by hand")
def test_latex_fits_a_column_of_two(tmp_path: Path) -> None:
    (tmp_path / "table1.tex").write_text(table1().latex(), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[twocolumn]{article}\usepackage{booktabs}\setlength{\textwidth}{7.16in}"
        r"\setlength{\columnsep}{0.2in}\begin{document}\input{table1}\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


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
    from study.figures.gaps import gaps_figure

    gaps_figure(table.frame, title="x")
