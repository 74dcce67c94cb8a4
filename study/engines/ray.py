"""The Ray engine: Ray Tune runs bundles of trials on a cluster, which the engine starts or joins."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.files import place_for_sockets, temporary_folder
from cemobam_core.rows import StoredTensor
from cemobam_core.training.memory import keep_freed_memory
from study.design.configuration import Trial
from study.engines.execution import TRIES, Attempts, Group, StudyData, at_once, groups, ran_past, unfinished
from study.engines.watchdog import TOKEN_VARIABLE, Watchdog
from study.ledger.outcomes import Outcome

# These settings turn off Ray's usage reports, do not start a cluster unless asked, let workers read tensors in place in
# the object store (otherwise each worker would copy them), keep workers in their folder, and keep Tune silent.
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
def environment(token: Path | None = None) -> Iterator[None]:
    """Set the environment variables that Ray reads when it is imported and while it runs, and restore them after.

    Args:
        token: File with the token of a cluster that is started. `None` means that the token is Ray's own, if there is
            one: Ray's command line makes it, and a driver that joins without it would fail.
    """
    wanted = dict(_ENVIRONMENT)
    if token:
        temporary = token.with_name("tmp")  # processes that are killed leave files there
        temporary.mkdir()
        wanted |= {"RAY_AUTH_MODE": "token", TOKEN_VARIABLE: str(token), "TMPDIR": str(temporary)}
    elif (Path.home() / ".ray" / "auth_token").exists():
        wanted["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE", "token")
    dropped = {"RAY_AUTH_TOKEN"} if token else set()  # it would come before the file
    before = {name: os.environ.get(name) for name in {*wanted, *dropped}}
    os.environ.update(wanted)
    for name in dropped:
        os.environ.pop(name, None)
    _read_environment()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_environment()


def _read_environment() -> None:
    """Make Ray read the variables of its authentication again. Before Ray is imported, there is nothing to do.

    Ray has tokens since 2.52. Older versions ignore the variables.
    """
    raylet = sys.modules.get("ray._raylet")
    if raylet and hasattr(raylet, "AuthenticationTokenLoader"):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


require("ray", "study.engines.ray")
with environment():
    import ray
    import torch
    from ray import tune
    from ray._private import ray_constants, services
    from ray._private import utils as ray_utils
    from ray._private import worker as ray_worker
    from ray.air.execution import PlacementGroupResourceManager
    from ray.exceptions import RayActorError, RayError, RayTaskError
    from ray.tune.callback import Callback
    from ray.tune.execution import tune_controller
    from ray.tune.search import Searcher
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


_BUNDLE_SECONDS = 10.0
"""Seconds after which a bundle ends with the next trial that ends.

Tune's overhead for each bundle, about 90 ms on a machine with two cores, is then at most 1% of the work."""

_STARTS = 3
"""Number of failed starts in a row, per parallel worker, after which the run stops: no worker will start."""

_TOKEN = "token"
"""File with the token of a cluster that the engine starts, in the cluster's folder."""

_LONGEST_SOCKET = 93
"""Characters of ``/cemobam-tmp-<8>/ray/session_<date>_<time>_<pid>/sockets/dash_MetricsHead``."""

_LOOK = 5.0
"""Seconds without a question after which the engine checks whether the cluster is still there."""


class RayEngine:
    """Runs trials in Ray actors: one trial with one thread per actor on a CPU, a group as one stack on a GPU.

    Ray Tune starts, places and replaces the actors. A trial of Tune is called a bundle here: the work of one worker in
    about ten seconds. The content of a bundle is not fixed beforehand. Its worker asks for one group after another, and
    delivers the outcomes of a group with its next question. So no trial is taken from the study before a worker is
    free for it, all workers are busy until the end, and delivered outcomes are not lost if the worker dies. Questions
    and answers go through one small actor beside the driver, because a driver itself cannot be called.

    The features and the rankings are put into the object store once. Every node fetches them once, and its workers
    read them in place. Features that stay in their files (:class:`cemobam_core.rows.Rows`) are read there if every node
    sees the files, and come through the object store otherwise. If a worker dies, alone or with its node, only its
    trial is lost, and it is tried again on the remaining nodes. When the driver ends, even by kill -9, its workers end
    too, and so does a cluster that the engine started, within seconds (:mod:`study.engines.watchdog`). Such a cluster
    listens on the loopback address alone and asks for a token, if this version of Ray has tokens.

    Args:
        data: Data that all trials share.
        devices: ``cpu`` or ``cuda`` for each of the parallel workers, as from :func:`cluster_devices`.
        gpus_per_trial: Share of a GPU that a worker takes.
        address: Address of a cluster to join, with this package on every node. `None` means that the engine starts a
            cluster on this machine.
        trial_timeout: Seconds after which a trial is given up. `None` means never.
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
        if data.keeping:  # a worker may have another working folder
            data = replace(data, keeping=replace(data.keeping, folder=data.keeping.folder.absolute()))
        if data.probabilities:
            folder = data.probabilities.folder.absolute()
            data = replace(data, probabilities=replace(data.probabilities, folder=folder))
        self._data = data
        self._side_by_side = len(devices)
        on_cpu = devices[0] == "cpu"
        self._device = "cpu" if on_cpu else "cuda:0"  # Ray shows each worker only its own GPU
        self._resources = {"CPU": 1.0} if on_cpu else {"CPU": 0.0, "GPU": gpus_per_trial}
        self._address = address
        self._trial_timeout = trial_timeout
        self._bundles: dict[str, _Bundle] = {}
        self._again: deque[tuple[Group, int]] = deque()  # unfinished groups, also of bundles that Tune gave up
        self._parked: deque[_Question] = deque()  # questions of workers that have nothing to do
        self._tuning: _Tuning | None = None
        self._tunings = 0
        self._surroundings = ExitStack()
        self._failed_starts = 0
        self._folder = Path()
        self._heard = 0.0
        self._lost = False
        self._exhausted = True

    @property
    def stacks(self) -> bool:
        """Whether the engine trains several trials as one stack. It does on a GPU."""
        return at_once(self._device) > 1

    def __enter__(self) -> RayEngine:
        """Start or join the cluster. Workers start once there are trials to run.

        Raises:
            InputError: If Ray does not start here, or there is no cluster at the address.
        """
        try:
            self._folder = self._surroundings.enter_context(temporary_folder(place_for_sockets(_LONGEST_SOCKET)))
            self._surroundings.enter_context(_without("wandb"))
            url = self._join_cluster(self._address) if self._address else self._start_cluster()
            self._data = within_reach(self._data) if self._address else self._data
            if url:
                token = "" if self._address else f"  (its token: {self._folder / _TOKEN})"
                print(f"Ray's dashboard: http://{url}{token}", flush=True)
            context = ray.get_runtime_context()
            self._gcs = str(context.gcs_address)
            node: Any = ray_worker.global_worker.node
            self._raylet = str(node.raylet_socket_name)
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

    def _join_cluster(self, address: str) -> str:
        self._surroundings.enter_context(environment())
        return _join(address)

    def _start_cluster(self) -> str:
        """Start a cluster that only this machine reaches, and only with its token, and that ends with this process."""
        token = self._folder / _TOKEN
        with os.fdopen(os.open(token, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        self._surroundings.callback(Watchdog(self._folder).end)
        self._surroundings.enter_context(environment(token))
        size = sum(t.numel() * t.element_size() for t in self._data.tensors())
        try:
            with _on_loopback(), _in_groups_of_their_own():
                return _init(
                    address="local",
                    num_cpus=self._side_by_side if self._device == "cpu" else None,
                    object_store_memory=2 * size + 256 * 2**20,
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(self._folder / "ray"),  # Ray lets everyone write there, but nobody gets that far
                )
        except Exception as error:  # Ray raises plain ones too, such as for a dashboard that does not start
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
        """End all workers at once, and the cluster if the engine started it. Running trials are lost."""
        self._leave()

    def _leave(self) -> None:
        if self._tuning:
            self._tuning.end(1 if self._lost else 10)  # Ray ends the driver ten seconds after it has lost its node
        with self._surroundings:
            ray.shutdown()  # all actors of the driver end with it

    def run(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        """Execute the trials and yield each with its outcome once, in the order in which they end.

        A trial is taken when a worker is free for it. On a GPU, the trials of a whole group are taken at once.

        Raises:
            InputError: If the cluster is lost, or no worker starts on it. Outcomes that were yielded before are valid.
        """
        fresh = groups(trials, at_once(self._device))
        first = next(fresh, None)
        if first is None:
            return
        self._again.append((first, 1))
        self._exhausted = False
        if self._tuning is None:
            self._tuning = _Tuning(
                self._data,
                device=self._device,
                resources=self._resources,
                side_by_side=self._side_by_side,
                relay=self._relay,
                folder=self._folder,
                number=self._tunings,
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
                if _Bundles.number(question.bundle) != self._tunings:  # of a worker that ended when the engine rested
                    continue
                self._failed_starts = 0
                bundle = self._bundles.setdefault(question.bundle, _Bundle())
                ended: tuple[tuple[Trial, Outcome], ...] = ()
                if bundle.assigned and question.answers == bundle.assigned.number:
                    group, tries = bundle.assigned.group, bundle.assigned.tries
                    ended = tuple(zip(group, question.outcomes, strict=False))
                    self._again.extend(unfinished(group, question.outcomes, tries))
                    bundle.assigned = None
                # answer before the driver records the outcomes, so that no worker waits for the ledger
                self._answer(question, bundle, fresh)
                yield from ended

    def rest(self) -> None:
        """End the workers, because another run on this cluster may wait for their cores.

        Later trials start new workers.
        """
        if self._tuning:
            self._tuning.end()
            self._tuning.free_cores()
            self._tuning = None
            self._tunings += 1
            self._parked.clear()
            self._bundles.clear()

    def _next(self, fresh: Iterator[Group]) -> tuple[Group, int] | None:
        """Return the next group and the number of its try. Groups to be tried again come first."""
        if self._again:
            return self._again.popleft()
        group = next(fresh, None)
        self._exhausted = group is None
        return None if group is None else (group, 1)

    def _answer(self, question: _Question, bundle: _Bundle, fresh: Iterator[Group]) -> None:
        if bundle.assigned:  # the worker before this one died with the group, or before it got it
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
        """Return the new questions of workers as soon as there is one.

        After half a second without a question the result is empty, so that the caller can check for other events.
        """
        try:
            ready, _ = ray.wait([self._poll], timeout=0.5, fetch_local=False)
            if not _is_answered(self._raylet):  # without it, Ray waits for an answer far beyond a timeout
                raise self._gone(RuntimeError("Ray's process on this machine has ended"))
            if not ready:
                self._look()
                return []
            asked: list[_Question] = ray.get(self._poll)
        except RayError as error:
            raise self._gone(error) from None
        self._heard = time.monotonic()
        self._poll = self._relay.asked.remote()
        return asked

    def _look(self) -> None:
        """Check that the cluster is there and that Tune is running."""
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
        self._lost = True
        where = f"at {self._address}" if self._address else "started here"
        return InputError(
            f"--engine ray: the connection to the Ray cluster {where} is lost ({_short(error)}); recorded trials are "
            "kept, and the same command continues from there on a running cluster"
        )

    def _killed(self) -> Iterator[tuple[Trial, Outcome]]:
        """Yield the failed trials whose worker died, and put the other trials of dead workers back."""
        assert self._tuning
        while self._tuning.deaths:
            death = self._tuning.deaths.popleft()
            bundle = self._bundles.get(death.bundle, _Bundle())
            if death.for_good:
                self._bundles.pop(death.bundle, None)
            waited = [question for question in self._parked if question.bundle == death.bundle]
            for question in waited:  # the dead worker cannot receive an answer
                self._parked.remove(question)
            assigned, bundle.assigned = bundle.assigned, None
            if assigned is None:
                self._failed_starts += not waited
                if self._failed_starts >= _STARTS * self._side_by_side:
                    raise InputError(
                        f"--engine ray: workers die before they start ({death.cause}); install the same version of "
                        "this package on every node"
                    )
            elif len(assigned.group) == 1 and assigned.tries == TRIES:
                reason = f"its worker died {TRIES} times ({death.cause}; often out of memory: try fewer --workers)"
                yield assigned.group[0], Outcome(status="failed", seconds=0.0, device=self._device, reason=reason)
            else:  # for any worker: after the loss of a node there may be no resources for a replacement
                self._again.extend(unfinished(assigned.group, (), assigned.tries))

    def _given_up(self) -> Iterator[tuple[Trial, Outcome]]:
        """Yield the trials that exceeded their time. Their worker is killed, and Tune starts another for the bundle."""
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
                    self._again.extend(unfinished(assigned.group, (), assigned.tries))


@dataclass
class _Assigned:
    """A group that is assigned to a worker."""

    group: Group
    tries: int
    number: int
    """Number of the question that the group answered."""
    worker: Any
    since: float = field(default_factory=time.monotonic)


@dataclass
class _Bundle:
    """A trial of Tune, in the view of the driver."""

    assigned: _Assigned | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A worker's question for its next group, with the outcomes of the group that answered an earlier question."""

    number: int
    bundle: str
    worker: Any
    answers: int | None
    outcomes: list[Outcome]


@dataclass(frozen=True)
class _Death:
    """The death of a bundle's worker. If it is ``for_good``, Tune does not start another worker for the bundle."""

    bundle: str
    cause: str
    for_good: bool


class _Relay:
    """Holds questions until the driver fetches them, and makes their workers wait until the driver has answered."""

    def __init__(self) -> None:
        self._numbers = count()
        self._asked: asyncio.Queue[_Question] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, bundle: str, worker: Any, answers: int | None, outcomes: list[Outcome]) -> Any:
        """Ask the driver for the next group. Return its number and the group, or `None` if the bundle ends."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait(
            _Question(number=number, bundle=bundle, worker=worker, answers=answers, outcomes=outcomes)
        )
        return await answer

    async def asked(self) -> list[_Question]:
        """Return all questions that were not fetched yet. Wait until there is at least one."""
        questions = [await self._asked.get()]
        while not self._asked.empty():
            questions.append(self._asked.get_nowait())
        return questions

    async def answer(self, number: int, answer: Any) -> None:
        """Pass the driver's answer to the worker that asked the question."""
        self._answers.pop(number).set_result(answer)


class _Worker(tune.Trainable):
    """Runs a bundle: one group after another until the driver ends the bundle."""

    def setup(self, config: dict[str, Any], data: Any = None, relay: Any = None, device: str = "cpu") -> None:
        """Prepare the worker. The features and the rankings stay in the object store."""
        import study.engines.loaded  # noqa: F401, PLC0415  (slow, and must not count as time of the first trial)

        torch.set_num_threads(1)
        keep_freed_memory()
        self._relay, self._attempts = relay, Attempts(data, device)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept the next bundle. A worker keeps no state of the last one."""
        return True

    def step(self) -> dict[str, Any]:
        """Run the whole bundle. The outcomes of each group are delivered when the group ends."""
        me = ray.get_runtime_context().current_actor
        number: int | None = None
        outcomes: list[Outcome] = []
        while answer := ray.get(self._relay.ask.remote(self.config["bundle"], me, number, outcomes)):
            number, group = answer
            outcomes = self._attempts.attempt(group)
        return {"done": True}


class _Bundles(Searcher):
    """Gives Tune a new bundle whenever it has a free worker. The content of a bundle is decided while it runs."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return a new bundle, which is only a name. There is always another one."""
        return {"bundle": f"{self._number}-{trial_id}"}

    @staticmethod
    def number(bundle: str) -> int:
        """Return the number of the run of Tune that a bundle belongs to."""
        return int(bundle.partition("-")[0])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the search learns nothing from a bundle."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger records the trials that are done."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: :meth:`save` saves nothing."""


class _Watch(Callback):
    """Records the bundles whose worker died, and ends Tune when the engine ends."""

    def __init__(self) -> None:
        self.noted: deque[_Death] = deque()
        self.left = False

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End Tune if the engine has ended. Tune's own way would wait for its workers, but they end with the driver."""
        if self.left:
            raise SystemExit

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a death after which Tune starts another worker for the bundle."""
        self.noted.append(_Death(trial.config["bundle"], _cause(trial.get_pickled_error()), False))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a death after which Tune starts no other worker for the bundle."""
        self.noted.append(_Death(trial.config["bundle"], _cause(trial.get_pickled_error()), True))


class _Tuning(threading.Thread):
    """A thread that runs Ray Tune from the first trial to the end of the engine.

    Attributes:
        deaths: Deaths of workers, in the order in which they happen.
        failure: Error that ended Tune. `None` while it runs.
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
        number: int,
    ) -> None:
        super().__init__(name="ray-tune", daemon=True)
        self.failure: BaseException | None = None
        self._watch = _Watch()
        self._reserved: Any = PlacementGroupResourceManager()
        self.deaths = self._watch.noted
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Ray warns that tensors read in place are read-only; no trial writes to them
            worker = tune.with_parameters(_Worker, data=data, relay=relay, device=device)
        self._tuner = tune.Tuner(
            tune.with_resources(worker, resources),
            tune_config=tune.TuneConfig(
                search_alg=_Bundles(number),
                num_samples=-1,
                max_concurrent_trials=side_by_side,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"tune-{number}",
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=2 * TRIES),
                callbacks=[self._watch],
                verbose=0,
            ),
        )

    def run(self) -> None:
        """Run Tune until the engine ends."""
        try:
            with patched(tune_controller, "PlacementGroupResourceManager", lambda: self._reserved):
                self._tuner.fit()
            self.failure = RuntimeError("Ray Tune ended early")
        except BaseException as error:  # the driver reads every error
            self.failure = error

    def end(self, patience: float = 10) -> None:
        """End Tune. Call this before leaving the cluster, because Tune would join it again.

        Args:
            patience: Seconds to wait for its end.
        """
        self._watch.left = True
        self.join(patience)

    def free_cores(self) -> None:
        """Give back the cores that Tune has reserved, after its end. This ends the workers on them."""
        self._reserved.clear()


def cluster_devices(address: str, *, device: str, workers: int | None, gpus_per_trial: float) -> list[str]:
    """Return the devices of the workers that the cluster at an address can run in parallel, one entry per worker.

    Args:
        address: ``HOST:PORT`` of the cluster's head, or ``auto`` for the cluster that this machine is part of.
        device: ``cpu``, ``cuda``, or ``auto``, which takes GPUs if the cluster has any.
        workers: Number of workers. `None` means as many as there are cores, or shares of GPUs.
        gpus_per_trial: Share of a GPU that a trial takes.

    Raises:
        InputError: If there is no cluster, or it lacks the GPU that was asked for.
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
    # counted for each node, because a trial cannot use GPUs of two nodes
    return ["cuda"] * (workers or int(sum(gpu // gpus_per_trial for gpu in gpus)))


def within_reach(data: StudyData) -> StudyData:
    """Return data that every node of the cluster can read.

    They are the same data if each node sees the files of their features as this one does, as on a shared file system.
    Otherwise they take all numbers along.
    """
    if not (files := data.stored()):
        return data
    see: Any = ray.remote(num_cpus=0)(_sees)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    seen: list[bool] = ray.get([see.options(scheduling_strategy=one).remote(files) for one in there])
    return data if all(seen) else data.held()


def _sees(files: Iterable[StoredTensor]) -> bool:
    """Return whether this node sees files as the driver does."""
    try:
        for one in files:
            one.check()
    except InputError:
        return False
    return True


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
    """Start or join a cluster without any output, and return the address of its dashboard."""
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings(), patched(ray_utils, "set_sigterm_handler", lambda _: None):
        warnings.simplefilter("ignore")
        context = ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # in case that another version of Ray sets a handler in another way
    return str(context.dashboard_url or "")


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray start a cluster on the loopback address, as it does on Windows and macOS.

    Elsewhere Ray replaces that address by one that other machines reach. Then its servers listen on every interface.
    """
    with patched(ray_constants, "ENABLE_RAY_CLUSTER", False):
        yield


@contextmanager
def _in_groups_of_their_own() -> Iterator[None]:
    """Let Ray start its processes outside the process group of the driver.

    A signal to the group of the driver, such as SLURM's, would end them too. When they end before the driver has left
    the cluster, Ray's library ends the driver at once.
    """
    group = {} if sys.platform == "win32" else {"process_group": 0}
    with patched(services, "ConsolePopen", partial(services.ConsolePopen, **group)):
        yield


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let Ray Tune believe that a module is not installed.

    Tune imports wandb if it is. It takes seconds, and a killed process leaves its temporary folders.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's own way to say so
    try:
        yield
    finally:
        sys.modules.pop(module, None)


@contextmanager
def patched(module: Any, name: str, value: Any) -> Iterator[None]:
    """Give a name of a module another value while the block runs."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _is_answered(path: str) -> bool:
    """Return whether a process listens on the socket at a path. What is not a path counts as answered."""
    if not path.startswith("/"):
        return True
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(path)
    except OSError:
        return False
    return True


def _cause(error: BaseException | None) -> str:
    """Return the cause of a worker's death in a few words."""
    if isinstance(error, RayTaskError) and error.cause is not None:
        return _short(error.cause)
    if isinstance(error, RayActorError):
        message = str(error)
        if "creation task" in message or "System error" in message:  # the last line is the error that was raised
            return _short(RuntimeError(message.strip().splitlines()[-1]))
        return next((words for sign, words in _SIGNS.items() if sign in message), "killed, or crashed")
    return _short(error) if error else "killed, or crashed"


_SIGNS = {
    "low on memory": "Ray ended it because its node was low on memory",
    "node is dead": "its node was lost",
    "node died": "its node was lost",
}
"""Parts of Ray's messages on deaths whose cause it knows, and the words that we use."""


def _short(error: BaseException) -> str:
    """Return the first line of an error, with at most 160 characters."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return said if len(said) <= 160 else said[:159] + "…"
