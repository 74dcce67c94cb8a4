"""How ``cemobam figures`` and ``cemobam compare`` draw: formats, resolution, titles, styles, several grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from simulated import Noise, study

from study.commands import cemobam, main
from study.output.compare import joint_grids


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which a mistake is told."""
    capsys.readouterr()
    try:
        assert cemobam(command) == 2
    except SystemExit as stop:
        assert stop.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_each_format_is_written_and_reports_leave_it(small_study: Path) -> None:
    plots = small_study / "plots" / "demo"
    before = {path.name for path in plots.iterdir()}
    assert cemobam(["figures", "--only", "topk,marginal", "--format", "SVG,pdf"]) == 0
    assert {path.name for path in plots.iterdir()} == before | {"fig2_topk.svg", "marginal.svg"}
    assert (plots / "fig2_topk.svg").read_text().startswith("<?xml")
    assert (plots / "fig2_topk.pdf").read_bytes().startswith(b"%PDF")
    assert main(["--report-only"]) == 0
    assert {path.name for path in plots.iterdir()} == before | {"fig2_topk.svg", "marginal.svg"}
    assert main(["--report-only", "--k-text", "1"]) == 0  # the report of all K is set aside, with what was drawn of it
    (aside,) = (path for path in plots.iterdir() if path.is_dir())
    assert (aside / "fig2_topk.svg").exists()
    assert not (plots / "fig2_topk.svg").exists()


def test_figures_of_another_look_have_a_folder_that_no_report_writes_to(
    small_study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plots = small_study / "plots" / "demo"
    usual = (plots / "fig2_topk.png").read_bytes()
    look = ["--dpi", "60", "--no-title", "--style", "dark_background", "--format", "png"]
    assert cemobam(["figures", "--only", "topk", *look]) == 0
    said = capsys.readouterr().out
    assert "fig2_topk: The K grid (Fig. 2). Each cell is the mean score" in said
    (drawn,) = (plots / "custom").iterdir()
    pixels, size = imread(drawn), imread(plots / "fig2_topk.png").shape
    assert drawn.name == "fig2_topk.png"
    assert pixels.shape[:2] == pytest.approx([x * 60 / 300 for x in size[:2]], abs=1)
    assert np.allclose(pixels[0, 0, :3], 0)  # the style's background
    assert (plots / "fig2_topk.png").read_bytes() == usual
    kept = drawn.read_bytes()
    assert main(["--report-only"]) == 0
    assert drawn.read_bytes() == kept


@pytest.mark.parametrize("command", ["figures", "compare"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "gif"], "'gif' is not a format of figures; choose from png, pdf, svg"),
        (["--format", "png,png"], "names png twice"),
        (["--format", ""], "'' is not a format"),
        (["--dpi", "49"], "'49' is not a resolution: a whole number from 50 to 1200"),
        (["--dpi", "1201"], "'1201' is not a resolution"),
        (["--dpi", "high"], "'high' is not a resolution"),
        (["--dpi", "100", "--format", "svg"], "--dpi 100 is the resolution of a PNG; add png to --format"),
        (["--style", "seaborn"], "--style seaborn: neither a style of matplotlib nor a .mplstyle file"),
        (["--style", "ggplto"], "the nearest are ggplot"),
        (["--style", "none.mplstyle"], "--style none.mplstyle: there is no such file"),
    ],
)
@pytest.mark.usefixtures("in_folder")
def test_a_wrong_value_is_told_in_one_line(
    command: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["results/a", "results/b", "--to", "both"] if command == "compare" else []
    line = refused([command, *folders, *options], capsys)
    assert line.startswith(f"cemobam {command}: error: ")
    assert message in line


@pytest.fixture
def studies(in_folder: Path) -> list[str]:
    """Folders of two studies of simulated grids, and of a third with another grid."""
    rng = np.random.default_rng(0)
    for name, dataset, size in (("one", "iemocap", (8, 7)), ("two", "esd", (8, 7)), ("small", "esd", (2, 3))):
        study(rng, Noise(), size=size, dataset=dataset).save(in_folder / name)
    return [str(in_folder / name) for name in ("one", "two", "small")]


def test_grids_stand_in_one_figure(studies: list[str], in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = in_folder / "both"
    assert cemobam(["compare", *studies, "--to", str(both)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "sim 3 is left out: its grid has K_audio 1, 2 and K_text 1 to 3, that of the others has K_audio 1 to 8" in said
    )
    assert "compare_topk: The K grid of sim 1 and sim 2. Each number is the mean score" in said
    assert {path.name for path in both.glob("*.p*")} == {"compare_topk.png", "compare_topk.pdf"}
    assert {"compare.csv", "compare_claims.md"} <= {path.name for path in both.iterdir()}
    look = ["--format", "svg,png", "--dpi", "50", "--no-title", "--style", "grayscale"]
    assert cemobam(["compare", *studies[:2], "--to", str(both), *look]) == 0
    assert (both / "compare_topk.svg").read_text().startswith("<?xml")
    assert imread(both / "compare_topk.png").shape[1] == pytest.approx(50 * 7.16, abs=1)
    assert cemobam(["compare", *studies[1:], "--to", str(both)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No joint figure of the K grids: It takes two studies with the same K grid; here are sim 1 (K_audio" in said
    assert not (both / "compare_topk.png").exists()  # it was of other studies
    assert (both / "compare_topk.svg").exists()  # drawn with other options


def test_options_of_figures_need_a_folder(studies: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "are for the figures that --to writes; add --to DIR" in refused(["compare", *studies, "--no-title"], capsys)


def test_the_joint_figure_has_the_chosen_and_the_papers_cells() -> None:
    rng = np.random.default_rng(0)
    made = {name: study(rng, Noise(), size=(8, 7), dataset=name) for name in ("iemocap", "esd")}
    planes, left_out = joint_grids(made)
    assert not left_out
    assert {name: plane.paper for name, plane in planes.items()} == {"iemocap": (8, 7), "esd": (4, 5)}
    assert {name: plane.chosen for name, plane in planes.items()} == {name: of.about.pair for name, of in made.items()}
