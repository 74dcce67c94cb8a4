"""Settings of feature extraction, and the signature that shows when features must be made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

from cemobam_core.corpora.splits import DEFAULT_PROTOCOL
from cemobam_core.corpora.utterances import RawCorpus
from cemobam_core.encoders.pretrained import Pretrained, find_pretrained
from cemobam_core.errors import InputError

Level = Literal["utterance", "sequence"]
TextPool = Literal["cls", "pooler", "mean"]
"""Pooling of token embeddings into one: the first token, BERT's pooler on it (a dense layer and tanh), or the mean."""
Objective = Literal["supervised", "contrastive"]

EXTRACTION_VERSION = 1
"""Version of the extraction. Increase it with every change that alters the features made from the same settings."""

_OF_A_CORPUS = (
    *("audio_encoder", "text_encoder", "tune_layers", "objective", "tune_epochs", "tune_lr"),
    *("protocol", "split_seed", "asr"),
)
"""Settings that decide what is encoded and with which weights. All others decide the embedding of a single clip."""

_DEFAULT_TUNED = 4
"""Default number of tuned layers, of the twelve layers of wav2vec2-base and BERT-base."""


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Settings of feature extraction from a corpus.

    Attributes:
        audio_encoder: Hub id or folder of the audio encoder.
        text_encoder: Hub id or folder of the text encoder.
        level: ``utterance`` for one embedding per utterance, or ``sequence`` for text tokens and averaged audio frames.
        audio_steps: Largest number of audio steps in a sequence.
        max_seconds: Longest audio window in seconds. Longer clips are cut into windows.
        max_tokens: Largest number of tokens. Longer transcripts are cut.
        text_pool: How the tokens of a transcript are pooled into one embedding.
        tune_layers: Number of upper layers of each encoder to tune on the train split. ``None`` for 4, or all layers if
            there are fewer.
        objective: Objective of tuning.
        tune_epochs: Largest number of epochs of tuning.
        tune_lr: Highest learning rate of tuning.
        protocol: Split protocol.
        split_seed: Seed of the random split protocols.
        asr: Hub id or folder of the Whisper model that transcribes a corpus without transcripts. ``None`` for none.
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
    asr: str | None = None

    def of_embedding(self) -> dict[str, Any]:
        """Return the settings that decide the embedding of a clip or a transcript, given its encoder."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _OF_A_CORPUS}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings together with their corpus and encoders: everything that determines the features.

    Attributes:
        corpus: Corpus with its utterances.
        settings: Settings of extraction.
        audio: Audio encoder on disk.
        text: Text encoder on disk.
        tuned: Number of tuned upper layers of the audio and the text encoder.
        asr: Whisper model on disk, for a corpus without transcripts.
    """

    corpus: RawCorpus
    settings: FeatureSettings
    audio: Pretrained
    text: Pretrained
    tuned: tuple[int, int]
    asr: Pretrained | None = None

    @classmethod
    def of(cls, corpus: RawCorpus, settings: FeatureSettings) -> Recipe:
        """Find the encoders of the settings.

        Raises:
            InputError: An encoder is not available or has fewer layers than are to be tuned, or the corpus has
                transcripts and a Whisper model is given, or has none and none is given.
        """
        spoken = any(utterance.text for utterance in corpus.utterances)
        if settings.asr and spoken:
            raise InputError(f"--asr {settings.asr}: {corpus.root} has transcripts; leave the option out")
        if not settings.asr and not spoken:
            raise InputError(
                f"{corpus.root}: has no transcripts, which a manifest has in its column text; add them, or give --asr "
                "MODEL, a Whisper model that transcribes the clips"
            )
        audio = find_pretrained(settings.audio_encoder, "--audio-encoder")
        text = find_pretrained(settings.text_encoder, "--text-encoder")
        return cls(
            corpus=corpus,
            settings=settings,
            audio=audio,
            text=text,
            tuned=(_layers(settings.tune_layers, audio), _layers(settings.tune_layers, text)),
            asr=find_pretrained(settings.asr, "--asr") if settings.asr else None,
        )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The recipe as plain values, without settings that have no effect."""
        facts = {
            "version": EXTRACTION_VERSION,
            "corpus_fingerprint": self.corpus.fingerprint(),
            "class_names": list(self.corpus.class_names),
            **asdict(self.settings),
            "audio_revision": self.audio.revision,
            "text_revision": self.text.revision,
            "tune_layers": list(self.tuned),
        }
        if self.asr:
            facts["asr_revision"] = self.asr.revision
        positions = self.text.config.get("max_position_embeddings")
        if isinstance(positions, int):
            facts["max_tokens"] = min(self.settings.max_tokens, positions)
        for name in ("audio_encoder", "text_encoder", "asr"):
            del facts[name]  # the revision identifies the encoder, even if its folder is moved
        idle = ["text_pool"] if self.settings.level == "sequence" and not self.tuned[1] else []
        idle += ["audio_steps"] if self.settings.level == "utterance" else []
        idle += [] if any(self.tuned) else ["objective", "tune_epochs", "tune_lr"]
        idle += [] if self.settings.protocol == "speaker" or ":" in self.settings.protocol else ["split_seed"]
        return {name: value for name, value in facts.items() if name not in idle}

    @property
    def signature(self) -> str:
        """16 hexadecimal digits that identify ``facts``. Equal signatures mean equal features up to rounding.

        The last bits of the features also depend on the device and the libraries. ``features.json`` names both.
        """
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]


def _layers(asked: int | None, encoder: Pretrained) -> int:
    there, _ = encoder.size
    if asked is None:
        return min(_DEFAULT_TUNED, there)
    if asked > there:
        raise InputError(f"--tune-layers {asked}: {encoder.name} has {there} layers; give at most {there}")
    return asked
