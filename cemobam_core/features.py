"""Feature sets, the output of the encoders for one split: reading, checking and writing."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cemobam_core.arrays import described, tensor_of
from cemobam_core.errors import InputError
from cemobam_core.graph import TopKGraph
from cemobam_core.inputs import Sizes
from cemobam_core.neighbours import Pooled
from cemobam_core.rows import HeldTensor, Rows, StoredTensor, first_not_finite, in_chunks
from cemobam_core.shards import divided, files_of, source_of, write_tensors
from cemobam_core.wall import tried

MODALITIES = ("audio", "text")
_LISTS = ("utterance_ids", "speakers", "sessions", "scripts", "texts", "seconds")
_SHOWN = ("class_names", "speakers", "sessions", "scripts")
"""The names that lines for the user hold as they are."""
_OPTIONAL_NAMES = ("speakers", "sessions", "scripts", "texts")

_LARGE = 2**30
"""Size of a file in bytes above which embeddings stay in it."""

_EMBEDDINGS = (torch.float32, "it must be (N, E) or (N, T, E) floating-point numbers")
_MASK = (torch.bool, "it must be (N, T) truth values")
_WANTED = {
    "audio": _EMBEDDINGS,
    "text": _EMBEDDINGS,
    "labels": (torch.int64, "they must be (N,) whole numbers, indices into class_names"),
    "audio_mask": _MASK,
    "text_mask": _MASK,
}
"""The type of each tensor, and its description in error messages."""

_REMEDIES = {
    torch.float32: "convert it, as np.asarray({name}, dtype='float32')",
    torch.int64: "convert them, as np.asarray({name}, dtype=int), or names, as [class_names.index(x) for x in {name}]",
    torch.bool: "convert it, as np.asarray({name}, dtype=bool)",
}


@dataclass(frozen=True, eq=False, init=False)
class FeatureSet:
    """Utterances with one audio and one text embedding (or sequence) each. The constructor checks every value.

    You can pass embeddings, labels and masks as tensors, NumPy arrays or lists. They are stored as tensors. You can
    pass names as any sequence of strings. They are stored as tuples. Embeddings of large files, of 16-bit files and of
    shards are not tensors but :class:`~cemobam_core.rows.Rows`: they stay in their files.

    Args:
        audio: (N, E) for utterance-level features or (N, T_a, E) for sequences; floating-point numbers of any width,
            stored as float32.
        text: (N, E) or (N, T_t, E), as for ``audio``.
        labels: (N,) integers of any width, indices into ``class_names``; stored as int64.
        class_names: Names of the C emotions.
        utterance_ids: N distinct names.
        audio_mask: (N, T_a), for sequences: true for valid steps, which come first.
        text_mask: (N, T_t), the same for text.
        speakers: Speaker of each utterance, if known.
        sessions: Recording session of each utterance, if known.
        scripts: Script or scenario of each utterance, if known.
        texts: Transcript of each utterance, if known.
        seconds: Duration of each clip in seconds, if known.
        provenance: Descriptions of the encoders and of how the features were made.
        source: Name of this set in error messages, usually its file.
        labelled: Whether the labels are known. If not, all labels are 0 and the set serves only for prediction.

    Raises:
        InputError: A type is wrong, shapes disagree, a number is not finite, a label is outside the classes, or ids
            repeat.
    """

    audio: Tensor | Rows
    text: Tensor | Rows
    labels: Tensor
    class_names: tuple[str, ...]
    utterance_ids: tuple[str, ...]
    audio_mask: Tensor | None
    text_mask: Tensor | None
    speakers: tuple[str, ...] | None
    sessions: tuple[str, ...] | None
    scripts: tuple[str, ...] | None
    texts: tuple[str, ...] | None
    seconds: tuple[float, ...] | None
    provenance: Mapping[str, str]
    source: str
    labelled: bool

    def __init__(
        self,
        *,
        audio: object,
        text: object,
        labels: object,
        class_names: Iterable[str],
        utterance_ids: Iterable[str],
        audio_mask: object = None,
        text_mask: object = None,
        speakers: Iterable[str] | None = None,
        sessions: Iterable[str] | None = None,
        scripts: Iterable[str] | None = None,
        texts: Iterable[str] | None = None,
        seconds: object = None,
        provenance: Mapping[str, str] | None = None,
        source: str = "features",
        labelled: bool = True,
    ) -> None:
        numbers = {"audio": audio, "text": text, "labels": labels, "audio_mask": audio_mask, "text_mask": text_mask}
        names = {
            "class_names": class_names,
            "utterance_ids": utterance_ids,
            "speakers": speakers,
            "sessions": sessions,
            "scripts": scripts,
            "texts": texts,
        }
        self._hold(source=source, provenance=provenance or {}, labelled=labelled)
        self._hold(**{name: self._numbers(name, given) for name, given in numbers.items()})
        self._hold(**{name: self._names(name, given) for name, given in names.items()}, seconds=self._lengths(seconds))
        if self.labels.ndim != 1:
            raise self._error(f"labels are {described(self.labels)}; {_WANTED['labels'][1]}, one for each utterance")
        if len(self) == 0:
            raise self._error("it holds no utterances; give at least one")
        for modality in MODALITIES:
            self._check_shape(modality)
        for name in _LISTS:
            values = getattr(self, name)
            if values is not None and len(values) != len(self):
                raise self._error(f"{len(values)} {name} for {len(self)} utterances; give one for each")
        for modality in MODALITIES:
            self._check_modality(modality)
        if len(self.class_names) < 2 or len(set(self.class_names)) < len(self.class_names):
            raise self._error(f"class names {list(self.class_names)}; give at least two, all different")
        for i in self._first((self.labels < 0) | (self.labels >= len(self.class_names))):
            raise self._error(
                f"utterance {self.utterance_ids[i]!r} has label {int(self.labels[i])}, but the classes are "
                f"{_numbered(self.class_names)}; correct the labels or the class names"
            )
        name, count = Counter(self.utterance_ids).most_common(1)[0]
        if count > 1:
            raise self._error(f"utterance id {name!r} occurs {count} times; ids must be distinct")

    def _hold(self, **values: object) -> None:
        """Set attributes of this frozen object."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _numbers(self, name: str, given: object) -> Tensor | Rows | None:
        """Return the value of the argument ``name`` as a tensor of the right type, or as rows of files."""
        if given is None and name.endswith("_mask"):
            return None
        if isinstance(given, Rows) and name in MODALITIES:
            return given
        kind, wanted = _WANTED[name]
        try:
            tensor = tensor_of(given)
            what = "" if tensor.dtype == kind else described(given)
        except TypeError as error:
            what = str(error)
        if what:
            raise self._error(f"{name} {_is(name)} {what}; {wanted}: {_REMEDIES[kind].format(name=name)}")
        return tensor

    def _names(self, name: str, given: object) -> tuple[str, ...] | None:
        """Return the value of the argument ``name`` as a tuple of strings."""
        if given is None and name in _OPTIONAL_NAMES:
            return None
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise self._error(f"{name} are {str(given)[:40]!r}; give a list of strings")
        names = tuple(given)
        for value in names:
            if not isinstance(value, str):
                raise self._error(
                    f"{name} hold {str(value)[:40]!r}, which is of type {type(value).__name__}; they must be strings: "
                    f"convert them, as [str(x) for x in {name}]"
                )
            if name in _SHOWN and not value.isprintable():
                raise self._error(f"{name} hold {value[:40]!r}; use letters that can be printed")
        return tuple(map(str, names))

    def _lengths(self, given: Any) -> tuple[float, ...] | None:
        """Return the durations as a tuple of floats."""
        if given is None:
            return None
        try:
            lengths = tuple(math.nan if isinstance(value, str) else float(value) for value in given)
        except (TypeError, ValueError, OverflowError):
            lengths = (math.nan,)
        if not all(math.isfinite(length) and length >= 0 for length in lengths):
            raise self._error(f"seconds are {str(given)[:40]!r}; give a list of finite numbers, 0 or more")
        return lengths

    def _check_shape(self, modality: str) -> None:
        x = getattr(self, modality)
        if x.ndim not in (2, 3) or 0 in x.shape:
            raise self._error(f"{modality} is {described(x)}; {_EMBEDDINGS[1]}")
        if len(x) != len(self):
            raise self._error(f"{len(x)} {modality} embeddings for {len(self)} labels; give one for each")

    def _check_modality(self, modality: str) -> None:
        x, mask = getattr(self, modality), getattr(self, f"{modality}_mask")
        if (i := first_not_finite(x)) is not None:
            place = x.place(i) if isinstance(x, Rows) else f"row {i}"
            raise self._error(
                f"the {modality} embedding of utterance {self.utterance_ids[i]!r} ({place}) holds NaN or infinity; "
                "extract it again or leave the utterance out"
            )
        if (mask is None) != (x.ndim == 2):
            raise self._error(
                f"{modality} is {described(x)} {'with' if mask is not None else 'without'} {modality}_mask; "
                "sequences (N, T, E) need a mask, utterance-level features (N, E) must not have one"
            )
        if mask is None:
            return
        if mask.shape != x.shape[:2]:
            raise self._error(f"{modality}_mask is {described(mask)}; it must be bool {tuple(x.shape[:2])}")
        for i in self._first(~mask[:, 0] | (mask[:, 1:] & ~mask[:, :-1]).any(dim=1)):
            raise self._error(
                f"{modality}_mask of utterance {self.utterance_ids[i]!r} (row {i}) is not valid steps first, at "
                "least one, then padding"
            )

    def _error(self, what: str) -> InputError:
        return InputError(f"{self.source}: {what}")

    @staticmethod
    def _first(bad: Tensor) -> list[int]:
        """Return the index of the first bad row in a list, or an empty list."""
        return bad.nonzero().flatten()[:1].tolist()

    def __len__(self) -> int:
        """Return N, the number of utterances."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """C, the number of emotions."""
        return len(self.class_names)

    @property
    def sizes(self) -> Sizes:
        """The sizes that a system needs to build a model."""
        audio_dim, text_dim = self.audio.shape[-1], self.text.shape[-1]
        return Sizes(audio_dim=audio_dim, text_dim=text_dim, num_classes=self.num_classes)

    def tensors(self) -> dict[str, Tensor | Rows]:
        """Return what the set holds for each utterance by name: embeddings, labels and, if present, masks."""
        names = (*MODALITIES, "labels", *(f"{modality}_mask" for modality in MODALITIES))
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def select(self, indices: Sequence[int], *, source: str) -> FeatureSet:
        """Return the utterances at ``indices``, in that order, as a set named ``source`` in error messages."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        parts: dict[str, Any] = {
            name: value.select(rows) if isinstance(value, Rows) else value[rows]
            for name, value in self.tensors().items()
        }
        for name in _LISTS:
            if (values := getattr(self, name)) is not None:
                parts[name] = tuple(values[i] for i in indices)
        return replace(self, **parts, source=source)

    def held(self, known: dict[StoredTensor, HeldTensor]) -> FeatureSet:
        """Return the same set without files, see :meth:`cemobam_core.rows.Rows.held`."""
        rows: dict[str, Any] = {
            name: value.held(known) for name, value in self.tensors().items() if isinstance(value, Rows)
        }
        return replace(self, **rows) if rows else self

    def rank(self, k_max: int) -> TopKGraph:
        """Rank the ``k_max`` nearest neighbours of each utterance in this set, for every graph up to that K."""
        try:
            return TopKGraph.from_features(
                self.audio, self.text, k_max, audio_mask=self.audio_mask, text_mask=self.text_mask
            )
        except InputError as error:
            raise self._error(str(error)) from None

    def pooled(self) -> Pooled:
        """Return one embedding per utterance and modality. Sequences are averaged over their valid steps."""
        return Pooled.of(self.audio, self.text, self.audio_mask, self.text_mask)

    def fingerprint(self) -> str:
        """Return a hash of everything that can change a trial's result: embeddings, masks, labels and class names.

        Ids, speakers, sessions, scripts, transcripts, durations and provenance do not change it.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for name, value in sorted(self.tensors().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            for chunk in in_chunks(value):
                digest.update(chunk.contiguous().numpy().data)
        return digest.hexdigest()

    def save(
        self, path: Path, *, dtype: torch.dtype = torch.float32, shard_bytes: int | None = None
    ) -> tuple[Path, ...]:
        """Write ``.safetensors`` files atomically: an existing file is replaced only by a complete new one.

        Args:
            path: The file.
            dtype: Type of the embeddings in the file: float32, or float16, which takes half the space and keeps three
                digits.
            shard_bytes: Largest size of a file in bytes. A larger set is written in shards of equal size, beside the
                path: ``train-00000-of-00002.safetensors`` and so on. ``None`` for one file.

        Returns:
            The files.

        Raises:
            InputError: A number is too large for float16.
        """
        tensors, size = self.tensors(), 0
        for name, value in tensors.items():
            size += value.shape.numel() * (dtype if name in MODALITIES else value.dtype).itemsize
            if dtype == torch.float16 and name in MODALITIES:
                self._check_range(name, value)
        lists = {name: getattr(self, name) for name in _LISTS if getattr(self, name) is not None}
        size += len(json.dumps(lists))
        written = []
        for file, start, stop in divided(path, len(self), size, shard_bytes):
            metadata = {name: json.dumps(values[start:stop]) for name, values in lists.items()}
            metadata["class_names"] = json.dumps(self.class_names)
            write_tensors(file, tensors, {**self.provenance, **metadata}, dtype=dtype, start=start, stop=stop)
            written.append(file)
        return tuple(written)

    def _check_range(self, modality: str, x: Tensor | Rows) -> None:
        """Raise an InputError if a number is too large for float16."""
        row, most = 0, torch.finfo(torch.float16).max
        for chunk in in_chunks(x):
            for i in self._first(chunk.flatten(1).abs().amax(dim=1) > most):
                raise self._error(
                    f"the {modality} embedding of utterance {self.utterance_ids[row + i]!r} holds a number beyond "
                    f"{most:.0f}, the largest of float16; store float32"
                )
            row += len(chunk)

    @classmethod
    def load(cls, path: Path, class_names: Sequence[str] | None = None, *, need_labels: bool = True) -> FeatureSet:
        """Read a ``.safetensors`` file, or a ``.pkl`` file of the authors without running anything in it.

        Args:
            path: The file, or any one of the shards of a split, which is read whole.
            class_names: Names of the classes for a file that does not store them. ``None`` for ``class_0`` and so on.
            need_labels: Whether to refuse a ``.safetensors`` file without labels.

        Raises:
            InputError: The file cannot be read, or its content is not valid.
        """
        return cls.load_all([path], class_names, need_labels=need_labels)[0]

    @classmethod
    def load_all(
        cls, paths: Iterable[Path], class_names: Sequence[str] | None = None, *, need_labels: bool = True
    ) -> list[FeatureSet]:
        """Read several files as :meth:`load` does, behind one wall.

        Args:
            paths: The files.
            class_names: Names of the classes, as for :meth:`load`.
            need_labels: As for :meth:`load`.

        Raises:
            InputError: A file cannot be read, or its content is not valid.
        """
        from cemobam_core.pickles import read_pickled_features  # noqa: PLC0415  (it imports this module)

        loaded = []
        with tried(cls._read) as read:
            for path in paths:
                if path.suffix == ".pkl":
                    loaded.append(read_pickled_features(path, class_names))
                elif path.suffix == ".safetensors":
                    first, *others = files_of(path)
                    loaded.append(read(first, class_names, need_labels, others, beside=others))
                else:
                    raise InputError(f"{path}: not a feature file; give a .safetensors file or the authors' .pkl")
        return loaded

    @classmethod
    def _read(
        cls, path: Path, class_names: Sequence[str] | None, need_labels: bool, others: Sequence[Path]
    ) -> FeatureSet:
        """Read a split from a ``.safetensors`` file and its other shards. Tensors are mapped into memory, not copied.

        Embeddings of shards, of 16-bit files and of large files become :class:`Rows`.
        """
        parts = []
        for file in (path, *others):
            tensors, metadata = _stored(file, need_labels, in_place=bool(others))
            parts.append(_Content.of(file, tensors, metadata))
        return cls._made(parts[0] if len(parts) == 1 else _Content.joined(parts), class_names)

    @classmethod
    def of_content(
        cls,
        path: Path,
        tensors: Mapping[str, Tensor | Rows],
        metadata: Mapping[str, str],
        class_names: Sequence[str] | None,
    ) -> FeatureSet:
        """Return the feature set of a ``.safetensors`` file.

        Args:
            path: The file.
            tensors: Its tensors by name, see :func:`check_names`.
            metadata: Its metadata by name.
            class_names: Names of the classes, as for :meth:`load`.

        Raises:
            InputError: The content is not valid.
        """
        return cls._made(_Content.of(path, tensors, metadata), class_names)

    @classmethod
    def _made(cls, content: _Content, class_names: Sequence[str] | None) -> FeatureSet:
        """Return the feature set of the content of a file, or of shards."""
        source, lists = source_of(content.files), dict(content.lists)
        tensors: dict[str, Any] = dict(content.tensors)
        labelled = "labels" in tensors
        if not labelled:
            tensors["labels"] = torch.zeros(_length(tensors), dtype=torch.int64)
        lists.setdefault("class_names", tuple(class_names or default_class_names(tensors["labels"])))
        if class_names is not None and set(class_names) != set(lists["class_names"]):
            raise InputError(
                f"{source}: its classes are {', '.join(lists['class_names'])}, but this data set's are "
                f"{', '.join(class_names)}; give the file's own data set, or any other name, as --dataset"
            )
        return cls(**tensors, **lists, provenance=content.provenance, source=source, labelled=labelled)


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What a ``.safetensors`` file holds, or several shards together.

    Attributes:
        files: The files.
        tensors: Tensors by name. Without labels, the set is not labelled.
        lists: Lists by name. Ids are always there.
        provenance: All other metadata.
    """

    files: list[Path]
    tensors: Mapping[str, Tensor | Rows]
    lists: Mapping[str, tuple[Any, ...]]
    provenance: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, tensors: Mapping[str, Tensor | Rows], metadata: Mapping[str, str]) -> _Content:
        """Return the content of a file, with ids for its utterances if it has none."""
        told = ("class_names", *_LISTS)
        lists = {name: _listed(path, name, metadata[name]) for name in told if name in metadata}
        lists.setdefault("utterance_ids", default_ids(path, _length(tensors)))
        provenance = {name: value for name, value in metadata.items() if name not in told}
        return cls(files=[path], tensors=tensors, lists=lists, provenance=provenance)

    @classmethod
    def joined(cls, parts: Sequence[_Content]) -> _Content:
        """Return the content of several shards, which must be of one kind.

        Raises:
            InputError: A shard does not fit into itself, or two do not fit together.
        """
        first, seen = parts[0], dict[str, Path]()
        for one in parts:
            one._check_lengths()
            one._check_like(first)
            for key in one.lists["utterance_ids"]:
                if key in seen:
                    raise InputError(
                        f"{one.files[0]}: utterance {key!r} is in {seen[key].name} too; every utterance belongs into "
                        "one shard: copy the shards again, or make the features again"
                    )
                seen[key] = one.files[0]
        tensors: dict[str, Tensor | Rows] = {}
        for name in first.tensors:
            all_of = [one.tensors[name] for one in parts]
            rows = [x for x in all_of if isinstance(x, Rows)]
            tensors[name] = (
                Rows([part for x in rows for part in x.parts])
                if rows
                else torch.cat([x for x in all_of if isinstance(x, Tensor)])
            )
        lists = {name: tuple(x for one in parts for x in one.lists[name]) for name in first.lists}
        if "class_names" in first.lists:
            lists["class_names"] = first.lists["class_names"]
        files = [file for one in parts for file in one.files]
        return cls(files=files, tensors=tensors, lists=lists, provenance=first.provenance)

    def _check_lengths(self) -> None:
        """Check that there is as much of everything as of audio: otherwise, utterances would be mixed up."""
        path, n = self.files[0], self.tensors["audio"].shape[:1].numel() if self.tensors["audio"].ndim else 0
        if n == 0 or 0 in self.tensors["audio"].shape:
            raise InputError(f"{path}: it holds no utterances; remove all shards and make the features again")
        counts = {name: len(x) if x.ndim else 0 for name, x in self.tensors.items()}
        counts |= {name: len(values) for name, values in self.lists.items() if name != "class_names"}
        for name, count in counts.items():
            if count != n:
                raise InputError(f"{path}: {count} {name} for {n} audio embeddings; give one for each")

    def _check_like(self, first: _Content) -> None:
        """Check that this shard is of the same kind as the first one."""
        path, other = self.files[0], first.files[0].name
        there, wanted = ({*one.tensors, *one.lists} for one in (self, first))
        if odd := sorted(there ^ wanted):
            what = f"has no {odd[0]}" if odd[0] in wanted else f"has {odd[0]}"
            raise InputError(f"{path}: {what}, unlike {other}; make all shards of a split alike")
        for name, x in self.tensors.items():
            kinds = [_kind_in_file(y) for y in (x, first.tensors[name])]
            if kinds[0] != kinds[1]:
                remedy = "pad all shards of a split to the same number of steps, and make them with the same encoders"
                raise InputError(
                    f"{path}: its {name} {_is(name)} {kinds[0]}, but those of {other} {kinds[1]}; {remedy}"
                )
        ours, theirs = ({**one.provenance, "class_names": one.lists.get("class_names")} for one in (self, first))
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise InputError(
                    f"{path}: its {name} {_is(name)} not as in {other}; all shards of a split must be made together"
                )


@dataclass(frozen=True, eq=False, kw_only=True)
class Fold:
    """One assignment of utterances to train, val and test.

    Attributes:
        train: The train split.
        val: The validation split.
        test: The test split.

    Raises:
        InputError: The splits differ in their classes or embedding sizes, a split lacks a class, or an utterance is in
            two splits.
    """

    train: FeatureSet
    val: FeatureSet
    test: FeatureSet

    def __post_init__(self) -> None:  # noqa: D105
        for name, split in self.splits.items():
            for what in ("class_names", "audio", "text"):
                ours, first = (_kind(getattr(s, what)) for s in (split, self.train))
                if ours != first:
                    raise InputError(
                        f"{split.source}: its {what} {_is(what)} {ours}, but the train split's {_is(what)} {first}; "
                        "make all splits with the same classes and the same encoders"
                    )
            counts = torch.bincount(split.labels, minlength=split.num_classes)
            for c in (counts == 0).nonzero().flatten().tolist():
                raise InputError(
                    f"{split.source}: no utterance of class {split.class_names[c]!r} in the {name} split "
                    f"({len(split)} utterances); every split needs every class"
                )
        seen: dict[str, str] = {}
        for name, split in self.splits.items():
            for utterance_id in split.utterance_ids:
                if utterance_id in seen:
                    raise InputError(
                        f"{split.source}: utterance {utterance_id!r} is in the {seen[utterance_id]} split and in the "
                        f"{name} split; put it into one of them"
                    )
                seen[utterance_id] = name

    @property
    def splits(self) -> dict[str, FeatureSet]:
        """The three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def held(self, known: dict[StoredTensor, HeldTensor]) -> Fold:
        """Return the same fold without files, see :meth:`cemobam_core.rows.Rows.held`."""
        return Fold(**{name: split.held(known) for name, split in self.splits.items()})


def fingerprint(folds: Iterable[Fold]) -> str:
    """Return 16 hexadecimal digits that identify these features in these splits."""
    digest = hashlib.sha256()
    for fold in folds:
        for name, split in fold.splits.items():
            digest.update(f"{name} {split.fingerprint()}".encode())
    return digest.hexdigest()[:16]


def check_names(path: Path, names: Collection[str]) -> None:
    """Check which tensors a feature file holds.

    Args:
        path: The file.
        names: The names of its tensors.

    Raises:
        InputError: A tensor is missing or does not belong there.
    """
    required = {*MODALITIES, "labels"}
    allowed = required | {f"{modality}_mask" for modality in MODALITIES}
    if missing := sorted(required.difference(names)):
        raise InputError(f"{path}: tensor {missing[0]!r} is missing; the file holds {sorted(names)}")
    if unknown := sorted(set(names) - allowed):
        raise InputError(f"{path}: unknown tensor {unknown[0]!r}; a feature file holds {sorted(allowed)}")


def _stored(path: Path, need_labels: bool, *, in_place: bool) -> tuple[dict[str, Tensor | Rows], dict[str, str]]:
    """Return the tensors and the metadata of a ``.safetensors`` file.

    Args:
        path: The file.
        need_labels: Whether to refuse a file without labels.
        in_place: Whether embeddings become :class:`Rows` even if the file is small and they are float32.
    """
    tensors: dict[str, Tensor | Rows] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            names: set[str] = set(file.keys())
            check_names(path, names if need_labels or "labels" in names else {*names, "labels"})
            for name in names:
                stored = StoredTensor.find(path, name) if name in MODALITIES else None
                large = stored and (in_place or stored.dtype.itemsize == 2 or stored.size > _LARGE)
                if stored and large and math.prod(stored.shape) and stored.shape:
                    tensors[name] = Rows([stored])
                else:
                    tensors[name] = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from None
    return tensors, metadata


def default_ids(path: Path, n: int) -> tuple[str, ...]:
    """Return ids for the utterances of a file that stores none: the name of the file and the row."""
    return tuple(f"{path.stem}:{i:05d}" for i in range(n))


def default_class_names(labels: Tensor) -> tuple[str, ...]:
    """Return names for the classes of a file that stores none."""
    whole = labels.numel() and not labels.is_floating_point() and not labels.is_complex()
    highest = int(labels.to(torch.int64).max()) if whole else 0
    if not 0 < highest < 1000:
        highest = 1  # the constructor refuses such labels later and names the utterance
    return tuple(f"class_{c}" for c in range(highest + 1))


def _listed(path: Path, name: str, value: str) -> tuple[Any, ...]:
    """Read a list of names, or of durations, from the metadata of a file."""
    kinds, what = ((int, float), "numbers") if name == "seconds" else ((str,), "strings")
    try:
        items: Any = json.loads(value)
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(type(item) in kinds for item in items):
        raise InputError(f"{path}: metadata {name!r} is {value[:40]!r}; it must be a JSON list of {what}")
    return tuple(items)


def _length(tensors: Mapping[str, Tensor | Rows]) -> int:
    """Return the number of utterances of a file, or 0 if its tensors have odd shapes, which is refused later."""
    audio = tensors["audio"]
    labels = tensors.get("labels", audio)
    fits = labels.shape == audio.shape[:1] if "labels" in tensors else audio.shape.numel() > 0
    return labels.shape[:1].numel() if labels.ndim and fits else 0


def _kind_in_file(x: Tensor | Rows) -> str:
    """Describe what must be the same in all shards of a split: the type of the numbers, and all sizes but N."""
    kind = str(x.stored if isinstance(x, Rows) else x.dtype).removeprefix("torch.")
    return f"{kind} ({', '.join(['N', *map(str, x.shape[1:])])})"


def _kind(value: Tensor | Rows | tuple[str, ...]) -> str:
    """Describe what must be the same in all splits: class names, or the size and level of an embedding."""
    if isinstance(value, Tensor | Rows):
        return f"({'N, T' if value.ndim == 3 else 'N'}, {value.shape[-1]})"
    return ", ".join(value)


def _is(what: str) -> str:
    return "are" if what in ("class_names", "labels") else "is"


def _numbered(names: Sequence[str]) -> str:
    return ", ".join(f"{i} {name}" for i, name in enumerate(names))
