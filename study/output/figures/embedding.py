"""A map of the fused embedding of the test utterances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from study.output.figures.style import COLOURS, COLUMN_WIDTH, MARKERS, colour, style


def embedding_figure(
    vectors: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], class_names: Sequence[str], *, title: str
) -> Figure:
    """Draw a t-SNE (van der Maaten and Hinton, 2008) of the classifier's input for each test utterance.

    Neighbours in the map are neighbours in the embedding. Distances between groups and their sizes mean nothing.

    Args:
        vectors: Embeddings (N, width).
        labels: Labels (N,).
        class_names: C names.
        title: Data set, K pair and seed, as figures show them.
    """
    from sklearn.manifold import TSNE  # noqa: PLC0415  (slow to import)

    n = len(vectors)
    # perplexity is the number of neighbours that count, and must be below N
    perplexity = min(30.0, (n - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(vectors)
    with style():
        figure = Figure(figsize=(COLUMN_WIDTH, 3.2 + 0.13 * len(class_names)), layout="constrained")
        ax = figure.subplots()
        for c, name in enumerate(class_names):
            here = labels == c
            x, y = points[here].T
            marker = MARKERS[(c + c // len(COLOURS)) % len(MARKERS)]  # no two classes share marker and colour
            label = name if len(name) <= 40 else name[:39] + "…"
            ax.scatter(x, y, s=9, marker=marker, color=colour(c), linewidth=0, alpha=0.8, label=label)
        ax.set(xticks=[], yticks=[])
        ax.spines[["left", "bottom"]].set_visible(False)
        columns = 2 if max(map(len, class_names)) <= 20 else 1
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, markerscale=1.5)
        figure.suptitle(title, fontsize=8, wrap=True)
    return figure
