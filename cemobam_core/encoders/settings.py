"""Every choice in making features, and the signature that tells when they must be made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from cemobam_core.corpora.splits import DEFAULT_PROTOCOL
from cemobam_core.corpora.utterances import RawCorpus
from cemobam_core.encoders.pretrained import Pretrained, find_pretrained
from cemobam_core.errors import InputError

Level = Literal["utterance", "sequence"]
TextPool = Literal["cls", "pooler", "mean"]
"""How token embeddings become one: the first, BERT's pooler over it (its dense layer and tanh), or their mean."""
Objective = Literal["supervised", "contrastive"]

EXTRACTION_VERSION = 1
"""Raised by a change that changes the features made from the same settings."""

_DEFAULT_TUNED = 4
"""Layers, of the twelve of wav2vec2-base and BERT-base."""


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How features are made of a corpus.

    Attributes:
        audio_encoder: a hub id or a folder.
        text_encoder: likewise.
        level: ``utterance``: one embedding each; ``sequence``: text tokens, and audio frames averaged down.
        audio_steps: of a sequence, at most.
        max_seconds: longer clips are cut into windows.
        max_tokens: longer transcripts are cut.
        text_pool: how the tokens of a transcript become one embedding.
        tune_layers: the upper layers of either encoder that are tuned on the train split; None: 4, or all there are.
        objective: what they are tuned for.
        tune_epochs: at most.
        tune_lr: the highest learning rate.
        protocol: who goes into train, val and test.
        split_seed: varies the protocols that draw lots.
    """

    audio_encoder: str = "facebook/wav2vec2-base-960h"
    text_encoder: str = "google-bert/bert-base-uncased"
    level: Level = "utterance"
    audio_steps: int = 32
    max_seconds: float = 20.0
    max_tokens: int = 128
    text_pool: TextPool = "cls"
    tune_layers: int | None = None
    objective: Objective = "supervised"
    tune_epochs: int = 10
    tune_lr: float = 2e-5
    protocol: str = DEFAULT_PROTOCOL
    split_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings with the corpus and the encoders that they mean: all that decides what the features are.

    Attributes:
        corpus: the utterances.
        settings: how.
        audio, text: the encoders at hand.
        tuned: how many upper layers of each are tuned, audio first.
    """

    corpus: RawCorpus
    settings: FeatureSettings
    audio: Pretrained
    text: Pretrained
    tuned: tuple[int, int]

    @classmethod
    def of(cls, corpus: RawCorpus, settings: FeatureSettings) -> Recipe:
        """Find the encoders.

        Raises:
            InputError: an encoder that is not to be had; more layers to tune than it has.
        """
        audio = find_pretrained(settings.audio_encoder, "--audio-encoder")
        text = find_pretrained(settings.text_encoder, "--text-encoder")
        return cls(
            corpus=corpus,
            settings=settings,
            audio=audio,
            text=text,
            tuned=(_layers(settings.tune_layers, audio), _layers(settings.tune_layers, text)),
        )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All of it as plain values; what has no effect is left out."""
        facts = {
            "version": EXTRACTION_VERSION,
            "corpus_fingerprint": self.corpus.fingerprint(),
            "class_names": list(self.corpus.class_names),
            **asdict(self.settings),
            "audio_revision": self.audio.revision,
            "text_revision": self.text.revision,
            "tune_layers": list(self.tuned),
        }
        positions = self.text.config.get("max_position_embeddings")
        if isinstance(positions, int):
            facts["max_tokens"] = min(self.settings.max_tokens, positions)
        for name in ("audio_encoder", "text_encoder"):
            del facts[name]  # the revision says which; a folder may be moved
        idle = ["text_pool"] if self.settings.level == "sequence" and not self.tuned[1] else []
        idle += ["audio_steps"] if self.settings.level == "utterance" else []
        idle += [] if any(self.tuned) else ["objective", "tune_epochs", "tune_lr"]
        idle += [] if self.settings.protocol == "speaker" or ":" in self.settings.protocol else ["split_seed"]
        return {name: value for name, value in facts.items() if name not in idle}

    @property
    def signature(self) -> str:
        """16 hexadecimal digits that stand for :attr:`facts`: the same ones, the same features but for rounding.

        The last bits are also the device's and the libraries'; ``features.json`` names both.
        """
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]


def _layers(asked: int | None, encoder: Pretrained) -> int:
    there, _ = encoder.size
    if asked is None:
        return min(_DEFAULT_TUNED, there)
    if asked > there:
        raise InputError(f"--tune-layers {asked}: {encoder.name} has {there} layers; give as many at most")
    return asked
