from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from study import figures
from study.design import Pair
from study.figures.topk import topk_heatmap
from study.ledger import METRICS


def grid(k_audio: range, k_text: range) -> pd.DataFrame:
    rows = []
    for a in k_audio:
        for t in k_text:
            x = 0.7 + 0.01 * a - 0.002 * t
            rows.append({"k_audio": a, "k_text": t, "n_seeds": 5, **{f"{m}_mean": x for m in METRICS}})
    return pd.DataFrame(rows)


def draw(made: pd.DataFrame, chosen: Pair | None = None, seeds: int = 5, k_audio: list[int] | None = None) -> Figure:
    figure = topk_heatmap(
        made,
        chosen,
        title="demo (synthetic)",
        seeds=seeds,
        k_audio=k_audio or sorted(set(made["k_audio"])),
        k_text=sorted(set(made["k_text"])),
    )
    FigureCanvasAgg(figure).draw()
    return figure


def test_the_full_grid_has_every_cell_the_chosen_framed_and_the_best_starred() -> None:
    figure = draw(grid(range(1, 11), range(1, 11)), Pair(8, 7))
    panels = figure.axes[:3]
    assert [ax.get_title() for ax in panels] == ["WA", "UA", "w-F1"]
    assert len(figure.axes) == 6  # a colour bar each
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
    boxes = [text.get_window_extent(renderer) for text in (figure._suptitle, figure._supxlabel)]  # type: ignore[attr-defined]
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
    assert "italics: fewer seeds" in figure.get_supxlabel()
    # a K of which no trial is done keeps its column
    figure = draw(grid(range(1, 4), range(1, 4)), k_audio=[1, 2, 3, 5])
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1", "2", "3", "5"]
    assert "italics" not in figure.get_supxlabel()


def test_it_is_saved_for_the_screen_and_for_print(tmp_path: Path) -> None:
    written = figures.save(draw(grid(range(1, 3), range(1, 3))), tmp_path / "fig2_topk")
    assert [p.name for p in written] == ["fig2_topk.png", "fig2_topk.pdf"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert b"/Type /Font" in written[1].read_bytes()
