"""The commands ``cemobam demo`` and ``--open``, and the dashboard of a study that ran without it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna_dashboard import get_note
from runs import cemobam_here, run_here

from study.commands import demo, opening

SHORT = ("--k-audio", "1", "--k-text", "1,2", "--seeds", "1", "--epochs", "1", "--workers", "1", "--blocks", "grid")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open, on a machine with a display."""
    pages: list[str] = []

    def browse(address: str) -> bool:
        pages.append(address)
        return True

    monkeypatch.setattr(opening.webbrowser, "open", browse)
    monkeypatch.setattr(opening, "has_display", lambda: True)
    return pages


@pytest.mark.usefixtures("without_figures")
def test_the_demo_runs_and_opens_its_report(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    monkeypatch.setattr(demo, "_QUICK", SHORT)
    out, _ = cemobam_here("demo", "--quick", "--open", "--workers", "2", "--results", "here")
    assert "2 trials, 0 done, 2 to run" in out
    assert opened == [(in_folder / "here/demo/report.html").as_uri()]
    again = Path("here/demo/report.md").read_text().rpartition("How to reproduce this")[2].strip().splitlines()[0]
    assert again.startswith("cemobam run --blocks grid --k-audio 1 --k-text 1,2 --seeds 0,")
    assert "--results here" in again


def test_the_quick_demo_is_a_small_grid_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run_study(args: Any) -> int:
        asked.append(args)
        return 0

    monkeypatch.setattr("study.commands.running.run_study", run_study)
    cemobam_here("demo", "--quick")
    cemobam_here("demo")
    quick, whole = asked
    assert quick.k_audio == quick.k_text == (1, 4, 7, 10)
    assert quick.seeds == (0, 1)
    assert whole.k_audio is None
    assert whole.seeds == (0, 1, 2, 3, 4)
    assert quick.dataset is whole.dataset is None
    assert quick.command == whole.command == "cemobam run"


def test_a_machine_without_a_display_prints_the_address(
    small_study: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    monkeypatch.setattr(opening, "has_display", lambda: False)
    out, _ = cemobam_here("run", "--report-only", "--open")
    assert out.endswith(
        f"\nopen this address in a browser: {(small_study / 'results/demo/report.html').resolve().as_uri()}\n"
    )
    assert opened == []


@pytest.mark.parametrize(
    ("platform", "variables", "display"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
        ("darwin", {"SSH_CONNECTION": "a b c d"}, False),
        ("win32", {}, True),
    ],
)
def test_a_display_is_found(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], display: bool
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert opening.has_display() is display


def test_opening_a_plan_is_refused() -> None:
    _, err = run_here("--dry-run", "--open", status=2)
    assert err == "run_grid.py: error: --open: --dry-run writes no report; leave one of them out\n"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A function that starts the dashboard, which ends at once, and returns what it printed."""
    monkeypatch.setattr("study.output.dashboard.serve", lambda *_, **__: None)
    return lambda: "".join(cemobam_here("dashboard"))


@pytest.mark.usefixtures("in_folder", "without_figures")
def test_the_dashboard_publishes_what_was_run_without_it(
    monkeypatch: pytest.MonkeyPatch, served: Callable[[], str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "plotly", None)
        out, _ = run_here(*SHORT)
    assert "watch it in a browser" not in out
    assert "cemobam dashboard --dataset demo  (install it first: pip install 'cemobam-study[dashboard]')" in out
    assert notes() == [""]
    assert served() == "drawing the figures of demo epochs=1 …\n"
    assert all("trials of this block are done" in note for note in notes())
    assert served() == ""  # they are current
    run_here(*SHORT, "--seeds", "2")
    assert served() == ""  # the run has published its own


@pytest.mark.usefixtures("in_folder", "without_figures")
def test_a_study_that_cannot_be_made_again_is_told_and_the_dashboard_starts(
    monkeypatch: pytest.MonkeyPatch, served: Callable[[], str]
) -> None:
    Path("mine.py").write_text(
        'from study import Block, Factor\nblocks = [Block("w", factors=[Factor("lr", [1e-3, 1e-2])])]\n'
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "plotly", None)
        run_here("--study", "mine.py", "--at", "1,2", "--seeds", "1", "--epochs", "1", "--workers", "1")
    Path("mine.py").unlink()
    assert "figures and notes of demo are not current: --study mine.py" in served()


def notes() -> list[str]:
    """The note of each Optuna study in the demo's ledger."""
    storage = "sqlite:///results/demo/study.db"
    return [
        get_note(optuna.load_study(study_name=name, storage=storage)) for name in optuna.get_all_study_names(storage)
    ]
