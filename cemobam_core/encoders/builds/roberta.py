"""RoBERTa (Liu et al., 2019), and encoders whose positions count from after the padding token like RoBERTa's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cemobam_core.encoders.builds.build import Example, TextBuild, whole


class Roberta(TextBuild):
    """RoBERTa, XLM-R, CamemBERT, MPNet and data2vec text."""

    types = ("roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text")
    has_pooler = True
    front_end = "byte-pair tokens; sentencepiece in XLM-R and CamemBERT, WordPiece in MPNet"
    examples = (
        Example(name="FacebookAI/roberta-base", layers=12, size=768, millions=124.6, licence="mit"),
        Example(name="FacebookAI/roberta-large", layers=24, size=1024, millions=355.4, licence="mit"),
        Example(name="FacebookAI/xlm-roberta-base", layers=12, size=768, millions=278.0, licence="mit"),
        Example(name="almanach/camembert-base", layers=12, size=768, millions=110.6, licence="mit"),
        Example(
            name="sentence-transformers/all-mpnet-base-v2", layers=12, size=768, millions=109.5, licence="apache-2.0"
        ),
    )

    @classmethod
    def longest(cls, config: Mapping[str, Any]) -> int | float | None:
        """Return the number of position embeddings without those up to the padding token: 512 of 514."""
        positions, padding = whole(config, "max_position_embeddings"), whole(config, "pad_token_id")
        return None if positions is None else positions - (1 if padding is None else padding) - 1
