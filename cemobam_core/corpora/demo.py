"""The embedded demo: synthetic features from a seeded generator, so that the whole study can be tried at once.

Nothing here was recorded from people. What the generator imitates is why the method might work at all: an utterance
alone says little of its emotion, text more of its valence and audio more of its arousal, and the utterances of one
scene (similar words) or of one speaker's spell (similar voice) tend to share it. A graph over neighbours can
average the noise away until K reaches beyond the scene; scenes differ between splits, so they cannot be learnt by
heart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cemobam_core.corpora.corpus import Corpus
from cemobam_core.features import FeatureSet, Fold

DEMO = Corpus(
    name="demo",
    title="demo (synthetic)",
    class_names=("anger", "happiness", "neutral", "sadness"),
    about="The demo is made by a seeded generator; it needs no file.",
    settings={"hidden_dim": 32, "epochs": 40, "lr": 3e-3},
)

_SIZES = {"train": 360, "val": 120, "test": 120}
_AUDIO_DIM, _TEXT_DIM = 64, 48
_VALENCE_AROUSAL = torch.tensor([[-1.0, 1.0], [1.0, 1.0], [0.35, -0.35], [-1.0, -1.0]])
"""Where the classes stand on the plane of valence and arousal (after Russell, 1980), in order of their names."""


def demo_fold(seed: int = 0) -> Fold:
    """The demo's train, val and test: 600 synthetic utterances, four classes, utterance-level features.

    Args:
        seed: of the generator; the study uses 0.
    """
    generator = torch.Generator().manual_seed(seed)
    # What valence and arousal look like in each modality is the same everywhere; scenes and spells are not.
    text_axes = torch.randn(2, _TEXT_DIM, generator=generator)
    audio_axes = torch.randn(2, _AUDIO_DIM, generator=generator)
    splits = {}
    for name, size in _SIZES.items():
        splits[name] = _split(name, size, text_axes, audio_axes, generator)
    return Fold(**splits)


def _split(name: str, n: int, text_axes: Tensor, audio_axes: Tensor, generator: torch.Generator) -> FeatureSet:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def shuffled(count: int) -> Tensor:
        """Members of ``count`` equal groups, in random order within each class's run."""
        return torch.arange(n) * count // n

    # Utterances come in scenes of ten; a scene has one class in the main, three in twenty go astray.
    scene = shuffled(n // 10)
    labels = (scene % 4).clone()
    astray = torch.rand(n, generator=generator) < 0.15
    labels[astray] = torch.randint(0, 4, (int(astray.sum()),), generator=generator)
    # A speaker's spell: six utterances of the same class, across scenes.
    order = (labels + torch.rand(n, generator=generator)).argsort()
    spell = torch.empty(n, dtype=torch.int64)
    spell[order] = torch.arange(n) // 6
    n_spells = int(spell.max()) + 1

    felt = _VALENCE_AROUSAL[labels]  # (N, 2)
    said = felt * torch.tensor([1.0, 0.3]) + 1.0 * normal(n, 2)  # words tell valence
    heard = felt * torch.tensor([0.3, 1.0]) + 1.0 * normal(n, 2)  # the voice tells arousal
    text = said @ text_axes + 2.5 * normal(n // 10, _TEXT_DIM)[scene] + 2.0 * normal(n, _TEXT_DIM)
    audio = heard @ audio_axes + 2.5 * normal(n_spells, _AUDIO_DIM)[spell] + 2.0 * normal(n, _AUDIO_DIM)
    return FeatureSet(
        audio=audio,
        text=text,
        labels=labels,
        class_names=DEMO.class_names,
        utterance_ids=tuple(f"{name}_scene{int(s):02d}_{i:03d}" for i, s in enumerate(scene)),
        provenance={"encoders": "none: synthetic, from the demo's seeded generator"},
        source=f"demo {name}",
    )
