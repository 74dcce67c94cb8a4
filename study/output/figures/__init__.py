"""Every figure that a study can draw, by name. Each kind of figure has a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from study.design.block import Block, shown
from study.design.tuning import DEFAULTS, TUNED
from study.engines.models import load_embedding
from study.findings.analysis import MEASURES
from study.findings.confusions import matrix_difference
from study.findings.errors import class_names, left_out, shown_groups
from study.findings.ranks import by_fold, ranked, why_not
from study.findings.results import plain_value
from study.findings.systems import contenders, measured_block
from study.findings.tuned import traces
from study.findings.wording import WHOSE
from study.output.figures import captions
from study.output.figures.calibration import calibration_figure
from study.output.figures.comparison import Dots, comparison_figure
from study.output.figures.confusion import confusion_figure
from study.output.figures.confusion_difference import Panel, confusion_difference_figure
from study.output.figures.critical import critical_figure
from study.output.figures.curves import curves_figure
from study.output.figures.embedding import embedding_figure
from study.output.figures.errors import errors_figure
from study.output.figures.marginal import marginal_figure
from study.output.figures.names import line_figure, names_figure
from study.output.figures.plane import FigureOf, plane_figure, plane_of
from study.output.figures.style import FORMS, Look, math_text, plain, save
from study.output.figures.tuning import tuning_figure
from study.papers.cemobam.published import published_systems
from study.papers.cemobam.systems import measured

if TYPE_CHECKING:
    from study.findings.evidence import Evidence
    from study.findings.results import AboutBlock, Results

__all__ = ["FORMS", "Drawing", "Look", "drawings", "learning_curves", "plane_of", "save"]

_FEW_OTHERS = 4
"""Largest number of others for which a block has differences of confusion matrices. More would fill pages."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure that can be drawn alone.

    Attributes:
        file: Name of the files, without the ending.
        draw: Function that returns the figure, or the reason why it cannot be drawn yet.
        title: Title of the figure, in a few words.
        caption: Text after the title: what the figure shows, the meaning of the marks, and how to read them.
    """

    file: str
    draw: Callable[[Evidence], Figure | str]
    title: str
    caption: str = ""

    @property
    def shows(self) -> str:
        """The title and the caption."""
        return captions.led(self.title, self.caption)


def drawings(evidence: Evidence) -> dict[str, Drawing]:
    """Return the figures of a study by name: each block's, then those of its own configuration."""
    made: dict[str, Drawing] = {}
    for name in (*evidence.blocks, *evidence.waiting):
        if (block := evidence.about.block(name)) and block.tunes:
            made["tuning"] = Drawing(
                file="tuning", draw=_tuning, title="Tuning on validation", caption=captions.tuning(evidence.about)
            )
            continue
        made |= _of_block(name, evidence.blocks.get(name), evidence.about.block(name), evidence)
    about = evidence.about
    if {TUNED, DEFAULTS} & set(evidence.blocks):
        made["comparison"] = Drawing(
            file="comparison", draw=_comparison, title="Systems under one protocol", caption=captions.comparison(about)
        )
        made["critical-difference"] = Drawing(
            file="critical_difference", draw=_critical, title="Systems ranked over folds", caption=captions.critical()
        )
    made["curves"] = Drawing(file="curves", draw=_curves, title="Learning curves", caption=captions.curves(about))
    made["confusion"] = Drawing(
        file="confusion",
        draw=_confusion,
        title="Confusion matrix",
        caption=captions.confusion(),
    )
    made["confusion-difference"] = Drawing(
        file="confusion_difference",
        draw=_confusion_difference,
        title="Differences of confusion matrices",
        caption=captions.confusion_difference(),
    )
    made["errors"] = Drawing(file="errors", draw=_errors, title="Recall by group", caption=captions.errors())
    made["calibration"] = Drawing(
        file="calibration",
        draw=_calibration,
        title="Calibration of the probabilities",
        caption=captions.calibration(),
    )
    made["embedding"] = Drawing(
        file="embedding",
        draw=_embedding,
        title="Map of the embedding",
        caption=captions.embedding(),
    )
    return made


def _of_block(name: str, block: Block | None, about: AboutBlock | None, evidence: Evidence) -> dict[str, Drawing]:
    if block is None or about is None:
        return {name: Drawing(file=name, draw=lambda _: "no K pair is chosen yet", title=name)}
    title, drawing, file = about.title, about.drawing, about.file
    if block.make_figure:
        draw: Callable[[Evidence], Figure | str] = partial(_made, block)
        return {drawing: Drawing(file=file, draw=draw, title=title, caption=block.caption)}
    if block.kind != "plane":
        caption = captions.of_configurations(
            about,
            joined=block.kind == "line",
            published=published_of(evidence, name) is not None,
            seeds=len(about.seeds),
        )
        return {drawing: Drawing(file=file, draw=partial(_configurations, name), title=title, caption=caption)}
    plane, deviation = plane_of(evidence.results, about), f"Standard deviation: {title}"
    made = {
        drawing: Drawing(file=file, draw=partial(_plane, name), title=title, caption=captions.of_plane(plane, "mean")),
        f"{drawing}-sd": Drawing(
            file=f"{file}_sd",
            draw=partial(_plane, name, figure_of="std"),
            title=deviation,
            caption=captions.of_plane(plane, "std"),
        ),
    }
    if block.chooses:
        scores = evidence.results.scores
        made["marginal"] = Drawing(
            file="marginal",
            draw=_marginal,
            title="Effect of each K on its own",
            caption=captions.marginal(evidence.about, scores.left_out if scores else ""),
        )
    return made


def _made(block: Block, evidence: Evidence) -> Figure | str:
    assert block.make_figure
    if not evidence.any_done(block.name):
        return f"no trial of the block {block.name} is done"
    figure: Figure = block.make_figure(evidence)
    return figure


def _plane(name: str, evidence: Evidence, figure_of: FigureOf = "mean") -> Figure | str:
    about, block, frame = evidence.about, evidence.about.block(name), evidence.results.block(name)
    if block is None or frame.empty:
        return f"no trial of the block {name} is done"
    if frame[list(block.columns)].isna().any(axis=None):
        return f"{about.system} has no such settings"
    if figure_of == "std" and (frame["n_seeds"] < 2).all():
        return "one seed has no standard deviation"
    plane = plane_of(evidence.results, block)
    return plane_figure(plane, title=_where(evidence, block), figure_of=figure_of)


def _tuning(evidence: Evidence) -> Figure | str:
    scores = {plain(of.block.tunes): of.scores for of in traces(evidence.results) if of.best is not None}
    if not scores:
        return "no configuration is done"
    return tuning_figure(scores, label=MEASURES[evidence.about.select_by], title=plain(evidence.about.title))


def _marginal(evidence: Evidence) -> Figure | str:
    scores = evidence.results.scores
    if scores is None or scores.values["test_wa"][0].size < 2:
        return "the grid has no two pairs that are complete for a seed"
    return marginal_figure(scores, metric=evidence.analysis.metric, title=plain(evidence.about.title))


def _configurations(name: str, evidence: Evidence) -> Figure | str:
    block = evidence.about.block(name)
    if block is None or evidence.results.block(name).empty:
        return f"no trial of the block {name} is done"
    keys, by_seed, summary = in_order(evidence.results, block)
    title = _where(evidence, block)
    if evidence.blocks[name].kind == "line":
        values, factor = [key[0] for key in keys], math_text(block.columns[0])
        return line_figure(by_seed, summary, values, factor=factor, title=title, seeds=len(block.seeds))
    return names_figure(
        by_seed,
        summary,
        list(map(plain, labels_of(evidence.results, block))),
        head=head_of(block),
        published=published_of(evidence, name),
        title=title,
        seeds=len(block.seeds),
    )


def head_of(block: AboutBlock) -> str:
    """Return the title of the names of a block's configurations. Empty if they need none."""
    if block.labels or block.columns in (("system",), ("profile",)):
        return ""
    return ", ".join(map(math_text, block.columns))


def labels_of(results: Results, block: AboutBlock) -> list[str]:
    """Return the names of a block's configurations in a figure."""
    of = zip(results.keys(block), results.marked(block), strict=True)
    return [block.brief(key) + (" (transductive)" if marked else "") for key, marked in of]


def in_order(
    results: Results, block: AboutBlock
) -> tuple[list[tuple[Any, ...]], dict[str, pd.DataFrame], pd.DataFrame]:
    """Return a block's configurations in its order: their values, their seeds by metric, and their means.

    Returns:
        The values in the block's columns. Frames by metric with a row per seed and a column per configuration. A frame
        with a row per configuration, with ``n_seeds`` and the figures, NaN where no seed is done.
    """
    keys, frame = results.keys(block), results.block(block.name)
    known = {
        tuple(map(plain_value, key)): i for i, key in enumerate(frame[list(block.columns)].itertuples(index=False))
    }
    summary = frame.reindex([known.get(key, -1) for key in keys]).reset_index(drop=True)
    return keys, {measure: results.by_seed(block, f"test_{measure}") for measure in results.measures}, summary


def published_of(evidence: Evidence, name: str) -> pd.DataFrame | None:
    """Return the scores of a block's configurations in a paper, in its order, in percent. `None` without scores."""
    read, block = evidence.blocks[name].published, evidence.about.block(name)
    theirs = read(evidence.about.in_papers) if read and block else None
    if theirs is None or block is None or theirs.empty:
        return None
    frame: pd.DataFrame = theirs.set_index(block.columns[0]).reindex([key[0] for key in evidence.results.keys(block)])
    return frame


def _comparison(evidence: Evidence) -> Figure | str:
    results, metric = evidence.results, evidence.analysis.metric
    block, systems = measured(evidence.analysis)
    done = [x for x in systems if x.figures]
    if block is None or not done:
        return "no trial of a block that compares systems is done"
    _, theirs = published_systems(evidence.about.in_papers)
    figures = dict(zip(theirs["runs_as"], theirs[metric], strict=True)) if metric in theirs else {}
    names = dict(zip(theirs["runs_as"], theirs["system"], strict=True))
    dots = []
    for x in done:
        by_seed = results.of_seeds(x.contender.row, f"test_{metric}")
        seeds = by_seed[by_seed.index.isin(block.seeds[: x.contender.n_seeds])]
        mean, low, high = (100 * x.figures.get(f"test_{metric}_{of}", float("nan")) for of in ("mean", "low", "high"))
        dots.append(
            Dots(
                name=names.get(x.contender.name, x.contender.told),
                seeds=tuple(100 * seeds),
                mean=mean,
                low=low,
                high=high,
                defaults=100 * x.defaults.get(metric, float("nan")),
                published=figures.get(x.contender.name, float("nan")),
                uses_graph=x.contender.uses_graph,
            )
        )
    return comparison_figure(dots, measure=results.measures[metric], title=_where(evidence, block))


def _critical(evidence: Evidence) -> Figure | str:
    results, metric = evidence.results, evidence.analysis.metric
    block = measured_block(results)
    if block is None:
        return "no trial of a block that compares systems is done"
    names = [x.told for x in contenders(results, block)]
    scores = by_fold(results, block, names, f"test_{metric}")
    if why := why_not(results.about.folds, scores.shape[1], "folds"):
        return why
    return critical_figure(ranked(scores), title=f"{_where(evidence, block)}, {results.measures[metric]}", of="folds")


def _curves(evidence: Evidence) -> Figure | str:
    panels = learning_curves(evidence)
    if isinstance(panels, str):
        return panels
    heads = {name: head_of(block) for name in panels if (block := evidence.about.block(name)) and not block.chooses}
    return curves_figure(panels, heads, title=_at_pair(evidence))


def learning_curves(evidence: Evidence) -> dict[str, dict[str, pd.DataFrame]] | str:
    """Return learning curves by block, then by label, or the reason why there are none yet.

    A plane has only the study's own configuration. Other blocks have all of theirs.
    """
    about = evidence.about
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    for name, of in evidence.blocks.items():
        block = about.block(name)
        if of.make_figure or block is None:
            continue
        if of.kind == "plane":
            pair = f"K {about.at}" if about.at else about.system
            lines = {pair if block.chooses else "the study's own": about.base}
        else:
            lines = {
                plain(block.brief(key)): row for key, row in zip(evidence.results.keys(block), block.rows, strict=True)
            }
        drawn = {
            label: f
            for label, row in lines.items()
            if not (f := evidence.curves(evidence.done_trials(row, block.seeds))).empty
        }
        if drawn and (of.kind != "plane" or about.base in block.rows):
            panels[name] = drawn
    return panels or nothing_to_draw(evidence)


def nothing_to_draw(evidence: Evidence) -> str:
    """Return the reason why the study's own configuration cannot be drawn."""
    return "no K pair is chosen yet" if evidence.waits_for_pair else "no trial of it is done"


def _confusion(evidence: Evidence) -> Figure | str:
    if (confusion := evidence.confusion()) is None:
        done = evidence.own_trials()
        return "no trial of the study's own configuration has a confusion matrix" if done else nothing_to_draw(evidence)
    counts, trials = confusion
    return confusion_figure(counts, _class_names(evidence, len(counts)), title=_at_pair(evidence), trials=trials)


def _confusion_difference(evidence: Evidence) -> Figure | str:
    made: list[Panel] = []
    for block in evidence.about.blocks:
        if not block.compared or not 1 < len(block.rows) <= _FEW_OTHERS + 1:
            continue
        keys, matrices = evidence.results.keys(block), [evidence.confusions(row, block.seeds) for row in block.rows]
        for other, key in enumerate(keys):
            if other != block.reference and (d := matrix_difference(matrices[block.reference], matrices[other])):
                made.append(Panel(plain(f"{block.told(keys[block.reference])} − {block.told(key)}"), d))
    if not made:
        return (
            f"no block compares its reference with at most {_FEW_OTHERS} others that have a confusion matrix and a "
            "seed in common with it"
        )
    names = _class_names(evidence, len(made[0].difference.points))
    panels = [panel for panel in made if len(panel.difference.points) == len(names)]
    return confusion_difference_figure(panels, names, title=_at_pair(evidence))


def _errors(evidence: Evidence) -> Figure | str:
    recalls = evidence.errors.recalls
    if not recalls:
        return without_predictions(evidence)
    classes = [one for one in recalls if one.by == "class"]
    overall = sum(one.mean * one.utterances for one in classes) / sum(one.utterances for one in classes)
    return errors_figure(
        shown_groups(recalls),
        overall=overall,
        over=WHOSE["utterances"],
        notes=left_out(recalls),
        title=_at_pair(evidence),
    )


def _calibration(evidence: Evidence) -> Figure | str:
    if evidence.results.kept is None or not evidence.own_trials():
        return without_predictions(evidence)
    if evidence.calibration is None:
        return (
            "it takes the probabilities of a seed on every fold: run with --keep-probabilities, under another --name, "
            "because done trials are not run again"
        )
    return calibration_figure(evidence.calibration, title=_at_pair(evidence))


def without_predictions(evidence: Evidence) -> str:
    """Return the reason why nothing is known about single utterances."""
    if not evidence.own_trials():
        return nothing_to_draw(evidence)
    if evidence.results.kept is None:
        return "its ledger is from before predictions were kept: run it under another --name"
    return "no seed of the study's own configuration has its predictions on every fold"


def _embedding(evidence: Evidence) -> Figure | str:
    kept = evidence.model_folder()
    if kept is None:
        return "it takes a kept model: run with --keep-models best"
    trial, folder = kept
    if (embedding := load_embedding(folder)) is None:
        return f"{folder} has no embedding of the test split that can be used"
    vectors, labels = embedding
    names = _class_names(evidence, max(int(labels.max()) + 1, len(evidence.about.class_names)))
    title = f"{_at_pair(evidence)}, seed {trial.seed}\nt-SNE of what the classifier sees, test split"
    return embedding_figure(vectors.numpy(), labels.numpy(), names, title=title)


def _where(evidence: Evidence, block: AboutBlock) -> str:
    """Return the data set, and the pair of a block that needs one."""
    return _at_pair(evidence) if block.needs_pair else plain(evidence.about.title)


def _at_pair(evidence: Evidence) -> str:
    """Return the data set and the pair, if the study has one."""
    pair, title = evidence.about.at, plain(evidence.about.title)
    if pair is None:
        return title
    return f"{title}, {math_text('k_audio')}={shown(pair.k_audio)}, {math_text('k_text')}={shown(pair.k_text)}"


def _class_names(evidence: Evidence, num_classes: int) -> list[str]:
    """Return the names of the classes in the ledger, or numbers if it has none."""
    return [plain(name) for name in class_names(evidence.about, num_classes)[:num_classes]]
