"""What a system is: a named way to label utterances, with all of its choices as fields."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cemobam_core.fields import check_fields

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from cemobam_core.inputs import Inputs, Sizes


class SystemType(ABCMeta):
    """The type of the classes of systems: those of a user's file are pickled with the file (:mod:`.files`)."""


@dataclass(frozen=True, kw_only=True)
class System(metaclass=SystemType):
    """A way to label utterances. Its fields are its configuration, its docstring says where it comes from.

    Derive from :class:`NeuralSystem` or :class:`EstimatorSystem`, as a frozen dataclass whose fields all have defaults.

    Raises:
        InputError: a value that its type hint excludes.
    """

    version: ClassVar[int] = 1
    """Raise it whenever a change of the code changes the system's numbers: it is part of every trial's signature."""

    uses_graph: ClassVar[bool] = True
    """Whether the graph matters to it; if not, it is trained once, and not again for every K."""

    def __post_init__(self) -> None:  # noqa: D105
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class NeuralSystem(System):
    """A system that learns by gradient descent: it builds a module, and the shared loop trains it."""

    @abstractmethod
    def build(self, sizes: Sizes) -> nn.Module:
        """Return the untrained module; its ``forward(inputs)`` gives (N, C) logits of :class:`Inputs`.

        The module may have a method ``embedding(inputs)``, which gives (N, width): what its classifier sees. It is kept
        beside a kept model, for a map of the utterances.

        Args:
            sizes: of the features.
        """


@dataclass(frozen=True, kw_only=True)
class EstimatorSystem(System):
    """A system that scikit-learn fits: it builds an estimator with ``fit`` and ``predict_proba``."""

    uses_graph: ClassVar[bool] = False

    @abstractmethod
    def build(self, sizes: Sizes, seed: int) -> Any:
        """Return the estimator, not fitted yet.

        Args:
            sizes: of the features.
            seed: for its ``random_state``, if it has one.
        """

    def matrix(self, inputs: Inputs) -> npt.NDArray[np.float32]:
        """Return what it is fitted on: both pooled embeddings of each utterance, (N, E_audio + E_text)."""
        import numpy as np  # noqa: PLC0415

        pooled = (inputs.audio.pooled, inputs.text.pooled)
        return np.concatenate([one.detach().cpu().numpy() for one in pooled], axis=1)
