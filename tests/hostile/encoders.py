"""Hostile folders of pretrained models: odd configurations, weights, tokenizers and links; and hostile checkpoints."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile.harness import CANARY, Reader
from hostile.impostors import impostors
from safetensors.torch import load_file, save_file
from tiny import make_bert, make_transcriber, make_wav2vec2

from cemobam_core.encoders.asr import load_transcriber
from cemobam_core.encoders.builds import build_of
from cemobam_core.encoders.finetune import Tuned, TuningConfig, TuningData, tune
from cemobam_core.encoders.loading import load_encoder
from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.encoders.settings import FeatureSettings
from cemobam_core.encoders.text import TextEncoder
from cemobam_core.encoders.trial import _import_for

for _type in ("bert", "wav2vec2", "whisper"):  # once, and not in every process that reads a file
    _import_for(_type)

_CLIP = np.random.default_rng(0).standard_normal(8_000, dtype=np.float32)


def _read_text(folder: Path) -> object:
    found = find_pretrained(str(folder), "--text-encoder")
    build = build_of("text", found)
    build.size(found)
    build.longest(found.config)
    return load_encoder("text", found, FeatureSettings()).embed(["i love you", "eggs " * 300], sequence=True)


def _read_audio(folder: Path) -> object:
    found = find_pretrained(str(folder), "--audio-encoder")
    build = build_of("audio", found)
    build.size(found)
    build.longest(found.config)
    return load_encoder("audio", found, FeatureSettings()).embed([_CLIP], sequence=True)


def _read_transcriber(folder: Path) -> object:
    return load_transcriber(find_pretrained(str(folder), "--asr")).transcribe(_CLIP)


def _read_checkpoint(path: Path) -> object:
    with tempfile.TemporaryDirectory() as folder:
        return _tuned(path, Path(folder))


def _good_text(folder: Path) -> Path:
    return make_bert(folder / "encoder", layers=2)


def _good_audio(folder: Path) -> Path:
    return make_wav2vec2(folder / "encoder", layers=2)


def _good_pickled(folder: Path) -> Path:
    encoder = _good_text(folder)
    torch.save(load_file(encoder / "model.safetensors"), encoder / "pytorch_model.bin")
    (encoder / "model.safetensors").unlink()
    return encoder


def _good_transcriber(folder: Path) -> Path:
    return make_transcriber(folder / "whisper")


def _good_checkpoint(folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as place:
        _tuned(folder / "tuned_text.pt", Path(place))
    return folder / "tuned_text.pt"


def _tuned(checkpoint: Path, place: Path) -> Tuned:
    """Tune a small encoder for an epoch, or resume after it."""
    found = find_pretrained(str(make_bert(place / "encoder", layers=1)), "--text-encoder")
    encoder = TextEncoder(found, pool="cls", max_tokens=16)
    data = TuningData(items=["i love you", "i hate you"], labels=torch.tensor([0, 1]))
    config = TuningConfig(layers=1, epochs=1)
    return tune(
        encoder, data, data, num_classes=2, config=config, checkpoint=checkpoint, name="text", say=lambda line: None
    )


Change = Callable[[Path], object]
Changes = Iterator[tuple[str, Change]]


def _changed(make: Callable[[Path], Path], changes: Callable[[], Changes], folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield copies of a good folder, each with a change."""
    good = make(folder / "good")
    for name, change in changes():
        copy = Path(shutil.copytree(good, folder / "copy", symlinks=True))
        change(copy)
        yield name, copy
        shutil.rmtree(copy)


# JSON.

_DEEP = "[" * 200_000
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 3, 10**9, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\ud800"),
    *("../../../x", "/dev/zero", "a\nb\x1b[2J", [], {}, [[]], ["x"] * 1000, {"x": {"y": []}}),
)


def _json(name: str, key: str, value: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**content, key: value}))

    return change


def _text(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def _odd_json(name: str, keys: dict[str, tuple[Any, ...]]) -> Changes:
    for key, values in keys.items():
        for value in values:
            yield f"{name}: {key} is {value!r:.30}", _json(name, key, value)
    damaged = {"deep": _DEEP, "digits": '{"hidden_size": ' + "9" * 10_000 + "}", "a list": "[]", "large": " " * 2**25}
    for what, text in damaged.items():
        yield f"{name}: {what}", _text(name, text)


_SOME = (None, -1, 0, 1.5, 10**9, 10**30, "x", [], {})
_SIZES = (-1, 0, 7, 1000, 10**6, 10**9, 2**63)

_CONFIG = {
    "model_type": _ODD,
    "num_hidden_layers": _ODD,
    "hidden_size": _ODD,
    "attn_implementation": ("kernels-community/flash-attn", "evil/kernel", "flash_attention_2", ["x"], {"": "x/y"}),
    "_attn_implementation": ("evil/kernel",),
    "quantization_config": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "x"}, "x"),
    "auto_map": ({"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}, {"AutoModel": "evil/repository--evil.Evil"}),
    "torch_dtype": ("float16", "int8", "x", 3),
    "dtype": ("bfloat16", "complex64", "x"),
    "architectures": (["Evil"], "x"),
    "transformers_version": ("x", 3),
}
_CONFIG_OF_TEXT = {
    **_CONFIG,
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "intermediate_size", "num_attention_heads"), _SIZES),
    "type_vocab_size": _SIZES,
    "hidden_act": ("gelu", "x", 3, None, "quick_gelu"),
    "hidden_dropout_prob": (-1, 2, "x"),
    "layer_norm_eps": (-1, 1e308, "x"),
    "pad_token_id": (10**9, -5, "x"),
    "is_decoder": (True,),
    "add_cross_attention": (True,),
}
_CONFIG_OF_AUDIO = {
    **_CONFIG,
    **dict.fromkeys(("conv_dim", "conv_kernel", "conv_stride", "num_feat_extract_layers"), _SOME),
    "conv_stride": ([0, 0, 0], [1, 1, 1], [10**9] * 3, [-1, 8, 8], *_SOME),
    "conv_bias": (True, "x"),
    "feat_extract_norm": ("x", "layer", 3),
    "num_conv_pos_embeddings": _SIZES,
    "num_conv_pos_embedding_groups": _SIZES,
    "num_attention_heads": _SIZES,
    "adapter_attn_dim": (10**9, 16),
    "add_adapter": (True, "x"),
    "layerdrop": (2, "x"),
}
_TOKENIZER = {
    "tokenizer_class": ("Evil", "GPT2Tokenizer", "LlamaTokenizer", 3, None),
    "auto_map": ({"AutoTokenizer": ["evil.Evil", None]},),
    "model_max_length": (0, -5, 1, 10**30, "x", None),
    "tokenizer_file": ("/dev/zero", "../x"),
    "vocab_file": ("/dev/zero", "/etc/passwd"),
    "cls_token": (None, "", "x" * 10**6, 3, {"__type": "AddedToken", "content": "y"}),
    "added_tokens_decoder": ({"1000000000": {"content": "x"}}, {"-1": {"content": "x"}}, {"x": 3}, 3),
    "extra_special_tokens": (["<x>"] * 100, {"a": "b"}, 3),
    "chat_template": ("{% for i in range(10**12) %}{% endfor %}",),
    "padding_side": ("x", 3),
    "do_lower_case": ("x", 3),
}
_PREPROCESSOR = {
    "feature_extractor_type": ("Evil", "WhisperFeatureExtractor", 3),
    "sampling_rate": (0, 8_000, "x", 10**30),
    "feature_size": (10**9, -1, "x"),
    "n_fft": (10**12, -1, "x"),
    "hop_length": (0, 10**12, "x"),
    "chunk_length": (10**12, -1, "x"),
    "do_normalize": ("x", 3, []),
    "padding_value": ("x", 1e308),
    "auto_map": ({"AutoFeatureExtractor": "evil.Evil"},),
}
_GENERATION = {
    "max_length": (10**12, -1, 0, "x"),
    "num_beams": (10**9,),
    "num_return_sequences": (10**9, 0),
    "suppress_tokens": ([10**9], [-1], "x"),
    "begin_suppress_tokens": ([10**9], "x"),
    "forced_decoder_ids": ([[1, 10**9]], "x"),
    "decoder_start_token_id": (10**9, -1, "x"),
    "eos_token_id": (10**9, "x", []),
    "no_repeat_ngram_size": (10**9, "x"),
    "cache_implementation": ("static", "x"),
    "assistant_model": ("x",),
    "is_multilingual": (True, "x"),
    "lang_to_id": ({}, {"<|en|>": 10**9}, "x"),
}


# Weights.


def _header(content: bytes | dict[str, Any], body: bytes = b"", length: int | None = None) -> Change:
    head = content if isinstance(content, bytes) else json.dumps(content).encode()
    raw = struct.pack("<Q", len(head) if length is None else length) + head + body
    return lambda folder: (folder / "model.safetensors").write_bytes(raw)


def _odd_safetensors() -> Changes:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    for length in (0, 1, 2**20, 2**31, 2**63, 2**64 - 1):
        yield f"safetensors: a header of {length} bytes", _header({}, length=length)
    for what, head in {
        "deep": _DEEP.encode(),
        "no JSON": b"x" * 100,
        "no tensors": {},
        "a shape of 2^80": {"x": {**one, "shape": [2**40, 2**40]}},
        "a shape of exabytes of nothing": {"x": {**one, "shape": [2**62, 0], "data_offsets": [0, 0]}},
        "a negative shape": {"x": {**one, "shape": [-1]}},
        "offsets outside": {"x": {**one, "data_offsets": [0, 2**40]}},
        "offsets backwards": {"x": {**one, "data_offsets": [4, 0]}},
        "an odd dtype": {"x": {**one, "dtype": "F4"}},
        "an unknown dtype": {"x": {**one, "dtype": "Evil"}},
        "many digits": b'{"x":{"dtype":"F32","shape":[' + b"9" * 10_000 + b'],"data_offsets":[0,4]}}',
        "a surrogate": b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        "odd metadata": {"__metadata__": {"format": "x\ud800\n"}, "x": one},
        "many tensors": {f"encoder.layer.{i}.x": {**one, "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)},
        "a name of 1 MB": {"x" * 2**20: one},
    }.items():
        yield f"safetensors: {what}", _header(head, b"\0" * 4)  # type: ignore[arg-type]
    for what, change in {
        "not finite": lambda x: torch.full_like(x, float("nan")),
        "transposed": lambda x: x.T.contiguous() if x.ndim == 2 else x,
        "scalars": lambda _: torch.tensor(1.0),
        "empty": lambda x: torch.empty(0),
        "bytes": lambda x: torch.zeros_like(x, dtype=torch.uint8),
        "half": lambda x: x.half(),
        "complex": lambda x: x.to(torch.complex64),
        "booleans": lambda x: x > 0,
    }.items():
        yield f"safetensors: all weights are {what}", _weights(change)
    for what, index in {
        "elsewhere": {"weight_map": {"x": "../../x.safetensors"}},
        "a device": {"weight_map": {"x": "/dev/zero"}},
        "no map": {},
        "odd": {"weight_map": {"x": 3}},
        "a list": [],
    }.items():
        yield f"safetensors: an index that names {what}", _index("model.safetensors", json.dumps(index))
    yield "safetensors: a deep index", _index("model.safetensors", _DEEP)


def _weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def changed(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file({name: change(x) for name, x in load_file(path).items()}, path, {"format": "pt"})

    return changed


def _index(weights: str, text: str) -> Change:
    def changed(folder: Path) -> None:
        name, suffix = weights.split(".")
        (folder / weights).rename(folder / f"{name}-00001-of-00001.{suffix}")
        (folder / f"{weights}.index.json").write_text(text)

    return changed


class _Evil:
    """Makes a file if it is unpickled without restrictions."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


def _zipped(data: bytes, *, blob: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a file as torch writes it, with this pickle."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", compression) as file:
        file.writestr("x/data.pkl", data)
        file.writestr("x/data/0", blob)
        file.writestr("x/version", "3\n")
        file.writestr("x/byteorder", "little")
    return raw.getvalue()


def _storage(numbers: int, shape: str = "(I2\nt", stride: str = "(I1\nt") -> bytes:
    """Return a pickle of a dict with a tensor of a storage of that many numbers."""
    return (
        b"\x80\x02}X\x01\0\0\0xctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
        b"X\x01\0\0\x000X\x03\0\0\0cpuI" + str(numbers).encode() + b"\ntQI0\n" + shape.encode() + stride.encode()
        + b"I00\nccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


def _odd_pickles(path: Callable[[Path], Path]) -> Changes:
    """Yield what to put in the place of a file that torch wrote."""
    zeros = b"\0" * (3 << 29)
    torch.save({"x": torch.ones(1).expand(2**20, 2**20)}, expanded := io.BytesIO())
    contents: dict[str, Callable[[], bytes]] = {
        "code": lambda: pickle.dumps({"x": _Evil()}),
        "code, zipped": lambda: _zipped(pickle.dumps({"x": _Evil()})),
        "a deep list": lambda: _zipped(b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b"."),
        "a deep key": lambda: _zipped(b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns."),
        "a deep key, not zipped": lambda: b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns.",
        "a memo of terabytes": lambda: _zipped(b"\x80\x02Nr\xff\xff\xff\xff."),
        "a list that multiplies": lambda: _zipped(
            b"\x80\x02]q\x01" + b"".join(b"(" + b"h\x01" * 10 + b"lq\x01" for _ in range(12)) + b"."
        ),
        "a storage of terabytes": lambda: _zipped(_storage(10**13), blob=b"\0" * 8),
        "a negative storage": lambda: _zipped(_storage(-1), blob=b"\0" * 8),
        "a tensor larger than its storage": lambda: _zipped(_storage(2, "(I1000000\nt"), blob=b"\0" * 8),
        "a tensor of terabytes in four bytes": expanded.getvalue,
        "a zip bomb": lambda: _zipped(_storage(len(zeros) // 4), blob=zeros, compression=zipfile.ZIP_DEFLATED),
        "a zip of nothing": lambda: _zipped(b""),
        "no dict": lambda: _zipped(pickle.dumps([1, 2, 3], 2)),
        "numbers": lambda: _zipped(pickle.dumps({"x": 3, 5: "y"}, 2)),
        "surrogates": lambda: _zipped(b"\x80\x02}X\x03\0\0\0\xed\xa0\x80Ns."),
    }
    for name, content in contents.items():
        yield f"pickle: {name}", lambda folder, made=content: path(folder).write_bytes(made())


# The folders.


def _irregular(names: Sequence[str]) -> Changes:
    makers: dict[str, Change] = {
        "a pipe": os.mkfifo,
        "endless": lambda path: path.symlink_to("/dev/zero"),
        "a folder": Path.mkdir,
    }
    for name in names:
        for what, make in makers.items():
            yield f"{name} is {what}", partial(_replace, name=name, make=make)


def _replace(folder: Path, name: str, make: Change) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)


def _code(folder: Path) -> None:
    (folder / "evil.py").write_text(f"open({CANARY!r}, 'w').close()\nclass Evil: pass\n")
    names = ("AutoModel", "AutoConfig", "AutoTokenizer", "AutoFeatureExtractor", "AutoProcessor")
    for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        _json(file, "auto_map", dict.fromkeys(names, "evil.Evil"))(folder)


def _of_text() -> Changes:
    yield "code of its own", _code
    yield from _odd_json("config.json", _CONFIG_OF_TEXT)
    yield from _odd_json("tokenizer_config.json", _TOKENIZER)
    yield from _odd_json(
        "special_tokens_map.json", {"cls_token": ("x", 3, None), "additional_special_tokens": (3, ["x"])}
    )
    yield from _odd_json("added_tokens.json", {"x": (10**9, -1, "x")})
    yield from _odd_json("modules.json", {})
    yield "adapter", _text("adapter_config.json", '{"base_model_name_or_path": "/dev", "peft_type": "LORA"}')
    yield from _odd_safetensors()
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json")
    yield from _irregular((*names, "chat_template.jinja", "additional_chat_templates/x.jinja"))
    for what, change in {
        "a vocabulary of one word": lambda words: {"[UNK]": 0},
        "ids far apart": lambda words: {**words, "zebra": 10**9},
        "negative ids": lambda words: {**words, "zebra": -1},
        "a word of 1 MB": lambda words: {**words, "z" * 2**20: 90},
        "no vocabulary": lambda words: [],
    }.items():
        yield f"tokenizer.json: {what}", _tokenizer("model", "vocab", change)
    for kind in (
        {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"Regex": "(" * 100_000}, "behavior": "Isolated", "invert": False},
        {"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": []}] * 1000},
    ):
        yield f"tokenizer.json: {kind!r:.60}", _json("tokenizer.json", "pre_tokenizer", kind)
    padding = {"direction": "Right", "pad_id": 10**9, "pad_type_id": 7, "pad_token": "x", "pad_to_multiple_of": 2**40}
    for strategy in ({"Fixed": 10**12}, {"Fixed": -1}, "BatchLongest"):
        odd = {"strategy": strategy, **padding}
        yield f"tokenizer.json: padding {strategy}", _json("tokenizer.json", "padding", odd)
    yield "tokenizer.json: deep", _text("tokenizer.json", _DEEP)


def _tokenizer(part: str, key: str, change: Callable[[Any], Any]) -> Change:
    def changed(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        content[part][key] = change(content[part][key])
        path.write_text(json.dumps(content))

    return changed


def _of_audio() -> Changes:
    yield "code of its own", _code
    yield from _odd_json("config.json", _CONFIG_OF_AUDIO)
    yield from _odd_json("preprocessor_config.json", _PREPROCESSOR)
    yield from _irregular(("preprocessor_config.json", "processor_config.json"))


def _of_pickled() -> Changes:
    yield from _odd_pickles(lambda folder: folder / "pytorch_model.bin")
    for what, index in {"elsewhere": {"weight_map": {"x": "../../x.bin"}}, "odd": {"weight_map": [3]}}.items():
        yield f"an index that names {what}", _index("pytorch_model.bin", json.dumps(index))


def _of_transcriber() -> Changes:
    yield "code of its own", _code
    yield from _odd_json("generation_config.json", _GENERATION)
    yield from _odd_json("preprocessor_config.json", _PREPROCESSOR)
    yield from _odd_json("config.json", {"encoder_layers": _SIZES, "d_model": _SIZES, "max_target_positions": _SIZES})


def _checkpoints(folder: Path) -> Iterator[tuple[str, Path]]:
    good = _good_checkpoint(folder)
    state = torch.load(good, weights_only=True)
    path = folder / "copy.pt"
    for part in (*state, "new"):
        for value in (None, 3, "x", [], {}, [10**30], {"x": torch.zeros(3)}, torch.ones(1).expand(2**20, 2**20)):
            torch.save({**state, part: value}, path)
            yield f"checkpoint: {part} is {type(value).__name__}", path
    for what, change in {
        "a moment of another shape": lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(1)),
        "an odd learning rate": lambda s: s["optimizer"]["param_groups"][0].update(lr="x"),
        "no parameters": lambda s: s["optimizer"]["param_groups"].clear(),
        "other parameters": lambda s: s["optimizer"]["state"].update({10**9: {}}),
        "a weight of another shape": lambda s: s["best"].update({next(iter(s["best"])): torch.zeros(1)}),
        "complex weights": lambda s: s["best"].update({k: x.to(torch.complex64) for k, x in s["best"].items()}),
        "losses that are no numbers": lambda s: s.update(val_losses=["x"]),
        "losses of a million epochs": lambda s: s.update(val_losses=[1.0] * 10**6),
        "losses that are not finite": lambda s: s.update(val_losses=[float("nan")]),
    }.items():
        changed = torch.load(good, weights_only=True)
        change(changed)
        torch.save(changed, path)
        yield f"checkpoint: {what}", path
    for name, change in _odd_pickles(lambda folder: folder / "copy.pt"):
        change(folder)
        yield name, path
    path.unlink()
    yield from ((name, place) for name, place in impostors(path) if place.exists())  # else a new one is written


# Loading a model takes its time, so the quick run has a part of the cases only.
READERS = [
    Reader(name, partial(_changed, good, changes), good, read, every=20)
    for name, good, changes, read in (
        ("encoder: text", _good_text, _of_text, _read_text),
        ("encoder: audio", _good_audio, _of_audio, _read_audio),
        ("encoder: pickled", _good_pickled, _of_pickled, _read_text),
        ("encoder: transcriber", _good_transcriber, _of_transcriber, _read_transcriber),
    )
] + [Reader("encoder: checkpoint", _checkpoints, _good_checkpoint, _read_checkpoint, every=10)]
