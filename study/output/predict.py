"""Labelling utterances with a trained model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from cemobam_core.anchors import Anchors
from cemobam_core.arrays import described
from cemobam_core.errors import InputError
from cemobam_core.features import MODALITIES, FeatureSet
from cemobam_core.files import written_atomically
from cemobam_core.graph import GraphConfig, Ranking
from cemobam_core.inputs import Inputs
from cemobam_core.metrics import METRICS
from cemobam_core.operators.fusion import Fusion
from cemobam_core.released import load_released_checkpoint
from cemobam_core.training.batch import Batch
from cemobam_core.training.metrics import metrics_from_logits
from cemobam_core.training.step import Classifier
from study.engines.models import KeptModel, load_model

Neighbourhood = Literal["anchored", "among"]

_FEW = 0.75
"""The smallest share of the test split's utterances without a warning. With half of them at once WA was clearly lower,
with three quarters no difference was found (docs/profiles.md)."""


def predict(
    folder: Path, features_file: Path, *, to: Path, system: str | None = None, neighbours: Neighbourhood = "anchored"
) -> str:
    """Label the utterances of a file with a model that a study kept.

    With neighbours ``among`` the file's utterances, print a warning on standard error if the file is much smaller than
    the test split that the model was evaluated on.

    Args:
        folder: The folder of the model, as ``--keep-models`` writes it, with its K, fusion, modules and classes.
        features_file: A ``.safetensors`` file, with labels or without, or the authors' ``.pkl``.
        to: The csv to write, with ``id``, ``predicted`` and ``p_<class>`` for each class.
        system: ``FILE.py:NAME``, for a model whose system is in a user's file.
        neighbours: The neighbours of an utterance, for a model that uses a graph: its nearest training utterances
            (``anchored``), as if it were alone, or its nearest utterances ``among`` those of the file.

    Returns:
        The metrics as a Markdown table if the file has labels. Otherwise the number of labelled utterances.

    Raises:
        InputError: A file cannot be read, or the files do not fit together.
    """
    kept = load_model(folder, system)
    features = FeatureSet.load(features_file, kept.class_names, need_labels=False)
    if features.class_names != kept.class_names:  # the same names in another order, which FeatureSet.load checks
        places = torch.tensor([kept.class_names.index(name) for name in features.class_names])
        features = replace(features, labels=places[features.labels], class_names=kept.class_names)
    logits = logits_of(kept, features, neighbours)
    write_labels(logits, features, kept.class_names, to)
    return _measured(logits, features, authors_names=False)


def logits_of(kept: KeptModel, features: FeatureSet, neighbours: Neighbourhood = "anchored") -> Tensor:
    """Return the (N, C) logits of utterances, by a model that a study kept.

    With neighbours ``among`` the utterances, print a warning on standard error if they are few.

    Args:
        kept: The model.
        features: N utterances.
        neighbours: As for :func:`predict`.

    Raises:
        InputError: The features do not fit the model.
    """
    sizes = kept.sizes
    for name, x, size in (("audio", features.audio, sizes.audio_dim), ("text", features.text, sizes.text_dim)):
        if x.shape[-1] != size:
            raise InputError(
                f"{features.source}: its {name} embeddings have {x.shape[-1]} numbers, the model in {kept.folder} was "
                f"trained on {size}; give features made with the encoders of the model"
            )
    if kept.graph is None:
        batch = Batch.from_features(features)
    elif neighbours == "anchored":
        assert kept.train
        batch = _anchored(kept.train, features, kept.graph, kept.seed)
    else:
        batch = _among(features, kept.graph, kept.seed)
    logits = _logits(kept.model, features, batch)
    if neighbours == "among":
        _warn_of_few(kept, features)
    return logits


def predict_released(
    checkpoint: Path,
    features_file: Path,
    *,
    graph: GraphConfig,
    fusion: Fusion,
    class_names: Sequence[str] | None,
    to: Path,
) -> str:
    """Label the utterances of a file with a checkpoint of the authors' code.

    Args:
        checkpoint: The authors' ``.pt`` file.
        features_file: A ``.safetensors`` file, with labels or without, or the authors' ``.pkl``.
        graph: The settings of the graph among these utterances.
        fusion: The fusion that the checkpoint was trained with.
        class_names: The emotions, for a file that does not name them.
        to: The csv to write, with ``id``, ``predicted`` and ``p_<class>`` for each class.

    Returns:
        The metrics as a Markdown table, under the usual and the authors' names, if the file has labels. Otherwise the
        number of labelled utterances.

    Raises:
        InputError: A file cannot be read, or the files do not fit together.
    """
    model = load_released_checkpoint(checkpoint, fusion)
    features = FeatureSet.load(features_file, class_names, need_labels=False)
    names = _class_names(features, model.sizes.num_classes, checkpoint)
    logits = _logits(model, features, _among(features, graph, 0))
    write_labels(logits, features, names, to)
    return _measured(logits, features, authors_names=True)


def _anchored(train: Anchors, features: FeatureSet, graph: GraphConfig, seed: int) -> Batch:
    """Return the utterances in the graph of the training utterances, as if each were alone."""
    for name in MODALITIES:
        ours, theirs = getattr(features, name), getattr(train.features, name)
        if ours.ndim != theirs.ndim:
            raise InputError(
                f"{features.source}: its {name} is {described(ours)}, but the model was trained on "
                f"{described(theirs)}; give features made with the encoders of the model"
            )
    try:
        return train.batch(features, graph, seed)
    except InputError as error:
        raise InputError(f"{features.source}: {error}") from None


def _among(features: FeatureSet, graph: GraphConfig, seed: int) -> Batch:
    """Return the utterances in a graph of their own."""
    largest = max(graph.k_audio, graph.k_text)
    if len(features) <= largest:
        raise InputError(
            f"{features.source}: holds {len(features)} utterances, but a graph of K {graph.k_audio},{graph.k_text} "
            f"needs at least {largest + 1}; give more utterances at once"
        )
    try:
        ranking = Ranking.of(features.pooled(), largest, ties=graph.ties, seed=seed, index=graph.index)
    except InputError as error:
        raise InputError(f"{features.source}: {error}") from None
    edges = ranking.graph(graph.gather_from).edge_index(graph.k_audio, graph.k_text)
    return Batch.from_features(features, edges)


def _logits(model: Classifier, features: FeatureSet, batch: Batch) -> Tensor:
    """Return the (N, C) logits, which are finite."""
    with torch.no_grad():
        logits = batch.measured(model(batch.inputs))
    if not torch.isfinite(logits).all():
        raise InputError(
            f"{features.source}: the model gives NaN or infinity on these features; give features made like those of "
            "its training, and check that its weights are complete"
        )
    return logits


def write_labels(
    logits: Tensor, features: FeatureSet, names: Sequence[str], to: Path, texts: Sequence[str] | None = None
) -> None:
    """Write the label of every utterance, and the probability of each class.

    Args:
        logits: (N, C) logits.
        features: N utterances.
        names: C names of the classes.
        to: The csv to write.
        texts: N transcripts, for a column of their own. `None` for no such column.
    """
    probabilities = logits.softmax(dim=1)
    predicted = logits.argmax(dim=1)
    table = pd.DataFrame({"id": features.utterance_ids, "predicted": [names[i] for i in predicted.tolist()]})
    for i, name in enumerate(names):
        table[f"p_{name}"] = probabilities[:, i].tolist()
    if texts is not None:
        table["text"] = list(texts)
    with written_atomically(to) as temporary:
        table.to_csv(temporary, index=False, errors="backslashreplace")  # an id may hold what UTF-8 cannot encode


def _warn_of_few(kept: KeptModel, features: FeatureSet) -> None:
    """Print a warning on standard error if these utterances are much fewer than those of the test split."""
    n, measured = len(features), kept.counts["test"]
    if n >= _FEW * measured or not looks_around(kept, features):
        return
    print(
        f"cemobam predict: warning: {features.source}: holds {n} utterances, but the model was evaluated on a test "
        f"split of {measured}. Neighbours come from the file: among few utterances they are less similar, and labels "
        "get worse. On real utterances of IEMOCAP (profile paper, K 8,7) WA fell from 50.5 with 220 utterances at once "
        "to 43.0 in batches of 50 and 37.3 in batches of 20. Label more utterances at once, or leave --graph among out",
        file=sys.stderr,
    )


def looks_around(kept: KeptModel, features: FeatureSet) -> bool:
    """Return whether the graph matters to the model, which is tried on some of at least two utterances."""
    if kept.graph is None:
        return False
    few = features.select(range(min(len(features), 8)), source=features.source)
    loops = torch.arange(len(few)).expand(2, -1)
    inputs = Batch.from_features(few, loops).inputs
    with torch.no_grad():
        ring = torch.stack([loops[0].roll(1), loops[1]])
        alone, among = kept.model(inputs), kept.model(Inputs(inputs.audio, inputs.text, ring))
    return not torch.equal(alone, among)


def _measured(logits: Tensor, features: FeatureSet, *, authors_names: bool) -> str:
    if not features.labelled:
        return f"{len(features)} utterances labelled; {features.source} has no labels to compare with"
    return f"{len(features)} utterances\n\n{metrics_table(logits, features, authors_names=authors_names)}"


def metrics_table(logits: Tensor, features: FeatureSet, *, authors_names: bool = False) -> str:
    """Return the metrics of labelled utterances as a Markdown table, if asked also under the authors' names."""
    measured = metrics_from_logits(logits, features.labels)
    swapped = {"WA": "UA", "UA": "WA"}
    cells = [
        (metric.about, metric.label, swapped.get(metric.label, metric.label), f"{100 * measured.scores[name]:.2f}")
        for name, metric in METRICS.items()
    ]
    table = pd.DataFrame(cells, columns=["measure", "usual name", "name in the authors' code", "percent"])
    if not authors_names:
        table = table.drop(columns="name in the authors' code").rename(columns={"usual name": "name"})
    align = ("left",) * (len(table.columns) - 1) + ("right",)
    return str(table.to_markdown(index=False, disable_numparse=True, colalign=align))


def _class_names(features: FeatureSet, num_classes: int, checkpoint: Path) -> tuple[str, ...]:
    """Return the file's class names, extended if it names none and its labels do not reach the last class."""
    names = features.class_names
    if len(names) < num_classes and names == tuple(f"class_{i}" for i in range(len(names))):
        return tuple(f"class_{i}" for i in range(num_classes))
    if len(names) != num_classes:
        raise InputError(
            f"{features.source}: its classes are {', '.join(names)}, but {checkpoint} has {num_classes} classes; "
            "give features of the data set that it was trained on"
        )
    return names
