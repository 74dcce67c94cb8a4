"""Text: from transcripts to tokens, and from tokens to embeddings. ``builds`` has what the architectures differ in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.encoders.builds import text_build
from cemobam_core.encoders.layers import Layer, hidden_state, layers_used
from cemobam_core.encoders.pretrained import NO_CODE, Pretrained
from cemobam_core.encoders.settings import TextPool
from cemobam_core.errors import InputError
from cemobam_core.operators.pooling import masked_mean

_BATCH = 64
"""Number of texts per batch."""

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


class TextEncoder(nn.Module):
    """A pretrained text encoder of one of the families in ``builds``.

    Args:
        pretrained: Encoder to load.
        pool: How token embeddings are pooled into one.
        max_tokens: Largest number of tokens. Longer texts are cut to this number, or to the encoder's own limit, and
            keep [CLS] and [SEP]. Shorter texts are padded and masked, so padding does not change their embeddings.
        layer: The hidden state that gives the token embeddings.

    Raises:
        InputError: Files cannot be loaded, the model has another architecture or fewer layers, there is no tokenizer,
            or ``pooler`` is chosen and there is no pooler, or it would see another layer than the last.
    """

    def __init__(self, pretrained: Pretrained, *, pool: TextPool, max_tokens: int, layer: Layer = "last") -> None:
        super().__init__()
        self.pretrained = pretrained
        self.build = text_build(pretrained, pooler=pool == "pooler")
        self.model = self.build.model
        self.layer: Layer = layer
        there = len(self.build.layers)
        self.used = layers_used(layer, there, option="--text-layer", name=pretrained.name)
        if pool == "pooler" and layer not in ("last", there):
            raise InputError(
                f"--text-layer {layer}: --text-pool pooler was trained on the last layer; "
                "give --text-pool cls or --text-pool mean"
            )
        self.tokenizer = _tokenizer(pretrained)
        if len(self.tokenizer) > self.model.config.vocab_size:
            raise InputError(
                f"--text-encoder {pretrained.name}: its tokenizer has {len(self.tokenizer)} tokens, but its model has "
                f"{self.model.config.vocab_size}; use the tokenizer that was published with the model"
            )
        longest = self.build.longest(self.model.config.to_dict())
        self.max_tokens = int(min(max_tokens, longest or max_tokens, self.tokenizer.model_max_length))
        self.pooling: TextPool = pool

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers that are used, from the lowest to the highest."""
        return self.build.layers[: self.used]

    @property
    def on_top(self) -> list[nn.Module]:
        """The modules after the last layer, which are tuned with it: a final norm, and the pooler if it is used."""
        above = self.build.on_top if self.used == len(self.build.layers) else []
        return [*above, self.model.pooler] if self.pooling == "pooler" else above

    @staticmethod
    def read(text: str) -> str:
        """Return the text itself, because nothing is read from disk."""
        return text

    def forward(self, texts: Sequence[str]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
        """Return the token embeddings of texts, padded to the longest one, and a mask of the valid ones."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(next(self.parameters()).device)
        mask = tokens["attention_mask"]
        run = partial(self.build.encode, tokens["input_ids"], mask)
        return hidden_state(run, self.build.layers, self.layer), mask.bool()

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
            "add its tokenizer.json, vocab.txt or sentencepiece model"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(pretrained.folder, **NO_CODE)
        framed = tokenizer("a")["input_ids"]
    except Exception as error:  # broken files can raise any exception
        raise InputError(
            f"--text-encoder {pretrained.name}: its tokenizer cannot be loaded from {pretrained.folder} "
            f"({type(error).__name__}); replace its tokenizer files with the published ones"
        ) from None
    if tokenizer.cls_token_id is None or framed[0] != tokenizer.cls_token_id or framed[-1] != tokenizer.sep_token_id:
        raise InputError(
            f"--text-encoder {pretrained.name}: its tokenizer does not frame a text as [CLS] … [SEP]; "
            "use the tokenizer that was published with the model"
        )
    tokenizer.padding_side = "right"  # [CLS] comes first in every row
    return tokenizer
