"""Every figure that a study can draw, by name; one kind a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure

from cemobam_core.config import FUSIONS, MODULES
from study.commands.arguments import DRAWINGS as SHOWN
from study.engines.models import load_embedding
from study.output.figures.confusion import confusion_figure
from study.output.figures.curves import curves_figure
from study.output.figures.embedding import embedding_figure
from study.output.figures.gaps import gaps_figure
from study.output.figures.marginal import marginal_figure
from study.output.figures.style import FORMS, plain, save
from study.output.figures.topk import topk_heatmap
from study.output.figures.variants import variants_figure
from study.output.tables import gaps_table
from study.papers.cemobam import published
from study.papers.cemobam.claims import LABELS

if TYPE_CHECKING:
    import pandas as pd

    from study.findings.evidence import Evidence

__all__ = ["DRAWINGS", "FORMS", "Drawing", "learning_curves", "save"]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure that can be drawn alone.

    Attributes:
        file: its name in the folder, without ending.
        draw: gives the figure, or says in words why it cannot be drawn yet.
        shows: what it shows, in a few words.
    """

    file: str
    draw: Callable[[Evidence], Figure | str]
    shows: str = ""


def _topk(evidence: Evidence, figure_of: Literal["mean", "std"] = "mean") -> Figure | str:
    about, grid = evidence.about, evidence.results.grid
    if "grid" not in evidence.blocks or grid.empty:
        return "no trial of the grid is done"
    if figure_of == "std" and (grid["n_seeds"] < 2).all():
        return "one seed has no standard deviation"
    return topk_heatmap(
        grid, about.at, title=plain(about.title), seeds=len(about.seeds), k_audio=about.k_audio, k_text=about.k_text,
        how=about.how, figure_of=figure_of,
    )  # fmt: skip


def _marginal(evidence: Evidence) -> Figure | str:
    scores = evidence.results.scores if "grid" in evidence.blocks else None
    if scores is None or scores.values["test_wa"][0].size < 2:
        return "the grid has no two pairs that are complete for a seed"
    return marginal_figure(scores, metric=evidence.analysis.metric, title=plain(evidence.about.title))


def _variants(evidence: Evidence, block: str) -> Figure | str:
    results, about = evidence.results, evidence.about
    fusion = block == "fusion"
    summary = results.fusion if fusion else results.ablation
    if block not in evidence.blocks or summary.empty:
        return f"no trial of the block {block} is done"
    key = "fusion" if fusion else "modules"
    return variants_figure(
        results.per_seed(results.fusion_trials if fusion else results.ablation_trials, [key]),
        summary,
        key,
        FUSIONS if fusion else MODULES,
        published=published("table1" if fusion else "table2", about.dataset),
        title=_where(evidence),
        seeds=len(about.seeds),
    )


def _curves(evidence: Evidence) -> Figure | str:
    panels = learning_curves(evidence)
    return panels if isinstance(panels, str) else curves_figure(panels, title=_where(evidence))


def learning_curves(evidence: Evidence) -> dict[str, dict[str, pd.DataFrame]] | str:
    """By block, then by the line's label, as :meth:`Evidence.curves` gives them; or why there are none yet."""
    pair = evidence.about.at
    if pair is None:
        return "no K pair is chosen yet"
    asked = {
        "grid": {f"K {pair}": evidence.done_trials(pair=pair)},
        "fusion": {LABELS[x]: evidence.done_trials(pair=pair, fusion=x) for x in FUSIONS},
        "ablation": {LABELS[x]: evidence.done_trials(pair=pair, modules=x) for x in MODULES},
    }
    panels = {
        block: lines
        for block, trials in asked.items()
        if block in evidence.blocks
        and (lines := {label: f for label, x in trials.items() if not (f := evidence.curves(x)).empty})
    }
    return panels or "no trial at the K pair is done"


def _confusion(evidence: Evidence) -> Figure | str:
    if evidence.about.at is None:
        return "no K pair is chosen yet"
    if (confusion := evidence.confusion()) is None:
        return "the ledger has no confusion matrix there: no trial is done, or they are from before it was kept"
    counts, trials = confusion
    return confusion_figure(counts, _class_names(evidence, len(counts)), title=_where(evidence), trials=trials)


def _embedding(evidence: Evidence) -> Figure | str:
    kept = evidence.model_folder()
    if kept is None:
        return "it takes a kept model: run with --keep-models best"
    trial, folder = kept
    if (embedding := load_embedding(folder)) is None:
        return f"{folder} has no embedding of the test split that can be used"
    vectors, labels = embedding
    names = _class_names(evidence, max(int(labels.max()) + 1, len(evidence.about.class_names)))
    title = f"{_where(evidence)}, seed {trial.seed}\nt-SNE of the fused embedding, test split"
    return embedding_figure(vectors.numpy(), labels.numpy(), names, title=title)


def _gaps(evidence: Evidence) -> Figure | str:
    trials = evidence.results.gaps_trials
    if "gaps" not in evidence.blocks or not (trials["status"] == "done").any():
        return "no trial of the block gaps is done"
    table = gaps_table(trials, caption="", seeds=len(evidence.about.seeds), folds=evidence.about.folds)
    return gaps_figure(table.frame, title=plain(evidence.about.title))


def _where(evidence: Evidence) -> str:
    """The data set and the pair."""
    pair = evidence.about.at
    assert pair
    return f"{plain(evidence.about.title)}, $K_{{audio}}$={pair.k_audio}, $K_{{text}}$={pair.k_text}"


def _class_names(evidence: Evidence, num_classes: int) -> list[str]:
    """The ledger's, or numbers where it has none."""
    names = evidence.about.class_names
    return [plain(name) for name in names] if len(names) == num_classes else [f"class {i}" for i in range(num_classes)]


_DRAWINGS = {
    "topk": Drawing(file="fig2_topk", draw=_topk),
    "topk-sd": Drawing(file="fig2_topk_sd", draw=lambda evidence: _topk(evidence, "std")),
    "marginal": Drawing(file="marginal", draw=_marginal),
    "fusion": Drawing(file="fusion", draw=lambda evidence: _variants(evidence, "fusion")),
    "ablation": Drawing(file="ablation", draw=lambda evidence: _variants(evidence, "ablation")),
    "curves": Drawing(file="curves", draw=_curves),
    "confusion": Drawing(file="confusion", draw=_confusion),
    "embedding": Drawing(file="embedding", draw=_embedding),
    "gaps": Drawing(file="gaps", draw=_gaps),
}

DRAWINGS = {name: replace(_DRAWINGS[name], shows=shows) for name, shows in SHOWN.items()}
"""By the name that ``cemobam figures --only`` takes."""
