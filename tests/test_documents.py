"""The documents: all commands and code in them run as they are written."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import figures
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imread
from runs import run_here

from cemobam_core.systems import names, system_class
from study import load_results
from study.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    name: import_module(f"study.commands.{name}").build_parser for name in COMMANDS
}
PAGES = [
    page.relative_to(ROOT).as_posix()
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
]


def python_blocks(page: str) -> list[tuple[int, str]]:
    """Return the Python blocks of a page: where each begins, and its code."""
    text = (ROOT / page).read_text()
    fences = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, fence.start(1)), fence[1]) for fence in fences]


def commands(text: str) -> Iterator[str]:
    """Return the indented lines of a text and the lines of its shell blocks. Continued lines are joined."""
    language = None
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.startswith("```"):
            language = line.strip("`") if language is None else None
        elif language in ("", "sh", "bash") or (language is None and re.match(r" {2,}\S", line)):
            yield line.strip()


def words(command: str) -> list[str]:
    """Split a command like the shell, without variables that are set before it. Placeholders stay as they are."""
    taken = [word for word in shlex.split(command, comments=True) if word != "…"]
    while taken and re.match(r"[A-Z_]+=", taken[0]):
        taken.pop(0)
    return taken


def ours(command: str) -> tuple[str, list[str]] | None:
    """The name of a command of this project, and what it is given; None: it is another program's."""
    if not re.search(r"run_grid\.py|cemobam", command.partition("#")[0]):
        return None
    try:
        typed = words(command)
    except ValueError:  # a sentence with an apostrophe
        return None
    if len(typed) > 1 and re.fullmatch(r"(.*/)?python3?", typed[0]) and typed[1] == "run_grid.py":
        return "run", typed[2:]
    if typed[:1] == ["sbatch"] and "docs/cemobam.sbatch" in typed:
        return "run", typed[typed.index("docs/cemobam.sbatch") + 1 :]
    if len(typed) > 1 and typed[0] in ("cemobam", ".venv/bin/cemobam") and "--help" not in typed:
        return typed[1], typed[2:]
    return None


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)])
@pytest.mark.usefixtures("small_study")  # docs/report.md reads the demo's study: a small one does
def test_every_python_block_runs_from_the_top_of_its_page(page: str) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, block in python_blocks(page):
        exec(compile("\n" * line + block, str(ROOT / page), "exec"), namespace)


def test_the_pages_with_python_are_found() -> None:
    assert {page for page in PAGES if python_blocks(page)} >= {
        *("docs/corpus.md", "docs/model.md", "docs/question.md", "docs/report.md", "docs/reference/cemobam_core.md"),
    }


TEXTS = {
    **{page: (ROOT / page).read_text() for page in PAGES},
    **{f"{name} --help": (parser().epilog or "").replace("example:", "  ") for name, parser in PARSERS.items()},
}


@pytest.mark.parametrize("where", TEXTS)
def test_every_command_is_one_that_the_parser_takes(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(TEXTS[where]):
        if found := ours(command):
            name, given = found
            assert name in PARSERS, f"{where}: {command}"
            try:
                PARSERS[name]().parse_args(given)
            except SystemExit:
                pytest.fail(f"{where}: {command}\n{capsys.readouterr().err}")


def test_the_commands_are_found() -> None:
    counts = {where: sum(ours(command) is not None for command in commands(text)) for where, text in TEXTS.items()}
    assert counts["README.md"] >= 10
    assert counts["docs/running.md"] >= 7
    assert counts["run --help"] >= 6
    assert {where for where, count in counts.items() if count} >= {
        *("docs/index.md", "docs/corpus.md", "docs/model.md", "docs/question.md", "docs/dashboard.md"),
        *("docs/profiles.md", "docs/method.md", "docs/reference/files.md"),
        *(f"{name} --help" for name in ("features", "dashboard", "compare", "predict")),
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_is_named_is_there(page: str) -> None:
    known = {option for parser in PARSERS.values() for action in parser()._actions for option in action.option_strings}
    named = {
        option for span in re.findall(r"`([^`\n]+)`", TEXTS[page]) for option in re.findall(r"--[a-z][a-z-]+", span)
    }
    assert named <= known


def test_the_table_of_systems_is_that_of_the_code() -> None:
    rows = [line.strip("| ").split(" | ") for line in TEXTS["docs/systems.md"].splitlines() if line.startswith("| `")]
    told = {row[0].strip("`"): (row[-2], row[-1]) for row in rows if len(row) == 5}
    assert set(names()) <= told.keys()
    for name in names():
        kind = system_class(name)
        assert told[name][1] == ("yes" if kind.uses_graph else "no"), name
        assert not kind.group or told[name][0] == kind.group, name


@pytest.mark.parametrize("page", PAGES)
def test_every_script_and_target_that_is_named_is_there(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for command in commands(TEXTS[page]):
        if command.startswith("make "):
            assert command.split()[1] in targets, command
        if script := re.match(r"(?:\S*/)?python3? (\S+\.py)\b", command):
            assert (ROOT / script[1]).is_file(), command


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_linked_or_shown_is_there(page: str) -> None:
    without_code = re.sub(r"^```.*?^```$|`[^`\n]+`", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", without_code):
        if not re.match(r"[a-z]+:", target):
            assert (ROOT / page).parent.joinpath(target).is_file(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_extra_that_is_named_is_there(page: str) -> None:
    named = {
        extra
        for extras in re.findall(r"(?:cemobam-study|'\.)\[([a-z,]+)\]", TEXTS[page])
        for extra in extras.split(",")
    }
    assert named <= PROJECT["optional-dependencies"].keys()


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].split()) < 900


def test_the_citation_has_what_its_format_requires() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors"}
    assert citation["type"] == "software"
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    paper = citation["preferred-citation"]
    assert (paper["type"], paper["year"], paper["conference"]["name"]) == ("conference-paper", 2025, "APNOMS 2025")
    families = [author["family-names"] for author in paper["authors"]]
    assert families == ["Nguyen", "Le", "Nguyen", "Phan", "Tran", "Dang"]
    readme = " ".join(TEXTS["README.md"].split())
    assert paper["title"] in readme
    assert f"{', '.join(families[:-1])} and {families[-1]}" in readme


def test_the_demos_heatmap_and_answer_are_those_of_its_trials(tmp_path: Path) -> None:
    """Check the figures in the documents. If this fails, run ``make docs-figures``."""
    results = load_results(figures.DEMO)
    assert figures.written_answer() == figures.answer(results)
    figures.draw(results, tmp_path / "fig2_topk")
    drawn, kept = (imread(folder / "fig2_topk.png")[..., :3] for folder in (tmp_path, figures.IMAGES))
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 0.002  # another release of the font library may shade edges differently


@pytest.mark.usefixtures("without_figures")
def test_the_demos_trials_are_those_of_todays_code(in_folder: Path) -> None:
    """Run some of the 530 trials again. On another kind of CPU, a few of the 480 test utterances may differ."""
    chosen = load_results(figures.DEMO).about.at
    run_here("--k-audio", "3,10", "--k-text", "5", "--at", str(chosen), "--workers", "2")
    key = ["k_audio", "k_text", "fusion", "modules", "seed"]
    again, kept = (pd.read_csv(folder / "trials.csv").set_index(key) for folder in (Path("results/demo"), figures.DEMO))
    assert len(again) == 5 * (2 + 4 + 2)
    assert set(again.index) <= set(kept.index)
    for metric in ("val_wa", "test_wa", "test_ua", "test_wf1"):
        difference = again[metric] - kept.loc[again.index, metric]
        assert difference.abs().mean() < 0.02, metric
