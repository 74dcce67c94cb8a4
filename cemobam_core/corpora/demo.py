"""The embedded demo: synthetic features with known truths, so that the whole study can be tried at once."""

from __future__ import annotations

from cemobam_core.corpora.corpus import Corpus

DIALOGUE = 8
"""Utterances of one dialogue of the demo. They share their valence and are nearest by text."""

MANNER = 3
"""Utterances of the demo that are spoken in one manner. They share their valence and are nearest by audio."""

DEMO = Corpus(
    name="demo",
    title="demo (synthetic)",
    class_names=("anger", "happiness", "neutral", "sadness"),
    about="The demo is made by a seeded generator; it needs no file",
    settings={"hidden_dim": 16, "dropout": 0.1, "epochs": 20, "lr": 1.2e-2},
    rope=2.0,
    of_others={"hidden_dim": 64, "lr": 6e-3},
)
