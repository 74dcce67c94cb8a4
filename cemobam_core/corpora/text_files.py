"""Text files: what they contain, in whatever encoding, if they are regular and not too large."""

from __future__ import annotations

from pathlib import Path

from cemobam_core.errors import InputError
from cemobam_core.wall import refuse_irregular

LARGEST = 100 * 10**6
"""Size in bytes of the largest text file that is read."""

LONGEST_TEXT = 100_000
"""Letters of the longest transcript."""

_MOST_LINES = 500_000
"""Largest number of lines of a file without columns."""


def read_content(path: Path, largest: int = LARGEST) -> bytes:
    """Return the content of a text file.

    Args:
        path: The file.
        largest: Size in bytes that it may have.

    Raises:
        InputError: It is not a regular file, cannot be read, or is too large.
    """
    refuse_irregular(path)
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if len(content) > largest:
        raise InputError(f"{path}: is larger than {largest / 1e6:g} MB; give a text file")
    return content


def read_utf8(path: Path, largest: int = LARGEST) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        largest: Size in bytes that it may have.

    Raises:
        InputError: As for :func:`read_content`, or the file is not UTF-8.
    """
    try:
        return read_content(path, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it in UTF-8") from None


def read_lines(path: Path) -> list[str]:
    """Return the lines of an English text file, detecting its encoding and stripping white space at both ends.

    UTF-16 and UTF-8 are recognised by their byte order marks or because they are valid. Otherwise each line is decoded
    as GBK, unless the result contains Chinese characters. These would be misread Windows-1252: 0x92 0x73 is an
    apostrophe and an s.

    Args:
        path: The file.

    Raises:
        InputError: As for :func:`read_content`, or there are too many lines, or one is too long.
    """
    raw = read_content(path)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", errors="replace")
    elif raw.count(0) > len(raw) / 4:  # UTF-16 without a mark: for English text most high bytes are zero
        big = raw[0::2].count(0) > raw[1::2].count(0)
        text = raw.decode("utf-16-be" if big else "utf-16-le", errors="replace")
    else:
        raw = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"")
        _check_count(path, raw.count(b"\n"))
        lines = [_decode(line) for line in raw.split(b"\n")]
        return _stripped(path, lines)
    _check_count(path, text.count("\n"))
    return _stripped(path, text.split("\n"))


def _check_count(path: Path, breaks: int) -> None:
    if breaks > _MOST_LINES:
        raise InputError(f"{path}: has more than {_MOST_LINES} lines; get the file again")


def _stripped(path: Path, lines: list[str]) -> list[str]:
    stripped = [line.strip() for line in lines]
    for number, line in enumerate(stripped, 1):
        if len(line) > LONGEST_TEXT:
            raise InputError(f"{path} line {number}: has more than {LONGEST_TEXT} letters; get the file again")
    return stripped


def _decode(line: bytes) -> str:
    for encoding in ("utf-8", "gbk"):
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8" or not any("\u3400" <= c <= "\u9fff" for c in text):
            return text
    return line.decode("cp1252", errors="replace")
