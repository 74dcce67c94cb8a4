"""What the documents show of a finished study of the demo: files are kept, pictures are taken."""

from __future__ import annotations

from pathlib import Path

import figures
import pictures
import pytest
from matplotlib.image import imread

RESULTS, PLOTS = Path("results/demo"), Path("plots/demo")


@pytest.fixture
def kept(small_study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that stands for ``docs``."""
    folder = small_study / "kept"
    for name in ("demo", "images"):
        (folder / name).mkdir(parents=True)
        monkeypatch.setattr(figures, name.upper(), folder / name)
    monkeypatch.setattr(figures, "shown_images", lambda: {"fig2_topk.png", "report.png", "no_figure.png"})
    return folder


def test_files_are_kept_and_a_missing_browser_is_named(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "missing", lambda: ["chromedriver"])
    figures.keep(RESULTS, PLOTS)
    for name in ("trials.csv", "study.json", "predictions.npz", "utterances.csv", "report.html"):
        assert (kept / "demo" / name).read_bytes() == (RESULTS / name).read_bytes()
    assert [image.name for image in (kept / "images").iterdir()] == ["fig2_topk.png"]
    assert "chromedriver not found: the pictures of report and dashboard were not made again" in capsys.readouterr().out


@pytest.mark.browser
@pytest.mark.slow
def test_pictures_of_report_and_dashboard_are_taken(kept: Path) -> None:
    figures.keep(RESULTS, PLOTS)
    for name in ("report.png", "dashboard.png"):
        picture = imread(kept / "images" / name)
        assert picture.shape[1] == 1280
        assert picture.std() > 0.05  # not a blank page


def test_the_pages_show_the_pictures_and_the_grid() -> None:
    assert {"report.png", "dashboard.png", "fig2_topk.png", "architecture.svg"} <= figures.shown_images()
