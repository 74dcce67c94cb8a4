"""Sentences: transcripts in a form in which equal sentences compare equal."""

from __future__ import annotations

import re
import unicodedata


def sentence(text: str) -> str:
    """Return a transcript without case, punctuation and white space, so that equal sentences compare equal."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"['’‘`]", "", plain)  # don’t, don't, dont
    return " ".join(re.sub(r"[\W_]+", " ", plain).split())
