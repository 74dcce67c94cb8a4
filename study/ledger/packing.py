"""Storage of bytes in a ledger: compressed, as text, in parts that fit into every database."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

from cemobam_core.errors import InputError

LONGEST = 60_000
"""Largest number of characters of a part, because MySQL's TEXT holds 65,535 bytes."""

_LARGEST = 2**28
"""Largest number of bytes that are unpacked, because compressed data may claim any size."""


def packed(name: str, content: bytes) -> dict[str, str]:
    """Return the attributes that hold some bytes: ``<name>:0``, and more if the text is too long for one.

    Args:
        name: Prefix of the attributes' names.
        content: The bytes.
    """
    text = base64.b64encode(zlib.compress(content)).decode()
    return {f"{name}:{i}": text[start : start + LONGEST] for i, start in enumerate(range(0, len(text), LONGEST))}


def unpacked(name: str, attributes: Mapping[str, Any]) -> bytes | None:
    """Return the bytes that :func:`packed` turned into attributes, or `None` if there are no such attributes.

    Args:
        name: Prefix of the attributes' names.
        attributes: Attributes, which may include others.

    Raises:
        InputError: If the attributes hold something else.
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
        raise InputError(f"{name} is damaged (its end is missing, or other data follows it)")
    return content
