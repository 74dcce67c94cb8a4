"""The documentation site: it builds strictly, everything is in it, and it asks no other host for anything."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docstrings import markdown
from hooks import DOCUMENTS, as_page

import cemobam_core
import study
from cemobam_core.systems import names, system_class
from study.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
GENERATED = [*DOCUMENTS, "notebook.md"]

pytestmark = pytest.mark.xdist_group("site")  # it is built once


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        **{"cwd": ROOT, "env": {**os.environ, "NO_MKDOCS_2_WARNING": "1"}, "capture_output": True, "text": True},
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_page_is_in_the_navigation(site: Path) -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"[\w/.]+\.md\b", text[text.index("nav:") : text.index("theme:")])
    written = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted([*written, *GENERATED])
    shown = (site / "index.html").read_text()
    for page in (*listed, "demo/report.html"):
        assert f'href="{page.removesuffix(".md").removesuffix(".html")}.html"' in shown, page


def test_every_page_can_be_found_by_search(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = {entry["location"].partition("#")[0] for entry in index if entry["text"]}
    own = {page.relative_to(site).as_posix() for page in pages(site)} - {"404.html", "demo/report.html"}
    assert own <= found | {"notebook.html"}
    for word in ("ChannelAttention", "--until-clear", "leave one session out"):
        assert any(word in entry["text"] + entry["title"] for entry in index), word


def test_no_page_asks_another_host(site: Path) -> None:
    """Links may lead elsewhere; scripts, styles, fonts and pictures come with the site."""
    tag = re.compile(r"<(?:script|link|img|iframe|source|video|audio|object|embed)\b[^>]*>")
    for page in pages(site):
        text = page.read_text()
        for found in tag.findall(text):
            assert not re.search(r"""(?:src|href|srcset|data)=["']?(?:https?:)?//""", found), f"{page}: {found}"
        assert "mermaid" not in text  # the theme would take its script from elsewhere
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text()), style


@pytest.mark.parametrize("package", [cemobam_core, study])
def test_every_public_name_is_in_the_reference(site: Path, package: Any) -> None:
    text = (site / "reference" / f"{package.__name__}.html").read_text()
    for name in package.__all__:
        assert f'id="{package.__name__}.{name}"' in text, name


def test_every_system_and_operator_is_in_the_reference_with_its_formula(site: Path) -> None:
    systems, operators = ((site / "reference" / f"{page}.html").read_text() for page in ("systems", "operators"))
    for name in names():
        kind = system_class(name)
        assert f'id="{kind.__module__}.{kind.__name__}"' in systems, name
    for file in (ROOT / "cemobam_core" / "operators").glob("[!_]*.py"):
        assert f'id="cemobam_core.operators.{file.stem}"' in operators, file
    shown = html.unescape(re.sub("<[^>]+>", "", operators))
    assert r"M_c(F) = \sigma(\mathrm{MLP}(\mathrm{AvgPool}(F)) + \mathrm{MLP}(\mathrm{MaxPool}(F)))" in shown
    for text in (systems, operators):
        assert ".. math::" not in text
        assert not re.search(r":(?:class|func|mod|data|attr|meth):", text)


def test_every_command_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text()
    for name in COMMANDS:
        assert f"cemobam {name}" in text
    assert "--until-clear" in text


def test_no_generated_part_is_left_out(site: Path) -> None:
    for page in pages(site):
        assert "<!-- generated:" not in page.read_text(), page


def test_a_docstrings_formulas_and_roles_become_code() -> None:
    docstring = "A gate.\n\n.. math:: M_c(F) =\n    \\sigma(F)\n\nSee :class:`~study.Block` and :mod:`.files`."
    assert markdown(docstring) == (
        "A gate.\n\n```latex\nM_c(F) =\n\\sigma(F)\n```\n\nSee `study.Block` and `files`."
    )  # fmt: skip
    assert markdown("    .. math:: a\n\n    b") == "    ```latex\n    a\n    ```\n\n    b"
    assert markdown("No `code` of those.") == "No `code` of those."


def test_a_notebook_becomes_a_page() -> None:
    outputs = [
        {"output_type": "stream", "text": ["1\n", "2\n"]},
        {"data": {"text/plain": ["<Figure>"], "image/png": "aGk=\n"}},
        {"data": {"text/plain": ["  wa"], "text/html": ["<table>", "</table>"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "First words."]},
        {"cell_type": "code", "source": ["print(1)\n", "print(2)"], "outputs": outputs},
        {"cell_type": "code", "source": [], "outputs": []},
    ]
    page = as_page({"cells": cells})
    assert page.startswith("# Title\n\nFirst words.\n\n[Download this notebook]")
    assert "```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n2\n```" in page
    assert 'src="data:image/png;base64,aGk="' in page
    assert "<Figure>" not in page
    assert page.endswith("<table></table>")


@pytest.mark.browser
@pytest.mark.slow
def test_a_reader_searches_from_the_disk_and_no_host_hears_of_it(browser: Any, site: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get_log("performance")
    browser.get(f"{(site / 'index.html').as_uri()}?q=leakage")
    found = 'return [...document.querySelectorAll(".md-search-result__link")].map(link => link.href)'
    links = WebDriverWait(browser, 120).until(lambda driver: driver.execute_script(found))
    assert any("corpus.html" in link for link in links)
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert (site / "javascripts" / "iframe-worker.js").as_uri() in asked
    assert not [url for url in asked if url.startswith(("http", "ws"))]
