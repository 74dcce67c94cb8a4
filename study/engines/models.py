"""Trained models on disk: weights as safetensors, everything else as JSON; nothing in either can be run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cemobam_core.config import CemoBAMConfig, GraphConfig
from cemobam_core.corpora.splits import SPLITS
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from study.design import Pair, Trial

if TYPE_CHECKING:
    from cemobam_core.systems.cemobam import CemoBAM

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
EMBEDDING = "test_embedding.safetensors"

_FORMAT = 2
_LARGEST = {"gat_layers": 64, "cbam_kernel": 10_001}
_LARGEST_SIZE = 65_536


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where models are kept, and what is written beside them.

    Attributes:
        folder: of all models of a study.
        dataset: the data set's name.
        fingerprint: of the features in their splits.
    """

    folder: Path
    dataset: str
    fingerprint: str

    def place(self, trial: Trial) -> Path:
        """The folder of a trial's model."""
        return model_folder(self.folder, trial, self.fingerprint)

    def has(self, trial: Trial) -> bool:
        """Whether the trial's model is kept already, in the format of this release."""
        folder = self.place(trial)
        if not all((folder / name).is_file() for name in (CONFIG, WEIGHTS, EMBEDDING)):
            return False
        try:
            content = _read(folder / CONFIG)
        except InputError:
            return False
        return isinstance(content, dict) and content.get("format") == _FORMAT

    def keep(
        self,
        trial: Trial,
        model: CemoBAM,
        *,
        class_names: Sequence[str],
        metrics: Mapping[str, float],
        sizes: Mapping[str, int],
        embedding: Tensor,
        labels: Tensor,
    ) -> None:
        """Write a trial's model; the configuration comes last, so that what has one is whole.

        Args:
            trial: that was trained.
            model: what came of it.
            class_names: C names, in the order of the logits.
            metrics: as the ledger has them.
            sizes: how many utterances each split has.
            embedding: (N, width), what the classifier sees of the test utterances.
            labels: (N,), theirs.
        """
        folder, configuration = self.place(trial), trial.configuration
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        with written_atomically(folder / WEIGHTS) as temporary:
            save_file(weights, temporary)
        with written_atomically(folder / EMBEDDING) as temporary:
            save_file({"embedding": embedding.detach().float().cpu().contiguous(), "labels": labels.cpu()}, temporary)
        content = {
            "format": _FORMAT,
            "dataset": self.dataset,
            "class_names": list(class_names),
            "profile": configuration.profile,
            "k_audio": configuration.pair.k_audio,
            "k_text": configuration.pair.k_text,
            "graph": asdict(configuration.graph),
            "model": asdict(model.config),
            "training": asdict(configuration.training),
            "seed": trial.seed,
            "fold": trial.fold,
            "features": self.fingerprint,
            "signature": trial.signature(self.fingerprint),
            "metrics": dict(metrics),
            "utterances": dict(sizes),
        }
        with written_atomically(folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def model_folder(folder: Path, trial: Trial, fingerprint: str) -> Path:
    """Where a trial's model is: readable, and distinct by the signature's first digits."""
    pair, model = trial.configuration.pair, trial.configuration.model
    settings = f"k{pair.k_audio}-{pair.k_text}_{model.fusion}_{model.modules}"
    return folder / f"{settings}_fold{trial.fold}_seed{trial.seed}_{trial.signature(fingerprint)[:8]}"


def size_in_bytes(config: CemoBAMConfig) -> int:
    """What the weights of a model take on disk."""
    return sum(value.numel() * value.element_size() for value in _blank(config).state_dict().values())


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptModel:
    """A model read back, ready to label utterances.

    Attributes:
        model: in evaluation mode.
        pair: of the graph.
        graph: its other choices.
        class_names: in the order of the logits.
        sizes: how many utterances each split has that it was trained and measured on.
    """

    model: CemoBAM
    pair: Pair
    graph: GraphConfig
    class_names: tuple[str, ...]
    sizes: dict[str, int]


def load_model(folder: Path) -> KeptModel:
    """Read what :class:`Keeping` wrote. Neither file can hold anything that is run.

    Raises:
        InputError: files that are missing, or are not what is written there: names the file and what is wrong.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder}: holds no kept model; give a folder with {CONFIG} and {WEIGHTS}, as --keep-models writes them "
            "under results/NAME/models"
        )
    kept = _described(path, _read(path))
    weights = _weights(folder / WEIGHTS, kept.model)
    kept.model.load_state_dict(weights, assign=True)
    kept.model.eval().requires_grad_(False)
    return kept


def _read(path: Path) -> Any:
    """The content of a :data:`CONFIG`, not looked at yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())[:120]})") from None


def load_embedding(folder: Path) -> tuple[Tensor, Tensor] | None:
    """The (N, width) embedding of the test utterances and their (N,) labels; None: not kept, or spoilt."""
    try:
        tensors = load_file(folder / EMBEDDING)
        vectors, labels = tensors["embedding"], tensors["labels"]
    except (OSError, SafetensorError, KeyError):
        return None
    fits = vectors.ndim == 2 and labels.shape == (len(vectors),) and bool(torch.isfinite(vectors).all())
    return (vectors, labels) if fits and len(vectors) > 3 else None


def _described(path: Path, content: Any) -> KeptModel:
    """The model as its configuration says, without weights."""

    def wrong(what: str) -> InputError:
        return InputError(f"{path}: {what}; give a folder as --keep-models writes it")

    if not isinstance(content, dict):
        raise wrong("is no JSON object")
    if content.get("format") != _FORMAT:
        raise InputError(
            f"{path}: format is {content.get('format')!r}, this release reads {_FORMAT}; keep the model again: run the "
            "study's command with --keep-models"
        )
    parts: dict[str, Any] = {}
    for name, kind in (("model", CemoBAMConfig), ("graph", GraphConfig)):
        given, known = content.get(name), {field.name for field in fields(kind)}
        if not isinstance(given, dict) or given.keys() != known:
            odd = sorted(known.symmetric_difference(given)) if isinstance(given, dict) else []
            raise wrong(
                f"{name} must have the settings of this release" + (f" ({odd[0]!r} does not fit)" if odd else "")
            )
        for key, hint in get_type_hints(kind).items():
            value = given[key]
            if isinstance(value, int) and value > _LARGEST.get(key, _LARGEST_SIZE):
                raise wrong(f"{key}={value} is too large to be meant")
            choices, types = get_args(hint), (int, float) if hint is float else (hint,)
            if value not in choices if choices else type(value) not in types:
                wanted = f"one of {', '.join(choices)}" if choices else f"{hint.__name__}"
                raise wrong(f"{key}={str(value)[:40]!r} is not {wanted}")
        try:
            parts[name] = kind(**given)
        except InputError as error:
            raise wrong(str(error)) from None
    names = content.get("class_names")
    if not isinstance(names, list) or not all(isinstance(x, str) for x in names) or len(set(names)) != len(names):
        raise wrong("class_names must be a list of different names")
    if len(names) != parts["model"].num_classes:
        raise wrong(f"{len(names)} class names for {parts['model'].num_classes} classes")
    try:
        pair, sizes = _pair(content), _sizes(content.get("utterances"))
    except ValueError as error:
        raise wrong(str(error)) from None
    return KeptModel(
        model=_blank(parts["model"]),
        pair=pair,
        graph=parts["graph"],
        class_names=tuple(names),
        sizes=sizes,
    )


def _pair(content: dict[str, Any]) -> Pair:
    for name in ("k_audio", "k_text"):
        k = content.get(name)
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(f"{name} is {str(k)[:40]!r}, not a whole number of at least 1")
    return Pair(content["k_audio"], content["k_text"])


def _sizes(utterances: object) -> dict[str, int]:
    """How many utterances each split has, as the configuration says."""
    if not isinstance(utterances, dict) or utterances.keys() != set(SPLITS):
        raise ValueError(f"utterances must say how many are in {', '.join(SPLITS)}")
    for name, size in utterances.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"utterances of {name} are {str(size)[:40]!r}, not a whole number of at least 1")
    return utterances


def _blank(config: CemoBAMConfig) -> CemoBAM:
    """The model's shapes without its memory."""
    from cemobam_core.systems.cemobam import CemoBAM  # noqa: PLC0415  (slow to import)

    with torch.device("meta"):
        return CemoBAM(config)


def _weights(path: Path, model: CemoBAM) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({' '.join(str(error).split())[:120]})") from None
    expected = model.state_dict()
    if odd := sorted(expected.keys() ^ weights.keys()):
        what = "is missing" if odd[0] in expected else "is no part of the model"
        raise InputError(f"{path}: {odd[0]!r} {what}; the weights are not those of the {CONFIG} beside them")
    for name, value in weights.items():
        shape, kind = tuple(expected[name].shape), expected[name].dtype
        if tuple(value.shape) != shape or value.dtype != kind:
            raise InputError(
                f"{path}: {name!r} is {value.dtype} {tuple(value.shape)}, where {CONFIG} asks for {kind} {shape}"
            )
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name!r} holds NaN or infinity; the model cannot be used")
    return weights
