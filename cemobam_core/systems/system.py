"""The interface of a system: a named way to label utterances whose fields are its configuration."""

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
    """The metaclass of all systems. A class from a user's file is pickled together with the file."""


@dataclass(frozen=True, kw_only=True)
class System(metaclass=SystemType):
    """A way to label utterances. Its fields are its configuration, and its docstring names its source.

    Derive from ``NeuralSystem`` or ``EstimatorSystem``, as a frozen dataclass whose fields all have defaults.

    Raises:
        InputError: A value does not fit its type hint.
    """

    version: ClassVar[int] = 1
    """Version of the code. Increase it whenever a change alters the system's numbers: every signature includes it."""

    uses_graph: ClassVar[bool] = True
    """Whether the system uses the graph. If not, it is trained once and not again for every K."""

    modalities: ClassVar[tuple[str, ...]] = ("audio", "text")
    """Modalities that the system uses: ``audio``, ``text`` or both. A clip can be labelled without the others."""

    group: ClassVar[str] = ""
    """Group of systems to which it belongs for ``--systems``: ``paper``, ``baselines`` or ``graphs``."""

    prescribed: ClassVar[Mapping[str, Value]] = {}
    """Settings of training and graph that the source prescribes. The profile decides all others."""

    search: ClassVar[Space] = {}
    """Search space of ``--budget``: the values to try for each setting. An empty space means no tuning."""

    def __post_init__(self) -> None:  # noqa: D105
        check_fields(self)

    def check_graph(self, graph: GraphConfig) -> None:
        """Check that the system can be trained and measured with such a graph. By default every graph is accepted.

        Args:
            graph: Settings of the graph.

        Raises:
            InputError: The system cannot use this graph.
        """


@dataclass(frozen=True, kw_only=True)
class NeuralSystem(System):
    """A system that learns by gradient descent. It builds a module, and the shared loop trains the module."""

    @abstractmethod
    def build(self, sizes: Sizes) -> nn.Module:
        """Build the untrained module. Its ``forward(inputs)`` takes ``Inputs`` and returns (N, C) logits.

        The module may have a method ``embedding(inputs)`` that returns the input of its classifier, (N, width). The
        tool stores it with a saved model, for a map of the utterances.

        Args:
            sizes: Sizes of the features.
        """


@dataclass(frozen=True, kw_only=True)
class FittedSystem(System):
    """A system that is fitted in one call, without the shared loop."""

    @abstractmethod
    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Fit the system and return a function from the inputs of N utterances to their (N, C) logits.

        Args:
            inputs: Inputs of the training utterances, with their graph if the system uses one.
            labels: (N,), labels of the training utterances.
            sizes: Sizes of the features.
            seed: Seed of all random numbers.
        """


@dataclass(frozen=True, kw_only=True)
class EstimatorSystem(FittedSystem):
    """A system that is fitted by scikit-learn. It builds an estimator with ``fit`` and ``predict_proba``."""

    uses_graph: ClassVar[bool] = False

    @abstractmethod
    def build(self, sizes: Sizes, seed: int) -> Any:
        """Build the estimator without fitting it.

        Args:
            sizes: Sizes of the features.
            seed: Seed for its ``random_state``, if it has one.
        """

    def fit(self, inputs: Inputs, labels: Tensor, sizes: Sizes, seed: int) -> Callable[[Inputs], Tensor]:
        """Fit the estimator and return it as a ``FittedEstimator``, which is a function of inputs."""
        from cemobam_core.training.estimators import FittedEstimator  # noqa: PLC0415  (it imports this module)

        return FittedEstimator.fit(self, inputs, labels, sizes, seed)

    def matrix(self, inputs: Inputs) -> npt.NDArray[np.float32]:
        """Return the input of the estimator: both pooled embeddings of each utterance, (N, E_audio + E_text)."""
        import numpy as np  # noqa: PLC0415

        pooled = (inputs.audio.pooled, inputs.text.pooled)
        return np.concatenate([one.detach().cpu().numpy() for one in pooled], axis=1)

    def probabilities(self, estimator: Any, matrix: npt.NDArray[np.float32]) -> Any:
        """Return the probability of each of the estimator's ``classes_``, (N, classes), from its ``predict_proba``.

        Args:
            estimator: The fitted estimator.
            matrix: Input of N utterances, as returned by ``matrix``.
        """
        return estimator.predict_proba(matrix)
