"""The memory that a study needs, and the refusal of one that does not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs import run_here

from cemobam_core import CemoBAM, Fold
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.systems.svm import SVM
from cemobam_core.training.batch import Batch
from study import Block, Factor
from study.design.configuration import Configuration
from study.design.design import ANY_PAIR, Design
from study.engines import memory
from study.engines.memory import Needs, free_memory, heaviest, in_words, shortage

GB = 10**9
WIDTHS = Design(blocks={"widths": Block("widths", factors=[Factor("hidden_dim", [16, 64, 32])])})
SYSTEMS = Design(blocks={"systems": Block("systems", systems=["cemobam", "concat_mlp", "svm"])})


@pytest.fixture
def heavy(small_fold: Fold) -> list[Configuration]:
    sizes = Batch.from_features(small_fold.train).sizes
    return heaviest(WIDTHS.configurations("widths", ANY_PAIR), sizes)


def test_the_heaviest_configuration_of_each_system_counts(small_fold: Fold, heavy: list[Configuration]) -> None:
    sizes = Batch.from_features(small_fold.train).sizes
    assert [one.get("hidden_dim") for one in heavy] == [64]
    kinds = [type(one.system) for one in heaviest(SYSTEMS.configurations("systems", ANY_PAIR), sizes)]
    assert kinds == [CemoBAM, ConcatMLP, SVM]
    grid = Design(blocks={"grid": Block("grid", factors=[Factor("k_audio", [1, 4]), Factor("k_text", [2, 3])])})
    (largest,) = heaviest(grid.configurations("grid", ANY_PAIR), sizes)
    assert (largest.get("k_audio"), largest.get("k_text")) == (4, 3)


def test_the_needs_are_those_of_the_largest_system_and_of_all_folds(small_fold: Fold) -> None:
    configurations = SYSTEMS.configurations("systems", ANY_PAIR)
    one, two = (Needs.of([small_fold] * n, configurations, "cpu") for n in (1, 2))
    assert one.largest == "cemobam"
    assert (
        two.features
        == 2 * one.features
        == 2 * sum(x.nbytes for split in small_fold.splits.values() for x in split.tensors().values())
    )
    assert one.total(3) - one.total(1) == 2 * (one.trial + memory._PROCESS)
    assert Needs.of([small_fold], [configurations[-1]], "cpu").trial == 0
    gpu = Needs.of([small_fold], configurations, "cuda:0")
    assert gpu.trial == one.trial + one.features
    assert gpu.total(3) - gpu.total(1) == 2 * memory._PROCESS


def test_a_system_that_fails_has_no_known_peak(small_fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> int:
        raise ValueError("forward")

    monkeypatch.setattr(memory, "bytes_of_training", fails)
    assert Needs.of([small_fold], SYSTEMS.configurations("systems", ANY_PAIR), "cpu").trial == 0


def told(fold: Fold, heavy: list[Configuration], monkeypatch: pytest.MonkeyPatch, free: int, workers: int = 4) -> str:
    """Return why the study does not fit into so much memory."""
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    return shortage(Needs.of([fold], heavy, "cpu"), [fold], heavy, ["cpu"] * workers)


def test_a_study_that_does_not_fit_is_told_what_makes_it_fit(
    small_fold: Fold, heavy: list[Configuration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_BATCHES", (16, 8))
    monkeypatch.setattr(memory, "_PROCESS", 0)
    needs = Needs.of([small_fold], heavy, "cpu")
    assert told(small_fold, heavy, monkeypatch, needs.total(4)) == ""
    said = told(small_fold, heavy, monkeypatch, needs.total(4) - 1)
    assert said.startswith(
        f"the study needs about {in_words(needs.total(4))} of memory (1 MB of features, 4 workers of "
    )
    assert "; give --workers 3 or --batch 16" in said
    (smaller,) = (one.having({"batch": 8}) for one in heavy)
    least = Needs.of([small_fold], [smaller], "cpu")
    assert least.trial < needs.trial
    assert told(small_fold, heavy, monkeypatch, int(least.total(1) / 0.89), 1).endswith("give --batch 8")
    assert told(small_fold, heavy, monkeypatch, 1000, 1).endswith("use a machine with more memory, or a smaller model")


def test_a_trial_that_no_gpu_holds_is_told(
    small_fold: Fold, heavy: list[Configuration], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = Needs.of([small_fold], heavy, "cuda:0")
    properties = SimpleNamespace(total_memory=needs.trial)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(memory, "_BATCHES", (8,))
    said = shortage(needs, [small_fold], heavy, ["cuda:0"])
    assert said.startswith("a trial of cemobam needs about ")
    assert said.endswith(" for it; give --batch 8")
    properties.total_memory = 2 * needs.trial
    assert shortage(needs, [small_fold], heavy, ["cuda:0"]) == ""


def test_a_run_is_refused_before_it_starts_and_a_plan_only_warns(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 10**6)
    monkeypatch.setattr("study.commands.dry_run._print_time", lambda *_, **__: None)
    _, said = run_here("--workers", "2", status=2)
    assert said.startswith("run_grid.py: error: the study needs about ")
    assert "but 1 MB are free; use a machine with more memory" in said
    assert not (in_folder / "results").exists()
    out, _ = run_here("--dry-run", "--workers", "2")
    assert "  memory      about 1 MB of features, 2 workers of 1" in out
    assert "              warning: the study needs about " in out


def test_a_study_whose_trials_are_all_done_needs_no_memory(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--blocks", "fusion", "--at", "2,2", "--seeds", "1", "--epochs", "1", "--hidden-dim", "8")
    run_here(*small, "--workers", "1")
    monkeypatch.setattr(memory, "free_memory", lambda: 10**6)
    out, _ = run_here(*small, "--workers", "1")
    assert "4 trials, 4 done, 0 to run" in out
    out, _ = run_here(*small, "--dry-run")
    assert "every trial is done" in out and "memory" not in out
    _, said = run_here(*small, "--workers", "1", "--seeds", "2", status=2)
    assert said.startswith("run_grid.py: error: the study needs about ")


CGROUP = {"memory.max": f"{3 * GB}\n", "memory.current": f"{2 * GB}\n", "memory.stat": f"anon 5\ninactive_file {GB}\n"}


def test_free_memory_respects_the_limits_of_all_surrounding_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = 100 * GB
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=whole))
    own = tmp_path / "job"
    own.mkdir()
    monkeypatch.setattr(memory, "_group", lambda: own)
    assert free_memory() == whole
    for name, content in CGROUP.items():
        (own / name).write_text(content.replace(str(3 * GB), "max"))
    assert free_memory() == whole
    for name, content in CGROUP.items():
        (tmp_path / name).write_text(content)
    assert free_memory() == 2 * GB
    (tmp_path / "memory.current").write_text(str(9 * GB))
    assert free_memory() == 0
    monkeypatch.setattr(memory, "_group", lambda: None)
    assert free_memory() == whole


@pytest.mark.parametrize(("size", "words"), [(0, "1 MB"), (350_400_000, "350 MB"), (12_340_000_000, "12.3 GB")])
def test_sizes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words
