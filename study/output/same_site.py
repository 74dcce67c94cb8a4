"""The guard of the dashboard: it refuses the requests that pages of other sites make a browser send.

A browser that shows a page of another site sends requests to this machine for that page, and the dashboard has no
password. Two headers that a page cannot forge say where a request comes from. ``Host`` is the name that the browser
looked up: if another site gives its own name the address of this machine (DNS rebinding), it is that name. ``Origin``
is the site whose page sent the request. See "Host" in RFC 9110, section 7.2, and "Origin" in RFC 6454, section 7.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_READS = ("GET", "HEAD")
"""The methods that change nothing. Every other method counts as a change, also an unknown one."""

_AUTHORITY = re.compile(
    r"(?:\[(?P<address>[0-9a-f.]*:[0-9a-f:.]*)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)

_NEVER_FRAMED = [("X-Frame-Options", "DENY"), ("X-Content-Type-Options", "nosniff")]
"""Headers that keep pages of other sites from showing the dashboard in a frame, where they could guide a click, and
from running its answers as scripts."""

_LONGEST = 100
"""The most characters of a header that an answer repeats."""


class Authority(NamedTuple):
    """A host and a port, as in the header ``Host``.

    Attributes:
        name: Name in lower case without a trailing dot, or address in its usual form.
        port: Port. 80 if none is given.
    """

    name: str
    port: int

    @classmethod
    def of(cls, text: str) -> Authority | None:
        """Return the host and port in a text such as ``localhost:8080`` or ``[::1]:8080``, or `None` if it has none."""
        found = _AUTHORITY.fullmatch(text.lower())
        if found is None:
            return None
        name = found["address"] or found["name"].removesuffix(".")
        address = address_of(name)
        if found["address"] and address is None:
            return None
        return cls(str(address or name), int(found["port"] or 80))

    @property
    def loopback(self) -> bool:
        """Whether this is this machine's own name or address for itself, which no other site can take."""
        address = address_of(self.name)
        return self.name == "localhost" if address is None else address.is_loopback


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a text is, or `None` for a name. An IPv4 address inside an IPv6 one is unpacked."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class SameSite:
    """Passes the requests of an application's own pages on to it, and refuses those of other sites with status 403.

    The header ``Host`` must be one of these:

    - ``localhost`` or a loopback address, with any port: an SSH tunnel may have another port;
    - the address or name that the server listens at, with its port;
    - if the server listens at more than loopback, any IP address and the name of this machine, with its port. Another
      site can give its own name any address, but it cannot take an address as its name.

    The header ``Origin`` must name the same host and port. A request that can change something must have it. A request
    for reading has none if it is sent by the dashboard's own pages, and ``Sec-Fetch-Site`` then shows those of other
    sites in the browsers that send it. A link to the dashboard from another site works.

    Args:
        application: The application.
        host: The name or address at which the user asked the server to listen.
        address: The address at which it listens.
        port: The port at which it listens.
        read_only: Whether every request is refused that can change something.
    """

    def __init__(
        self, application: WSGIApplication, *, host: str, address: str, port: int, read_only: bool = False
    ) -> None:
        self._application = application
        self._port = port
        self._read_only = read_only
        bound = address_of(address)
        self._open = bound is not None and not bound.is_loopback
        names = [host, address, *([socket.gethostname(), socket.getfqdn()] if self._open else ())]
        self._names = {str(address_of(name) or name.lower().removesuffix(".")) for name in names}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, as in PEP 3333."""
        refusal = self.refusal(environ)
        if refusal is None:

            def unframed(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
                return start_response(status, [*headers, *_NEVER_FRAMED], *more)

            return self._application(environ, unframed)
        body = f"Refused: {refusal}\n".encode()
        about = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", [*about, *_NEVER_FRAMED])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def refusal(self, environ: WSGIEnvironment) -> str | None:
        """Return one line that says why a request is refused, or `None` if it is not."""
        host = Authority.of(environ.get("HTTP_HOST", ""))
        if host is None or not self._is_ours(host):
            return (
                f"the dashboard does not answer to the host {_told(environ.get('HTTP_HOST'))}; open it at the address "
                "that it printed, or at localhost through an SSH tunnel, or start it with --host and that name"
            )
        method, target = environ["REQUEST_METHOD"], environ.get("REQUEST_URI", "/")
        if not target.startswith("/") and (method, target) != ("OPTIONS", "*") and not _is_at(target, host):
            return f"the request is for {_told(target)}, which is not at the host {_told(environ['HTTP_HOST'])}"
        if self._read_only and method not in _READS:
            return (
                f"{_told(method)} could change a study, and this dashboard is read-only; start it without --read-only"
            )
        return _foreign(environ, host)

    def _is_ours(self, host: Authority) -> bool:
        if host.loopback:
            return True
        known = host.name in self._names or (self._open and address_of(host.name) is not None)
        return known and host.port == self._port


def _foreign(environ: WSGIEnvironment, host: Authority) -> str | None:
    """Return one line if a request was not sent by a page at ``host``, or `None`."""
    origin, method = environ.get("HTTP_ORIGIN"), environ["REQUEST_METHOD"]
    if origin is not None and not _is_at(origin, host):
        return f"a page of {_told(origin)} sent this request; only the dashboard's own pages may"
    if origin is None and method not in _READS:
        return f"{_told(method)} without the header Origin; only the dashboard's own pages can change a study"
    if origin is None and not _fetched_here(environ):
        return "a page of another site sent this request; only the dashboard's own pages may"
    return None


def _is_at(url: str, host: Authority) -> bool:
    """Return whether a URL, or an origin, is one of this host and port."""
    scheme, _, rest = url.partition("://")
    return scheme.lower() == "http" and Authority.of(re.split("[/?#]", rest, maxsplit=1)[0]) == host


def _fetched_here(environ: WSGIEnvironment) -> bool:
    """Return whether a request without ``Origin`` is the dashboard's own, or opens it in a window of its own.

    Browsers send these headers to this machine itself and over HTTPS. Other programs do not send them.
    """
    if environ.get("HTTP_SEC_FETCH_SITE", "none") in {"none", "same-origin"}:
        return True
    mode, place = environ.get("HTTP_SEC_FETCH_MODE"), environ.get("HTTP_SEC_FETCH_DEST")
    return (mode, place) == ("navigate", "document")


def _told(text: str | None) -> str:
    """Return a header for a message: in one line, in ASCII, and not long."""
    if text is None:
        return "(none)"
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return ascii(shown)
