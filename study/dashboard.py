"""The Optuna dashboard on a ledger, served to a browser."""

from __future__ import annotations

import errno
import gc
import logging
import socket
import sys
from collections.abc import Container

from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard import wsgi
from waitress.server import create_server

from cemobam_core.errors import InputError

_PORTS = range(8080, 8100)
"""Tried in turn where the user names none."""

_MANY = 1000
"""Trials of a study above which their single learning curves are left out.

The front page draws a line for each: of 10,000 a browser makes two minutes of work, of the rest eight seconds.
"""


class LeanStorage(_CachedStorage):
    """A database read for the dashboard: what has been read is kept, and of many trials no learning curves."""

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna's; the curves are forgotten here, not in the database."""
        trials = super().get_all_trials(study_id, deepcopy, states)
        if len(trials) > _MANY:
            for trial in trials:
                trial.intermediate_values = {}
        return trials


def serve(storage: BaseStorage, *, host: str, port: int | None) -> None:
    """Serve the dashboard until Ctrl-C.

    Args:
        storage: the ledger.
        host: the address to listen at; one that others reach is warned of.
        port: to listen at; None: the first free one from 8080.

    Raises:
        InputError: there is no such address here, or the port is taken.
    """
    listener = _listener(host, port)
    database = getattr(storage, "_backend", storage)
    if isinstance(database, RDBStorage):
        storage = LeanStorage(database)
    print("reading the ledger …", flush=True)
    _read_once(storage)
    bound = listener.getsockname()
    at = socket.gethostname() if bound[0] in ("0.0.0.0", "::") else bound[0]
    address = f"[{at}]" if ":" in at else at
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a browser asks for much at once, and may wait
    server = create_server(wsgi(storage), sockets=[listener], threads=8)
    print(f"the dashboard is at http://{address}:{bound[1]}/  (Ctrl-C ends it)", flush=True)
    if not bound[0].startswith("127.") and bound[0] != "::1":
        print(
            f"--host {host}: anyone who reaches this port can see the studies, change and delete them; without --host, "
            "and through an SSH tunnel, only this machine can",
            file=sys.stderr,
        )
    try:
        server.run()  # Ctrl-C ends it without a word
    finally:
        server.close()


def _listener(host: str, port: int | None) -> socket.socket:
    for tried in _PORTS if port is None else (port,):
        try:
            family, *_, where = socket.getaddrinfo(host, tried, type=socket.SOCK_STREAM)[0]
            return socket.create_server(where[:2], family=family)
        except socket.gaierror:
            raise InputError(f"--host {host}: no such address; give one of this machine's, as 127.0.0.1") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno == errno.EADDRINUSE:
                raise InputError(f"--port {port}: taken by another program; give another, or leave it out") from None
            raise InputError(f"--host {host} --port {tried}: cannot be listened at ({error.strerror})") from None
    raise InputError(f"the ports {_PORTS[0]} to {_PORTS[-1]} are all taken; give a free one with --port")


def _read_once(storage: BaseStorage) -> None:
    """Read all trials into the storage's cache before the first page asks for them.

    Garbage collection goes through all that is read time and again: of 10,000 trials it takes half of the time.
    """
    gc.disable()
    try:
        for study in storage.get_all_studies():
            storage.get_all_trials(study._study_id, deepcopy=False)
    finally:
        gc.enable()
        gc.freeze()
