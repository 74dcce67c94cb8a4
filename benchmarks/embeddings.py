"""The ranking of one modality for several kinds of embeddings: exact, in float64 alone, and approximate.

    python benchmarks/embeddings.py [UTTERANCES] [--kinds cone clusters …] [--sides exact float64 hnsw] [--rounds 3]
                                    [--features FEATURES.safetensors]

The number of candidates that the exact ranking must settle in float64 depends on the embeddings, and so does the recall
of the approximate index. Each kind has 768 numbers per utterance:

- random: independent random numbers.
- cone: random directions near a common one, as encoders often give.
- clusters: 200 clusters in a space of 24 dimensions.
- outliers: the cone, with five embeddings far from all others.
- tight: ten clusters of embeddings that are nearly equal.
- sentences: twelve different embeddings, each many times.
- audio, text: random numbers with the mean and the covariance of a modality of ``--features``.

The sides are ``exact`` and ``hnsw``, which ``--set index=`` chooses, and ``float64``: half of all similarities in
float64. Each measurement has a process of its own. The sides take turns in ``--rounds`` rounds, and the least time of
each counts. Exact and float64 must find the same neighbours. The memory is that of the ranking in addition to the
embeddings. A ratio is the CPU seconds of a side, divided by those of exact. The index is used for any number of
utterances here, although a study uses it among 100,000 or more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch
from ranking import K, figures_of, nearest_in_float64, with_costs
from torch import Generator, Tensor

from cemobam_core import FeatureSet, approximate
from cemobam_core.bfloat16 import is_fast
from cemobam_core.neighbours import Pooled, nearest, recall

WIDTH = 768


def random(n: int, of: Generator) -> Tensor:
    """Return independent random numbers."""
    return torch.randn(n, WIDTH, generator=of)


def cone(n: int, of: Generator) -> Tensor:
    """Return combinations of 60 random directions, near a common direction."""
    directions = torch.randn(60, WIDTH, generator=of).div(60**0.5)
    return (torch.randn(n, 60, generator=of) @ directions).add(2)


def clusters(n: int, of: Generator) -> Tensor:
    """Return 200 clusters in a space of 24 dimensions."""
    centres = torch.randn(200, 24, generator=of)[torch.randint(200, (n,), generator=of)]
    return (centres + 0.3 * torch.randn(n, 24, generator=of)) @ torch.randn(24, WIDTH, generator=of)


def outliers(n: int, of: Generator) -> Tensor:
    """Return the cone with five embeddings on the other side."""
    x = cone(n, of)
    x[:5] = -x[:5]
    return x


def tight(n: int, of: Generator) -> Tensor:
    """Return ten clusters whose embeddings differ by a thousandth."""
    centres = torch.randn(10, WIDTH, generator=of)[torch.randint(10, (n,), generator=of)]
    return centres + 1e-3 * torch.randn(n, WIDTH, generator=of)


def sentences(n: int, of: Generator) -> Tensor:
    """Return twelve different embeddings, each many times."""
    return torch.randn(12, WIDTH, generator=of)[torch.randint(12, (n,), generator=of)]


KINDS: dict[str, Callable[[int, Generator], Tensor]] = {
    one.__name__: one for one in (random, cone, clusters, outliers, tight, sentences)
}

REAL = ("audio", "text")
"""Kinds that are made from real features."""

SIDES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor | None]]] = {
    "exact": lambda x: nearest(x, K),
    "float64": lambda x: (nearest_in_float64(x, K), None),
    "hnsw": lambda x: nearest(x, K, index="hnsw"),
}
"""Functions of embeddings that return the neighbours of each, and their similarities if they are known."""


def like(path: Path, modality: str, n: int, of: Generator) -> Tensor:
    """Return random numbers with the mean and the covariance of a modality of real features."""
    real = FeatureSet.load(path)
    x: Tensor = getattr(Pooled.of(real.audio, real.text, real.audio_mask, real.text_mask), modality).float()
    _, spread, directions = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    drawn = torch.randn(n, len(spread), generator=of) @ (spread[:, None] * directions)
    return torch.add(x.mean(dim=0), drawn, alpha=len(x) ** -0.5)


def measure(side: str, x: Tensor) -> None:
    """Run one side in this process and print its figures."""
    approximate.LEAST = 0
    (chosen, nearness), costs = with_costs(lambda: SIDES[side](x))
    figures: dict[str, float | str] = {**costs}
    if side == "hnsw":
        assert nearness is not None
        figures["recall"] = recall(x, nearness)
    else:
        figures["neighbours"] = sha256(chosen.numpy().tobytes()).hexdigest()
    print(json.dumps(figures))


def main() -> None:
    """Print a row for each kind and side, or the figures of one side in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("utterances", nargs="?", type=int, default=14_000)
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, *REAL], default=list(KINDS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--features", type=Path, help="features for the kinds audio and text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if {*args.kinds} & {*REAL} and not args.features:
        parser.error(f"--kinds {' '.join(REAL)}: give the features with --features FEATURES.safetensors")
    if args.here:
        (kind,), (side,), of = args.kinds, args.sides, Generator().manual_seed(0)
        n = args.utterances
        measure(side, KINDS[kind](n, of) if kind in KINDS else like(args.features, kind, n, of))
        return
    print(f"{args.utterances:,} utterances, {torch.get_num_threads()} threads, bfloat16 is fast: {is_fast()}")
    print("| embeddings | side | CPU s | s | MB | recall | ratio |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    features = ["--features", str(args.features)] if args.features else []
    for kind in args.kinds:
        best: dict[str, dict[str, float]] = {}
        found = set()
        for _ in range(args.rounds):
            for side in args.sides:
                options = ["--kinds", kind, "--sides", side, *features, "--here"]
                one = figures_of(__file__, str(args.utterances), *options)
                found.add(one.pop("neighbours", None))
                best[side] = {name: min(value, best.get(side, one)[name]) for name, value in one.items()}
        assert len(found - {None}) < 2, f"{kind}: exact and float64 find different neighbours"
        for side, one in best.items():
            ratio = f"{one['cpu'] / best['exact']['cpu']:.2f}" if "exact" in best else ""
            share = f"{one['recall']:.1%}" if "recall" in one else ""
            print(
                f"| {kind} | {side} | {one['cpu']:.2f} | {one['seconds']:.2f} | {one['memory']:.0f} | {share} "
                f"| {ratio} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
