"""The study as functions: what they take, what they return, and how they read in a notebook."""

from __future__ import annotations

import asyncio
import base64
import inspect
import re
import textwrap
import threading
from pathlib import Path
from typing import Any

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient
from runs import ROOT, TRIALS, ended, recorded, start_python, until

import study
from cemobam_core import InputError
from study import notebook
from study.commands import run as command
from study.commands.options import STUDY


@pytest.mark.parametrize(
    ("given", "typed"),
    [
        ({"k_audio": [1, 4], "seeds": 2}, ["--k-audio", "1,4", "--seeds", "2"]),
        (
            {"k_audio": range(1, 4), "k_text": "1:2", "seeds": [7]},
            ["--k-audio", "1:3", "--k-text", "1,2", "--seeds", "7,"],
        ),
        ({"k_text": 3, "seeds": (0, 5), "at": (8, 7)}, ["--k-text", "3", "--seeds", "0,5", "--at", "8,7"]),
        (
            {"set": {"gat_layers": 2, "gat_first_dropout": False}, "lr": 1e-5},
            ["--set", "gat_layers=2", "--set", "gat_first_dropout=false", "--lr", "1e-5"],
        ),
        ({"vary": {"hidden_dim": [8, 16]}, "until_clear": True}, ["--vary", "hidden_dim=8,16", "--until-clear"]),
        ({"set": ["lr=1"], "systems": ["gcn", "svm"]}, ["--set", "lr=1", "--systems", "gcn,svm"]),
        ({"results": Path("a b"), "dataset": "iemocap", "name": None}, ["--results", "a b", "--dataset", "iemocap"]),
        ({"blocks": ["grid", "fusion"], "verbose": False}, ["--blocks", "grid,fusion"]),
    ],
)
def test_arguments_mean_what_the_options_mean(given: dict[str, Any], typed: list[str]) -> None:
    assert vars(notebook._arguments(command, given)) == vars(command.build_parser("cemobam run").parse_args(typed))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k_aduio": [1]}, "there is no argument 'k_aduio'; did you mean `k_audio`?"),
        ({"k_audio": [0]}, "`k_audio`: '0' is not a list of whole numbers of at least 1"),
        ({"k_audio": []}, "`k_audio`: '' is not a list of whole numbers"),
        ({"device": "gpu"}, "`device`: invalid choice: 'gpu'"),
        ({"until_clear": 3}, "until_clear=3: give True or False"),
        ({"features": "x"}, "`features` without `dataset`: name the data set"),
        ({"at": (8,)}, "`at` 8 is not a K pair; write K_audio,K_text"),
        ({"set": {"lrr": 1}}, "`set`: cemobam has no setting 'lrr'; did you mean lr?"),
        ({"dry_run": True, "report_only": True}, "`report_only`: not allowed with argument `dry_run`"),
        ({"report_only": True}, "there is no ledger; run the study first, without `report_only`"),
    ],
)
def test_a_mistake_names_the_argument(in_folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        study.run(**given)
    assert raised.value.__suppress_context__
    assert len(raised.traceback) == 2  # here, and in the function
    assert list(in_folder.iterdir()) == []


def test_the_signature_has_every_option() -> None:
    names = {option.name for group in STUDY for option in group.options}
    assert set(inspect.signature(study.run).parameters) == names | {"print_report"}


def test_a_study_is_run_once_and_told_in_a_few_lines(
    in_folder: Path, capsys: pytest.CaptureFixture[str], without_figures: None
) -> None:
    asked: dict[str, Any] = {"k_audio": [1, 3], "k_text": 1, "seeds": 1, "epochs": 1, "blocks": "grid", "workers": 1}
    assert study.run(**asked, dry_run=True) is None
    capsys.readouterr()
    results = study.run(**asked)
    assert isinstance(results, study.Results)
    assert results.folder == Path("results/demo")
    assert len(results.trials) == 2
    out = capsys.readouterr().out
    assert "2 trials, 0 done, 2 to run" in out
    assert "written:" not in out
    again = study.run(**asked, print_report=True)
    assert again.trials.equals(results.trials)
    assert "written:" in capsys.readouterr().out


def test_results_are_shown_as_a_table(small_study: Path) -> None:
    results = study.load_results("results/demo")
    text = repr(results)
    assert text.startswith(f"demo (synthetic), profile paper: {TRIALS} trials done\n\nK_audio = ")
    assert re.search(r"^ *fusion +Fusion +4 +2 +8 of 8 +MIN ", text, flags=re.MULTILINE)
    html = results._repr_html_()
    assert "<td>8 of 8</td>" in html
    failed = results.trials.assign(status=["failed", *["done"] * (TRIALS - 1)], reason="<oom>")
    other = study.Results(about=results.about, trials=failed)
    assert f"{TRIALS - 1} trials done, 1 failed (<oom>); run the study again" in repr(other)
    assert "&lt;oom&gt;" in other._repr_html_()


def test_figures_are_drawn_from_results_or_their_folder(small_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (drawn,) = study.figures("results/demo", only="topk").values()
    assert isinstance(drawn, Figure)
    monkeypatch.chdir(small_study / "results" / "demo")
    assert list(study.figures(study.load_results("."), only=["fusion", "curves"])) == ["fusion", "curves"]
    with pytest.raises(InputError, match="only='nosuch': no such figure; choose from topk"):
        study.figures(".", only="nosuch")
    with pytest.raises(InputError, match="only='embedding': it takes a kept model"):
        study.figures(".", only="embedding")
    with pytest.raises(InputError, match="nowhere: this is not the results folder of a study"):
        study.figures("nowhere")
    (small_study / "results" / "demo" / "study.db").rename(small_study / "moved.db")
    with pytest.raises(InputError, match=r"demo: there is no study\.db in it; say where the ledger is with storage=…"):
        study.figures(".")
    assert study.figures(".", only="topk", storage=f"sqlite:///{small_study / 'moved.db'}")
    results = study.Results(about=study.load_results(".").about, trials=study.load_results(".").trials)
    with pytest.raises(InputError, match="these results are of no folder"):
        study.figures(results)


@pytest.mark.process
@pytest.mark.parametrize("starts", ["forks", pytest.param("spawns", marks=pytest.mark.slow)])
def test_a_script_needs_no_guard(in_folder: Path, starts: str) -> None:
    spawns = "import study.engines.server as server; server.FORKS = False" if starts == "spawns" else ""
    Path("plain.py").write_text(
        textwrap.dedent(f"""
        print("the script runs")
        {spawns}
        import study
        print(study.run(k_audio=[1], k_text=[1, 2], blocks="grid", seeds=2, epochs=1, workers=2))
        """)
    )
    out, err = ended(start_python("plain.py"))
    assert out.count("the script runs") == 1
    assert "demo (synthetic), profile paper: 4 trials done" in out
    assert "Traceback" not in err


def _executed(cells: list[str], folder: Path, **options: Any) -> tuple[nbformat.NotebookNode, NotebookClient]:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    return made, _client(made, folder, **options)


def _client(made: nbformat.NotebookNode, folder: Path, **options: Any) -> NotebookClient:
    return NotebookClient(
        made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, **options
    )


def _shown(cell: nbformat.NotebookNode) -> str:
    """Return the text of a cell's outputs."""
    texts = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell.outputs]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(texts))


quiet_kernel = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning"
)


@quiet_kernel
@pytest.mark.process
def test_the_notebook_of_the_documents_runs_as_it_stands(in_folder: Path) -> None:
    kept = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    made = nbformat.from_dict({**kept, "cells": [{**cell} for cell in kept.cells]})
    _client(made, in_folder).execute()
    for cell, before in zip(made.cells, kept.cells, strict=True):
        if cell.cell_type == "code":
            assert {one.output_type for one in cell.outputs} == {one.output_type for one in before.outputs}, cell.source
            assert not any(one.output_type == "error" or one.get("name") == "stderr" for one in cell.outputs), (
                cell.source
            )
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert "100%|█" in _shown(code[0])
    assert "html" in str(code[1].outputs[0].data.keys())
    images = [one.data["image/png"] for cell in code for one in cell.outputs if "image/png" in one.get("data", {})]
    assert base64.b64decode(images[0]).startswith(b"\x89PNG")


@quiet_kernel
@pytest.mark.slow
@pytest.mark.process
def test_an_interrupted_cell_keeps_what_was_done_and_goes_on(in_folder: Path) -> None:
    ask = "import study; study.run(k_audio=[1, 2], k_text=[1, 2], blocks='grid', seeds=2, workers=1, epochs={})"
    made, client = _executed([ask.format(800)], in_folder, allow_errors=True)

    def interrupt() -> None:
        until(lambda: recorded() >= 1, "a trial is done")
        assert client.km is not None
        asyncio.run(client.km.interrupt_kernel())

    thread = threading.Thread(target=interrupt)
    thread.start()
    client.execute()
    thread.join()
    (error,) = [one for one in made.cells[0].outputs if one.output_type == "error"]
    assert error.ename == "KeyboardInterrupt"
    assert error.evalue == "the trials that are done are kept; the same call continues from there"
    assert len("\n".join(error.traceback).splitlines()) < 20
    assert recorded() >= 1
