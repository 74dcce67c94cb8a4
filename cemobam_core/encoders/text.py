"""Text: from transcripts to tokens, and from tokens to embeddings with BERT (Devlin et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.encoders.pretrained import NO_CODE, Pretrained, load_model
from cemobam_core.encoders.settings import TextPool
from cemobam_core.errors import InputError
from cemobam_core.operators.pooling import masked_mean

_BATCH = 64
"""Number of texts per batch."""

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


class TextEncoder(nn.Module):
    """A pretrained BERT, or another encoder whose tokenizer frames a text as [CLS] … [SEP].

    Args:
        pretrained: Encoder to load.
        pool: How token embeddings are pooled into one.
        max_tokens: Largest number of tokens. Longer texts are cut to this number, or to the encoder's own limit, and
            keep [CLS] and [SEP]. Shorter texts are padded and masked, so padding does not change their embeddings.

    Raises:
        InputError: Files cannot be loaded, there is no tokenizer, or ``pooler`` is chosen and there is no pooler.
    """

    def __init__(self, pretrained: Pretrained, *, pool: TextPool, max_tokens: int) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.tokenizer = _tokenizer(pretrained)
        self.model = load_model(pretrained, spare=() if pool == "pooler" else ("pooler.",))
        if not hasattr(self.model, "encoder") or not hasattr(self.model.encoder, "layer"):
            raise InputError(
                f"--text-encoder {pretrained.name}: {self.model.config.model_type} models are not supported; "
                "give a BERT, or a model with its architecture such as RoBERTa"
            )
        if len(self.tokenizer) > self.model.config.vocab_size:
            raise InputError(
                f"--text-encoder {pretrained.name}: its tokenizer has {len(self.tokenizer)} tokens, but its model has "
                f"{self.model.config.vocab_size}; use the tokenizer that was published with the model"
            )
        if pool == "pooler" and getattr(self.model, "pooler", None) is None:
            raise InputError(
                f"--text-encoder {pretrained.name}: has no pooler; give --text-pool cls or --text-pool mean"
            )
        positions = getattr(self.model.config, "max_position_embeddings", max_tokens)
        self.max_tokens = min(max_tokens, positions, self.tokenizer.model_max_length)
        self.pooling: TextPool = pool

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, from the lowest to the highest."""
        layers: nn.ModuleList = self.model.encoder.layer
        return layers

    @property
    def on_top(self) -> list[nn.Module]:
        """The modules after the last layer, which are tuned with it: the pooler, if it is used."""
        return [self.model.pooler] if self.pooling == "pooler" else []

    @staticmethod
    def read(text: str) -> str:
        """Return the text itself, because nothing is read from disk."""
        return text

    def forward(self, texts: Sequence[str]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
        """Return the token embeddings of texts, padded to the longest one, and a mask of the valid ones."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(next(self.parameters()).device)
        return self.model(**tokens).last_hidden_state, tokens["attention_mask"].bool()

    def pool(self, hidden: Float[Tensor, "B T E"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Return one embedding per text, pooled as the constructor's ``pool`` says."""
        if self.pooling == "mean":
            return masked_mean(hidden, mask)
        if self.pooling == "pooler":
            pooled: Tensor = self.model.pooler(hidden)
            return pooled
        return hidden[:, 0]

    @torch.no_grad()
    def embed(self, texts: Sequence[str], *, sequence: bool) -> list[Float[Tensor, "_ E"]]:
        """Return embeddings of texts on the CPU: pooled (T = 1), or of every token, including [CLS] and [SEP]."""
        embeddings: list[Tensor] = []
        for start in range(0, len(texts), _BATCH):
            hidden, mask = self(texts[start : start + _BATCH])
            if sequence:
                embeddings += [rows[valid].float().cpu() for rows, valid in zip(hidden, mask, strict=True)]
            else:
                embeddings += self.pool(hidden, mask)[:, None].float().cpu()
        return embeddings

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as transformers does."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _tokenizer(pretrained: Pretrained) -> Any:
    from transformers import AutoTokenizer

    if not any(found for pattern in _VOCABULARIES for found in pretrained.folder.glob(pattern)):
        # Without vocabulary, transformers would create a tokenizer that knows no words.
        raise InputError(
            f"--text-encoder {pretrained.name}: no tokenizer in {pretrained.folder}; "
            "add its tokenizer.json or vocab.txt"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(pretrained.folder, **NO_CODE)
        framed = tokenizer("a")["input_ids"]
    except Exception as error:  # broken files can raise any exception
        raise InputError(
            f"--text-encoder {pretrained.name}: its tokenizer cannot be loaded from {pretrained.folder} "
            f"({type(error).__name__}); replace tokenizer.json or vocab.txt with the published file"
        ) from None
    if tokenizer.cls_token_id is None or framed[0] != tokenizer.cls_token_id or framed[-1] != tokenizer.sep_token_id:
        raise InputError(
            f"--text-encoder {pretrained.name}: its tokenizer does not frame a text as [CLS] … [SEP]; "
            "give an encoder such as BERT, whose tokenizer does"
        )
    return tokenizer
