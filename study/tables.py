"""Tables I and II: ours, mean ± standard deviation over seeds, beside the published figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cemobam_core.files import written_atomically
from study.published import SWAP_NOTE, published

MEASURES = {"wa": "WA", "ua": "UA", "wf1": "w-F1"}

_LABELS = {
    "fusion": {"cls": "CLS", "min": "MIN", "max": "MAX", "mean": "MEAN"},
    "modules": {"full": "CemoBAM", "no_xcbam": "w/o xCBAM", "no_chgat": "w/o CH-GAT"},
}
_HEADS = {"fusion": "Fusion", "modules": "Model"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """One table in its three forms.

    Attributes:
        name: of the files: ``table1``.
        caption: what it shows, in one sentence.
        notes: what a reader must know to trust it.
        frame: one row a variant: the key, ``n_seeds``, ``<measure>_mean`` and ``_std``, and ``<measure>_published``
            where the paper has it; in percent, as the paper prints them.
    """

    name: str
    caption: str
    notes: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def _key(self) -> str:
        return str(self.frame.columns[0])

    @property
    def _has_published(self) -> bool:
        return any(column.endswith("_published") for column in self.frame.columns)

    def _cells(self, plus_minus: str) -> list[list[str]]:
        rows = []
        for record in self.frame.to_dict("records"):
            ours = [_with_deviation(record[f"{m}_mean"], record[f"{m}_std"], plus_minus) for m in MEASURES]
            theirs = [_number(record[f"{m}_published"]) for m in MEASURES] if self._has_published else []
            rows.append([_LABELS[self._key][record[self._key]], *ours, *theirs])
        return rows

    def markdown(self) -> str:
        """For a repository or a terminal."""
        head = [_HEADS[self._key], *MEASURES.values()]
        if self._has_published:
            head += [f"{name} (paper)" for name in MEASURES.values()]
        body = pd.DataFrame(self._cells("{mean} ± {std}"), columns=head)
        table = body.to_markdown(index=False, disable_numparse=True, colalign=("left",) + ("right",) * (len(head) - 1))
        notes = "".join(f"\n\n{note}" for note in self.notes)
        return f"**{self.caption}**\n\n{table}{notes}\n"

    def latex(self) -> str:
        """For one column of a two-column paper; needs ``booktabs``."""
        groups = ["Ours", "Paper"] if self._has_published else ["Ours"]
        spans = [f"\\multicolumn{{3}}{{c}}{{{group}}}" for group in groups]
        rules = [f"\\cmidrule(l){{{3 * i + 2}-{3 * i + 4}}}" for i in range(len(groups))]
        head = [_HEADS[self._key], *(list(MEASURES.values()) * len(groups))]
        lines = [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_escaped(self.caption)}}}",
            rf"\label{{tab:{self.name}}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{2.5pt}",
            rf"\begin{{tabular}}{{@{{}}l{'ccc' * len(groups)}@{{}}}}",
            r"\toprule",
            " & ".join(["", *spans]) + r" \\",
            "".join(rules),
            " & ".join(head) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in self._cells(r"${mean}_{{\pm {std}}}$")),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip\raggedright\scriptsize {_escaped(note)}" for note in self.notes),
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``<name>.csv``, ``.md`` and ``.tex`` into the folder."""
        forms = {
            "csv": self.frame.to_csv(index=False, float_format="%.6g"),
            "md": self.markdown(),
            "tex": self.latex(),
        }
        paths = []
        for suffix, text in forms.items():
            paths.append(folder / f"{self.name}.{suffix}")
            with written_atomically(paths[-1]) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return paths


def comparison(
    summary: pd.DataFrame,
    key: str,
    variants: Sequence[str],
    *,
    name: str,
    caption: str,
    dataset: str,
    seeds: int,
) -> Table:
    """A table of variants: what was measured on the test split beside what was published.

    Args:
        summary: aggregated by ``key``, fractions.
        key: ``fusion`` or ``modules``.
        variants: the rows, in order.
        name: of the files and of the published data: ``table1``.
        caption: what it shows, in one sentence.
        dataset: whose published figures stand beside.
        seeds: how many were asked for; a row with fewer is noted.
    """
    ours = summary.set_index(key).reindex(list(variants))
    frame = pd.DataFrame({key: list(variants), "n_seeds": ours["n_seeds"].fillna(0).astype(int).to_numpy()})
    for measure in MEASURES:
        for figure in ("mean", "std"):
            frame[f"{measure}_{figure}"] = 100 * ours[f"test_{measure}_{figure}"].to_numpy()
    notes = []
    short = frame[frame["n_seeds"] < seeds]
    if len(short):
        counts = ", ".join(f"{_LABELS[key][row[key]]} {row['n_seeds']}" for row in short.to_dict("records"))
        notes.append(f"Fewer than {seeds} seeds are done: {counts}.")
    theirs = published(name, dataset)
    if len(theirs):
        theirs = theirs.set_index(key).reindex(list(variants))
        for measure in MEASURES:
            frame[f"{measure}_published"] = theirs[measure].to_numpy()
        notes.append(SWAP_NOTE)
    return Table(name=name, caption=caption, notes=tuple(notes), frame=frame)


def _with_deviation(mean: float, std: float, form: str) -> str:
    return form.format(mean=_number(mean), std=_number(std)) if pd.notna(std) else _number(mean)


def _number(value: float) -> str:
    return f"{value:.2f}" if pd.notna(value) else "–"


def _escaped(text: str) -> str:
    """Plain text for LaTeX; K_audio becomes a formula."""
    for modality in ("audio", "text"):
        text = text.replace(f"K_{modality}", rf"$K_\mathrm{{{modality}}}$")
    return text.replace("%", r"\%").replace("±", r"$\pm$").replace("&", r"\&")
