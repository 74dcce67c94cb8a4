"""TensorBoard: an event file for each run, with scalars and hyperparameters."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path
from typing import Any

from cemobam_core.extras import require
from cemobam_core.files import written_atomically
from study.output.export.runs import CURVE, Run
from study.output.export.target import Target

try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
    from tensorboard.plugins.hparams import metadata as hparams
    from tensorboard.plugins.text import metadata as text
    from tensorboard.summary.writer.record_writer import RecordWriter
except ModuleNotFoundError:
    require("tensorboard", "study.output.export.tensorboard")
    raise


_LONGEST = 150
"""Most characters in the name of a run's folder."""


class Folder(Target):
    """A folder with event files, in ``<study>/<block>/<trial>/``."""

    @property
    def open_with(self) -> tuple[str, ...]:
        """The lines that tell the user how to open the folder."""
        return (f"tensorboard --logdir {self._folder}",)

    def has(self, run: Run) -> bool:
        """Return whether the folder has the run in this version, which is in the file name."""
        return any(self._place(run).glob(f"*.{run.version}"))

    def write(self, run: Run) -> None:
        """Write a run's event file, and remove an older version of it."""
        place, now = self._place(run), time.time()
        older = list(place.glob("events.out.tfevents.*"))
        path = place / f"events.out.tfevents.{int(now)}.{run.version}"
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            writer = RecordWriter(file)
            for event in (Event(wall_time=now, file_version="brain.Event:2"), *_events(run, now)):
                writer.write(event.SerializeToString())
            writer.flush()
        for other in older:
            if other != path:
                other.unlink(missing_ok=True)

    def _place(self, run: Run) -> Path:
        group = _file_name(run.group)
        if run.attachments:
            return self._folder / run.study / group
        name = _file_name(run.name.replace(", ", ",").replace(" ", "="))
        return self._folder / run.study / group / f"{name},{run.key[:8]}"


def _file_name(text: str) -> str:
    return re.sub(r"[^\w=,.+-]", "_", text)[:_LONGEST]


def _events(run: Run, now: float) -> list[Event]:
    events = [_event(now, Summary.Value(tag=name, simple_value=value)) for name, value in run.metrics.items()]
    for epoch, value in run.curve.items():
        events.append(_event(now, Summary.Value(tag=CURVE, simple_value=value), step=epoch))
    told = "\n".join(f"- {name}: {value}" for name, value in run.tags.items())
    events.append(_event(now, _text("about", told)))
    if run.reason:
        events.append(_event(now, _text("reason", run.reason)))
    if run.attachments:
        attached = run.attachments()
        events.append(_event(now, _text("summary", attached.text)))
        events += [_event(now, _image(name.removesuffix(".png"), of)) for name, of in attached.figures.items()]
        return events
    return [*_hyperparameters(run, now), *events]


def _event(now: float, *values: Summary.Value, step: int = 0) -> Event:
    return Event(wall_time=now, step=step, summary=Summary(value=values))


def _hyperparameters(run: Run, now: float) -> list[Event]:
    """Return the start and the end of a session, as the HPARAMS page reads them."""
    start = plugin_data_pb2.SessionStartInfo(group_name=f"{run.group} {run.key}", start_time_secs=now - run.seconds)
    for name, value in run.parameters.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = str(value)
    status = api_pb2.STATUS_FAILURE if run.reason else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=now)
    return [
        _event(now, _of_plugin(hparams.SESSION_START_INFO_TAG, session_start_info=start)),
        _event(now, _of_plugin(hparams.SESSION_END_INFO_TAG, session_end_info=end)),
    ]


def _of_plugin(tag: str, **content: Any) -> Summary.Value:
    data = plugin_data_pb2.HParamsPluginData(**content)
    return Summary.Value(tag=tag, metadata=hparams.create_summary_metadata(data), tensor=hparams.NULL_TENSOR)


def _text(tag: str, said: str) -> Summary.Value:
    """Return Markdown for the TEXT page."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[said.encode()])
    return Summary.Value(
        tag=tag, metadata=text.create_summary_metadata(display_name=tag, description=""), tensor=tensor
    )


def _image(tag: str, png: bytes) -> Summary.Value:
    """Return an image for the IMAGES page."""
    width, height = struct.unpack(">II", png[16:24])
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return Summary.Value(tag=tag, image=image)
