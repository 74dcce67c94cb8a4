"""The embedded demo: synthetic features from a seeded generator, so that the whole study can be tried at once.

Nothing here was recorded from people. What the generator imitates is why the method might work at all: an utterance
alone says little of its emotion, its words more of the valence and its voice more of the arousal; and utterances with
the same topic, or spoken in the same manner, tend to share it. A graph over neighbours can average noise away, until
K reaches beyond the topic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cemobam_core.corpora.demo import DEMO
from cemobam_core.corpora.splits import split
from cemobam_core.features import FeatureSet, Fold

_COUNTS = (120, 177, 186, 117)  # of the classes, in IEMOCAP's proportions
_N, _AUDIO_DIM, _TEXT_DIM = sum(_COUNTS), 64, 48
_GROUPS = 16  # topics, and manners of speaking; each has a class in the main
_ASTRAY = 0.2  # the share of utterances that land in any group, whatever their class
_FELT_NOISE, _GROUP_SPREAD, _NOISE = 1.5, 2.5, 2.4

_VALENCE_AROUSAL = torch.tensor([[-1.0, 1.0], [1.0, 1.0], [0.35, -0.35], [-1.0, -1.0]])
"""Where the classes stand on the plane of valence and arousal (after Russell, 1980), in the order of their names."""


def demo_fold(seed: int = 2) -> Fold:
    """Return the demo's train, val and test: 240, 180 and 180 synthetic utterances, utterance-level features.

    Args:
        seed: of the generator; with the default the accuracy lies between 0.6 and 0.85 all over the K grid.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(_COUNTS))
    felt = _VALENCE_AROUSAL[labels]  # (N, 2)
    topic, manner = _groups(labels, generator), _groups(labels, generator)
    text_axes, audio_axes = normal(2, _TEXT_DIM), normal(2, _AUDIO_DIM)
    said = felt * torch.tensor([1.0, 0.3]) + _FELT_NOISE * normal(_N, 2)  # words tell valence
    heard = felt * torch.tensor([0.3, 1.0]) + _FELT_NOISE * normal(_N, 2)  # the voice tells arousal
    features = FeatureSet(
        audio=heard @ audio_axes
        + _GROUP_SPREAD * normal(_GROUPS, _AUDIO_DIM)[manner]
        + _NOISE * normal(_N, _AUDIO_DIM),
        text=said @ text_axes + _GROUP_SPREAD * normal(_GROUPS, _TEXT_DIM)[topic] + _NOISE * normal(_N, _TEXT_DIM),
        labels=labels,
        class_names=DEMO.class_names,
        utterance_ids=tuple(f"demo_{i:03d}" for i in range(_N)),
        provenance={"encoders": "none: synthetic, from the demo's seeded generator"},
        source="demo (synthetic)",
    )
    # Splits of like size, so that the K nearest are as near in one as in the other.
    return split(features, "random:40/30/30", seed)[0]


def _groups(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a group for each utterance: mostly one of those of its class (groups i with i mod C = class)."""
    classes = len(DEMO.class_names)
    group = labels + classes * torch.randint(_GROUPS // classes, (_N,), generator=generator)
    anywhere = torch.randint(_GROUPS, (_N,), generator=generator)
    astray = torch.rand(_N, generator=generator) < _ASTRAY
    return torch.where(astray, anywhere, group)
