"""The authors' feature files: a pickled list of dicts of tensors, read without running anything in it.

A pickle is a program. Three measures make these files harmless. Every opcode is inspected before any is executed. A
pickle may call only the few functions that build tensors, and each is replaced by a function of this module. A size
that the file claims is compared with the number of bytes in the file before it is used.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet, default_class_names, default_ids
from cemobam_core.wall import Content, walled

_KEYS = {"audio_embed": "audio", "text_embed": "text", "label": "labels"}

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
}

_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BINPERSID"),
}

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class _Refused(Exception):
    """The pickle contains something that no feature file needs."""


def read_pickled_features(path: Path, class_names: Sequence[str] | None = None) -> FeatureSet:
    """Read a feature file in the authors' format.

    It is a list with one dict per utterance: ``text_embed`` and ``audio_embed`` (E,), and ``label``.

    Args:
        path: The ``.pkl`` file.
        class_names: Names of the classes. ``None`` for ``class_0`` and so on.

    Raises:
        InputError: The file cannot be read, calls a function that is not allowed, or is not such a list.
    """
    columns, _ = walled(_read, path)
    return FeatureSet(
        audio=columns["audio"],
        text=columns["text"],
        labels=columns["labels"],
        class_names=tuple(class_names or default_class_names(columns["labels"])),
        utterance_ids=default_ids(path, len(columns["labels"])),
        provenance={"imported_from": path.name},
        source=str(path),
    )


def _read(path: Path) -> Content:
    """Return the columns of the utterances in a pickle."""
    try:
        utterances = _load(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except _Refused as refusal:
        raise InputError(f"{path}: refused, and nothing in it was run: {refusal}") from None
    except (MemoryError, RuntimeError):  # torch reports a lack of memory as the latter
        raise
    except Exception as error:  # a broken pickle can raise any exception
        raise InputError(f"{path}: truncated or not a pickle of features ({type(error).__name__}: {error})") from None
    return _columns(path, utterances), None


def _columns(path: Path, utterances: object) -> dict[str, Tensor]:
    if not isinstance(utterances, list) or not utterances:
        raise InputError(f"{path}: contains {type(utterances).__name__}, but must contain a list of utterances")
    for i, utterance in enumerate(utterances):
        if not isinstance(utterance, dict) or not utterance.keys() >= _KEYS.keys():
            held = sorted(map(str, utterance)) if isinstance(utterance, dict) else type(utterance).__name__
            raise InputError(f"{path}: utterance {i} holds {held}; each must be a dict with {sorted(_KEYS)}")
        for key in _KEYS:
            value = utterance[key]
            first = utterances[0][key]
            if key == "label":
                utterance[key] = _label(path, i, value)
            elif not isinstance(value, Tensor) or value.shape != first.shape:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"{path}: {key!r} of utterance {i} is {shape}, which differs from utterance 0")
    stacked = {name: torch.stack([u[key] for u in utterances]) for key, name in _KEYS.items()}
    return {
        "audio": stacked["audio"].float(),
        "text": stacked["text"].float(),
        "labels": stacked["labels"],
    }


def _label(path: Path, i: int, value: object) -> Tensor:
    whole = isinstance(value, Tensor) and value.numel() == 1 and value.dtype in (torch.int64, torch.int32)
    number = value.item() if whole and isinstance(value, Tensor) else value
    if isinstance(number, bool) or not isinstance(number, int) or not abs(number) < 2**31:
        described = str(value)[:40] if isinstance(value, Tensor | int | float) else type(value).__name__
        raise InputError(
            f"{path}: 'label' of utterance {i} is {described}; it must be one whole number, the class's index"
        )
    return torch.tensor(number)


def _load(data: bytes) -> object:
    _inspect(data)
    return _Unpickler(io.BytesIO(data)).load()


def _inspect(data: bytes) -> None:
    """Walk over the opcodes of the pickle at the start of ``data`` without executing any.

    Only the opcodes of plain lists, dicts and tensors are allowed. BUILD, for example, would let a file set any state
    of a tensor. The walk itself fails if a claimed size exceeds the file. The memo must not be larger than the program
    could fill.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in _OPCODES:
            raise _Refused(f"opcode {opcode.name}, which no feature file needs")
        if opcode.name in {"BINPUT", "LONG_BINPUT"} and (argument or 0) > count + 256:
            raise _Refused(f"a memo of {argument} entries after {count} opcodes")


@dataclass(frozen=True)
class _Storage:
    """The raw numbers of a tensor, without a shape."""

    dtype: torch.dtype
    data: Tensor


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the functions with which tensors are pickled, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        admitted: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch.storage", "_load_from_bytes"): _load_storage,
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): _bytes,  # protocol 2 stores bytes in this way
        }
        if (module, name) not in admitted:
            raise _Refused(f"it asks for {module}.{name}, which no feature file needs")
        return admitted[module, name]


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"bytes written as {encoding}")
    return text.encode("latin1")


class _StorageUnpickler(pickle.Unpickler):
    """An unpickler for the header of a storage, in which a persistent id describes the storage."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise _Refused(f"a tensor's storage asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _load_storage(data: bytes) -> _Storage:
    """Read one storage in the form that ``torch.save`` gives it in a pickle: five pickles, a count, the raw numbers."""
    stream = io.BytesIO(data)
    header = []
    for _ in range(5):
        _inspect(data[stream.tell() :])
        header.append(_StorageUnpickler(stream).load())
    magic, protocol, system, storage, keys = header
    if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL) or not system.get("little_endian"):
        raise _Refused("a tensor's storage is not in the form that torch.save gives it inside a pickle")
    kind, dtype, key, _, claimed = storage[:5]
    (stored,) = struct.unpack("<q", stream.read(8))
    raw = stream.read()
    if kind != "storage" or keys != [key] or not isinstance(dtype, torch.dtype):
        raise _Refused("a tensor's storage is not described as torch.save describes it")
    if claimed != stored or len(raw) != stored * dtype.itemsize:
        raise _Refused(
            f"a tensor's storage claims {claimed} numbers of {dtype.itemsize} bytes, but {len(raw)} bytes are there"
        )
    return _Storage(dtype, torch.from_numpy(np.frombuffer(bytearray(raw), np.uint8)).view(dtype))


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    """Return a tensor of shape ``size`` over ``storage``. Refuse a tensor that is larger than its storage."""
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor without a storage")
    n = math.prod(size)
    if n > len(storage.data) or any(s < 0 for s in (offset, *size, *stride)):
        raise _Refused(f"a tensor of size {tuple(size)} claims more than the {len(storage.data)} numbers stored")
    return storage.data.as_strided(size, stride, offset).clone()
