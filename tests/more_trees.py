"""Makers of more small corpora in the true format, and of sound in containers such as mp4."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from trees import write_wav

MELD_FOLDERS = {
    "train": "train/train_splits",
    "dev": "dev/dev_splits_complete",
    "test": "test/output_repeated_splits_test",
}
"""Where the clips of each split are, when the archives in MELD.Raw have been unpacked into folders of their names."""
MELD_EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")

MSP_LETTERS = {"anger": "A", "happiness": "H", "neutral": "N", "sadness": "S", "other": "O", "no agreement": "X"}

_MAC = b"\0\5\x16\7\0\2\0\0Mac OS X"


def write_container(
    path: Path,
    hertz: Sequence[float],
    *,
    codec: str = "aac",
    rate: int = 48_000,
    layout: str = "stereo",
    seconds: float = 0.4,
    video: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write one audio stream per tone, in the container that the name's suffix says.

    Args:
        path: The file.
        hertz: Frequency of the tone of each stream.
        codec: Codec of the sound.
        rate: Sampling rate in Hz.
        layout: Channels of each stream. All have the same tone.
        seconds: Length.
        video: Whether a picture comes first.
        options: Options of the container.

    Returns:
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        picture = container.add_stream("mpeg4", rate=10) if video else None
        if picture:
            picture.width = picture.height = 16
            picture.pix_fmt = "yuv420p"
        streams = [container.add_stream(codec, rate=rate, layout=layout) for _ in hertz]
        container.start_encoding()
        if picture:
            for i in range(max(1, round(10 * seconds))):
                frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                container.mux(picture.encode(frame))
            container.mux(picture.encode())
        channels = len(av.AudioLayout(layout).channels)
        for stream, tone in zip(streams, hertz, strict=True):
            wave = (0.4 * np.sin(2 * np.pi * tone * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), format="fltp", layout=layout)
            sound.sample_rate, sound.pts = rate, 0
            container.mux(stream.encode(sound))
            container.mux(stream.encode())
    return path


def link(path: Path, source: Path) -> Path:
    """Put a clip into place that is the same file as another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, path)
    return path


def make_meld(
    root: Path,
    *,
    counts: Mapping[str, Mapping[str, int]] | int = 3,
    folders: Mapping[str, str] = MELD_FOLDERS,
    suffix: str = ".mp4",
    seed: int = 0,
) -> Path:
    """Write ``MELD.Raw``, with its known faults and what lies around in it.

    The train table is in the archive of the train clips, and those of dev and test are beside the archives.

    Args:
        root: Folder to write.
        counts: Utterances of each emotion in each split, or one number for all.
        folders: Folders of the clips by split.
        suffix: Format of the clips. All clips of a format are one file.
        seed: Seed of speakers.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(seed)
    clip = root.parent / f"a_clip_of_meld{suffix}"
    if suffix == ".mp4":
        write_container(clip, [300.0], seconds=0.2, video=True)
    else:
        write_wav(clip, 300, seconds=0.02)
    for split, place in folders.items():
        numbers = dict.fromkeys(MELD_EMOTIONS, counts) if isinstance(counts, int) else counts[split]
        (root / place).mkdir(parents=True)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\r\n")
        writer.writerow(
            ["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season",
             "Episode", "StartTime", "EndTime"]
        )  # fmt: skip
        names = _meld_names(split, sum(numbers.values()))
        emotions = [emotion for emotion, number in numbers.items() for _ in range(number)]
        fault = next((i for i, name in enumerate(names) if name in ((125, 3), (110, 7)) and split != "test"), None)
        if fault is not None and "neutral" in emotions:  # both faults are neutral
            i = emotions.index("neutral")
            emotions[i], emotions[fault] = emotions[fault], emotions[i]
        for i, ((dialogue, number), emotion) in enumerate(zip(names, emotions, strict=True)):
            text = f"Oh my God, he’s lost it, {emotion} and “{i}”."
            speaker = ("Ross", "Rachel", "Richard’s Date")[rng.integers(3)]
            writer.writerow(
                [i + 1, text, speaker, emotion, "neutral", dialogue, number, 4, 7, "00:20:57,256", "0:21:00,049"]
            )
            name = f"dia{dialogue}_utt{number}"
            if (split, name) == ("train", "dia125_utt3"):
                (root / place / f"{name}{suffix}").write_bytes(b"\0\0\0\x18ftypmp42")
            elif (split, name) != ("dev", "dia110_utt7"):
                link(root / place / f"{name}{suffix}", clip)
        where = root / (Path(place).parent if split == "train" else "") / f"{split}_sent_emo.csv"
        where.write_bytes(table.getvalue().encode())
        (root / place / f"._dia0_utt0{suffix}").write_bytes(_MAC)
    if "test" in folders:
        link(root / folders["test"] / f"final_videos_testdia0_utt0{suffix}", clip)
    (root / "README.txt").write_text("MELD")
    return root


def _meld_names(split: str, number: int) -> list[tuple[int, int]]:
    """Return dialogues and utterances, among them those with known faults."""
    first = {"train": [(125, 3)], "dev": [(110, 7)], "test": []}[split]
    usual = ((i // 9, i % 9) for i in range(number + 1))
    return [*first, *(name for name in usual if name not in first)][:number]


def make_crema_d(root: Path, *, actors: Sequence[int], per_class: Mapping[str, int] | int = 2) -> Path:
    """Write ``AudioWAV``.

    Args:
        root: Folder for ``AudioWAV``.
        actors: Numbers of the actors.
        per_class: Clips of each emotion code, over all actors, or one number for each actor.

    Returns:
        ``root``.
    """
    clip = root.parent / "a_clip_of_crema.wav"
    write_wav(clip, 300, seconds=0.01)
    sentences = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
    for code in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
        number = per_class * len(actors) if isinstance(per_class, int) else per_class[code]
        # Every actor says the first sentence at three intensities, and the others at none that is named.
        takes = [("IEO", level) for level in ("LO", "MD", "HI")] if code != "NEU" else [("IEO", "XX")]
        takes += [(sentence, "XX") for sentence in sentences[1:]]
        names = [f"{actor}_{sentence}_{code}_{level}" for sentence, level in takes for actor in actors]
        wanted = [name for name in ("1076_MTI_SAD_XX",) if code == "SAD" and 1076 in actors and name in names]
        for name in [*wanted, *(name for name in names if name not in wanted)][:number]:
            link(root / "AudioWAV" / f"{name}.wav", clip)
    (root / "AudioWAV" / "._1001_IEO_ANG_LO.wav").write_bytes(_MAC)
    (root / "README.md").write_text("CREMA-D")
    return root


def make_ravdess(root: Path, *, actors: Sequence[int] = tuple(range(1, 25)), songs: bool = True) -> Path:
    """Write the archive of speech, and a song and a video of each actor.

    Args:
        root: Folder for ``Audio_Speech_Actors_01-24``.
        actors: Numbers of the actors, each with 60 clips of speech.
        songs: Whether to write songs and videos.

    Returns:
        ``root``.
    """
    clip = root.parent / "a_clip_of_ravdess.wav"
    write_wav(clip, 300, seconds=0.01)
    for actor in actors:
        for emotion in range(1, 9):
            for intensity in (1, 2) if emotion > 1 else (1,):
                for statement in (1, 2):
                    for repetition in (1, 2):
                        name = f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}.wav"
                        link(root / "Audio_Speech_Actors_01-24" / f"Actor_{actor:02d}" / name, clip)
        if songs:
            song, video = (f"{kind}-01-01-01-01-{actor:02d}" for kind in ("03-02", "01-01"))
            link(root / "Audio_Song_Actors_01-24" / f"Actor_{actor:02d}" / f"{song}.wav", clip)
            link(root / f"Video_Speech_Actor_{actor:02d}" / f"Actor_{actor:02d}" / f"{video}.mp4", clip)
    return root


def make_msp_improv(
    root: Path,
    *,
    counts: Mapping[str, int] | int = 12,
    table: str = "Evalution.txt",
    audio: str = "",
    transcripts: str = "All_human_transcriptions",
) -> Path:
    """Write a release of MSP-IMPROV, with the raters' own lines between the labels.

    Args:
        root: Folder for the label file.
        counts: Turns of each class (and of ``other`` and ``no agreement``), or one number for all.
        table: Name of the label file.
        audio: Folder of the sessions in ``root``.
        transcripts: Folder of the transcripts in ``root``. Empty for none.

    Returns:
        ``root``.
    """
    clip = root.parent / "a_clip_of_msp.wav"
    write_wav(clip, 300, seconds=0.01)
    numbers = dict.fromkeys(MSP_LETTERS, counts) if isinstance(counts, int) else counts
    lines: list[str] = []
    emotions = [emotion for emotion, number in numbers.items() for _ in range(number)]
    for i, emotion in enumerate(emotions):
        session, kind, speaker = i % 6 + 1, "PRST"[i // 6 % 4], "FM"[i // 24 % 2]
        sentence = f"S{i // 48 % 20 + 1:02d}{'AHNS'[i // 960 % 4]}"
        listener = speaker if kind == "R" else {"F": "M", "M": "F"}[speaker]
        turn = f"{sentence}-F{session:02d}-{kind}-{speaker}{listener}{i // 3840 + 1:02d}"
        rating = "NaN" if i % 50 == 0 else f"{1 + i % 4}.200000"
        lines += [
            f"UTD-IMPROV-{turn}.avi; {MSP_LETTERS[emotion]}; A:{rating}; V:3.000000; D:2.800000 ; N:4.000000;",
            "A1B2C3; Neutral; Neutral,Bored; A:2.000000; V:3.000000; D:3.000000; N:4.000000;",
            "WK-9; Happy; Happy; A:3.000000; V:3.000000; D:NaN; N:5.000000;",
            "",
        ]
        link(root / audio / f"session{session}" / sentence / kind / f"MSP-IMPROV-{turn}.wav", clip)
        if transcripts:
            path = root / transcripts / f"MSP-IMPROV-{turn}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"I’m  late for class, {emotion} {i}.\n")
    (root / table).write_bytes("\r\n".join(lines).encode())
    return root


def make_emobox(root: Path, *, corpus: str = "cafe", folds: int = 3, per_class: int = 6) -> Path:
    """Write ``data`` with the metadata of one corpus in EmoBox's form, and ``downloads`` with its clips.

    Args:
        root: Folder of EmoBox.
        corpus: Name of the corpus.
        folds: Number of official folds, each with train and test.
        per_class: Clips of each label.

    Returns:
        The folder of the corpus in ``data``.
    """
    labels = {"c": "Angry", "j": "Happy", "e": "Happy", "n": "Neutral"}
    folder = root / "data" / corpus
    clip = root / "a_clip_of_emobox.wav"
    write_wav(clip, 300, seconds=0.05)
    rows = []
    for emo in labels:
        for i in range(per_class):
            wav = f"downloads/{corpus}/Colère/{i:02d} ({emo}).wav"
            link(root / wav, clip)
            rows.append(
                {"key": f"{corpus}-{i:02d} {emo}", "dataset": corpus, "wav": wav, "type": "raw", "sample_rate": 48000,
                 "num_frame": 2400.0, "task": "category", "length": 0.05, "emo": emo, "channel": 1}
            )  # fmt: skip
    write_rows(folder / f"{corpus}.jsonl", rows)
    (folder / "label_map.json").write_text(json.dumps(labels))
    (folder / f"{corpus}.json").write_text(json.dumps({row["key"]: {"wav": row["wav"]} for row in rows}))
    (folder / "corpus.cfg").write_text("[Corpus]\n")
    for k in range(1, folds + 1):
        test = [row for i, row in enumerate(rows) if i % folds == k - 1]
        train = [row for row in rows if row not in test]
        for split, of in {"train": train, "test": test}.items():
            path = folder / f"fold_{k}" / f"{corpus}_{split}_fold_{k}.jsonl"
            write_rows(path, of)
            path.with_suffix(".json").write_text("{}")
            # Twins of an older form, as EmoDB has them.
            old = [{"key": row["key"], "audio": row["wav"], "label": row["emo"]} for row in of]
            write_rows(path.with_name(f"{corpus}_{split}_fold{k}.jsonl"), old)
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
