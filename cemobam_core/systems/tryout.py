"""A test of a user's system before a study starts. It runs in a separate process, which may hang or crash.

The process loads the file, builds the system and trains it for two epochs on random utterances. It returns its findings
in a file, so they cannot be confused with output of the user's code.
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
from typing import TYPE_CHECKING, Any

from cemobam_core.errors import InputError
from cemobam_core.fields import check_fields
from cemobam_core.files import temporary_folder
from cemobam_core.systems.files import class_in_file, did_you_mean, is_in_file, line_in, path_of, place, told
from cemobam_core.systems.system import EstimatorSystem, NeuralSystem, System

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cemobam_core.inputs import Inputs, Sizes
    from cemobam_core.training.batch import Batch

_log = logging.getLogger("cemobam_core")

_REQUEST, _STAGE, _TRACES, _OUTPUT, _ANSWER = "request.json", "stage", "traces", "output", "answer.json"

_START_S = 300.0
"""Time limit in seconds until the process loads the file: torch may come over a slow network."""

_UTTERANCES = 24
_STEPS = {"audio": 7, "text": 5}
_TOLERANCE = 1e-4


def try_system(
    name: str, settings: Mapping[str, object] | None = None, *, sizes: Sizes, sequence: bool, patience_s: float = 60.0
) -> None:
    """Load, build and train a system of a user's file in a separate process. For a built-in system, do nothing.

    The process sees no GPU. Some findings do not prevent a run. They are logged as warnings: logits that change between
    calls in evaluation mode, logits that depend on the padding, and initial weights that do not depend on the seed
    alone.

    Args:
        name: Name of the system, ``FILE.py:NAME``.
        settings: Values of its fields. The other fields keep their defaults.
        sizes: Sizes of the study's features.
        sequence: Whether the study's features are sequences. If not, every utterance has one step.
        patience_s: Time limit in seconds for the whole test.

    Raises:
        InputError: The system does not work. The message is one line with the system, the line in the file and the
            cause.
    """
    if not is_in_file(name):
        return
    with temporary_folder() as place_of:
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
    """The arguments of ``try_system``, which are passed to the process."""

    name: str
    settings: dict[str, object]
    sizes: dict[str, int]
    sequence: bool
    patience_s: float


def _wait_for(folder: Path, patience_s: float) -> int | None:
    """Run the process to its end and return its exit status, or ``None`` if it exceeded the time limit."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import answer; answer({str(folder)!r})"
    with (
        (folder / _OUTPUT).open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            # A file may put its tensors on a GPU if there is one, but the random utterances are on the CPU.
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
                os.killpg(process.pid, signal.SIGKILL)  # end its child processes too
            except (ProcessLookupError, PermissionError):  # macOS: only the ended process is left in the group
                process.kill()


def _no_answer(folder: Path, name: str, status: int | None, patience_s: float) -> str:
    """Describe why the process ended without an answer."""
    stage = (folder / _STAGE).read_text() if (folder / _STAGE).exists() else "Python started"
    traces = (folder / _TRACES).read_text(errors="replace") if (folder / _TRACES).exists() else ""
    path = path_of(name).encode("ascii", "backslashreplace").decode()  # in the form that faulthandler writes
    lines = re.findall(rf'^  File "{re.escape(path)}", line (\d+) in ', traces, flags=re.MULTILINE)
    where = place(name, int(lines[0]) if lines else None)
    if status is None or traces.startswith("Timeout"):
        return (
            f"{where}: did not answer within {patience_s:g} s, while {stage}; does its import, build or forward wait "
            "for something?"
        )
    said = (folder / _OUTPUT).read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    ended = f"ended Python with exit status {status} (os._exit?)"
    if status < 0:
        ended = f"crashed Python ({_signal_name(-status)}{', out of memory?' if status == -signal.SIGKILL else ''})"
    return f"{where}: {ended}, while {stage}" + (f"; its last output: {last[-200:]}" if last else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def answer(folder: str) -> None:
    """Test the system of the request in ``folder``, write the answer there and end the process."""
    at = Path(folder)
    request = _Request(**json.loads((at / _REQUEST).read_text()))
    with (at / _TRACES).open("w") as traces:
        faulthandler.enable(traces)  # a crash reports its line
        _leave_no_core()
        import cemobam_core.training.loop  # noqa: F401, PLC0415  (before the time limit starts)

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
        os._exit(0)  # do not wait for anything that the file has started


def _leave_no_core() -> None:
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@dataclass(eq=False)
class _Tryout:
    """The steps of the test in the process. Each step raises InputError if it fails.

    Attributes:
        request: The system to test.
        stage: File with the current step, which is read if the process does not answer.
        notes: Findings that the user should know although the system works.
    """

    request: _Request
    stage: Path
    notes: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Run all steps."""
        from cemobam_core.inputs import Sizes  # noqa: PLC0415

        with self._while("it is imported"):
            kind = class_in_file(self.request.name)
        with self._while("it is given its settings"):
            system = self._configured(kind)
        sizes = Sizes(**self.request.sizes)
        batches = _random_batches(sizes, sequence=self.request.sequence)
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
        check_fields(system)  # its own __post_init__ may not call this
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
                raise InputError("none of its weights can learn: its logits depend on none (detach, no_grad, argmax?)")
        with self._while(f"it is trained on {audio} and {text}"):
            model: Any = train(system, batches, training=TrainingConfig(epochs=2)).model
        self._check_untouched(batches, before)
        with self._while(f"it is evaluated on {audio} and {text}"), torch.no_grad():
            for each in batches.values():
                first, second = (_checked(model(each.inputs), each) for _ in range(2))
            if not _close(first, second):
                self._note(
                    "in evaluation mode its logits change with every call, so results are random; a functional dropout "
                    "needs training=self.training"
                )
            elif not _close(first, model(_with_other_padding(each.inputs))):
                self._note(
                    "its logits change with the padding, so a result depends on the longest utterance; ignore the "
                    "steps where inputs.audio.mask and inputs.text.mask are false"
                )
            alone = Inputs(each.inputs.audio, each.inputs.text, each.inputs.edge_index[:, :0])
            if not system.uses_graph and not _close(first, model(alone)):
                raise InputError("it uses inputs.edge_index, but declares uses_graph = False; remove that line")

    def _check_untouched(self, batches: dict[str, Batch], before: list[Tensor]) -> None:
        """Raise InputError if the system has changed its inputs, which all systems share."""
        import torch  # noqa: PLC0415

        if not all(map(torch.equal, before, _copied(batches))):
            raise InputError(
                f"{self.request.name}: it changes its inputs in place, but other systems get the same inputs; write "
                "x = x / y instead of x /= y, and avoid methods such as relu_"
            )

    def _check_weights(self, module: object, again: object, other: object) -> None:
        """Check three models. The first two have the same seed."""
        import torch  # noqa: PLC0415
        from torch import nn  # noqa: PLC0415

        if not isinstance(module, nn.Module):
            hint = "; is a return statement missing?" if module is None else ""
            raise InputError(f"build returns a {type(module).__name__}; it must return a torch.nn.Module{hint}")
        assert isinstance(again, nn.Module)
        assert isinstance(other, nn.Module)
        if not list(module.parameters()):
            raise InputError("its module has no weights, so nothing can be learnt; store layers as attributes of it")
        if any(a is b for a in module.parameters() for b in other.parameters()):
            raise InputError("build returns models that share a weight; create every layer inside build")
        ours, same, others = (
            [weight for weight in one.parameters() if not nn.parameter.is_lazy(weight)]
            for one in (module, again, other)
        )
        if not all(map(torch.equal, ours, same)):
            self._note("the same seed gives different weights; use only torch's random numbers to draw them")
        elif ours and all(map(torch.equal, ours, others)):
            self._note("every seed starts with the same weights; do not set a seed in the system")

    def _try_estimator(self, system: EstimatorSystem, sizes: Sizes, batches: dict[str, Batch]) -> None:
        from cemobam_core.training.loop import train  # noqa: PLC0415

        before = _copied(batches)
        with self._while("it is built"):
            estimator = system.build(sizes, 0)
            for method in ("fit", "predict_proba"):
                if not callable(getattr(estimator, method, None)):
                    hint = "; is a return statement missing?" if estimator is None else ""
                    if hasattr(type(estimator), method):
                        hint = "; its settings decide whether it has one (for an SVC, set probability=True)"
                    raise InputError(
                        f"build returns a {type(estimator).__name__}, which has no {method}; it must return an "
                        f"estimator with fit and predict_proba{hint}"
                    )
        with self._while(f"it is fitted to {len(batches['train'].labels)} utterances and asked for probabilities"):
            model = train(system, batches).model
            for batch in batches.values():
                first, second = (_checked(model(batch.inputs), batch) for _ in range(2))
            if not _close(first, second):
                self._note("predict_proba returns different probabilities with every call, so results are random")
        self._check_untouched(batches, before)

    def _note(self, what: str) -> None:
        self.notes.append(f"{self.request.name}: {what}")

    @contextmanager
    def _while(self, what: str) -> Iterator[None]:
        """Turn every error into an InputError that names the line in the user's file and the current step."""
        import torch  # noqa: PLC0415

        from cemobam_core.training.loop import TrainingDiverged  # noqa: PLC0415

        self.stage.write_text(what)
        name, path = self.request.name, path_of(self.request.name)
        try:
            yield
        except InputError as error:
            if what == "it is imported":  # the message already names the line
                raise
            raise InputError(f"{place(name, line_in(error, path))}: {error}") from error
        except TrainingDiverged as error:
            raise InputError(f"{name}: {error}, while {what}, with random numbers as features") from error
        except BaseException as error:
            raise InputError(f"{place(name, line_in(error, path))}: {told(error, path)}, while {what}") from error
        if torch.get_default_dtype() != torch.float32 or torch.get_default_device().type != "cpu":
            raise InputError(
                f"{name}: it changes torch's default dtype or device for every other system, while {what}; set dtype "
                "and device where you create a tensor instead"
            )


def _random_batches(sizes: Sizes, *, sequence: bool) -> dict[str, Batch]:
    """Return random utterances of every class, with a graph of two neighbours by each modality."""
    import torch  # noqa: PLC0415

    from cemobam_core.graph import TopKGraph  # noqa: PLC0415
    from cemobam_core.inputs import Inputs  # noqa: PLC0415
    from cemobam_core.training.batch import Batch  # noqa: PLC0415

    generator = torch.Generator().manual_seed(0)
    most = max(_UTTERANCES, 2 * sizes.num_classes)
    batches = {}
    for split, n in (("train", most), ("val", most - 3)):  # forward must not depend on the number of utterances
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
    """Return a copy of every tensor that a system receives."""
    import torch  # noqa: PLC0415

    tensors = [
        x.as_subclass(torch.Tensor)
        for batch in batches.values()
        for steps in (batch.inputs.audio, batch.inputs.text)
        for x in (steps, steps.pooled, steps.mask, batch.inputs.edge_index, batch.labels)
    ]
    return [x.detach().clone() for x in tensors]


def _with_other_padding(inputs: Inputs) -> Inputs:
    """Return the same utterances with two more steps of padding, and with ones in all of the padding."""
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
    """Return the logits if they are valid, and raise InputError if not."""
    import torch  # noqa: PLC0415

    wanted = (len(batch.labels), batch.num_classes)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted or not logits.is_floating_point():
        given = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f"forward returns {given}; it must return floating-point logits {wanted}: a row per utterance, a column "
            "per class"
        )
    if not bool(torch.isfinite(logits).all()):
        raise InputError("forward returns NaN or infinite logits for utterances of random numbers around 0")
    return logits


def _close(ours: Tensor, theirs: Tensor) -> bool:
    import torch  # noqa: PLC0415

    return torch.allclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE)
