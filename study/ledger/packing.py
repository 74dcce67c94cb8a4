"""Bytes as a ledger keeps them: compressed, as text, in parts that every database takes."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

from cemobam_core.errors import InputError

LONGEST = 60_000
"""Characters of a part: MySQL's TEXT holds 65,535 bytes."""

_LARGEST = 2**28
"""Bytes at most that are unpacked: what is compressed may claim to be anything."""


def packed(name: str, content: bytes) -> dict[str, str]:
    """Return the attributes that hold some bytes: ``<name>:0`` and, where that is too long, more.

    Args:
        name: that the attributes begin with.
        content: the bytes.
    """
    text = base64.b64encode(zlib.compress(content)).decode()
    return {f"{name}:{i}": text[start : start + LONGEST] for i, start in enumerate(range(0, len(text), LONGEST))}


def unpacked(name: str, attributes: Mapping[str, Any]) -> bytes | None:
    """Return the bytes of which :func:`packed` gave the attributes; None: there are none.

    Args:
        name: that the attributes begin with.
        attributes: these, and others.

    Raises:
        InputError: attributes that hold something else.
    """
    parts: list[str] = []
    while (part := attributes.get(f"{name}:{len(parts)}")) is not None:
        parts.append(part)
    if not parts:
        return None
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(base64.b64decode("".join(parts), validate=True), _LARGEST)
    except (ValueError, TypeError, zlib.error) as error:
        raise InputError(f"{name} is damaged ({error})") from None
    if not stream.eof or stream.unused_data:
        raise InputError(f"{name} is damaged (its end is missing, or something follows it)")
    return content
