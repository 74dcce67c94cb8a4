"""The time of the whole demo study, and of one trial with the plain torch-geometric network and with ours.

    python benchmarks/demo.py [TRIALS]

Runs ``run_grid.py`` on the demo in a temporary folder and measures the time from the start of the command to the last
figure. Then trains the same TRIALS trials (10 by default) with each network, one after another on one thread. Each
network runs in a separate process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent

_ALONE = """
import sys, time, torch
torch.set_num_threads(1)
from cemobam_core.corpora.synthetic import demo_fold
from cemobam_core.systems.cemobam import CemoBAM
from cemobam_core.training.memory import keep_freed_memory
from study.design.design import ANY_PAIR, Design
from study.engines.execution import StudyData, execute
from study.papers.cemobam import paper
if sys.argv[1] == "plain":
    from epoch import Plain
    build = CemoBAM.build
    CemoBAM.build = lambda system, sizes: Plain(build(system, sizes))
else:
    keep_freed_memory()
trials = Design(blocks={"grid": paper.grid}).trials("grid", ANY_PAIR)
trials = trials[:: len(trials) // int(sys.argv[2])][: int(sys.argv[2])]
data = StudyData.prepare((demo_fold(),), 10)
execute((trials[0],), data, "cpu")
start = time.perf_counter()
for trial in trials:
    execute((trial,), data, "cpu")
print((time.perf_counter() - start) / len(trials))
"""


def alone(side: str, trials: int) -> float:
    """Return the seconds per trial of one network."""
    command = [sys.executable, "-c", _ALONE, side, str(trials)]
    done = subprocess.run(command, cwd=_ROOT / "benchmarks", capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(trials: int) -> None:
    """Print the time of the study, and of a trial with each network."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, str(_ROOT / "run_grid.py")], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        print(f"the demo study: {time.perf_counter() - start:.1f} s")
    plain, fast = alone("plain", trials), alone("fast", trials)
    print(f"one trial: plain {plain:.3f} s, fast {fast:.3f} s, ratio {plain / fast:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
