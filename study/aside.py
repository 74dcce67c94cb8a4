"""Reports of other settings stay: where a report is to be written over one, that one is moved aside first."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cemobam_core.config import PROFILES
from cemobam_core.corpora import CORPORA
from cemobam_core.errors import InputError
from study.arguments import grid_parser
from study.design import Design, readings
from study.report import PLOT_FILES, RESULT_FILES
from study.request import SETTINGS
from study.results import ABOUT, About, read_about

_LONGEST = 100
"""Characters of a folder's name."""


def set_aside(new: About, results: Path, plots: Path) -> str:
    """Move the report that lies in ``results`` and ``plots`` into a folder of its settings, unless ``new`` covers it.

    A report covers another of the same settings when it shows at least the same K and the same seeds.

    Args:
        new: what is about to be written there.
        results: the folder of the study's results.
        plots: the folder of its figures.

    Returns:
        One line that says what was moved where; empty: nothing was.

    Raises:
        OSError: a folder that cannot be written to.
    """
    old = _about(results)
    if old is None or covers(new, old):
        return ""
    name = label(old)
    links = [os.path.relpath(p, r).replace(os.sep, "/") for p, r in ((plots, results), (plots / name, results / name))]
    for source, files in ((results, RESULT_FILES), (plots, PLOT_FILES)):
        there = _files(source, files)
        _remove(_files(source / name, files), source / name)  # an older report of the same settings
        if there:
            (source / name).mkdir(parents=True, exist_ok=True)
        for path in there:
            path.replace(source / name / path.name)
    report = results / name / "report.md"
    if report.exists():  # it links the figures
        report.write_text(report.read_text("utf-8").replace(f"]({links[0]}/", f"]({links[1]}/"), "utf-8")
    return f"the report of other settings is kept: {name}, now in {results / name}/ and {plots / name}/"


def drop_covered(new: About, results: Path, plots: Path) -> None:
    """Remove the reports that were set aside before and that ``new``, which is written now, covers."""
    for folder in sorted(path.parent for path in results.glob(f"*/{ABOUT}")):
        if (old := _about(folder)) and covers(new, old):
            _remove(_files(folder, RESULT_FILES), folder)
            _remove(_files(plots / folder.name, PLOT_FILES), plots / folder.name)


def figures_folder(new: About, results: Path, plots: Path) -> Path:
    """Return where figures that are drawn alone go: beside the report of their settings."""
    old = _about(results)
    return plots if old is None or covers(new, old) else plots / label(new)


def covers(new: About, old: About) -> bool:
    """Return whether a report shows all that another one of the same settings does."""
    if _identity(new) != _identity(old):
        return False
    pairs = ((new.k_audio, old.k_audio), (new.k_text, old.k_text), (new.seeds, old.seeds))
    return all(set(less) <= set(more) for more, less in pairs)


def label(about: About) -> str:
    """Return the settings of a report that are not the defaults, as a folder's name; ``defaults`` where all are."""
    corpus = CORPORA.get(about.dataset)
    parser = grid_parser()
    default = Design(
        readings=readings(**(corpus.settings if corpus else {})),
        profile=about.profile,
        k_audio=parser.get_default("k_audio"),
        k_text=parser.get_default("k_text"),
        seeds=parser.get_default("seeds"),
    )
    usual = {
        "profile": "paper",
        **{name: default.settings()[name] for name in SETTINGS},
        "fusion": parser.get_default("fusion"),
        "select_by": PROFILES[about.profile].select_by,
        "at": None,
        "k_audio": default.k_audio,
        "k_text": default.k_text,
        "seeds": default.seeds,
    }
    ours = {**_identity(about), "k_audio": about.k_audio, "k_text": about.k_text, "seeds": about.seeds}
    parts = [f"{name}={_shown(ours[name])}" for name, value in usual.items() if ours[name] != value]
    name = ",".join(parts) or "defaults"
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _identity(about: About) -> dict[str, Any]:
    """What two reports of the same settings have in common."""
    return {
        "dataset": about.dataset,
        "profile": about.profile,
        **{name: about.settings.get(name) for name in SETTINGS},
        "fusion": about.fusion,
        "select_by": about.select_by,
        "at": about.pair if about.given else None,
    }


def _shown(value: Any) -> str:
    """A value without what a folder's name should not have: ``1-10`` for a span, ``1+4+8`` for a list."""
    if not isinstance(value, tuple):
        return str(value)
    if len(value) > 1 and value == tuple(range(value[0], value[-1] + 1)):
        return f"{value[0]}-{value[-1]}"
    return "+".join(map(str, value))


def _about(folder: Path) -> About | None:
    """What the report in a folder is of; None: there is none, or it cannot be read."""
    try:
        return read_about(folder / ABOUT)
    except InputError:
        return None


def _files(folder: Path, names: Iterable[str]) -> list[Path]:
    return [path for name in names if (path := folder / name).is_file()]


def _remove(files: Iterable[Path], folder: Path) -> None:
    for path in files:
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
