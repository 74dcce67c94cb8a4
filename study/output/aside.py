"""Moving a report of other settings aside before a new one takes its place."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.design.block import shown
from study.design.design import Design
from study.findings.results import ABOUT, About, AboutBlock, read_about
from study.output.figures.style import KNOWN_FORMS
from study.output.report import link, plot_files, result_files
from study.papers.cemobam import paper
from study.papers.cemobam.profiles import PROFILES, usual_metric

_LONGEST = 100
"""The most characters of a folder's name."""


def set_aside(new: About, results: Path, plots: Path) -> str:
    """Move the report in ``results`` and ``plots`` into a folder named after its settings, unless ``new`` covers it.

    A report covers another of the same settings if it shows at least the same configurations and seeds, and has a K
    pair if the other has one.

    The file that identifies a report moves last, so an interrupted move continues the next time.

    Args:
        new: The study of the report that is about to be written.
        results: The folder of the study's results.
        plots: The folder of its figures.

    Returns:
        One line about the move. Empty if nothing moved.

    Raises:
        OSError: A folder cannot be written to.
    """
    old = _about(results)
    if old is None or covers(new, old):
        return ""
    name = label(old)
    older = results / name / ABOUT
    if older.exists():  # an older report of the same settings
        older.unlink(missing_ok=True)
        for folder, files in ((results / name, result_files(old)), (plots / name, plot_files(old))):
            _remove(_files(folder, files), folder)
    _link_again(results / "report.md", link(plots, results), link(plots / name, results / name))
    about_last = sorted(result_files(old), key=lambda file: file == ABOUT)
    for source, files in ((plots, plot_files(old, KNOWN_FORMS)), (results, about_last)):
        for path in _files(source, files):
            (source / name).mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another run of the study has moved it
                path.replace(source / name / path.name)
    return f"The report of other settings ({name}) is kept in {results / name}/ and {plots / name}/."


def drop_covered(new: About, results: Path, plots: Path) -> None:
    """Remove the reports that were moved aside before and that ``new`` covers."""
    for folder in sorted(path.parent for path in results.glob(f"*/{ABOUT}")):
        if (old := _about(folder)) and folder.name == label(old) and covers(new, old):
            _remove(_files(folder, result_files(old)), folder)
            _remove(_files(plots / folder.name, plot_files(old)), plots / folder.name)


def figures_folder(new: About, results: Path, plots: Path) -> Path:
    """Return the folder for figures that are drawn alone: beside the report of their settings."""
    old = _about(results)
    return plots if old is None or covers(new, old) else plots / label(new)


def covers(new: About, old: About) -> bool:
    """Return whether a report shows all that another report of the same settings shows."""
    if _identity(new) != _identity(old) or (old.pair is not None and new.pair is None):
        return False
    rows = {block.name: set(_configurations(new, block)) for block in new.blocks}
    blocks = all(set(_configurations(old, block)) <= rows.get(block.name, set()) for block in old.blocks)
    return blocks and set(old.seeds) <= set(new.seeds) and set(old.confirm) <= set(new.confirm)


def _configurations(about: About, block: AboutBlock) -> list[tuple[Any, ...]]:
    """Return the configurations of a block, without the pair that all of them share."""
    places = [about.identity.index(column) for column in block.columns]
    return [tuple(row[place] for place in places) for row in block.rows]


def label(about: About) -> str:
    """Return a folder's name made of a report's settings that are not the defaults, or ``defaults`` if all are."""
    if about.profile not in PROFILES:  # of another release
        return _shortened(f"profile={about.profile}")
    try:
        usual = Design(blocks={}, profile=about.profile, dataset=about.dataset).shared()
    except InputError:
        usual = {}
    seeds = tuple(range(5))
    named = {block.name: block for block in paper.blocks}
    ours = _identity(about)
    parts = [f"{name}={shown(value)}" for name, value in about.settings.items() if usual.get(name) != value]
    if about.profile != "paper":
        parts.insert(0, f"profile={about.profile}")
    metric = usual_metric(PROFILES[about.profile], about.dataset)
    for name, default in (("fusion", "min"), ("select_by", metric), ("at", None)):
        if ours[name] not in (default, None):
            parts.append(f"{name}={_shown(ours[name])}")
    for block in about.blocks:
        for column in block.columns if block.chooses else ():
            values = about.values(column)
            factors = named[block.name].factors if block.name in named else ()
            if values and not any(factor.name == column and factor.values == values for factor in factors):
                parts.append(f"{column}={_shown(values)}")
    if about.seeds != seeds:
        parts.append(f"seeds={_shown(about.seeds)}")
    if about.looks:
        parts.append("until_clear")
    elif about.confirm and len(about.confirm) != len(about.seeds):
        parts.append(f"confirm={len(about.confirm)}")
    return _shortened(",".join(parts) or "defaults")


def _shortened(name: str) -> str:
    name = re.sub(r"[^\w=,.+-]", "_", name)
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _identity(about: About) -> dict[str, Any]:
    """Return the settings that identify a report."""
    return {
        "dataset": about.dataset,
        "splits": about.splits,
        **about.settings,
        "profile": about.profile,
        "system": about.system,
        "fusion": about.fusion,
        "select_by": about.select_by,
        "at": about.pair if about.given else None,
    }


def _shown(value: Any) -> str:
    """Return a value for a folder's name: ``1-10`` for a range, ``1+4+8`` for a list."""
    if not isinstance(value, tuple):
        return str(value)
    if len(value) > 1 and value == tuple(range(value[0], value[-1] + 1)):
        return f"{value[0]}-{value[-1]}"
    return "+".join(map(str, value))


def _about(folder: Path) -> About | None:
    """Return the study of the report in a folder, or `None` if there is none or it cannot be read."""
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
    """Change the links of a moved report to the figures that moved with it."""
    with contextlib.suppress(FileNotFoundError):
        text = report.read_text(encoding="utf-8").replace(f"]({before}/", f"]({after}/")
        with written_atomically(report) as temporary:
            temporary.write_text(text, encoding="utf-8")
