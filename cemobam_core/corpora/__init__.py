"""The data sets that the tool knows by name."""

from __future__ import annotations

from cemobam_core.corpora.corpus import Corpus
from cemobam_core.corpora.demo import DEMO
from cemobam_core.corpora.esd import ESD
from cemobam_core.corpora.iemocap import IEMOCAP

CORPORA: dict[str, Corpus] = {corpus.name: corpus for corpus in (DEMO, IEMOCAP, ESD)}

__all__ = ["CORPORA", "Corpus"]
