"""The profiles: named readings of the method, as data.

The paper's text leaves gaps (projection, dropout, weight decay, epochs …). Each default says in ``docs/profiles.md``
whether it is the paper's or comes from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

from cemobam_core.graph import GraphConfig
from cemobam_core.released import RELEASED as RELEASED_MODEL
from cemobam_core.systems.cemobam import CemoBAM
from cemobam_core.training.config import TrainingConfig
from study.ledger.outcomes import Metric, Split


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A named reading of the method, as data.

    Attributes:
        name: as ``--profile`` takes it.
        graph: which way the graph points.
        system: CemoBAM's choices.
        training: how it is trained and evaluated.
        select_on: the split that chooses the K pair.
        select_by: the metric that does.
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
"""The authors' released code, as its grid search runs: what it does, not what it should."""

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (PAPER, RELEASED)}
