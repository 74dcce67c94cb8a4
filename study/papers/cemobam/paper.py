"""The paper's own study as a study file: the K grid, the fusion strategies and the ablation."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from cemobam_core.systems.search import Value
from study.design.block import Block
from study.design.factors import PAIR, Factor, Pair

FUSIONS = ("cls", "min", "max", "mean")
MODULES = ("full", "no_xcbam", "no_chgat")

PROFILE_NAMES = ("paper", "released")

LABELS = {
    **{"cls": "CLS", "min": "MIN", "max": "MAX", "mean": "MEAN"},
    **{"full": "CemoBAM", "no_xcbam": "w/o xCBAM", "no_chgat": "w/o CH-GAT"},
}

Choice = dict[str, Value]

GAPS: dict[str, tuple[Choice, Choice]] = {
    "graph direction": ({"gather_from": "chosen"}, {"gather_from": "choosers"}),
    "last GAT layer": ({"gat_last": "averaged"}, {"gat_last": "single"}),
    "GAT batch norm": ({"gat_norm": "own"}, {"gat_norm": "shared"}),
    "first GAT dropout": ({"gat_first_dropout": True}, {"gat_first_dropout": False}),
    "stream output": ({"stream_output": "residual"}, {"stream_output": "linear_residual_dropout"}),
    "channel gate": ({"channel_gate": "sigmoid_of_sum"}, {"channel_gate": "sum_of_sigmoids"}),
    "spatial axis": ({"spatial_axis": "time"}, {"spatial_axis": "channels"}),
    "training mode": ({"train_mode": "every_epoch"}, {"train_mode": "first_epoch"}),
    "schedule": (
        {"schedule": "step", "lr_gamma": 0.1, "lr_patience": 15},
        {"schedule": "plateau", "lr_gamma": 0.5, "lr_patience": 15},
    ),
    "evaluation statistics": ({"batch_norm": "settled"}, {"batch_norm": "running"}),
}
"""The differences between the paper's text and the released code: the paper's choice, then the code's."""


def _at_use(name: str) -> Callable[..., Any]:
    """Return a function of :mod:`study.papers.cemobam.gaps` that imports the module at its first call."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module("study.papers.cemobam.gaps"), name)(*arguments)

    return call


def _published(name: str) -> Callable[[str], Any]:
    """Return a function that reads a table of the paper for a data set."""

    def read(dataset: str) -> Any:
        from study.papers.cemobam.published import published  # noqa: PLC0415  (imports pandas)

        return published(name, dataset)

    return read


def _switched(start: str, other: int) -> dict[str, Choice]:
    """Return one profile with the other's choice in one gap, for every gap."""
    return {f"{start}+{gap}": {"profile": start, **choices[other]} for gap, choices in GAPS.items()}


grid = Block(
    "grid",
    question="How many neighbours should an utterance have, by audio and by text?",
    title="The K grid (Fig. 2)",
    factors=(Factor("k_audio", range(1, 11)), Factor("k_text", range(1, 11))),
    chooses=True,
    drawing="topk",
    file="fig2_topk",
)


def confirm(profile: str, pair: Pair | None) -> Block:
    """Return the block that measures the chosen pair with fresh seeds, beside the paper's pair if there is one.

    Args:
        profile: The study's profile, which names its own configuration.
        pair: The pair that the paper reports as best on the data set. `None` if it reports none.
    """
    paper_s: dict[str, Choice] = {"the paper's pair": {name: getattr(pair, name) for name in PAIR}} if pair else {}
    return Block(
        "confirm",
        question=f"Is the chosen pair better than {pair}, the paper's?"
        if pair
        else "Does the chosen pair keep its score with fresh seeds?",
        title="The chosen pair with fresh seeds",
        configurations={profile: {}, **paper_s},
        reference=profile,
        labels={profile: "the chosen pair"},
        after_choice=True,
    )


fusion = Block(
    "fusion",
    question="How should the two cross-modal streams be fused?",
    title="Fusion strategies",
    factors=(Factor("fusion", FUSIONS),),
    reference="min",
    labels=LABELS,
    table="table1",
    published=_published("table1"),
    after_choice=True,
)

ablation = Block(
    "ablation",
    question="Are both modules needed?",
    title="Ablation",
    factors=(Factor("modules", MODULES),),
    reference="full",
    labels=LABELS,
    table="table2",
    published=_published("table2"),
    after_choice=True,
)

gaps = Block(
    "gaps",
    question="What does each difference between the paper's text and the released code cost?",
    title="Differences between the paper's text and the released code",
    configurations={
        "paper": {"profile": "paper"},
        "released": {"profile": "released"},
        **_switched("paper", 1),
        **_switched("released", 0),
    },
    reference="paper",
    make_table=_at_use("table"),
    make_figure=_at_use("figure"),
    make_page=_at_use("page"),
    caption="Each mark is the difference on the test split in percentage points, with its 95% interval, after one "
    "choice is switched from the paper's text to the released code (left) or from the code to the text (right). A "
    "choice matters if its interval excludes 0.",
    after_choice=True,
)

evaluation = Block(
    "evaluation",
    question="How much does the graph at evaluation matter?",
    title="The graph at evaluation",
    configurations={
        "own, the whole split": {"evaluation_graph": "own", "evaluation_size": 0},
        "own, parts of 60": {"evaluation_graph": "own", "evaluation_size": 60},
        "own, parts of 20": {"evaluation_graph": "own", "evaluation_size": 20},
        "anchored in train": {"evaluation_graph": "anchored", "evaluation_size": 0},
        "joint with train (transductive)": {"evaluation_graph": "joint", "evaluation_size": 0},
    },
    reference="own, the whole split",
    after_choice=True,
)

blocks = [grid, fusion, ablation]
"""The paper's own study."""

optional = [gaps, evaluation]
"""Blocks that run only if ``--blocks`` names them."""
