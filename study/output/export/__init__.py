"""Export of studies to experiment trackers, one target per module: MLflow, Weights & Biases, TensorBoard.

The module of a target has a class ``Folder``, a :class:`Target`. A new target is a module here, and a line in
``TARGETS``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from filelock import FileLock, Timeout

from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.files import written_atomically
from cemobam_core.json_files import read_json
from cemobam_core.progress import progress_bar

if TYPE_CHECKING:
    from study.output.export.runs import Run
    from study.output.export.target import Target

TARGETS = {"mlflow": "MLflow", "wandb": "Weights & Biases", "tensorboard": "TensorBoard"}
"""Titles of the targets by name. The name is also that of the target's module and extra."""

MARKER = "cemobam-export.json"
"""The file that marks a folder as an export and names its target."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The result of an export.

    Attributes:
        written: Number of runs that were written.
        held: Number of runs that the folder already had.
        open_with: Lines that tell the user how to open the folder.
    """

    written: int
    held: int
    open_with: tuple[str, ...]


def export(runs: Sequence[Run], to: str, folder: Path) -> Exported:
    """Write the runs that a folder does not contain.

    Args:
        runs: Runs of a study.
        to: Name of the target.
        folder: A new or empty folder, or the folder of an earlier export.

    Raises:
        InputError: The target's packages are missing, the folder contains something else, or another export is writing
            to it.
    """
    require(to, f"cemobam export --to {to}")
    _check(folder, to)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            _check(folder, to)
            with written_atomically(folder / MARKER) as temporary:
                temporary.write_text(json.dumps({"to": to}) + "\n", encoding="utf-8")
            made = cast("type[Target]", import_module(f"study.output.export.{to}").Folder)
            with made(folder) as target:
                missing = [run for run in runs if not target.has(run)]
                for run in progress_bar(iterable=missing, unit="run"):
                    target.write(run)
                return Exported(written=len(missing), held=len(runs) - len(missing), open_with=target.open_with)
    except Timeout:
        raise InputError(f"{folder}: another export is writing to it; wait for it, or give another folder") from None


def _check(folder: Path, to: str) -> None:
    """Raise InputError if a folder cannot receive an export to the target."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder")
    if (folder / MARKER).is_file():
        try:
            found = read_json(folder / MARKER)["to"]
        except (ValueError, KeyError, TypeError):
            found = "something that cannot be read"
        if found != to:
            raise InputError(f"{folder}: holds an export to {found}; give --to {to} another folder")
    elif other := sorted(path.name for path in folder.iterdir() if path.name != ".lock"):
        raise InputError(f"{folder}: holds something else ({other[0]}); give a new or an empty folder")
