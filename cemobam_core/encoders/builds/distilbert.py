"""DistilBERT (Sanh et al., 2019)."""

from __future__ import annotations

from cemobam_core.encoders.builds.build import Example, TextBuild


class DistilBert(TextBuild):
    """DistilBERT. It has no pooler."""

    types = ("distilbert",)
    size_keys = ("n_layers", "dim")
    layers_at = "transformer.layer"
    front_end = "WordPiece tokens"
    examples = (
        Example(name="distilbert/distilbert-base-uncased", layers=6, size=768, millions=66.4, licence="apache-2.0"),
    )
