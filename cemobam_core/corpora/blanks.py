"""Detection of empty embeddings: all zeros, one constant number, or the same for every utterance of a split."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from cemobam_core.features import MODALITIES, FeatureSet, Fold

_CHUNK = 64
"""Number of utterances that are checked at once."""


def blanks(*folds: Fold) -> list[str]:
    """Return one warning for each split and modality whose embeddings carry no information.

    Such features are valid, and a study runs on them. But an utterance without an embedding is linked to random
    neighbours, and its audio or text was usually lost when the features were made.

    Args:
        *folds: Features to check.
    """
    found = [
        f"the {name} split: {what}"
        for fold in folds
        for name, features in fold.splits.items()
        for modality in MODALITIES
        for what in _warnings_of(features, modality)
    ]
    return list(dict.fromkeys(found))


def _warnings_of(features: FeatureSet, modality: str) -> Iterator[str]:
    x, mask = getattr(features, modality), getattr(features, f"{modality}_mask")
    zero, constant, same = [], [], True
    first = _filled(x[:1], None if mask is None else mask[:1])
    for start in range(0, len(features), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = _filled(x[rows], None if mask is None else mask[rows])  # (n, T · E)
        lowest, highest = part.min(dim=1).values, part.max(dim=1).values
        zero += ((lowest == 0) & (highest == 0)).tolist()
        constant += ((lowest == highest) & (lowest != 0) & (part.shape[1] > 1)).tolist()
        same = same and bool((part == first).all())
    n = len(features)
    if sum(zero):
        yield _warning(sum(zero), n, modality, "all zeros", features.utterance_ids[zero.index(True)])
    if sum(constant):
        yield _warning(
            sum(constant), n, modality, "one number throughout", features.utterance_ids[constant.index(True)]
        )
    if same and n > 1 and not any(zero + constant):
        yield f"all {n} utterances have the same {modality} embedding; make the features again"


def _filled(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return x as (n, T · E), with padding replaced by the first step of each utterance, which is valid."""
    if mask is not None:
        x = x.where(mask.unsqueeze(-1), x[:, :1])
    return x.flatten(1)


def _warning(count: int, n: int, modality: str, what: str, example: str) -> str:
    return (
        f"{count} of {n} utterances: the {modality} embedding is {what} (the first is {example!r}); "
        "make the features again or leave them out"
    )
