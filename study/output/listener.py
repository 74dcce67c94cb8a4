"""A socket for a page that is served on this machine."""

from __future__ import annotations

import errno
import socket

from cemobam_core.errors import InputError

PORTS = range(8080, 8100)
"""Ports that are tried if none is given."""


def listener(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: The address to listen at.
        port: The port. `None` for the first free one from 8080.

    Raises:
        InputError: This machine has no such address, or the port is taken.
    """
    for tried in PORTS if port is None else (port,):
        try:
            family, *_, where = socket.getaddrinfo(host, tried, type=socket.SOCK_STREAM)[0]
            return socket.create_server(where[:2], family=family)
        except socket.gaierror:
            raise InputError(
                f"--host {host}: no such address; give an address of this machine, such as 127.0.0.1"
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno == errno.EADDRINUSE:
                raise InputError(
                    f"--port {port}: another program uses this port; give another one, or leave the option out"
                ) from None
            raise InputError(
                f"--host {host} --port {tried}: cannot listen there ({error.strerror}); give another address or port"
            ) from None
    raise InputError(f"the ports {PORTS[0]} to {PORTS[-1]} are all in use; give a free one with --port")
