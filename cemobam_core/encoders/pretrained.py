"""Pretrained encoders: find them by hub id or local folder, and load them without running code of their own."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.wall import refuse_irregular

NO_CODE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Arguments of every ``from_pretrained`` call. A folder can contain code of its own, and these do not run it."""

_FILES = (
    *("config.json", "preprocessor_config.json", "processor_config.json", "generation_config.json", "modules.json"),
    *("tokenizer*.json", "vocab.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "merges.txt", "*.model"),
)
"""Files that define an encoder besides its weights. ``*.model`` is a sentencepiece tokenizer."""

_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
"""Weights in one file or in several with an index. Copies in another precision have other names."""

_LARGEST_JSON = 16 * 2**20
"""Bytes of the largest ``config.json``. Those with the names of a thousand classes have some 50 kB."""

_OF_A_LAYER = re.compile(r"(?!.*\bdecoder\.)(.*\.)?layers?\.\d+\.")
"""Names of the weights of an encoder's layers."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A pretrained encoder on disk.

    Attributes:
        name: Hub id or folder, as the user gave it.
        folder: Folder of its files.
        revision: Commit of the hub, or ``sha256:`` and a hash of the local files. Equal revisions have equal weights.
    """

    name: str
    folder: Path
    revision: str

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            InputError: The file does not exist or is not a JSON object.
        """
        path = self.folder / "config.json"
        try:
            config = read_json(path)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read as an encoder's configuration ({error})") from None
        if not isinstance(config, dict):
            raise InputError(f"{path}: is not an encoder's configuration; a JSON object is expected")
        return config


def read_json(path: Path) -> Any:
    """Return the content of a small JSON file of an encoder.

    Raises:
        InputError: The file is not a regular file, or too large.
        OSError: The file cannot be read.
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    refuse_irregular(path)
    if (size := path.stat().st_size) > _LARGEST_JSON:
        raise InputError(f"{path}: has {size / 1e6:.0f} MB, too many for a configuration; use the published file")
    return json.loads(path.read_text(encoding="utf-8"))


def files_in(folder: Path) -> list[Path]:
    """Return everything in a folder, and in the folders in it, that is no folder.

    Raises:
        InputError: Something is a FIFO or a device, which could be read without end.
    """
    inside = sorted(folder.iterdir())
    inside += [path for inner in inside if inner.is_dir() for path in sorted(inner.iterdir())]
    files = [path for path in inside if path.exists() and not path.is_dir()]
    for path in files:
        refuse_irregular(path)
    return files


def find_pretrained(name: str, option: str, *, download: bool = True) -> Pretrained:
    """Find an encoder in a folder, in the hub's cache on this machine or, if necessary, on the hub.

    Args:
        name: Local folder, or hub id such as ``facebook/wav2vec2-base-960h``.
        option: Name of the command-line option, for error messages.
        download: Whether the hub is asked for what is not on this machine.

    Raises:
        InputError: The name is not a folder with an encoder, and the hub does not provide it.
    """
    folder, told = Path(name).expanduser(), f"{option} {name}".strip()
    if folder.is_dir():
        files_in(folder)
        if not (folder / "config.json").is_file():
            inner = [path.parent for path in sorted(folder.glob("*/config.json")) if weight_files(path.parent)]
            if inner and (folder / "modules.json").is_file():
                raise InputError(
                    f"{told}: no config.json in this folder of sentence-transformers; give the folder of its encoder, "
                    f"{inner[0]}"
                )
            raise InputError(
                f"{told}: no config.json in this folder; give a folder with an encoder as save_pretrained "
                "writes it (config.json, model.safetensors, and a tokenizer or preprocessor_config.json)"
            )
        return Pretrained(name=name, folder=folder, revision=hash_of(folder))
    return _from_hub(name, option, download=download)


def _from_hub(name: str, option: str, *, download: bool) -> Pretrained:
    told = f"{option} {name}".strip()
    require("features", told)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def snapshot(*, weights: tuple[str, ...], offline: bool) -> Path | None:
        """Return the folder of the snapshot if it contains the weights."""
        folder = Path(snapshot_download(name, allow_patterns=[*_FILES, *weights], local_files_only=offline))
        return folder if weight_files(folder) else None

    try:
        for offline in (True, False) if download else (True,):
            # A cached version is used unchanged, because a study must not change when the hub changes.
            for weights in (_SAFETENSORS, _PICKLED):
                try:
                    folder = snapshot(weights=weights, offline=offline)
                except LocalEntryNotFoundError:
                    if not offline:
                        raise
                    folder = None
                if folder is not None:
                    return Pretrained(name=name, folder=folder, revision=folder.name)
    except HFValidationError:
        raise InputError(
            f"{told}: no such folder, and not a hub id; give a folder, or an id such as facebook/wav2vec2-base-960h"
        ) from None
    except Exception as error:
        # The hub's client raises any exception of its transport. They all mean that the encoder is not available.
        raise InputError(
            f"{told}: not a folder, not in the hub's cache on this machine, and the hub cannot be reached or "
            f"has no such encoder ({type(error).__name__}); download it on a machine with network access "
            f"(hf download {name} --local-dir FOLDER), copy the folder (config.json, model.safetensors, …) "
            f"to this machine, and give it as {option} FOLDER"
        ) from None
    if not download:
        raise InputError(
            f"{told}: not a folder, and the hub's cache on this machine does not have it; download it first "
            f"(hf download {name}), or give a folder"
        )
    raise InputError(
        f"{told}: the hub has no PyTorch weights under this id; give another encoder, or a folder with "
        "config.json, model.safetensors, and a tokenizer or preprocessor_config.json"
    )


def hash_of(folder: Path) -> str:
    """Return a hash of the files that define the encoder: those that are read if the hub provides them.

    Raises:
        InputError: One of them is not a regular file.
    """
    digest = hashlib.sha256()
    weights = _SAFETENSORS if any(folder.glob(_SAFETENSORS[0])) else _PICKLED
    files = {path for pattern in (*_FILES, *weights) for path in folder.glob(pattern)}
    for path in sorted(files):
        refuse_irregular(path)
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights in a folder, those that are loaded."""
    for patterns in (_SAFETENSORS, _PICKLED):
        files = {path for pattern in patterns for path in folder.glob(pattern) if path.suffix != ".json"}
        if files:
            return sorted(files)
    return []


def load_model(pretrained: Pretrained, *, spare: tuple[str, ...] = (), kind: Any = None, **options: Any) -> Any:
    """Load the bare model with its weights in single precision, in evaluation mode, on the CPU.

    Args:
        pretrained: Encoder to load.
        spare: Prefixes of weights that are not used, so the file may lack them.
        kind: Class of the model. ``config.json`` decides if it is not given.
        **options: Further arguments of ``from_pretrained``. Those that are ``None`` are left out.

    Raises:
        InputError: Files cannot be read, or weights are missing and would be random.
    """
    require("features", "cemobam_core.encoders")
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = (kind or AutoModel).from_pretrained(
            pretrained.folder,
            output_loading_info=True,
            **NO_CODE,
            **{name: value for name, value in options.items() if value is not None},
        )
    except Exception as error:
        # Broken files raise any exception from KeyError to SafetensorError.
        raise InputError(
            f"{pretrained.folder}: cannot be loaded as an encoder ({type(error).__name__}: {_first_line(error)}); "
            "check its files, or download the encoder again"
        ) from None
    if dropped := sorted(name for name in info["unexpected_keys"] if _OF_A_LAYER.match(name)):
        raise InputError(
            f"{pretrained.folder}: config.json does not describe the weights {dropped[0]!r}; use the config.json that "
            "was published with them"
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(spare))
    if missing:
        raise InputError(
            f"{pretrained.folder}: its weights lack {missing[0]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + ", which would be random; use the complete encoder"
        )
    return model.float().eval()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
