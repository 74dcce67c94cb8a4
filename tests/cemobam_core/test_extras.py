"""The base installation works without the extras, and a missing extra is named in one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from runs import cemobam_here, ended, run_here, start_python

from cemobam_core import InputError
from cemobam_core.extras import EXTRAS, missing, require

NEED_AN_EXTRA = {
    "cemobam_core.encoders.asr": "features",
    "cemobam_core.encoders.audio": "features",
    "cemobam_core.encoders.extract": "features",
    "cemobam_core.encoders.finetune": "features",
    "cemobam_core.encoders.loading": "features",
    "cemobam_core.encoders.containers": "features",
    "cemobam_core.encoders.decoding": "features",
    "cemobam_core.encoders.sound": "features",
    "study.engines.ray": "ray",
    "study.output.dashboard": "dashboard",
    "study.output.figures.interactive": "dashboard",
    "study.output.page": "page",
    "study.output.publishing": "dashboard",
    **{f"study.output.export.{tracker}": tracker for tracker in ("mlflow", "tensorboard", "wandb")},
}
"""The modules that cannot be imported without an extra. Every other module belongs to the base installation."""

IMPORT_ALL = f"""
import pkgutil
from importlib import import_module
import cemobam_core, study
from cemobam_core import InputError
needing = {NEED_AN_EXTRA!r}
for package in (cemobam_core, study):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            import_module(module.name)
        except InputError as error:
            assert f"pip install 'cemobam-study[{{needing.pop(module.name)}}]'" in str(error), (module.name, error)
assert not needing, needing
"""

WHOLE_DEMO = """
import sys
from shutil import copytree
from cemobam_core.corpora.synthetic import demo_fold
from study.commands import cemobam
small = ["--k-audio", "1", "--k-text", "1,2", "--seeds", "1", "--epochs", "1", "--workers", "2"]
assert cemobam(["run", *small, "--keep-models", "best"]) == 0
assert cemobam(["run", *small, "--report-only"]) == 0
assert cemobam(["figures", "--only", "topk"]) == 0
assert cemobam(["systems"]) == 0
copytree("results/demo", "results/other")
assert cemobam(["compare", "results/demo", "results/other"]) == 0
from pathlib import Path
(model,) = Path("results/demo/models").iterdir()
demo_fold().test.save(Path("new.safetensors"))
assert cemobam(["predict", "--model", str(model), "--features", "new.safetensors", "--to", "labels.csv"]) == 0
"""


@pytest.fixture
def without_extras(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which new processes find no module of an extra, nor what only tests need."""
    absent = sorted({"statsmodels", *(module for modules in EXTRAS.values() for module in modules)})
    (in_folder / "absent").mkdir()
    (in_folder / "absent/sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(in_folder / "absent"), os.environ["PYTHONPATH"]]))
    return in_folder


@pytest.mark.process
@pytest.mark.usefixtures("without_extras")
def test_every_module_of_the_base_is_imported_without_extras() -> None:
    ended(start_python("-c", IMPORT_ALL))


@pytest.mark.process
def test_a_study_runs_to_its_report_without_extras(without_extras: Path) -> None:
    out, err = ended(start_python("-c", WHOLE_DEMO))
    assert out.count("pip install 'cemobam-study[dashboard]'") == 1
    assert "watch it in a browser" not in out
    assert "Traceback" not in err
    assert (without_extras / "results/demo/report.html").exists()
    assert (without_extras / "plots/demo/fig2_topk.pdf").exists()
    assert (without_extras / "labels.csv").exists()


@pytest.mark.parametrize(
    ("absent", "command", "message"),
    [
        ("ray", "run --engine ray", "--engine ray needs ray, which is not installed"),
        ("soxr", "run --dataset iemocap --data-root x", "--data-root needs soxr, which is not installed"),
        ("soundfile", "features --dataset mine --manifest x --out y", "--manifest needs soundfile, which is not inst"),
        ("soxr", "predict --model x --audio y.wav", "--audio needs soxr, which is not installed"),
        ("soxr", "demo --model x", "--model needs soxr, which is not installed"),
        ("gradio", "demo --model x", "--model needs gradio, which is not installed"),
        ("plotly", "dashboard", "cemobam dashboard needs plotly, which is not installed"),
        ("psycopg", "run --storage postgresql://me:secret@host/x", "--storage postgresql://… needs psycopg, which is"),
        (
            "psycopg",
            "dashboard --storage postgresql+psycopg://host/x",
            "--storage postgresql+psycopg://… needs psycopg",
        ),
        ("pymysql", "run --report-only --storage mysql+pymysql://host/x", "--storage mysql+pymysql://… needs pymysql"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, absent: str, command: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    _, err = cemobam_here(*command.split(), status=2)
    (line,) = err.splitlines()
    assert message in line
    (extra,) = (name for name, modules in EXTRAS.items() if absent in modules)
    assert line.endswith(f"pip install 'cemobam-study[{extra}]'")
    assert "secret" not in line
    assert list(in_folder.iterdir()) == []


@pytest.mark.usefixtures("without_figures")
def test_a_report_of_a_corpus_needs_no_encoders(small_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (small_study / "results/demo/grid.csv").unlink()
    run_here("--report-only", "--engine", "ray")
    assert (small_study / "results/demo/grid.csv").exists()


def test_several_missing_packages_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in EXTRAS["dashboard"]:
        monkeypatch.setitem(sys.modules, module, None)
    assert missing("dashboard") == list(EXTRAS["dashboard"])
    with pytest.raises(
        InputError, match="It needs optuna_dashboard, waitress and plotly, which are not installed; ins"
    ):
        require("dashboard", "It")


def test_an_extra_that_is_installed_is_no_error() -> None:
    assert missing("dashboard") == []
    require("dashboard", "It")
