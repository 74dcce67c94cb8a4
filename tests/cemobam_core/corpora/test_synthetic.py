from __future__ import annotations

from cemobam_core import Batch, CemoBAM, TrainingConfig, train
from cemobam_core.corpora.demo import DEMO
from cemobam_core.corpora.synthetic import demo_fold
from cemobam_core.features import fingerprint


def test_the_demo_is_the_same_every_time_and_says_that_it_is_synthetic() -> None:
    fold = demo_fold()
    assert fingerprint([fold]) == fingerprint([demo_fold()]) != fingerprint([demo_fold(1)])
    assert {name: len(s) for name, s in fold.splits.items()} == {"train": 240, "val": 180, "test": 180}
    counts = sum(s.labels.bincount() for s in fold.splits.values())
    assert counts.tolist() == [120, 177, 186, 117]
    assert "synthetic" in DEMO.title
    assert "synthetic" in fold.train.provenance["encoders"]


def test_nothing_saturates_and_k_makes_a_difference() -> None:
    fold = demo_fold()
    rankings = {name: s.rank(10) for name, s in fold.splits.items()}
    system = CemoBAM(hidden_dim=int(DEMO.settings["hidden_dim"]))
    training = TrainingConfig(epochs=int(DEMO.settings["epochs"]), lr=DEMO.settings["lr"])
    wa = {}
    for k in (4, 10):
        batches = {name: Batch.from_features(s, rankings[name].edge_index(k, k)) for name, s in fold.splits.items()}
        runs = [train(system, batches, training=training, seed=seed).metrics["test"].wa for seed in range(3)]
        wa[k] = sum(runs) / len(runs)
    assert 0.6 < wa[10] < wa[4] - 0.03
    assert wa[4] < 0.85
