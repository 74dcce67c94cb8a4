"""ModernBERT (Warner et al., 2024)."""

from __future__ import annotations

from cemobam_core.encoders.builds.build import Example, TextBuild


class ModernBert(TextBuild):
    """ModernBERT: rotary positions, and layers of local and of global attention. It has no pooler."""

    types = ("modernbert",)
    layers_at = "layers"
    final_norm = "final_norm"
    attention = "sdpa"  # runs everywhere, and gives the same for a text alone as in a batch
    front_end = "byte-pair tokens"
    examples = (
        Example(name="answerdotai/ModernBERT-base", layers=22, size=768, millions=149.0, licence="apache-2.0"),
        Example(name="answerdotai/ModernBERT-large", layers=28, size=1024, millions=394.8, licence="apache-2.0"),
    )
