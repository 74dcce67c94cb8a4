"""The dashboard in a real browser: every study with its trials, figures and note, as a user finds them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import get_storage
from optuna_dashboard import wsgi
from waitress.server import create_server

from study.cli import main

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no Chromium with its driver here (apt-get install chromium chromium-driver)"
)
STUDIES = {"grid": 8, "fusion": 8, "ablation": 6}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small study of the demo, served on a free port."""
    folder = tmp_path_factory.mktemp("study")
    arguments = ["--k-audio", "1,2", "--k-text", "1,2", "--seeds", "2", "--epochs", "2", "--workers", "1"]
    assert main([*arguments, "--results", str(folder / "results"), "--plots", str(folder / "plots")]) == 0
    app = wsgi(get_storage(f"sqlite:///{folder / 'results/demo/study.db'}"))
    server = create_server(app, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}/dashboard"
    server.close()
    thread.join(timeout=30)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1900"),
        *("--disable-background-networking", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"),
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


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
        # a button shows another measure
        shown = "document.querySelector('[id=\"user-defined-plot:grid\"]').data.map(t => t.visible)"
        assert browser.execute_script(f"return {shown}") == [True, False, False]
        browser.find_elements("css selector", '[id="user-defined-plot:grid"] .updatemenu-button')[1].click()
        until(f"JSON.stringify({shown}) === '[false,true,false]'")
    browser.get(f"{page}/trials")
    until(f"document.body.innerText.includes('{trials} Trials')")
    until("document.body.innerText.includes('k_audio')")
    assert browser.save_screenshot(str(tmp_path / f"{block}-trials.png"))
    browser.get(f"{page}/note")
    until(f"document.body.innerText.includes('{trials} of {trials} trials of this block are done')")
    assert len(browser.find_elements("css selector", "table")) >= (2 if block != "grid" else 3)
    assert browser.save_screenshot(str(tmp_path / f"{block}-note.png"))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
