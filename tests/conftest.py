"""Shared fixtures: services, a small study, small feature sets, and the authors' released material if available."""

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
"""The service of each marker if it is installed, and the Debian packages that install it."""

# Missed deadlines and slow data generation show that the machine is busy, not that there is a fault.
_ALWAYS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.register_profile("quick", _ALWAYS, max_examples=15, derandomize=True)
settings.register_profile("thorough", _ALWAYS, max_examples=100)
settings.load_profile("quick")

# Started in the background of a shell or under nohup, this process ignores signals, and its child processes would too.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

gc.freeze()  # statsmodels collects garbage at every correction, and need not scan the modules imported so far
torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads this when it is imported, and then runs GPU kernels on the CPU


@pytest.hookimpl(wrapper=True)  # runs before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Run all tests that need a service in one of the test processes, so that they share it."""
    for item in items:
        for marker in ("ray", *SERVICES):
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.xdist_group(marker))
                break
    yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose service is not installed. In continuous integration, where all are installed, fail it."""
    for marker, (service, packages) in SERVICES.items():
        if item.get_closest_marker(marker) and not service:
            stop = pytest.fail if os.environ.get("CI") else pytest.skip
            stop(f"needs {marker}, which is not installed (apt-get install {packages})")


@pytest.fixture(autouse=True)
def _nothing_outlives_its_test() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():  # a command that ran in this process to its end ignores signals from there
        signal.signal(number, handler)
    end_all()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Start a PostgreSQL server on loopback."""
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def _small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small study of the demo. The first test process that needs it runs it, once."""
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
    """Copy the small study of the demo (:data:`runs.SMALL`) to a new folder and make it the working folder."""
    for name in ("results", "plots"):
        shutil.copytree(_small_study / name, in_folder / name)
    return in_folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start Chromium, driven by selenium, and record the logs and requests of pages."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
        *("--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"),
        "--host-resolver-rules=MAP rebound.example 127.0.0.1",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=str(shutil.which("chromedriver")))
    )
    yield driver
    driver.quit()


@pytest.fixture
def until(browser: Any) -> Callable[[str], Any]:
    """Wait until a script returns a true value in the browser, and return the value."""
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(script: str) -> Any:
        return WebDriverWait(browser, 120).until(lambda driver: driver.execute_script(f"return {script}"), script)

    return wait


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures, because they take half of the time of a small run."""
    monkeypatch.setattr("study.output.report.drawings", lambda _: {})


@pytest.fixture
def real_pickle() -> Path:
    """Return one split of real IEMOCAP features from the authors' own file."""
    path = RELEASED / "features" / "IEMOCAP_BERT_WAV2VEC_val.pkl"
    if not path.exists():
        pytest.skip(f"the released features are not at hand ({path.name} beside the checkout)")
    return path


@pytest.fixture
def make_features() -> Callable[..., FeatureSet]:
    """Return a factory of small random feature sets."""
    return _make_features


@pytest.fixture
def small_fold() -> Fold:
    """Return three small splits on which a study runs in a moment."""
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
    """Change to a new working folder, with the project importable for subprocesses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return tmp_path
