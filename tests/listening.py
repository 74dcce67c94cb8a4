"""Kept models of made-up corpora with tiny encoders, which label clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny import make_bert, make_wav2vec2
from trees import make_manifest

from cemobam_core import Fold
from cemobam_core.corpora.manifest import read_manifest
from cemobam_core.corpora.splits import load_folds
from cemobam_core.encoders.extract import make_features
from cemobam_core.encoders.settings import FeatureSettings, Recipe
from study import Block
from study.design.design import Design
from study.design.factors import Pair
from study.engines.execution import StudyData, execute
from study.engines.models import Keeping
from study.papers.cemobam.paper import ablation


def make_corpus(root: Path, **settings: Any) -> tuple[Path, Fold]:
    """Make a corpus, its encoders and its features under a folder.

    Args:
        root: The folder: ``corpus``, ``wav2vec2``, ``bert`` and ``features`` are made in it.
        **settings: Settings of extraction.

    Returns:
        The manifest, and the features.
    """
    manifest = make_manifest(root / "corpus", per_class=4)
    encoders = {"audio_encoder": str(make_wav2vec2(root / "wav2vec2")), "text_encoder": str(make_bert(root / "bert"))}
    given: dict[str, Any] = {"tune_layers": 0, "protocol": "official", **encoders, **settings}
    recipe = Recipe.of(read_manifest(manifest, name="mine"), FeatureSettings(**given))
    make_features(recipe, root / "features", say=lambda _: None)
    (fold,) = load_folds(root / "features")
    return manifest, fold


def keep_model(fold: Fold, folder: Path, system: str = "cemobam", **changes: Any) -> Path:
    """Train a small model on features, keep it, and return its folder."""
    design = Design(
        blocks={"ablation": ablation, "x": Block("x", systems=[system])},
        settings={"hidden_dim": 8, "epochs": 5, "lr": 1e-2, **changes},
        seeds=(1,),
    )
    trial = design.trials("ablation" if system == "cemobam" else "x", Pair(3, 2))[0]
    keeping = Keeping(folder=folder, dataset="mine", fingerprint="abc")
    (outcome,) = execute((trial,), StudyData.prepare((fold,), 3, keeping=keeping), "cpu")
    assert outcome.status == "done", outcome.reason
    return keeping.place(trial)


def without_record(fold: Fold) -> Fold:
    """Return the features as someone else may have made them, without a word about their encoders."""
    return Fold(**{name: replace(split, provenance={}) for name, split in fold.splits.items()})
