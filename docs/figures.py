"""Make the parts of the documents that show the demo (``make docs-figures``), and run the notebook again.

The whole study runs first, in a folder of its own. Its trials and its report are kept in ``docs/demo``, and the figures
and pictures that pages show in ``docs/images``. The section "The demo's answer" in ``docs/statistics.md`` is made from
the kept trials. Tests compare the trials, the K grid and the answer with the results of the current code.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import numpy as np
import pictures
from nbclient import NotebookClient

from cemobam_core.files import written_atomically
from study import load_results
from study.commands import main as run_study
from study.findings.analysis import Analysis
from study.findings.predictions import PREDICTIONS, UTTERANCES
from study.findings.results import ABOUT, TRIALS, Results
from study.findings.statistics import Array
from study.output.figures.plane import plane_figure, plane_of
from study.output.figures.style import Look, plain, save
from study.output.tables import plain_markdown
from study.papers.cemobam.claims import claims

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DEMO = DOCS / "demo"
IMAGES = DOCS / "images"
STATISTICS = DOCS / "statistics.md"
NOTEBOOK = DOCS / "notebook.ipynb"
REPORT = "report.html"

_SECTION = re.compile(r"(?<=<!-- made by make docs-figures -->\n).*?(?=<!-- end -->)", flags=re.DOTALL)


def main() -> int:
    """Run the demo's study, write everything again and return the exit status."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        status = run_study(["--results", str(folder / "results"), "--plots", str(folder / "plots")])
        if status:
            return status
        keep(folder / "results" / "demo", folder / "plots" / "demo")
    run_notebook()
    text = STATISTICS.read_text(encoding="utf-8")
    _write(STATISTICS, _SECTION.sub(lambda _: answer(load_results(DEMO)), text).encode())
    return 0


def keep(study: Path, plots: Path) -> None:
    """Keep the parts of a finished demo study that the documents show.

    Args:
        study: Folder of the study's results.
        plots: Folder of the study's figures.
    """
    for name in (TRIALS, ABOUT, PREDICTIONS, UTTERANCES, REPORT):
        _write(DEMO / name, (study / name).read_bytes())
    for name in shown_images():
        if (plots / name).is_file():
            _write(IMAGES / name, (plots / name).read_bytes())
    if missing := pictures.missing():
        print(f"{', '.join(missing)} not found: the pictures of report and dashboard were not made again")
    else:
        pictures.take(study, IMAGES)


def run_notebook() -> None:
    """Run every cell of the notebook in an empty folder and keep its outputs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    _write(NOTEBOOK, nbformat.writes(notebook).encode())


def shown_images() -> set[str]:
    """Return the names of the files in ``docs/images`` that pages show."""
    texts = [page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *DOCS.rglob("*.md"))]
    return {name for text in texts for name in re.findall(r"images/([\w.-]+)", text)}


def _write(path: Path, content: bytes) -> None:
    with written_atomically(path) as temporary:
        temporary.write_bytes(content)


def draw(results: Results, path: Path) -> None:
    """Draw the K grid as the report does, for the screen alone.

    Args:
        results: Results of the demo's whole study.
        path: Path of the picture, without the ending.
    """
    assert results.about.choosing
    figure = plane_figure(plane_of(results, results.about.choosing), title=plain(results.about.title))
    save(figure, path, Look(forms=("png",)))


def written_answer() -> str:
    """Return the section "The demo's answer" as the document has it."""
    found = _SECTION.search(STATISTICS.read_text(encoding="utf-8"))
    assert found, f"{STATISTICS} has lost the comments around the demo's answer"
    return found[0]


def answer(results: Results) -> str:
    """Return the section "The demo's answer": the claims that were tested, and what choosing K promises and holds."""
    analysis = Analysis(results)
    grid, chosen = analysis.grid, analysis.selections["val", "wa"]
    assert grid
    val, test = (_luck(grid.values[f"{split}_wa"]) for split in ("val", "test"))
    answers = [
        _filled(f"- **{claim.verdict}**: {plain_markdown(' '.join((claim.answer, *claim.numbers)))}")
        for claim in claims(analysis)
        if claim.verdict != "not tested"
    ]
    fresh = results.own["test_wa_mean"].iloc[0]
    choice = _filled(
        f"The pair chosen on validation, {results.about.at}, reports WA {100 * chosen.reported:.1f} with the seeds "
        f"that chose it. The seeds that took no part in the choice give {100 * fresh:.1f}. The luck of neighbouring "
        f"pairs (K_audio one apart, same seed) correlates by {_correlation(test[:, 1:], test[:, :-1]):.2f}, luck on "
        f"validation with luck on test by {_correlation(val, test):.2f}."
    )
    choose, confirm = (f"{seeds[0]} to {seeds[-1]}" for seeds in (results.about.seeds, results.about.confirm))
    heading = f"On the demo ({len(results.trials)} trials; seeds {choose} choose, seeds {confirm} confirm):"
    return "\n\n".join([heading, "\n".join(answers), choice]) + "\n"


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, subsequent_indent="  " if text.startswith("-") else "", break_on_hyphens=False)


def _luck(values: Array) -> Array:
    """Return (S, A, B) values less the mean of their pair and less the mean of their seed."""
    centred: Array = values - values.mean(axis=(1, 2), keepdims=True)
    luck: Array = centred - centred.mean(axis=0)
    return luck


def _correlation(first: Array, second: Array) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


if __name__ == "__main__":
    sys.exit(main())
