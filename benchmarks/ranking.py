"""The graphs of the whole K grid: ranked once and sliced, and the ranking compared with simpler ones.

    python benchmarks/ranking.py [UTTERANCES] [--alone]

Three rankings of artificial utterances with 768 numbers per modality:

- ours: half of the similarities in float32, and float64 only for the candidates.
- float64: half of the similarities in float64, from which the same neighbours follow.
- row by row: a script that builds a graph for each of the grid's 500 trials (100 pairs, five seeds). For every
  utterance it computes a row of cosine similarities, its top K and a set of edges. One graph is measured and multiplied
  by 500.

Each measurement has a process of its own. Ours and float64 take turns in three rounds, and the best of each counts. The
seconds of all cores together (CPU) depend less on other work on the machine. The memory is that of the ranking in
addition to the features. ``--alone`` measures ours once, for sizes at which the others take too long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from cemobam_core import TopKGraph

T = TypeVar("T")

SEEDS = 5
ROUNDS = 3
K = 10


def ours(audio: Tensor, text: Tensor) -> TopKGraph:
    """Rank both modalities."""
    return TopKGraph.from_features(audio, text, K)


def float64(audio: Tensor, text: Tensor) -> TopKGraph:
    """Rank both modalities from half of the matrix of similarities in float64."""
    return TopKGraph(*(nearest_in_float64(x, K) for x in (audio, text)))


def nearest_in_float64(x: Tensor, k: int) -> Tensor:
    """Return the ``k`` nearest other rows of each row, best first, (N, k)."""
    n = len(x)
    precedence = torch.arange(n - 1, -1, -1)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    best = torch.full((n, k), torch.iinfo(torch.int64).min)
    for rows in torch.arange(n).split(max(1, 2_000_000 // n)):
        first, beyond = int(rows[0]), int(rows[-1]) + 1
        similarity = unit[first:beyond] @ unit[first:].T
        similarity.diagonal().fill_(-2.0)
        keys = similarity.div_(2.0**-33).round_().to(torch.int64).mul_(n)
        _merge(best[first:beyond], keys + precedence[first:])
        _merge(best[beyond:], keys[:, beyond - first :].T + precedence[first:beyond])
    return n - 1 - best.remainder(n)


def _merge(best: Tensor, candidates: Tensor) -> None:
    k = best.shape[1]
    nearest = candidates.topk(min(k, candidates.shape[1]), dim=1).values
    best.copy_(torch.cat([best, nearest], dim=1).topk(k, dim=1).values)


def row_by_row(audio: Tensor, text: Tensor, k_audio: int = 8, k_text: int = 7) -> Tensor:
    """Build one graph, utterance by utterance."""
    edges = set()
    for x, k in ((audio, k_audio), (text, k_text)):
        unit = torch.nn.functional.normalize(x, dim=1)
        for i in range(len(x)):
            nearest = (unit @ unit[i]).topk(k + 1).indices.tolist()
            edges |= {(j, i) for j in nearest}
    return torch.tensor(sorted(edges)).T


SIDES: dict[str, Callable[[Tensor, Tensor], TopKGraph | Tensor]] = {
    "ours": ours,
    "float64": float64,
    "row by row": row_by_row,
}


def with_costs(rank: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Return what a function returns, and its seconds, its seconds of all cores (CPU) and its memory in MB."""
    before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    start = time.perf_counter()
    made = rank()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return made, {"seconds": seconds, "cpu": cpu, "memory": memory}


def figures_of(script: str, *options: str) -> dict[str, Any]:
    """Return the figures that a script prints as JSON in a process of its own."""
    done = subprocess.run([sys.executable, script, *options], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def measure(side: str, n: int) -> None:
    """Run one side in this process and print its figures."""
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(n, 768, generator=generator), torch.randn(n, 768, generator=generator)
    made, figures = with_costs(lambda: SIDES[side](audio, text))
    if isinstance(made, TopKGraph):
        start = time.perf_counter()
        for k_audio, k_text, _ in itertools.product(range(1, K + 1), range(1, K + 1), range(SEEDS)):
            made.edge_index(k_audio, k_text)
        figures |= {
            "sliced": time.perf_counter() - start,
            "edges": hash(tuple(made.edge_index(K, K).flatten().tolist())),
        }
    print(json.dumps(figures))


def compare(n: int, *, alone: bool) -> None:
    """Print the table for ``n`` utterances."""
    print(f"{n} utterances, {torch.get_num_threads()} threads", flush=True)
    rounds: dict[str, list[dict[str, float]]] = {"ours": [], "float64": []}
    for _ in range(1 if alone else ROUNDS):
        for side in ["ours"] if alone else rounds:
            rounds[side].append(figures_of(__file__, str(n), "--side", side))
            print(
                "  {:8}{seconds:8.2f} s, CPU {cpu:8.2f} s, {memory:.0f} MB".format(side, **rounds[side][-1]), flush=True
            )
    ours = min(rounds["ours"], key=lambda one: one["seconds"])
    graphs = ours["seconds"] + ours["sliced"]
    print(f"  ranked once and sliced 500 times  {graphs:8.2f} s")
    if alone:
        return
    theirs = min(rounds["float64"], key=lambda one: one["seconds"])
    assert ours["edges"] == theirs["edges"], "the two rankings differ"
    cpu = min(one["cpu"] for one in rounds["float64"]) / min(one["cpu"] for one in rounds["ours"])
    print(f"  float64 takes {theirs['seconds'] / ours['seconds']:.2f} times as long, and {cpu:.2f} times the CPU")
    built = 100 * SEEDS * figures_of(__file__, str(n), "--side", "row by row")["seconds"]
    print(f"  row by row, times 500             {built:8.2f} s, ratio {built / graphs:.0f}")


def main() -> None:
    """Measure all sides, or one in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("utterances", nargs="?", type=int, default=4407)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        measure(args.side, args.utterances)
    else:
        compare(args.utterances, alone=args.alone)


if __name__ == "__main__":
    main()
