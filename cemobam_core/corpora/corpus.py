"""The description of a corpus, which needs no files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cemobam_core.corpora.utterances import RawCorpus

ClassSet = Mapping[str, tuple[str, ...]]
"""The labels that form each class, in the order of the classes' indices. Other labels are left out."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A data set that the tool knows by name.

    Attributes:
        name: Name for ``--dataset``.
        title: Name in tables and figures.
        class_names: Names of the classes in the feature files that the authors published.
        about: Description of the corpus, and where to get it.
        settings: Model and training settings of this data set that differ from the profile.
        rope: Points within which two configurations count as practically the same, unless ``--rope`` says otherwise.
        of_others: Settings of the tool's other systems that differ from their defaults for this data set.
        metric: Metric that chooses configurations, unless ``--select-by`` says otherwise. ``None`` for the profile's.
        reader: Function that reads the corpus, with its own labels, from its unpacked folder. ``None`` if there are no
            raw files.
        class_sets: Sets of classes by the name that ``--classes`` takes. The first is the default, and its classes are
            ``class_names``. Empty if ``class_names`` are the corpus's own labels.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    about: str
    settings: dict[str, int | float] = field(default_factory=dict)
    rope: float = 1.0
    of_others: dict[str, int | float] = field(default_factory=dict)
    metric: str | None = None
    reader: Callable[[Path], RawCorpus] | None = None
    class_sets: Mapping[str, ClassSet] = field(default_factory=dict)

    @property
    def choices(self) -> Mapping[str, ClassSet]:
        """Every set of classes by its name, the default first. A single set is named by its number of classes."""
        return self.class_sets or {str(len(self.class_names)): {name: (name,) for name in self.class_names}}

    def has_other(self, class_names: Collection[str]) -> bool:
        """Return whether these classes are other than the corpus's default, whatever their order."""
        return set(class_names) != set(self.class_names)
