"""Hostile pickles: the authors' feature files, and the objects that hurt whoever hashes, compares or prints them."""

from __future__ import annotations

import math
import pickle
import pickletools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hostile.harness import CANARY, Reader
from hostile.impostors import impostors

from cemobam_core.features import FeatureSet

PLACE = "@@place@@"
"""A string in whose place :func:`with_object` puts another object."""

_KEPT, _GET = b"q\xfa", b"h\xfa"
"""Opcodes that keep the object on top of the stack in the memo, and that get it again."""


def with_object(content: object, program: bytes) -> bytes:
    """Return the pickle of an object that holds :data:`PLACE`, with the object that a program makes in its place."""
    place = b"X" + struct.pack("<I", len(PLACE)) + PLACE.encode()
    pickled = pickle.dumps(content, 2)
    assert place in pickled
    return pickled.replace(place, program)


def text(letters: bytes) -> bytes:
    """Return the opcodes of a string."""
    return b"X" + struct.pack("<I", len(letters)) + letters


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """Return the opcodes of a function call."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def doubled(levels: int, of: bytes = b"N") -> bytes:
    """Return the opcodes of a tuple that holds the tuple of the level below twice, and so on."""
    return of + (_KEPT + _GET + b"\x86") * levels


OBJECTS = {
    "deep tuples": b"N" + b"\x85" * 200_000,
    "deep lists": b"]" * 200_000 + b"a" * 199_999,
    "deep dicts": b"}N" * 200_000 + b"}" + b"s" * 200_000,
    "a list in itself": b"]" + _KEPT + _GET + b"a",
    "a dict in itself": b"}" + _KEPT + b"N" + _GET + b"s",
    "a tuple of 2^60 parts": doubled(60),
    "a text of 2^40 letters in parts": doubled(30, text(b"x" * 1024)),
    "a long text": text(b"x" * 3_000_000),
    "escapes": text(b"\x1b[2J\x1b]0;owned\x07\n\r\xe2\x80\xae" * 20),
    "a lone surrogate": text(b"\xed\xa0\x80"),
    "a number of 600 digits": b"\x8a\xff" + b"\x7f" * 255,
    "not a number": b"G" + struct.pack(">d", float("nan")),
    "a huge float": b"G" + struct.pack(">d", 1e308),
    "bytes": b"B" + struct.pack("<I", 4) + b"\xff\x00\x1b\n",
    "a function": b"ctorch._utils\n_rebuild_tensor_v2\n",
    "a class": b"ccollections\nOrderedDict\n",
}
"""Opcodes that make an odd object."""

ENDLESS = ["a tuple of 2^60 parts", "a text of 2^40 letters in parts"]
"""Objects whose hash takes for ever."""


def shell(canary: Path) -> dict[str, bytes]:
    """Return programs that would make a file if anything in them were run."""
    touch = f"touch {canary}".encode()
    return {
        "os.system": called("os", "system", text(touch)),
        "posix.system": called("posix", "system", text(touch)),
        "eval": called("builtins", "eval", text(f"open({str(canary)!r}, 'w')".encode())),
        "a dotted name": b"\x8c\x0btorch._utils\x8c\x0dos.system.call\x93(" + text(touch) + b"tR",
        "INST": b"(" + text(touch) + b"ios\nsystem\n",
        "OBJ": b"(cos\nsystem\n" + text(touch) + b"o",
        "NEWOBJ": b"cos\nsystem\n" + text(touch) + b"\x85\x81",
        "BUILD": called("collections", "OrderedDict") + b"}" + text(b"x") + b"Nsb",
        "EXT1": b"\x82\x01",
        "PERSID": b"Pos.system\n",
        "a function of text": text(b"os.system") + text(touch) + b"\x85R",
        "a tensor's file": called("torch.storage", "_load_from_bytes", text(b"x")),
    }


def stored(
    numbers: bytes, *, dtype: str = "Float", count: int | None = None, key: bytes = b"", rest: bytes = b"N"
) -> bytes:
    """Return the opcodes of a tensor's storage, as ``torch.save`` writes it into a pickle.

    Args:
        numbers: The bytes of the numbers.
        dtype: Name of their type.
        count: How many numbers are claimed. ``None`` for the truth for four bytes each.
        key: Opcodes of the key of the storage.
    """
    claimed = len(numbers) // 4 if count is None else count
    described = b"(" + text(b"storage") + f"ctorch\n{dtype}Storage\n".encode()
    described += key + text(b"cpu") + b"\x8a\x08" + struct.pack("<q", claimed) + b"NtQ."
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    head += pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    inner = head + b"\x80\x02" + described + b"\x80\x02](" + key + b"e." + struct.pack("<q", claimed) + numbers
    return called("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(inner)) + inner)


def shaped(storage: bytes, size: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    """Return the opcodes of a tensor."""
    hooks = called("collections", "OrderedDict")
    return called("torch._utils", "_rebuild_tensor_v2", storage, offset, size, stride, b"\x89", hooks)


def _whole(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _tuple(*numbers: int) -> bytes:
    return b"(" + b"".join(map(_whole, numbers)) + b"t"


ODD_SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    *(((2**40,), (0,)), ((2**62, 2**62), (0, 0)), ((2**20, 2**20), (0, 0)), ((4,), (2**62,)), ((0, 2**40), (1, 1))),
    *(((5,), (1,)), ((2,), (-1,)), ((2,), (3,)), ((-1, -4), (1, 1)), ((2,), ())),
]
"""Sizes and strides that four numbers do not have."""


def _tensors() -> Iterator[tuple[str, bytes]]:
    four = stored(b"\0" * 16)
    for size, stride in [
        *ODD_SHAPES,
        *(((4,), (2**63,)), ((2**63, 0), (1, 1))),
        *(((1,) * 100, (1,) * 100), ((1,) * 100_000, (1,) * 100_000), ((2**2000,) * 20_000 + (0,), (1,) * 20_001)),
    ]:
        name = f"{len(size)} sizes of {str(size[0])[:20]}, {str(stride[:1])[:20]}"
        yield f"a tensor with {name}", shaped(four, _tuple(*size), _tuple(*stride))
    yield "an offset outside", shaped(four, _tuple(4), _tuple(1), _whole(2**40))
    yield "a negative offset", shaped(four, _tuple(4), _tuple(1), _whole(-1))
    yield "a size in text", shaped(four, text(b"x") + b"\x85", _tuple(1))
    yield "a size of lists", shaped(four, b"]", b"]")
    yield "a storage of lists", shaped(b"]", _tuple(1), _tuple(1))
    yield "a count of 2^60", shaped(stored(b"\0" * 16, count=2**60), _tuple(2**40), _tuple(1))
    yield "a negative count", shaped(stored(b"", count=-1), _tuple(0), _tuple(1))
    yield "numbers cut off", shaped(stored(b"\0" * 15, count=4), _tuple(4), _tuple(1))
    for dtype in ("Bool", "ComplexFloat", "BFloat16", "Untyped", "Quint8", "Double", "Half", "Long", "../x"):
        yield f"{dtype} numbers", shaped(stored(b"\1" * 16, dtype=dtype), _tuple(2), _tuple(1))
    for name, value in OBJECTS.items():
        if name not in ENDLESS:
            yield f"a storage with the key {name}", shaped(stored(b"\0" * 16, key=value), _tuple(4), _tuple(1))
        yield f"a storage of {name}", called("torch.storage", "_load_from_bytes", value)
        yield f"a size of {name}", shaped(four, value + b"\x85", value + b"\x85")
        yield f"hooks of {name}", shaped(four, _tuple(2), _tuple(1))[:-2] + value + b"tR"
    endless = stored(b"\0" * 16, key=OBJECTS[ENDLESS[0]])
    yield "a storage with a key that is compared for ever", shaped(endless, _tuple(4), _tuple(1))
    yield "a view of a view", shaped(shaped(four, _tuple(4), _tuple(1)), _tuple(4), _tuple(1))
    # Each of many tensors would be a copy of the same large storage.
    large = stored(b"\0" * 4_000_000) + _KEPT
    copies = shaped(_GET, _tuple(1_000_000), _tuple(1)) * 3000
    yield "3000 copies of one tensor", b"(" + large + copies + b"t"


def _utterances(n: int = 4, **changes: Any) -> list[dict[Any, Any]]:
    return [
        {"text_embed": torch.ones(3) * i, "audio_embed": torch.ones(2) * i, "label": i % 2, **changes} for i in range(n)
    ]


def _contents(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield whole files."""
    yield from ((f"only {name}", b"\x80\x02" + value + b".") for name, value in OBJECTS.items())
    for name, program in {**OBJECTS, **shell(canary)}.items():
        yield f"an utterance with {name}", with_object(_utterances(other=PLACE), program)
    for name, program in OBJECTS.items():
        if name not in ENDLESS[1:]:
            yield f"a key is {name}", with_object(_utterances(1, **{PLACE: 1}), program)
        yield f"a label is {name}", with_object(_utterances(1, label=PLACE), program)
        yield f"an embedding is {name}", with_object(_utterances(audio_embed=PLACE), program)
    for name, program in _tensors():
        yield name, with_object(_utterances(1, audio_embed=PLACE), program)
    for label in (-1, 2**31, 2**62, 10**6, 999):
        yield f"a label is {label}", pickle.dumps([*_utterances(), *_utterances(1, label=label)])
        in_a_tensor = _utterances(1, label=torch.tensor(label))
        yield f"a label is a tensor of {label}", pickle.dumps([*_utterances(), *in_a_tensor])
    for number in (math.nan, math.inf):
        yield f"an embedding with {number}", pickle.dumps(_utterances(audio_embed=torch.full((2,), number)))
    many = b"\x80\x02](" + pickle.dumps(_utterances(1)[0], 2)[2:-1] + _KEPT + _GET * 1_000_000 + b"e."
    yield "a million times the same utterance", many
    wide = pickle.dumps(_utterances(1, audio_embed=torch.zeros(1_000_000))[0], 2)[2:-1]
    yield "2000 times a wide utterance", b"\x80\x02](" + wide + _KEPT + _GET * 2000 + b"e."
    collide = b"".join(_whole((2**61 - 1) * i) + b"N" for i in range(1, 60_000))
    yield "keys with the same hash", b"\x80\x02}(" + collide + b"u."


def _opcodes() -> Iterator[tuple[str, bytes]]:
    """Yield programs with each opcode, well and badly used."""
    for opcode in pickletools.opcodes:
        code = opcode.code.encode("latin1")
        for name, argument in {"ones": b"\xff" * 16, "text": b"1\n1\n1\n1\n"}.items():
            yield f"{opcode.name} with {name}", b"\x80\x04](NN" + code + argument + b"0."
    for opcodes, count in (
        (b"\x8e", "<Q"),
        (b"\x8d", "<Q"),
        (b"\x96", "<Q"),
        (b"\x95", "<Q"),
        (b"B", "<I"),
        (b"X", "<I"),
    ):
        for claimed in (2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1):
            if claimed < 256 ** struct.calcsize(count):
                yield f"{opcodes!r} claims {claimed}", b"\x80\x05" + opcodes + struct.pack(count, claimed) + b"x."
    yield "a memo of four billion entries", b"\x80\x02K\x01r" + b"\xff" * 4 + b"."
    yield "a number of two billion digits", b"\x80\x02\x8b\xff\xff\xff\x7f."
    yield "many frames", b"\x80\x04" + (b"\x95" + struct.pack("<Q", 1) + b"N") * 200_000 + b"."
    yield "many marks", b"\x80\x02" + b"(" * 3_000_000 + b"."
    yield "many pickles", pickle.dumps(None) * 100_000


def _good(folder: Path) -> Path:
    path = folder / "X_BERT_WAV2VEC_val.pkl"
    path.write_bytes(pickle.dumps(_utterances(), 4))
    return path


def _cases(folder: Path) -> Iterator[tuple[str, Path]]:
    path = folder / "train.pkl"
    yield from impostors(path)
    for name, content in (*_contents(folder / CANARY), *_opcodes()):
        path.write_bytes(content)
        yield name, path


READERS = [Reader("pickled features", _cases, _good, FeatureSet.load, every=5)]
