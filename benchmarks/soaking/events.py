"""The disturbances: what happens to drivers, workers, Ray and the database, at random."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from soaking.drivers import Driver
from soaking.processes import catches, family, is_ray_worker, send, words
from soaking.results import Sent
from soaking.servers import PostgreSQL, RayCluster

_MOMENT_S = (0.5, 8.0)
"""Shortest and longest time, in seconds, for which something is stopped or gone."""

_LONG_S = (66.0, 78.0)
"""The same for a driver whose leases expire meanwhile: other runs take it for dead after 60 seconds."""

_ENDS = ("KILL", "TERM", "INT", "HUP")


class Events:
    """The disturbances of one study.

    Args:
        draw: Source of randomness.
        drivers: Drivers of the study.
        postgresql: Server of the study's ledger, if it has one.
        cluster: Cluster that the drivers join, if they join one.
        log: File that lists the events.

    Attributes:
        counts: Number of events by kind.
        workers: Whether workers were disturbed.
        servers: When the database or Ray was last disturbed.
    """

    def __init__(
        self,
        draw: random.Random,
        drivers: list[Driver],
        postgresql: PostgreSQL | None,
        cluster: RayCluster | None,
        log: Path,
    ) -> None:
        self._draw = draw
        self._drivers = drivers
        self._postgresql = postgresql
        self._cluster = cluster
        self._log = log
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._slept = False
        self.counts: Counter[str] = Counter()
        self.workers = False
        self.servers = -1e9
        self._kinds: dict[str, tuple[float, Callable[[], bool]]] = {
            **{f"{name} driver": (2, lambda name=name: self._end_driver(name)) for name in _ENDS},  # type: ignore[misc]
            "STOP driver": (2, self._stop_driver),
            "STOP driver long": (0.7 if len(drivers) > 1 else 0, self._stop_driver_long),
            "KILL worker": (2, lambda: self._signal_worker(signal.SIGKILL)),
            "TERM worker": (1, lambda: self._signal_worker(signal.SIGTERM)),
            "STOP worker": (1, lambda: self._signal_worker(signal.SIGSTOP)),
            "KILL fork server": (0.5, self._kill_fork_server),
            "KILL Ray process": (1, self._kill_ray_process),
        }
        if cluster:
            self._kinds |= {
                "KILL node": (2, self._kill_node),
                "STOP node": (1, self._stop_node),
                "KILL cluster": (0.5, self._kill_cluster),
            }
        if postgresql:
            self._kinds |= {
                "KILL database": (2, self._kill_database),
                "STOP database": (1, self._stop_database),
                "TERM connection": (1, self._cut_connection),
            }

    @property
    def pending(self) -> bool:
        """Whether something is stopped or gone now."""
        return bool(self._due)

    def happen(self) -> None:
        """Let one thing happen, of a kind that is possible now."""
        kinds = list(self._kinds)
        for kind in self._draw.choices(kinds, [self._kinds[kind][0] for kind in kinds], k=20):
            with suppress(psutil.NoSuchProcess):
                if self._kinds[kind][1]():
                    self.counts[kind] += 1
                    self.note(kind)
                    return

    def due(self) -> None:
        """Continue and start again what is due."""
        now = time.monotonic()
        ready = [action for when, action in self._due if when <= now]
        self._due = [(when, action) for when, action in self._due if when > now]
        for action in ready:
            action()

    def note(self, text: str) -> None:
        """Write a line into the list of events."""
        with self._log.open("a") as log:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=log)

    def _later(self, seconds: tuple[float, float], action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + self._draw.uniform(*seconds), action))

    def _driver(self) -> Driver | None:
        running = [driver for driver in self._drivers if driver.process]
        return self._draw.choice(running) if running else None

    def _end_driver(self, name: str) -> bool:
        driver = self._driver()
        if driver is None:
            return False
        self._signal_driver(driver, name)
        if self._draw.random() < 0.3:  # again, while it ends
            again = self._draw.choice(_ENDS)
            self._later((0.0, 2.0), lambda: self._signal_driver(driver, again))
        return True

    def _signal_driver(self, driver: Driver, name: str) -> None:
        if driver.process is None:
            return
        number = signal.Signals[f"SIG{name}"]
        process = psutil.Process(driver.process.pid)
        driver.sent.append(Sent(name, handled=catches(process, signal.SIGTERM)))
        self.note(f"  {name} to driver {driver.number} ({process.pid})")
        send(self._group(process) if self._draw.random() < 0.5 else [process], number)

    @staticmethod
    def _group(process: psutil.Process) -> list[psutil.Process]:
        """Return the processes of a driver's session, which a terminal would signal together."""
        return [process, *(one for one in family(process.pid) if _session(one) == process.pid)]

    def _stop_driver(self, seconds: tuple[float, float] = _MOMENT_S) -> bool:
        driver = self._driver()
        if driver is None or driver.process is None:
            return False
        process = psutil.Process(driver.process.pid)
        stopped = self._group(process) if self._draw.random() < 0.5 else [process]
        self._stop(stopped, seconds)
        return True

    def _stop_driver_long(self) -> bool:
        """Stop a driver until its leases have expired, at most once in a study."""
        if self._slept or len([driver for driver in self._drivers if driver.process]) < 2:
            return False
        self._slept = self._stop_driver(_LONG_S)
        return self._slept

    def _stop(self, processes: list[psutil.Process], seconds: tuple[float, float] = _MOMENT_S) -> None:
        send(processes, signal.SIGSTOP)
        self._later(seconds, lambda: send(processes, signal.SIGCONT))

    def _signal_worker(self, number: signal.Signals) -> bool:
        workers = [one for driver in self._drivers for one in driver.workers()]
        workers += [one for one in self._cluster.processes() if is_ray_worker(one)] if self._cluster else []
        if not workers:
            return False
        worker = self._draw.choice(workers)
        self.note(f"  {number.name} to worker {worker.pid}")
        if number == signal.SIGSTOP:
            self._stop([worker])
        else:
            self.workers = True
            send([worker], number)
        return True

    def _kill_fork_server(self) -> bool:
        servers = [one for driver in self._drivers for one in driver.fork_servers()]
        if not servers:
            return False
        self.workers = True
        send([self._draw.choice(servers)], signal.SIGKILL)
        return True

    def _kill_ray_process(self) -> bool:
        """Kill one of Ray's own processes of a cluster that a driver started."""
        driver = self._driver()
        processes = driver.ray_processes() if driver else []
        if not processes:
            return False
        self.workers, self.servers = True, time.monotonic()
        one = self._draw.choice(processes)
        self.note(f"  {one.pid} {words(one)[:80]}")
        send([one], signal.SIGKILL)
        return True

    def _kill_node(self) -> bool:
        assert self._cluster
        up = [number for number, node in enumerate(self._cluster.nodes) if node]
        if not up:
            return False
        number = self._draw.choice(up)
        self._cluster.kill_node(number)
        self.workers, self.servers = True, time.monotonic()
        self._later(_MOMENT_S, lambda: self._start_node(number))
        return True

    def _start_node(self, number: int) -> None:
        assert self._cluster
        if self._cluster.head and self._cluster.nodes[number] is None:
            self._cluster.start_node(number)

    def _stop_node(self) -> bool:
        assert self._cluster
        up = [number for number, node in enumerate(self._cluster.nodes) if node]
        if not up:
            return False
        self.servers = time.monotonic()
        self._stop(self._cluster.processes(self._draw.choice(up)))
        return True

    def _kill_cluster(self) -> bool:
        assert self._cluster
        if self._cluster.head is None:
            return False
        self._cluster.kill()
        self.workers, self.servers = True, time.monotonic()
        self._later(_MOMENT_S, self._start_cluster)
        return True

    def _start_cluster(self) -> None:
        assert self._cluster
        self._cluster.start()
        self.servers = time.monotonic()

    def _kill_database(self) -> bool:
        assert self._postgresql
        if self._postgresql.process is None:
            return False
        self._postgresql.kill()
        self.servers = time.monotonic()
        self._later(_MOMENT_S, self._start_database)
        return True

    def _start_database(self) -> None:
        assert self._postgresql
        self._postgresql.start()
        self.servers = time.monotonic()

    def _stop_database(self) -> bool:
        assert self._postgresql
        if self._postgresql.process is None:
            return False
        self.servers = time.monotonic()
        self._stop(self._postgresql.processes())
        return True

    def _cut_connection(self) -> bool:
        assert self._postgresql
        connections = self._postgresql.connections()
        if not connections:
            return False
        self.servers = time.monotonic()
        send([self._draw.choice(connections)], signal.SIGTERM)
        return True


def _session(process: psutil.Process) -> int:
    with suppress(ProcessLookupError):
        return os.getsid(process.pid)
    return -1
