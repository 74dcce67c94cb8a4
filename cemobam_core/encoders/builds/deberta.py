"""DeBERTa v2 and v3 (He et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cemobam_core.encoders.builds.build import Example, TextBuild, whole


class Deberta(TextBuild):
    """DeBERTa v2 and v3. It has no pooler."""

    types = ("deberta-v2",)
    front_end = "sentencepiece tokens"
    examples = (
        Example(name="microsoft/deberta-v3-small", layers=6, size=768, millions=141.3, licence="mit"),
        Example(name="microsoft/deberta-v3-base", layers=12, size=768, millions=183.8, licence="mit"),
        Example(name="microsoft/deberta-v3-large", layers=24, size=1024, millions=434.0, licence="mit"),
    )

    @classmethod
    def longest(cls, config: Mapping[str, Any]) -> int | float | None:
        """Return the number of position embeddings, if the model has any. Relative positions have no limit."""
        return whole(config, "max_position_embeddings") if config.get("position_biased_input", True) else None
