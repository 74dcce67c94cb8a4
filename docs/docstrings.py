"""A griffe extension for the documentation site: formulas and roles of docstrings in Markdown."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_FORMULA = re.compile(r"^( *)\.\. math::[ \n]*((?:.+\n?)(?:^\1 +.+\n?)*)", flags=re.MULTILINE)
_ROLE = re.compile(r":(?:py:)?(?:attr|class|data|exc|func|meth|mod|obj):`[~.!]*([^`]+)`")


class SphinxDocstrings(griffe.Extension):
    """Show what Sphinx would render as code, which needs no script of another host."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object as it is loaded."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    """Return a docstring with its formulas as blocks of LaTeX code and its roles as inline code."""
    return _ROLE.sub(r"`\1`", _FORMULA.sub(_as_code, docstring))


def _as_code(found: re.Match[str]) -> str:
    indent, formula = found.groups()
    lines = textwrap.dedent(indent + formula).strip().splitlines()
    return textwrap.indent("\n".join(["```latex", *(line.strip() for line in lines), "```", ""]), indent)
