"""The profiles: named readings of the method, as data.

The paper's text leaves gaps (projection, dropout, weight decay, epochs …). ``docs/profiles.md`` says of each default
whether it comes from the paper or from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

from cemobam_core.corpora import CORPORA
from cemobam_core.graph import GraphConfig
from cemobam_core.released import RELEASED as RELEASED_MODEL
from cemobam_core.systems.cemobam import CemoBAM
from cemobam_core.training.config import TrainingConfig
from study.ledger.outcomes import Metric, Split


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A named reading of the method, as data.

    Attributes:
        name: The name for ``--profile``.
        graph: The direction of the graph.
        system: The configuration of CemoBAM.
        training: The settings of training and evaluation.
        select_on: The split that chooses the K pair.
        select_by: The metric that chooses it.
    """

    name: str
    graph: GraphConfig
    system: CemoBAM
    training: TrainingConfig
    select_on: Split
    select_by: Metric


PAPER = Profile(
    name="paper",
    graph=GraphConfig(),
    system=CemoBAM(),
    training=TrainingConfig(),
    select_on="val",
    select_by="wa",
)

RELEASED = Profile(
    name="released",
    graph=GraphConfig(gather_from="choosers"),
    system=RELEASED_MODEL,
    training=TrainingConfig(
        schedule="plateau", lr_gamma=0.5, lr_patience=15, train_mode="first_epoch", batch_norm="running"
    ),
    select_on="test",
    select_by="wf1",
)
"""The authors' released code as its grid search runs it."""

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (PAPER, RELEASED)}


def usual_metric(profile: Profile, dataset: str) -> Metric:
    """Return the metric that chooses the K pair unless ``--select-by`` says otherwise.

    Args:
        profile: The profile.
        dataset: Name of the data set. Some data sets have a metric of their own.
    """
    corpus = CORPORA.get(dataset)
    return (corpus.metric if corpus else None) or profile.select_by
