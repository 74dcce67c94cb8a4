"""Trying a system of a user's file before a study starts: in a process of its own, which may hang or crash.

The process loads the file, builds the system and trains it for two epochs on made-up utterances. What it finds comes
back in a file, so that what the user's code prints is not mistaken for it.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cemobam_core.errors import InputError
from cemobam_core.fields import check_fields
from cemobam_core.systems.files import class_in_file, did_you_mean, is_in_file, line_in, path_of, place, told
from cemobam_core.systems.system import EstimatorSystem, NeuralSystem, System

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cemobam_core.inputs import Inputs, Sizes
    from cemobam_core.training.batch import Batch

_log = logging.getLogger("cemobam_core")

_REQUEST, _STAGE, _TRACES, _OUTPUT, _ANSWER = "request.json", "stage", "traces", "output", "answer.json"

_START_S = 300.0
"""How long the process may take until it loads the file: torch may come over a slow network."""

_UTTERANCES = 24
_STEPS = {"audio": 7, "text": 5}
_CLOSE = 1e-4


def try_system(
    name: str, settings: Mapping[str, object] | None = None, *, sizes: Sizes, sequence: bool, patience_s: float = 60.0
) -> None:
    """Load, build and train a system of a user's file, in a process of its own; of a built-in system do nothing.

    The process sees no GPU. Some findings do not make a run impossible; they are logged as warnings: logits that differ
    in evaluation mode or with the padding, and weights that the seed does not decide.

    Args:
        name: of the system, ``FILE.py:NAME``.
        settings: of its fields; the others have their defaults.
        sizes: of the features of the study.
        sequence: whether these are sequences; if not, every utterance has one step.
        patience_s: how long it may take in all.

    Raises:
        InputError: it does not work: the message is one line that names the system, the line of the file and the cause.
    """
    if not is_in_file(name):
        return
    with TemporaryDirectory(prefix="cemobam-") as folder:
        place_of = Path(folder)
        request = _Request(name, dict(settings or {}), asdict(sizes), sequence, patience_s)
        (place_of / _REQUEST).write_text(json.dumps(asdict(request), default=repr))
        status = _wait_for(place_of, patience_s)
        if not (place_of / _ANSWER).exists():
            raise InputError(_no_answer(place_of, name, status, patience_s))
        answer = json.loads((place_of / _ANSWER).read_text())
    if answer["error"]:
        raise InputError(answer["error"])
    for note in answer["notes"]:
        _log.warning("%s", note)


@dataclass(frozen=True)
class _Request:
    """What the process is asked: the arguments of :func:`try_system`."""

    name: str
    settings: dict[str, object]
    sizes: dict[str, int]
    sequence: bool
    patience_s: float


def _wait_for(folder: Path, patience_s: float) -> int | None:
    """Run the process to its end and return its exit status; None: it had to be ended."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import answer; answer({str(folder)!r})"
    with (
        (folder / _OUTPUT).open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            # Where there is a GPU, a file may put its tensors there, and the made-up utterances are on the CPU.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        ) as process,
    ):
        try:
            return process.wait(_START_S + patience_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
            except (ProcessLookupError, PermissionError):  # macOS: a group of which only the ended process is left
                process.kill()


def _no_answer(folder: Path, name: str, status: int | None, patience_s: float) -> str:
    """Return in words why the process ended without an answer."""
    stage = (folder / _STAGE).read_text() if (folder / _STAGE).exists() else "Python started"
    traces = (folder / _TRACES).read_text(errors="replace") if (folder / _TRACES).exists() else ""
    path = path_of(name).encode("ascii", "backslashreplace").decode()  # as faulthandler writes it
    lines = re.findall(rf'^  File "{re.escape(path)}", line (\d+) in ', traces, flags=re.MULTILINE)
    where = place(name, int(lines[0]) if lines else None)
    if status is None or traces.startswith("Timeout"):
        return (
            f"{where}: did not answer within {patience_s:g} s, while {stage}: does its import, build or forward wait "
            "for something?"
        )
    said = (folder / _OUTPUT).read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    ended = f"ended Python with exit status {status} (os._exit?)"
    if status < 0:
        ended = f"crashed Python ({_signal_name(-status)}{', out of memory?' if status == -signal.SIGKILL else ''})"
    return f"{where}: {ended}, while {stage}" + (f"; its last words: {last[-200:]}" if last else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def answer(folder: str) -> None:
    """Try the system that the request in ``folder`` names, write the answer there and end the process."""
    at = Path(folder)
    request = _Request(**json.loads((at / _REQUEST).read_text()))
    with (at / _TRACES).open("w") as traces:
        faulthandler.enable(traces)  # a crash names its line
        _leave_no_core()
        import cemobam_core.training.loop  # noqa: F401, PLC0415  (takes as long as it takes)

        faulthandler.dump_traceback_later(request.patience_s, exit=True, file=traces)
        tryout = _Tryout(request, at / _STAGE)
        try:
            tryout.run()
            error = ""
        except InputError as raised:
            error = str(raised)
        written = at / f"{_ANSWER}.part"
        written.write_text(json.dumps({"error": error, "notes": tryout.notes}))
        written.rename(at / _ANSWER)
        os._exit(0)  # without waiting for what the file may have started


def _leave_no_core() -> None:
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@dataclass(eq=False)
class _Tryout:
    """What is done in the process, step by step; each step raises InputError.

    Attributes:
        request: what to try.
        stage: the file that says what is being done, for the case that it never ends.
        notes: what the user should know, though the system works.
    """

    request: _Request
    stage: Path
    notes: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Do all of it."""
        from cemobam_core.inputs import Sizes  # noqa: PLC0415

        with self._while("it is imported"):
            kind = class_in_file(self.request.name)
        with self._while("it is given its settings"):
            system = self._configured(kind)
        sizes = Sizes(**self.request.sizes)
        batches = _made_up(sizes, sequence=self.request.sequence)
        if isinstance(system, NeuralSystem):
            self._try_neural(system, sizes, batches)
        else:
            assert isinstance(system, EstimatorSystem)
            self._try_estimator(system, sizes, batches)

    def _configured(self, kind: type[System]) -> System:
        known = [one.name for one in fields(kind)]
        for given in self.request.settings:
            if given not in known:
                there = f"its fields are {', '.join(known)}" if known else "it has no fields"
                raise InputError(f"it has no field {given}; {there}{did_you_mean(given, known)}")
        system = kind(**self.request.settings)
        check_fields(system)  # its own __post_init__ may not do so
        return system

    def _try_neural(self, system: NeuralSystem, sizes: Sizes, batches: dict[str, Batch]) -> None:
        import torch  # noqa: PLC0415
        from torch.nn.functional import cross_entropy  # noqa: PLC0415

        from cemobam_core.inputs import Inputs  # noqa: PLC0415
        from cemobam_core.training.config import TrainingConfig  # noqa: PLC0415
        from cemobam_core.training.loop import train  # noqa: PLC0415

        with self._while("it is built"):
            module, again, other = (_built(system, sizes, seed) for seed in (0, 0, 1))
            self._check_weights(module, again, other)
        batch, before = batches["train"], _copied(batches)
        audio, text = (
            f"{name} {tuple(x.shape)}" for name, x in (("audio", batch.inputs.audio), ("text", batch.inputs.text))
        )
        with self._while(f"its forward is called for {audio} and {text}"):
            logits = _checked(module.train()(batch.inputs), batch)
            if logits.requires_grad:
                cross_entropy(logits, batch.labels).backward()
            if all(weight.grad is None for weight in module.parameters()):
                raise InputError("no weight of it learns: its logits do not depend on any (detach, no_grad, argmax?)")
        with self._while(f"it is trained on {audio} and {text}"):
            model: Any = train(system, batches, training=TrainingConfig(epochs=2)).model
        self._check_untouched(batches, before)
        with self._while(f"it is evaluated on {audio} and {text}"), torch.no_grad():
            for each in batches.values():
                first, second = (_checked(model(each.inputs), each) for _ in range(2))
            if not _close(first, second):
                self._note(
                    "in evaluation mode it gives other logits each time, so a result depends on chance; a functional "
                    "dropout needs training=self.training"
                )
            elif not _close(first, model(_with_other_padding(each.inputs))):
                self._note(
                    "its logits change with the padding, so a result depends on the longest utterance; leave the steps "
                    "out where inputs.audio.mask and inputs.text.mask are false"
                )
            alone = Inputs(each.inputs.audio, each.inputs.text, each.inputs.edge_index[:, :0])
            if not system.uses_graph and not _close(first, model(alone)):
                raise InputError("it uses inputs.edge_index, but says uses_graph = False; leave that line out")

    def _check_untouched(self, batches: dict[str, Batch], before: list[Tensor]) -> None:
        """Raise InputError if a system has changed what all systems are given."""
        import torch  # noqa: PLC0415

        if not all(map(torch.equal, before, _copied(batches))):
            raise InputError(
                f"{self.request.name}: it changes its inputs in place, and other systems are given the same; write "
                "x = x / y and not x /= y, and leave out methods such as relu_"
            )

    def _check_weights(self, module: object, again: object, other: object) -> None:
        """Check three models, the first two of the same seed."""
        import torch  # noqa: PLC0415
        from torch import nn  # noqa: PLC0415

        if not isinstance(module, nn.Module):
            hint = "; is its return missing?" if module is None else ""
            raise InputError(f"build gives a {type(module).__name__}; it must return a torch.nn.Module{hint}")
        assert isinstance(again, nn.Module)
        assert isinstance(other, nn.Module)
        if not list(module.parameters()):
            raise InputError("its module has no weights, so there is nothing to learn; keep layers as its attributes")
        if any(a is b for a in module.parameters() for b in other.parameters()):
            raise InputError("build gives models that share a weight; make every layer within build")
        ours, same, others = (
            [weight for weight in one.parameters() if not nn.parameter.is_lazy(weight)]
            for one in (module, again, other)
        )
        if not all(map(torch.equal, ours, same)):
            self._note("one seed gives other weights each time; draw them from torch's random numbers alone")
        elif ours and all(map(torch.equal, ours, others)):
            self._note("every seed begins with the same weights; do not set a seed in it")

    def _try_estimator(self, system: EstimatorSystem, sizes: Sizes, batches: dict[str, Batch]) -> None:
        from cemobam_core.training.loop import train  # noqa: PLC0415

        before = _copied(batches)
        with self._while("it is built"):
            estimator = system.build(sizes, 0)
            for method in ("fit", "predict_proba"):
                if not callable(getattr(estimator, method, None)):
                    hint = "; is its return missing?" if estimator is None else ""
                    if hasattr(type(estimator), method):
                        hint = "; its settings decide whether it has one (of an SVC, probability=True)"
                    raise InputError(
                        f"build gives a {type(estimator).__name__}, which has no {method}; it must return an estimator "
                        f"with fit and predict_proba{hint}"
                    )
        with self._while(f"it is fitted to {len(batches['train'].labels)} utterances and asked for probabilities"):
            model = train(system, batches).model
            for batch in batches.values():
                first, second = (_checked(model(batch.inputs), batch) for _ in range(2))
            if not _close(first, second):
                self._note("predict_proba gives other probabilities each time, so a result depends on chance")
        self._check_untouched(batches, before)

    def _note(self, what: str) -> None:
        self.notes.append(f"{self.request.name}: {what}")

    @contextmanager
    def _while(self, what: str) -> Iterator[None]:
        """Make whatever goes wrong an InputError that says where in the user's file, and while what was done."""
        import torch  # noqa: PLC0415

        from cemobam_core.training.loop import TrainingDiverged  # noqa: PLC0415

        self.stage.write_text(what)
        name, path = self.request.name, path_of(self.request.name)
        try:
            yield
        except InputError as error:
            if what == "it is imported":  # tells where already
                raise
            raise InputError(f"{place(name, line_in(error, path))}: {error}") from error
        except TrainingDiverged as error:
            raise InputError(f"{name}: {error}, while {what}, which are random numbers") from error
        except BaseException as error:
            raise InputError(f"{place(name, line_in(error, path))}: {told(error, path)}, while {what}") from error
        if torch.get_default_dtype() != torch.float32 or torch.get_default_device().type != "cpu":
            raise InputError(
                f"{name}: it changes torch's default dtype or device, for every other system too, while {what}; say "
                "which where a tensor is made"
            )


def _made_up(sizes: Sizes, *, sequence: bool) -> dict[str, Batch]:
    """Return random utterances of every class, with a graph of two neighbours by each modality."""
    import torch  # noqa: PLC0415

    from cemobam_core.graph import TopKGraph  # noqa: PLC0415
    from cemobam_core.inputs import Inputs  # noqa: PLC0415
    from cemobam_core.training.batch import Batch  # noqa: PLC0415

    generator = torch.Generator().manual_seed(0)
    most = max(_UTTERANCES, 2 * sizes.num_classes)
    batches = {}
    for split, n in (("train", most), ("val", most - 3)):  # forward must not count on their number
        made: dict[str, Tensor] = {}
        for modality, dim in (("audio", sizes.audio_dim), ("text", sizes.text_dim)):
            steps = _STEPS[modality] if sequence else 1
            lengths = torch.randint(1, steps + 1, (n, 1), generator=generator)
            lengths[0], lengths[1] = steps, 1
            made[f"{modality}_mask"] = torch.arange(steps) < lengths  # (N, T)
            made[modality] = torch.randn(n, steps, dim, generator=generator) * made[f"{modality}_mask"].unsqueeze(-1)
        ranked = TopKGraph.from_features(
            made["audio"], made["text"], 2, audio_mask=made["audio_mask"], text_mask=made["text_mask"]
        )
        inputs = Inputs.from_features(edge_index=ranked.edge_index(2, 2), **made)
        batches[split] = Batch(inputs, torch.arange(n) % sizes.num_classes, sizes.num_classes)
    return batches


def _copied(batches: dict[str, Batch]) -> list[Tensor]:
    """Return a copy of every tensor that a system is given."""
    import torch  # noqa: PLC0415

    of = [
        x.as_subclass(torch.Tensor)
        for batch in batches.values()
        for steps in (batch.inputs.audio, batch.inputs.text)
        for x in (steps, steps.pooled, steps.mask, batch.inputs.edge_index, batch.labels)
    ]
    return [x.detach().clone() for x in of]


def _with_other_padding(inputs: Inputs) -> Inputs:
    """Return the same utterances, with two steps of padding more and numbers in all of it."""
    import torch  # noqa: PLC0415

    from cemobam_core.inputs import Inputs  # noqa: PLC0415

    if bool(inputs.audio.mask.all()):
        return inputs
    made = {}
    for name, x in (("audio", inputs.audio), ("text", inputs.text)):
        mask = torch.nn.functional.pad(x.mask, (0, 2))
        made[name] = torch.nn.functional.pad(x, (0, 0, 0, 2)).masked_fill(~mask.unsqueeze(-1), 1.0)
        made[f"{name}_mask"] = mask
    return Inputs.from_features(edge_index=inputs.edge_index, **made)


def _built(system: NeuralSystem, sizes: Sizes, seed: int) -> nn.Module:
    import torch  # noqa: PLC0415

    torch.manual_seed(seed)
    return system.build(sizes)


def _checked(logits: object, batch: Batch) -> Tensor:
    """Return logits if they are ones."""
    import torch  # noqa: PLC0415

    wanted = (len(batch.labels), batch.num_classes)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted or not logits.is_floating_point():
        given = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f"forward gives {given}; it must give logits, floats {wanted}: of each utterance, for each class"
        )
    if not bool(torch.isfinite(logits).all()):
        raise InputError("forward gives logits that are NaN or infinite, for utterances of random numbers around 0")
    return logits


def _close(ours: Tensor, theirs: Tensor) -> bool:
    import torch  # noqa: PLC0415

    return torch.allclose(ours, theirs, rtol=_CLOSE, atol=_CLOSE)
