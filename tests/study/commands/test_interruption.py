"""The end of a command by a signal: once, without a traceback, and with nothing left behind."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from runs import ROOT, SMALL, alive, cemobam_here, ended, recorded, run_here, start, start_python, trials, until

from cemobam_core.files import written_atomically
from study.commands.interruption import interruptible, is_interruption

LONG = [*SMALL, "--seeds", "500", "--blocks", "grid"]
ONCE, TWICE, THRICE = ([name] * n for n, name in ((1, "SIGTERM"), (2, "SIGTERM"), (3, "SIGINT")))


def of_group(group: int) -> list[psutil.Process]:
    """Return the processes of a process group that run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and alive(process):
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def send(process: subprocess.Popen[str], names: list[str], *, group: bool, apart: float = 0.0) -> None:
    """Send signals to a run, or to its process group as a terminal does."""
    for name in names:
        try:
            (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
        except ProcessLookupError:  # it has ended already
            return
        time.sleep(apart)


def check_ended(process: subprocess.Popen[str], folder: Path) -> str:
    """Check that a run was interrupted without a traceback and left nothing behind, and return what it said."""
    _, err = ended(process, status=130)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    deadline = time.monotonic() + 2
    while (left := of_group(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [one.cmdline() for one in left] == []
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if ".part" in path.name or path.suffix == ".tmp"] == []
    assert [path for path in files if path.suffix in {".pdf", ".png", ".csv"} and not path.stat().st_size] == []
    return err


@pytest.mark.process
@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("names", "group", "apart"),
    [
        (TWICE, False, 0.0),
        (THRICE, True, 0.05),
        pytest.param(["SIGHUP"], True, 0.0, marks=pytest.mark.slow),
        pytest.param(ONCE, True, 0.0, marks=pytest.mark.slow),
        pytest.param(TWICE, True, 0.3, marks=pytest.mark.slow),
        pytest.param(["SIGHUP", "SIGTERM", "SIGINT", "SIGHUP"], True, 0.0, marks=pytest.mark.slow),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else str(value),
)
def test_signals_in_quick_succession_end_a_run_once(
    in_folder: Path, names: list[str], group: bool, apart: float
) -> None:
    process = start(*LONG, start_new_session=True)
    until(lambda: recorded() >= 3, "three trials are recorded", process)
    send(process, names, group=group, apart=apart)
    assert check_ended(process, in_folder).count("interrupted; finished trials are kept") == 1
    done = recorded()
    with written_atomically(Path("plots/demo/fusion.pdf")) as leftover:
        pass
    leftover.touch()  # as a run leaves it that is killed while it draws
    few = max(2, done // 4 + 1)
    out, _ = run_here(*SMALL, "--seeds", str(few), "--blocks", "grid")
    assert f"{4 * few} trials, {min(done, 4 * few)} done" in out
    assert len(trials()) == 4 * few
    assert not leftover.exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Return the results of a run that nobody interrupts, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("whole")
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ended(start(*SMALL, cwd=folder, env=environment))
    return folder / "results/demo", time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells which signals have a handler")
@pytest.mark.parametrize("seed", range(int(os.environ.get("MOMENTS", "4"))))
def test_at_random_moments_too(in_folder: Path, whole: tuple[Path, float], seed: int) -> None:
    lottery = random.Random(seed)
    names = lottery.choice([ONCE, TWICE, THRICE, ["SIGHUP"]])
    process = start(*SMALL, start_new_session=True)
    until(lambda: handles(process.pid, signal.SIGTERM), "it has begun", process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(lottery.random() * 0.8 * whole[1])
    send(process, names, group=True, apart=lottery.choice([0.0, 0.1]))
    check_ended(process, in_folder)
    run_here(*SMALL)
    pd.testing.assert_frame_equal(trials(), trials(str(whole[0])))


def handles(process: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    found = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), flags=re.MULTILINE)
    return bool(found and int(found[1], 16) >> (number - 1) & 1)


def interrupted_in(code: str, *, status: int = 130) -> str:
    """Run a command of this code that sends itself signals, and return what it says on standard error."""
    program = """
        import atexit, gc, os, signal, sys, threading, time
        from study import commands
        from study.commands import exit_status

        def press(number=signal.SIGINT):
            os.kill(os.getpid(), number)
            time.sleep(0)

        def run(words):
            try:
                CODE
            finally:
                print("ended in order", file=sys.stderr)

        commands._cemobam = run
        sys.exit(commands.cemobam())
    """
    code = textwrap.indent(textwrap.dedent(code), " " * 8).strip()
    return ended(start_python("-c", textwrap.dedent(program).replace("CODE", code)), status=status)[1]


SAID = "ended in order\ninterrupted; finished trials are kept: run the same command again to continue\n"


@pytest.mark.process
@pytest.mark.parametrize(
    "code",
    [
        "press()",
        "press(signal.SIGTERM); time.sleep(60)",
        """
        try:
            press()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) * 3: press(number)
        """,
        """
        class Lost:
            def __del__(self): press()
        lost = Lost()
        del lost  # an error here is only printed by Python
        time.sleep(60)
        """,
        """
        try:
            press()
        except BaseException:
            raise ImportError("as a library may say")
        """,
        """
        try:
            press()
        except:
            pass
        time.sleep(1.1)
        press()
        """,
        """
        atexit.register(press)
        atexit.register(press, signal.SIGTERM)
        press()
        """,
    ],
    ids=["ctrl-c", "kill", "again while it ends", "lost", "another error", "swallowed", "as Python ends"],
)
def test_whatever_the_program_does_then(code: str) -> None:
    assert interrupted_in(code) == SAID


@pytest.mark.process
def test_what_does_not_end_is_ended_by_a_later_signal() -> None:
    code = """
        from study.commands import interruption
        interruption._PATIENCE_S = 1
        try:
            press()
        finally:
            time.sleep(1.1)
            press()
            time.sleep(60)
        """
    assert interrupted_in(code) == ""


@pytest.mark.process
def test_a_signal_after_the_end_changes_nothing() -> None:
    assert interrupted_in("atexit.register(press, signal.SIGTERM); return 0", status=0) == "ended in order\n"


@pytest.mark.process
def test_without_a_terminal_it_ends_as_well() -> None:
    """As after a lost connection: nothing can be printed any more."""
    code = """
        reading, writing = os.pipe()
        os.close(reading)
        for number in (1, 2): os.dup2(writing, number)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        press(signal.SIGHUP)
        """
    assert interrupted_in(code) == ""


@pytest.mark.process
def test_signals_that_are_ignored_stay_ignored() -> None:
    ignored = [signal.SIGHUP, signal.SIGINT]
    command = "import os, signal, sys; [signal.signal(int(n), signal.SIG_IGN) for n in sys.argv[2:]]; "
    command += "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    inner = "import signal\nfrom study import commands\n"
    inner += f"commands._cemobam = lambda _: print([signal.getsignal(n) for n in {[*map(int, ignored)]}]) or 0\n"
    inner += "commands.cemobam()"
    out, _ = ended(start_python("-c", command, inner, *(str(int(number)) for number in ignored)))
    assert out.count("SIG_IGN") == 2


def test_in_another_program_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    hook = sys.unraisablehook
    with interruptible(to_the_end=False) as interruption:
        assert signal.getsignal(signal.SIGHUP) is interruption
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert sys.unraisablehook is hook
    assert cemobam_here("systems", status=0)[0]
    assert before[0] == signal.getsignal(signal.SIGINT)


def test_what_an_interruption_caused_is_one() -> None:
    def caused(first: BaseException) -> BaseException:
        try:
            try:
                raise first
            except BaseException:
                raise OSError(5, "the terminal is gone") from None
        except OSError as error:
            return error

    assert is_interruption(caused(KeyboardInterrupt()))
    assert not is_interruption(caused(ValueError()))
    assert not is_interruption(None)
