"""Study files: plain Python that lists blocks."""

from __future__ import annotations

import runpy
import traceback
from dataclasses import replace
from pathlib import Path

from cemobam_core.errors import InputError
from cemobam_core.systems.search import Value
from study.design.block import Block
from study.design.factors import Factor

_LONGEST = 300
"""Characters of an exception's message that are told."""


def load_study(path: Path) -> list[Block]:
    """Run a study file and return its blocks.

    Args:
        path: of the file, which defines ``blocks``: a list of :class:`Block`.

    Raises:
        InputError: a file that cannot be run, or that defines no such list; names the file, the line and the cause.
    """
    if not path.is_file():
        raise InputError(f"--study {path}: there is no such file")
    try:
        defined = runpy.run_path(str(path))
    except SyntaxError as error:
        raise InputError(f"{_place(error.filename or str(path), error.lineno)}: {error.msg}") from None
    except SystemExit:
        raise InputError(f"{path}: ends the program; a study file only defines blocks") from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        said = " ".join(str(error).split())[:_LONGEST]
        kind = "" if isinstance(error, InputError) else type(error).__name__ + (": " if said else "")
        raise InputError(f"{_place(str(path), lines[-1] if lines else None)}: {kind}{said}") from None
    blocks = defined.get("blocks")
    if not isinstance(blocks, list) or not blocks:
        raise InputError(f"{path}: defines no blocks; write: blocks = [Block(...), ...]")
    for block in blocks:
        if not isinstance(block, Block):
            raise InputError(f"{path}: {str(block)[:60]!r} in blocks is not a Block")
    names = [block.name for block in blocks]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise InputError(f"{path}: two blocks are called {twice[0]!r}; give each a name of its own")
    if sum(block.chooses for block in blocks) > 1:
        raise InputError(f"{path}: several blocks choose the pair of K; one can")
    return [_beside(block, path.parent) for block in blocks]


def _place(path: str, line: int | None) -> str:
    return f"{path}, line {line}" if line else path


def _beside(block: Block, folder: Path) -> Block:
    """Return the block with systems in files as seen from here, not from the study file."""
    from cemobam_core.systems.files import is_in_file  # noqa: PLC0415  (imports torch)

    def seen(value: Value) -> Value:
        return str(folder / Path(value).expanduser()) if isinstance(value, str) and is_in_file(value) else value

    factors = [Factor(f.name, map(seen, f.values)) if f.name == "system" else f for f in block.factors]
    configurations = {
        name: {key: seen(value) if key == "system" else value for key, value in changes.items()}
        for name, changes in block.configurations.items()
    }
    changed = replace(block, factors=tuple(factors), configurations=configurations, reference=None)
    if block.columns != ("system",):
        return replace(changed, reference=block.reference)
    reference = block.reference if block.reference is None else seen(block.reference)
    return replace(changed, reference=reference, labels={seen(value): label for value, label in block.labels.items()})
