"""Trained models on disk: weights as safetensors, everything else as JSON; nothing in either can be run.

A system that scikit-learn fits is kept by skops, which builds nothing but the types that it knows as safe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cemobam_core.anchors import Anchors
from cemobam_core.arrays import described
from cemobam_core.corpora.splits import SPLITS
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet, default_class_names, default_ids
from cemobam_core.files import written_atomically
from cemobam_core.graph import GraphConfig
from cemobam_core.inputs import Sizes
from cemobam_core.systems import EstimatorSystem, NeuralSystem, System, name_of, system_class, version_of
from cemobam_core.systems.files import SystemFile, file_of, is_in_file, path_of
from cemobam_core.training.batch import Batch
from cemobam_core.training.estimators import FittedEstimator
from study.design.configuration import Trial

if TYPE_CHECKING:
    from cemobam_core.training.loop import Classifier

WEIGHTS = "model.safetensors"
ESTIMATOR = "estimator.skops"
CONFIG = "config.json"
EMBEDDING = "test_embedding.safetensors"
TRAIN = "train.safetensors"
"""The training utterances of a model that uses a graph: those to be labelled are linked to them."""

_FORMAT = 4
_LARGEST = {"gat_layers": 64, "layers": 64, "cbam_kernel": 10_001}
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
        """Return whether the trial's model is kept already, in the format of this release."""
        folder = self.place(trial)
        names = [
            CONFIG,
            _file_of(trial.configuration.system),
            EMBEDDING,
            *([TRAIN] if trial.configuration.graph else []),
        ]
        if not all((folder / name).is_file() for name in names):
            return False
        try:
            content = _read(folder / CONFIG)
        except InputError:
            return False
        return isinstance(content, dict) and content.get("format") == _FORMAT

    def keep(
        self,
        trial: Trial,
        model: Classifier,
        *,
        class_names: Sequence[str],
        metrics: Mapping[str, float],
        counts: Mapping[str, int],
        test: Batch,
        train: FeatureSet,
    ) -> None:
        """Write a trial's model; the configuration comes last, so that what has one is whole.

        Args:
            trial: that was trained.
            model: what came of it.
            class_names: C names, in the order of the logits.
            metrics: as the ledger has them.
            counts: how many utterances each split has.
            test: the test split, of which what the classifier sees is kept.
            train: the train split, to which utterances are linked that are labelled later.
        """
        folder, configuration = self.place(trial), trial.configuration
        if isinstance(model, nn.Module):
            weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            with written_atomically(folder / WEIGHTS) as temporary:
                save_file(weights, temporary)
        else:
            assert isinstance(model, FittedEstimator)
            from skops.io import dump  # noqa: PLC0415  (slow to import)

            with written_atomically(folder / ESTIMATOR) as temporary:
                dump(model.estimator, temporary)
        with torch.no_grad():
            seen = test.measured(getattr(model, "embedding", model)(test.inputs))
        with written_atomically(folder / EMBEDDING) as temporary:
            embedding = {"embedding": seen.detach().float().cpu().contiguous(), "labels": test.labels.cpu()}
            save_file(embedding, temporary)
        system, graph, training = configuration.system, configuration.graph, configuration.training
        if graph:
            with written_atomically(folder / TRAIN) as temporary:
                save_file(_train_tensors(Anchors.of(train, graph, trial.seed)), temporary)
        if file := file_of(type(system)):
            with written_atomically(folder / file.name) as temporary:
                temporary.write_bytes(file.content)
        content = {
            "format": _FORMAT,
            "dataset": self.dataset,
            "class_names": list(class_names),
            "profile": configuration.profile,
            "system": name_of(system),
            "version": version_of(system),
            "choices": asdict(system),
            "sizes": asdict(test.sizes),
            "graph": graph and asdict(graph),
            "training": training and asdict(training),
            "seed": trial.seed,
            "fold": trial.fold,
            "features": self.fingerprint,
            "signature": trial.signature(self.fingerprint),
            "metrics": dict(metrics),
            "utterances": dict(counts),
        }
        with written_atomically(folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _file_of(system: System) -> str:
    return WEIGHTS if isinstance(system, NeuralSystem) else ESTIMATOR


def model_folder(folder: Path, trial: Trial, fingerprint: str) -> Path:
    """Return where a trial's model is: readable, and distinct by the signature's first digits."""
    configuration = trial.configuration
    pair = configuration.pair
    told = [
        name_of(configuration.system).rpartition(":")[2],
        *([f"k{pair.k_audio}-{pair.k_text}"] if pair else []),
        *(str(value) for name in ("fusion", "modules") if (value := configuration.get(name)) is not None),
    ]
    signature = trial.signature(fingerprint)
    return folder / f"{'_'.join(told)}_fold{trial.fold}_seed{trial.seed}_{signature[:8]}"


def size_in_bytes(system: System, graph: GraphConfig | None, train: FeatureSet) -> int:
    """Return what a model takes on disk: its weights and its training utterances. An estimator's are not known before.

    Args:
        system: with its choices.
        graph: that it uses; None: none, so that no training utterances are kept.
        train: the train split.
    """
    if not isinstance(system, NeuralSystem):
        return 0
    tensors = list(_blank(system, Batch.from_features(train).sizes).state_dict().values())
    if graph:
        tensors += train.tensors().values()
    size: int = sum(value.numel() * value.element_size() for value in tensors)
    if graph:  # at most so many edges of two numbers (more with ties all), and two rankings
        size += 8 * len(train) * (2 * (1 + graph.k_audio + graph.k_text) + 2 * max(graph.k_audio, graph.k_text))
    return size


def _train_tensors(anchors: Anchors) -> dict[str, Tensor]:
    tensors = {name: value for name, value in anchors.features.tensors().items() if name != "labels"}
    tensors |= {name: getattr(anchors, name) for name in _RANKED}
    return {name: value.contiguous() for name, value in tensors.items()}


_RANKED = ("edge_index", "audio_nearness", "text_nearness")


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptModel:
    """A model read back, ready to label utterances.

    Attributes:
        model: called with :class:`Inputs` it gives (N, C) logits.
        sizes: of the features that it takes.
        graph: choices of the graph; None: it uses none.
        class_names: in the order of the logits.
        counts: how many utterances each split has that it was trained and measured on.
        seed: of its trial.
        train: the training utterances; None: it uses no graph.
    """

    model: Classifier
    sizes: Sizes
    graph: GraphConfig | None
    class_names: tuple[str, ...]
    counts: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    train: Anchors | None = None


def load_model(folder: Path, system: str | None = None) -> KeptModel:
    """Read what :class:`Keeping` wrote. None of its files can hold anything that is run.

    Args:
        folder: of the model.
        system: ``FILE.py:NAME`` of a model whose system is in a user's file, which is run; None: the tool's own.

    Raises:
        InputError: files that are missing, or are not what is written there: names the file and what is wrong.
    """
    path = folder / CONFIG
    if not path.is_file() or not any((folder / name).is_file() for name in (WEIGHTS, ESTIMATOR)):
        raise InputError(
            f"{folder}: holds no kept model; give a folder with {CONFIG} and {WEIGHTS} or {ESTIMATOR}, as "
            "--keep-models writes them under results/NAME/models"
        )
    content = _Described(path, _read(path))
    made = content.system(system)
    if isinstance(made, NeuralSystem):
        network = _blank(made, content.sizes)
        network.load_state_dict(_weights(folder / WEIGHTS, network), assign=True)
        model: Classifier = network.eval().requires_grad_(False)
    else:
        assert isinstance(made, EstimatorSystem)
        model = FittedEstimator(made, _estimator(folder / ESTIMATOR), content.sizes.num_classes)
    graph, train = content.graph, None
    if graph:
        train = _anchors(folder / TRAIN, content.sizes, graph, content.counts["train"])
    return KeptModel(
        model=model,
        sizes=content.sizes,
        graph=graph,
        class_names=content.class_names,
        counts=content.counts,
        seed=content.seed,
        train=train,
    )


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


class _Described:
    """The content of a :data:`CONFIG`, looked at part by part."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        if not isinstance(content, dict):
            raise self._wrong("is no JSON object")
        if content.get("format") != _FORMAT:
            raise InputError(
                f"{path}: format is {content.get('format')!r}, this release reads {_FORMAT}; keep the model again: run "
                "the study's command with --keep-models"
            )
        self._content = content
        self.sizes: Sizes = self._built("sizes", Sizes)
        self.graph: GraphConfig | None = self._built("graph", GraphConfig) if content.get("graph") else None
        names = content.get("class_names")
        if not isinstance(names, list) or not all(isinstance(x, str) for x in names) or len(set(names)) != len(names):
            raise self._wrong("class_names must be a list of different names")
        if len(names) != self.sizes.num_classes:
            raise self._wrong(f"{len(names)} class names for {self.sizes.num_classes} classes")
        self.class_names = tuple(names)
        try:
            self.counts = _counts(content.get("utterances"))
        except ValueError as error:
            raise self._wrong(str(error)) from None
        seed = content.get("seed")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise self._wrong(f"seed is {str(seed)[:40]!r}")
        self.seed = seed

    def system(self, given: str | None) -> System:
        """Return the system with its choices."""
        name = self._content.get("system")
        if not isinstance(name, str) or not re.fullmatch(r"\w+|[^/\\:]+\.py:\w+", name) or not name.isprintable():
            raise self._wrong(f"system is {str(name)[:40]!r}")
        foreign = ":" in name
        if foreign and given is None:
            raise InputError(
                f"{self._path}: its system is {name}, in a file that would be run; if you trust it, add --system "
                f"{self._path.with_name(name)}"
            )
        if given and not foreign:
            raise InputError(f"--system {given}: the model is of the tool's own system {name}; leave the option out")
        if given:
            self._check_file(given, name)
        kind = system_class(given or name)
        if version_of(kind) != self._content.get("version"):
            raise self._of_another_version(name, "another release of the tool has changed it")
        made: System = self._built("choices", kind)
        return made

    def _check_file(self, given: str, name: str) -> None:
        """Check that a user's file is what the model was trained with, before it is run."""
        if not is_in_file(given):
            raise InputError(f"--system {given}: the model is of {name}; give the file that defines it, FILE.py:NAME")
        *_, called = name.rpartition(":")
        if given.rpartition(":")[2] != called:
            raise InputError(f"--system {given}: the model is of {name}; give FILE.py:{called}")
        path = path_of(given)
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"--system {given}: cannot be read ({error.strerror or error})") from None
        if SystemFile(path, content).version != self._content.get("version"):
            raise self._of_another_version(given, "its file was changed")

    def _of_another_version(self, name: str, what: str) -> InputError:
        return InputError(
            f"{self._path}: was made by another version of {name} ({what}); run the study again with --keep-models"
        )

    def _built(self, name: str, kind: type[Any]) -> Any:
        given, known = self._content.get(name), {field.name for field in fields(kind)}
        if not isinstance(given, dict) or given.keys() != known:
            odd = sorted(known.symmetric_difference(given)) if isinstance(given, dict) else []
            hint = f" ({odd[0]!r} does not fit)" if odd else ""
            raise self._wrong(f"{name} must have the settings of this release{hint}")
        for key, hint in get_type_hints(kind).items():
            if key not in known:
                continue
            value = given[key]
            if isinstance(value, int) and value > _LARGEST.get(key, _LARGEST_SIZE):
                raise self._wrong(f"{key}={value} is too large to be meant")
            choices, types = get_args(hint), (int, float) if hint is float else (hint,)
            if value not in choices if choices else type(value) not in types:
                wanted = f"one of {', '.join(map(str, choices))}" if choices else f"{hint.__name__}"
                raise self._wrong(f"{key}={str(value)[:40]!r} is not {wanted}")
            if kind is Sizes and value < 1:
                raise self._wrong(f"{key}={value} is not at least 1")
        try:
            return kind(**given)
        except InputError as error:
            raise self._wrong(str(error)) from None

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{self._path}: {what}; give a folder as --keep-models writes it")


def _counts(utterances: object) -> dict[str, int]:
    """Return how many utterances each split has, as the configuration says."""
    if not isinstance(utterances, dict) or utterances.keys() != set(SPLITS):
        raise ValueError(f"utterances must say how many are in {', '.join(SPLITS)}")
    for name, size in utterances.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"utterances of {name} are {str(size)[:40]!r}, not a whole number of at least 1")
    return utterances


def _blank(system: NeuralSystem, sizes: Sizes) -> nn.Module:
    """Return the untrained model: of the tool's own systems the shapes alone, without their memory."""
    if file_of(type(system)):  # it may hold what its weights do not, such as a buffer that is not persistent
        with torch.random.fork_rng(devices=[]):
            return system.build(sizes)
    with torch.device("meta"):
        return system.build(sizes)


def _estimator(path: Path) -> Any:
    """Return a fitted estimator, made of nothing but types that skops trusts."""
    from skops.io import get_untrusted_types, load  # noqa: PLC0415  (slow to import)

    try:
        if unknown := get_untrusted_types(file=path):
            raise InputError(f"{path}: holds {unknown[0]}, which is not read: it could run code")
        return load(path, trusted=[])
    except InputError:
        raise
    except Exception as error:  # skops raises whatever its parts do
        raise InputError(f"{path}: cannot be read as skops writes it ({' '.join(str(error).split())[:120]})") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({' '.join(str(error).split())[:120]})") from None


def _anchors(path: Path, sizes: Sizes, graph: GraphConfig, n: int) -> Anchors:
    """Return the training utterances of a model, checked against what its configuration says.

    Args:
        path: of the file.
        sizes: of the model's features.
        graph: that it was trained with.
        n: how many utterances the train split has.
    """
    tensors = _tensors(path)
    required, masks = {"audio", "text", *_RANKED}, {"audio_mask", "text_mask"}
    if odd := sorted((required - tensors.keys()) | (tensors.keys() - required - masks)):
        what = "is missing" if odd[0] in required else "does not belong there"
        raise InputError(f"{path}: {odd[0]!r} {what}; run the study again with --keep-models")
    features = FeatureSet(
        audio=tensors["audio"],
        text=tensors["text"],
        audio_mask=tensors.get("audio_mask"),
        text_mask=tensors.get("text_mask"),
        labels=torch.zeros(n, dtype=torch.int64),
        class_names=default_class_names(torch.arange(sizes.num_classes)),
        utterance_ids=default_ids(path, n),
        source=str(path),
        labelled=False,
    )
    edges, *nearness = (tensors[name] for name in _RANKED)
    is_graph = edges.dtype == torch.int64 and edges.ndim == 2 and len(edges) == 2 and edges.shape[1] >= n
    steps = (n, max(graph.k_audio, graph.k_text))
    for name, wanted, fits in (
        ("audio", f"embeddings of {sizes.audio_dim} numbers", features.audio.shape[-1] == sizes.audio_dim),
        ("text", f"embeddings of {sizes.text_dim} numbers", features.text.shape[-1] == sizes.text_dim),
        ("edge_index", f"int64 edges of {n} utterances", is_graph and 0 <= edges.min() <= edges.max() < n),
        *(
            (name, f"int64 {steps}, best first", _descends(of, steps))
            for name, of in zip(_RANKED[1:], nearness, strict=True)
        ),
    ):
        if not fits:
            raise InputError(f"{path}: {name!r} is {described(tensors[name])}, where {CONFIG} asks for {wanted}")
    return Anchors(features, edges, nearness[0], nearness[1])


def _descends(nearness: Tensor, shape: tuple[int, int]) -> bool:
    """Return whether they are similarities of such a shape to fewer others than there are, best first in each row."""
    fits = nearness.dtype == torch.int64 and nearness.shape == shape and shape[1] < shape[0]
    return fits and not bool((nearness[:, 1:] > nearness[:, :-1]).any())


def _weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    weights = _tensors(path)
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
