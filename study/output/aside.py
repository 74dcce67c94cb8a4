"""Move a report of other settings aside before a new one is written in its place."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cemobam_core.config import PROFILES
from cemobam_core.corpora import CORPORA
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.commands.arguments import grid_parser
from study.commands.request import SETTINGS
from study.design import Design, readings
from study.findings.results import ABOUT, About, read_about
from study.output.report import PLOT_FILES, RESULT_FILES, link

_LONGEST = 100
"""Characters of a folder's name."""


def set_aside(new: About, results: Path, plots: Path) -> str:
    """Move the report that lies in ``results`` and ``plots`` into a folder of its settings, unless ``new`` covers it.

    A report covers another of the same settings when it shows at least the same K and the same seeds, and has a K pair
    if the other has one.

    What is moved last is the file by which a report is known, so that a move that was cut off goes on the next time.

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
    older = results / name / ABOUT
    if older.exists():  # an older report of the same settings
        older.unlink(missing_ok=True)
        for folder, files in ((results / name, RESULT_FILES), (plots / name, PLOT_FILES)):
            _remove(_files(folder, files), folder)
    _link_again(results / "report.md", link(plots, results), link(plots / name, results / name))
    about_last = tuple(sorted(RESULT_FILES, key=lambda file: file == ABOUT))
    for source, files in ((plots, PLOT_FILES), (results, about_last)):
        for path in _files(source, files):
            (source / name).mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another run of the study has moved it
                path.replace(source / name / path.name)
    return f"the report of other settings is kept: {name}, now in {results / name}/ and {plots / name}/"


def drop_covered(new: About, results: Path, plots: Path) -> None:
    """Remove the reports that were set aside before and that ``new``, which is written now, covers."""
    for folder in sorted(path.parent for path in results.glob(f"*/{ABOUT}")):
        if (old := _about(folder)) and folder.name == label(old) and covers(new, old):
            _remove(_files(folder, RESULT_FILES), folder)
            _remove(_files(plots / folder.name, PLOT_FILES), plots / folder.name)


def figures_folder(new: About, results: Path, plots: Path) -> Path:
    """Return where figures that are drawn alone go: beside the report of their settings."""
    old = _about(results)
    return plots if old is None or covers(new, old) else plots / label(new)


def covers(new: About, old: About) -> bool:
    """Return whether a report shows all that another one of the same settings does."""
    if _identity(new) != _identity(old) or (old.pair is not None and new.pair is None):
        return False
    pairs = ((new.k_audio, old.k_audio), (new.k_text, old.k_text), (new.seeds, old.seeds))
    return all(set(less) <= set(more) for more, less in pairs)


def label(about: About) -> str:
    """Return the settings of a report that are not the defaults, as a folder's name; ``defaults`` where all are."""
    if about.profile not in PROFILES:  # of another release
        return _shortened(f"profile={about.profile}")
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
    return _shortened(",".join(parts) or "defaults")


def _shortened(name: str) -> str:
    name = re.sub(r"[^\w=,.+-]", "_", name)
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
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds something else, or is gone
        folder.rmdir()


def _link_again(report: Path, before: str, after: str) -> None:
    """Let a report that is moved link the figures that are moved with it."""
    with contextlib.suppress(FileNotFoundError):
        text = report.read_text(encoding="utf-8").replace(f"]({before}/", f"]({after}/")
        with written_atomically(report) as temporary:
            temporary.write_text(text, encoding="utf-8")
