from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import torch

from cemobam_core import InputError, Sizes
from cemobam_core.systems import tryout
from cemobam_core.systems.tryout import try_system

ROOT = Path(__file__).resolve().parents[3]
SIZES = Sizes(audio_dim=10, text_dim=6, num_classes=4)

HEAD = """\
import ctypes, os, subprocess, sys, threading, time
from dataclasses import dataclass
import torch
from torch import nn
from cemobam_core import EstimatorSystem, InputError, NeuralSystem
"""


def neural(
    forward: str = "return self.layer(inputs.audio.pooled)", build: str = "return Net(sizes)", init: str = ""
) -> str:
    return f"""
@dataclass(frozen=True)
class M(NeuralSystem):
    width: int = 1
    def build(self, sizes):
        {build}

class Net(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layer = nn.Linear(sizes.audio_dim, sizes.num_classes)
        {init}
    def forward(self, inputs):
        {forward}
"""


def estimator(build: str) -> str:
    return f"""
@dataclass(frozen=True)
class M(EstimatorSystem):
    def build(self, sizes, seed):
        {build}
"""


BUILD, INIT, FORWARD = 11, 17, 19
"""Numbers of the lines, after the head and the lines under test."""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cemobam_core.systems.tryout._START_S", 600.0)  # a busy machine

    def write(text: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return write


def tried(patience_s: float = 120.0, *, sequence: bool = False) -> str:
    """Return the error message, or an empty string if the system works."""
    try:
        try_system("mine.py:M", sizes=SIZES, sequence=sequence, patience_s=patience_s)
    except InputError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def tried_here(name: str = "mine.py:M", *, sequence: bool = False, **settings: object) -> tuple[str, list[str]]:
    """Return the error and the notes of the test, without starting a process."""
    request = tryout._Request(name, settings, asdict(SIZES), sequence, 120.0)
    found = tryout._Tryout(request, Path("stage"))
    try:
        found.run()
    except InputError as error:
        assert "\n" not in str(error)
        return str(error), found.notes
    return "", found.notes


@pytest.mark.process
@pytest.mark.parametrize("sequence", [False, True])
def test_a_system_that_works_is_silent_whatever_it_prints(
    sequence: bool, write: Callable[[str], Path], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = 'print("{\\"error\\": \\"no\\"}"); print("oh", file=sys.stderr); os.write(1, b"x")\n'
    write(HEAD + noise + neural(init="print('built')"))
    assert tried(sequence=sequence) == ""
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_built_in_system_is_not_tried() -> None:
    before = time.monotonic()
    try_system("cemobam", sizes=SIZES, sequence=False)
    assert time.monotonic() - before < 0.1


FORWARD_CALLED = "while its forward is called for audio (24, 1, 10) and text (24, 1, 6)"

WRONG: dict[str, tuple[str, str]] = {
    "import": ("import no_such_module\n", "mine.py, line 6: module no_such_module is missing: install it"),
    "no such class": (neural().replace("class M(", "class My("), "mine.py: it has no system 'M'; its system is My"),
    "late import": (neural(build="import no_such_module"), f"mine.py:M, line {BUILD}: module no_such_module is"),
    "no return": (
        neural(build="Net(sizes)"),
        "build returns a NoneType; it must return a torch.nn.Module; is a return",
    ),
    "no module": (
        neural(build="return len"),
        "build returns a builtin_function_or_method; it must return a torch.nn.M",
    ),
    "no weights": (neural("return inputs.audio.pooled[:, :4]", init="del self.layer"), "its module has no weights"),
    "shared weights": (
        "L = nn.Linear(10, 4)\n" + neural(init="self.layer = L"),
        "build returns models that share a weight; create every layer inside build",
    ),
    "own refusal": (
        neural(build="raise InputError('width is too small')"),
        f"mine.py:M, line {BUILD}: width is too small",
    ),
    "shape mismatch": (
        neural("return self.layer(inputs.text.pooled)"),
        f"mine.py:M, line {FORWARD}: RuntimeError: mat1 and mat2 shapes cannot be multiplied (24x6 and 10x4), "
        f"{FORWARD_CALLED}",
    ),
    "three dimensions": (
        neural("return self.layer(inputs.audio)"),
        "forward returns torch.float32 (24, 1, 4); it must",
    ),
    "a tuple": (neural("return (1, 2)"), "forward returns tuple; it must return floating-point logits (24, 4)"),
    "labels": (neural("return self.layer(inputs.audio.pooled).argmax(1)"), "forward returns torch.int64 (24,)"),
    "NaN": (neural("return self.layer(inputs.audio.pooled) * float('nan')"), "forward returns NaN or infinite logits"),
    "detached": (neural("return self.layer(inputs.audio.pooled).detach()"), "none of its weights can learn"),
    "sys.exit": (neural("sys.exit(3)"), f"mine.py:M, line {FORWARD}: it ends the program"),
    "24 utterances": (
        neural("return self.layer(inputs.audio.pooled.view(24, 10))"),
        f"mine.py:M, line {FORWARD}: RuntimeError: shape '[24, 10]' is invalid for input of size 210, while it is",
    ),
    "the default type": (
        "torch.set_default_dtype(torch.float64)\n" + neural(),
        "mine.py:M: it changes torch's default dtype or device for every other system, while it is imported",
    ),
    "inputs changed in place": (
        neural("x = inputs.audio.pooled; x /= 2; return self.layer(x)"),
        "mine.py:M: it changes its inputs in place, but other systems get the same inputs; write x = x / y",
    ),
    "a graph in spite of uses_graph": (
        neural(
            "x = inputs.audio.pooled; i = inputs.edge_index\n        return self.layer(x.index_add(0, i[1], x[i[0]]))"
        ).replace("    width", "    uses_graph = False\n    width"),
        "it uses inputs.edge_index, but declares uses_graph = False; remove that line",
    ),
    "no probabilities": (
        estimator("from sklearn.linear_model import Ridge; return Ridge()"),
        "mine.py:M: build returns a Ridge, which has no predict_proba; it must return an estimator with fit and",
    ),
    "fit": (
        estimator("from sklearn.linear_model import LogisticRegression; return LogisticRegression(C=-1)"),
        "The 'C' parameter of LogisticRegression must be",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_fault_is_one_line_with_place_and_cause(case: str, write: Callable[[str], Path]) -> None:
    text, message = WRONG[case]
    write(HEAD + text)
    before = torch.get_default_dtype()
    try:
        told, notes = tried_here()
    finally:
        torch.set_default_dtype(before)
    assert message in told
    assert told.startswith("mine.py")
    assert notes == []


ENDED = {
    "an exception": (
        neural("raise KeyError('oh')"),
        f"mine.py:M, line {FORWARD}: KeyError: 'oh', {FORWARD_CALLED}",
    ),
    "os._exit": (neural(build="os._exit(0)"), "mine.py:M: ended Python with exit status 0 (os._exit?), while it is"),
    "killed": (neural("os.kill(os.getpid(), 9)"), "mine.py:M: crashed Python (SIGKILL, out of memory?), while its"),
    "segmentation fault": (
        neural("ctypes.string_at(0)"),
        f"mine.py:M, line {FORWARD}: crashed Python (SIGSEGV), {FORWARD_CALLED}",
    ),
    "last words": (
        neural(build="print('no more'); print('the end', file=sys.stderr); os._exit(4)"),
        "exit status 4 (os._exit?), while it is built; its last output: the end",
    ),
}


@pytest.mark.process
@pytest.mark.parametrize("case", ENDED)
def test_whatever_ends_the_process_is_told(case: str, write: Callable[[str], Path]) -> None:
    text, message = ENDED[case]
    write(HEAD + text)
    told = tried()
    assert message in told
    assert told.startswith("mine.py")


@pytest.mark.process
@pytest.mark.parametrize(
    ("text", "line", "stage"),
    [
        pytest.param("time.sleep(1000)\n" + neural(), 6, "it is imported", marks=pytest.mark.slow),
        pytest.param(neural(build="threading.Event().wait()"), BUILD, "it is built", marks=pytest.mark.slow),
        (neural("while True: pass"), FORWARD, "its forward is called for audio (24, 7, 10) and text (24, 5, 6)"),
    ],
    ids=["import", "build", "forward"],
)
def test_a_system_that_hangs_is_ended_and_its_line_told(
    text: str, line: int, stage: str, write: Callable[[str], Path]
) -> None:
    write(HEAD + text)
    assert tried(3.0, sequence=True) == (
        f"mine.py:M, line {line}: did not answer within 3 s, while {stage}; does its import, build or forward wait for "
        "something?"
    )


@pytest.mark.process
def test_a_process_that_does_not_even_start_is_ended(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(HEAD + neural())
    monkeypatch.setattr("cemobam_core.systems.tryout._START_S", 0.0)
    assert tried(0.01).startswith("mine.py:M: did not answer within 0.01 s, while Python started; does")


@pytest.mark.process
def test_what_a_system_started_ends_with_it(write: Callable[[str], Path]) -> None:
    write(HEAD + neural(build="subprocess.Popen(['sleep', '987.25']); os._exit(1)"))
    assert "exit status 1" in tried()
    deadline = time.monotonic() + 10
    while any(process.info["cmdline"] == ["sleep", "987.25"] for process in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 3}, ""),
        ({"widht": 3}, "mine.py:M: it has no field widht; its fields are width; did you mean width?"),
        ({"width": 0}, "mine.py:M: width=0 must be a whole number of at least 1"),
        ({"width": "3"}, "mine.py:M: width='3' must be a whole number of at least 1"),
    ],
)
def test_settings_are_those_of_the_study(
    settings: dict[str, object], message: str, write: Callable[[str], Path]
) -> None:
    write(HEAD + neural(build="assert self.width == 3; return Net(sizes)").replace("width: int = 1", "width: int = 2"))
    assert tried_here(**settings) == (message, [])


@pytest.mark.parametrize(
    ("text", "sequence", "note"),
    [
        (
            neural("return nn.functional.dropout(self.layer(inputs.audio.pooled))"),
            False,
            "in evaluation mode its logits change",
        ),
        (neural("return self.layer(inputs.audio.mean(dim=1))"), True, "its logits change with the padding"),
        (neural(init="torch.manual_seed(0); self.layer = nn.Linear(10, 4)"), False, "every seed starts with the same"),
        (
            neural(init="self.layer.weight.data += time.perf_counter_ns() % 1e6"),
            False,
            "the same seed gives different weights",
        ),
    ],
    ids=["evaluation", "padding", "seed", "weights"],
)
def test_what_makes_results_doubtful_is_noted(
    text: str, sequence: bool, note: str, write: Callable[[str], Path]
) -> None:
    write(HEAD + text)
    error, (found,) = tried_here(sequence=sequence)
    assert error == ""
    assert found.startswith(f"mine.py:M: {note}")


@pytest.mark.process
def test_a_note_is_logged_as_a_warning(write: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    write(HEAD + neural(init="torch.manual_seed(0); self.layer = nn.Linear(10, 4)"))
    with caplog.at_level(logging.WARNING):
        assert tried() == ""
    assert [record.message for record in caplog.records] == [
        "mine.py:M: every seed starts with the same weights; do not set a seed in the system"
    ]


@pytest.mark.process
def test_settings_reach_the_process(write: Callable[[str], Path]) -> None:
    write(HEAD + neural(build="raise InputError(f'{self.width} {sizes.audio_dim}')"))
    with pytest.raises(InputError, match=f"mine.py:M, line {BUILD}: 3 10"):
        try_system("mine.py:M", {"width": 3}, sizes=SIZES, sequence=False)


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("name", ["MyModel", "MyGRU", "MyForest"])
def test_the_examples_of_the_page_work(name: str, sequence: bool, write: Callable[[str], Path]) -> None:
    page = (ROOT / "docs" / "model.md").read_text()
    write("\n".join(re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)))
    assert tried_here(f"mine.py:{name}", sequence=sequence) == ("", [])
