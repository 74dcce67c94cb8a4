"""Kill, stop and restart everything at random while studies run, and compare the results with an undisturbed study.

    python benchmarks/soak.py [--minutes 60] [--seed 0] [--setups NAME,NAME]

Runs ``run_grid.py`` on the demo (132 short trials) over and over, in one setup after another: a storage, an engine and
a number of drivers that share the ledger. Drivers, workers, Ray's processes and nodes, and the PostgreSQL server get
SIGKILL, SIGTERM, SIGINT, SIGHUP or SIGSTOP at random moments. Some drivers are stopped until their leases expire.
What has ended is started again. After a number of disturbances, the study may run to its end. Then the script counts
the trials that are lost or doubled in the storage, the values in the tables that differ from those of an undisturbed
run, and the processes, temporary files and leases that are left. It also counts bad ends: a traceback, an unexpected
exit status, or a study that does not end. The exit status is 1 if there is any of these.

The script signals only processes that it started itself, and what these started. It needs Linux, and PostgreSQL and
Ray for some of the setups.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from soaking.drivers import Driver
from soaking.events import Events
from soaking.processes import adopt_orphans, bury, family, is_ray_worker, kill, words
from soaking.results import Row, differing, doubled, leases, lost, rows, vanished
from soaking.servers import PostgreSQL, RayCluster

SETUPS = (
    "sqlite-local-1",
    "journal-local-2",
    "postgresql-local-3",
    "sqlite-ray-1",
    "postgresql-cluster-2",
    "journal-local-3",
    "postgresql-local-1",
    "journal-cluster-1",
    "postgresql-local-2",
)
"""Storage, engine and number of drivers. The engine ``ray`` is a cluster that each driver starts; a ``cluster`` was
started before, with two nodes."""

STUDY = ["--k-audio", "1:4", "--k-text", "1:4", "--seeds", "6", "--epochs", "10", "--device", "cpu"]

_BETWEEN = {"local": 1 / 8, "ray": 1 / 3, "cluster": 1 / 5}
"""Mean time between two events, as a share of the time of an undisturbed study. Ray takes longer to start."""

_HANGS_S = 240.0
"""Seconds after the last event, or the last end of a driver, after which a study counts as hanging."""

_LEAVES_S = 40.0
"""Seconds in which all processes of a study must end after its last driver."""

_CACHE = "torchinductor"
"""Beginning of the name of torch's own cache, which stays in the folder for temporary files for the next program."""


@dataclass
class Tally:
    """The results of all studies of one setup."""

    studies: int = 0
    trials: int = 0
    restarts: int = 0
    events: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    leftovers: list[str] = field(default_factory=list)
    bad_ends: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """Everything that is wrong."""
        counted = {"lost": self.lost, "doubled": self.doubled, "differing": self.differing}
        return [*self.leftovers, *self.bad_ends, *(f"{n} {what}" for what, n in counted.items() if n)]


class Soak:
    """All studies of one run of the script.

    Args:
        folder: Folder of everything that the script and its studies write.
        draw: Source of randomness.
    """

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self._folder = folder
        self._draw = draw
        self._temporary = folder / "t"
        home = folder / "home"
        for new in (self._temporary, home):
            new.mkdir()
        self._environment = os.environ | {"TMPDIR": str(self._temporary), "HOME": str(home), "RAY_TMPDIR": str(folder)}
        self._server: PostgreSQL | None = None
        self._pids: set[int] = set()
        self._number = 0
        self._expected: list[Row] = []
        self._seconds = 0.0

    def undisturbed(self) -> int:
        """Run the study without disturbances, and return its number of trials."""
        driver = Driver(0, [*STUDY, "--name", "undisturbed"], self._folder, self._environment)
        begun = time.monotonic()
        driver.start()
        assert driver.process
        assert driver.process.wait() == 0, "the undisturbed study fails"
        self._seconds = time.monotonic() - begun
        self._expected = rows(f"sqlite:///{self._folder}/results/undisturbed/study.db", "undisturbed")
        return len(self._expected)

    def disturbed(self, setup: str, tally: Tally) -> None:
        """Run one study with disturbances, and add what came of it to the tally of its setup."""
        kind, engine, drivers = setup.split("-")
        self._number += 1
        name = f"study{self._number}"
        folder = self._folder / name
        folder.mkdir()
        server = self._postgresql() if kind == "postgresql" else None
        storage = server.url if server else f"{kind}:///{self._folder}/{kind}-{engine}-{drivers}.ledger"
        with self._cluster(engine) as cluster:
            workers = "2" if drivers == "1" or cluster else "1"  # on a cluster, the drivers compete for its two cores
            common = [*STUDY, "--name", name, "--storage", storage, "--workers", workers]
            if engine != "local":
                common += ["--engine", "ray", *(["--ray-address", cluster.address] if cluster else [])]
            runs = [
                Driver(number, [*common, *self._results(kind, number)], folder, self._environment)
                for number in range(int(drivers))
            ]
            events = Events(self._draw, runs, server, cluster, folder / "events.log")
            wrong, seen = self._run(runs, events, _BETWEEN[engine] * self._seconds, storage, name)
            tally.bad_ends += [f"{setup}, {name}: {one}" for one in wrong]
            tally.events += events.counts
            tally.restarts += sum(driver.runs - 1 for driver in runs)
            if all(driver.complete for driver in runs):
                found = rows(storage, name)
                tally.studies += 1
                tally.trials += len({(row.block, row.signature) for row in found if row.done})
                tally.lost += lost(self._expected, found) + vanished(seen, found)
                tally.doubled += doubled(found)
                expected = self._folder / "results" / "undisturbed"
                folders = {folder / self._results(kind, driver.number)[1] / name for driver in runs}
                tally.differing += sum(differing(expected, one) for one in folders)
            left = self._leftovers(folder, cluster)
            entered = leases(storage) if all(driver.complete for driver in runs) else 0
            tally.leftovers += [f"{setup}, {name}: {one}" for one in left + ["a lease"] * entered]

    def _run(
        self, drivers: list[Driver], events: Events, between: float, storage: str, name: str
    ) -> tuple[list[str], set[Row]]:
        """Run and disturb a study to its end, and return the bad ends of its drivers and all rows seen before it."""
        left = self._draw.randint(6, 14)
        start = {driver: time.monotonic() + self._draw.uniform(0, 3) for driver in drivers}
        following = time.monotonic() + self._draw.expovariate(1 / between)
        wrong: list[str] = []
        seen: set[Row] = set()
        last = time.monotonic()
        while not all(driver.complete for driver in drivers) or events.pending:
            time.sleep(0.1)
            bury()
            self._pids |= {process.pid for process in family()}
            now = time.monotonic()
            events.due()
            for driver in drivers:
                if driver in start and start[driver] <= now:
                    del start[driver]
                    driver.start()
                if ended := driver.ended(workers=events.workers, servers=events.servers):
                    last = now
                    status, complaint = ended
                    events.note(f"driver {driver.number} ends with {status} {complaint}")
                    wrong += [complaint] if complaint else []
                    if not driver.complete:
                        start[driver] = now + self._draw.uniform(0, 3)
                    if not events.pending:
                        seen |= set(rows(storage, name))
            if left and now > following:
                left -= 1
                last = now
                events.happen()
                following = time.monotonic() + self._draw.expovariate(1 / between)
            if events.pending:
                last = now
            if now - last > _HANGS_S:
                wrong.append("the study hangs")
                kill([psutil.Process(driver.process.pid) for driver in drivers if driver.process])
                break
        return wrong, seen

    def _leftovers(self, folder: Path, cluster: RayCluster | None) -> list[str]:
        """Return the processes and files that a study has left, and remove them."""
        deadline = time.monotonic() + _LEAVES_S
        while (processes := self._left_processes(cluster)) and time.monotonic() < deadline:
            time.sleep(0.2)
            bury()
        left = [f"process {process.pid}: {words(process)[:120]}" for process in processes]
        kill(processes)
        files = [path for path in self._temporary.glob("*") if not path.name.startswith(_CACHE)]
        files += [*folder.rglob("*.part*"), *self._folder.glob("journal-*.lock*")]
        files += [path for path in Path("/dev/shm").glob("torch_*") if int(path.name.split("_")[1]) in self._pids]
        for path in files:
            left.append(f"file {path}")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return left

    def _left_processes(self, cluster: RayCluster | None) -> list[psutil.Process]:
        servers = self._server.processes() if self._server else []
        nodes = cluster.processes() if cluster else []
        others = [process for process in family() if process not in servers and process not in nodes]
        return others + [process for process in nodes if is_ray_worker(process)]

    def _results(self, kind: str, driver: int) -> list[str]:
        """Return the options for the results of a driver: runs over a journal file share the folder too."""
        number = "" if kind == "journal" else str(driver)
        return ["--results", f"results{number}", "--plots", f"plots{number}"]

    def _postgresql(self) -> PostgreSQL:
        self._server = self._server or PostgreSQL(self._folder / "postgresql")
        return self._server

    @contextmanager
    def _cluster(self, engine: str) -> Iterator[RayCluster | None]:
        if engine != "cluster":
            yield None
            return
        temporary = self._folder / "of-ray"  # what the nodes leave when they are killed is Ray's own
        temporary.mkdir(exist_ok=True)
        cluster = RayCluster(self._folder / "ray", self._environment | {"TMPDIR": str(temporary)}, nodes=2)
        try:
            yield cluster
        finally:
            cluster.kill()


def table(tallies: dict[str, Tally]) -> str:
    """Return the table of all setups, in Markdown."""
    lines = [
        "| setup | studies | drivers started again | events | trials | lost | doubled | differing values | leftovers "
        "| bad ends |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for setup, one in tallies.items():
        events = ", ".join(f"{n} {kind}" for kind, n in sorted(one.events.items()))
        cells = [setup, one.studies, one.restarts, f"{one.events.total()}: {events}", one.trials, one.lost, one.doubled]
        lines.append(f"| {' | '.join(map(str, [*cells, one.differing, len(one.leftovers), len(one.bad_ends)]))} |")
    return "\n".join(lines)


def main(minutes: float, seed: int, setups: list[str]) -> int:
    """Run studies until the time is up, print the table, and return the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="soak", dir="/tmp"))  # a short path, for the sockets of Ray
    folder.chmod(0o711)  # for the user that PostgreSQL runs as
    adopt_orphans()
    tallies = {setup: Tally() for setup in setups}
    try:
        soak = Soak(folder, random.Random(seed))
        print(f"{folder}: {soak.undisturbed()} trials, undisturbed", flush=True)
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            for setup, tally in tallies.items():
                if time.monotonic() < end:
                    begun, events = time.monotonic(), tally.events.total()
                    soak.disturbed(setup, tally)
                    took, events = time.monotonic() - begun, tally.events.total() - events
                    print(f"{setup}: {events} events, {took:.0f} s", *tally.wrong, sep="\n  ", flush=True)
    finally:
        kill(family())
    print(f"\n{table(tallies)}")
    if any(tally.wrong for tally in tallies.values()):
        print(f"see {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="start no study after this time (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the disturbances (default: 0)")
    parser.add_argument("--setups", default=",".join(SETUPS), help="setups in turn (default: %(default)s)")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that everything that was started ends too
    sys.exit(main(given.minutes, given.seed, given.setups.split(",")))
