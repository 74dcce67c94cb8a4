"""Weights & Biases: a folder of offline runs, which ``wandb sync`` uploads. Nothing here uses the network."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
os.environ.setdefault("WANDB_SILENT", "true")

import pandas as pd

from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.json_files import read_json
from study.output.export.runs import CURVE, Run
from study.output.export.target import Target

try:
    import wandb
except ModuleNotFoundError:
    require("wandb", "study.output.export.wandb")
    raise


_ABOUT = "cemobam.json"
"""The file in a run's folder that identifies the run."""

_LONGEST_TAG = 64


class Folder(Target):
    """A folder with offline runs in ``wandb/offline-run-…``.

    A run is written to a separate folder and moved when it is complete.

    Args:
        folder: Absolute path of the folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._runs = folder / "wandb"
        self._unfinished = folder / ".unfinished"
        self._held: dict[tuple[str, str, str], tuple[str, Path]] = {}  # version and folder, by study, group and key
        for path in self._runs.glob(f"offline-run-*/{_ABOUT}"):
            about = read_json(path)
            try:
                self._held[about["study"], about["group"], about["key"]] = about["version"], path.parent
            except (KeyError, TypeError):
                raise InputError(f"{path}: no export wrote this; give another folder") from None

    def __enter__(self) -> Folder:
        """Remove unfinished runs of an interrupted export, and start the process of wandb."""
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._runs.mkdir(exist_ok=True)
        self._unfinished.mkdir()
        self._settings = wandb.Settings(
            mode="offline",
            root_dir=str(self._unfinished),
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,  # this process ran no trial, and they take ten times as long as the rest
        )
        wandb.setup(self._settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process of wandb, and remove unfinished runs."""
        wandb.teardown(exit_code=0 if error is None else 1)
        shutil.rmtree(self._unfinished, ignore_errors=True)

    @property
    def open_with(self) -> tuple[str, ...]:
        """The lines that tell the user how to open the folder."""
        return (f"wandb sync {self._runs}/offline-run-*", "(it uploads the runs; log in first with: wandb login)")

    def has(self, run: Run) -> bool:
        """Return whether the folder has the complete run in this version."""
        return self._held.get((run.study, run.group, run.key), ("",))[0] == run.version

    def write(self, run: Run) -> None:
        """Write a run, and remove an older version of it."""
        identity = (run.study, run.group, run.key)
        made = wandb.init(
            project=run.study,
            group=run.group,
            name=run.name,
            id=f"{run.key}-{hashlib.sha256(run.group.encode()).hexdigest()[:8]}",
            job_type="summary" if run.attachments else "trial",
            tags=[
                run.tags[name][:_LONGEST_TAG] for name in ("block", "dataset", "profile", "system") if run.tags[name]
            ],
            notes=run.reason or None,
            config={**run.parameters, "about": dict(run.tags)},
            dir=str(self._unfinished),
            reinit="create_new",
            settings=self._settings,
        )
        for epoch, value in run.curve.items():
            made.log({"epoch": epoch, CURVE: value}, step=epoch)
        if run.attachments:
            made.log(_attached(run))
        made.summary.update({**run.metrics, "status": run.tags.get("status", "done"), "reason": run.reason})
        made.finish(exit_code=1 if run.reason else 0)
        (place,) = (self._unfinished / "wandb").glob(f"offline-run-*-{made.id}")
        about = dict(zip(("study", "group", "key"), identity, strict=True)) | {"version": run.version}
        (place / _ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")
        if identity in self._held:
            shutil.rmtree(self._held[identity][1])
        self._held[identity] = run.version, place.rename(self._runs / place.name)


def _attached(run: Run) -> dict[str, Any]:
    """Return the tables and figures of a summary."""
    assert run.attachments
    attached = run.attachments()
    tables = {
        f"tables/{Path(name).stem}": wandb.Table(dataframe=pd.read_csv(io.StringIO(text)))
        for name, text in attached.tables.items()
    }
    images = {f"figures/{Path(name).stem}": wandb.Image(_opened(png)) for name, png in attached.figures.items()}
    return {**tables, **images}


def _opened(png: bytes) -> Any:
    from PIL import Image  # noqa: PLC0415  (Matplotlib brings it)

    return Image.open(io.BytesIO(png))
