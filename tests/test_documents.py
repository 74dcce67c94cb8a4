"""The documents: what they show a user to type runs as it stands."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import figures
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from runs import run_here

from cemobam_core.systems import names, system_class
from study import load_results
from study.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    name: import_module(f"study.commands.{name}").build_parser for name in COMMANDS
}
PAGES = [
    page.relative_to(ROOT).as_posix()
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
]


def python_blocks(page: str) -> list[tuple[int, str]]:
    """The Python code of a page: where it begins, and what it says."""
    text = (ROOT / page).read_text()
    fences = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, fence.start(1)), fence[1]) for fence in fences]


def commands(text: str) -> Iterator[str]:
    """The indented lines of a text and those of its shell blocks, continued ones as one."""
    language = None
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.startswith("```"):
            language = line.strip("`") if language is None else None
        elif language in ("", "sh", "bash") or (language is None and re.match(r" {2,}\S", line)):
            yield line.strip()


def words(command: str) -> list[str]:
    """A command as the shell takes it apart, without what is set before it; placeholders stand for themselves."""
    taken = [word for word in shlex.split(command, comments=True) if word != "…"]
    while taken and re.match(r"[A-Z_]+=", taken[0]):
        taken.pop(0)
    return taken


def ours(command: str) -> tuple[argparse.ArgumentParser, list[str]] | None:
    """The parser of a command of this project, and what it is given; None: it is another program's."""
    if "--help" in command or not re.search(r"run_grid\.py|cemobam", command.partition("#")[0]):
        return None
    try:
        typed = words(command)
    except ValueError:  # prose with an apostrophe
        return None
    if len(typed) > 1 and re.fullmatch(r"(.*/)?python3?", typed[0]) and typed[1] == "run_grid.py":
        return PARSERS["run"](), typed[2:]
    if typed[:1] == ["sbatch"] and "docs/cemobam.sbatch" in typed:
        return PARSERS["run"](), typed[typed.index("docs/cemobam.sbatch") + 1 :]
    if len(typed) > 1 and typed[0] in ("cemobam", ".venv/bin/cemobam"):
        return PARSERS[typed[1]](), typed[2:]
    return None


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)])
@pytest.mark.usefixtures("small_study")  # docs/results.md reads the demo's study: a small one does
def test_every_python_block_runs_from_the_top_of_its_page(page: str) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, block in python_blocks(page):
        exec(compile("\n" * line + block, str(ROOT / page), "exec"), namespace)


def test_the_pages_with_python_are_found() -> None:
    assert {page for page in PAGES if python_blocks(page)} >= {"README.md", "docs/results.md"}


TEXTS = {
    **{page: (ROOT / page).read_text() for page in PAGES},
    **{f"{name} --help": (parser().epilog or "").replace("example:", "  ") for name, parser in PARSERS.items()},
}


@pytest.mark.parametrize("where", TEXTS)
def test_every_command_is_one_that_the_parser_takes(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(TEXTS[where]):
        if found := ours(command):
            parser, given = found
            try:
                parser.parse_args(given)
            except SystemExit:
                pytest.fail(f"{where}: {command}\n{capsys.readouterr().err}")


def test_the_commands_are_found() -> None:
    counts = {where: sum(ours(command) is not None for command in commands(text)) for where, text in TEXTS.items()}
    assert counts["README.md"] >= 12
    assert counts["docs/running.md"] >= 7
    assert counts["run --help"] >= 6
    assert {where for where, count in counts.items() if count} >= {
        *("docs/dashboard.md", "docs/features.md", "docs/profiles.md"),
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


def test_the_demos_heatmap_and_answer_are_those_of_its_trials(tmp_path: Path) -> None:
    """If this fails, run ``make docs-figures``."""
    results = load_results(figures.DEMO)
    assert figures.written_answer() == figures.answer(results)
    figures.draw(results, tmp_path / "heatmap")
    drawn, kept = (imread(path.with_suffix(".png"))[..., :3] for path in (tmp_path / "heatmap", figures.HEATMAP))
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 0.002  # another release of the font library may shade an edge otherwise


@pytest.mark.usefixtures("without_figures")
def test_the_demos_trials_are_those_of_todays_code(in_folder: Path) -> None:
    """Some of the 530, run again. On another kind of CPU a few of the 180 test utterances may change sides."""
    run_here("--k-audio", "3,10", "--k-text", "5", "--at", "3,5", "--workers", "2")
    key = ["k_audio", "k_text", "fusion", "modules", "seed"]
    again, kept = (pd.read_csv(folder / "trials.csv").set_index(key) for folder in (Path("results/demo"), figures.DEMO))
    assert len(again) == 5 * (2 + 4 + 2)
    assert set(again.index) <= set(kept.index)
    for metric in ("val_wa", "test_wa", "test_ua", "test_wf1"):
        difference = again[metric] - kept.loc[again.index, metric]
        assert difference.abs().mean() < 0.02, metric
