"""Transcripts of clips that have none, by Whisper (Radford et al., 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cemobam_core.corpora.utterances import Part, Utterance
from cemobam_core.encoders.decoding import SAMPLE_RATE
from cemobam_core.encoders.pretrained import NO_CODE, Pretrained
from cemobam_core.encoders.sound import read_audio
from cemobam_core.encoders.store import write_json
from cemobam_core.encoders.trial import tried_first
from cemobam_core.errors import InputError
from cemobam_core.json_files import read_json
from cemobam_core.progress import progress_bar

_WINDOW = 30 * SAMPLE_RATE
"""Samples in the longest window: Whisper reads 30 seconds at once."""


class Transcriber:
    """A Whisper model that turns speech into text, greedily. A multilingual model finds the language by itself.

    Args:
        pretrained: Whisper model on disk.
        model: The loaded model.
        processor: Its feature extractor and tokenizer.
    """

    def __init__(self, pretrained: Pretrained, model: Any, processor: Any) -> None:
        self.pretrained = pretrained
        self.model = model
        self.processor = processor

    def to(self, device: str) -> Transcriber:
        """Move the model to a device and return the transcriber."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def transcribe(self, clip: npt.NDArray[np.float32]) -> str:
        """Return the transcript of a clip, with single spaces. It is empty if no words are heard.

        A clip of more than 30 seconds is cut into windows of equal length, as few as possible, and their transcripts
        follow each other. A word at a cut may be lost.

        Args:
            clip: (samples,) at 16 kHz.
        """
        texts = [self._window(window) for window in np.array_split(clip, math.ceil(len(clip) / _WINDOW))]
        return " ".join(" ".join(texts).split())

    def read(self, sound: Path | Part) -> str:
        """Return the transcript of a sound file, or of a part of it.

        Raises:
            InputError: The file cannot be read, or no words are heard in it.
        """
        text = self.transcribe(read_audio(sound))
        if not text:
            raise InputError(f"{sound}: {self.pretrained.name} hears no words in it; write the transcript yourself")
        return text

    def spectrogram(self, window: npt.NDArray[np.float32]) -> Any:
        """Return the spectrogram of a window, padded with silence to 30 seconds, and the mask of its frames.

        Args:
            window: (samples,) at 16 kHz, at most 30 seconds.
        """
        return self.processor.feature_extractor(
            window, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True
        )

    def _window(self, window: npt.NDArray[np.float32]) -> str:
        heard = self.spectrogram(window).to(self.model.device)
        multilingual = getattr(self.model.generation_config, "is_multilingual", False)
        try:
            tokens = self.model.generate(
                heard["input_features"],
                attention_mask=heard["attention_mask"],
                do_sample=False,
                num_beams=1,
                return_timestamps=False,
                **({"task": "transcribe"} if multilingual else {}),
            )
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            # odd settings in generation_config.json
            said = " ".join(str(error).split())[:120]
            raise InputError(
                f"--asr {self.pretrained.name}: cannot transcribe ({type(error).__name__}: {said}); check its "
                "generation_config.json, or download the model again"
            ) from None
        text: str = self.processor.tokenizer.decode(tokens[0], skip_special_tokens=True)
        return text


def load_transcriber(pretrained: Pretrained) -> Transcriber:
    """Load a Whisper model, on the CPU and in evaluation mode.

    A child process loads it first, see :mod:`cemobam_core.encoders.trial`.

    Args:
        pretrained: Whisper model on disk.

    Raises:
        InputError: The files cannot be loaded, or the model is not a Whisper model.
    """
    kind = pretrained.config.get("model_type")
    if kind != "whisper":
        raise InputError(
            f"--asr {pretrained.name}: {kind} models are not supported; give a Whisper model, such as "
            "openai/whisper-small"
        )
    if not any((pretrained.folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # Without vocabulary, transformers would create a tokenizer that knows no words.
        raise InputError(f"--asr {pretrained.name}: no tokenizer in {pretrained.folder}; add its tokenizer.json")
    tried_first(_try, pretrained)
    return _loaded(pretrained)


def _try(pretrained: Pretrained) -> None:
    """Load a model and run its front end: an odd setting may only show then."""
    transcriber = _loaded(pretrained)
    config = transcriber.model.config
    found = tuple(transcriber.spectrogram(np.ones(SAMPLE_RATE, dtype=np.float32))["input_features"].shape)
    if found != (expected := (1, config.num_mel_bins, 2 * config.max_source_positions)):
        raise InputError(
            f"--asr {pretrained.name}: its preprocessor_config.json gives a spectrogram {found}, but its model takes "
            f"{expected}; replace it with the published file"
        )


def _loaded(pretrained: Pretrained) -> Transcriber:
    from transformers import AutoProcessor, WhisperForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        loaded: Any = WhisperForConditionalGeneration.from_pretrained(
            pretrained.folder, output_loading_info=True, **NO_CODE
        )
        model, info = loaded
        processor = AutoProcessor.from_pretrained(pretrained.folder, **NO_CODE)
        rate = processor.feature_extractor.sampling_rate
    except Exception as error:  # broken files can raise any exception
        raise InputError(
            f"--asr {pretrained.name}: cannot be loaded as a Whisper model ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}); check its files, or download the model again"
        ) from None
    if missing := sorted(info["missing_keys"]):
        raise InputError(f"--asr {pretrained.name}: its weights lack {missing[0]!r}; use the complete model")
    if rate != SAMPLE_RATE:
        raise InputError(f"--asr {pretrained.name}: expects audio at {rate} Hz; give a model for {SAMPLE_RATE} Hz")
    return Transcriber(pretrained, model.eval(), processor)


class Transcripts:
    """The transcripts of a corpus: a folder of small files, so that an interrupted run is resumed.

    Args:
        folder: Folder of the files.
        asr: Whisper model on disk.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, folder: Path, asr: Pretrained, device: str) -> None:
        self._folder, self._asr, self._device = folder, asr, device
        self.texts: dict[str, str] = {}
        """The transcript by utterance id."""
        self.bad: dict[str, str] = {}
        """The reason why an utterance has no transcript, by utterance id."""

    def make(self, parts: Sequence[Sequence[Utterance]], seconds: Mapping[str, float]) -> None:
        """Transcribe every part that is not there yet.

        Args:
            parts: Utterances in parts. One part is lost at most if the run is interrupted.
            seconds: Duration of each clip by utterance id.
        """
        missing = [(number, part) for number, part in enumerate(parts) if not self._find(number, part)]
        if not missing:
            return
        transcriber = load_transcriber(self._asr).to(self._device)
        total, done = sum(seconds[u.id] for _, part in missing for u in part), 0.0
        with progress_bar(total=round(total), desc="transcribing", unit="s of audio") as bar:
            for number, part in missing:
                texts, bad = {}, {}
                for utterance in part:
                    try:
                        texts[utterance.id] = transcriber.read(utterance.audio)
                    except InputError as error:
                        bad[utterance.id] = str(error)
                    done += seconds[utterance.id]
                    bar.update(round(done) - bar.n)
                write_json(self._path(number), {"texts": texts, "bad": bad})
                self.texts |= texts
                self.bad |= bad

    def _find(self, number: int, part: Sequence[Utterance]) -> bool:
        """Return whether a part is there with these utterances. If so, add it to the result."""
        try:
            made = read_json(self._path(number))
            texts, bad = dict(made["texts"]), dict(made["bad"])
        except (ValueError, KeyError, TypeError):
            return False
        if {*texts, *bad} != {u.id for u in part} or not all(type(x) is str for x in (*texts.values(), *bad.values())):
            return False
        self.texts |= texts
        self.bad |= bad
        return True

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.json"
