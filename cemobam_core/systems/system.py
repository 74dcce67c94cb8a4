"""What a system is: a named way to label utterances, with all of its choices as fields."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cemobam_core.fields import check_fields
from cemobam_core.systems.search import Space, Value

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from cemobam_core.graph import GraphConfig
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

    group: ClassVar[str] = ""
    """The name under which ``--systems`` takes it together with others: ``paper``, ``baselines`` or ``graphs``."""

    prescribed: ClassVar[Mapping[str, Value]] = {}
    """Settings of training and graph that its source prescribes, by name; all others are those of the profile."""

    search: ClassVar[Space] = {}
    """What ``--budget`` tunes: by the name of a setting, the values that are tried; empty: it is not tuned."""

    def __post_init__(self) -> None:  # noqa: D105
        check_fields(self)

    def check_graph(self, graph: GraphConfig) -> None:
        """Check that it can be trained and measured in such a graph; any will do, unless a system says otherwise.

        Args:
            graph: its choices.

        Raises:
            InputError: it cannot.
        """


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
class FittedSystem(System):
    """A system that is fitted in one call, without the shared loop."""

    @abstractmethod
    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Fit it; return a function of the inputs of N utterances that gives their (N, C) logits.

        Args:
            inputs: of the training utterances, with their graph if the system uses one.
            labels: (N,), theirs.
            sizes: of the features.
            seed: for whatever is random.
        """


@dataclass(frozen=True, kw_only=True)
class EstimatorSystem(FittedSystem):
    """A system that scikit-learn fits: it builds an estimator with ``fit`` and ``predict_proba``."""

    uses_graph: ClassVar[bool] = False

    @abstractmethod
    def build(self, sizes: Sizes, seed: int) -> Any:
        """Return the estimator, not fitted yet.

        Args:
            sizes: of the features.
            seed: for its ``random_state``, if it has one.
        """

    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Fit the estimator; return it as a function of inputs (:class:`.estimators.FittedEstimator`)."""
        from cemobam_core.training.estimators import FittedEstimator  # noqa: PLC0415  (it imports this module)

        return FittedEstimator.fit(self, inputs, labels, sizes, seed)

    def matrix(self, inputs: Inputs) -> npt.NDArray[np.float32]:
        """Return what it is fitted on: both pooled embeddings of each utterance, (N, E_audio + E_text)."""
        import numpy as np  # noqa: PLC0415

        pooled = (inputs.audio.pooled, inputs.text.pooled)
        return np.concatenate([one.detach().cpu().numpy() for one in pooled], axis=1)

    def probabilities(self, estimator: Any, matrix: npt.NDArray[np.float32]) -> Any:
        """Return what a fitted estimator gives each of its ``classes_``, (N, classes): its ``predict_proba``.

        Args:
            estimator: that was fitted.
            matrix: of N utterances, as :meth:`matrix` gives it.
        """
        return estimator.predict_proba(matrix)
