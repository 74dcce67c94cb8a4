"""What several tests use: services, a small study, small feature sets, the released material where it is at hand."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings
from runs import SMALL, end_all, run_here
from servers import BINARIES, PostgreSQL

from cemobam_core.features import FeatureSet, Fold

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT.parent / "shared" / "released"
CLASSES = ("anger", "happiness", "neutral", "sadness")

SERVICES = {
    "postgres": (BINARIES, "postgresql"),
    "browser": (shutil.which("chromium") and shutil.which("chromedriver"), "chromium chromium-driver"),
    "latex": (shutil.which("pdflatex"), "texlive-publishers"),
}
"""By marker: the service if it is installed, and the Debian packages that bring it."""

# Deadlines and data that is slow to draw tell of a busy machine, not of a fault.
_ALWAYS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.register_profile("quick", _ALWAYS, max_examples=15, derandomize=True)
settings.register_profile("thorough", _ALWAYS, max_examples=100)
settings.load_profile("quick")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background, and whatever is started inherits that
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.freeze()  # statsmodels collects garbage at every correction, and what was imported so far is none
torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: it runs the GPU's kernels here


@pytest.hookimpl(wrapper=True)  # before pytest-xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Let the tests that need a service share it: of several test processes, one runs them all."""
    for item in items:
        for marker in ("ray", *SERVICES):
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.xdist_group(marker))
                break
    yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose service is not installed; in continuous integration, where all of them are, fail it."""
    for marker, (service, packages) in SERVICES.items():
        if item.get_closest_marker(marker) and not service:
            stop = pytest.fail if os.environ.get("CI") else pytest.skip
            stop(f"needs {marker}, which is not installed (apt-get install {packages})")


@pytest.fixture(autouse=True)
def _nothing_outlives_its_test() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)  # a command that ran here has set its own
    end_all()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server on loopback."""
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def _small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study of the demo, run once, whichever of the test processes needs it first."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder = shared / "small_study"
    with FileLock(shared / "small_study.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                run_here(*SMALL)
            (folder / "done").touch()
    return folder


@pytest.fixture
def small_study(_small_study: Path, in_folder: Path) -> Path:
    """A copy of a small study of the demo, as :data:`runs.SMALL` asks for it: the working folder."""
    for name in ("results", "plots"):
        shutil.copytree(_small_study / name, in_folder / name)
    return in_folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, driven by selenium; whatever a page logs or asks for is noted."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
        *("--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"),
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=str(shutil.which("chromedriver")))
    )
    yield driver
    driver.quit()


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figure: half of the time of a small run goes into them."""
    monkeypatch.setattr("study.output.report.drawings", lambda _: {})


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
