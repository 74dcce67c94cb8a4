"""A PostgreSQL server and a Ray cluster of the script's own, which it can kill and start again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from soaking.processes import family, kill, start

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))

_PATIENCE_S = 60.0
"""Seconds after which a server counts as not starting."""


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} does not start")
        time.sleep(0.1)


class PostgreSQL:
    """A server on loopback. Its data are in a folder of the script.

    Args:
        folder: Folder of the server.

    Attributes:
        process: The server. `None` while it does not run.
    """

    def __init__(self, folder: Path) -> None:
        if not _BINARIES:
            raise RuntimeError("PostgreSQL is not installed (apt-get install postgresql)")
        self._folder = folder
        self._port = free_port()
        self.process: psutil.Process | None = None
        folder.mkdir(parents=True)
        # PostgreSQL refuses to run as root: then it runs as the user that its package has made.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
        data = ["--auth=trust", "--username=soak", "--no-sync", "-D", str(folder / "data")]
        subprocess.run([_program("initdb"), *data], check=True, cwd=folder, stdout=subprocess.DEVNULL, **self._as)
        self.start()
        subprocess.run([_program("createdb"), *self._address, "soak"], check=True)

    @property
    def _address(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self._port), "-U", "soak"]

    @property
    def url(self) -> str:
        """URL of the server's database."""
        return f"postgresql://soak@127.0.0.1:{self._port}/soak"

    def start(self) -> None:
        """Start the server, and return when it answers."""
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(self._folder)]
        command = [_program("postgres"), "-D", str(self._folder / "data"), "-p", str(self._port), *options]
        self.process = psutil.Process(start(command, self._folder.parent / "postgresql", **self._as).pid)
        asked = [_program("pg_isready"), "-q", "-t", "2", *self._address]
        _wait(lambda: subprocess.run(asked, check=False).returncode == 0, "PostgreSQL")

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the server."""
        return [self.process, *family(self.process.pid)] if self.process else []

    def connections(self) -> list[psutil.Process]:
        """Return the processes that each serve one connection."""
        return [one for one in self.processes() if "soak soak 127.0.0.1" in " ".join(one.cmdline())]

    def kill(self) -> None:
        """Kill all processes of the server at once."""
        kill(self.processes())
        self.process = None


def _program(name: str) -> str:
    return str(_BINARIES[-1] / name)


class RayCluster:
    """A cluster as a user starts it on the command line: a head without cores, and nodes with one core each.

    Args:
        folder: Folder of the cluster, with a short path: paths of Ray's sockets have at most 107 characters.
        environment: Environment variables of its processes.
        nodes: Number of nodes.
    """

    def __init__(self, folder: Path, environment: dict[str, str], nodes: int) -> None:
        self._folder = folder
        self._environment = environment
        self._port = free_port()
        self._starts = 0
        self.head: psutil.Process | None = None
        self.nodes: list[psutil.Process | None] = [None] * nodes
        self.start()

    @property
    def address(self) -> str:
        """Address of the head."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the head and the nodes."""
        self._starts += 1
        temporary = f"--temp-dir={self._folder}{self._starts}"
        head = ["--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false", temporary]
        self.head = self._ray(*head)
        _wait(self._answers, "Ray")
        for number in range(len(self.nodes)):
            self.start_node(number)

    def start_node(self, number: int) -> None:
        """Start one node."""
        self.nodes[number] = self._ray(f"--address={self.address}", "--num-cpus=1")

    def _ray(self, *options: str) -> psutil.Process:
        program = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1"]
        memory = f"--object-store-memory={256 * 2**20}"
        output = self._folder.parent / "ray"
        return psutil.Process(start([*program, *options, memory], output, env=self._environment).pid)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def processes(self, number: int | None = None) -> list[psutil.Process]:
        """Return the processes of a node, or of the whole cluster if ``number`` is `None`."""
        roots = [self.head, *self.nodes] if number is None else [self.nodes[number]]
        return [one for root in roots if root for one in (root, *family(root.pid))]

    def kill_node(self, number: int) -> None:
        """Kill all processes of a node at once."""
        kill(self.processes(number))
        self.nodes[number] = None

    def kill(self) -> None:
        """Kill all processes of the cluster at once."""
        kill(self.processes())
        self.head, self.nodes = None, [None] * len(self.nodes)
        for start_number in range(1, self._starts + 1):
            shutil.rmtree(f"{self._folder}{start_number}", ignore_errors=True)
