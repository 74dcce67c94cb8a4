from __future__ import annotations

import pytest
import torch

from cemobam_core import Batch, CemoBAM, TrainingConfig, train
from cemobam_core.corpora.demo import DEMO, DIALOGUE, MANNER
from cemobam_core.corpora.synthetic import demo_fold
from cemobam_core.features import FeatureSet, fingerprint

_VALENCE = torch.tensor([-1, 1, 1, -1])  # of the four classes, in the order of their names
_AROUSAL = torch.tensor([1, 1, -1, -1])


def test_the_demo_is_the_same_every_time_and_says_that_it_is_synthetic() -> None:
    fold = demo_fold()
    assert fingerprint([fold]) == fingerprint([demo_fold()]) != fingerprint([demo_fold(1)])
    assert {name: len(s) for name, s in fold.splits.items()} == {"train": 640, "val": 240, "test": 480}
    assert all(s.labels.bincount(minlength=4).min() > 0.15 * len(s) for s in fold.splits.values())
    assert "synthetic" in DEMO.title
    assert "synthetic" in fold.train.provenance["encoders"]


def _shared(features: FeatureSet, k_audio: int, k_text: int, value: torch.Tensor) -> float:
    """Return the share of edges, self-loops aside, whose two utterances have the same valence or arousal."""
    source, target = features.rank(10).edge_index(k_audio, k_text)
    apart = source != target
    of = value[features.labels]
    return (of[source] == of[target])[apart].double().mean().item()


@pytest.mark.parametrize("seed", range(3))
def test_companions_share_the_valence_and_nobody_shares_the_arousal(seed: int) -> None:
    test = demo_fold(seed).test
    companions, many = (_shared(test, MANNER - 1, k, _VALENCE) for k in (DIALOGUE - 1, 10))
    assert companions > 0.8
    assert many < companions
    assert _shared(test, 10, 1, _VALENCE) < 0.65
    assert 0.45 < _shared(test, 1, DIALOGUE - 1, _AROUSAL) < 0.62


def test_words_tell_the_valence_faintly_and_the_voice_tells_the_arousal_clearly() -> None:
    """The class means of train give the directions; each utterance of test is labelled by its own projection."""
    fold = demo_fold()
    for modality, value, low, high in (("text", _VALENCE, 0.7, 0.92), ("audio", _AROUSAL, 0.93, 0.99)):
        x, y = getattr(fold.train, modality), value[fold.train.labels]
        direction = torch.linalg.lstsq(x, y.float()[:, None]).solution
        right = ((getattr(fold.test, modality) @ direction).squeeze(1) > 0) == (value[fold.test.labels] > 0)
        assert low < right.double().mean() < high, modality


@pytest.mark.slow
def test_companions_help_and_strangers_do_not() -> None:
    fold = demo_fold()
    rankings = {name: s.rank(10) for name, s in fold.splits.items()}
    of = {name: value for name, value in DEMO.settings.items() if name in ("hidden_dim", "dropout")}
    training = TrainingConfig(epochs=int(DEMO.settings["epochs"]), lr=DEMO.settings["lr"])

    def wa(k_audio: int, k_text: int, **changes: str) -> float:
        batches = {
            name: Batch.from_features(s, rankings[name].edge_index(k_audio, k_text)) for name, s in fold.splits.items()
        }
        system = CemoBAM(**of, **changes)
        return sum(train(system, batches, training=training, seed=seed).metrics["test"].wa for seed in range(3)) / 3

    best = wa(1, 7)
    assert best > wa(10, 1) + 0.04
    assert best > wa(1, 7, modules="no_chgat") + 0.04
    assert best > wa(1, 7, modules="no_xcbam") + 0.15
