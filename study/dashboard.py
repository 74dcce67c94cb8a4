"""The Optuna dashboard on a ledger, served to a browser."""

from __future__ import annotations

import errno
import gc
import logging
import socket
import sys

import optuna
from optuna.storages import BaseStorage
from optuna_dashboard import wsgi
from waitress.server import create_server

from cemobam_core.errors import InputError

_PORTS = range(8080, 8100)
"""Tried in turn where the user names none."""


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
    storage = optuna.storages.get_storage(storage)  # with a cache: only what is new is read again
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
