"""The truths built into the demo's data, and whether a study finds them.

The truths are described in :mod:`cemobam_core.corpora.synthetic`, which makes the data. A study that is right about the
demo finds each of them, as far as its seeds can show it, and finds nothing that is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cemobam_core.corpora.demo import DIALOGUE, MANNER
from study.design.factors import Pair
from study.findings.analysis import Analysis
from study.papers.cemobam.claims import Claim, Verdict

Outcome = Literal["found", "not shown", "wrong", "not tested"]

BEST_K_AUDIO = range(1, MANNER + 1)
"""The K_audio that are best on the demo: at most one more than an utterance's companions by audio."""

BEST_K_TEXT = range(DIALOGUE // 2, DIALOGUE + 2)
"""The K_text that are best on the demo: from half of an utterance's companions by text to two more than all of them."""

_FOUND: dict[Verdict, Outcome] = {"confirmed": "found", "undecided": "not shown", "not tested": "not tested"}
_FOUND_EQUAL: dict[Verdict, Outcome] = {**_FOUND, "confirmed": "wrong", "equivalent": "found"}


_IN_WORDS: dict[Outcome, str] = {
    "not shown": "left open, because its seeds cannot tell",
    "wrong": "answered wrongly",
    "not tested": "not tested",
}


@dataclass(frozen=True)
class Truth:
    """One truth about the demo's data and the finding of a study about it.

    Attributes:
        truth: The truth in one sentence.
        reason: The property of the data that makes it true.
        outcome: ``found``, ``not shown`` (the study leaves it open), ``wrong`` (the study says the opposite) or
            ``not tested`` (the study did not ask).
        finding: The finding of the study in one sentence.
    """

    truth: str
    reason: str
    outcome: Outcome
    finding: str


def truths(analysis: Analysis, claims: Iterable[Claim]) -> list[Truth]:
    """Return every truth about the demo with the finding of a study. Empty for other data.

    Args:
        analysis: Analysis of the study.
        claims: The paper's claims with the study's verdicts.
    """
    about = analysis.results.about
    if about.dataset != "demo":
        return []
    verdicts = {claim.id: claim.verdict for claim in claims}

    def of_claim(claim: str, name: str, outcomes: Mapping[Verdict, Outcome] = _FOUND) -> tuple[Outcome, str]:
        verdict = verdicts.get(claim, "not tested")
        return outcomes.get(verdict, "wrong"), f"The claim that {name}: {verdict}."

    return [
        Truth(
            "The graph helps.",
            "The words of one utterance tell its valence only faintly. Its companions share its valence.",
            *of_claim("chgat_needed", "CH-GAT is needed"),
        ),
        Truth(
            "The utterance itself is needed beside its neighbours.",
            "Its voice alone tells its arousal. Its companions have an arousal of their own.",
            *of_claim("xcbam_needed", "xCBAM is needed"),
        ),
        Truth(
            "The fusion does not matter.",
            "Both streams of the cross-modal attention hold valence and arousal.",
            *of_claim("min_wins", "MIN is the best fusion", _FOUND_EQUAL),
        ),
        Truth(
            "The number of neighbours matters, by audio and by text.",
            "Too small a K leaves companions out. Too large a K adds utterances of any valence.",
            *of_claim("k_matters", "K matters"),
        ),
        Truth(
            f"The best pairs have K_audio {_span(BEST_K_AUDIO)} and K_text {_span(BEST_K_TEXT)}.",
            f"An utterance has {MANNER - 1} companions by audio and {DIALOGUE - 1} by text.",
            *_of_pair(None if about.given else about.at),
        ),
    ]


def recovered(found: Sequence[Truth]) -> str:
    """Return a sentence about the number of truths that a study finds.

    Args:
        found: The truths with the study's findings.
    """
    counts = Counter(truth.outcome for truth in found)
    rest = [f"{counts[outcome]} {words}" for outcome, words in _IN_WORDS.items() if counts[outcome]]
    said = f"The study finds {counts['found']} of the {len(found)} truths about the demo"
    return f"{said}; {', '.join(rest)}." if rest else f"{said} and claims nothing that is not true."


def _of_pair(pair: Pair | None) -> tuple[Outcome, str]:
    """Return whether the pair that validation chose is among the best. `None` means that the study chose none."""
    if pair is None:
        return "not tested", "The study chose no pair."
    inside = pair.k_audio in BEST_K_AUDIO and pair.k_text in BEST_K_TEXT
    return "found" if inside else "wrong", f"Validation chose K {pair}."


def _span(values: range) -> str:
    return f"{values[0]} to {values[-1]}"
