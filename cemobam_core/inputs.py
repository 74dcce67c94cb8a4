"""The inputs of every system: embeddings, masks and the graph of a batch of utterances."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from cemobam_core.errors import InputError
from cemobam_core.operators.pooling import masked_mean
from cemobam_core.rows import Rows


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes that a system takes from its features.

    Attributes:
        audio_dim: Size of an audio embedding (768 for wav2vec 2.0 base).
        text_dim: Size of a text embedding (768 for BERT base).
        num_classes: C, the number of emotions.
    """

    audio_dim: int
    text_dim: int
    num_classes: int


class Steps(Tensor):
    """The embeddings of one modality: a tensor (N, T, E) that knows which of its steps are valid.

    You can use it like any tensor. The results are plain tensors. Features with one embedding per utterance have T = 1.

    Attributes:
        mask: (N, T), true for valid steps. Valid steps come first, and every utterance has at least one.
        padded: Whether any step is padding.
    """

    mask: Bool[Tensor, "n t"]
    padded: bool

    # Operations return plain tensors, at no cost (see "Extending PyTorch" in the PyTorch documentation).
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None = None) -> Steps:
        """Return embeddings as steps.

        Args:
            x: (N, E) or (N, T, E).
            mask: (N, T), true for valid steps. ``None`` if all steps are valid.

        Raises:
            InputError: The shape is wrong, the mask does not fit, or padding does not come last.
        """
        if x.ndim not in (2, 3):
            raise InputError(f"embeddings of shape {tuple(x.shape)}: they must be (N, E), or (N, T, E) for T steps")
        x = x.unsqueeze(1) if x.ndim == 2 else x
        if mask is None:
            return cls._made(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), padded=False)
        if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
            kind = f"{str(mask.dtype).removeprefix('torch.')} {tuple(mask.shape)}"
            raise InputError(f"a mask is {kind}; for embeddings {tuple(x.shape)} it must be bool {tuple(x.shape[:2])}")
        if not bool(mask[:, 0].all()) or bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise InputError("a mask must have the valid steps first, at least one for each utterance")
        return cls._made(x, mask, padded=not bool(mask.all()))

    @classmethod
    def _made(cls, x: Tensor, mask: Tensor, *, padded: bool) -> Steps:
        steps: Steps = x.as_subclass(cls)
        steps.mask, steps.padded = mask, padded
        return steps

    @cached_property
    def pooled(self) -> Float[Tensor, "n e"]:
        """The mean over the valid steps of each utterance, (N, E)."""
        with torch.inference_mode(False):  # the result is cached, and training may use it later
            return masked_mean(self, self.mask)

    @cached_property
    def valid(self) -> Float[Tensor, "v e"]:
        """The valid steps of all utterances, one utterance after another, (V, E)."""
        with torch.inference_mode(False):
            return self[self.mask] if self.padded else self.flatten(0, 1)

    @cached_property
    def _places(self) -> Int64[Tensor, " v"]:
        with torch.inference_mode(False):
            return self.mask.flatten().nonzero().squeeze(1)

    def laid_out(self, valid: Float[Tensor, "*r v d"]) -> Float[Tensor, "*r n t d"]:
        """Return one vector for each valid step as (..., N, T, d), with zeros for padding."""
        if self.padded:
            # Use stored positions: searching for them in the mask would make the GPU wait.
            padded = valid.new_zeros(*valid.shape[:-2], self.mask.numel(), valid.shape[-1])
            valid = padded.index_copy(-2, self._places, valid)
        out: Tensor = valid.unflatten(-2, self.mask.shape)
        return out

    def on(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Steps:
        """Return these steps on another device and, if given, as another type. Return ``self`` if nothing changes."""
        plain = self.as_subclass(Tensor)
        moved = plain.to(device, dtype)
        return self if moved is plain else self._made(moved, self.mask.to(device), padded=self.padded)

    @classmethod
    def joined(cls, parts: Sequence[Steps]) -> Steps:
        """Return the utterances of several batches as one. Shorter sequences are padded."""
        most = max(one.shape[1] for one in parts)
        x = torch.cat([pad(one.as_subclass(Tensor), (0, 0, 0, most - one.shape[1])) for one in parts])
        mask = torch.cat([pad(one.mask, (0, most - one.shape[1])) for one in parts])
        padded = any(one.padded or one.shape[1] < most for one in parts)
        return cls._made(x, mask, padded=padded)

    def part(self, rows: Int64[Tensor, " p"]) -> Steps:
        """Return the utterances at ``rows``. ``padded`` keeps its value, even if none of these has padding."""
        return self._made(self.as_subclass(Tensor)[rows], self.mask[rows], padded=self.padded)

    def __reduce_ex__(self, _: object) -> tuple[Any, ...]:
        """Pickle the tensor and its mask, without cached results."""
        return _remade, (self.as_subclass(Tensor), self.mask, self.padded)

    def __deepcopy__(self, memo: dict[int, Any]) -> Steps:
        """Copy the tensor and its mask."""
        x, mask = (copy.deepcopy(tensor, memo) for tensor in (self.as_subclass(Tensor), self.mask))
        memo[id(self)] = made = self._made(x, mask, padded=self.padded)
        return made


def _remade(x: Tensor, mask: Tensor, padded: bool) -> Steps:
    return Steps._made(x, mask, padded=padded)


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch of N utterances: the input of every system.

    Attributes:
        audio: (N, T_a, E_a), with ``.mask`` (N, T_a) and ``.pooled`` (N, E_a).
        text: (N, T_t, E_t), with ``.mask`` (N, T_t) and ``.pooled`` (N, E_t).
        edge_index: (2, E), the graph over the utterances. Row 0 is the source j, row 1 is the target i that gathers
            from j. It is empty for a system that does not use the graph. A stack of trials holds the graphs of all
            trials: utterance i of trial r is node r · N + i.
    """

    audio: Steps
    text: Steps
    edge_index: Int64[Tensor, "2 e"]

    @classmethod
    def from_features(
        cls,
        audio: Tensor,
        text: Tensor,
        edge_index: Tensor | None = None,
        audio_mask: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Inputs:
        """Create the inputs from embeddings.

        Args:
            audio: (N, E_a) or (N, T_a, E_a).
            text: (N, E_t) or (N, T_t, E_t).
            edge_index: (2, E). ``None`` for no edges.
            audio_mask: (N, T_a), true for valid audio steps. ``None`` if all steps are valid.
            text_mask: (N, T_t), true for valid text steps. ``None`` if all steps are valid.

        Raises:
            InputError: The shapes do not fit together.
        """
        if len(audio) != len(text):
            raise InputError(
                f"{len(audio)} audio embeddings but {len(text)} text embeddings: give one of each for every utterance"
            )
        if edge_index is None:
            edge_index = torch.empty(2, 0, dtype=torch.int64, device=audio.device)
        return cls(Steps.of(audio, audio_mask), Steps.of(text, text_mask), edge_index)

    def part(self, rows: Int64[Tensor, " p"], edge_index: Int64[Tensor, "2 e_part"] | None = None) -> Inputs:
        """Return the utterances at ``rows``, with edges among them, which refer to places in ``rows``."""
        edges = self.edge_index[:, :0] if edge_index is None else edge_index
        return Inputs(self.audio.part(rows), self.text.part(rows), edges)

    @classmethod
    def joined(cls, parts: Sequence[Inputs]) -> Inputs:
        """Return the utterances of several batches, one batch after another, without a graph."""
        edges = parts[0].edge_index[:, :0]
        return cls(Steps.joined([one.audio for one in parts]), Steps.joined([one.text for one in parts]), edges)

    @classmethod
    def together(cls, inputs: Sequence[Inputs]) -> Inputs:
        """Combine the inputs of several trials that have the same utterances but different graphs."""
        first = inputs[0]
        edges = [one.edge_index + trial * len(first) for trial, one in enumerate(inputs)]
        return replace(first, edge_index=torch.cat(edges, dim=1))

    def __len__(self) -> int:
        """Return N, the number of utterances."""
        return len(self.audio)

    @property
    def dims(self) -> tuple[int, int]:
        """The sizes of an audio and of a text embedding."""
        return self.audio.shape[-1], self.text.shape[-1]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Inputs:
        """Return the inputs on another device and, if given, as another floating type, copying only if needed."""
        return Inputs(self.audio.on(device, dtype), self.text.on(device, dtype), self.edge_index.to(device))


class Stored(NamedTuple):
    """The embeddings of some utterances, some or all of which stay in their files.

    Attributes:
        audio: (N, E_a) or (N, T_a, E_a).
        text: (N, E_t) or (N, T_t, E_t).
        audio_mask: (N, T_a), true for valid audio steps. ``None`` if all steps are valid.
        text_mask: (N, T_t), the same for text.
    """

    audio: Tensor | Rows
    text: Tensor | Rows
    audio_mask: Tensor | None
    text_mask: Tensor | None

    def read(self, rows: Int64[Tensor, " p"] | slice) -> Inputs:
        """Return the utterances at ``rows``, without a graph."""
        masks = (None if mask is None else mask[rows] for mask in (self.audio_mask, self.text_mask))
        return Inputs.from_features(self.audio[rows], self.text[rows], None, *masks)


class StoredInputs(Inputs):
    """Inputs for training in mini-batches: only ``part`` reads little. ``audio``, ``text`` and ``to`` read all.

    Args:
        sets: Sets of utterances that follow one another.
        edge_index: (2, E), the graph over the utterances of all sets.
    """

    def __init__(self, sets: Sequence[Stored], edge_index: Int64[Tensor, "2 e"]) -> None:
        object.__setattr__(self, "_sets", tuple(sets))
        object.__setattr__(self, "edge_index", edge_index)

    def __getattr__(self, name: str) -> Any:
        """Read the embeddings of one modality, or of both.

        Raises:
            AttributeError: There is no such attribute.
        """
        if name in ("audio", "text"):
            return getattr(Inputs.joined([one.read(slice(None)) for one in self._sets]), name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __len__(self) -> int:
        """Return N, the number of utterances."""
        return sum(len(one.audio) for one in self._sets)

    @property
    def dims(self) -> tuple[int, int]:
        """The sizes of an audio and of a text embedding."""
        return self._sets[0].audio.shape[-1], self._sets[0].text.shape[-1]

    def part(self, rows: Int64[Tensor, " p"], edge_index: Int64[Tensor, "2 e_part"] | None = None) -> Inputs:
        """Return the utterances at ``rows``, with edges among them, which refer to places in ``rows``."""
        edges = self.edge_index[:, :0] if edge_index is None else edge_index
        start, pieces, places = 0, [], []
        for one in self._sets:
            inside = ((rows >= start) & (rows < start + len(one.audio))).nonzero().flatten()
            if len(inside):
                pieces.append(one.read(rows[inside] - start))
                places.append(inside)
            start += len(one.audio)
        if len(pieces) == 1:
            return Inputs(pieces[0].audio, pieces[0].text, edges)
        return Inputs.joined(pieces).part(torch.cat(places).argsort(), edges)
