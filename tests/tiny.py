"""Small encoders with random weights, saved like the real ones and loaded by the same code."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)
from transformers.utils import logging

logging.disable_progress_bar()

_SAID = """
i you the a is am are was this that it what get out hate love miss so much form in second drawer over there furious
wonderful joy everything lost her anna ben carla david , . ' saw eggs number
"""
WORDS = tuple(_SAID.split())


def make_wav2vec2(folder: Path, *, norm: str = "group", layers: int = 3, normalise: bool = True, seed: int = 0) -> Path:
    """Save a wav2vec 2.0 with 24 numbers per frame, with ``group`` norm like wav2vec2-base or ``layer`` norm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = Wav2Vec2Config(
            hidden_size=24,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=48,
            conv_dim=(16, 16, 16),
            conv_kernel=(10, 8, 5),
            conv_stride=(5, 8, 8),
            num_feat_extract_layers=3,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            feat_extract_norm=norm,
            do_stable_layer_norm=norm == "layer",
        )
        Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return folder


def make_bert(folder: Path, *, layers: int = 3, seed: int = 1) -> Path:
    """Save a BERT with 32 numbers per token that knows the words of the corpora in the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
        BertModel(config).save_pretrained(folder)
    return folder
