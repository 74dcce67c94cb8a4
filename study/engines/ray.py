"""The Ray engine: Ray Tune runs bundles of trials on the nodes of a cluster, started here or joined."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.training.memory import keep_freed_memory
from study.design.configuration import Trial
from study.engines.execution import TRIES, Attempts, Group, StudyData, at_once, groups, ran_past, undone
from study.ledger.outcomes import Outcome

# Nothing is sent anywhere; no cluster is started unasked; tensors are read where they lie in the object store, or each
# worker would copy them; workers stay in their folder; Tune is silent.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
}


@contextmanager
def environment() -> Iterator[None]:
    """Set what Ray reads from the environment, when it is imported and while it runs, and put back what was there."""
    wanted = dict(_ENVIRONMENT)
    if (Path.home() / ".ray" / "auth_token").exists():
        # What Ray's command line does where it has made a token before; a driver that joins would go without, in vain.
        wanted["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE", "token")
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


require("ray", "study.engines.ray")
with environment():
    import ray
    import torch
    from ray import tune
    from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
    from ray.tune.callback import Callback
    from ray.tune.search import Searcher
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


_BUNDLE_SECONDS = 10.0
"""A bundle ends with the first trial that ends after so long: what Tune does about each, some 90 ms on a machine of two
cores, is then 1% of the work at most."""

_STARTS = 3
"""So many workers in a row that die before they have asked for a trial: none will."""

_LOOK = 5.0
"""Seconds of silence after which the engine looks whether the cluster is still there."""


class RayEngine:
    """Runs trials in Ray actors, on a CPU one trial with one thread in each at a time, on a GPU a group as one stack.

    Ray Tune starts the actors, places and replaces them. What Tune calls a trial is here a bundle: what a worker gets
    done in some ten seconds. It is not made up beforehand: its worker asks for group after group and delivers the
    outcomes of each with the next question. So no trial is taken from the study before a worker is free for it, all
    workers are busy to the end, and what was delivered is not lost with the worker. Questions and answers pass through
    one small actor beside the driver, since a driver itself cannot be called.

    The features and the rankings are put into the object store once; every node fetches them once, and its workers
    read them in place. A worker that dies, alone or with its node, costs only its trial, which is tried again on what
    is left. When the driver ends, even by kill -9, its workers end too, and so does a cluster that was started here.

    Args:
        data: what all trials share.
        devices: ``cpu`` or ``cuda`` for each of the trials side by side, as :func:`cluster_devices` gives them.
        gpus_per_trial: the share of a GPU that a worker takes.
        address: of a cluster to join, with this package on every node; None: one is started on this machine.
        trial_timeout: seconds after which a trial is given up; None: never.
    """

    def __init__(
        self,
        data: StudyData,
        devices: Sequence[str],
        *,
        gpus_per_trial: float = 1.0,
        address: str | None = None,
        trial_timeout: float | None = None,
    ) -> None:
        if data.keeping:  # a worker may be in another folder
            data = replace(data, keeping=replace(data.keeping, folder=data.keeping.folder.absolute()))
        if data.probabilities:
            folder = data.probabilities.folder.absolute()
            data = replace(data, probabilities=replace(data.probabilities, folder=folder))
        self._data = data
        self._side_by_side = len(devices)
        on_cpu = devices[0] == "cpu"
        self._device = "cpu" if on_cpu else "cuda:0"  # Ray shows a worker its own GPU alone
        self._resources = {"CPU": 1.0} if on_cpu else {"CPU": 0.0, "GPU": gpus_per_trial}
        self._address = address
        self._trial_timeout = trial_timeout
        self._bundles: dict[str, _Bundle] = {}
        self._again: deque[tuple[Group, int]] = deque()  # undone, or left over from bundles that Tune gave up
        self._parked: deque[_Question] = deque()  # of workers for which there is nothing to do
        self._tuning: _Tuning | None = None
        self._surroundings = ExitStack()
        self._failed_starts = 0
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._heard = 0.0
        self._exhausted = True

    @property
    def stacks(self) -> bool:
        """Whether it trains several trials as one stack: on a GPU."""
        return at_once(self._device) > 1

    def __enter__(self) -> RayEngine:
        """Start or join the cluster; workers start when there is something to run.

        Raises:
            InputError: Ray does not start here, or there is no cluster at the address.
        """
        self._surroundings.enter_context(environment())
        self._temporary = tempfile.TemporaryDirectory(
            prefix="cemobam-ray-", dir=_short_folder(), ignore_cleanup_errors=True
        )
        try:
            url = _join(self._address) if self._address else self._start_cluster()
            if url:
                print(f"Ray's dashboard: http://{url}", flush=True)
            context = ray.get_runtime_context()
            self._gcs = str(context.gcs_address)
            relay: Any = ray.remote(num_cpus=0)(_Relay)
            self._relay = relay.options(
                max_concurrency=2 * self._side_by_side + 16,
                scheduling_strategy=NodeAffinitySchedulingStrategy(context.get_node_id(), soft=False),
            ).remote()
            self._poll = self._relay.asked.remote()
        except BaseException:
            self._leave()
            raise
        return self

    def _start_cluster(self) -> str:
        assert self._temporary
        size = sum(t.numel() * t.element_size() for t in self._data.tensors())
        try:
            return _init(
                address="local",
                num_cpus=self._side_by_side if self._device == "cpu" else None,
                object_store_memory=2 * size + 256 * 2**20,
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                _temp_dir=self._temporary.name,
            )
        except (RuntimeError, ValueError, OSError, RayError) as error:
            raise InputError(
                f"--engine ray: Ray does not start here ({_short(error)}); use --engine local, or join a cluster with "
                "--ray-address"
            ) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all workers at once, and the cluster if it was started here; a trial in flight is lost."""
        self._leave()

    def _leave(self) -> None:
        if self._tuning:
            self._tuning.end()
        ray.shutdown()  # with the driver, all actors of it end
        if self._temporary:
            self._temporary.cleanup()
        self._surroundings.close()

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Execute the trials, giving each with its outcome once, in the order in which they end.

        A trial is asked for when a worker is free for it, on a GPU as many as make a group.

        Raises:
            InputError: the cluster has gone, or no worker starts on it; what was given before stands.
        """
        fresh = groups(trials, at_once(self._device))
        first = next(fresh, None)
        if first is None:
            return
        self._again.append((first, 1))
        self._exhausted = False
        if self._tuning is None:
            assert self._temporary
            self._tuning = _Tuning(
                self._data,
                device=self._device,
                resources=self._resources,
                side_by_side=self._side_by_side,
                relay=self._relay,
                folder=Path(self._temporary.name),
            )
            self._tuning.start()
        while True:
            while self._parked and (assignment := self._next(fresh)):
                self._assign(self._parked.popleft(), assignment)
            if self._exhausted and not self._again and not any(bundle.assigned for bundle in self._bundles.values()):
                return
            yield from self._given_up()
            yield from self._killed()
            for question in self._questions():
                self._failed_starts = 0
                bundle = self._bundles.setdefault(question.bundle, _Bundle())
                ended: tuple[tuple[Trial, Outcome], ...] = ()
                if bundle.assigned and question.answers == bundle.assigned.number:
                    group, tries = bundle.assigned.group, bundle.assigned.tries
                    ended = tuple(zip(group, question.outcomes, strict=False))
                    self._again.extend(undone(group, question.outcomes, tries))
                    bundle.assigned = None
                # before the driver records the outcomes: nobody waits for the ledger
                self._answer(question, bundle, fresh)
                yield from ended

    def _next(self, fresh: Iterator[Group]) -> tuple[Group, int] | None:
        """A group and which try of it this is; those to be tried again come first."""
        if self._again:
            return self._again.popleft()
        group = next(fresh, None)
        self._exhausted = group is None
        return None if group is None else (group, 1)

    def _answer(self, question: _Question, bundle: _Bundle, fresh: Iterator[Group]) -> None:
        if bundle.assigned:  # to a worker that died before or while it had it
            self._assign(question, (bundle.assigned.group, bundle.assigned.tries))
        elif question.outcomes and time.monotonic() - bundle.since > _BUNDLE_SECONDS:
            del self._bundles[question.bundle]
            self._relay.answer.remote(question.number, None)
        elif assignment := self._next(fresh):
            self._assign(question, assignment)
        else:
            self._parked.append(question)

    def _assign(self, question: _Question, assignment: tuple[Group, int]) -> None:
        group, tries = assignment
        self._bundles[question.bundle].assigned = _Assigned(
            group=group, tries=tries, number=question.number, worker=question.worker
        )
        self._relay.answer.remote(question.number, (question.number, group))

    def _questions(self) -> list[_Question]:
        """What workers ask, as soon as one does; empty after a moment, so that the rest is looked after."""
        assert self._tuning
        try:
            asked: list[_Question] = ray.get(self._poll, timeout=0.5)
        except GetTimeoutError:
            self._look()
            return []
        except RayError as error:
            raise self._gone(error) from None
        self._heard = time.monotonic()
        self._poll = self._relay.asked.remote()
        return asked

    def _look(self) -> None:
        """See that the cluster is there and that Tune is at work."""
        assert self._tuning
        if self._tuning.failure:
            raise self._gone(self._tuning.failure)
        if time.monotonic() - self._heard > _LOOK:
            host, _, port = self._gcs.rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=_LOOK).close()
            except OSError as error:
                raise self._gone(error) from None
            self._heard = time.monotonic()

    def _gone(self, error: BaseException) -> InputError:
        where = f"at {self._address}" if self._address else "started here"
        return InputError(
            f"--engine ray: the Ray cluster {where} has gone ({_short(error)}); what was recorded is kept, and "
            "the same command goes on from there on a cluster that is up"
        )

    def _killed(self) -> Iterator[tuple[Trial, Outcome]]:
        """What came of trials whose worker died."""
        assert self._tuning
        while self._tuning.deaths:
            death = self._tuning.deaths.popleft()
            bundle = self._bundles.get(death.bundle, _Bundle())
            if death.for_good:
                self._bundles.pop(death.bundle, None)
            waited = [question for question in self._parked if question.bundle == death.bundle]
            for question in waited:  # nobody hears the answer
                self._parked.remove(question)
            assigned, bundle.assigned = bundle.assigned, None
            if assigned is None:
                self._failed_starts += not waited
                if self._failed_starts >= _STARTS * self._side_by_side:
                    raise InputError(
                        f"--engine ray: workers end before they have begun ({death.cause}); this package must be "
                        "installed on every node, in the same version"
                    )
            elif len(assigned.group) == 1 and assigned.tries == TRIES:
                reason = f"its worker died {TRIES} times ({death.cause}; often out of memory: try fewer --workers)"
                yield assigned.group[0], Outcome(status="failed", seconds=0.0, device=self._device, reason=reason)
            else:  # for whoever asks first: there may be no room for another worker, where a node has gone
                self._again.extend(undone(assigned.group, (), assigned.tries))

    def _given_up(self) -> Iterator[tuple[Trial, Outcome]]:
        """Trials past their time: the worker is killed, and Tune starts another for the rest of the bundle."""
        if self._trial_timeout is None:
            return
        for bundle in list(self._bundles.values()):
            assigned = bundle.assigned
            if assigned and time.monotonic() - assigned.since > self._trial_timeout * len(assigned.group):
                bundle.assigned = None
                ray.kill(assigned.worker)
                if len(assigned.group) == 1:
                    yield assigned.group[0], ran_past(self._trial_timeout, self._device)
                else:
                    self._again.extend(undone(assigned.group, (), assigned.tries))


@dataclass
class _Assigned:
    """A group that a worker has."""

    group: Group
    tries: int
    number: int
    """Of the question that it was the answer to."""
    worker: Any
    since: float = field(default_factory=time.monotonic)


@dataclass
class _Bundle:
    """What Tune calls a trial, as the driver sees it."""

    assigned: _Assigned | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A worker's: what next? With outcomes of the group that was the answer to an earlier question."""

    number: int
    bundle: str
    worker: Any
    answers: int | None
    outcomes: list[Outcome]


@dataclass(frozen=True)
class _Death:
    """Of a bundle's worker; for good: Tune does not start another for it."""

    bundle: str
    cause: str
    for_good: bool


class _Relay:
    """Holds questions until the driver fetches them, and their workers until it has answered."""

    def __init__(self) -> None:
        self._numbers = count()
        self._asked: asyncio.Queue[_Question] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, bundle: str, worker: Any, answers: int | None, outcomes: list[Outcome]) -> Any:
        """A worker's question; gives the number and the group to run, or None: the bundle ends."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait(
            _Question(number=number, bundle=bundle, worker=worker, answers=answers, outcomes=outcomes)
        )
        return await answer

    async def asked(self) -> list[_Question]:
        """All questions not fetched yet, at least one."""
        questions = [await self._asked.get()]
        while not self._asked.empty():
            questions.append(self._asked.get_nowait())
        return questions

    async def answer(self, number: int, answer: Any) -> None:
        """The driver's answer to a question."""
        self._answers.pop(number).set_result(answer)


class _Worker(tune.Trainable):
    """Runs a bundle: group after group until there is to be another bundle."""

    def setup(self, config: dict[str, Any], data: Any = None, relay: Any = None, device: str = "cpu") -> None:
        """Have the features and the rankings at hand, where the object store has them."""
        import study.engines.loaded  # noqa: F401, PLC0415  (slow, and no part of the first trial)

        torch.set_num_threads(1)
        keep_freed_memory()
        self._relay, self._attempts = relay, Attempts(data, device)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next bundle: nothing of the last one is left."""
        return True

    def step(self) -> dict[str, Any]:
        """The whole bundle; each outcome is delivered as its group ends."""
        me = ray.get_runtime_context().current_actor
        number: int | None = None
        outcomes: list[Outcome] = []
        while answer := ray.get(self._relay.ask.remote(self.config["bundle"], me, number, outcomes)):
            number, group = answer
            outcomes = self._attempts.attempt(group)
        return {"done": True}


class _Bundles(Searcher):
    """Gives Tune a new bundle whenever it has a worker for one: what is in it is decided while it runs."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A bundle is its name; there is always another, until the cluster is left."""
        return {"bundle": trial_id}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learnt from a bundle."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept: the ledger knows what was done."""

    def restore(self, checkpoint_path: str) -> None:
        """Likewise."""


class _Watch(Callback):
    """Notes the bundles whose worker died, and ends Tune when the engine is left."""

    def __init__(self) -> None:
        self.noted: deque[_Death] = deque()
        self.left = False

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune's way to end would wait for its workers; they end with the driver."""
        if self.left:
            raise SystemExit

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune starts another worker for it."""
        self.noted.append(_Death(trial.config["bundle"], _cause(trial.get_pickled_error()), False))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune has started enough of them."""
        self.noted.append(_Death(trial.config["bundle"], _cause(trial.get_pickled_error()), True))


class _Tuning(threading.Thread):
    """Ray Tune at work, from the first trial to the end of the engine.

    Attributes:
        deaths: of workers, as they come.
        failure: what ended it.
    """

    def __init__(
        self,
        data: StudyData,
        *,
        device: str,
        resources: dict[str, float],
        side_by_side: int,
        relay: Any,
        folder: Path,
    ) -> None:
        super().__init__(name="ray-tune", daemon=True)
        self.failure: BaseException | None = None
        self._watch = _Watch()
        self.deaths = self._watch.noted
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tensors that are read in place must not be written to: no trial does
            worker = tune.with_parameters(_Worker, data=data, relay=relay, device=device)
        self._tuner = tune.Tuner(
            tune.with_resources(worker, resources),
            tune_config=tune.TuneConfig(
                search_alg=_Bundles(),
                num_samples=-1,
                max_concurrent_trials=side_by_side,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=2 * TRIES),
                callbacks=[self._watch],
                verbose=0,
            ),
        )

    def run(self) -> None:
        """Until the cluster is left."""
        try:
            self._tuner.fit()
            self.failure = RuntimeError("Ray Tune ended early")
        except BaseException as error:  # whatever it is, the driver is told
            self.failure = error

    def end(self) -> None:
        """Before the cluster is left: Tune would join it again."""
        self._watch.left = True
        self.join(10)


def cluster_devices(address: str, *, device: str, workers: int | None, gpus_per_trial: float) -> list[str]:
    """One entry for each trial that the cluster at an address takes side by side.

    Args:
        address: ``HOST:PORT`` of its head, or ``auto`` for the one that this machine is part of.
        device: ``cpu``, ``cuda``, or ``auto``: GPUs where the cluster has any.
        workers: how many at most; None: as many as there are cores, or shares of GPUs.
        gpus_per_trial: the share of a GPU that a trial takes.

    Raises:
        InputError: there is no cluster, or no GPU in it that is asked for.
    """
    with environment():
        _join(address)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()
    gpus = [node.get("GPU", 0.0) for node in nodes]
    if device == "cuda" and max(gpus) < gpus_per_trial:
        raise InputError(
            f"--device cuda: no node of the Ray cluster at {address} has {gpus_per_trial:g} GPUs for a trial; use "
            "--device cpu, fewer --gpus-per-trial, or another cluster"
        )
    if device == "cpu" or max(gpus) < gpus_per_trial:
        return ["cpu"] * (workers or int(sum(node.get("CPU", 0.0) for node in nodes)) or 1)
    # on each node by itself: a trial's share cannot be put together from two
    return ["cuda"] * (workers or int(sum(gpu // gpus_per_trial for gpu in gpus)))


def _join(address: str) -> str:
    if address.startswith("ray://"):
        raise InputError(
            f"--ray-address {address}: run this command on a node of the cluster, and give auto or the head's HOST:6379"
        )
    host, _, port = address.rpartition(":")
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=10).close()
        return _init(address=address)
    except (RuntimeError, ValueError, OverflowError, OSError, RayError) as error:
        raise InputError(
            f"--ray-address {address}: no Ray cluster can be joined there ({_short(error)}); start one with: ray start "
            "--head, join it on this machine with: ray start --address=HOST:6379, and give that address, or auto"
        ) from None


def _init(**options: Any) -> str:
    """Start or join a cluster without a word; gives the address of its dashboard."""
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray takes it, to exit at once
    return str(context.dashboard_url or "")


def _short_folder() -> str | None:
    """For temporary files; Ray puts sockets into it, whose paths may have 107 characters."""
    return None if len(tempfile.gettempdir()) < 24 else "/tmp"


def _cause(error: BaseException | None) -> str:
    """Why a worker died, in a few words."""
    if isinstance(error, RayTaskError) and error.cause is not None:
        return _short(error.cause)
    if isinstance(error, RayActorError):
        told = str(error)
        if "creation task" in told or "System error" in told:  # its last line is what was raised
            return _short(RuntimeError(told.strip().splitlines()[-1]))
        return next((words for sign, words in _SIGNS.items() if sign in told), "killed, or crashed")
    return _short(error) if error else "killed, or crashed"


_SIGNS = {
    "low on memory": "Ray ended it because its node was low on memory",
    "node is dead": "its node has gone",
    "node died": "its node has gone",
}
"""What Ray says of a death that it knows the cause of, and in our words."""


def _short(error: BaseException) -> str:
    """The first line, and not too much of it."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return said if len(said) <= 160 else said[:159] + "…"
