"""The embedded demo: synthetic features with known truths, so that you can see whether a study finds them.

Nothing here was recorded from people. A seeded generator makes every utterance from two values, valence and arousal,
which together are its class (after Russell, 1980). Four truths are built in:

* **A graph helps.** The words of one utterance tell its valence only faintly. The utterances of one dialogue share
  their valence, and so do the three utterances spoken in one manner. A system that averages over neighbours hears
  what no utterance says alone. Every split has its own dialogues and manners, so no model can learn them by heart.
* **The utterance itself is needed.** The voice tells the arousal clearly, and neighbours have an arousal of their own.
* **The best K is known.** An utterance has 7 companions by text and 2 by audio. Smaller K leaves companions out; larger
  K adds utterances of any valence.
* **The fusion does not matter.** Both streams of the cross-modal attention hold the same two values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cemobam_core.corpora.demo import DEMO, DIALOGUE, MANNER
from cemobam_core.features import FeatureSet, Fold

_SIZES = {"train": 640, "val": 240, "test": 480}
_CENTRE_DIM = 10  # dimensions that tell dialogues, or manners, apart
_CENTRE_NORM = 2.8  # distance of a dialogue's or manner's centre from the origin
_VALENCE_NOISE = 1 / 1.2  # standard deviation of the noise on a valence of ±1: the words alone are right in 88%
_AROUSAL_NOISE = 1 / 6  # the same of an arousal of ±1
_AROUSAL_SCALE = 1.8  # scale of the dimension that holds the arousal
_VALENCE_SCALE = 1.2  # scale of the dimension that holds the valence
_RANDOM_LABELS = 0.05  # share of utterances with one of their two values turned: no model can label these

_CLASS = {(-1, 1): "anger", (1, 1): "happiness", (1, -1): "neutral", (-1, -1): "sadness"}
"""The class of each valence and arousal."""


def demo_fold(seed: int = 0) -> Fold:
    """Return the demo's train, val and test: 640, 240 and 480 utterances with utterance-level features of 11 numbers.

    Args:
        seed: Seed of the generator. Each seed makes another data set with the same truths.
    """
    generator = torch.Generator().manual_seed(seed)
    rotations = {name: torch.linalg.qr(_normal(generator, *(2 * (_CENTRE_DIM + 1,))))[0] for name in ("audio", "text")}
    return Fold(**{split: _utterances(split, n, rotations, generator) for split, n in _SIZES.items()})


def _utterances(split: str, n: int, rotations: dict[str, Tensor], generator: torch.Generator) -> FeatureSet:
    """Return n utterances of dialogues and manners that no other split has."""
    valence = _signs(n // DIALOGUE, generator).repeat_interleave(DIALOGUE)
    dialogue = torch.arange(n) // DIALOGUE
    manner = _manners(valence, generator)
    arousal = _signs(n, generator)
    words = _VALENCE_SCALE * (valence + _VALENCE_NOISE * _normal(generator, n))
    voice = _AROUSAL_SCALE * (arousal + _AROUSAL_NOISE * _normal(generator, n))
    text = torch.cat([_centres(dialogue, generator), words[:, None]], dim=1)  # (N, 11)
    audio = torch.cat([_centres(manner, generator), voice[:, None]], dim=1)  # (N, 11)
    turned = torch.rand(n, generator=generator) < _RANDOM_LABELS
    first = torch.rand(n, generator=generator) < 0.5
    labelled = (torch.where(turned & first, -valence, valence), torch.where(turned & ~first, -arousal, arousal))
    labels = [DEMO.class_names.index(_CLASS[int(v), int(a)]) for v, a in zip(*labelled, strict=True)]
    return FeatureSet(
        audio=audio @ rotations["audio"],
        text=text @ rotations["text"],
        labels=labels,
        class_names=DEMO.class_names,
        utterance_ids=tuple(f"demo_{split}_{i:03d}" for i in range(n)),
        provenance={"encoders": "none: synthetic, from the demo's seeded generator"},
        source="demo (synthetic)",
    )


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _signs(n: int, generator: torch.Generator) -> Tensor:
    """Return (n,) values of ±1, half of them positive, in random order."""
    return torch.where(torch.randperm(n, generator=generator) % 2 == 0, 1.0, -1.0)


def _manners(valence: Tensor, generator: torch.Generator) -> Tensor:
    """Return (N,) manners: utterances of one valence, whatever their dialogue, in threes."""
    manner = torch.empty(len(valence), dtype=torch.long)
    taken = 0
    for sign in (1, -1):
        those = (valence == sign).nonzero().squeeze(1)
        those = those[torch.randperm(len(those), generator=generator)]
        manner[those] = taken + torch.arange(len(those)) // MANNER
        taken = int(manner[those].max()) + 1
    return manner


def _centres(group: Tensor, generator: torch.Generator) -> Tensor:
    """Return (N, 10) centres of the groups: random points on a sphere, the same for all utterances of a group."""
    points = _normal(generator, int(group.max()) + 1, _CENTRE_DIM)
    return _CENTRE_NORM * normalize(points, dim=1)[group]
