"""Labelling utterances with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from sklearn.metrics import f1_score

from cemobam_core.config import RELEASED, Fusion
from cemobam_core.errors import InputError
from cemobam_core.features import FeatureSet
from cemobam_core.files import written_atomically
from cemobam_core.metrics import metrics_from_logits
from cemobam_core.released import load_released_checkpoint
from cemobam_core.training import Batch
from study.design import Pair


def predict_released(
    checkpoint: Path,
    features_file: Path,
    *,
    pair: Pair,
    fusion: Fusion,
    class_names: Sequence[str] | None,
    to: Path,
) -> str:
    """Label the utterances of a file with a checkpoint of the authors' code.

    Args:
        checkpoint: their ``.pt``.
        features_file: ``.safetensors``, with labels or without, or their ``.pkl``.
        pair: K of the graph that is built among these utterances.
        fusion: which the checkpoint was trained with.
        class_names: the emotions, for a file that does not name them.
        to: a csv with ``id``, ``predicted`` and ``p_<class>`` for each class.

    Returns:
        The metrics as a Markdown table under the field's and under the authors' names, where the file has labels;
        otherwise how many utterances were labelled.

    Raises:
        InputError: files that cannot be read or do not fit together.
    """
    model = load_released_checkpoint(checkpoint, fusion)
    features = FeatureSet.load(features_file, class_names, need_labels=False)
    names = _class_names(features, model.config.num_classes, checkpoint)
    ranking = features.rank(max(pair.k_audio, pair.k_text))
    edges = ranking.edge_index(pair.k_audio, pair.k_text, gather_from=RELEASED.graph.gather_from)
    with torch.no_grad():
        logits = Batch.from_features(features, edges).logits(model)
    probabilities = logits.softmax(dim=1)
    predicted = logits.argmax(dim=1)
    table = pd.DataFrame({"id": features.utterance_ids, "predicted": [names[i] for i in predicted.tolist()]})
    for i, name in enumerate(names):
        table[f"p_{name}"] = probabilities[:, i].tolist()
    with written_atomically(to) as temporary:
        table.to_csv(temporary, index=False)
    if not features.labelled:
        return f"{len(features)} utterances labelled; {features_file} has no labels to measure against"
    measured = metrics_from_logits(logits, features.labels)
    macro_f1 = float(f1_score(features.labels, predicted, average="macro"))
    rows = [
        ("accuracy", "WA", "UA", measured.wa),
        ("mean recall over classes", "UA", "WA", measured.ua),
        ("F1 weighted by support", "w-F1", "w-F1", measured.wf1),
        ("F1, mean over classes", "macro F1", "macro F1", macro_f1),
    ]
    cells = [(what, field, authors, f"{100 * value:.2f}") for what, field, authors, value in rows]
    head = ["measure", "the field's name", "the authors' code's", "percent"]
    return f"{len(features)} utterances\n\n" + pd.DataFrame(cells, columns=head).to_markdown(
        index=False, disable_numparse=True, colalign=("left", "left", "left", "right")
    )


def _class_names(features: FeatureSet, num_classes: int, checkpoint: Path) -> tuple[str, ...]:
    """The file's, extended where it names none and its labels do not reach the last class."""
    names = features.class_names
    if len(names) < num_classes and names == tuple(f"class_{i}" for i in range(len(names))):
        return tuple(f"class_{i}" for i in range(num_classes))
    if len(names) != num_classes:
        raise InputError(
            f"{features.source}: its classes are {', '.join(names)}, but {checkpoint} tells {num_classes} apart; "
            "give features of the data set that it was trained on"
        )
    return names
