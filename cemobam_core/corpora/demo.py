"""The embedded demo: synthetic features, so that the whole study can be tried at once."""

from __future__ import annotations

from cemobam_core.corpora.corpus import Corpus

DEMO = Corpus(
    name="demo",
    title="demo (synthetic)",
    class_names=("anger", "happiness", "neutral", "sadness"),
    about="The demo is made by a seeded generator; it needs no file",
    settings={"hidden_dim": 16, "epochs": 20, "lr": 6e-3},
    of_others={"hidden_dim": 64, "lr": 6e-3},
)
