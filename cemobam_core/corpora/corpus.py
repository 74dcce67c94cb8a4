"""What is known of a corpus without having it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cemobam_core.corpora.utterances import RawCorpus


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A data set known by name.

    Attributes:
        name: as ``--dataset`` takes it.
        title: as tables and figures show it.
        class_names: the emotions behind the labels of the feature files that the authors published.
        about: what it is and where it is had, for who has not got it.
        settings: model and training settings that differ from the profile's for this data set.
        rope: Points within which two configurations count as practically the same, unless ``--rope`` says otherwise.
        of_others: settings of the tool's other systems that differ from their own for this data set.
        reader: reads the corpus from the folder that it was unpacked to; None: there is none to read.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    about: str
    settings: dict[str, int | float] = field(default_factory=dict)
    rope: float = 1.0
    of_others: dict[str, int | float] = field(default_factory=dict)
    reader: Callable[[Path], RawCorpus] | None = None
