"""What an architecture of encoders must say and do. A family of architectures is a subclass, in a file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from cemobam_core.encoders.pretrained import Pretrained, load_model
from cemobam_core.errors import InputError

_MOST_LAYERS, _LARGEST_SIZE = 1_000, 100_000
"""Most layers and largest E of an encoder. The largest published ones have some 100 and 10,000."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A published encoder.

    Attributes:
        name: Hub id.
        layers: Number of transformer layers.
        size: E, the size of an embedding.
        millions: Number of parameters that are loaded, in millions.
        licence: Licence on the hub, if it is known.
    """

    name: str
    layers: int
    size: int
    millions: float
    licence: str = ""


class Build(ABC):
    """A family of architectures: how its encoders are loaded and run.

    Attributes:
        modality: ``audio`` or ``text``.
        types: The values of ``model_type`` in ``config.json`` that belong to the family.
        front_end: Description of what becomes of the input before the first layer.
        final_norm: The norm after the last layer, as a path in the model, or empty. Only the last hidden state is
            normalised by it.
        examples: Published encoders.
        size_keys: Keys of ``config.json`` for the number of layers and for E.
        layers_at: The list of layers, as a path in the model.
        model: The loaded model.
    """

    modality: ClassVar[str]
    types: ClassVar[tuple[str, ...]]
    front_end: ClassVar[str]
    examples: ClassVar[tuple[Example, ...]]
    size_keys: ClassVar[tuple[str, str]] = ("num_hidden_layers", "hidden_size")
    layers_at: ClassVar[str]
    final_norm: ClassVar[str] = ""
    model: Any

    @classmethod
    def size(cls, pretrained: Pretrained) -> tuple[int, int]:
        """Return the number of transformer layers, and E, the size of an embedding.

        Raises:
            InputError: ``config.json`` does not say.
        """
        config = pretrained.config
        try:
            layers, size = (int(config[key]) for key in cls.size_keys)
        except (KeyError, TypeError, ValueError, OverflowError):
            layers, size = 0, 0
        if not (1 <= layers <= _MOST_LAYERS and 1 <= size <= _LARGEST_SIZE):
            raise InputError(
                f"{pretrained.folder / 'config.json'}: {' and '.join(cls.size_keys)} must be positive integers, at "
                f"most {_MOST_LAYERS} and {_LARGEST_SIZE}; use the config.json that was published with the encoder"
            )
        return layers, size

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        """Return why an encoder with this ``config.json`` is not supported, or an empty text if it is."""
        return ""

    @classmethod
    def longest(cls, config: Mapping[str, Any]) -> int | float | None:
        """Return the longest input that an encoder takes: seconds of audio, or tokens. ``None`` is no limit."""
        return None

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, from the lowest to the highest."""
        layers: nn.ModuleList = attrgetter(self.layers_at)(self.model)
        return layers

    @property
    def on_top(self) -> list[nn.Module]:
        """The modules between the last layer and the output, which are tuned with the last layer."""
        return [attrgetter(self.final_norm)(self.model)] if self.final_norm else []


class AudioBuild(Build):
    """A family of audio encoders.

    A subclass loads its model in ``__init__``. ``prepare``, ``front`` and ``encode`` are the three stages from a clip
    to the frames. A clip must have the same frames alone and in a batch.

    Attributes:
        rate: Inputs per second of what ``prepare`` returns.
        padded_to: Number of inputs to which ``front`` pads every window, for the size of a batch.
    """

    modality = "audio"
    rate: ClassVar[int] = 16_000
    padded_to: int = 0

    @abstractmethod
    def __init__(self, pretrained: Pretrained) -> None: ...

    def prepare(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "inputs ..."]:
        """Return a whole clip as inputs of the model, with time first. Windows are cut from them."""
        return samples

    @abstractmethod
    def front(self, windows: Sequence[Float[Tensor, "_ ..."]]) -> tuple[Float[Tensor, "B ..."], Bool[Tensor, "B T"]]:
        """Return a batch of windows as ``encode`` takes it, and the mask of the valid frames."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "B ..."], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B _ E"]:
        """Return the frames of a batch. Those after the last column of the mask are not used."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model and the settings of its front end in the format of transformers."""


class TextBuild(Build):
    """A family of text encoders, whose tokenizer frames a text as [CLS] … [SEP].

    Args:
        pretrained: Encoder to load.
        pooler: Whether its pooler is used. If not, the file may lack it.

    Attributes:
        has_pooler: Whether the model has a pooler, ``model.pooler``.
        attention: Implementation of attention, if it is not left to transformers.
    """

    modality = "text"
    layers_at = "encoder.layer"
    has_pooler: ClassVar[bool] = False
    attention: ClassVar[str | None] = None

    def __init__(self, pretrained: Pretrained, *, pooler: bool) -> None:
        self.model = load_model(pretrained, spare=() if pooler else ("pooler.",), attn_implementation=self.attention)

    @classmethod
    def longest(cls, config: Mapping[str, Any]) -> int | float | None:
        """Return the number of positions, such as 512 in BERT."""
        return whole(config, "max_position_embeddings")

    def encode(self, tokens: Int64[Tensor, "B T"], mask: Int64[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        """Return the output of the last layer for every token."""
        hidden: Tensor = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return hidden


def whole(config: Mapping[str, Any], key: str) -> int | None:
    """Return a whole number of ``config.json`` from 0 to 2^31, or ``None`` if there is none under this key."""
    value = config.get(key)
    return value if type(value) is int and 0 <= value <= 2**31 else None


def padded(rows: Sequence[Float[Tensor, "_ E"]]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
    """Return sequences as a batch, padded with zeros at the end, and a mask of the valid steps."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    x = pad_sequence(list(rows), batch_first=True)  # (B, T, E)
    return x, torch.arange(x.shape[1], device=x.device) < lengths[:, None]
