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
"""Largest number of characters of an exception's message that an error shows."""


def load_study(path: Path) -> list[Block]:
    """Run a study file and return its blocks.

    Args:
        path: Path of the file. The file defines ``blocks``, a list of :class:`Block`.

    Raises:
        InputError: If the file cannot be run or does not define such a list. The error names the file, the line and
            the cause.
    """
    if not path.is_file():
        raise InputError(f"--study {path}: there is no such file")
    try:
        defined = runpy.run_path(str(path))
    except SyntaxError as error:
        raise InputError(f"{_place(error.filename or str(path), error.lineno)}: {error.msg}") from None
    except SystemExit:
        raise InputError(f"{path}: the file ends the program; a study file must only define blocks") from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        message = " ".join(str(error).split())[:_LONGEST]
        kind = "" if isinstance(error, InputError) else type(error).__name__ + (": " if message else "")
        raise InputError(f"{_place(str(path), lines[-1] if lines else None)}: {kind}{message}") from None
    blocks = defined.get("blocks")
    if not isinstance(blocks, list) or not blocks:
        raise InputError(f"{path}: the file defines no blocks; write: blocks = [Block(...), ...]")
    for block in blocks:
        if not isinstance(block, Block):
            raise InputError(f"{path}: {str(block)[:60]!r} in blocks is not a Block")
    names = [block.name for block in blocks]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise InputError(f"{path}: two blocks are called {twice[0]!r}; give each block its own name")
    if sum(block.chooses for block in blocks) > 1:
        raise InputError(f"{path}: several blocks choose the pair of K; set chooses=True in one block only")
    return [_with_paths_from(block, path.parent) for block in blocks]


def _place(path: str, line: int | None) -> str:
    return f"{path}, line {line}" if line else path


def _with_paths_from(block: Block, folder: Path) -> Block:
    """Return the block with the paths of systems in files relative to the working folder, not to the study file."""
    from cemobam_core.systems.files import is_in_file  # noqa: PLC0415  (imports torch)

    def resolved(value: Value) -> Value:
        return str(folder / Path(value).expanduser()) if isinstance(value, str) and is_in_file(value) else value

    factors = [Factor(f.name, map(resolved, f.values)) if f.name == "system" else f for f in block.factors]
    configurations = {
        name: {key: resolved(value) if key == "system" else value for key, value in changes.items()}
        for name, changes in block.configurations.items()
    }
    changed = replace(block, factors=tuple(factors), configurations=configurations, reference=None)
    if block.columns != ("system",):
        return replace(changed, reference=block.reference)
    reference = block.reference if block.reference is None else resolved(block.reference)
    labels = {resolved(value): label for value, label in block.labels.items()}
    return replace(changed, reference=reference, labels=labels)
