"""Makers of small corpora in the true format: WAV files of a tone in noise, words and tone chosen by the emotion.

What real releases have besides is here too: macOS's ``._`` files, raters' own files, side talk in transcripts, bytes
that are no UTF-8. Everything is drawn by a seed.
"""

from __future__ import annotations

import csv
import json
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

RATE = 16_000

IEMOCAP_CODES = {"anger": ("ang",), "happiness": ("hap", "exc"), "neutral": ("neu",), "sadness": ("sad",)}
OTHER_CODES = ("fru", "xxx", "sur", "fea", "oth", "dis")
ESD_EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
ENGLISH = tuple(f"{number:04d}" for number in range(11, 21))

_TONES = {"anger": 700, "happiness": 450, "neutral": 260, "sadness": 140, "surprise": 1000}
_TONES |= {"angry": 700, "happy": 450, "sad": 140}
_SAID = {
    "anger": "I am furious, get out, I hate this",
    "happiness": "This is wonderful, I love it, what a joy",
    "neutral": "The form is in the second drawer over there",
    "sadness": "I miss her so much, everything is lost",
}
_NAMES = ("Anna", "Ben", "Carla", "David", "Ella", "Frank", "Grace", "Henry")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_wav(path: Path, hertz: float, *, seconds: float = 0.4, seed: int = 0, channels: int = 1) -> None:
    """Write a tone in some noise, with 16 bit and 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n = int(seconds * RATE)
    samples = 0.4 * np.sin(2 * np.pi * hertz * np.arange(n) / RATE) + 0.02 * np.random.default_rng(seed).normal(size=n)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.repeat((samples * 32767).astype("<i2"), channels).tobytes())


def make_iemocap(
    root: Path,
    *,
    per_class: int | Mapping[int, Sequence[int]] = 4,
    per_speaker: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
    sessions: Sequence[int] = (1, 2, 3, 4, 5),
    others: int = 2,
    seconds: tuple[float, float] = (0.3, 0.6),
    seed: int = 0,
) -> Path:
    """Write a release of IEMOCAP: one improvised and one scripted dialogue per session, with both speakers in each.

    Args:
        root: Folder for ``Session1`` and so on.
        per_class: Utterances of each of the four classes per session, over the two speakers and the two dialogues;
            or, by session, one number per class.
        per_speaker: Instead of ``per_class``: by speaker and script, the utterances of each class. Then there is a
            dialogue for each script.
        sessions: Sessions to write.
        others: Number of utterances per dialogue that belong to none of the four classes.
        seconds: Lengths of the shortest and the longest clip.
        seed: Seed of lengths and noise.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(seed)
    for session in sessions:
        own = {who: scripts for who, scripts in (per_speaker or {}).items() if int(who[3:5]) == session}
        dialogs: Sequence[str] = (f"Ses{session:02d}F_impro01", f"Ses{session:02d}M_script01_1")
        cells = []  # dialogue, letter, emotion and number of each utterance
        if per_speaker is None:
            numbers = (per_class,) * 4 if isinstance(per_class, int) else per_class[session]
            for emotion, number in zip(IEMOCAP_CODES, numbers, strict=True):
                cells += [(dialogs[i // 2 % 2], "FM"[i % 2], emotion, i) for i in range(number)]
        else:
            names = {script: f"Ses{session:02d}F_{script}" for scripts in own.values() for script in scripts}
            dialogs = sorted(names.values())
            for who, scripts in own.items():
                for script, numbers in scripts.items():
                    for emotion, number in zip(IEMOCAP_CODES, numbers, strict=True):
                        cells += [(names[script], who[-1], emotion, i) for i in range(number)]
        turns: dict[str, list[tuple[str, str, str]]] = {dialog: [] for dialog in dialogs}  # letter, code, text
        for dialog, letter, emotion, i in cells:
            codes = IEMOCAP_CODES[emotion]
            text = f"{_SAID[emotion]}, {_NAMES[i % len(_NAMES)]}."
            if "impro" in dialog:
                text = f"{text} That was {_spelled(session, i)}."  # improvised dialogues repeat no sentence
            turns[dialog].append((letter, codes[(i + i // 2) % len(codes)], text))
        for dialog in dialogs:
            turns[dialog] += [("FM"[i % 2], OTHER_CODES[i % 6], "Well, I suppose so.") for i in range(others)]
            _write_dialog(root / f"Session{session}", dialog, turns[dialog], seconds, rng)
        _write_clutter(root / f"Session{session}" / "dialog", dialogs[0])
    return root


def _write_dialog(
    session: Path,
    dialog: str,
    turns: Sequence[tuple[str, str, str]],
    seconds: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    labels = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    transcript = []
    clock, count = 6.2901, {"F": 0, "M": 0}
    emotions = {code: emotion for emotion, codes in IEMOCAP_CODES.items() for code in codes}
    for i, (letter, code, text) in enumerate(turns):
        name = f"{dialog}_{letter}{count[letter]:03d}"
        count[letter] += 1
        length = float(rng.uniform(*seconds))
        start, clock = clock, clock + length
        labels += [
            f"[{start:.4f} - {clock:.4f}]\t{name}\t{code}\t[2.5000, {2 + i % 3}.5000, 2.5000]",
            "C-E2:\tNeutral;\t()",
            "C-F1:\tAnger; Frustration;\t(mild)",
            "A-E3:\tval 3; act 2; dom  2;\t()",
            "A-M1:\tval 2; act 3; dom  2;\t()",
            "",
        ]
        space = " " if i % 7 else "  "  # the release uses both
        transcript.append(f"{name}{space}[{start:08.4f}-{clock:08.4f}]: {text}")
        hertz = _TONES[emotions.get(code, "neutral")] * (1.25 if letter == "F" else 1.0) * rng.uniform(0.97, 1.03)
        write_wav(session / "sentences" / "wav" / dialog / f"{name}.wav", hertz, seconds=length, seed=i)
        clock += 0.5
    transcript[1:1] = [
        "M: Excuse me.",
        f"{dialog}_FXX0 [{clock:08.4f}-{clock + 1:08.4f}]: [LAUGHTER]",
        "F: caf\xe9.",  # the file is written in Latin-1 below
        "",
    ]
    _write(session / "dialog" / "EmoEvaluation" / f"{dialog}.txt", "\n".join(labels).encode())
    _write(session / "dialog" / "transcriptions" / f"{dialog}.txt", ("\n".join(transcript) + "\n").encode("latin-1"))


def _write_clutter(folder: Path, dialog: str) -> None:
    _write(folder / "EmoEvaluation" / f"._{dialog}.txt", b"\0\5\x16\7\0\2\0\0Mac OS X")
    _write(folder / "transcriptions" / f"._{dialog}.txt", b"\0\5\x16\7\0\2\0\0Mac OS X")
    _write(folder.parent / "sentences" / "wav" / dialog / f"._{dialog}_F000.wav", b"\0\5\x16\7\0\2\0\0Mac OS X")
    for rater in ("Categorical/{}_e2_cat.txt", "Attribute/{}_e2_atr.txt", "Self-evaluation/{}_f1_cat.txt"):
        _write(folder / "EmoEvaluation" / rater.format(dialog), f"{dialog}_F000 :Anger; ()\n".encode())


def make_esd(
    root: Path,
    *,
    per_class: int = 3,
    speakers: Sequence[str] = ENGLISH,
    layout: str = "flat",
    encoding: str | Mapping[str, str] = "utf-8",
    separator: str = "\t",
    capitalised: bool = True,
    seconds: tuple[float, float] = (0.3, 0.6),
    seed: int = 0,
) -> Path:
    """Write a release of ESD, in which every speaker reads the same sentences in every emotion.

    Args:
        root: Folder for the speakers.
        per_class: Number of sentences. The release has 350.
        speakers: Speakers to write.
        layout: ``flat``, or ``split`` with ``train``, ``evaluation`` and ``test`` below the emotion.
        encoding: Encoding of the transcripts, or encodings by speaker.
        separator: Separator between a transcript's columns.
        capitalised: Whether emotions are capitalised.
        seconds: Lengths of the shortest and the longest clip.
        seed: Seed of lengths and noise.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(seed)
    for speaker in speakers:
        lines = []
        for e, emotion in enumerate(ESD_EMOTIONS):
            shown = emotion if capitalised else emotion.lower()
            for i in range(per_class):
                name = f"{speaker}_{350 * e + i + 1:06d}"
                lines.append(separator.join((name, esd_sentence(i), shown)))
                folder = root / speaker / shown
                if layout == "split":
                    folder /= ("evaluation", "test")[i] if i < 2 else "train"
                hertz = _TONES[emotion.lower()] * (0.9 + 0.02 * (int(speaker) % 10)) * rng.uniform(0.97, 1.03)
                write_wav(folder / f"{name}.wav", hertz, seconds=float(rng.uniform(*seconds)), seed=i)
        how = encoding if isinstance(encoding, str) else encoding.get(speaker, "utf-8")
        _write(root / speaker / f"{speaker}.txt", "".join(f"{line}\r\n" for line in lines).encode(how))
    _write(root / "ReadMe.txt", b"0011: English Male\n")
    _write(root / ".DS_Store", b"\0\0\0\1")
    return root


def esd_sentence(i: int) -> str:
    """Return the sentence with this number. Every third sentence has a typographic apostrophe."""
    return f"{_NAMES[i % len(_NAMES)]} saw {'Tom’s' if i % 3 == 0 else 'the'} eggs, number {_spelled(i)}."


def make_manifest(folder: Path, *, kind: str = "csv", per_class: int = 6, seed: int = 0) -> Path:
    """Write a corpus of three emotions, six speakers and three sessions with a manifest.

    Args:
        folder: Folder for the manifest and ``audio/``.
        kind: ``csv``, ``tsv``, ``semicolon``, ``jsonl``, or ``authors``: the columns ``audio_file, raw_text, label``
            with numbers for labels.
        per_class: Number of utterances of each emotion for each speaker.
        seed: Seed of lengths and noise.

    Returns:
        The manifest.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    emotions = ("anger", "happiness", "sadness")
    for s in range(6):
        for c, emotion in enumerate(emotions):
            for i in range(per_class):
                name = f"spk{s}_{emotion}_{i:02d}"
                hertz = _TONES[emotion] * (0.9 + 0.05 * s) * rng.uniform(0.97, 1.03)
                seconds = float(rng.uniform(0.3, 0.6))
                write_wav(folder / "audio" / f"{name}.wav", hertz, seconds=seconds, seed=i)
                text = f"{_SAID[emotion]}, “{_NAMES[i % len(_NAMES)]}” {_spelled(s)}."
                row: dict[str, object] = {"audio": f"audio/{name}.wav", "text": text, "label": emotion}
                row |= {"id": name, "speaker": f"spk{s}", "session": str(s // 2 + 1)}
                row["split"] = ("dev", "test")[i] if i < 2 else "train"
                if kind == "authors":
                    row = {"audio_file": row["audio"], "raw_text": text, "label": c}
                rows.append(row)
    if kind == "jsonl":
        path = folder / "manifest.jsonl"
        _write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        return path
    path = folder / ("manifest.tsv" if kind == "tsv" else "manifest.csv")
    delimiter = {"tsv": "\t", "semicolon": ";"}.get(kind, ",")
    with path.open("w", encoding="utf-8-sig" if kind == "semicolon" else "utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _spelled(*numbers: int) -> str:
    """Return numbers in words, digit by digit, so that each sentence has its own words."""
    return " ".join(_DIGITS[int(digit)] for number in numbers for digit in str(number))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
