"""Take the pictures of the report and of the dashboard that the documents show, with headless Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from cemobam_core.files import written_atomically

_PATIENCE_S = 120
_SIZE = (1280, 1000)
"""Width and height of the browser's window in pixels."""
_FIGURE = "[id='user-defined-plot:grid']"
"""The K grid on the dashboard's page of a study."""


def missing() -> list[str]:
    """Return the programs that taking pictures needs and that are not installed."""
    return [program for program in ("chromium", "chromedriver") if not shutil.which(program)]


def take(study: Path, folder: Path) -> None:
    """Take ``report.png`` and ``dashboard.png`` of a finished study.

    Args:
        study: Folder with the ledger and the report of the study, ``results/NAME``.
        folder: Folder to which the pictures are written.
    """
    with _browser() as browser:
        browser.get(f"{(study / 'report.html').resolve().as_uri()}#claims")
        _save(browser, folder / "report.png")
        with _dashboard(study) as address:
            browser.get(f"{address}dashboard/studies/1")
            drawn = f'return document.querySelector("{_FIGURE} .heatmaplayer image") !== null'
            WebDriverWait(browser, _PATIENCE_S).until(lambda driver: driver.execute_script(drawn))
            browser.execute_script(f'document.querySelector("{_FIGURE}").scrollIntoView({{block: "end"}})')
            _save(browser, folder / "dashboard.png")


def _save(browser: webdriver.Chrome, path: Path) -> None:
    with written_atomically(path) as temporary:
        temporary.write_bytes(browser.get_screenshot_as_png())


@contextmanager
def _browser() -> Iterator[webdriver.Chrome]:
    """Chromium with a window of the pictures' size and a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
            *("--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"),
            f"--window-size={_SIZE[0]},{_SIZE[1]}",
        ):
            options.add_argument(argument)
        driver = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(executable_path=str(shutil.which("chromedriver")))
        )
        try:
            yield driver
        finally:
            driver.quit()


@contextmanager
def _dashboard(study: Path) -> Iterator[str]:
    """Serve a study with ``cemobam dashboard`` and yield its address."""
    command = "import sys; from study.commands import cemobam; sys.exit(cemobam())"
    asked = ["dashboard", "--results", str(study.parent), "--name", study.name]
    with subprocess.Popen([sys.executable, "-c", command, *asked], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            lines = (re.search(r"http://\S+/", line) for line in server.stdout)
            yield next(found[0] for found in lines if found)
        finally:
            server.terminate()
