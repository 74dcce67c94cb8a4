"""The dashboard in a real browser: every study with its trials, figures and note, as a user finds them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import get_storage
from optuna_dashboard import wsgi
from waitress import wasyncore
from waitress.server import create_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STUDIES = {"grid": 8, "fusion": 8, "ablation": 6}


@pytest.fixture(scope="module")
def address(_small_study: Path) -> Iterator[str]:
    """Serve the small study on a free port."""
    app = wsgi(get_storage(f"sqlite:///{_small_study / 'results/demo/study.db'}"))
    server = create_server(app, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}/dashboard"
    server.close()
    wasyncore.close_all(server._map)  # close the browser's connections too, because the thread would wait for them
    thread.join()


@pytest.fixture
def until(browser: Any) -> Callable[[str], Any]:
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(script: str) -> Any:
        return WebDriverWait(browser, 120).until(lambda driver: driver.execute_script(f"return {script}"), script)

    return wait


def test_the_list_leads_to_every_study(browser: Any, address: str, until: Callable[[str], Any], tmp_path: Path) -> None:
    browser.get(address)
    for block in STUDIES:
        until(f"document.body.innerText.includes('demo/{block} epochs=2')")
    assert browser.save_screenshot(str(tmp_path / "studies.png"))


@pytest.mark.parametrize("number", range(1, 4))
def test_a_study_shows_trials_figures_and_note(
    browser: Any, address: str, until: Callable[[str], Any], tmp_path: Path, number: int
) -> None:
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
