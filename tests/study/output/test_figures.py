from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cycler import cycler
from hypothesis import given, strategies
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from simulated import Noise, study, worse

from cemobam_core.errors import InputError
from study.commands.figures import build_parser as figures_parser
from study.design.factors import Pair
from study.findings.analysis import MEASURES
from study.findings.calibration import measured
from study.findings.confusions import ConfusionDifference, matrix_difference
from study.findings.errors import By, Recall, left_out, shown_groups
from study.findings.results import Results
from study.findings.wording import WHOSE, seeds_in_words
from study.ledger.outcomes import METRICS
from study.output import figures
from study.output.figures import captions, interactive
from study.output.figures.calibration import calibration_figure
from study.output.figures.confusion import confusion_figure
from study.output.figures.confusion_difference import Panel, confusion_difference_figure
from study.output.figures.curves import curves_figure
from study.output.figures.embedding import embedding_figure
from study.output.figures.errors import errors_figure
from study.output.figures.heat import contrast, ground, ink
from study.output.figures.marginal import marginal_figure
from study.output.figures.names import line_figure, names_figure
from study.output.figures.plane import FigureOf, Plane, joint_figure, plane_figure, plane_of
from study.output.figures.style import Look, plain, read_style
from study.output.figures.tuning import tuning_figure
from study.papers.cemobam.paper import FUSIONS, LABELS
from study.papers.cemobam.published import published

PAIR = ("k_audio", "k_text")


SHOWN = ["WA", "UA", "w-F1", "macro F1"]


def grid(k_audio: range, k_text: range) -> pd.DataFrame:
    rows = []
    for a in k_audio:
        for t in k_text:
            x = 0.7 + 0.01 * a - 0.002 * t
            rows.append({"k_audio": a, "k_text": t, "n_seeds": 5, **{f"{m}_mean": x for m in METRICS}})
    return pd.DataFrame(rows)


def plane(made: pd.DataFrame, chosen: Pair | None = None, paper: Pair | None = None, **changes: Any) -> Plane:
    arguments: dict[str, Any] = {
        "xs": tuple(sorted(set(made["k_audio"]))),
        "ys": tuple(sorted(set(made["k_text"]))),
        "seeds": 5,
        "chosen": (chosen.k_audio, chosen.k_text) if chosen else None,
        "paper": (paper.k_audio, paper.k_text) if paper else None,
    }
    return Plane(frame=made, columns=PAIR, **{**arguments, **changes})


def draw(made: pd.DataFrame, chosen: Pair | None = None, paper: Pair | None = None, **changes: Any) -> Figure:
    figure = plane_figure(plane(made, chosen, paper, **changes), title="demo (synthetic)")
    FigureCanvasAgg(figure).draw()
    return figure


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_full_grid_has_every_cell_the_chosen_framed_and_the_best_starred() -> None:
    figure = draw(grid(range(1, 11), range(1, 11)), Pair(8, 7))
    panels = figure.axes[: len(SHOWN)]
    assert [ax.get_title() for ax in panels] == SHOWN
    assert len(figure.axes) == len(SHOWN) + 1  # one colour bar
    assert "synthetic" in figure.get_suptitle()
    for ax in panels:
        texts = [text.get_text() for text in ax.texts]
        assert len(texts) == 100
        assert [t for t in texts if "★" in t] == ["79.8\n★"]
        frames = [p for p in ax.patches if isinstance(p, Rectangle)]
        assert {p.get_xy() for p in frames} == {(7, 3)}  # the eighth column; K_text falls from 10
        assert [t.get_text() for t in ax.get_xticklabels()] == [str(k) for k in range(1, 11)]
    assert [t.get_text() for t in panels[0].get_yticklabels()] == [str(k) for k in range(10, 0, -1)]


@pytest.mark.parametrize(
    ("k_audio", "k_text"), [(10, 10), (20, 20), (3, 3), (1, 1), (10, 1), (2, 12), (30, 2), (2, 40)]
)
def test_labels_do_not_collide(k_audio: int, k_text: int) -> None:
    figure = draw(grid(range(1, k_audio + 1), range(1, k_text + 1)), Pair(1, 1))
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for ax in figure.axes[:3]:
        cell_width = ax.get_window_extent(renderer).width / k_audio
        cell_height = ax.get_window_extent(renderer).height / k_text
        for text in ax.texts:
            extent = text.get_window_extent(renderer)
            assert extent.width <= cell_width
            assert extent.height <= cell_height * 1.05
    boxes = [part.get_window_extent(renderer) for part in (figure._suptitle, *figure.legends)]  # type: ignore[attr-defined]
    whole = figure.get_window_extent(renderer)
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= whole.x1


def test_holes_stay_white_and_fewer_seeds_are_in_italics() -> None:
    made = grid(range(1, 4), range(1, 4)).drop(index=4)
    made.loc[0, "n_seeds"] = 2
    figure = draw(made)
    texts = figure.axes[0].texts
    assert len(texts) == 8
    assert [text.get_fontstyle() for text in texts].count("italic") == 1
    assert "italics: fewer seeds" in legend_of(figure)
    # a K of which no trial is done keeps its column
    figure = draw(grid(range(1, 4), range(1, 4)), xs=(1, 2, 3, 5))
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1", "2", "3", "5"]
    assert "italics: fewer seeds" not in legend_of(figure)


def test_it_is_saved_for_the_screen_and_for_print(tmp_path: Path) -> None:
    written = figures.save(draw(grid(range(1, 3), range(1, 3))), tmp_path / "fig2_topk")
    assert [p.name for p in written] == ["fig2_topk.png", "fig2_topk.pdf"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert b"/Type /Font" in written[1].read_bytes()


LONG = ("anger", "happiness and excitement", "neutral", "sadness", "frustration", "surprise", "fear",
        "disgust with a very long name indeed", "other")  # fmt: skip


def no_text_collides(figure: Figure) -> None:
    """No two visible texts overlap, and all are within the figure."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    whole = figure.get_window_extent(renderer)
    out_of_sight = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) - 1e-9 <= tick.get_loc() <= max(axis.get_view_interval()) + 1e-9
    }
    drawn = [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in out_of_sight
    ]
    boxes = [(text, text.get_window_extent(renderer)) for text in drawn]
    for i, (text, box) in enumerate(boxes):
        assert box.x0 >= whole.x0 - 1, text
        assert box.x1 <= whole.x1 + 1, text
        assert box.y0 >= whole.y0 - 1, text
        assert box.y1 <= whole.y1 + 1, text
        for other, another in boxes[i + 1 :]:
            if not box.overlaps(another):
                continue
            if text.get_rotation() == other.get_rotation() == 45:  # side by side on the slant: what counts is across
                lines = max(len(x.get_text().splitlines()) for x in (text, other))
                thick = lines * text.get_fontsize() * figure.dpi / 72
                apart = [x.get_transform().transform(x.get_position())[0] for x in (text, other)]
                assert abs(apart[0] - apart[1]) * 0.7071 >= thick, (text, other)
            else:
                assert not box.padded(-0.5).overlaps(another.padded(-0.5)), (text, other)


@pytest.mark.parametrize("size", [(1, 2), (2, 2), (3, 7), (10, 10), (40, 3)])
@pytest.mark.parametrize("seeds", [1, 5])
def test_marginal_effects_are_drawn_for_any_grid(size: tuple[int, int], seeds: int) -> None:
    results = study(np.random.default_rng(0), Noise(), size=size, seeds=seeds)
    assert results.scores
    figure = marginal_figure(results.scores, metric="wa", title="demo (synthetic)")
    no_text_collides(figure)
    assert figure.get_suptitle().endswith(seeds_in_words(seeds))
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert low == -high
    interval = ["mean, 95% interval (another seed)"]
    assert legend_of(figure) == ["mean of the grid", *(["a seed", *interval] if seeds == 5 else ["the only seed"])]


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 7, 9])
def test_confusion_and_embedding_take_any_classes(classes: int) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 500, (classes, classes))
    title = "demo (synthetic), $K_{audio}$=10, $K_{text}$=10"
    no_text_collides(confusion_figure(counts, LONG[:classes], title=title, trials=5))
    vectors, labels = rng.standard_normal((40, 6)).astype(np.float32), rng.integers(0, classes, 40)
    no_text_collides(embedding_figure(vectors, labels, LONG[:classes], title=f"{title}, seed 0\nt-SNE"))


def test_the_confusion_matrix_is_in_percent_of_the_label() -> None:
    figure = confusion_figure(np.array([[30, 10], [5, 15]]), ("a", "b"), title="x", trials=2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["75.0", "25.0", "25.0", "75.0"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a\n(n=20)", "b\n(n=10)"]


def fusion_figure(results: Results, *, dataset: str, title: str, seeds: int) -> Figure:
    block = results.about.block("fusion")
    assert block
    _, by_seed, summary = figures.in_order(results, block)
    theirs = published("table1", dataset).set_index("fusion").reindex(list(FUSIONS))
    labels = [LABELS[name] for name in FUSIONS]
    return names_figure(
        by_seed, summary, labels, published=theirs if theirs["wa"].notna().any() else None, title=title, seeds=seeds
    )


@pytest.mark.parametrize("missing", [(), ("max",), ("cls", "min", "max")])
def test_variants_show_every_seed_and_what_is_missing(missing: tuple[str, ...]) -> None:
    results = study(np.random.default_rng(0), Noise(), size=(2, 2), variants=worse(1.0))
    trials = results.trials[~results.trials["fusion"].isin(missing)].copy()
    trials.loc[(trials["fusion"] == "mean") & (trials["seed"] == 8), "status"] = "failed"
    holed = Results(about=results.about, trials=trials)
    figure = fusion_figure(holed, dataset="iemocap", title="demo (synthetic)", seeds=5)
    no_text_collides(figure)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[-1] == "MEAN\n4 of 5"
    assert labels[:3] == [f"{name.upper()}\n0 of 5" if name in missing else name.upper() for name in FUSIONS[:3]]


def differences(n: int, classes: int, seeds: int = 5) -> list[Panel]:
    """Panels of random confusion matrices, the second class of each without utterances."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        first, second = ({seed: rng.integers(1, 60, (classes, classes)) for seed in range(seeds)} for _ in range(2))
        for matrix in (*first.values(), *second.values()):
            matrix[1] = 0
        difference = matrix_difference(first, second)
        assert difference
        made.append(Panel(f"a configuration with a name of its own less {LONG[i % 9]}", difference))
    return made


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (1, 9), (2, 4), (5, 4), (13, 4), (3, 7), (6, 9), (2, 30)])
def test_differences_of_confusion_matrices_take_any_classes_and_panels(n: int, classes: int) -> None:
    names = [LONG[i % 9] for i in range(classes)]
    figure = confusion_difference_figure(differences(n, classes), names, title="demo, $K_{audio}$=10, $K_{text}$=10")
    no_text_collides(figure)
    assert figure.get_figheight() <= 9
    shown = min(n, 12 if classes <= 5 else 6 if classes <= 12 else 2)
    assert len(figure.axes) == shown + 1  # the bar
    assert (f"(the first {shown} of {n})" in figure.get_suptitle()) == (shown < n)
    first = figure.axes[0]
    assert len(first.texts) == (classes * (classes - 1) if classes < 30 else 0)
    colours = first.collections[0].get_facecolors()  # type: ignore[attr-defined]
    by_cell = colours.reshape(classes, classes, 4)
    for text in first.texts:
        column, row = (int(x) for x in text.get_position())
        assert contrast(to_rgb(text.get_color()), by_cell[row, column]) >= 4.5


def test_what_noise_does_not_explain_is_bold() -> None:
    points = np.array([[0.25, -0.25], [0.0, -0.004]])
    bold = np.array([[True, False], [False, False]])
    difference = ConfusionDifference(points=points, beyond_noise=bold, seeds=5)
    figure = confusion_difference_figure([Panel("MIN − MAX", difference)], ["a", "b"], title="x")
    texts = [(text.get_text(), text.get_fontweight()) for text in figure.axes[0].texts]
    assert texts == [("+25.0", "bold"), ("−25.0", "normal"), ("0", "normal"), ("−0.4", "normal")]
    assert legend_of(figure) == ["bold: more than another seed's luck (paired t, 95%, Holm in the panel)"]
    one = confusion_difference_figure([Panel("x", replace(difference, seeds=1))], ["a", "b"], title="x")
    assert not legend_of(one)


def recalls_of(by: By, names: list[str]) -> list[Recall]:
    """Recalls of groups, the last without an interval."""
    made = [
        Recall(by=by, group=name, mean=0.98 - 0.01 * i, low=0.9 - 0.02 * i, high=1, utterances=10 + i, seeds=5)
        for i, name in enumerate(names)
    ]
    return [*made[:-1], replace(made[-1], low=np.nan, high=np.nan)]


@pytest.mark.parametrize("speakers", [0, 2, 10, 90])
@pytest.mark.parametrize("classes", [2, 4, 9])
def test_recall_by_group_finds_room(speakers: int, classes: int) -> None:
    made = recalls_of("class", list(LONG[:classes]))
    if speakers:
        made += recalls_of("speaker", [f"speaker {i} with a name that is longer than any" for i in range(speakers)])
        made += recalls_of("session", [f"Ses{i}" for i in range(min(speakers, 5))])
        made += recalls_of("length", ["up to 1.0 s", "1.0 to 2.0 s", "over 2.0 s"])
    kinds = shown_groups(made)
    figure = errors_figure(
        kinds, overall=0.9, over=WHOSE["utterances"], notes=left_out(made), title="demo, $K_{audio}$=10"
    )
    no_text_collides(figure)
    assert figure.get_figheight() <= 9
    assert len(figure.axes) == (4 if speakers else 1)
    assert legend_of(figure)[1] == f"mean, 95% interval ({WHOSE['utterances']})"
    low, high = figure.axes[-1].get_xlim()
    assert 0 <= low < high == 100
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks[0] == "anger (n=10)"
    if speakers:
        assert len(figure.axes[1].get_yticks()) == min(speakers, 20)
    assert ("the 10 worst and the 10 best" in figure.axes[-1].get_xlabel()) == (speakers > 20)


def test_recall_without_intervals_says_so() -> None:
    alone = [replace(one, low=np.nan, high=np.nan, seeds=1) for one in recalls_of("class", ["a", "b"])]
    figure = errors_figure({"class": alone}, overall=0.9, over=WHOSE["utterances"], title="x")
    no_text_collides(figure)
    assert legend_of(figure) == ["all utterances", "mean", "n: utterances of the group"]
    assert figure.get_suptitle() == "x: test split, 1 seed"


@pytest.mark.parametrize(("seeds", "utterances"), [(1, 3), (5, 400)])
def test_a_reliability_diagram(seeds: int, utterances: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, 0.5), utterances)
    made = measured({seed: (probabilities, rng.integers(0, 4, utterances)) for seed in range(seeds)})
    figure = calibration_figure(made, title="demo (synthetic), $K_{audio}$=10, $K_{text}$=10")
    no_text_collides(figure)
    assert ("a seed" in legend_of(figure)) == (seeds > 1)
    assert ("all seeds" in legend_of(figure)) == (seeds > 1)
    assert f"{100 * made.seeds['ece'].mean():.1f} points" in figure.get_suptitle()


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_learning_curves(panels: int) -> None:
    frame = pd.DataFrame(0.5 + 0.01 * np.arange(30.0).reshape(3, 10), columns=range(2, 22, 2))
    lines = {"CemoBAM": frame, "w/o CH-GAT": frame.iloc[:1] - 0.1, "w/o xCBAM": frame - 0.2}
    blocks = ("grid", "fusion", "ablation")[:panels]
    figure = curves_figure(dict.fromkeys(blocks, lines), title="demo (synthetic)")
    no_text_collides(figure)
    legend = figure.axes[0].get_legend()
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == ["CemoBAM (n=3)", "w/o CH-GAT (n=1)", "w/o xCBAM (n=3)"]


def test_the_deviation_has_its_own_heatmap_without_a_best() -> None:
    results = study(np.random.default_rng(0), Noise(), size=(3, 7))
    figure = plane_figure(plane(results.grid, Pair(1, 1)), title="x", figure_of="std")
    FigureCanvasAgg(figure).draw()
    assert "standard deviation over 5 seeds" in figure.get_suptitle()
    assert not any("★" in text.get_text() for text in figure.axes[0].texts)
    expected = 100 * results.grid.set_index(["k_audio", "k_text"]).loc[(1, 7), "test_wa_std"]
    assert figure.axes[0].texts[0].get_text() == f"{expected:.1f}"


@pytest.mark.parametrize(
    ("figure_of", "bar"),
    [
        ("mean", "score on test (%), mean over 5 seeds"),
        ("std", "standard deviation of the score on test (points) over 5 seeds"),
    ],
)
def test_all_panels_have_the_colours_of_one_bar(figure_of: FigureOf, bar: str) -> None:
    results = study(np.random.default_rng(0), Noise(), size=(3, 3))
    figure = plane_figure(plane(results.grid, Pair(1, 1)), title="x", figure_of=figure_of)
    *panels, colours = figure.axes
    assert [ax.get_title() for ax in panels] == SHOWN
    assert colours.get_xlabel() == bar
    columns = [f"test_{measure}_{figure_of}" for measure in MEASURES]
    ends = 100 * results.grid[columns].min(axis=None), 100 * results.grid[columns].max(axis=None)
    for ax in panels:
        assert ax.collections[0].get_clim() == pytest.approx(ends)
    assert colours.get_xlim() == pytest.approx(ends)


def test_the_papers_best_cell_has_a_dashed_frame_within_its_cell() -> None:
    for chosen in (Pair(2, 2), Pair(3, 1)):  # another cell, and the same
        figure = draw(grid(range(1, 4), range(1, 4)), chosen, Pair(3, 1))
        for ax in figure.axes[: len(SHOWN)]:
            dashed = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_linestyle() != "-"]
            (frame,) = [p for p in dashed if p.get_linestyle() not in ("solid", "-")]
            assert 2 < frame.get_x() < frame.get_x() + frame.get_width() < 3  # the third column
            assert 2 < frame.get_y() < frame.get_y() + frame.get_height() < 3  # K_text falls from 3
        assert legend_of(figure) == [
            f"chosen on validation ($K_{{audio}}$={chosen.k_audio}, $K_{{text}}$={chosen.k_text})",
            "best in the paper ($K_{audio}$=3, $K_{text}$=1)",
            "highest in the panel",
        ]
        no_text_collides(figure)


def test_a_best_cell_of_the_paper_that_is_not_on_the_grid_is_in_the_caption() -> None:
    small = plane(grid(range(1, 4), range(1, 4)), Pair(2, 2), Pair(8, 7))
    assert "best in the paper" not in " ".join(legend_of(plane_figure(small, title="x")))
    assert captions.of_plane(small, "mean").endswith(
        "The best pair of the paper (K_audio 8, K_text 7) is not on this grid."
    )
    on_it = captions.of_plane(replace(small, paper=(3, 1)), "std")
    assert "dashed frame marks the best pair of the paper (K_audio 3, K_text 1)" in on_it
    assert "star" not in on_it


@pytest.mark.parametrize(("dataset", "cell"), [("iemocap", (8, 7)), ("esd", (4, 5)), ("demo", None)])
def test_a_plane_knows_the_papers_best_cell_of_its_data_set(dataset: str, cell: tuple[int, int] | None) -> None:
    results = study(np.random.default_rng(0), Noise(), size=(3, 4), dataset=dataset)
    assert results.about.choosing
    made = plane_of(results, results.about.choosing)
    assert (made.paper, made.chosen) == (cell, results.about.pair)
    assert (made.xs, made.ys) == ((1, 2, 3), (1, 2, 3, 4))
    other = replace(results, about=replace(results.about, system="gcn"))
    assert other.about.choosing
    assert plane_of(other, other.about.choosing).paper is None


def test_cells_without_a_trial_are_in_the_legend() -> None:
    assert "empty: no trial is done" in legend_of(draw(grid(range(1, 4), range(1, 4)).drop(index=4)))
    assert "empty: no trial is done" not in legend_of(draw(grid(range(1, 4), range(1, 4))))


def joint(*sizes: tuple[int, int]) -> Figure:
    made = {
        f"study {i}": plane(grid(range(1, a + 1), range(1, t + 1)), Pair(a, 1), Pair(1, t))
        for i, (a, t) in enumerate(sizes, start=1)
    }
    figure = joint_figure(made, {"wa": "WA", "ua": "UA", "wf1": "w-F1"})
    no_text_collides(figure)
    return figure


@pytest.mark.parametrize(
    "sizes",
    [[(2, 2)] * 2, [(3, 10)] * 4, *(pytest.param([(10, 10)] * n, marks=pytest.mark.slow) for n in (2, 3))],
)
def test_a_joint_figure_has_a_column_a_study_and_one_scale(sizes: list[tuple[int, int]]) -> None:
    figure = joint(*sizes)
    *panels, bar = figure.axes
    assert figure.get_figheight() <= 9
    assert [ax.get_title() for ax in panels] == [
        f"study {i}: {label} (%)" for label in ("WA", "UA", "w-F1") for i in range(1, len(sizes) + 1)
    ]
    low, high = bar.get_xlim()
    assert low == -high
    widths = [np.ptp(ax.collections[0].get_clim()) for ax in panels]
    assert widths == pytest.approx([high - low] * len(panels))
    assert "study 1: $K_{audio}$=" in legend_of(figure)[0]
    assert legend_of(figure)[1].startswith("best in the paper (study 1: $K_{audio}$=1")


def test_the_legends_square_has_the_frames_colour() -> None:
    figure = draw(grid(range(1, 4), range(1, 4)), Pair(2, 2))
    frame = next(p for p in reversed(figure.axes[0].patches) if isinstance(p, Rectangle))
    (square, star) = figure.legends[0].legend_handles
    assert isinstance(square, Rectangle)
    assert isinstance(star, Line2D)
    assert square.get_edgecolor() == frame.get_edgecolor()
    assert star.get_marker() == "*"


@given(strategies.floats(0, 1))
def test_ink_can_be_read_on_the_whole_colour_map(value: float) -> None:
    """WCAG 2.2 asks for 4.5:1; plotly draws between stops of the map, matplotlib from 256 colours."""
    on = ground(value, (0, 1))
    assert contrast(to_rgb(ink(on)), on) >= 4.5
    stops, colours = zip(*interactive._COLOUR_SCALE, strict=True)
    drawn = [np.interp(value, stops, channel) for channel in np.array([to_rgb(colour) for colour in colours]).T]
    assert contrast(to_rgb(ink(on)), drawn) >= 4.5


@given(strategies.tuples(*[strategies.floats(0, 1)] * 3))
def test_ink_can_be_read_on_any_colour(on: tuple[float, float, float]) -> None:
    assert contrast(to_rgb(ink(on)), on) >= 4.58


def test_contrast_by_hand() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast(to_rgb("#777777"), (1, 1, 1)) == pytest.approx(4.478, abs=1e-3)  # known not to pass by a hair


def test_every_number_on_a_heatmap_can_be_read() -> None:
    results = study(np.random.default_rng(0), Noise(), size=(10, 10))
    of: tuple[FigureOf, ...] = ("mean", "std")
    made = [plane_figure(plane(results.grid, Pair(1, 1)), title="x", figure_of=shown) for shown in of]
    counts = np.random.default_rng(0).integers(1, 500, (7, 7))
    made.append(confusion_figure(counts, LONG[:7], title="x", trials=1))
    for figure in made:
        FigureCanvasAgg(figure).draw()
        for ax in figure.axes:
            cells = ax.collections[0].get_facecolors() if ax.texts else []  # type: ignore[attr-defined]
            for text, cell in zip(ax.texts, cells, strict=True):
                assert contrast(to_rgb(text.get_color()), cell) >= 4.5


def test_axes_of_shares_end_at_100_percent() -> None:
    results = study(np.random.default_rng(0), Noise(), size=(2, 2), variants=worse(1.0))
    top = results.trials.copy()
    for column in [c for c in top if c.startswith("test_") and not c.endswith("loss")]:
        top[column] = np.minimum(1.0, top[column] + 0.3)
    high = Results(about=results.about, trials=top)
    figure = fusion_figure(high, dataset="iemocap", title="x", seeds=5)
    curve = pd.DataFrame([[0.0, 0.5, 1.0], [0.0, 0.7, 1.0], [0.1, 0.9, 1.0]], columns=[1, 2, 3])
    for drawn in (figure, curves_figure({"grid": {"a": curve}, "fusion": {"b": curve * 0.5}}, title="x")):
        no_text_collides(drawn)
        for ax in drawn.axes:
            low, most = ax.get_ylim()
            assert low >= 0
            assert most <= 100
            for collection in ax.collections:
                for path in collection.get_paths():
                    assert path.vertices[:, 1].max() <= 100 + 1e-9
    flat = grid(range(1, 3), range(1, 3)).assign(**{f"{m}_mean": 1.0 for m in METRICS})
    assert draw(flat).axes[-1].get_xlim() == (99, 100)
    extreme = study(np.random.default_rng(0), Noise(), size=(1, 2), seeds=3, point=0.0).scores
    assert extreme
    values = np.array([[[0.0, 1.0]], [[0.0, 1.0]], [[1.0, 0.0]]])
    figure = marginal_figure(replace(extreme, values=dict.fromkeys(METRICS, values)), metric="wa", title="x")
    for ax in figure.axes:
        assert -100 <= min(ax.get_ylim()) <= max(ax.get_ylim()) <= 100


def test_two_seeds_are_drawn_without_intervals() -> None:
    results = study(np.random.default_rng(0), Noise(), size=(2, 2), seeds=2, variants=worse(1.0))
    figure = fusion_figure(results, dataset="demo", title="x", seeds=2)
    assert legend_of(figure) == ["a seed", "mean"]
    assert all(not ax.collections for ax in figure.axes)
    curve = pd.DataFrame([[0.2, 0.5], [0.4, 0.9]], columns=[1, 2])
    curves = curves_figure({"grid": {"a": curve}}, title="x")
    assert all(not ax.collections for ax in curves.axes)
    assert results.scores
    effects = marginal_figure(results.scores, metric="wa", title="x")
    assert all(not ax.collections for ax in effects.axes)
    assert not any("95%" in text for f in (curves, effects) for text in legend_of(f))


def test_fonts_are_embedded_as_such_and_names_are_no_formulas(tmp_path: Path) -> None:
    names = [plain(name) for name in ("$\\frac{a}$", "b_1", "c\x07", "怒り")]
    figure = confusion_figure(np.eye(4, dtype=np.int64), names, title=plain("$x^"), trials=1)
    pdf = figures.save(figure, tmp_path / "x")[1].read_bytes()
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf  # TrueType, Type 42


LABELS_OF = {
    "short": ["a", "b"],
    "fusions": ["CLS", "MIN", "MAX", "MEAN"],
    "systems": ["cemobam", "concat_mlp", "gcn", "logistic", "a_very_long_file_name.py:MyLateFusionBaselineModel"],
    "factors": [f"{f}, {m}, {d}" for f in ("min", "max", "mean") for m in ("full", "no_chgat") for d in (8, 16)],
    "many": [f"configuration number {i}" for i in range(40)],
    "sentences": ["what happens where the label of a configuration is a sentence of its own"] * 3,
    "one": ["alone"],
}


def scores(n: int, seeds: int = 5) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Scores of n configurations, and their means."""
    rng = np.random.default_rng(0)
    by_seed = {m: pd.DataFrame(0.6 + 0.1 * rng.random((seeds, n))) for m in MEASURES}
    summary = pd.DataFrame({"n_seeds": [seeds] * n})
    for measure, frame in by_seed.items():
        for figure, shift in (("mean", 0.0), ("low", -0.05), ("high", 0.05)):
            summary[f"test_{measure}_{figure}"] = frame.mean() + shift
    return by_seed, summary


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("name", LABELS_OF)
def test_names_of_any_length_and_number_do_not_collide(name: str, short: bool) -> None:
    labels = LABELS_OF[name]
    by_seed, summary = scores(len(labels))
    if short:
        summary.loc[0, "n_seeds"] = 4
    figure = names_figure(by_seed, summary, labels, head="Fusion, Model, hidden_dim", title="demo", seeds=5)
    no_text_collides(figure)
    ticks = [text for ax in figure.axes for text in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    shown = {"".join(text.get_text().split()) for text in ticks}  # long ones are folded, anywhere if need be
    assert {"".join(label.split()) for label in labels[1:]} <= shown
    assert ("".join(f"{labels[0]} 4 of 5".split()) in shown) == short


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([8, 16, 32, 64], ["8", "16", "32", "64"]),
        ([1e-4, 3e-4, 1e-3, 3e-3, 1e-2], ["0.0001", "0.0003", "0.001", "0.003", "0.01"]),
        ([0.0, 0.1, 0.5], ["0", "0.1", "0.5"]),
        ([64, 8], ["8", "64"]),
        ([5], ["5"]),
        ([100, 101, 900], ["100", "", "900"]),
        ([2**i for i in range(20)], None),
        (list(range(1, 101)), None),
        ([1e-7, 1e-6, 1e-5, 3e-5, 4e-5, 5e-5, 6e-5], None),
    ],
)
def test_a_line_names_its_values_where_they_find_room(values: list[float], shown: list[str] | None) -> None:
    by_seed, summary = scores(len(values))
    figure = line_figure(by_seed, summary, values, factor="hidden_dim", title="demo", seeds=5)
    no_text_collides(figure)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == shown or shown is None
    assert labels[0]
    drawn = figure.axes[0].lines[0].get_xdata()
    assert list(drawn) == sorted(values)
    assert figure.axes[0].get_xscale() == ("log" if min(values) > 0 and max(values) >= 8 * min(values) else "linear")


def test_a_line_says_where_seeds_are_missing() -> None:
    by_seed, summary = scores(3)
    summary.loc[1, "n_seeds"] = 2
    figure = line_figure(by_seed, summary, [1, 2, 3], factor="layers", title="demo", seeds=5)
    no_text_collides(figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2\n2 of 5", "3"]


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (9, 12)])
def test_learning_curves_of_many_blocks_have_room(size: tuple[int, int]) -> None:
    panels, lines = size
    frame = pd.DataFrame(0.5 + 0.01 * np.arange(30.0).reshape(3, 10), columns=range(2, 22, 2))
    labels = [f"a configuration whose name is as long as number {i}" for i in range(lines)]
    blocks = {f"block {i}": dict.fromkeys(labels, frame) for i in range(panels)}
    figure = curves_figure(blocks, dict.fromkeys(blocks, "Fusion, Model, hidden_dim"), title="demo (synthetic)")
    no_text_collides(figure)
    titles = [ax.get_title() for ax in figure.axes if ax.axison]
    assert len(titles) == panels
    assert all(title.endswith("(the first 9 of 12)") == (lines > 9) for title in titles)


def test_a_plane_of_other_factors_says_which() -> None:
    rows = [
        {"hidden_dim": d, "lr": r, "n_seeds": 5, **{f"{m}_mean": 0.5 + r for m in METRICS}}
        for d in (8, 16, 1024)
        for r in (1e-4, 3e-4)
    ]
    made = Plane(frame=pd.DataFrame(rows), columns=("hidden_dim", "lr"), xs=(8, 16, 1024), ys=(1e-4, 3e-4), seeds=5)
    figure = plane_figure(made, title="demo")
    no_text_collides(figure)
    ax = figure.axes[0]
    assert (figure.axes[2].get_xlabel(), ax.get_ylabel()) == ("hidden_dim", "learning rate")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "16", "1024"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.0003", "0.0001"]
    assert legend_of(figure) == ["highest in the panel"]


@pytest.mark.parametrize("name", ["names", "line"])
def test_panels_of_configurations_have_one_scale(name: str) -> None:
    by_seed, summary = scores(5)
    if name == "line":
        figure = line_figure(by_seed, summary, [1, 2, 3, 4, 5], factor="layers", title="demo", seeds=5)
        limits = {ax.get_ylim() for ax in figure.axes}
    else:
        figure = names_figure(by_seed, summary, LABELS_OF["systems"], title="demo", seeds=5)
        limits = {ax.get_xlim() for ax in figure.axes}
    assert len(figure.axes) == len(SHOWN)
    assert len(limits) == 1
    assert legend_of(figure) == ["a seed", "mean, 95% interval (another seed)"]


def test_the_legend_of_curves_explains_bands_and_grey_lines() -> None:
    frame = pd.DataFrame(0.5 + 0.01 * np.arange(30.0).reshape(3, 10), columns=range(2, 22, 2))
    lone = curves_figure({"grid": {"a": frame}}, title="x")
    assert legend_of(lone) == ["mean over n seeds", "95% interval (another seed)", "a seed"]
    several = curves_figure({"fusion": {"a": frame.iloc[:2], "b": frame.iloc[:1]}}, title="x")
    assert legend_of(several) == ["mean over n seeds"]


def test_the_legend_of_tuning_explains_its_lines() -> None:
    tried = {f"system {i}": np.array([0.5, 0.4, np.nan, 0.6]) for i in range(7)}
    figure = tuning_figure(tried, label="WA", title="x")
    no_text_collides(figure)
    assert legend_of(figure) == ["the defaults", "a configuration", "the best so far"]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1


def looks_of_every_kind() -> list[Figure]:
    """One figure of nearly every kind."""
    results = study(np.random.default_rng(0), Noise(), size=(4, 4), variants=worse(1.0))
    assert results.scores
    by_seed, summary = scores(5)
    frame = pd.DataFrame(0.5 + 0.01 * np.arange(30.0).reshape(3, 10), columns=range(2, 22, 2))
    return [
        draw(grid(range(1, 4), range(1, 4)), Pair(2, 2), Pair(3, 1)),
        joint((3, 3), (3, 3)),
        marginal_figure(results.scores, metric="wa", title="demo (synthetic)"),
        confusion_figure(np.eye(5, dtype=np.int64), LONG[:5], title="x", trials=1),
        confusion_difference_figure(differences(4, 4), LONG[:4], title="demo"),
        names_figure(by_seed, summary, LABELS_OF["systems"], title="demo", seeds=5),
        line_figure(by_seed, summary, [8, 16, 32, 64, 1024], factor="hidden_dim", title="demo", seeds=5),
        curves_figure({"grid": {"a": frame}, "fusion": {"a": frame, "b": frame}}, title="x"),
        errors_figure({"class": recalls_of("class", list(LONG[:4]))}, overall=0.9, over="another seed", title="x"),
        tuning_figure({"a": np.array([0.5, 0.4, 0.6])}, label="WA", title="x"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("dark_background", "seaborn-v0_8-poster"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ggplot", "classic", "fivethirtyeight")),
    ],
)
def test_a_style_of_the_users_breaks_no_figure(name: str) -> None:
    with Look(style=read_style(name)).applied():
        for figure in looks_of_every_kind():
            no_text_collides(figure)
            assert to_hex(figure.get_facecolor()) == to_hex(read_style(name).get("figure.facecolor", "white"))
    assert draw(grid(range(1, 3), range(1, 3))).get_facecolor() == (1, 1, 1, 1)  # the next is as before


def test_a_style_changes_colours_and_not_sizes() -> None:
    look = {"axes.prop_cycle": cycler(color=["#123456", "#654321"]), "font.size": 30, "text.color": "#ff0000"}
    by_seed, summary = scores(2)
    with Look(style=look).applied():
        figure = names_figure(by_seed, summary, ["a", "b"], title="demo", seeds=5)
    assert any(line.get_color() == "#123456" for line in figure.axes[0].lines)
    assert figure.axes[0].get_xticklabels()[0].get_fontsize() == 7
    assert figure.legends[0].get_texts()[0].get_color() == "#ff0000"


def test_a_file_of_a_style_is_read_and_its_mistakes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "own.mplstyle"
    path.write_text("font.family: serif\nlines.linewidth: 3  # wide\n")
    assert read_style(str(path)) == {"font.family": ["serif"], "lines.linewidth": 3.0}
    for text, complaint in (
        ("lines.widht: 3", "Bad key lines.widht"),
        ("lines.linewidth: thick", "Bad value in file"),
        ("", "it has no setting"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=complaint) as caught:
            read_style(str(path))
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="there is no such file"):
        read_style(str(tmp_path / "other.mplstyle"))
    with pytest.raises(InputError, match=r"greyscale: neither .* the nearest are grayscale"):
        read_style("greyscale")


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_a_figure_is_written_in_the_form_that_is_asked_for(form: str, tmp_path: Path) -> None:
    figure = draw(grid(range(1, 3), range(1, 3)))
    (path,) = figures.save(figure, tmp_path / "a.b", Look(forms=(form,), dpi=60, title=False))
    assert path.name == f"a.b.{form}"
    assert path.read_bytes().lstrip().startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[form])
    assert figure.get_suptitle() == ""
    if form == "png":
        assert imread(path).shape[:2] == pytest.approx([60 * x for x in figure.get_size_inches()[::-1]], abs=1)


def test_every_figure_has_a_caption_of_one_to_three_sentences() -> None:
    results = study(np.random.default_rng(0), Noise(), size=(3, 4), variants=worse(1.0))
    about = results.about
    fusion = about.block("fusion")
    assert fusion
    made = plane(results.grid, Pair(1, 1), Pair(2, 2))
    told = [
        *(captions.of_plane(made, "mean"), captions.of_plane(made, "std"), captions.marginal(about, "")),
        captions.of_configurations(fusion, joined=False, published=True, seeds=5),
        captions.of_configurations(fusion, joined=True, published=False, seeds=1),
        *(captions.tuning(about), captions.comparison(about), captions.critical(), captions.curves(about)),
        *(captions.confusion(), captions.confusion_difference(), captions.errors(), captions.calibration()),
        *(captions.embedding(), captions.joint({"a": made, "b": made})),
    ]
    for text in told:
        assert text.endswith(".")
        assert 1 <= len(re.findall(r"\.(?= |$)", text)) <= 4
        assert "  " not in text
    assert captions.led("How wide?", "Each cell.") == "How wide? Each cell."
    assert captions.led("The grid", "Each cell.") == "The grid. Each cell."


def test_help_tells_every_figure() -> None:
    text = "".join(figures_parser().format_help().split())  # lines break anywhere, at hyphens too
    names = ("topk", "topk-sd", "marginal", "fusion", "ablation", "gaps", "curves", "confusion", "confusion-difference")
    names += ("errors", "calibration", "embedding")
    assert all(name in text for name in names)
    assert "--workers" not in text
