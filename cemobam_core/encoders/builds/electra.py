"""ELECTRA (Clark et al., 2020)."""

from __future__ import annotations

from cemobam_core.encoders.builds.build import Example, TextBuild


class Electra(TextBuild):
    """ELECTRA, its discriminator. It has no pooler."""

    types = ("electra",)
    front_end = "WordPiece tokens"
    examples = (
        Example(name="google/electra-base-discriminator", layers=12, size=768, millions=108.9, licence="apache-2.0"),
    )
