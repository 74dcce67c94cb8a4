"""The graphs of the whole K grid: ranked once and sliced, compared with each graph built from scratch, row by row.

    python benchmarks/ranking.py [UTTERANCES]

The row-by-row side is a script that builds a graph for each of the grid's 500 trials (100 pairs, five seeds). For every
utterance it computes a row of cosine similarities, its top K and a set of edges. One graph is measured and multiplied
by 500. Prints both sides, their ratio, and the memory of the ranking in addition to the features.
"""

from __future__ import annotations

import itertools
import resource
import sys
import time

import torch

from cemobam_core import TopKGraph

SEEDS = 5


def row_by_row(audio: torch.Tensor, text: torch.Tensor, k_audio: int, k_text: int) -> torch.Tensor:
    """Build one graph, utterance by utterance."""
    edges = set()
    for x, k in ((audio, k_audio), (text, k_text)):
        unit = torch.nn.functional.normalize(x, dim=1)
        for i in range(len(x)):
            nearest = (unit @ unit[i]).topk(k + 1).indices.tolist()
            edges |= {(j, i) for j in nearest}
    return torch.tensor(sorted(edges)).T


def main(n: int) -> None:
    """Measure both sides for ``n`` utterances with 768 numbers per modality."""
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(n, 768, generator=generator), torch.randn(n, 768, generator=generator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    graph = TopKGraph.from_features(audio, text, 10)
    ranked = time.perf_counter() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    for k_audio, k_text, _ in itertools.product(range(1, 11), range(1, 11), range(SEEDS)):
        graph.edge_index(k_audio, k_text)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    row_by_row(audio, text, 8, 7)
    theirs = 100 * SEEDS * (time.perf_counter() - start)
    print(f"{n} utterances, {torch.get_num_threads()} threads")
    print(
        f"  ranked once and sliced 500 times  {ours:8.2f} s (the ranking {ranked:.2f} s, {memory:.0f} MB more memory)"
    )
    print(f"  row by row, one pair times 500    {theirs:8.2f} s")
    print(f"  ratio                             {theirs / ours:8.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4407)
