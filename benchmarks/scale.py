"""Time and memory against the number of utterances: the full batch, and mini-batches.

    python benchmarks/scale.py [--utterances 5000 15000 50000 150000] [--batch 4096] [--picture FILE.png]

Trains CemoBAM with the profile ``paper`` (d = 512, K 8, 7) on random features of realistic size (768 numbers per
modality). Each side runs in a process of its own, one after the other. Each utterance has fifteen neighbours among the
two hundred nearest in the file, because the neighbours of real utterances know each other too. Prints the seconds of a
training epoch and of an evaluation, and the peak memory of the process, features included. A side that would not fit
into the free memory is left out. The last lines fit a power of N to the times and a line to the memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cemobam_core import Batch, CemoBAM, Inputs, TrainingConfig
from cemobam_core.training.footprint import bytes_of_training
from cemobam_core.training.memory import keep_freed_memory
from cemobam_core.training.parts import Parts
from cemobam_core.training.step import measure, train_epoch, train_in_parts
from study.engines.memory import free_memory

_DEGREE, _NEAR = 15, 200

SIDES = ("full batch", "mini-batches")


def utterances(n: int) -> Batch:
    """Return ``n`` random utterances and their graph."""
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(n, 768, generator=generator), torch.randn(n, 768, generator=generator)
    target = torch.arange(n).repeat_interleave(_DEGREE)
    source = (target + torch.randint(1, _NEAR, target.shape, generator=generator)) % n
    loops = torch.arange(n).repeat(2, 1)
    edges = torch.cat([torch.stack([source, target]), loops], dim=1).unique(dim=1)
    return Batch(Inputs.from_features(audio, text, edges), torch.arange(n) % 4, 4)


def run(n: int, batch: int) -> dict[str, float]:
    """Return the seconds of an epoch and of an evaluation, and the peak memory of this process in GB."""
    keep_freed_memory()  # like the workers of a study
    whole = utterances(n)
    model = CemoBAM().build(whole.sizes).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4, fused=True)
    start = time.perf_counter()
    if batch:
        parts = Parts(whole, batch)
        next(parts.shuffled())  # cuts the graph
        cut, start = time.perf_counter() - start, time.perf_counter()
        train_in_parts(model, parts, optimizer)
    else:
        cut = 0.0
        train_epoch(model, whole, optimizer)
    trained, start = time.perf_counter() - start, time.perf_counter()
    measure(model, whole, at_once=batch)
    evaluated = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"clusters": cut, "epoch": trained, "evaluation": evaluated, "memory": peak}


def needed(n: int, batch: int) -> int:
    """Return the estimated memory of a side in bytes, features included."""
    training = TrainingConfig(batch=batch)
    return n * 2 * 768 * 4 + bytes_of_training(CemoBAM(), utterances(64), training, train=n, largest=n)


def compare(sizes: list[int], batch: int) -> pd.DataFrame:
    """Run both sides at all sizes, and print and return the measurements."""
    rows = []
    for n in sizes:
        for side in SIDES:
            own = batch if side == "mini-batches" else 0
            estimate = needed(n, own)
            row: dict[str, float | str] = {"utterances": n, "side": side, "estimated memory": estimate / 1e9 + 0.4}
            if estimate < free_memory():
                command = [sys.executable, __file__, "--utterances", str(n), "--batch", str(own), "--one"]
                row |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def fits(table: pd.DataFrame) -> list[str]:
    """Return a line for each side: how time and memory grow with N."""
    lines = []
    for side, rows in table.dropna(subset=["epoch"]).groupby("side"):
        n = rows["utterances"].to_numpy(float)
        if len(n) < 2:
            continue
        power = np.polyfit(np.log(n), np.log(rows["epoch"]), 1)[0]
        slope, rest = np.polyfit(n, rows["memory"], 1)
        lines.append(
            f"{side}: seconds an epoch grow as N^{power:.2f}, memory is {rest:.2f} GB + {1e6 * slope:.1f} kB · N"
        )
    return lines


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw time and memory against the number of utterances, both axes logarithmic."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
    for ax, what, unit in zip(axes, ("epoch", "memory"), ("seconds an epoch", "peak memory in GB"), strict=True):
        for side, marker in zip(SIDES, ("o", "s"), strict=True):
            rows = table[table["side"] == side].dropna(subset=[what])
            ax.plot(rows["utterances"], rows[what], marker=marker, label=side)
        ax.set(xscale="log", yscale="log", xlabel="utterances", ylabel=unit)
        ax.set_xticks(sorted(set(table["utterances"])), [f"{n:,}" for n in sorted(set(table["utterances"]))])
        low, high = ax.get_ylim()
        ticks = [d * 10.0**power for power in range(-3, 5) for d in (1, 2, 5)]
        ax.set_yticks(shown := [tick for tick in ticks if low <= tick <= high], [f"{tick:g}" for tick in shown])
        ax.minorticks_off()
        ax.grid(visible=True, alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print the table and the fits, and draw the picture if a file is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, nargs="+", default=[5000, 15000, 50000, 150000])
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--picture", type=Path, help="where to draw the figure")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args.utterances[0], args.batch)))
        return
    table = compare(args.utterances, args.batch)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, mini-batches of {args.batch}\n")
    print(table.to_markdown(index=False, floatfmt=".2f"), "\n", *fits(table), sep="\n")
    if args.picture:
        draw(table, args.picture)


if __name__ == "__main__":
    main()
