"""Seeds: which of them choose, which confirm, and after how many a study looks at its differences.

What is best on some seeds is partly their luck, so other seeds must say how good it is (choose, then confirm).
"""

from __future__ import annotations

from collections.abc import Sequence

LOOKS = (5, 10, 20)
"""How many seeds a configuration has at each look of a study that runs until its differences are clear."""

SPENT = (0.01, 0.02, 0.02)
"""Of the level of 0.05, what each look may spend: a false alarm at any of them is no likelier than their sum."""

MANY_SEEDS = 100
"""More seeds than these are not proposed."""


def fresh_seeds(choosing: Sequence[int], n: int) -> tuple[int, ...]:
    """Return the ``n`` seeds that follow the largest of those that choose."""
    first = max(choosing) + 1
    return tuple(range(first, first + n))


def more_seeds(seeds: Sequence[int], n: int) -> tuple[int, ...]:
    """Return the seeds cut or continued to ``n`` of them."""
    return (*seeds, *fresh_seeds(seeds, n))[:n]
