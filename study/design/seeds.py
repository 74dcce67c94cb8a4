"""Seeds: those that choose, those that confirm, and the numbers of seeds after which a study looks at its differences.

A configuration that is best on some seeds was partly lucky. Other seeds must therefore measure how good it is: first
choose, then confirm.
"""

from __future__ import annotations

from collections.abc import Sequence

LOOKS = (5, 10, 20)
"""Number of seeds of a configuration at each look, in a study that runs until its differences are clear."""

SPENT = (0.01, 0.02, 0.02)
"""Share of the level of 0.05 that each look may spend. The chance of a false alarm at any look is at most their sum."""

MANY_SEEDS = 100
"""Largest number of seeds that the report proposes."""


def fresh_seeds(choosing: Sequence[int], n: int) -> tuple[int, ...]:
    """Return the ``n`` seeds that follow the largest of the choosing seeds."""
    first = max(choosing) + 1
    return tuple(range(first, first + n))


def more_seeds(seeds: Sequence[int], n: int) -> tuple[int, ...]:
    """Return ``n`` seeds: the given ones, cut or continued."""
    return (*seeds, *fresh_seeds(seeds, n))[:n]
