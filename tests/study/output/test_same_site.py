"""Which requests the dashboard's server answers: forged ones, as they come from a socket, and its own pages'."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna_dashboard
import pytest
from invented import FakeEngine, demo_facts, demo_plan, demo_utterances
from waitress import wasyncore

from study.driver import StudyRun
from study.ledger.ledger import Ledger
from study.output.dashboard import make_server
from study.output.same_site import Authority, SameSite

READS = ("GET", "HEAD")
CHANGES = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PROPFIND", "X-OWN")
FOREIGN = ("http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://localhost:{port}")
FOREIGN += ("http://127.0.0.1:{port}.evil.example", "http://127.0.0.1:{port}@evil.example", "file://", "")


@contextmanager
def served(storage: Any, *, host: str = "127.0.0.1", read_only: bool = False) -> Iterator[int]:
    """Serve a ledger in a thread, and yield the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    server = make_server(storage, listener, url="", host=host, read_only=read_only)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.close()
    wasyncore.close_all(server._map)
    thread.join()


def raw(port: int, *lines: str, body: str = "", at: str = "127.0.0.1") -> tuple[int, str]:
    """Send these lines and this body as a request, and return the status and the body of the answer."""
    length = [f"Content-Length: {len(body)}"] if body else []
    with socket.create_connection((at, port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, *length, "Connection: close", "", body]).encode("latin-1"))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def recorded_study(storage: str) -> Ledger:
    ledger = Ledger(storage, name="demo")
    ledger.open(demo_facts(), demo_utterances(1))
    StudyRun(demo_plan(), ledger, demo_facts()).run(FakeEngine(), lambda *_: None)
    return ledger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return recorded_study(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'study.db'}")


@pytest.fixture(scope="module")
def port(ledger: Ledger) -> Iterator[int]:
    with served(ledger.storage) as port:
        yield port


def studies(ledger: Ledger) -> int:
    return len(ledger.storage.get_all_studies())


def refused(answer: tuple[int, str]) -> str:
    status, body = answer
    assert status == 403
    assert body.startswith("Refused: ")
    assert body.count("\n") == 1
    assert body.endswith("\n")
    assert body.isascii()
    return body


def test_a_page_of_another_site_deletes_nothing(ledger: Ledger, port: int) -> None:
    before = studies(ledger)
    for origin in FOREIGN:
        line = f"Origin: {origin.format(port=port)}"
        answer = raw(port, "DELETE /api/studies/3 HTTP/1.1", f"Host: 127.0.0.1:{port}", line)
        assert "sent this request" in refused(answer)
    assert "without the header Origin" in refused(
        raw(port, "DELETE /api/studies/3 HTTP/1.1", f"Host: localhost:{port}")
    )
    assert studies(ledger) == before
    own = f"Origin: http://127.0.0.1:{port}"
    assert raw(port, "DELETE /api/studies/3 HTTP/1.1", f"Host: 127.0.0.1:{port}", own) == (204, "")
    assert studies(ledger) == before - 1


@pytest.mark.parametrize("method", [*READS, *CHANGES])
def test_a_forged_host_or_origin_gets_no_answer_by_any_method(port: int, method: str) -> None:
    def ask(*headers: str, path: str = "/api/studies") -> tuple[int, str]:
        return raw(port, f"{method} {path} HTTP/1.1", *headers)

    def check(answer: tuple[int, str]) -> None:
        if method == "HEAD":
            assert answer == (403, "")
        else:
            refused(answer)

    own = f"127.0.0.1:{port}"
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "[::1"):
        check(ask(f"Host: {host}", f"Origin: http://{host}"))
        check(ask(f"Host: {host}"))
    check(ask())
    check(ask("Host:"))
    check(ask(f"Host: {own}", "Origin: http://evil.example"))
    check(ask(f"Host: {own}", f"Host: {own}", f"Origin: http://{own}"))
    check(ask("Host: evil.example", f"Host: {own}", f"Origin: http://{own}"))
    check(ask(f"Host: {own}", f"Origin: http://{own}", "Origin: http://evil.example"))
    check(ask(f"Host: {own}", f"Origin: http://{own}", path=f"http://evil.example:{port}/api/studies"))
    check(ask(f"Host: evil.example:{port}", f"Origin: http://{own}", path=f"http://{own}/api/studies"))
    check(ask(f"Host: {own}", f"Origin: http://{own}", path=f"https://{own}/api/studies"))
    check(ask(f"Host: {own}", f"X-Forwarded-Host: {own}", "Origin: http://evil.example"))
    check(ask("Host: evil.example", f"X-Forwarded-Host: {own}", f"Forwarded: host={own}"))
    status, _ = ask(f"Host: {own}", f"Origin: http://{own}")
    assert (status == 200) is (method in READS)
    assert status != 403


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "localhost.:{port}", "localhost:9000"),
        *("127.0.0.1:9000", "127.0.0.1", "127.1.2.3:{port}", "[::1]:{port}", "[::1]", "[0:0:0:0:0:0:0:1]:{port}"),
        *("localhost", "[::ffff:127.0.0.1]:{port}", "[::FFFF:7f00:1]:1"),
    ],
)
def test_this_machine_answers_to_its_own_names_by_any_port(port: int, host: str) -> None:
    host = host.format(port=port)
    assert raw(port, "GET /api/studies HTTP/1.1", f"Host: {host}")[0] == 200
    assert raw(port, "GET /api/studies HTTP/1.1", f"Host: {host}", f"Origin: HTTP://{host.upper()}")[0] == 200
    assert raw(port, f"GET http://{host}/api/studies HTTP/1.1", f"Host: {host}")[0] == 200
    changed = (f"Host: {host}", f"Origin: http://{host}", "Content-Type: application/json")
    answer = raw(port, "POST /api/studies HTTP/1.1", *changed, body="{}")
    assert "set study_name" in answer[1]  # the application answers


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:", "127.0.0.1:x", "127.0.0.1:80:80", "127.0.0.1:٣", "a b", "localhost..", ".localhost", "::1"),
        *("[::1]x", "[127.0.0.1]", "[localhost]", "[::g]", "127.1", "0x7f.0.0.1", "2130706433", "127.0.0.01"),
        *("0.0.0.0:{port}", "10.0.0.1:{port}", "[2001:db8::1]:{port}", "user@127.0.0.1:{port}", "127.0.0.1/x"),
        *("127.0.0.1#", "*", "x" * 500),
    ],
)
def test_other_hosts_are_refused(port: int, host: str) -> None:
    host = host.format(port=port).encode().decode("latin-1")
    answer = refused(raw(port, "GET / HTTP/1.1", f"Host: {host}"))
    assert "localhost through an SSH tunnel" in answer
    assert len(answer) < 500


@pytest.mark.parametrize(
    ("site", "mode", "place", "status"),
    [
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),  # a link
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "no-cors", "script", 403),
        ("same-site", "no-cors", "image", 403),  # another port of this machine
        ("none, same-origin", "cors", "empty", 403),
    ],
)
def test_reads_for_a_page_of_another_site(port: int, site: str, mode: str, place: str, status: int) -> None:
    told = (f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {place}")
    answer = raw(port, "GET /api/studies HTTP/1.1", f"Host: localhost:{port}", *told)
    assert answer[0] == status
    changed = raw(port, "DELETE /api/studies/99 HTTP/1.1", f"Host: localhost:{port}", *told)
    assert changed[0] == 403


def test_no_page_of_another_site_can_frame_it(port: int) -> None:
    for path, status in (("/dashboard", 200), ("/api/studies", 200), ("/nothing", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == status
        assert answer.getheader("X-Frame-Options") == "DENY"
        connection.close()


@pytest.mark.parametrize(
    ("given", "address", "host", "answered"),
    [
        ("0.0.0.0", "0.0.0.0", "10.1.2.3:8080", True),
        ("0.0.0.0", "0.0.0.0", "[2001:db8::1]:8080", True),
        ("0.0.0.0", "0.0.0.0", "localhost:9000", True),  # a tunnel from a login node
        ("0.0.0.0", "0.0.0.0", "10.1.2.3:9000", False),
        ("0.0.0.0", "0.0.0.0", "This-Machine:8080", True),
        ("0.0.0.0", "0.0.0.0", "this-machine.lab.example.:8080", True),
        ("0.0.0.0", "0.0.0.0", "this-machine:80", False),
        ("0.0.0.0", "0.0.0.0", "this-machine.evil.example:8080", False),
        ("::", "::", "[::1]:8080", True),
        ("::", "::", "10.1.2.3:8080", True),
        ("Node7", "10.1.2.3", "node7:8080", True),
        ("Node7", "10.1.2.3", "node8:8080", False),
        ("node7", "127.0.1.1", "node7:8080", True),  # as Debian's /etc/hosts has it
        ("node7", "127.0.1.1", "10.1.2.3:8080", False),
        ("node7", "127.0.1.1", "this-machine:8080", False),
        ("::1", "::1", "[::1]:1", True),
    ],
)
def test_where_it_listens_decides_on_its_hosts(
    monkeypatch: pytest.MonkeyPatch, given: str, address: str, host: str, answered: bool
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "this-machine")
    monkeypatch.setattr(socket, "getfqdn", lambda: "this-machine.lab.example")
    guard = SameSite(lambda *_: [], host=given, address=address, port=8080)
    refusal = guard.refusal({"REQUEST_METHOD": "GET", "HTTP_HOST": host, "REQUEST_URI": "/"})
    assert (refusal is None) is answered
    told = {"REQUEST_METHOD": "PUT", "HTTP_HOST": host, "REQUEST_URI": "/", "HTTP_ORIGIN": f"http://{host}"}
    assert (guard.refusal(told) is None) is answered
    assert guard.refusal({**told, "HTTP_ORIGIN": "http://evil.example"})


def test_it_listens_on_ipv6_too(ledger: Ledger) -> None:
    with served(ledger.storage, host="::1") as port:
        assert raw(port, "GET /api/studies HTTP/1.1", f"Host: [::1]:{port}", at="::1")[0] == 200
        refused(raw(port, "GET /api/studies HTTP/1.1", f"Host: evil.example:{port}", at="::1"))


def test_hosts_that_mean_the_same_are_the_same() -> None:
    assert Authority.of("LOCALHOST.") == Authority("localhost", 80) == Authority.of("localhost:80")
    assert Authority.of("[0::1]:8080") == Authority("::1", 8080)
    assert Authority.of("[::ffff:10.0.0.1]") == Authority("10.0.0.1", 80)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_read_only_nothing_can_be_changed_and_viewing_writes_nothing(tmp_path: Path, kind: str) -> None:
    recorded_study(f"{kind}:///{tmp_path / 'study'}")
    before = files(tmp_path)
    storage = Ledger(f"{kind}:///{tmp_path / 'study'}", name="").storage
    numbers = [study._study_id for study in storage.get_all_studies()]
    ways = {(route.method, route.rule) for route in optuna_dashboard.wsgi(storage).routes}
    changing = {way for way in ways if way[0] not in READS}
    assert {method for method, _ in changing} == {"POST", "PUT", "DELETE"}
    body = json.dumps({"study_name": "mine", "directions": ["maximize"], "version": 1, "body": "x", "state": 1})
    with served(storage, read_only=True) as port:
        own = (f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}", "Content-Type: application/json")
        for method, rule in [*sorted(changing), *((method, "/api/studies/1") for method in CHANGES)]:
            path = rule.replace("<study_id:int>", "1").replace("<trial_id:int>", "1")
            assert "is read-only" in refused(raw(port, f"{method} {path} HTTP/1.1", *own, body=body))
        for method in READS:
            pages = ("/dashboard", "/api/meta", "/api/studies", "/csv/1", "/api/studies/1/plot/slice")
            for page in (*pages, "/api/studies/1/param_importances", *(f"/api/studies/{i}" for i in numbers)):
                assert raw(port, f"{method} {page} HTTP/1.1", own[0])[0] == 200, page
    assert files(tmp_path) == before


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the files of a folder, with the time of their last change."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_large_request_is_refused_before_it_is_kept(port: int) -> None:
    own = (f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}")
    assert raw(port, "PUT /api/studies/1/note HTTP/1.1", *own, f"Content-Length: {2**19}")[0] == 413
