"""Settings of feature extraction, and the signature that shows when features must be made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cemobam_core.corpora.columns import DEFAULT_PROTOCOL, Columns
from cemobam_core.corpora.protocols import is_drawn
from cemobam_core.corpora.split_file import SplitFile
from cemobam_core.corpora.splits import Assignment, Say, quietly, split_utterances
from cemobam_core.corpora.utterances import RawCorpus
from cemobam_core.encoders.builds import build_of
from cemobam_core.encoders.layers import Layer, layers_used
from cemobam_core.encoders.pretrained import Pretrained, find_pretrained
from cemobam_core.errors import InputError

Level = Literal["utterance", "sequence"]
TextPool = Literal["cls", "pooler", "mean"]
"""Pooling of token embeddings into one: the first token, BERT's pooler on it (a dense layer and tanh), or the mean."""
Objective = Literal["supervised", "contrastive"]
Dtype = Literal["float32", "float16"]

EXTRACTION_VERSION = 1
"""Version of the extraction. Increase it with every change that alters the features made from the same settings."""

_OF_A_CORPUS = (
    *("audio_encoder", "text_encoder", "tune_layers", "objective", "tune_epochs", "tune_lr"),
    *("protocol", "split_seed", "split_file", "asr", "dtype"),
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
        audio_layer: The hidden state of the audio encoder that gives the frames, see ``Layer``.
        text_layer: The hidden state of the text encoder that gives the token embeddings.
        tune_layers: Number of layers of each encoder to tune on the train split, the upper ones of those that are used.
            ``None`` for 4, or all layers if there are fewer.
        objective: Objective of tuning.
        tune_epochs: Largest number of epochs of tuning.
        tune_lr: Highest learning rate of tuning.
        protocol: Split protocol.
        split_seed: Seed of the random split protocols.
        split_file: File or folder of splits, instead of a protocol.
        asr: Hub id or folder of the Whisper model that transcribes a corpus without transcripts. ``None`` for none.
        dtype: Type of the numbers in the files.
    """

    audio_encoder: str = "facebook/wav2vec2-base-960h"
    text_encoder: str = "google-bert/bert-base-uncased"
    level: Level = "utterance"
    audio_steps: int = 32
    max_seconds: float = 20.0
    max_tokens: int = 128
    text_pool: TextPool = "cls"
    audio_layer: Layer = "last"
    text_layer: Layer = "last"
    tune_layers: int | None = None
    objective: Objective = "supervised"
    tune_epochs: int = 10
    tune_lr: float = 2e-5
    protocol: str = DEFAULT_PROTOCOL
    split_seed: int = 0
    split_file: Path | None = None
    asr: str | None = None
    dtype: Dtype = "float32"

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
        split_file: Content of the settings' split file, if they have one.
        asr: Whisper model on disk, for a corpus without transcripts.
    """

    corpus: RawCorpus
    settings: FeatureSettings
    audio: Pretrained
    text: Pretrained
    tuned: tuple[int, int]
    split_file: SplitFile | None = None
    asr: Pretrained | None = None

    @classmethod
    def of(cls, corpus: RawCorpus, settings: FeatureSettings) -> Recipe:
        """Find the encoders of the settings.

        Raises:
            InputError: An encoder is not available, is not supported or has fewer layers than are asked for, the split
                file cannot be read, or the corpus has transcripts and a Whisper model is given, or has none and none is
                given.
        """
        if settings.asr and corpus.transcribed:
            raise InputError(f"--asr {settings.asr}: {corpus.root} has transcripts; leave the option out")
        if not settings.asr and not corpus.transcribed:
            raise InputError(
                f"{corpus.root}: has no transcripts, which a manifest has in its column text; add them, or give --asr "
                "MODEL, a Whisper model that transcribes the clips"
            )
        audio = find_pretrained(settings.audio_encoder, "--audio-encoder")
        text = find_pretrained(settings.text_encoder, "--text-encoder")
        tuned = (
            _tuned(settings.tune_layers, "audio", audio, settings.audio_layer),
            _tuned(settings.tune_layers, "text", text, settings.text_layer),
        )
        if settings.text_layer == 0 and settings.text_pool == "cls" and settings.level == "utterance":
            raise InputError(
                "--text-layer 0: the input of the first layer has the same [CLS] for every text; give --text-pool mean"
            )
        return cls(
            corpus=corpus,
            settings=settings,
            audio=audio,
            text=text,
            tuned=tuned,
            split_file=SplitFile.read(settings.split_file) if settings.split_file else None,
            asr=find_pretrained(settings.asr, "--asr") if settings.asr else None,
        )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The recipe as plain values, without settings that have no effect."""
        facts = {
            "version": EXTRACTION_VERSION,
            "class_names": list(self.corpus.class_names),  # first, so that a message names them
            "corpus_fingerprint": self.corpus.fingerprint(),
            **asdict(self.settings),
            "audio_revision": self.audio.revision,
            "text_revision": self.text.revision,
            "tune_layers": list(self.tuned),
        }
        if self.asr:
            facts["asr_revision"] = self.asr.revision
        for modality, setting in (("audio", "max_seconds"), ("text", "max_tokens")):
            pretrained: Pretrained = getattr(self, modality)
            build = build_of(modality, pretrained)
            if (longest := build.longest(pretrained.config)) is not None:
                facts[setting] = min(facts[setting], longest)
            if facts[layer := f"{modality}_layer"] in ("last", build.size(pretrained)[0]):
                del facts[layer]
        for name in ("audio_encoder", "text_encoder", "asr"):
            del facts[name]  # the revision identifies the encoder, even if its folder is moved
        idle = ["text_pool"] if self.settings.level == "sequence" and not self.tuned[1] else []
        idle += ["audio_steps"] if self.settings.level == "utterance" else []
        idle += ["dtype"] if self.settings.dtype == "float32" else []  # files of before name no type
        idle += [] if any(self.tuned) else ["objective", "tune_epochs", "tune_lr"]
        if self.split_file:
            facts["split_file"] = self.split_file.digest
            idle += ["protocol", "split_seed"]
        else:
            drawn = is_drawn(Columns.of_corpus(self.corpus), self.settings.protocol)
            idle += ["split_file"] if drawn else ["split_file", "split_seed"]
        return {name: value for name, value in facts.items() if name not in idle}

    def split(self, say: Say = quietly) -> tuple[Assignment, ...]:
        """Split the corpus as the settings say.

        Args:
            say: Function that receives lines on the splits.

        Raises:
            InputError: The corpus does not allow the protocol, or the split file does not fit it.
        """
        return split_utterances(
            self.corpus, self.split_file or self.settings.protocol, self.settings.split_seed, say=say
        )

    @property
    def signature(self) -> str:
        """16 hexadecimal digits that identify ``facts``. Equal signatures mean equal features up to rounding.

        The last bits of the features also depend on the device and the libraries. ``features.json`` names both.
        """
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]


def _tuned(asked: int | None, modality: str, encoder: Pretrained, layer: Layer) -> int:
    there, _ = build_of(modality, encoder).size(encoder)
    used = layers_used(layer, there, option=f"--{modality}-layer", name=encoder.name)
    if asked is None:
        return min(_DEFAULT_TUNED, used)
    if asked > used:
        of = (
            f"with --{modality}-layer {layer} {encoder.name} uses {used}"
            if used < there
            else f"{encoder.name} has {used}"
        )
        raise InputError(f"--tune-layers {asked}: {of} layers; give at most {used}")
    return asked
