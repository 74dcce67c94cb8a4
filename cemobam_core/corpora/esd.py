"""ESD (Zhou et al., 2022), the English half."""

from __future__ import annotations

from cemobam_core.corpora.corpus import Corpus

ESD = Corpus(
    name="esd",
    title="ESD (English)",
    class_names=("neutral", "angry", "happy", "sad", "surprise"),
    about=(
        "ESD is 350 sentences read by ten English and ten Mandarin speakers in five emotions, free for research from "
        "https://github.com/HLTSingapore/Emotional-Speech-Data"
    ),
)
