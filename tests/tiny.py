"""Small encoders with random weights, saved like the real ones and loaded by the same code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    BertTokenizer,
    PreTrainedTokenizerFast,
    SeamlessM4TFeatureExtractor,
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


AUDIO_TYPES = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "unispeech",
    "unispeech-sat",
    "data2vec-audio",
    "whisper",
    "wav2vec2-bert",
)
TEXT_TYPES = (
    *("bert", "ernie", "electra", "roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "deberta-v2"),
    *("distilbert", "modernbert"),
)


def make_audio(folder: Path, model_type: str, *, layers: int = 5, seed: int = 0) -> Path:
    """Save an audio encoder of any supported type, with 24 numbers per frame."""
    if model_type == "wav2vec2":
        return make_wav2vec2(folder, layers=layers, seed=seed)
    if model_type == "whisper":
        return make_whisper(folder, layers=layers, seed=seed)
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    if model_type == "wav2vec2-bert":
        config = AutoConfig.for_model(model_type, **sizes, conv_depthwise_kernel_size=5)
        SeamlessM4TFeatureExtractor().save_pretrained(folder)
    else:
        convolutions = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 8, 5), "conv_stride": (5, 8, 8)}
        positions = (
            {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
            if model_type == "data2vec-audio"
            else {"num_conv_pos_embeddings": 16, "num_feat_extract_layers": 3}
        )
        config = AutoConfig.for_model(model_type, **sizes, **convolutions, **positions, num_conv_pos_embedding_groups=2)
        Wav2Vec2FeatureExtractor().save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _spread(AutoModel.from_config(config)).save_pretrained(folder)
    return folder


def make_whisper(folder: Path, *, layers: int = 5, bands: int = 80, seed: int = 0) -> Path:
    """Save a whole Whisper, encoder and decoder, for windows of 3 seconds, with 24 numbers per frame."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = WhisperConfig(
            vocab_size=40,
            d_model=24,
            encoder_layers=layers,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_mel_bins=bands,
            max_source_positions=150,
            max_target_positions=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        _spread(WhisperForConditionalGeneration(config)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=bands, chunk_length=3).save_pretrained(folder)
    return folder


def make_text(folder: Path, model_type: str, *, layers: int = 5, positions: int = 64, seed: int = 1) -> Path:
    """Save a text encoder of any supported type with a tokenizer of its own kind, with 32 numbers per token."""
    folder.mkdir(parents=True, exist_ok=True)
    if model_type in ("xlm-roberta", "camembert"):
        _train_sentencepiece(folder / "sentencepiece.bpe.model")
    elif model_type == "deberta-v2":
        pieces = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
        _train_sentencepiece(
            folder / "spm.model",
            **{f"{name}_id": i for i, name in enumerate(pieces)},
            **{f"{name}_piece": piece for name, piece in pieces.items()},
        )
    elif model_type in ("roberta", "data2vec-text"):
        trained = ByteLevelBPETokenizer()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trained.train_from_iterator(WORDS, vocab_size=300, special_tokens=special, show_progress=False)
        trained.save_model(str(folder))
    elif model_type == "mpnet":
        (folder / "vocab.txt").write_text("\n".join(["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *WORDS]) + "\n")
    else:
        _write_vocabulary(folder)
    if model_type == "modernbert":
        BertTokenizer(str(folder / "vocab.txt")).backend_tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "vocab.txt").unlink()
        PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            **{"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"},
            mask_token="[MASK]",
        ).save_pretrained(folder)
    config = AutoConfig.for_model(model_type, vocab_size=320, **_sizes(model_type, layers, positions))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _spread(AutoModel.from_config(config)).save_pretrained(folder)
    return folder


def _sizes(model_type: str, layers: int, positions: int) -> dict[str, Any]:
    if model_type == "distilbert":
        return {"dim": 32, "n_layers": layers, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": positions}
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
    }
    if model_type == "deberta-v2":  # as v3
        sizes |= {
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "type_vocab_size": 0,
        }
    if model_type == "modernbert":
        special = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
        sizes |= {"local_attention": 8, **special}
    if model_type == "electra":
        sizes["embedding_size"] = 16
    if model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text"):
        sizes["pad_token_id"] = 1
    return sizes


def _spread(model: Any) -> Any:
    """Make the weights larger than transformers draws them, so that layers, positions and padding show in a result."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "conv" not in name:
                parameter.mul_(4)
            elif "norm" in name.lower():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def _train_sentencepiece(path: Path, **options: Any) -> None:
    said = [f"{a} {b} {c} ." for a in WORDS for b in WORDS[::3] for c in WORDS[::7]]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(said),
        model_writer=model,
        vocab_size=120,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    path.write_bytes(model.getvalue())


def _write_vocabulary(folder: Path) -> list[str]:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return vocabulary


def make_bert(folder: Path, *, layers: int = 3, seed: int = 1) -> Path:
    """Save a BERT with 32 numbers per token that knows the words of the corpora in the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_vocabulary(folder)
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


def make_transcriber(folder: Path, *, layers: int = 1, silent: bool = False, seed: int = 3) -> Path:
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
