"""All systems on the demo with their defaults and five seeds, and a trial of the linear systems at IEMOCAP's size.

    python benchmarks/systems.py [SEEDS]

Runs ``run_grid.py`` with one block of all built-in systems in a temporary folder, and prints the time of each. Then
trains ``logistic`` and ``svm`` on one thread, on 4,407 artificial utterances with 1,536 correlated numbers and four
classes that overlap. It measures the first trial, and then each of the next trials, which share its principal axes,
over the values of c that tuning may try. For comparison, it also measures scikit-learn's own pipeline with c = 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from cemobam_core.systems import names

_ROOT = Path(__file__).resolve().parent.parent

_TRAIN, _EVALUATED, _DIM, _CLASSES = 4_407, 551, 768, 4


def study(seeds: int) -> None:
    """Print the time of the study and of each system's trials in it, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(_ROOT / "run_grid.py"), "--systems", ",".join(names()), "--blocks", "systems"]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--at", "5,5", "--seeds", str(seeds)], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        total = time.perf_counter() - start
        trials = pd.read_csv(Path(folder) / "results" / "demo" / "trials.csv")
    print(f"{'system':<20} {'trials':>6} {'median s':>9} {'all, s':>7} {'test WA, %':>11}")
    for name, of in trials.groupby("system"):
        seconds, wa = of["seconds"], 100 * of["test_wa"].mean()
        print(f"{name:<20} {len(of):>6} {seconds.median():>9.3f} {seconds.sum():>7.1f} {wa:>11.1f}")
    print(f"the command: {total:.1f} s; its trials: {trials['seconds'].sum():.1f} s of the workers' time\n")


def linear_systems() -> None:
    """Print the time of a trial of the linear systems, in seconds."""
    import torch  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    from cemobam_core import Batch, FeatureSet, train  # noqa: PLC0415
    from cemobam_core.systems.logistic import Logistic  # noqa: PLC0415
    from cemobam_core.systems.svm import SVM  # noqa: PLC0415
    from cemobam_core.training import linear  # noqa: PLC0415

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    # As for encoders, the variance along an axis falls with a power of its rank.
    axes = torch.linalg.qr(torch.randn(2 * _DIM, 2 * _DIM, generator=generator)).Q
    spread = torch.arange(1, 2 * _DIM + 1) ** -0.75
    means = 0.35 * torch.randn(_CLASSES, 2 * _DIM, generator=generator) * spread
    batches = {}
    for name, n in (("train", _TRAIN), ("val", _EVALUATED), ("test", _EVALUATED)):
        labels = torch.randint(_CLASSES, (n,), generator=generator)
        x = (torch.randn(n, 2 * _DIM, generator=generator) * spread + means[labels]) @ axes.T
        other = torch.randint(_CLASSES, (n,), generator=generator)
        labels = torch.where(torch.rand(n, generator=generator) < 0.3, other, labels)
        features = FeatureSet(
            audio=x[:, :_DIM].contiguous(),
            text=x[:, _DIM:].contiguous(),
            labels=labels,
            class_names=[f"class {i}" for i in range(_CLASSES)],
            utterance_ids=[f"{name} {i}" for i in range(n)],
        )
        batches[name] = Batch.from_features(features)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    ours = Logistic()
    x, y = ours.matrix(batches["train"].inputs), batches["train"].labels.numpy()
    with threadpool_limits(1):
        start = time.perf_counter()
        theirs.fit(x, y)
        print(f"scikit-learn's logistic regression: {time.perf_counter() - start:.3f} s, {theirs[-1].n_iter_[0]} steps")
        train(ours, batches)
        start = time.perf_counter()
        model = ours.fit(batches["train"].inputs, batches["train"].labels, batches["train"].sizes, 0)
        print(f"ours, with known axes: {time.perf_counter() - start:.3f} s, {model.estimator.n_iter_[0]} steps")
    for name, batch in batches.items():
        label = theirs.predict(ours.matrix(batch.inputs)) == model(batch.inputs).argmax(dim=1).numpy()
        print(f"  {name}: {100 * label.mean():.2f}% have the same label")
    linear._CACHE.clear()
    for kind, values in ((Logistic, np.geomspace(1e-5, 10, 13)), (SVM, np.geomspace(1e-6, 0.1, 13))):
        took = []
        for c in [1e-2, *values]:
            start, of_processor = time.perf_counter(), time.process_time()
            train(kind(c=float(c)), batches)
            took.append((time.perf_counter() - start, time.process_time() - of_processor))
        (first, _), *rest = took
        wall, cpu = map(sorted, zip(*rest, strict=True))
        print(
            f"{kind.__name__.lower()}, {_TRAIN} × {2 * _DIM}, one thread: first {first:.3f} s; the next {len(rest)}: "
            f"median {median(wall):.3f} s ({wall[0]:.3f} to {wall[-1]:.3f}), processor time {median(cpu):.3f} s "
            f"({cpu[0]:.3f} to {cpu[-1]:.3f})"
        )


if __name__ == "__main__":
    study(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    linear_systems()
