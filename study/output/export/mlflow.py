"""MLflow: an SQLite database with an experiment for each block, and a folder of artifacts beside it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported

from cemobam_core.extras import require
from cemobam_core.files import temporary_folder
from study.output.export.runs import CURVE, Run
from study.output.export.target import Target

try:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunStatus
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
except ModuleNotFoundError:
    require("mlflow", "study.output.export.mlflow")
    raise


_DATABASE = "mlflow.db"

_KEY, _VERSION = "export.key", "export.version"
"""Tags that identify a run."""

_AT_ONCE = 900
"""Most metrics of one request. MLflow accepts 1000."""


class Folder(Target):
    """A folder with ``mlflow.db`` and ``artifacts``.

    Args:
        folder: Absolute path of the folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        for noisy in ("mlflow", "alembic"):  # they log every step in which the database is created
            logging.getLogger(noisy).setLevel(logging.WARNING)
        super().__init__(folder)
        self._uri = f"sqlite:///{folder / _DATABASE}"
        self._client = MlflowClient(tracking_uri=self._uri)
        self._experiments: dict[str, str] = {}  # their ids, by name
        self._held: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}  # see _runs

    @property
    def open_with(self) -> tuple[str, ...]:
        """The lines that tell the user how to open the folder."""
        return (f"mlflow ui --backend-store-uri {self._uri}", "(mlflow ui comes with: pip install mlflow)")

    def has(self, run: Run) -> bool:
        """Return whether the folder has the complete run in this version."""
        return self._runs(run).get(run.key, ("", ""))[1] == run.version

    def write(self, run: Run) -> None:
        """Write a run, and delete an older version of it."""
        held = self._runs(run)
        if run.key in held:
            self._client.delete_run(held.pop(run.key)[0])
        now = int(1000 * time.time())
        note = {MLFLOW_RUN_NOTE: run.reason, "reason": run.reason} if run.reason else {}
        made = self._client.create_run(
            self._experiment(run),
            start_time=now - int(1000 * run.seconds),
            tags={**run.tags, **note, _KEY: run.key, _VERSION: run.version},
            run_name=run.name,
        ).info.run_id
        metrics = [Metric(name, value, now, 0) for name, value in run.metrics.items()]
        metrics += [Metric(CURVE, value, now, epoch) for epoch, value in run.curve.items()]
        params = [Param(name, str(value)) for name, value in run.parameters.items()]
        self._client.log_batch(made, metrics=metrics[:_AT_ONCE], params=params)
        for start in range(_AT_ONCE, len(metrics), _AT_ONCE):
            self._client.log_batch(made, metrics=metrics[start : start + _AT_ONCE])
        if run.attachments:
            self._attach(made, run)
        self._client.set_terminated(made, "FAILED" if run.reason else "FINISHED", end_time=now)
        held[run.key] = made, run.version

    def _attach(self, run_id: str, run: Run) -> None:
        assert run.attachments
        attached = run.attachments()
        with temporary_folder() as place:
            for folder in ("tables", "figures"):
                (place / folder).mkdir()
            (place / "summary.md").write_text(attached.text + "\n", encoding="utf-8")
            for file, table in attached.tables.items():
                (place / "tables" / file).write_text(table, encoding="utf-8")
            for file, image in attached.figures.items():
                (place / "figures" / file).write_bytes(image)
            self._client.log_artifacts(run_id, str(place))

    def _experiment(self, run: Run) -> str:
        name = f"{run.study}/{run.group}"
        if name not in self._experiments:
            known = self._client.get_experiment_by_name(name)
            place = (self._folder / "artifacts" / run.study / run.group).as_uri()
            self._experiments[name] = (
                known.experiment_id if known else self._client.create_experiment(name, artifact_location=place)
            )
        return self._experiments[name]

    def _runs(self, run: Run) -> dict[str, tuple[str, str]]:
        """Return id and version of each run that is in the same group, by key.

        A run that an interrupted export did not finish has no version.
        """
        group = (run.study, run.group)
        if group not in self._held:
            held: dict[str, tuple[str, str]] = {}
            token = None
            while True:
                page = self._client.search_runs([self._experiment(run)], max_results=1000, page_token=token)
                for one in page:
                    ended = RunStatus.is_terminated(RunStatus.from_string(one.info.status))
                    if key := one.data.tags.get(_KEY):
                        held[key] = one.info.run_id, one.data.tags[_VERSION] if ended else ""
                if not (token := page.token):
                    break
            self._held[group] = held
        return self._held[group]
