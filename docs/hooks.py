"""The parts of the documentation site that are not in ``docs``: documents of other folders, commands, systems.

MkDocs calls the functions ``on_…`` of this module (``hooks`` in ``mkdocs.yml``).
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import cemobam_core.operators
from cemobam_core.systems import names, system_class
from study.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS = {"contributing.md": "CONTRIBUTING.md", "benchmarks.md": "benchmarks/README.md"}
"""Pages that are documents of other folders."""

_PAGES = {**{document: page for page, document in DOCUMENTS.items()}, "README.md": "index.md"}
_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of other folders and the notebook as pages."""
    for page, document in DOCUMENTS.items():
        text = (ROOT / document).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_with_links(text, Path(document).parent)))
    if notebook := files.get_file_from_path("notebook.ipynb"):
        files.append(File.generated(config, "notebook.md", content=as_page(json.loads(notebook.content_string))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated, and lead links to documents of other folders to their pages."""
    for name, write in GENERATED.items():
        markdown = markdown.replace(f"<!-- generated: {name} -->", "\n\n".join(write()))
    if page.file.src_uri in (*DOCUMENTS, "notebook.md"):
        return markdown
    return _with_links(markdown, Path("docs", page.file.src_uri).parent)


def _with_links(text: str, folder: Path) -> str:
    """Return the text of a document in a folder of the repository with its links as the site's pages need them."""
    here = folder.relative_to("docs").as_posix() if folder.parts[:1] == ("docs",) else "."

    def link(found: re.Match[str]) -> str:
        target = os.path.normpath(folder / found[0]).replace(os.sep, "/")
        if target in _PAGES:
            return os.path.relpath(_PAGES[target], here)
        if target == "docs/notebook.ipynb":
            return os.path.relpath("notebook.md", here)
        return os.path.relpath(target.removeprefix("docs/"), here) if target.startswith("docs/") else found[0]

    return _LINK.sub(link, text)


def _commands() -> Iterator[str]:
    """Yield the help of every command, as a terminal shows it."""
    os.environ["COLUMNS"] = "96"
    for name, summary in COMMANDS.items():
        text = import_module(f"study.commands.{name}").build_parser(f"cemobam {name}").format_help()
        yield f"## cemobam {name}\n\n{summary[0].upper()}{summary[1:]}.\n\n```text\n{text.rstrip()}\n```"


def _systems() -> Iterator[str]:
    """Yield every system, CemoBAM first."""
    for name in sorted(names(), key=lambda name: (name != "cemobam", name)):
        kind = system_class(name)
        yield f"::: {kind.__module__}.{kind.__name__}"


def _operators() -> Iterator[str]:
    """Yield every module of operators."""
    for module in pkgutil.iter_modules(cemobam_core.operators.__path__):
        yield f"::: cemobam_core.operators.{module.name}"


def _public(package: str) -> Callable[[], Iterator[str]]:
    """Return a function that yields every public name of a package."""
    return lambda: (f"::: {package}.{name}" for name in import_module(package).__all__)


GENERATED: dict[str, Callable[[], Iterator[str]]] = {
    "commands": _commands,
    "systems": _systems,
    "operators": _operators,
    "cemobam_core": _public("cemobam_core"),
    "study": _public("study"),
}
"""Generators of the parts that pages include with ``<!-- generated: NAME -->``."""


def as_page(notebook: dict[str, Any]) -> str:
    """Return a notebook's cells and outputs in Markdown."""
    parts = ["[Download this notebook](notebook.ipynb){ download }"]
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif source:
            parts.append(f"```python\n{source}\n```")
        parts += [part for output in cell.get("outputs", []) if (part := _shown(output))]
    first = next((i for i, part in enumerate(parts) if part.startswith("# ")), None)
    if first is not None:  # the title comes before the link
        title, _, rest = parts.pop(first).partition("\n")
        parts[:0] = [title, *([rest.strip()] if rest.strip() else [])]
    return "\n\n".join(parts)


def _shown(output: dict[str, Any]) -> str:
    """Return a cell's output in Markdown: a picture, a table or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="The cell\'s figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return "".join(data["text/html"])
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
