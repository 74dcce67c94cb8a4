"""JSON files that may come from anyone: their size is limited, and a fault is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cemobam_core.errors import InputError
from cemobam_core.wall import refuse_irregular

LARGEST = 16 * 2**20
"""Largest size of a file in bytes. The files of this tool are much smaller. Its content takes some 25 times as much."""
_DEEPEST = 50
"""Most objects and lists in each other. Code that walks through deeper ones would overflow the stack."""


def read_json(path: Path) -> Any:
    """Return the unchecked content of a JSON file.

    Args:
        path: The file.

    Raises:
        InputError: The path is not a regular file, the file is too large, or it is not JSON in UTF-8.
    """
    refuse_irregular(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InputError(f"{path}: is larger than {LARGEST / 1e6:.0f} MB, so this tool did not write it")
        content = json.loads(data.decode("utf-8"))
        if _is_deep(content):
            raise RecursionError
        return content
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path}: cannot be read as JSON (it is nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())[:120]})") from None


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(_DEEPEST):
        lists = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [inner for one in lists for inner in one]
    return bool(level)
