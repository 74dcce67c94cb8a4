"""The dashboard in a real browser: every study with its trials, figures and note, as a user finds them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waitress import wasyncore
from waitress.server import create_server

from study.ledger.ledger import Ledger
from study.output.dashboard import make_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STUDIES = {"grid": 8, "fusion": 8, "ablation": 6}


@pytest.fixture(scope="module", params=["as usual", "read-only"])
def address(_small_study: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve the small study on a free port."""
    ledger = Ledger(f"sqlite:///{_small_study / 'results/demo/study.db'}", name="")
    listener = socket.create_server(("127.0.0.1", 0))
    server = make_server(ledger.storage, listener, url="", host="127.0.0.1", read_only=request.param == "read-only")
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/dashboard"
    server.close()
    wasyncore.close_all(server._map)  # close the browser's connections too, because the thread would wait for them
    thread.join()


def test_the_list_leads_to_every_study(browser: Any, address: str, until: Callable[[str], Any], tmp_path: Path) -> None:
    browser.get(address)
    for block in STUDIES:
        until(f"document.body.innerText.includes('demo/{block} epochs=2')")
    assert browser.save_screenshot(str(tmp_path / "studies.png"))


@pytest.mark.parametrize("number", range(1, 4))
def test_a_study_shows_trials_figures_and_note(
    browser: Any, address: str, until: Callable[[str], Any], tmp_path: Path, number: int
) -> None:
    browser.get_log("browser")  # what another test left there
    block, trials = list(STUDIES.items())[number - 1]
    page = f"{address}/studies/{number}"
    browser.get(page)
    until(f"document.body.innerText.includes('demo/{block} epochs=2')")
    for plot in (block, "learning-curves"):
        until(f"document.querySelector('[id=\"user-defined-plot:{plot}\"] .main-svg') !== null")
        element = browser.find_element("css selector", f'[id="user-defined-plot:{plot}"]')
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        assert "demo (synthetic)" in element.text
        assert element.screenshot(str(tmp_path / f"{block}-{plot}.png"))
    if block == "grid":
        until("document.querySelector('[id=\"user-defined-plot:grid\"] .heatmaplayer image') !== null")
        # a button shows another measure: its colours and its numbers
        shown = "document.querySelector('[id=\"user-defined-plot:grid\"]').data.map(t => t.visible)"
        assert browser.execute_script(f"return {shown}") == [True, True, *[False] * 6]
        # no attribute makes the page wider than the window
        assert browser.execute_script("return document.body.scrollWidth <= innerWidth")
        browser.find_elements("css selector", '[id="user-defined-plot:grid"] .updatemenu-button')[1].click()
        until(f"JSON.stringify({shown}) === '[false,false,true,true,false,false,false,false]'")
    browser.get(f"{page}/trials")
    until(f"document.body.innerText.includes('{trials} Trials')")
    until("document.body.innerText.includes('k_audio')")
    assert browser.save_screenshot(str(tmp_path / f"{block}-trials.png"))
    browser.get(f"{page}/note")
    until(f"document.body.innerText.includes('{trials} of {trials} trials of this block are done')")
    assert len(browser.find_elements("css selector", "table")) >= (2 if block != "grid" else 3)
    assert browser.save_screenshot(str(tmp_path / f"{block}-note.png"))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


ASK = """
const [path, method, content, tell] = arguments;
const options = content ? {method, headers: {'Content-Type': 'application/json'}, body: content} : {method};
fetch(path, options).then(answer => answer.text().then(text => tell([answer.status, text])), () => tell('no answer'));
"""
OLD_NOTE = '{"version": 0, "body": "x"}'
"""A note that the dashboard answers with a conflict, because its version is too old."""


def test_its_own_page_may_change_a_study_and_a_page_of_another_site_may_not(
    browser: Any, address: str, until: Callable[[str], Any], request: pytest.FixtureRequest
) -> None:
    def asked(path: str, method: str, content: str = "") -> Any:
        return browser.execute_async_script(ASK, path, method, content)

    browser.get(address)
    status, text = asked("/api/studies/1/note", "PUT", OLD_NOTE)
    assert (status, "read-only" in text) == ((403, True) if "read-only" in request.node.name else (409, False))
    # a name of another site that leads to this machine
    at = address.removeprefix("http://127.0.0.1")
    browser.get(f"http://rebound.example{at}")
    until("document.body.innerText.startsWith('Refused: the dashboard does not answer to the host')")
    for path, method in (("/api/studies", "GET"), ("/api/studies/1", "DELETE"), ("/api/studies/1/note", "PUT")):
        status, text = asked(path, method)
        assert status == 403
        assert "'rebound.example:" in text
    # a page at another port of this machine: it gets no answer, but its link works
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def page(_: object, start_response: Callable[..., object]) -> list[bytes]:
            start_response("200 OK", [])
            return [f"<a href='{address}'>link</a><iframe src='{address}'></iframe>".encode()]

        elsewhere = create_server(page, sockets=[listener])
        thread = threading.Thread(target=elsewhere.run, daemon=True)
        thread.start()
        browser.get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        assert asked(f"{address.removesuffix('dashboard')}api/studies", "GET") == "no answer"
        assert asked(f"{address.removesuffix('dashboard')}api/studies/1", "DELETE") == "no answer"
        browser.switch_to.frame(0)
        assert "Optuna" not in browser.page_source
        browser.switch_to.default_content()
        browser.find_element("css selector", "a").click()
        until("document.body.innerText.includes('demo/grid epochs=2')")
        elsewhere.close()
        wasyncore.close_all(elsewhere._map)
        thread.join()
