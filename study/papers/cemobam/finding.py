"""The finding of a study about a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["confirmed", "equivalent", "undecided", "contradicted", "higher than published", "not tested"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The finding of a study about one claim.

    Attributes:
        verdict: The verdict.
        answer: One sentence that answers the claim about this study.
        numbers: The numbers behind the answer, in sentences.
        intervals: A sentence about the repetitions that tests and intervals describe. Empty if there are none.
    """

    verdict: Verdict
    answer: str
    numbers: tuple[str, ...] = ()
    intervals: str = ""


ONE_SEED = "One seed cannot show a difference: a test needs at least two seeds, and five to be useful."


def not_tested(answer: str, *numbers: str) -> Finding:
    """Return the finding about a claim that the study cannot test.

    Args:
        answer: The reason why the study cannot test it.
        *numbers: The numbers that the study has.
    """
    return Finding(verdict="not tested", answer=answer, numbers=numbers)
