"""Hostile checkpoints: ``.pt`` files of the authors' released code."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hostile.harness import CANARY, Reader, mutations
from hostile.impostors import impostors
from hostile.pickles import ENDLESS, OBJECTS, ODD_SHAPES, PLACE, called, shell, text, with_object

from cemobam_core.released import load_released_checkpoint

SIZES = {
    **{f"{modality}_projection.0.weight": (4, 3) for modality in ("audio", "text")},
    **{f"{modality}_projection.0.bias": (4,) for modality in ("audio", "text")},
    **{f"gnn.{layer}.att_{end}": (1, 2, 4) for layer in ("conv1", "convs.0") for end in ("src", "dst")},
    **{f"gnn.{layer}.bias": (8,) for layer in ("conv1", "convs.0")},
    **{f"gnn.{layer}.lin.weight": (8, 8) for layer in ("conv1", "convs.0")},
    **{f"gnn.conv_last.att_{end}": (1, 1, 4) for end in ("src", "dst")},
    **{"gnn.conv_last.bias": (4,), "gnn.conv_last.lin.weight": (4, 8)},
    **{f"cross_fusion.{m}_attention.in_proj_weight": (12, 4) for m in ("audio", "text")},
    **{f"cross_fusion.{m}_attention.in_proj_bias": (12,) for m in ("audio", "text")},
    **{
        f"cross_fusion.{m}_{part}.weight": (4, 4)
        for m in ("audio", "text")
        for part in ("attention.out_proj", "linear")
    },
    **{f"cross_fusion.{m}_{part}.bias": (4,) for m in ("audio", "text") for part in ("attention.out_proj", "linear")},
    **{f"cross_fusion.{m}_layer_norm.{part}": (4,) for m in ("audio", "text") for part in ("weight", "bias")},
    **{f"cross_fusion.cbam_{m}.channel_attention_mlp.0.weight": (1, 4) for m in ("audio", "text")},
    **{f"cross_fusion.cbam_{m}.channel_attention_mlp.2.weight": (4, 1) for m in ("audio", "text")},
    **{f"cross_fusion.cbam_{m}.spatial_attention.0.weight": (1, 2, 7) for m in ("audio", "text")},
    **{"mlp.0.weight": (4, 8), "mlp.0.bias": (4,), "mlp.1.weight": (4,), "mlp.1.bias": (4,)},
    **{"mlp.4.weight": (2, 4), "mlp.4.bias": (2,)},
}
"""The weights of a small model, without batch norms."""

NORMS = {"audio_projection.1": 4, "text_projection.1": 4, "gnn.batch_norm": 8}
"""The batch norms, and how many features each normalises."""


def state(**changes: Any) -> dict[str, Any]:
    """Return the weights of a small model under the authors' names."""
    weights: dict[str, Any] = {name: torch.ones(size) for name, size in SIZES.items()}
    for norm, size in NORMS.items():
        weights |= {f"{norm}.{part}": torch.ones(size) for part in ("weight", "bias", "running_mean", "running_var")}
        weights[f"{norm}.num_batches_tracked"] = torch.tensor(1)
    return {**weights, **changes}


def saved(content: object, *, old: bool = False) -> bytes:
    """Return the file of a checkpoint."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def packed(program: bytes, *, numbers: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a checkpoint with a pickle of one's own, and files of numbers."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("best/data.pkl", program)
        archive.writestr("best/byteorder", "little")
        for name, content in (numbers or {"0": b"\0" * 16}).items():
            archive.writestr(f"best/data/{name}", content)
        archive.writestr("best/version", "3\n")
    return stream.getvalue()


def _tensor(
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    offset: int = 0,
    count: int = 4,
    key: bytes = text(b"0"),
    kind: str = "Float",
) -> bytes:
    """Return the opcodes of a tensor in a checkpoint."""
    storage = b"(" + text(b"storage") + f"ctorch\n{kind}Storage\n".encode() + key + text(b"cpu") + _whole(count) + b"tQ"
    shape = [b"(" + b"".join(map(_whole, numbers)) + b"t" for numbers in (size, stride)]
    return called(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage,
        _whole(offset),
        *shape,
        b"\x89",
        called("collections", "OrderedDict"),
    )


def _whole(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _programs(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield pickles for a checkpoint."""
    for name, program in {**OBJECTS, **shell(canary)}.items():
        yield f"beside the weights, {name}", with_object({"model": {}, "epoch": PLACE}, program)
    for name, program in OBJECTS.items():
        yield f"a weight is {name}", with_object({"mlp.4.bias": PLACE}, program)
        if name not in ENDLESS[1:]:
            yield f"a key is {name}", with_object({PLACE: 1}, program)
    for size, stride in [
        *ODD_SHAPES,
        *(((2**40, 0), (1, 1)), ((4,), (2**64,))),
        *(((1,) * 100_000, (1,) * 100_000), ((2**2000,), (1,)), ((10_000, 5_000), (0, 0))),
    ]:
        yield f"a tensor of {len(size)} sizes of {str(size[0])[:20]}", with_object({"x": PLACE}, _tensor(size, stride))
    yield "an offset outside", with_object({"x": PLACE}, _tensor((4,), (1,), offset=2**40))
    yield "a negative offset", with_object({"x": PLACE}, _tensor((4,), (1,), offset=-4))
    for count in (5, -1, 2**40, 2**62):
        yield f"a storage of {count}", with_object({"x": PLACE}, _tensor((count,), (1,), count=count))
    for kind in ("Bool", "BFloat16", "QInt8", "Untyped", "ComplexDouble", "Nothing"):
        yield f"{kind} numbers", with_object({"x": PLACE}, _tensor((2,), (1,), count=2, kind=kind))
    for key in (b"../../../../etc/passwd", b"1", b"", b"x" * 10_000, b"\x1b[2J"):
        yield f"numbers in {key[:9]!r}", with_object({"x": PLACE}, _tensor((4,), (1,), key=text(key)))
    for name in ("_rebuild_parameter", "_rebuild_device_tensor_from_numpy", "_rebuild_meta_tensor_no_storage"):
        yield name, with_object({"x": PLACE}, called("torch._utils", name, b"NNNN"))
    meta = called(
        "torch._utils",
        "_rebuild_meta_tensor_no_storage",
        b"ctorch\nfloat32\n",
        b"\x8a\x06" + b"\xff" * 5 + b"\x00\x85",
        b"K\x01\x85",
        b"\x89",
    )
    yield "a tensor without numbers", with_object({"x": PLACE}, meta)
    sized = called("torch", "Size", b"(" + _whole(2**62) * 1000 + b"t")
    yield "a huge size", with_object({"x": PLACE}, sized)
    yield "a million dicts", b"\x80\x02](" + called("collections", "OrderedDict") * 300_000 + b"e."
    yield "a huge bytearray", with_object({"x": PLACE}, called("builtins", "bytearray", _whole(2**40)))
    yield "states of states", with_object({"x": PLACE}, called("collections", "OrderedDict") + b"}Nb" * 100_000)


def _archives(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield zip files that are none, or more than they seem."""
    whole = with_object({"mlp.4.bias": PLACE}, _tensor((4,), (1,)))
    yield "zeros, compressed, as the pickle", packed(b"\0" * 30_000_000, compression=zipfile.ZIP_DEFLATED)
    marks = b"\x80\x02" + b"(" * 30_000_000 + b"."
    yield "marks, compressed, as the pickle", packed(marks, compression=zipfile.ZIP_DEFLATED)
    many = with_object({"mlp.4.bias": PLACE}, _tensor((2**25,), (1,), count=2**25))
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        numbers = {"0": b"\0" * 2**27}
        yield f"numbers, compressed by {compression}", packed(many, numbers=numbers, compression=compression)
    yield "no numbers", packed(whole, numbers={"1": b""})
    yield "fewer numbers", packed(whole, numbers={"0": b"\0"})
    yield "ten thousand files", packed(whole, numbers={str(i): b"\0" * 16 for i in range(10_000)})
    yield "files outside", packed(whole, numbers={"../../../../canary": b"x", "/canary": b"x", "0": b"\0" * 16})
    good = packed(whole)
    for claimed in (0, 2**31 - 1, 2**32 - 1):
        for name, signature, places in (
            ("a local header", b"PK\x03\x04", (18, 22)),
            ("the directory", b"PK\x01\x02", (20, 24)),
        ):
            for place in places:
                at = good.index(signature) + place
                yield f"{name} claims {claimed} at {place}", good[:at] + struct.pack("<I", claimed) + good[at + 4 :]
        at = good.rindex(b"PK\x05\x06") + 12
        yield f"a directory of {claimed}", good[:at] + struct.pack("<I", claimed) + good[at + 4 :]
    at = good.rindex(b"PK\x05\x06") + 8
    yield "65535 files in the directory", good[:at] + b"\xff" * 4 + good[at + 4 :]
    yield "a file twice", good + good
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("best/data.pkl", whole)
        archive.writestr("best/constants.pkl", whole)
        archive.writestr("best/code/__torch__.py", f"import os\nos.system('touch {canary}')\n")
        archive.writestr("best/version", "999999999999999999999\n")
    yield "a program of TorchScript", stream.getvalue()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, str(canary)
            tar.addfile(link)
    yield "a tar of links", stream.getvalue()


def _old(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield files in the format that torch wrote before 1.6."""
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    weights = with_object({"mlp.4.bias": PLACE}, _tensor((4,), (1,)))
    for name, program in {**OBJECTS, **shell(canary)}.items():
        yield f"old, with {name}", head + system + b"\x80\x02" + program + b"." + pickle.dumps([], 2)
        if name not in ENDLESS:
            yield f"old, with keys of {name}", head + system + weights + with_object([PLACE], program) + b"\0" * 64
    honest = saved({"mlp.4.bias": torch.ones(4)}, old=True)
    at = honest.rindex(struct.pack("<q", 4))
    for count in (-1, 5, 2**40, 2**62):
        yield f"old, {count} numbers", honest[:at] + struct.pack("<q", count) + honest[at + 8 :]


_SIZING = [
    *("audio_projection.0.weight", "text_projection.0.weight", "gnn.conv1.att_src", "mlp.4.bias"),
    *("cross_fusion.cbam_audio.channel_attention_mlp.0.weight", "cross_fusion.cbam_audio.spatial_attention.0.weight"),
]
"""Weights that tell the sizes of the model."""


def _models() -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield states that are no model, or one that is too large."""
    for name, size in SIZES.items():
        if name in _SIZING:
            for other in (
                (0,) * len(size),
                (*size[:-1], 0),
                (10**6, *(0,) * (len(size) - 1)),
                (10**9, *(0,) * (len(size) - 1)),
                (*(0,) * (len(size) - 1), 10**9),
                (*size, 1),
            ):
                yield (
                    f"{name} of {other}",
                    state(**{name: torch.zeros(1).expand(other) if min(other) else torch.zeros(other)}),
                )
    yield "all of width 10^6", {name: torch.zeros(10**6, *(0,) * (len(size) - 1)) for name, size in SIZES.items()}
    yield "a layer of 5000 digits", state(**{f"gnn.convs.{'9' * 5000}.bias": torch.ones(8)})
    yield "a layer of 10^18", state(**{f"gnn.convs.{10**18}.bias": torch.ones(8)})
    yield "a layer in other digits", state(**{"gnn.convs.\u0663.bias": torch.ones(8)})
    yield "thousands of layers", state(**{f"gnn.convs.{i}.bias": torch.ones(8) for i in range(1, 4_000)})
    yield "an unknown weight", state(**{"\x1b[2J\n": torch.ones(1)})
    yield "a name of a megabyte", state(**{"mlp." + "x" * 1_000_000: torch.ones(1)})
    yield "an empty name", state(**{"": torch.ones(1)})
    yield "a number as a name", {7: torch.ones(1)}
    yield "nested", {"model": {"state_dict": state()}}
    for name, value in {
        "complex": torch.ones(2, dtype=torch.complex64),
        "whole": torch.ones(2, dtype=torch.int64),
        "of eight bits": torch.ones(2).to(torch.float8_e4m3fn),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
        "sparse": torch.ones(2).to_sparse(),
        "infinite": torch.full((2,), float("inf")),
        "without numbers": torch.ones(2, device="meta"),
        "a parameter": torch.nn.Parameter(torch.ones(2)),
        "a view": torch.ones(4)[::2],
    }.items():
        yield f"{name} weights", state(**{"mlp.4.bias": value})
    shared = torch.ones(2)
    yield "one tensor twice", state(**{"mlp.4.bias": shared, "mlp.5.bias": shared})


def _good(folder: Path) -> Path:
    path = folder / "best.pt"
    torch.save(state(), path)
    return path


def _cases(folder: Path) -> Iterator[tuple[str, Path]]:
    path = folder / "best.pt"
    yield from impostors(path)
    canary = folder / CANARY
    for name, program in _programs(canary):
        path.write_bytes(packed(program))
        yield name, path
    for name, content in (*_archives(canary), *_old(canary)):
        path.write_bytes(content)
        yield name, path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, weights in _models():
            path.write_bytes(saved(weights))
            yield name, path
    # A damaged zip file is found by its checksum. Here the damage is in what it holds.
    path.write_bytes(saved(OrderedDict(state())))
    with zipfile.ZipFile(path) as archive:
        held = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    numbers = {name.removeprefix("data/"): content for name, content in held.items() if name.startswith("data/")}
    for name, damaged in mutations(held["data.pkl"], 40, seed=3):
        path.write_bytes(packed(damaged, numbers=numbers))
        yield f"its pickle with {name}", path


def _read(path: Path) -> object:
    return load_released_checkpoint(path, "min")


READERS = [Reader("released checkpoints", _cases, _good, _read, every=5)]
