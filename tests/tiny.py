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
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
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


def make_whisper(folder: Path, *, layers: int = 1, silent: bool = False, seed: int = 3) -> Path:
    """Save a Whisper with random weights, which hears nonsense in every clip, or no words at all if ``silent``."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    words = [f"Ġ{word}" for word in ("i", "you", "hate", "love", "miss", "joy")]
    vocabulary = {token: i for i, token in enumerate([*words, *special])}
    ids = [vocabulary[token] for token in special]
    WhisperTokenizer(vocab=vocabulary, merges=[], additional_special_tokens=special[1:]).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = WhisperConfig(
            vocab_size=len(vocabulary),
            num_mel_bins=16,
            d_model=16,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_target_positions=16,
            pad_token_id=ids[0],
            bos_token_id=ids[0],
            eos_token_id=ids[0],
            decoder_start_token_id=ids[1],
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
        model = WhisperForConditionalGeneration(config)
    model.generation_config.update(
        max_length=5,
        suppress_tokens=[vocabulary[word] for word in words] if silent else ids[1:],
        begin_suppress_tokens=None if silent else [ids[0]],
        no_timestamps_token_id=ids[4],
    )
    model.save_pretrained(folder)
    return folder
