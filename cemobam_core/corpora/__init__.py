"""The data sets that the tool knows by name."""

from __future__ import annotations

from cemobam_core.corpora.corpus import Corpus
from cemobam_core.corpora.crema_d import CREMA_D
from cemobam_core.corpora.demo import DEMO
from cemobam_core.corpora.esd import ESD
from cemobam_core.corpora.iemocap import IEMOCAP
from cemobam_core.corpora.meld import MELD
from cemobam_core.corpora.msp_improv import MSP_IMPROV
from cemobam_core.corpora.ravdess import RAVDESS

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus for corpus in (DEMO, IEMOCAP, ESD, MELD, MSP_IMPROV, CREMA_D, RAVDESS)
}

READABLE: tuple[str, ...] = tuple(name for name, corpus in CORPORA.items() if corpus.reader)
"""Names of the data sets that ``--data-root`` reads as they were unpacked."""

__all__ = ["CORPORA", "READABLE", "Corpus"]
