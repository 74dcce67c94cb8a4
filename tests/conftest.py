"""What several tests use: small feature sets, and the released material where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from servers import BINARIES, PostgreSQL

from cemobam_core.features import FeatureSet, Fold

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT.parent / "shared" / "released"
CLASSES = ("anger", "happiness", "neutral", "sadness")

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: it runs the GPU's kernels here


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server on loopback."""
    if BINARIES is None:
        pytest.skip("no PostgreSQL here (apt-get install postgresql)")
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture
def real_pickle() -> Path:
    """One split of real IEMOCAP features, in the authors' own file."""
    path = RELEASED / "features" / "IEMOCAP_BERT_WAV2VEC_val.pkl"
    if not path.exists():
        pytest.skip(f"the released features are not at hand ({path.name} beside the checkout)")
    return path


@pytest.fixture
def make_features() -> Callable[..., FeatureSet]:
    """A factory of small random feature sets."""
    return _make_features


@pytest.fixture
def small_fold() -> Fold:
    """Three small splits that a study can be run on in a moment."""
    return Fold(
        train=_make_features(40, seed=1, name="train"),
        val=_make_features(24, seed=2, name="val"),
        test=_make_features(24, seed=3, name="test"),
    )


def _make_features(
    n: int = 24, *, seed: int = 0, name: str = "u", dim: int = 12, steps: int | None = None, **changes: object
) -> FeatureSet:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(CLASSES)
    centres = torch.randn(len(CLASSES), dim, generator=torch.Generator().manual_seed(99))
    shape = (n, dim) if steps is None else (n, steps, dim)
    signal = centres[labels] if steps is None else centres[labels].unsqueeze(1)
    arguments: dict[str, object] = {
        "audio": signal + torch.randn(shape, generator=generator),
        "text": signal + torch.randn(shape, generator=generator),
        "labels": labels,
        "class_names": CLASSES,
        "utterance_ids": tuple(f"{name}_{i:03d}" for i in range(n)),
        "source": name,
    }
    if steps is not None:
        lengths = torch.randint(1, steps + 1, (2, n), generator=generator)
        for modality, length in zip(("audio", "text"), lengths, strict=True):
            arguments[f"{modality}_mask"] = torch.arange(steps) < length.unsqueeze(1)
    return FeatureSet(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh working folder, with the project importable for subprocesses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return tmp_path
