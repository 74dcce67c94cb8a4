"""A PostgreSQL server for the tests, from the system's packages."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import sqlalchemy

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
BINARIES = _BINARIES[-1] if _BINARIES else None


class PostgreSQL:
    """A server on loopback, with its data in a temporary folder.

    PostgreSQL refuses to run as root: then it runs as the user that its package has made.
    """

    def __init__(self) -> None:
        assert BINARIES
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(self._folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "--auth=trust", "--username=tester", "--no-sync", "-D", str(self._data))
        self.start()
        self._names = itertools.count()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        assert BINARIES
        done = subprocess.run(
            [*self._as, str(BINARIES / program), *arguments],
            check=False,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._folder / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once and cut its connections, as in a power failure."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"study{next(self._names)}"
        engine = sqlalchemy.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"create database {name}"))
        engine.dispose()
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://tester:secret-word@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)
