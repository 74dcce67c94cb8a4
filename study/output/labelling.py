"""From clips to labels: encode each clip as the training utterances were encoded, and label it with a kept model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cemobam_core.corpora.manifest import read_clips
from cemobam_core.corpora.reading import read_walled
from cemobam_core.corpora.text_files import LONGEST_TEXT, read_lines
from cemobam_core.corpora.utterances import Part, visible
from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.errors import InputError, printable
from cemobam_core.features import MODALITIES, FeatureSet
from cemobam_core.progress import progress_bar
from study.engines.models import KeptModel
from study.output.predict import Neighbourhood, logits_of, looks_around, metrics_table, write_labels

# The encoders need the extra `features`, and this module belongs to the base installation.
if TYPE_CHECKING:
    from cemobam_core.encoders.asr import Transcriber

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "w64", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "au", "caf", "sph"),
        *("m4a", "aac", "mp4", "m4v", "mov", "mkv", "avi", "webm"),
    )
)
"""Suffixes of the files in a folder that are clips."""

_BAR = 32
"""Width of the bar of probability 1."""
_SHOWN, _LETTERS = 10, 56
"""Largest number of neighbours that are shown, and letters of their transcripts."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip to label.

    Attributes:
        id: Name of the clip.
        audio: Its sound file. `None` if the model needs none.
        text: Its transcript. It is empty if the clip is to be transcribed, or if the model needs none.
        label: Its true label, if known.
    """

    id: str
    audio: Path | Part | None = None
    text: str = ""
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Linked:
    """A training utterance that a clip was linked to.

    Attributes:
        id: Name of the utterance.
        label: Its label.
        text: Its transcript, shortened. It is empty if the features do not hold transcripts.
        similarity: Cosine similarity of the embeddings.
    """

    id: str
    label: str
    text: str
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A clip with its label.

    Attributes:
        clip: The clip, with its transcript if it was transcribed.
        probabilities: Probability of each class by name, the largest first.
        linked: Training utterances that the clip was linked to, by modality. Empty for a model without a graph.
    """

    clip: Clip
    probabilities: dict[str, float]
    linked: dict[str, tuple[Linked, ...]]

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))


@dataclass(kw_only=True)
class Labeller:
    """A kept model with its encoders. The encoders are loaded when they are first needed.

    Attributes:
        kept: The model.
        moved: Places of encoders that were moved, by modality. `None` for the recorded place.
        asr: Hub id or folder of the Whisper model that transcribes clips without transcripts. `None` for none.
        device: Device of the encoders.
    """

    kept: KeptModel
    moved: dict[str, str | None] = field(default_factory=dict)
    asr: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:  # noqa: D105
        self._encoders: dict[str, Any] = {}
        self._transcriber: Transcriber | None = None
        needed = self.kept.modalities
        for modality, place in self.moved.items():
            if place is not None and modality not in needed:
                raise InputError(
                    f"--{modality}-encoder: the model in {self.kept.folder} does not use the {modality}; leave the "
                    "option out"
                )
        if self.asr and "text" not in needed:
            raise InputError(f"--asr: the model in {self.kept.folder} does not use the text; leave the option out")

    @property
    def hears(self) -> bool:
        """Whether a clip has a sound file."""
        return "audio" in self.kept.modalities or self.asr is not None

    @property
    def reads(self) -> bool:
        """Whether a clip needs a transcript."""
        return "text" in self.kept.modalities and self.asr is None

    def load(self) -> None:
        """Load the encoders that the model needs, and the Whisper model, unless this is done.

        Raises:
            InputError: The encoders are not recorded, are not there, or are others than those of the model.
        """
        from cemobam_core.encoders.asr import load_transcriber  # noqa: PLC0415
        from cemobam_core.encoders.loading import load_encoder  # noqa: PLC0415

        record = self.kept.encoders
        if record is None:
            raise InputError(
                f"{self.kept.folder}: was trained on features whose encoders are not recorded; give features with "
                "--features"
            )
        for modality in self.kept.modalities:
            if modality not in self._encoders:
                found = getattr(record, modality).find(f"--{modality}-encoder", self.moved.get(modality))
                self._encoders[modality] = load_encoder(modality, found, record.settings).to(self.device)
        if self.asr and self._transcriber is None:
            self._transcriber = load_transcriber(find_pretrained(self.asr, "--asr")).to(self.device)

    def features(self, clips: Sequence[Clip], source: str) -> tuple[FeatureSet, tuple[Clip, ...]]:
        """Encode clips, each by itself, so that its embeddings do not depend on the others.

        Args:
            clips: N clips.
            source: Name of the set in error messages.

        Returns:
            The features, and the clips with their transcripts.

        Raises:
            InputError: A clip cannot be used. The message names the first one.
        """
        self._check(clips)
        self.load()
        record = self.kept.encoders
        assert record
        sequence = record.settings.level == "sequence"
        rows: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
        encoded = []
        with progress_bar(total=len(clips), desc="encoding", unit="clip", disable=len(clips) == 1) as bar:
            for clip in map(self._transcribed, clips):
                encoded.append(clip)
                for modality in MODALITIES:
                    if encoder := self._encoders.get(modality):
                        (embedding,) = encoder.embed([encoder.read(getattr(clip, modality))], sequence=sequence)
                    else:  # the model does not look at it
                        embedding = torch.zeros(1, getattr(self.kept.sizes, f"{modality}_dim"))
                    rows[modality].append(embedding)
                bar.update()
        tensors: dict[str, Tensor] = {}
        for modality, of_one in rows.items():
            x = pad_sequence(of_one, batch_first=True)  # (N, T, E)
            tensors[modality] = x if sequence else x[:, 0]
            if sequence:
                steps = torch.tensor([len(embedding) for embedding in of_one])
                tensors[f"{modality}_mask"] = torch.arange(x.shape[1]) < steps[:, None]
        names, labelled = self.kept.class_names, all(clip.label for clip in clips)
        features = FeatureSet(
            audio=tensors["audio"],
            text=tensors["text"],
            audio_mask=tensors.get("audio_mask"),
            text_mask=tensors.get("text_mask"),
            labels=torch.tensor([names.index(clip.label) if labelled and clip.label else 0 for clip in clips]),
            class_names=names,
            utterance_ids=[clip.id for clip in clips],
            source=source,
            labelled=labelled,
        )
        return features, tuple(encoded)

    def label(self, clip: Clip, neighbours: Neighbourhood = "anchored") -> tuple[Labelled, FeatureSet, Tensor]:
        """Label one clip.

        Args:
            clip: The clip.
            neighbours: Neighbours of the clip, as for :func:`~study.output.predict.predict`.

        Returns:
            The labelled clip, its features, and its (1, C) logits.

        Raises:
            InputError: The clip cannot be used.
        """
        features, (clip,) = self.features([clip], str(clip.audio or clip.id))
        logits = logits_of(self.kept, features, neighbours)
        values, order = logits[0].softmax(dim=0).sort(descending=True, stable=True)
        names = self.kept.class_names
        probabilities = {names[i]: value for i, value in zip(order.tolist(), values.tolist(), strict=True)}
        return Labelled(clip=clip, probabilities=probabilities, linked=self._linked(features)), features, logits

    def _transcribed(self, clip: Clip) -> Clip:
        """Return a clip with its transcript, if it has none and there is a Whisper model."""
        if self._transcriber is None or clip.audio is None or clip.text:
            return clip
        return replace(clip, text=self._transcriber.read(clip.audio))

    def _linked(self, features: FeatureSet) -> dict[str, tuple[Linked, ...]]:
        """Return the training utterances that the only utterance of the features was linked to."""
        kept = self.kept
        if kept.train is None or kept.graph is None or not looks_around(kept, kept.train.features):
            return {}
        train = kept.train.features
        (found,) = kept.train.neighbours(features, kept.graph, kept.seed)
        return {
            modality: tuple(
                Linked(
                    id=train.utterance_ids[one.row],
                    label=train.class_names[int(train.labels[one.row])],
                    text=_shortened(train.texts[one.row]) if train.texts else "",
                    similarity=one.similarity,
                )
                for one in neighbours[:_SHOWN]
            )
            for modality, neighbours in found.items()
        }

    def _check(self, clips: Sequence[Clip]) -> None:
        """Check every clip before any is encoded.

        Raises:
            InputError: Clips cannot be used. The message names the first one.
        """
        from cemobam_core.encoders.sound import seconds_of  # noqa: PLC0415

        problems = []
        for clip in clips:
            try:
                if self.hears and clip.audio is None and ("audio" in self.kept.modalities or not clip.text):
                    raise InputError(
                        f"{clip.id}: no audio; give --audio CLIP, or a model trained without audio, such as text_mlp"
                    )
                if self.reads and not clip.text:
                    beside = f", a file {Path(clip.audio).with_suffix('.txt').name} beside it" if clip.audio else ""
                    raise InputError(
                        f"{clip.audio or clip.id}: no transcript; write it (--transcript{beside}, or the manifest's "
                        "column text), let a Whisper model do so (--asr MODEL), or take a model trained without text, "
                        "such as audio_mlp"
                    )
                if self.hears and clip.audio:
                    seconds_of(clip.audio)
            except InputError as error:
                problems.append(str(error))
        if problems:
            more = f" ({len(problems)} of {len(clips)} clips cannot be used)" if len(clips) > 1 else ""
            raise InputError(problems[0] + more)


def clips_in(folder: Path, *, transcribed: bool) -> tuple[Clip, ...]:
    """Return the sound files of a folder as clips.

    Args:
        folder: The folder.
        transcribed: Whether a transcript is read from the ``.txt`` file of the same name beside each clip, if there is
            one.

    Raises:
        InputError: The folder has no sound files.
    """
    files = [path for path in visible(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not files:
        raise InputError(f"{folder}: has no sound files ({', '.join(sorted(SUFFIXES))}); give another folder")
    texts = read_walled(str, _beside, folder, files) if transcribed else [""] * len(files)
    return tuple(Clip(id=path.name, audio=path, text=text) for path, text in zip(files, texts, strict=True))


def clips_of(manifest: Path, class_names: Sequence[str]) -> tuple[Clip, ...]:
    """Return the clips that a manifest lists.

    Args:
        manifest: The manifest: a column ``audio``, and ``text``, ``label`` and ``id`` if they are known.
        class_names: Names of the classes of the model.

    Raises:
        InputError: The manifest cannot be read, or an audio file is missing.
    """
    return tuple(
        Clip(id=one.id, audio=one.audio, text=one.text, label=one.label or None)
        for one in read_clips(manifest, class_names)
    )


def predict_clips(
    labeller: Labeller, clips: Sequence[Clip], *, source: str, to: Path, neighbours: Neighbourhood = "anchored"
) -> str:
    """Label many clips.

    Args:
        labeller: The model with its encoders.
        clips: The clips.
        source: The folder or the manifest, for error messages.
        to: The csv to write, with the columns of :func:`~study.output.predict.predict` and the transcript.
        neighbours: Neighbours of a clip, as for :func:`~study.output.predict.predict`.

    Returns:
        How many clips have which label, and the metrics if the true labels are known.

    Raises:
        InputError: A clip cannot be used.
    """
    features, encoded = labeller.features(clips, source)
    logits = logits_of(labeller.kept, features, neighbours)
    names = labeller.kept.class_names
    texts = [clip.text for clip in encoded] if "text" in labeller.kept.modalities else None
    write_labels(logits, features, names, to, texts)
    counts = Counter(names[i] for i in logits.argmax(dim=1).tolist())
    told = f"{len(clips)} clips labelled: {', '.join(f'{counts[name]} {name}' for name in names)}; written to {to}"
    return f"{told}\n\n{metrics_table(logits, features)}" if features.labelled else told


def predict_clip(
    labeller: Labeller, clip: Clip, *, to: Path | None = None, neighbours: Neighbourhood = "anchored"
) -> str:
    """Label one clip.

    Args:
        labeller: The model with its encoders.
        clip: The clip.
        to: The csv to write as well, as for :func:`predict_clips`.
        neighbours: Neighbours of the clip, as for :func:`~study.output.predict.predict`.

    Returns:
        The label, a bar for the probability of each class, and the training utterances that the clip was linked to.

    Raises:
        InputError: The clip cannot be used.
    """
    labelled, features, logits = labeller.label(clip, neighbours)
    if to:
        texts = [labelled.clip.text] if "text" in labeller.kept.modalities else None
        write_labels(logits, features, labeller.kept.class_names, to, texts)
    lines = [f"{clip.id}: {labelled.label}"]
    if labeller.asr:
        lines.append(f"heard by {labeller.asr}: {labelled.clip.text}")
    width = max(map(len, labelled.probabilities))
    lines.append("")
    lines += [
        f"  {name:<{width}}  {100 * p:5.1f}%  {'█' * round(_BAR * p)}".rstrip()
        for name, p in labelled.probabilities.items()
    ]
    for modality, linked in labelled.linked.items() if neighbours == "anchored" else ():
        lines += ["", *_table(modality, linked)]
    return "\n".join(lines)


def _table(modality: str, linked: Sequence[Linked]) -> list[str]:
    if not linked:
        return [f"by {modality}, no training utterance is linked to it"]
    cells = [[f"nearest by {modality}", "label", "similarity", "transcript" if any(one.text for one in linked) else ""]]
    cells += [[one.id, one.label, f"{one.similarity:.3f}", one.text] for one in linked]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return [
        f"  {name:<{widths[0]}}  {label:<{widths[1]}}  {similarity:>{widths[2]}}  {text}".rstrip()
        for name, label, similarity, text in cells
    ]


def _beside(_: Path, clips: Sequence[Path]) -> tuple[str, ...]:
    """Return the transcripts in the ``.txt`` files beside the clips of a folder, empty where there is no such file."""
    texts = []
    for path in (clip.with_suffix(".txt") for clip in clips):
        texts.append(" ".join(" ".join(read_lines(path)).split()) if path.is_file() else "")
        if len(texts[-1]) > LONGEST_TEXT:
            raise InputError(f"{path}: has more than {LONGEST_TEXT} letters; give the transcript of the clip")
    return tuple(texts)


def _shortened(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1].rstrip()}…"
