"""A report as a document: numbered sections, figures and tables, written as Markdown or as one HTML page.

A section is a title and its parts. To add one, put a :class:`Section` into the list of a :class:`Document`. The
document numbers its sections, figures and tables, and lists them in its table of contents.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from study.findings.answers import Answer
from study.output.tables import Table, plain_markdown
from study.papers.cemobam.claims import Claim, Verdict

Kind = Literal["figure", "table"]
"""Kinds of numbered parts."""

VERDICT_SIGNS: dict[Verdict, str] = {
    "confirmed": "✓",
    "equivalent": "≈",
    "undecided": "?",
    "contradicted": "✗",
    "higher than published": "↑",
    "not tested": "–",
}
"""The sign of every verdict."""


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: The text.
    """

    kind: ClassVar = "text"
    text: str

    def markdown(self, _: Document) -> str:
        """Return the part as Markdown."""
        return plain_markdown(self.text)


@dataclass(frozen=True)
class Items:
    """A list of sentences.

    Attributes:
        items: The sentences.
    """

    kind: ClassVar = "items"
    items: tuple[str, ...]

    def markdown(self, _: Document) -> str:
        """Return the part as Markdown."""
        return _bullets(self.items)


@dataclass(frozen=True)
class Terms:
    """A list of names with their values.

    Attributes:
        terms: The values by name.
    """

    kind: ClassVar = "terms"
    terms: Mapping[str, object]

    def markdown(self, _: Document) -> str:
        """Return the part as Markdown."""
        return _bullets([f"{name}: {value}" for name, value in self.terms.items()])


@dataclass(frozen=True)
class Code:
    """A command.

    Attributes:
        text: The command.
    """

    kind: ClassVar = "code"
    text: str

    def markdown(self, _: Document) -> str:
        """Return the part as Markdown."""
        return f"    {self.text}"


@dataclass(frozen=True)
class Rows:
    """A table of texts without a number.

    Attributes:
        head: The columns' names.
        rows: The rows.
    """

    kind: ClassVar = "rows"
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self, _: Document) -> str:
        """Return the part as Markdown."""
        cells = [list(map(plain_markdown, row)) for row in self.rows]
        return str(pd.DataFrame(cells, columns=list(self.head)).to_markdown(index=False, disable_numparse=True))


@dataclass(frozen=True)
class Picture:
    """A numbered figure.

    Attributes:
        name: The name that :class:`See` refers to.
        title: The title: the entry in the table of contents.
        caption: The caption in sentences. It starts with the title.
        png: The file. It must exist when the page is written.
        link: Link to the file in the Markdown report.
        wide: Whether it may fill the width of the page.
    """

    kind: ClassVar = "picture"
    counted_as: ClassVar[Kind] = "figure"
    name: str
    title: str
    caption: str
    png: Path
    link: str
    wide: bool = True

    @property
    def data(self) -> str:
        """The file's content in base64."""
        return base64.b64encode(self.png.read_bytes()).decode()

    def markdown(self, document: Document) -> str:
        """Return the part as Markdown."""
        title, caption = (plain_markdown(f"{document.label(self)}: {text}") for text in (self.title, self.caption))
        return f"{_target(document.anchor(self))}\n\n![{title}]({self.link})\n\n{caption}"


@dataclass(frozen=True)
class Numbered:
    """A numbered table, with its LaTeX source.

    Attributes:
        table: The table.
    """

    kind: ClassVar = "numbered"
    counted_as: ClassVar[Kind] = "table"
    table: Table

    @property
    def name(self) -> str:
        """The name that :class:`See` refers to."""
        return self.table.name

    @property
    def title(self) -> str:
        """The entry in the table of contents."""
        return self.table.title

    def markdown(self, document: Document) -> str:
        """Return the part as Markdown."""
        text, latex = self.table.markdown(f"{document.label(self)}: ").rstrip(), self.table.latex()
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", latex)), default=0))
        source = _folded("LaTeX source", f"{fence}latex\n{latex}{fence}")
        return f"{_target(document.anchor(self))}\n\n{text}\n\n{source}"


@dataclass(frozen=True)
class See:
    """The figures and tables behind a statement. Names that the report does not contain are left out.

    Attributes:
        figures: Names of figures.
        tables: Names of tables.
    """

    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claimed:
    """A claim and the finding of the study about it.

    Attributes:
        claim: The claim.
        see: The figures and tables behind the verdict.
    """

    kind: ClassVar = "claimed"
    claim: Claim
    see: See

    @property
    def terms(self) -> dict[str, str]:
        """Description of how the claim was tested, by name."""
        claim = self.claim
        how = {
            "Would confirm it": claim.confirmed,
            "Would contradict it": claim.contradicted,
            "Test": claim.test,
            "Intervals": claim.intervals,
            "Source": claim.where,
        }
        return {name: text if text.endswith(".") else f"{text}." for name, text in how.items() if text}

    def markdown(self, document: Document) -> str:
        """Return the part as Markdown."""
        claim = self.claim
        return _paragraphs(
            f"### {plain_markdown(claim.claim)}",
            f"**{claim.verdict.capitalize()}:** {plain_markdown(claim.answer)}",
            _bullets(claim.numbers),
            document.see(self.see),
            _folded("How this was tested", _bullets([f"{name}: {text}" for name, text in self.terms.items()])),
        )


@dataclass(frozen=True)
class Answered:
    """A block's question and the answer of the study.

    Attributes:
        answer: The answer.
        see: The figures and tables behind it.
    """

    kind: ClassVar = "answered"
    answer: Answer
    see: See

    def markdown(self, document: Document) -> str:
        """Return the part as Markdown."""
        answer = self.answer
        return _paragraphs(
            f"### {plain_markdown(answer.question)}",
            _bullets(answer.lines),
            document.see(self.see),
            _folded("How this was tested", plain_markdown(answer.method)) if answer.method else "",
        )


Part = Text | Items | Terms | Code | Rows | Picture | Numbered | Claimed | Answered


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        id: The anchor of the section.
        title: The title, without a number.
        parts: The content, in its order.
    """

    id: str
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Entry:
    """A line of the table of contents.

    Attributes:
        label: "2." of a section, "Figure 2" of a figure.
        title: The title.
        anchor: The anchor that it links to.
        entries: The figures and tables of a section.
    """

    label: str
    title: str
    anchor: str
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: The title.
        lead: The sentence below the title. Empty if there is none.
        sections: The sections, in their order.
    """

    title: str
    lead: str
    sections: Sequence[Section] = field(default_factory=tuple)

    @cached_property
    def _anchors(self) -> dict[tuple[Kind, str], str]:
        """The anchors of figures and tables by kind and name, numbered in their order."""
        anchors: dict[tuple[Kind, str], str] = {}
        counts: dict[Kind, int] = {"figure": 0, "table": 0}
        for part in (part for section in self.sections for part in section.parts):
            if isinstance(part, Picture | Numbered):
                counts[part.counted_as] += 1
                anchors[part.counted_as, part.name] = f"{part.counted_as}-{counts[part.counted_as]}"
        return anchors

    def anchor(self, part: Picture | Numbered) -> str:
        """Return the anchor of a figure or table: "figure-2"."""
        return self._anchors[part.counted_as, part.name]

    def label(self, part: Picture | Numbered) -> str:
        """Return the label of a figure or table: "Figure 2"."""
        return _label(self.anchor(part))

    def references(self, see: See) -> list[tuple[str, str]]:
        """Return the labels and anchors of the figures and tables that the document has."""
        keys: list[tuple[Kind, str]] = [
            *(("figure", name) for name in see.figures),
            *(("table", name) for name in see.tables),
        ]
        anchors = [self._anchors[key] for key in keys if key in self._anchors]
        return [(_label(anchor), anchor) for anchor in anchors]

    @property
    def contents(self) -> list[Entry]:
        """The table of contents: every section, with its figures and tables."""
        return [
            Entry(
                label=f"{number}.",
                title=section.title,
                anchor=section.id,
                entries=tuple(
                    Entry(self.label(part), part.title, self.anchor(part))
                    for part in section.parts
                    if isinstance(part, Picture | Numbered)
                ),
            )
            for number, section in enumerate(self.sections, 1)
        ]

    def html(self) -> str:
        """Return the report as one page that needs no other file."""
        environment = Environment(
            loader=PackageLoader("study.output"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["words"] = _subscripted
        script = copy_script()
        return environment.get_template("report.html").render(
            document=self, signs=VERDICT_SIGNS, script=Markup(script), script_hash=csp_hash(script)
        )

    def markdown(self) -> str:
        """Return the report for a repository, with links to its figures."""
        contents = []
        for entry in self.contents:
            contents.append(f"- {_link(f'{entry.label} {entry.title}', entry.anchor)}")
            contents += [f"  - {_link(f'{sub.label}: {sub.title}', sub.anchor)}" for sub in entry.entries]
        sections = [
            text
            for number, section in enumerate(self.sections, 1)
            for text in (
                f"{_target(section.id)}\n\n## {number}. {plain_markdown(section.title)}",
                *(part.markdown(self) for part in section.parts),
            )
        ]
        title = f"# {plain_markdown(self.title)}"
        return _paragraphs(title, plain_markdown(self.lead), "\n".join(contents), *sections) + "\n"

    def see(self, see: See) -> str:
        """Return links to figures and tables as Markdown. Empty if the document has none of them."""
        references = self.references(see)
        return f"See {', '.join(_link(label, anchor) for label, anchor in references)}." if references else ""


def csp_hash(script: str) -> str:
    """Return the source expression with which a Content-Security-Policy allows one inline script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def copy_script() -> str:
    """Return the page's only script, which copies LaTeX sources."""
    return files("study.output").joinpath("templates", "copy.js").read_text(encoding="utf-8")


def _label(anchor: str) -> str:
    """Return the label that belongs to an anchor: "Figure 2" to "figure-2"."""
    return anchor.capitalize().replace("-", " ")


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {plain_markdown(item)}" for item in items)


def _paragraphs(*texts: str) -> str:
    """Return the texts that are not empty as paragraphs."""
    return "\n\n".join(filter(None, texts))


def _target(anchor: str) -> str:
    return f'<a id="{anchor}"></a>'


def _link(text: str, anchor: str) -> str:
    return f"[{plain_markdown(text)}](#{anchor})"


def _folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _subscripted(text: object) -> Markup:
    """Return text for HTML, with subscripts in K_audio and K_text."""
    safe = str(escape(str(text)))
    return Markup(re.sub(r"K_(audio|text)", r"K<sub>\1</sub>", safe))
