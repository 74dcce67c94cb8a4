"""What comes out of blocks of every kind: tables, figures, answers, the report, the dashboard, results in Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.io
import pytest
from invented import FakeEngine, demo_facts, demo_utterances
from matplotlib.backends.backend_agg import FigureCanvasAgg
from optuna_dashboard import get_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from runs import ended, start_python

from study import Block, Factor, load_results
from study.commands import cemobam
from study.design.configuration import Trial
from study.design.design import Design, with_values
from study.design.factors import Pair
from study.driver import Plan, StudyRun
from study.findings.analysis import Analysis
from study.findings.answers import Answer, answers
from study.findings.evidence import Evidence
from study.findings.results import Results
from study.ledger.ledger import Ledger
from study.ledger.utterances import TestUtterances
from study.output.compare import compare
from study.output.publishing import publish_report
from study.output.report import Report, make_report, result_files
from study.papers.cemobam import paper
from study.papers.cemobam.claims import OF_SYSTEMS, Claim, claims

PAPER = tuple(with_values(block, {"k_audio": (1, 2), "k_text": (1, 2)}) for block in paper.blocks)

WIDTH = Block("width", question="How wide must it be?", factors=[Factor("hidden_dim", [8, 16, 64])])
RATE = Block("rate", factors=[Factor("lr", [1e-4, 3e-4, 1.0])])
PLANE = Block("hidden_dim-lr", factors=[Factor("hidden_dim", [8, 16]), Factor("lr", [1e-4, 3e-4])])
TRICKS = Block(
    "tricks",
    question="Which change helps?",
    configurations={"as it is": {}, "two_layers & more": {"gat_layers": 2}, "no decay": {"weight_decay": 0.0}},
    reference="as it is",
)
SYSTEMS = Block("systems", question="Is the graph worth it?", systems=["cemobam", "concat_mlp", "gcn", "logistic"])
CROSS = Block(
    "cross",
    factors=[Factor("fusion", ["min", "max"]), Factor("gat_first_dropout", [True, False]), Factor("heads", [2, 4])],
)
OWN = (WIDTH, RATE, PLANE, TRICKS, SYSTEMS, CROSS)


def ran(
    blocks: Iterable[Block],
    *,
    seeds: int = 3,
    fails: Callable[[Trial], bool] = lambda _: False,
    at: Pair | None = None,
    utterances: TestUtterances | None = None,
    **design: Any,
) -> tuple[StudyRun, Evidence]:
    """A study of some blocks whose outcomes are invented, and what it has to show."""
    by_name = {block.name: block for block in blocks}
    made = Design(blocks=by_name, seeds=tuple(range(seeds)), **design)
    plan = Plan(
        design=made, blocks=tuple(by_name), at=at, otherwise=Pair(5, 5), select_by="wa", select_on="val"
    )  # fmt: skip
    ledger = Ledger("sqlite:///:memory:", name="demo")
    ledger.open(demo_facts(), utterances)
    run = StudyRun(plan, ledger, demo_facts())
    run.run(FakeEngine(fails=fails), lambda *_: None)
    return run, Evidence.of(run, name="demo", models=Path("models"))


def of_paper(evidence: Evidence) -> list[Claim]:
    """The claims that no block of systems answers."""
    return [claim for claim in claims(evidence.analysis) if claim.id not in OF_SYSTEMS]


def answer_of(report: Report, block: str) -> str:
    return " ".join(next(answer for answer in report.answers if answer.block == block).lines)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyRun, Report]:
    """The report of a study of the paper's blocks and of one of each kind, written."""
    folder = tmp_path_factory.mktemp("blocks")
    run, evidence = ran((*PAPER, *OWN), utterances=demo_utterances())
    report = make_report(evidence, again="python run_grid.py --study mine.py")
    report.write(folder / "results", folder / "plots")
    publish_report(run, report)
    return folder, run, report


def test_every_block_has_its_table_in_every_form_and_its_figure(every: tuple[Path, StudyRun, Report]) -> None:
    folder, _, report = every
    for block in OWN:
        for form in ("csv", "md", "tex"):
            assert (folder / "results" / f"{block.name}.{form}").is_file()
        for form in ("png", "pdf"):
            assert (folder / "plots" / f"{block.name}.{form}").is_file()
        table = pd.read_csv(folder / "results" / f"{block.name}.csv")
        frame = report.evidence.results.block(block.name)
        means = table["wa_mean"].tolist()
        assert means[:-1] == pytest.approx((100 * frame["test_wa_mean"]).tolist(), rel=1e-5)
        assert str(table.iloc[-1, 0]).endswith(" vote")
    never = {"confusion", "confusion-difference", "calibration", "embedding"}
    assert set(report.missing) == {*never, "critical-difference"}
    assert (folder / "plots/hidden_dim-lr_sd.png").is_file()
    ours = {path.name for path in (folder / "results").iterdir()}
    assert ours <= set(result_files(report.evidence.about))


def test_tables_name_configurations_as_a_reader_does(every: tuple[Path, StudyRun, Report]) -> None:
    _, _, report = every
    tables = report.tables
    firsts = {name: [row[0].text for row in table.rows] for name, table in tables.items()}
    votes = {block.name: firsts[block.name].pop() for block in OWN}
    assert votes["width"] == "16, vote of 3 seeds"
    assert votes["hidden_dim-lr"] == "8, 0.0001, vote of 3 seeds"
    assert firsts["width"] == ["8", "16", "64"]
    assert firsts["rate"] == ["0.0001", "0.0003", "1"]
    assert firsts["hidden_dim-lr"] == ["8, 0.0001", "8, 0.0003", "16, 0.0001", "16, 0.0003"]
    assert tables["hidden_dim-lr"].head == "hidden_dim, learning rate"
    assert firsts["tricks"] == ["as it is", "two_layers & more", "no decay"]
    assert firsts["systems"] == ["cemobam", "concat_mlp", "gcn", "logistic"]
    assert firsts["cross"][:2] == ["min, True, 2", "min, True, 4"]
    shows = (
        "ercent on the test split of demo (synthetic), K_audio = 2, K_text = 1; mean over 3 fresh seeds ± half of the "
        "95% interval"
    )
    for name, title in (
        *(("width", "How wide must it be? P"), ("rate", "Learning rate: p")),
        *(("hidden_dim-lr", "hidden_dim and learning rate: p"), ("cross", "Fusion, gat_first_dropout and heads: p")),
    ):
        assert tables[name].caption == f"{title}{shows}"
        assert tables[name].title == title.removesuffix(" P").removesuffix(": p")
    tex = tables["tricks"].latex() + tables["hidden_dim-lr"].latex()
    assert r"two\_layers \& more & " in tex
    assert r"hidden\_dim, learning rate & WA" in tex


def test_figures_are_of_the_kind_that_the_block_is(every: tuple[Path, StudyRun, Report]) -> None:
    figures = every[2].figures
    for figure in figures.values():
        FigureCanvasAgg(figure).draw()
    assert [label.get_text() for label in figures["width"].axes[0].get_xticklabels()] == ["8", "16", "64"]
    assert figures["rate"].axes[0].get_xscale() == "log"
    assert [label.get_text() for label in figures["hidden_dim-lr"].axes[0].get_yticklabels()] == ["0.0003", "0.0001"]
    for name, axis in (("systems", "x"), ("cross", "y")):  # there are too many of the latter to stand side by side
        labels = [label.get_text() for label in getattr(figures[name].axes[0], f"get_{axis}ticklabels")()]
        assert labels == [row[0].text for row in every[2].tables[name].rows[:-1]]  # all but the vote
    panels = [ax.get_title() for ax in figures["curves"].axes if ax.axison]
    assert panels == ["grid", "fusion", "ablation", "width", "rate", "tricks", "systems", "cross"]


def test_the_report_asks_every_question_and_answers_it(every: tuple[Path, StudyRun, Report]) -> None:
    folder, _, report = every
    assert [answer.question for answer in report.answers] == [
        "How wide must it be?",
        "Which learning rate is best?",
        "Which hidden_dim and learning rate are best?",
        "Which change helps?",
        "Is the graph worth it?",
        "Which fusion, gat_first_dropout and heads are best?",
    ]
    html, markdown = ((folder / f"results/report.{form}").read_text() for form in ("html", "md"))
    for answer in report.answers:
        assert f"<h3>{answer.question}</h3>" in html
        assert f"### {answer.question}" in markdown
        assert answer.method.startswith("Differences are in points of WA on test, paired by seed")
        assert any(answer.question in paragraph for paragraph in report.summary)
    for block in OWN:
        assert f"/{block.name}.png)" in markdown
    assert len(report.claims) == 16


def test_the_dashboard_shows_every_block(every: tuple[Path, StudyRun, Report]) -> None:
    _, run, report = every
    for block in OWN:
        study = run.ledger.optuna_study(block.name)
        assert study
        figures = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
        assert set(figures) == {block.name, "learning-curves"}
        for text in figures.values():
            plotly.io.from_json(text)
            json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
        note = get_note(study)
        about = report.evidence.about.block(block.name)
        assert about
        assert note.startswith("*The study updates") and f"# {about.title}" in note.replace("\\", "")
        assert "## Answer" in note
        assert "| **" in note or "&emsp;" in note


def test_results_come_back_to_the_last_digit(every: tuple[Path, StudyRun, Report]) -> None:
    folder, _, report = every
    results, before = load_results(folder / "results"), report.evidence.results
    assert results.about == before.about
    told = ["reason", "log"]  # empty, which a csv cannot tell from missing
    assert results.trials.drop(columns=told).equals(before.trials.drop(columns=told))
    for block in (*PAPER, *OWN):
        pd.testing.assert_frame_equal(results.block(block.name), before.block(block.name), rtol=0, atol=0)
    assert results.width.equals(results.block("width"))
    assert results.width["hidden_dim"].tolist() == [8, 16, 64]
    assert pd.api.types.is_integer_dtype(results.width["hidden_dim"])
    assert results.rate["lr"].tolist() == [1e-4, 3e-4, 1.0]
    assert results.cross["gat_first_dropout"].tolist() == [True, True, False, False] * 2
    trials = results.trials.set_index("system")
    for system in ("concat_mlp", "logistic"):
        assert trials.loc[system, ["k_audio", "k_text", "fusion", "modules"]].isna().all(axis=None)
    assert trials.loc["gcn", "k_audio"].tolist() == [2] * 3
    assert trials.loc["logistic", ["lr", "epochs"]].isna().all(axis=None)
    assert str(results.trials["k_audio"].dtype) == "Int64"
    with pytest.raises(AttributeError, match="no block is called 'depth'; the study has grid, fusion"):
        results.depth  # noqa: B018


def test_studies_with_blocks_of_their_own_compare(every: tuple[Path, StudyRun, Report], tmp_path: Path) -> None:
    results = load_results(every[0] / "results")
    other = ran([WIDTH], seeds=2, at=Pair(1, 1))[1].results
    tables = {table.name: table for table in compare({"all": results, "one": other})}
    single = ("fusion", "ablation", "width", "rate", "tricks", "systems")
    assert set(tables) == {"compare", "compare_claims", *(f"compare_{name}" for name in single)}
    assert len(tables["compare_width"].frame) == 6
    assert tables["compare_width"].frame["n_seeds"].tolist() == [3] * 3 + [2] * 3
    assert set(tables["compare_systems"].frame["study"]) == {"all"}  # the other has none


def test_one_more_block_or_row_changes_no_other_verdict(every: tuple[Path, StudyRun, Report]) -> None:
    """Each block is a family of its own, and the claims are the paper's."""
    alone = ran(PAPER, utterances=demo_utterances())[1]
    several = every[2].evidence
    assert of_paper(alone) == of_paper(several)
    for name in ("fusion", "ablation"):
        assert str(alone.analysis.of(name)) == str(several.analysis.of(name))
    wider = with_values(WIDTH, {"hidden_dim": (8, 16, 64, 128)})
    more = ran((*PAPER, wider, *OWN[1:]), utterances=demo_utterances())[1]
    assert claims(more.analysis) == claims(several.analysis)  # both have the block systems
    for block in (*PAPER, *OWN[1:]):
        assert str(more.analysis.of(block.name)) == str(several.analysis.of(block.name))
    assert len(more.analysis.of("width")["wa"]) == 1 + len(several.analysis.of("width")["wa"])


@pytest.mark.parametrize(
    ("system", "block"),
    [
        ("concat_mlp", WIDTH),
        ("logistic", Block("strength", factors=[Factor("c", [0.1, 1.0])])),
    ],
)
def test_a_study_of_a_system_without_a_graph_has_no_k(tmp_path: Path, system: str, block: Block) -> None:
    run, evidence = ran([PAPER[0], block], system=system)
    report = make_report(evidence, again="again")
    report.write(tmp_path / "results", tmp_path / "plots")
    publish_report(run, report)
    assert report.claims == []
    text = " ".join(report.summary) + (tmp_path / "results/report.md").read_text()
    assert f"{system} uses no graph. On test, it reaches WA" in text
    assert "K_audio =" not in text
    assert "pair" not in answer_of(report, block.name)
    results = load_results(tmp_path / "results")
    assert results.grid["n_seeds"].tolist() == [3]
    assert results.trials["k_audio"].isna().all()
    assert results.about.fusion is None
    assert set(report.missing) >= {"topk", "topk-sd"}
    assert report.missing["topk"] == f"{system} has no such settings"


def test_nothing_is_said_of_a_pair_that_no_block_needs(tmp_path: Path) -> None:
    _, evidence = ran([Block("systems", systems=["concat_mlp", "logistic"])])
    report = make_report(evidence, again="again")
    report.write(tmp_path / "results", tmp_path / "plots")
    text = "\n".join(report.summary)
    assert "K_" not in text
    assert "Which system is best?" in text
    assert "<p>.</p>" not in (tmp_path / "results/report.html").read_text()


def test_one_seed_or_two_have_no_interval_in_an_answer() -> None:
    for seeds in (1, 2):
        report = make_report(ran([WIDTH, TRICKS], seeds=seeds, at=Pair(2, 1))[1], again="again")
        for name in ("width", "tricks"):
            said = answer_of(report, name)
            assert "[" not in said
            assert "95%" not in said
            assert ("One seed cannot show a difference." in said) == (seeds == 1)
            assert ("on test (1 seed)" if seeds == 1 else "on test (mean over 2 seeds)") in said


def test_what_failed_is_not_compared() -> None:
    _, evidence = ran([WIDTH], at=Pair(2, 1), fails=lambda t: t.configuration.get("hidden_dim") == 64)
    report = make_report(evidence, again="again")
    assert "hidden_dim 64" not in answer_of(report, "width")
    assert "Finished seeds, where fewer than 3: 64 0." in report.tables["width"].notes
    _, evidence = ran([WIDTH], at=Pair(2, 1), fails=lambda t: t.configuration.get("hidden_dim") != 64)
    (answer,) = make_report(evidence, again="again").answers
    assert answer.lines[0].startswith("hidden_dim 64 reaches WA ")
    assert answer.lines[0].endswith("on test (mean over 3 seeds). The others are not finished.")
    _, evidence = ran([WIDTH], at=Pair(2, 1), fails=lambda _: True)
    (answer,) = make_report(evidence, again="again").answers
    (line,) = answer.lines
    assert line.startswith("No configuration has a finished seed")
    _, evidence = ran([TRICKS], at=Pair(2, 1), fails=lambda t: t.configuration.profile == "as it is")
    (answer,) = make_report(evidence, again="again").answers
    assert answer.lines[-1] == "The reference, “as it is”, is not finished."


def told(values: dict[str, dict[int, list[float]]]) -> tuple[Answer, Report]:
    """The answer of the block width where validation and test are these, by hidden_dim."""
    _, evidence = ran([WIDTH], seeds=5, at=Pair(2, 1))
    trials = evidence.results.trials.copy()
    for split, by_width in values.items():
        for width, scores in by_width.items():
            trials.loc[trials["hidden_dim"] == width, f"{split}_wa"] = scores
    analysis = Analysis(Results(about=evidence.about, trials=trials))
    (answer,) = answers(analysis)
    return answer, make_report(replace(evidence, analysis=analysis), again="again")


def test_an_answer_has_the_signs_of_the_table() -> None:
    luck = np.array([0.001, -0.001, 0.0, 0.002, -0.002])
    val = {8: [0.5] * 5, 16: [0.6] * 5, 64: [0.7] * 5}
    test = {8: 0.5 + luck, 16: 0.6 + luck[::-1], 64: 0.598 + luck}
    answer, report = told({"val": val, "test": {k: list(v) for k, v in test.items()}})
    best, differs, same = answer.lines
    assert best == (
        "hidden_dim 64 is best by validation WA. It reaches WA 59.8 on test (mean over 5 seeds). hidden_dim 16 has the "
        "highest mean on test (60.0), but the test split must not choose."
    )
    assert differs == (
        "hidden_dim 8 scores 10.0 points less than hidden_dim 16 (95% interval −10.4 to −9.6; p < 0.001 after Holm's "
        "correction; 5 seeds). Probability that hidden_dim 8 is better by more than 1 point: < 0.01; practically the "
        "same: < 0.01; worse by more than 1 point: > 0.99."
    )
    # the differences are 0.1, -0.5, -0.2, 0.1 and -0.5 points: mean -0.2, deviation 0.3, so t is -1.49
    assert same == (
        "The same as hidden_dim 16 within 1 point: 64 (0.2 points less; 95% interval −0.6 to +0.2; p 0.210)."
    )
    assert answer.method == (
        "Differences are in points of WA on test, paired by seed, with Holm's correction over the 2 comparisons of the "
        "block. Tests and 95% intervals hold for another seed on the same test utterances."
    )
    cells = {row[0].text: row[1] for row in report.tables["width"].rows}
    assert [name for name, cell in cells.items() if cell.bold] == ["16"]
    assert [name for name, cell in cells.items() if cell.mark] == ["8"]
    assert (
        "* Differs from hidden_dim 16 (p < 0.05 after Holm's correction, for another seed); comparisons.csv has the "
        "difference."
    ) in report.tables["width"].notes


def test_an_answers_differences_are_those_of_the_tables_cells(every: tuple[Path, StudyRun, Report]) -> None:
    report = every[2]
    made = report.evidence.analysis.of("width")["wa"]
    cells = report.tables["width"].frame.set_index("hidden_dim")["wa_mean"]
    said = answer_of(report, "width")
    assert [c.verdict for c in made] == ["undecided", "undecided"]
    for c in made:
        difference = cells[int(c.second)] - cells[int(c.first)]
        assert 100 * c.difference.mean == pytest.approx(-difference)
        assert f"{c.second} ({abs(difference):.1f} points {'more' if difference > 0 else 'less'}; 95% interval" in said


def test_a_plane_of_many_cells_is_a_csv_and_its_differences_are_counted(tmp_path: Path) -> None:
    many = Block(
        "many", factors=[Factor("hidden_dim", range(4, 36, 4)), Factor("lr", [1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4])]
    )
    _, evidence = ran([many], at=Pair(2, 1))
    report = make_report(evidence, again="again")
    report.write(tmp_path / "results", tmp_path / "plots")
    assert "many" not in report.tables
    assert len(pd.read_csv(tmp_path / "results/many.csv")) == 48
    assert ", and 37 more." in answer_of(report, "many")
    table = report.tables["comparisons"]
    assert len(table.rows) == 40
    assert len(table.frame) == 47 * len(evidence.results.measures)
    assert "Of 47 comparisons of many, the 40 with the smallest p are shown; the csv has all." in table.notes


def test_the_answer_stays_short() -> None:
    many = Block("many", factors=[Factor("hidden_dim", range(4, 84, 4))])
    report = make_report(ran([many], at=Pair(2, 1))[1], again="again")
    assert len(answer_of(report, "many")) < 1500


@pytest.mark.process
def test_results_in_python_wait_for_nothing_that_is_slow_to_import(every: tuple[Path, StudyRun, Report]) -> None:
    code = """
import sys
from study import load_results
results = load_results(sys.argv[1])
assert len(results.width) == 3
print(*sorted({"torch", "optuna", "sqlalchemy", "matplotlib", "plotly", "ray"} & set(sys.modules)))
"""
    out, _ = ended(start_python("-c", code, str(every[0] / "results")))
    assert out.strip() == ""


def test_compare_reads_blocks_of_any_kind(
    every: tuple[Path, StudyRun, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran([WIDTH, SYSTEMS], at=Pair(1, 1))[1].results.save(tmp_path / "other")
    assert cemobam(["compare", str(every[0] / "results"), str(tmp_path / "other"), "--to", str(tmp_path / "to")]) == 0
    assert "The systems of demo 1 and demo 2" in capsys.readouterr().out
    assert (tmp_path / "to/compare_width.tex").is_file()
