"""IEMOCAP (Busso et al., 2008), the four classes of the field."""

from __future__ import annotations

from cemobam_core.corpora.corpus import Corpus

IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    class_names=("anger", "happiness", "neutral", "sadness"),
    about=(
        "IEMOCAP is twelve hours of acted English dialogue in five sessions, free for research under a licence that "
        "the University of Southern California grants at https://sail.usc.edu/iemocap/"
    ),
)
