"""Exports, read back: by the libraries themselves, and for W&B from the records of its offline files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class ReadRun:
    """One run of an export, as its tracker has it."""

    status: str
    metrics: dict[str, float]
    curve: dict[int, float]
    parameters: dict[str, Any]
    tags: dict[str, str]
    reason: str
    files: list[str] = field(default_factory=list)


def read_mlflow(folder: Path) -> list[ReadRun]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = []
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            assert experiment.name == f"demo/{run.data.tags['block']}"
            history = client.get_metric_history(run.info.run_id, "curve/val_wa")
            metrics = {name: value for name, value in run.data.metrics.items() if name != "curve/val_wa"}
            folders = [one.path for one in client.list_artifacts(run.info.run_id) if one.is_dir]
            files = [one.path for path in folders for one in client.list_artifacts(run.info.run_id, path)]
            runs.append(
                ReadRun(
                    status={"FINISHED": "done", "FAILED": "failed"}[run.info.status],
                    metrics=metrics,
                    curve={point.step: point.value for point in history},
                    parameters=run.data.params,
                    tags=run.data.tags,
                    reason=run.data.tags.get("reason", ""),
                    files=files,
                )
            )
    return runs


def read_tensorboard(folder: Path) -> list[ReadRun]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, metadata

    runs = []
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        read = EventAccumulator(str(file.parent)).Reload()
        scalars = {tag: read.Scalars(tag) for tag in read.Tags()["scalars"]}
        said = {
            tag.removesuffix("/text_summary"): read.Tensors(tag)[0].tensor_proto.string_val[0].decode()
            for tag in read.Tags()["tensors"]
            if not tag.startswith("_hparams_")
        }
        parameters: dict[str, Any] = {}
        status = "done"
        if metadata.SESSION_START_INFO_TAG in read.Tags()["tensors"]:
            content = read.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
            for name, value in metadata.parse_session_start_info_plugin_data(content).hparams.items():
                parameters[name] = getattr(value, str(value.WhichOneof("kind")))
            end = read.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
            failed = metadata.parse_session_end_info_plugin_data(end).status == api_pb2.STATUS_FAILURE
            status = "failed" if failed else "done"
        runs.append(
            ReadRun(
                status=status,
                metrics={tag: points[0].value for tag, points in scalars.items() if tag != "curve/val_wa"},
                curve={point.step: point.value for point in scalars.get("curve/val_wa", [])},
                parameters=parameters,
                tags=dict(line[2:].split(": ", 1) for line in said["about"].splitlines()),
                reason=said.get("reason", ""),
                files=[f"{name}.png" for name in read.Tags()["images"]],
            )
        )
    return runs


def read_wandb(folder: Path) -> list[ReadRun]:
    runs = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        summary: dict[str, Any] = {}
        config: dict[str, Any] = {}
        curve: dict[int, float] = {}
        status, notes = "", ""
        for record in _records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                config |= {one.key: json.loads(one.value_json) for one in record.run.config.update}
                assert record.run.project == "demo"
                assert record.run.run_group == config["about"]["block"]
                notes = record.run.notes
            elif kind == "summary":
                summary |= {one.key: json.loads(one.value_json) for one in record.summary.update if one.key}
            elif kind == "history":
                row = {one.nested_key[0] if one.nested_key else one.key: one.value_json for one in record.history.item}
                if "curve/val_wa" in row:
                    curve[json.loads(row["epoch"])] = json.loads(row["curve/val_wa"])
            elif kind == "exit":
                status = "failed" if record.exit.exit_code else "done"
        tags = config.pop("about")
        config.pop("_wandb", None)
        told = {"status", "reason"}
        metrics = {k: v for k, v in summary.items() if k not in told and not k.startswith("_")}
        assert summary["reason"] == notes
        files = [path.name for path in file.parent.rglob("files/media/**/*.*")]
        runs.append(ReadRun(status, metrics, curve, config, tags, notes, files))
    return runs


def _records(file: Path) -> Iterator[Any]:
    """Read a transaction log: LevelDB's format, in blocks of 32 KiB, after 7 bytes of W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record = file.read_bytes(), 7, b""
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(record)
            record = b""


READERS: dict[str, Callable[[Path], list[ReadRun]]] = {
    "mlflow": read_mlflow,
    "wandb": read_wandb,
    "tensorboard": read_tensorboard,
}
