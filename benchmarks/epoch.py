"""An epoch of training: the fast pass against the plain torch-geometric model.

    python benchmarks/epoch.py [--utterances 551 4407 13996] [--threads N] [--precision fp32 bf16] [--rounds 3]

Random features of the real shape (768 numbers a modality), K 8, 7, d = 512, the profile ``paper``. Each side runs in
a process of its own, the sides in turns, and each side's fastest epoch counts: what else the machine does in between
slows both. Prints both sides, the ratio, and the most memory each process held, features and torch included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Literal

import torch

from cemobam_core import Batch, CemoBAM, CemoBAMConfig, TopKGraph, fast
from cemobam_core.config import PRECISIONS
from cemobam_core.training.loop import train_epoch
from cemobam_core.training.memory import keep_freed_memory

Side = Literal["fast", "plain"]


def epochs(side: Side, n: int, precision: Literal["fp32", "bf16"]) -> dict[str, float]:
    """The fastest of a few epochs, in seconds, and this process's largest memory, in GB."""
    if side == "plain":
        fast.applies = lambda *_: False
    else:
        keep_freed_memory()
    torch.manual_seed(0)
    audio, text = torch.randn(n, 768), torch.randn(n, 768)
    batch = Batch(audio, text, torch.arange(n) % 4, TopKGraph.from_features(audio, text, 8).edge_index(8, 7))
    model = CemoBAM(CemoBAMConfig()).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4, fused=True)
    seconds = []
    for _ in range(4 if n < 2000 else 3):  # the first makes what is made once, and does not count
        start = time.perf_counter()
        train_epoch(model, batch, optimizer, precision)
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds[1:]), "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def apart(side: Side, n: int, precision: str, threads: int) -> dict[str, float]:
    """The same in a process of its own."""
    code = f"import torch, json, epoch; torch.set_num_threads({threads}); "
    code += f"print(json.dumps(epoch.epochs({side!r}, {n}, {precision!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=sys.path[0], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the {side} side failed at {n} utterances: {(done.stderr.splitlines() or ['killed'])[-1]}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Time both sides at each size and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, nargs="+", default=[551, 4407, 13996], metavar="N")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=[p for p in PRECISIONS if p != "tf32"])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each side is run (default: 3)")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {arguments.threads} threads")
    print(f"{'utterances':>10}  {'precision':<9}  {'plain':>15}  {'fast':>15}  ratio")
    for n in arguments.utterances:
        for precision in arguments.precision:
            rounds = [
                {side: apart(side, n, precision, arguments.threads) for side in ("plain", "fast")}
                for _ in range(arguments.rounds)
            ]
            best = {
                side: {what: min(r[side][what] for r in rounds) for what in ("seconds", "gb")}
                for side in ("plain", "fast")
            }
            cells = [f"{b['seconds']:6.2f} s {b['gb']:4.1f} GB" for b in (best["plain"], best["fast"])]
            ratio = best["plain"]["seconds"] / best["fast"]["seconds"]
            print(f"{n:>10}  {precision:<9}  {cells[0]:>15}  {cells[1]:>15}  {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
