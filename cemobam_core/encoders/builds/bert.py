"""BERT (Devlin et al., 2019)."""

from __future__ import annotations

from cemobam_core.encoders.builds.build import Example, TextBuild


class Bert(TextBuild):
    """BERT and ERNIE."""

    types = ("bert", "ernie")
    has_pooler = True
    front_end = "WordPiece tokens"
    examples = (
        Example(name="google-bert/bert-base-uncased", layers=12, size=768, millions=109.5, licence="apache-2.0"),
        Example(name="google-bert/bert-large-uncased", layers=24, size=1024, millions=335.1, licence="apache-2.0"),
        Example(name="sentence-transformers/all-MiniLM-L6-v2", layers=6, size=384, millions=22.7, licence="apache-2.0"),
    )
