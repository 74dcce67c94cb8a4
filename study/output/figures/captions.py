"""Captions of one to three sentences: the content of a figure, the meaning of its marks, and how to read it.

Each caption follows the title of its figure.
"""

from __future__ import annotations

from collections.abc import Mapping

from study.design.block import shown
from study.design.factors import displayed
from study.findings.analysis import MEASURES
from study.findings.calibration import BINS
from study.findings.results import About, AboutBlock
from study.findings.statistics import SEEDS_FOR_INTERVAL
from study.findings.wording import WHOSE, cut, listed, seeds_in_words
from study.output.figures.plane import FigureOf, Plane


def led(title: str, caption: str) -> str:
    """Return a caption that starts with a title."""
    return _joined(title if title.endswith(("?", ".", "!")) else f"{title}.", caption)


def _joined(*sentences: str) -> str:
    """Return the sentences that are not empty as a paragraph."""
    return " ".join(filter(None, sentences))


def of_plane(plane: Plane, figure_of: FigureOf) -> str:
    """Return the caption of a heatmap over two factors.

    Args:
        plane: Plane that is drawn.
        figure_of: ``mean`` over seeds, or ``std`` for the standard deviation.
    """
    x, y = map(displayed, plane.columns)
    over = seeds_in_words(plane.seeds)
    score = (
        f"mean score on the test split in percent over {over}"
        if figure_of == "mean"
        else f"standard deviation of the score on the test split over {over}, in percentage points"
    )
    marks = []
    if plane.chosen and plane.has(plane.chosen):
        marks.append(f"the solid red frame marks the pair {_cell(plane, plane.chosen)} ({plane.how})")
    if plane.paper and plane.has(plane.paper):
        marks.append(f"the dashed frame marks the best pair of the paper ({_cell(plane, plane.paper)})")
    if figure_of == "mean":
        marks.append("the star marks the highest mean of each panel")
    outside = (
        f"The best pair of the paper ({_cell(plane, plane.paper)}) is not on this grid."
        if plane.paper and not plane.has(plane.paper)
        else ""
    )
    shows = f"Each cell is the {score}, by {x} (across) and {y} (upwards), with one colour scale for all panels."
    return _joined(shows, _sentence(marks), outside)


def _sentence(parts: list[str]) -> str:
    """Return clauses as one sentence. Empty if there are none."""
    said = listed(list(filter(None, parts))) if any(parts) else ""
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _cell(plane: Plane, cell: tuple[float, float]) -> str:
    return ", ".join(f"{displayed(name)} {shown(x)}" for name, x in zip(plane.columns, cell, strict=True))


def marginal(about: About, left_out: str) -> str:
    """Return the caption of the marginal effects.

    Args:
        about: Description of the study.
        left_out: Description of the pairs and seeds that are left out. Empty if there are none.
    """
    marks = [
        "grey dots are single seeds" if len(about.seeds) > 1 else "",
        "bars are 95% intervals (another seed)" if len(about.seeds) >= SEEDS_FOR_INTERVAL else "",
    ]
    return _joined(
        f"Each point is the mean {MEASURES[about.select_by]} on the test split at one K_audio or K_text, averaged over "
        f"the other K, in percentage points from the mean of the grid{f' (without {left_out})' if left_out else ''}.",
        _sentence(marks),
        "A flat line means that this K hardly matters.",
    )


def of_configurations(block: AboutBlock, *, joined: bool, published: bool, seeds: int) -> str:
    """Return the caption of a block's configurations.

    Args:
        block: Block that is drawn.
        joined: Whether a line joins the means, as for one ordered factor.
        published: Whether the figure also shows scores that a paper reports.
        seeds: Number of requested seeds.
    """
    interval = " with 95% intervals (another seed)" if seeds >= SEEDS_FOR_INTERVAL else ""
    marks = [
        "grey lines are single seeds" if seeds > 1 else "",
        f"filled circles are means over {seeds_in_words(seeds)}{interval}",
        "open diamonds are the scores that the paper reports" if published else "",
    ]
    return _joined(
        f"Scores on the test split in percent, by {displayed(block.columns[0]) if joined else 'configuration'}, with "
        "one scale for all panels.",
        _sentence(marks),
    )


def tuning(about: About) -> str:
    """Return the caption of the tuning figure."""
    return _joined(
        f"Each dot is the validation {MEASURES[about.select_by]} of one configuration, in the order in which they were "
        "tried, with a panel for each system.",
        "The solid line is the best so far, and the dotted line the default settings.",
        "A solid line that is flat at its end shows that the budget was large enough.",
    )


def comparison(about: About) -> str:
    """Return the caption of the comparison of systems."""
    return _joined(
        f"Each row is a system, sorted by its mean {MEASURES[about.select_by]} on the test split in percent.",
        "Filled marks are means with 95% intervals (another seed), small dots are single seeds, open marks are means "
        "of default settings, and vertical bars are scores that papers report under their own protocols.",
    )


def critical() -> str:
    """Return the caption of the critical-difference diagram over folds."""
    return _joined(
        "The axis shows the mean rank of each system, 1 being the best.",
        "A bar joins systems whose mean ranks differ by less than the critical difference (CD).",
        "Only systems that no bar joins are told apart.",
    )


def curves(about: About) -> str:
    """Return the caption of the learning curves."""
    several = len(about.seeds) >= SEEDS_FOR_INTERVAL or len(about.confirm) >= SEEDS_FOR_INTERVAL
    bands = " Bands are 95% intervals (another seed), and thin grey lines single seeds." if several else ""
    return _joined(
        f"Validation WA in percent by epoch, as the mean over n seeds, with a panel for each block.{bands}",
        "A curve that still rises at its end would gain from more epochs.",
    )


def confusion() -> str:
    """Return the caption of the confusion matrix."""
    return _joined(
        "Each cell is the percentage of a label's test utterances (row) that the study's own configuration predicts as "
        "a class (column), over all of its seeds.",
        "The diagonal is the recall of each class.",
    )


def confusion_difference() -> str:
    """Return the caption of the differences of confusion matrices."""
    return _joined(
        "Each panel is the matrix of a block's reference minus that of another configuration, in percentage points of "
        "the label's test utterances: blue cells are more frequent with the reference, red cells less.",
        "Bold differences are larger than another seed's luck (paired t-test, 95%, Holm's correction in the panel).",
        "Blue on the diagonal is a higher recall of the reference.",
    )


def errors() -> str:
    """Return the caption of the recall by group."""
    return _joined(
        "Each dot is the percentage of a group's test utterances (n) that the study's own configuration labels right, "
        f"with its 95% interval ({WHOSE['utterances']}).",
        "The dashed line is the percentage of all utterances.",
        "A group left of the line is harder than the average.",
    )


def calibration() -> str:
    """Return the caption of the reliability diagram."""
    return _joined(
        f"The upper panel shows the accuracy of the labels by their confidence in {BINS} bins, over all seeds and for "
        "each seed (grey), and the lower panel the share of the utterances in each bin.",
        "On the dashed diagonal the confidence is right, and below it the system is overconfident.",
    )


def embedding() -> str:
    """Return the caption of the map of the embedding."""
    return _joined(
        "Each point is a test utterance as the classifier of one seed sees it, placed by t-SNE. Colour and marker show "
        "its label.",
        "Neighbours in the map are neighbours in the embedding, but distances between groups mean nothing.",
    )


def joint(planes: Mapping[str, Plane]) -> str:
    """Return the caption of the joint figure of several studies.

    Args:
        planes: Planes by the label of the study.
    """
    first = next(iter(planes.values()))
    x, y = map(displayed, first.columns)
    seeds = {plane.seeds for plane in planes.values()}
    over = seeds_in_words(seeds.pop()) if len(seeds) == 1 else "seeds"
    of_paper = [(cut(name), plane, plane.paper) for name, plane in planes.items() if plane.paper]
    outside = [f"{name} {_cell(plane, cell)}" for name, plane, cell in of_paper if not plane.has(cell)]
    marks = [
        "the solid red frame marks the chosen pair" if any(plane.chosen for plane in planes.values()) else "",
        "the dashed frame marks the best pair of the paper" if len(outside) < len(of_paper) else "",
        "the star marks the highest mean of each panel",
    ]
    caption = _joined(
        f"Each number is the mean score on the test split in percent over {over}, by {x} (across) and {y} (upwards). "
        "The colour is its distance from the mean of the panel, on one scale for all panels, because data sets differ "
        "more in level than by K.",
        _sentence(marks),
        f"The best pair of the paper is not on the grid of {listed(outside)}." if outside else "",
    )
    return led(f"The K grid of {listed(list(map(cut, planes)))}", caption)
