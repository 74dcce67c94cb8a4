"""Trained models on disk: weights as safetensors, everything else as JSON. Neither format can run code.

skops keeps the systems that scikit-learn fits. It only builds types that it knows to be safe. A model may come from
someone else, so it is read behind a wall first (``cemobam_core.wall``).
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cemobam_core.anchors import Anchors
from cemobam_core.arrays import described
from cemobam_core.corpora.splits import SPLITS
from cemobam_core.encoders.record import RECORD, EncodersRecord, recorded
from cemobam_core.errors import InputError
from cemobam_core.features import MODALITIES, FeatureSet
from cemobam_core.files import written_atomically
from cemobam_core.graph import GraphConfig
from cemobam_core.inputs import Inputs, Sizes
from cemobam_core.json_files import read_json
from cemobam_core.rows import Rows
from cemobam_core.shards import write_tensors
from cemobam_core.systems import EstimatorSystem, NeuralSystem, System, name_of, system_class, version_of
from cemobam_core.systems.files import SystemFile, file_of, is_in_file, path_of
from cemobam_core.training.batch import Batch
from cemobam_core.training.estimators import FittedEstimator
from cemobam_core.wall import tried
from study.design.configuration import Trial

if TYPE_CHECKING:
    from cemobam_core.training.step import Classifier

WEIGHTS = "model.safetensors"
ESTIMATOR = "estimator.skops"
CONFIG = "config.json"
EMBEDDING = "test_embedding.safetensors"
TRAIN = "train.safetensors"
"""Name of the file with the training utterances of a model that uses a graph.

Utterances to be labelled are linked to them. Their ids, labels and transcripts show who a neighbour is.
"""

_FORMAT = 5
_LARGEST = {"gat_layers": 64, "layers": 64, "cbam_kernel": 10_001}
_LARGEST_SIZE = 65_536
_MOST_UTTERANCES = 10**9
_MOST_CLASSES = 1_000
"""Largest number of classes in an embedding."""
_LARGEST_COORDINATE = 1e12
"""Largest number in an embedding: with larger ones, the distances in a map overflow."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """The place for trained models, and the facts that are written beside each model.

    Attributes:
        folder: Folder of all models of a study.
        dataset: Name of the data set.
        fingerprint: Fingerprint of the features in their splits.
    """

    folder: Path
    dataset: str
    fingerprint: str

    def place(self, trial: Trial) -> Path:
        """Return the folder of a trial's model."""
        return model_folder(self.folder, trial, self.fingerprint)

    def has(self, trial: Trial) -> bool:
        """Return whether the trial's model is already kept in the format of this release."""
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
            content = read_json(folder / CONFIG)
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
        """Write a trial's model.

        The configuration is written last, so a folder with a configuration is complete.

        Args:
            trial: The trained trial.
            model: The trained model.
            class_names: C names, in the order of the logits.
            metrics: Metrics by name, as in the ledger.
            counts: Number of utterances of each split.
            test: The test split. The input of the classifier for it, its embedding, is kept.
            train: The train split. Utterances that are labelled later are linked to it.
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
            anchors = Anchors.of(train, graph, trial.seed)
            write_tensors(folder / TRAIN, _train_tensors(anchors), _train_names(train))
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
            RECORD: recorded(train.provenance),
            "signature": trial.signature(self.fingerprint),
            "metrics": dict(metrics),
            "utterances": dict(counts),
        }
        with written_atomically(folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _file_of(system: System) -> str:
    return WEIGHTS if isinstance(system, NeuralSystem) else ESTIMATOR


def model_folder(folder: Path, trial: Trial, fingerprint: str) -> Path:
    """Return the folder of a trial's model. Its name shows the settings and the first digits of the signature."""
    configuration = trial.configuration
    pair = configuration.pair
    parts = [
        name_of(configuration.system).rpartition(":")[2],
        *([f"k{pair.k_audio}-{pair.k_text}"] if pair else []),
        *(str(value) for name in ("fusion", "modules") if (value := configuration.get(name)) is not None),
    ]
    signature = trial.signature(fingerprint)
    return folder / f"{'_'.join(parts)}_fold{trial.fold}_seed{trial.seed}_{signature[:8]}"


def size_in_bytes(system: System, graph: GraphConfig | None, train: FeatureSet) -> int:
    """Return the size of a model on disk in bytes: its weights and its training utterances.

    The size of a scikit-learn estimator is not known before it is fitted, and counts as 0.

    Args:
        system: The system with its settings.
        graph: Settings of the graph. `None` if the system uses no graph, so that no training utterances are kept.
        train: The train split.
    """
    if not isinstance(system, NeuralSystem):
        return 0
    size: int = sum(value.nbytes for value in _blank(system, train.sizes).state_dict().values())
    if graph:
        size += sum(value.nbytes for value in train.tensors().values())
        size += sum(len(names.encode()) for names in _train_names(train).values())
    if graph:  # an upper bound of the edges, of two numbers each (with ties "all" there are more), and two rankings
        size += 8 * len(train) * (2 * (1 + graph.k_audio + graph.k_text) + 2 * max(graph.k_audio, graph.k_text))
    return size


def _train_tensors(anchors: Anchors) -> dict[str, Tensor | Rows]:
    return {**anchors.features.tensors(), **{name: getattr(anchors, name) for name in _RANKED}}


def _train_names(train: FeatureSet) -> dict[str, str]:
    """Return the metadata of the training utterances."""
    names = {"utterance_ids": train.utterance_ids, "texts": train.texts}
    return {name: json.dumps(values) for name, values in names.items() if values is not None}


_RANKED = ("edge_index", "audio_nearness", "text_nearness")


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptModel:
    """A model that was read from disk and can label utterances.

    Attributes:
        folder: Folder of the model.
        model: Model that takes :class:`Inputs` and returns (N, C) logits.
        sizes: Sizes of the features that the model takes.
        graph: Settings of the graph. `None` if the model uses no graph.
        class_names: Class names, in the order of the logits.
        counts: Number of utterances of each split that the model was trained and measured on.
        seed: Seed of the model's trial.
        train: Training utterances. `None` if the model uses no graph.
        encoders: Encoders of the features that the model was trained on. `None` if they are not recorded.
        modalities: Modalities that a label depends on.
    """

    folder: Path
    model: Classifier
    sizes: Sizes
    graph: GraphConfig | None
    class_names: tuple[str, ...]
    counts: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    train: Anchors | None = None
    encoders: EncodersRecord | None = None
    modalities: tuple[str, ...] = MODALITIES


def load_model(folder: Path, system: str | None = None) -> KeptModel:
    """Read a model that :class:`Keeping` wrote. None of its files can contain code that is run.

    Args:
        folder: Folder of the model.
        system: ``FILE.py:NAME`` if the model's system is in a user's file. That file is run. `None` means that the
            system is the tool's own.

    Raises:
        InputError: If a file is missing or damaged. The error names the file and the fault.
    """
    path = folder / CONFIG
    if not path.exists() or not any((folder / name).exists() for name in (WEIGHTS, ESTIMATOR)):
        raise InputError(
            f"{folder}: there is no model in this folder; give a folder with {CONFIG} and {WEIGHTS} or {ESTIMATOR}, "
            "which --keep-models writes under results/NAME/models"
        )
    with tried(lambda path: _Description(path, read_json(path))) as read:
        content = read(path)
    made, graph = content.system(system), content.graph
    _import_for(made, content.sizes)

    def part(path: Path) -> Any:
        return _anchors(path, content, graph) if graph and path.name == TRAIN else _classifier(path, made, content)

    with tried(part) as read:
        model: Classifier = read(folder / _file_of(made))
        train: Anchors | None = read(folder / TRAIN) if graph else None
    return KeptModel(
        folder=folder,
        model=model,
        sizes=content.sizes,
        graph=graph,
        class_names=content.class_names,
        counts=content.counts,
        seed=content.seed,
        train=train,
        encoders=content.encoders,
        modalities=MODALITIES if graph else made.modalities,
    )


def load_embedding(folder: Path) -> tuple[Tensor, Tensor] | None:
    """Return the (N, width) embedding of the test utterances and their (N,) labels.

    `None` if they were not kept or are damaged.
    """
    try:
        with tried(_embedding) as read:
            return read(folder / EMBEDDING)
    except InputError:
        return None


def _embedding(path: Path) -> tuple[Tensor, Tensor]:
    tensors = _tensors(path)
    if not {"embedding", "labels"} <= tensors.keys():
        raise InputError(f"{path}: holds no embedding with labels")
    vectors, labels = tensors["embedding"], tensors["labels"]
    fits = vectors.dtype == torch.float32 and vectors.ndim == 2 and vectors.shape[1] > 0 and len(vectors) > 3
    if not fits or labels.dtype != torch.int64 or labels.shape != (len(vectors),):
        raise InputError(f"{path}: the embedding is {described(vectors)} with labels {described(labels)}")
    if not 0 <= labels.min() <= labels.max() < _MOST_CLASSES or not (vectors.abs() < _LARGEST_COORDINATE).all():
        raise InputError(f"{path}: a label is not a class, or a number of the embedding is too large or not finite")
    return vectors, labels


class _Description:
    """The content of a :data:`CONFIG` file, checked part by part."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        if not isinstance(content, dict):
            raise self._wrong("the content is not a JSON object")
        if content.get("format") != _FORMAT:
            raise InputError(
                f"{path}: format is {content.get('format')!r}, but this release reads {_FORMAT}; run the study's "
                "command with --keep-models to keep the model again"
            )
        self._content = content
        self.sizes: Sizes = self._built("sizes", Sizes)
        self.graph: GraphConfig | None = self._built("graph", GraphConfig) if content.get("graph") else None
        names = content.get("class_names")
        named = isinstance(names, list) and all(isinstance(x, str) and x.isprintable() for x in names)
        if not isinstance(names, list) or not named or len(set(names)) != len(names):
            raise self._wrong("class_names must be a list of different names")
        if len(names) != self.sizes.num_classes:
            raise self._wrong(f"there are {len(names)} class names for {self.sizes.num_classes} classes")
        self.class_names = tuple(names)
        try:
            self.counts = _counts(content.get("utterances"))
        except ValueError as error:
            raise self._wrong(str(error)) from None
        if self.graph and max(self.graph.k_audio, self.graph.k_text) >= self.counts["train"]:
            raise self._wrong(
                f"K is {self.graph.k_audio},{self.graph.k_text}, but only {self.counts['train']} utterances were "
                "trained on, and none is its own neighbour"
            )
        seed = content.get("seed")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise self._wrong(f"seed must be a whole number of at least 0, not {str(seed)[:40]!r}")
        self.seed = seed
        try:
            self.encoders = None if content.get(RECORD) is None else EncodersRecord.of(content[RECORD])
        except InputError as error:
            raise self._wrong(str(error)) from None

    def system(self, given: str | None) -> System:
        """Return the system with its settings."""
        name = self._content.get("system")
        if not isinstance(name, str) or not re.fullmatch(r"\w+|[^/\\:]+\.py:\w+", name) or not name.isprintable():
            raise self._wrong(f"system must be the name of a system, not {str(name)[:40]!r}")
        foreign = ":" in name
        if foreign and given is None:
            raise InputError(
                f"{self._path}: the model's system is {name}, which is in a Python file that would be run; if you "
                f"trust the file, add --system {self._path.with_name(name)}"
            )
        if given and not foreign:
            raise InputError(f"--system {given}: the model's system is the tool's own {name}; leave the option out")
        if given:
            self._check_file(given, name)
        kind = system_class(given or name)
        if version_of(kind) != self._content.get("version"):
            raise self._other_version(name, "another release of the tool changed it")
        made: System = self._built("choices", kind)
        if not isinstance(made, NeuralSystem | EstimatorSystem):
            raise self._wrong(f"models of the system {name} are not kept")
        return made

    def _check_file(self, given: str, name: str) -> None:
        """Check, before a user's file is run, that the model was trained with it."""
        if not is_in_file(given):
            raise InputError(
                f"--system {given}: the model's system is {name}; give the file that defines it, as FILE.py:NAME"
            )
        *_, called = name.rpartition(":")
        if given.rpartition(":")[2] != called:
            raise InputError(f"--system {given}: the model's system is {name}; give FILE.py:{called}")
        path = path_of(given)
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"--system {given}: cannot be read ({error.strerror or error})") from None
        if SystemFile(path, content).version != self._content.get("version"):
            raise self._other_version(given, "its file was changed")

    def _other_version(self, name: str, reason: str) -> InputError:
        return InputError(
            f"{self._path}: the model was made by another version of {name} ({reason}); run the study again with "
            "--keep-models"
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
            if isinstance(value, int) and abs(value) > _LARGEST.get(key, _LARGEST_SIZE):
                most = _LARGEST.get(key, _LARGEST_SIZE)
                raise self._wrong(f"{key}={str(value)[:40]} is too large; at most {most} is allowed")
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
        return InputError(f"{self._path}: {what}; give a folder that --keep-models wrote")


def _counts(utterances: object) -> dict[str, int]:
    """Return the number of utterances of each split, from the content of a :data:`CONFIG` file."""
    if not isinstance(utterances, dict) or utterances.keys() != set(SPLITS):
        raise ValueError(f"utterances must give the number of utterances of {', '.join(SPLITS)}")
    for name, size in utterances.items():
        if type(size) is not int or not 1 <= size <= _MOST_UTTERANCES:
            raise ValueError(
                f"utterances of {name} is {str(size)[:40]!r}, not a whole number from 1 to {_MOST_UTTERANCES}"
            )
    return utterances


def _blank(system: NeuralSystem, sizes: Sizes) -> nn.Module:
    """Return the untrained model. For the tool's own systems it has only shapes, and takes no memory."""
    if file_of(type(system)):  # it may hold tensors beside its weights, such as a buffer that is not persistent
        with torch.random.fork_rng(devices=[]):
            return system.build(sizes)
    with torch.device("meta"):
        return system.build(sizes)


def _import_for(made: System, sizes: Sizes) -> None:
    """Import what a built-in system needs, which is slow, so that a child of this process has it too."""
    if file_of(type(made)):
        return
    with contextlib.suppress(Exception):  # the reader says it
        if isinstance(made, NeuralSystem):
            _blank(made, sizes)
        elif isinstance(made, EstimatorSystem):
            import_module("skops.io")
            made.build(sizes, 0)


def _classifier(path: Path, made: System, content: _Description) -> Classifier:
    """Return the trained model in a :data:`WEIGHTS` or :data:`ESTIMATOR` file."""
    sizes = content.sizes
    if isinstance(made, NeuralSystem):
        network = _blank(made, sizes)
        network.load_state_dict(_weights(path, network), assign=True)
        return network.eval().requires_grad_(False)
    assert isinstance(made, EstimatorSystem)
    model = FittedEstimator(made, _estimator(path), sizes.num_classes)
    _check_estimator(path, model, sizes)
    return model


def _check_estimator(path: Path, model: FittedEstimator, sizes: Sizes) -> None:
    """Check that an estimator is of the kind that its system builds, and labels an invented utterance.

    Raises:
        InputError: It is of another kind, or does not give probabilities of the classes.
    """
    estimator, classes = model.estimator, sizes.num_classes
    if not file_of(type(model.system)):  # a user's system may fit something else than it builds
        wanted, found = _kinds(model.system.build(sizes, 0)), _kinds(estimator)
        if found != wanted:
            raise InputError(f"{path}: holds {', '.join(found)}, but {CONFIG} asks for {', '.join(wanted)}")
    given = getattr(estimator, "classes_", None)
    is_list = isinstance(given, np.ndarray) and given.dtype.kind in "iu" and given.ndim == 1
    seen: list[int] = given.tolist() if isinstance(given, np.ndarray) and is_list else []
    if not seen or not 0 <= min(seen) <= max(seen) < classes or len(set(seen)) < len(seen):
        raise InputError(f"{path}: its classes are not among the {classes} of {CONFIG}")
    draws = torch.Generator().manual_seed(0)
    invented = (torch.randn(3, size, generator=draws) for size in (sizes.audio_dim, sizes.text_dim))
    try:
        model(Inputs.from_features(*invented))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _kinds(estimator: Any) -> list[str]:
    """Return the names of the types of an estimator and, if it is a pipeline, of its steps."""
    steps = getattr(estimator, "steps", ())
    inner = [kind for _, step in steps for kind in _kinds(step)] if type(estimator).__name__ == "Pipeline" else []
    return [type(estimator).__name__, *inner]


def _estimator(path: Path) -> Any:
    """Return a fitted estimator. It may only contain types that skops trusts."""
    from skops.io import get_untrusted_types, load  # noqa: PLC0415  (slow to import)

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(one.file_size for one in archive.infolist()) > path.stat().st_size:  # skops does not compress
                raise ValueError("its parts claim to be larger than the file")
        if unknown := get_untrusted_types(file=path):
            raise InputError(f"{path}: contains {unknown[0]}, which is not read because it could run code")
        return load(path, trusted=[])
    except InputError:
        raise
    except Exception as error:  # skops may raise any error of its parts
        raise InputError(f"{path}: cannot be read as a skops file ({' '.join(str(error).split())[:120]})") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({' '.join(str(error).split())[:120]})") from None


def _anchors(path: Path, content: _Description, graph: GraphConfig) -> Anchors:
    """Return the training utterances of a model, checked against its configuration.

    Args:
        path: Path of the file.
        content: Configuration of the model.
        graph: Settings of the graph that the model was trained with.
    """
    tensors, sizes, n = _tensors(path), content.sizes, content.counts["train"]
    required, masks = {"audio", "text", "labels", *_RANKED}, {"audio_mask", "text_mask"}
    if odd := sorted((required - tensors.keys()) | (tensors.keys() - required - masks)):
        what = "is missing" if odd[0] in required else "does not belong there"
        raise InputError(f"{path}: {odd[0]!r} {what}; run the study again with --keep-models")
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    features = FeatureSet.of_content(
        path, {name: x for name, x in tensors.items() if name not in _RANKED}, metadata, content.class_names
    )
    edges, *nearness = (tensors[name] for name in _RANKED)
    is_graph = edges.dtype == torch.int64 and edges.ndim == 2 and len(edges) == 2 and edges.shape[1] >= n
    steps = (n, max(graph.k_audio, graph.k_text))
    for name, wanted, fits in (
        ("labels", f"{n} labels", len(features) == n),
        ("audio", f"embeddings of {sizes.audio_dim} numbers", features.audio.shape[-1] == sizes.audio_dim),
        ("text", f"embeddings of {sizes.text_dim} numbers", features.text.shape[-1] == sizes.text_dim),
        ("edge_index", f"int64 edges of {n} utterances", is_graph and 0 <= edges.min() <= edges.max() < n),
        *(
            (name, f"int64 {steps}, best first", _descends(ranking, steps))
            for name, ranking in zip(_RANKED[1:], nearness, strict=True)
        ),
    ):
        if not fits:
            raise InputError(f"{path}: {name!r} is {described(tensors[name])}, but {CONFIG} asks for {wanted}")
    return Anchors(features, edges, nearness[0], nearness[1])


def _descends(nearness: Tensor, shape: tuple[int, int]) -> bool:
    """Return whether ``nearness`` has this shape, with fewer columns than rows, and each row starts with the best."""
    fits = nearness.dtype == torch.int64 and nearness.shape == shape and shape[1] < shape[0]
    return fits and not bool((nearness[:, 1:] > nearness[:, :-1]).any())


def _weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    weights = _tensors(path)
    expected = model.state_dict()
    if odd := sorted(expected.keys() ^ weights.keys()):
        what = "is missing" if odd[0] in expected else "is not part of the model"
        raise InputError(f"{path}: {odd[0]!r} {what}; the weights do not belong to the {CONFIG} beside them")
    for name, value in weights.items():
        shape, kind = tuple(expected[name].shape), expected[name].dtype
        if tuple(value.shape) != shape or value.dtype != kind:
            raise InputError(
                f"{path}: {name!r} is {value.dtype} {tuple(value.shape)}, but {CONFIG} asks for {kind} {shape}"
            )
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name!r} holds NaN or infinity; the model cannot be used")
    return weights
