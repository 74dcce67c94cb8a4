"""Tables as csv, Markdown and LaTeX: one for each block, and the statistics behind the claims."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from cemobam_core.files import written_atomically
from study.design.block import shown
from study.findings.analysis import MEASURES, Analysis, Comparison
from study.findings.results import About, AboutBlock
from study.findings.statistics import LEVEL, SEEDS_FOR_INTERVAL, holm
from study.findings.votes import Vote, vote_of
from study.findings.wording import (
    TRANSDUCTIVE,
    WHOSE,
    interval_cell,
    listed,
    more_or_less,
    p_value,
    points_of,
    seeds_in_words,
    signed,
)
from study.ledger.outcomes import Metric
from study.papers.cemobam.published import SWAP_NOTE

TABLE_FORMS = ("csv", "md", "tex")

LONGEST = 40
"""The most rows of a table for readers. A longer table is written only as csv."""

MEASURED = "Measured here"
"""The title of columns measured here, beside published ones. Markdown omits it."""

_MANY = 6  # columns that fit a column of a paper in footnotesize


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: The text.
        bold: Whether it is the best of its column.
        mark: The mark of a note: ``*``, ``†``, ``‡`` or ``§``.
    """

    text: str
    bold: bool = False
    mark: str = ""

    def markdown(self) -> str:
        """Return the cell as Markdown."""
        text = self.text.replace("|", "\\|")
        return (f"**{text}**" if self.bold else text) + self.mark.replace("*", "\\*")

    def latex(self) -> str:
        """Return the cell as LaTeX."""
        text = _escaped(self.text)
        mark = self.mark.replace("†", r"\dagger").replace("‡", r"\ddagger").replace("§", r"\mathsection")
        return (rf"\textbf{{\boldmath {text}}}" if self.bold else text) + (f"$^{{{mark}}}$" if mark else "")


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """One table in its three forms.

    Attributes:
        name: The name of its files: ``table1``.
        caption: The caption, without a full stop.
        notes: Notes below the table, in sentences.
        frame: The numbers of the csv, in percent as the paper prints them.
        head: The first column's name.
        groups: The other columns by group: each group's title, and the names of its columns.
        cells: The printed rows, each with its label first.
        wide: Whether LaTeX sets it across both columns of a page.
    """

    name: str
    caption: str
    notes: tuple[str, ...]
    frame: pd.DataFrame
    head: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    cells: tuple[tuple[str | Cell, ...], ...]
    wide: bool = False

    @property
    def title(self) -> str:
        """The beginning of the caption, for a table of contents."""
        found = re.match(r"(.+?)(:|(?<=[?!.])) ", self.caption)
        return found[1] if found else self.caption

    @property
    def titled(self) -> bool:
        """Whether the groups of columns have titles."""
        return any(title for title, _ in self.groups)

    @property
    def rows(self) -> list[list[Cell]]:
        """The printed rows, as cells."""
        return [[_cell(cell) for cell in row] for row in self.cells]

    def markdown(self, label: str = "") -> str:
        """Return the table as Markdown, without the group title of columns that are measured here.

        Args:
            label: Text before the caption, such as ``Table 1: ``.
        """
        head = [self.head]
        for title, columns in self.groups:
            head += [column if title in ("", "Ours", MEASURED) else f"{column} ({title.lower()})" for column in columns]
        body = pd.DataFrame([[cell.markdown() for cell in row] for row in self.rows], columns=head)
        align = ("left",) + ("right",) * (len(head) - 1)
        table = body.to_markdown(index=False, disable_numparse=True, colalign=align)
        notes = "".join(f"\n\n{plain_markdown(note)}" for note in self.notes)
        return f"**{label}{plain_markdown(self.caption)}.**\n\n{table}{notes}\n"

    def latex(self) -> str:
        """Return the table for a two-column paper. It needs ``booktabs``."""
        environment = "table*" if self.wide else "table"
        spans, rules, first = [""], [], 2
        for title, columns in self.groups:
            spans.append(f"\\multicolumn{{{len(columns)}}}{{c}}{{{_escaped(title)}}}")
            rules += [f"\\cmidrule(l){{{first}-{first + len(columns) - 1}}}"] if title else []
            first += len(columns)
        head = [self.head, *(column for _, columns in self.groups for column in columns)]
        rows = [spans, list(map(_escaped, head)), *([cell.latex() for cell in row] for row in self.rows)]
        lines = [" & ".join(row) + r" \\" for row in rows]
        if not self.titled:
            lines[0], rules = "", []
        return "\n".join(
            [
                rf"\begin{{{environment}}}[t]",
                r"\centering",
                rf"\caption{{{_escaped(self.caption)}.}}",
                rf"\label{{tab:{self.name}}}",
                r"\scriptsize" if len(head) > (2 * _MANY - 3 if self.wide else _MANY) else r"\footnotesize",
                r"\setlength{\tabcolsep}{2.5pt}",
                rf"\begin{{tabular}}{{@{{}}l{'c' * (len(head) - 1)}@{{}}}}",
                r"\toprule",
                *([lines[0], "".join(rules)] if lines[0] else []),
                lines[1],
                r"\midrule",
                *lines[2:],
                r"\bottomrule",
                r"\end{tabular}",
                *(rf"\par\smallskip\raggedright\scriptsize {_escaped(note)}" for note in self.notes),
                rf"\end{{{environment}}}",
                "",
            ]
        )

    def write(self, folder: Path) -> list[Path]:
        """Write ``<name>`` in every one of :data:`TABLE_FORMS` into the folder."""
        texts = (self.frame.to_csv(index=False, float_format="%.6g"), self.markdown(), self.latex())
        paths = []
        for form, text in zip(TABLE_FORMS, texts, strict=True):
            paths.append(folder / f"{self.name}.{form}")
            with written_atomically(paths[-1]) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return paths


def block_table(analysis: Analysis, block: AboutBlock, published: pd.DataFrame | None = None) -> Table:
    """Return a block's configurations on the test split, beside the published figures.

    Args:
        analysis: The analysis of the study.
        block: The block.
        published: Published figures in percent, with a row for each value of the block's only column. `None` or
            empty if there are none.
    """
    results, about = analysis.results, analysis.results.about
    measures = results.measures
    columns, keys, seeds = list(block.columns), results.keys(block), len(block.seeds)
    summary = results.block(block.name)
    ours = summary.set_index(columns).reindex(
        pd.MultiIndex.from_tuples(keys) if len(columns) > 1 else [k[0] for k in keys]
    )
    frame = pd.DataFrame(keys, columns=columns)
    frame["n_seeds"] = ours["n_seeds"].fillna(0).astype(int).to_numpy()
    for measure in measures:
        for figure in ("mean", "std"):
            frame[f"{measure}_{figure}"] = 100 * ours[f"test_{measure}_{figure}"].to_numpy()
    beside, printed_of = published is not None and len(published) > 0, list[str]()
    groups = [("Ours" if beside else "", tuple(measures.values()))]
    if published is not None and beside:
        theirs = published.set_index(columns[0]).reindex([key[0] for key in keys])
        printed_of = [measure for measure in measures if measure in theirs]
        for measure in printed_of:
            frame[f"{measure}_published"] = theirs[measure].to_numpy()
        groups.append(("Paper", tuple(measures[measure] for measure in printed_of)))
    for measure in measures:
        for figure in ("low", "high"):
            frame[f"{measure}_{figure}"] = 100 * ours[f"test_{measure}_{figure}"].to_numpy()
    made = [(metric, c) for metric, family in analysis.of(block.name).items() for c in family]
    differing = {(metric, c.second): c.verdict in ("better", "worse") for metric, c in made}
    cells: list[tuple[str | Cell, ...]] = []
    for key, row, transductive in zip(keys, frame.to_dict("records"), results.marked(block), strict=True):
        measured = [
            mean_cell(
                *(row[f"{m}_{x}"] for x in ("mean", "low", "high")),
                bold=is_best(row[f"{m}_mean"], frame[f"{m}_mean"]),
                mark="*" if differing.get((m, block.name_of(key))) else "",
            )
            for m in measures
        ]
        printed = [
            Cell(
                number(row[f"{m}_published"]),
                bold=is_best(row[f"{m}_published"], frame[f"{m}_published"]),
                mark="†" if _outside(row[f"{m}_published"], row[f"{m}_low"], row[f"{m}_high"]) else "",
            )
            for m in printed_of
        ]
        cells.append((Cell(block.brief(key), mark="§" if transductive else ""), *measured, *printed))
    marks = {cell.mark for cells_ in cells for cell in cells_ if isinstance(cell, Cell)}
    decided_by = next((c.decided_by for _, c in made), block.decided_by)
    notes = [
        *interval_notes(frame),
        *([f"Fresh seeds had no part in {'choosing K' if block.needs_pair else 'tuning'}."] if block.confirms else []),
        *_block_notes(frame, block, keys, marks, beside_published=beside, decided_by=decided_by),
    ]
    if vote := vote_of(results, block):
        frame = pd.concat([frame, _vote_record(block, keys[block.reference], vote)], ignore_index=True)[frame.columns]
        label = Cell(f"{block.brief(keys[block.reference])}, vote of {seeds_in_words(vote.seeds)}", mark="‡")
        cells.append((label, *(number(100 * vote.scores[m]) for m in measures), *("" for _ in printed_of)))
        notes.append(_vote_note(vote, measures))
    fresh = "fresh " if block.confirms else ""
    over = f"over {seeds} {fresh}{'seed' if seeds == 1 else 'seeds'}{interval_words(summary)}"
    return Table(
        name=block.table,
        caption=captioned(block.title, f"percent on the test split of {where(about, block)}; mean {over}"),
        notes=tuple(notes),
        frame=frame,
        head=block.head,
        groups=tuple(groups),
        cells=tuple(cells),
        wide=len(measures) + len(printed_of) > _MANY or vote is not None,
    )


def _block_notes(
    frame: pd.DataFrame,
    block: AboutBlock,
    keys: Sequence[tuple[Any, ...]],
    marks: set[str],
    *,
    beside_published: bool,
    decided_by: Literal["seed", "utterances"],
) -> list[str]:
    notes = []
    several = len(set(block.n_seeds)) > 1
    of = zip(keys, frame["n_seeds"], block.n_seeds, strict=True)
    short = [(key, n) for key, n, wanted in of if several or n < wanted]
    if short:
        counts = (", " if len(block.columns) == 1 else "; ").join(f"{block.brief(key)} {n}" for key, n in short)
        fewer = f"Finished seeds, where fewer than {len(block.seeds)}"
        notes.append(f"{'Seeds' if several else fewer}: {counts}.")
    if "*" in marks:
        reference = block.told(keys[block.reference])
        notes.append(
            f"* Differs from {reference} (p < 0.05 after Holm's correction, for {WHOSE[decided_by]}); comparisons.csv "
            "has the difference."
        )
    if "†" in marks:
        notes.append("† Outside our 95% interval.")
    if "§" in marks:
        notes.append(f"§ Evaluation graph joint: {TRANSDUCTIVE}.")
    if beside_published:
        notes.append(SWAP_NOTE)
    varied = [key[block.columns.index("evaluation_graph")] for key in keys if "evaluation_graph" in block.columns]
    if "joint" in varied:
        notes.append(f"Joint: {TRANSDUCTIVE}.")
    return notes


def _vote_record(block: AboutBlock, key: Sequence[Any], vote: Vote) -> pd.DataFrame:
    """Return the csv row of the vote of a configuration's seeds, given the configuration's values in the columns."""
    named = {block.columns[0]: f"{shown(key[0])} vote", **dict(zip(block.columns[1:], key[1:], strict=True))}
    figures = {f"{measure}_mean": 100 * score for measure, score in vote.scores.items()}
    return pd.DataFrame([{**named, "n_seeds": vote.seeds, **figures}])


def _vote_note(vote: Vote, measures: Mapping[Metric, str]) -> str:
    """Return the note on the vote of a configuration's seeds: its gain and its cost."""
    interval = ""
    if np.isfinite(vote.low):
        interval = f" (95% interval for other utterances {signed(100 * vote.low)} to {signed(100 * vote.high)})"
    gains = [
        f"{label} {more_or_less(vote.gains[measure])}{interval if measure == 'wa' else ''}"
        for measure, label in measures.items()
    ]
    return (
        f"‡ The label that most of the {vote.seeds} seeds give. Compared with the mean of these seeds: "
        f"{listed(gains)}. The vote needs {vote.seeds} trainings and {vote.seeds} evaluations instead of one. It is "
        "not a mean, so it has no interval over seeds."
    )


def captioned(title: str, text: str) -> str:
    """Return a caption: a title and what the table shows. The title may be a question."""
    if title.endswith(("?", ".", "!")):
        return f"{title} {text[0].upper()}{text[1:]}"
    return f"{title}: {text}"


def where(about: About, block: AboutBlock) -> str:
    """Return the data set, and the pair that a block was run at if it needs one."""
    pair = about.at if block.needs_pair else None
    at = f", K_audio = {pair.k_audio}, K_text = {pair.k_text}" if pair else ""
    graph = about.settings.get("evaluation_graph", "own")
    if graph == "own" or {"evaluation_graph", "profile"} & set(block.columns):  # configurations may have another
        return f"{about.title}{at}"
    return f"{about.title}{at}, evaluation graph {graph}{' (transductive)' if graph == 'joint' else ''}"


def variance_table(analysis: Analysis) -> Table | None:
    """Return the analysis of variance of the grid, or `None` if the grid cannot separate K from chance."""
    grid = analysis.grid
    if not analysis.variance or grid is None:
        return None
    rows = []
    for metric, variance in analysis.variance.items():
        p_values = holm([effect.p for effect in variance.effects])
        for effect, p in zip((*variance.effects, variance.pairs), (*p_values, np.nan), strict=True):
            rows.append({"metric": metric, "effect": effect.name, **asdict(effect), "p_holm": p})
            del rows[-1]["name"]
        rows[-1] |= {"share": variance.share, "share_low": variance.share_low, "share_high": variance.share_high}
    frame = pd.DataFrame(rows)
    shown = frame[frame["metric"] == analysis.metric]
    cells = [
        (
            "all pairs" if x["effect"] == "pairs" else x["effect"],
            f"{x['df']}",
            f"{x['omega2']:.3f}",
            f"{x['f']:.2f}",
            f"{x['epsilon']:.2f}",
            p_value(x["p"]),
            p_value(x["p_holm"]),
        )
        for x in shown.to_dict("records")
    ]
    notes = [
        f"Metric: {MEASURES[analysis.metric]}; the csv has the others. The analysis is within seeds. ω²: share of the "
        "variance of single trials. ε: correction of the degrees of freedom by Greenhouse and Geisser. p (Holm): "
        "corrected over the effects.",
    ]
    if grid.left_out:
        notes.append(f"Left out because not complete: {grid.left_out}.")
    return Table(
        name="variance",
        caption=f"Analysis of variance of the K grid: test split of {analysis.results.about.title}, "
        f"{seeds_in_words(len(grid.seeds))}",
        notes=tuple(notes),
        frame=frame,
        head="Effect",
        groups=(("", ("df", "ω²", "F", "ε", "p", "p (Holm)")),),
        cells=tuple(cells),
    )


def comparisons_table(analysis: Analysis) -> Table | None:
    """Return every compared pair of configurations, or `None` if there is none."""
    families = [analysis.of(block.name) for block in analysis.results.about.blocks]
    every = [c for family in families for comparisons in family.values() for c in comparisons]
    if not every:
        return None
    shown, left_out = _most_telling([c for c in every if c.metric == analysis.metric])
    known = any(c.utterances for c in shown)
    cells: list[tuple[str | Cell, ...]] = [
        (
            f"{_compared(analysis, c.family, c.first)} − {_compared(analysis, c.family, c.second)}",
            signed(100 * c.difference.mean),
            Cell(interval_cell(c.seed) or "–", mark="" if c.decided_by == "utterances" else "*"),
            *(
                [
                    Cell(
                        (c.utterances and interval_cell(c.utterances)) or "–",
                        mark="*" if c.decided_by == "utterances" else "",
                    )
                ]
                if known
                else []
            ),
            Cell(p_value(c.p_holm), bold=c.p_holm < LEVEL),
            " / ".join(_percent(chance) for chance in c.chances),
            c.verdict,
            str(c.difference.n),
        )
        for c in shown
    ]
    rope = points_of(analysis.results.about.rope)
    names = listed(list(dict.fromkeys(c.family for c in shown)))
    notes = [
        f"Points of {MEASURES[analysis.metric]}: the mean of the first minus the mean of the second, over the seeds "
        "that both have. The csv has the other metrics.",
        f"Intervals hold for {WHOSE['seed']} on the same test utterances"
        + (f", or for {WHOSE['utterances']}{_drawn(analysis)}. * marks the interval that decides." if known else "."),
        f"p is after Holm's correction within {names}; bold: below 0.05.",
        f"Better / same / worse: the probability in percent that the first is better by more than {rope}, practically "
        f"the same, or worse by more than {rope}. The verdict is on the first. Equivalent: two one-sided tests find "
        f"the difference within {rope}.",
        *([_LOOKS_NOTE] if analysis.results.about.looks else []),
        *left_out,
    ]
    return Table(
        name="comparisons",
        caption=f"Differences between configurations: test split of {analysis.results.about.title}, paired by seed",
        notes=tuple(notes),
        frame=pd.DataFrame([_comparison_row(c) for c in every]),
        head="Difference",
        groups=(
            ("", ("Points",)),
            ("95% interval", ("Another seed", *(("And other utterances",) if known else ()))),
            ("", ("p (Holm)", "Better / same / worse", "Verdict", "Seeds")),
        ),
        cells=tuple(cells),
        wide=True,
    )


_LOOKS_NOTE = (
    "The study compared the configurations after 5, 10 and 20 seeds. p-values and intervals hold for all looks "
    "together: each look has its share of the 5%."
)


def _drawn(analysis: Analysis) -> str:
    """Return how other utterances are sampled, if not independently."""
    by = analysis.sampling.by
    drawn = {"utterance of these speakers": " of the same speakers", "speaker": " of other speakers"}
    return {**drawn, "utterance": "", "fold": " of other folds"}[by]


def _percent(chance: float) -> str:
    """Return a probability in percent, never as 0 or 100."""
    if np.isnan(chance):
        return "–"
    return "<1" if chance < 0.005 else ">99" if chance > 0.995 else f"{100 * chance:.0f}"


def _comparison_row(c: Comparison) -> dict[str, Any]:
    """Return the csv row of a comparison."""
    other = c.utterances
    better, same, worse = c.chances
    return {
        **{"family": c.family, "metric": c.metric, "first": c.first, "second": c.second},
        **{"difference": 100 * c.difference.mean, "decided_by": WHOSE[c.decided_by]},
        **{"seed_low": 100 * c.seed.low, "seed_high": 100 * c.seed.high, "seed_p": c.seed.p},
        "utterances_low": 100 * other.low if other else np.nan,
        "utterances_high": 100 * other.high if other else np.nan,
        "utterances_p": other.p if other else np.nan,
        **{"d_z": c.seed.d_z, "p": c.p, "p_holm": c.p_holm, "p_equivalent": c.p_same},
        **{"chance_better": better, "chance_same": same, "chance_worse": worse, "verdict": c.verdict},
        **{"level": c.level, "n_seeds": c.difference.n, "n_utterances": other.utterances if other else 0},
    }


def agreement_table(analysis: Analysis) -> Table | None:
    """Return how often seeds and configurations agree on the test utterances, or `None` without predictions."""
    made = analysis.agreements[:LONGEST]
    if not made:
        return None
    frame = pd.DataFrame([asdict(one) for one in analysis.agreements])
    shares = ["within_first", "within_second", "between"]
    frame[shares] *= 100
    cells: list[tuple[str | Cell, ...]] = [
        (
            f"{_compared(analysis, one.family, one.first)} and {_compared(analysis, one.family, one.second)}",
            *(f"{100 * share:.1f}" if pd.notna(share) else "–" for share in (one.within_first, one.within_second)),
            f"{100 * one.between:.1f}",
            str(one.only_first),
            str(one.only_second),
            Cell(p_value(one.p_mcnemar), bold=one.p_mcnemar < LEVEL),
        )
        for one in made
    ]
    notes = (
        "Agreement: percent of the test utterances that get the same label from two seeds of the first, from two seeds "
        "of the second, and from one seed of each.",
        "Only correct: number of utterances that only the vote of the first's seeds labels correctly, and only that of "
        "the second's. McNemar's test compares the two votes. It holds for other utterances with these trainings and "
        "is not corrected for several tests.",
    )
    return Table(
        name="agreement",
        caption=f"Agreement of the predicted labels: test split of {analysis.results.about.title}",
        notes=notes,
        frame=frame,
        head="Configurations",
        groups=(
            ("Agreement", ("First", "Second", "Each other")),
            ("Only correct", ("First", "Second")),
            ("", ("McNemar p",)),
        ),
        cells=tuple(cells),
        wide=True,
    )


def _most_telling(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], list[str]]:
    """Return the comparisons that a table shows, at most :data:`LONGEST` of a family, and notes on the others."""
    kept: list[Comparison] = []
    notes = []
    for family in dict.fromkeys(c.family for c in comparisons):
        ours = [c for c in comparisons if c.family == family]
        if len(ours) > LONGEST:
            notes.append(
                f"Of {len(ours)} comparisons of {family}, the {LONGEST} with the smallest p are shown; the csv has all."
            )
            first = np.argsort([c.difference.p for c in ours], kind="stable")[:LONGEST]  # NaN comes last
            ours = [ours[i] for i in sorted(first)]
        kept += ours
    return kept, notes


def _compared(analysis: Analysis, family: str, name: str) -> str:
    """Return the name of one side of a comparison."""
    block = analysis.results.about.block(family)
    keys = analysis.results.keys(block) if block else []
    shown = {block.name_of(key): block.told(key) if len(key) == 1 else block.brief(key) for key in keys if block}
    return shown.get(name, name)


def selection_table(analysis: Analysis) -> Table | None:
    """Return the optimism of choosing the pair on validation and on test, or `None` if no pair is chosen."""
    grid = analysis.grid
    if not analysis.selections or grid is None:
        return None
    rows, cells = [], []
    enough = len(grid.seeds) >= SEEDS_FOR_INTERVAL
    interval = ", with its approximate 95% interval for another seed" if enough else ""
    for (split, metric), chosen in analysis.selections.items():
        pair = grid.pair(chosen.chosen)
        fresh, optimism = chosen.on_new_seed, chosen.optimism
        gap = 100 * (chosen.reported - analysis.selections["val", metric].reported)
        rows.append(
            {
                **{"chosen_on": split, "metric": metric, "k_audio": pair.k_audio, "k_text": pair.k_text},
                **{"reported": 100 * chosen.reported, "less_validation": gap},
                **{"new_seed_mean": 100 * fresh.mean, "new_seed_low": 100 * fresh.low},
                **{"new_seed_high": 100 * fresh.high, "optimism": 100 * optimism.mean},
                **{"optimism_low": 100 * optimism.low, "optimism_high": 100 * optimism.high},
                **{"same_choice": chosen.same, "n_seeds": len(grid.seeds)},
            }
        )
        cells.append(
            (
                f"{'validation' if split == 'val' else 'test'}, by {MEASURES[metric]}",
                str(pair),
                number(100 * chosen.reported),
                signed(gap) if split == "test" else "",
                number(100 * fresh.mean),
                with_interval(*(100 * x for x in (optimism.mean, optimism.low, optimism.high))),
                f"{chosen.same} of {len(grid.seeds)}",
            )
        )
    notes = [
        "Reported: test mean over the seeds that chose the pair. Test − val.: the reported score of the choice on test "
        "minus that of the choice on validation. New seed: test mean of each seed at the pair chosen on the other "
        f"seeds. Optimism: reported minus new seed{interval}. Same pair: how often the choice without one seed is the "
        "same pair. All choices use the same test utterances, so choosing on test is even more optimistic for other "
        "utterances.",
    ]
    if grid.left_out:
        notes.append(f"Left out because not complete: {grid.left_out}.")
    return Table(
        name="selection",
        caption=f"Optimism of choosing K: percent on the test split of {analysis.results.about.title}",
        notes=tuple(notes),
        frame=pd.DataFrame(rows),
        head="Chosen on",
        groups=(("", ("K", "Reported", "Test − val.", "New seed", "Optimism", "Same pair")),),
        cells=tuple(cells),
        wide=True,
    )


def plain_markdown(text: object) -> str:
    """Return text on one line that Markdown shows unchanged. An underscore within a word, as in K_audio, is safe."""
    return re.sub(r"([\\`*\[\]<>|#!])", r"\\\1", " ".join(str(text).split()))


def _cell(cell: str | Cell) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def is_best(value: float, column: pd.Series) -> bool:
    """Return whether a figure is the highest of a column that has at least two."""
    return bool(pd.notna(value) and column.notna().sum() > 1 and np.isclose(value, column.max(), rtol=0, atol=1e-9))


def _outside(value: float, low: float, high: float) -> bool:
    return bool(value < low or value > high)


def with_deviation(mean: float, std: float) -> str:
    """Return a mean ± a deviation, or the mean alone if there is none."""
    return f"{number(mean)} ± {number(std)}" if pd.notna(std) else number(mean)


def mean_cell(mean: float, low: float, high: float, *, bold: bool = False, mark: str = "") -> Cell:
    """Return a mean ± half of its interval, or a mean with both ends of an interval that is cut at 0 or 100%."""
    if _cut(mean, low, high):
        return Cell(f"{number(mean)} [{number(low)}, {number(high)}]", bold, mark)
    return Cell(with_deviation(mean, high - mean), bold, mark)


def interval_words(frame: pd.DataFrame) -> str:
    """Return the caption's words about intervals. Empty if no row has enough seeds for one."""
    return " ± half of the 95% interval" if (frame["n_seeds"] >= SEEDS_FOR_INTERVAL).any() else ""


def interval_notes(frame: pd.DataFrame) -> list[str]:
    """Return the notes on the intervals of a table.

    Args:
        frame: A frame with ``n_seeds``, and for each measure ``<measure>_low`` and ``_high``. The mean is
            ``<measure>_mean`` or ``<measure>``.
    """
    notes = []
    if (frame["n_seeds"] >= SEEDS_FOR_INTERVAL).any():
        notes.append("The 95% intervals of means hold for another seed on the same test utterances.")
    if frame["n_seeds"].between(1, SEEDS_FOR_INTERVAL - 1).any():
        notes.append(f"A mean over fewer than {SEEDS_FOR_INTERVAL} seeds has no interval.")
    shown = [measure for measure in MEASURES if f"{measure}_low" in frame]
    means = {measure: f"{measure}_mean" if f"{measure}_mean" in frame else measure for measure in shown}
    if any(
        _cut(row[means[measure]], row[f"{measure}_low"], row[f"{measure}_high"])
        for row in frame.to_dict("records")
        for measure in shown
    ):
        notes.append("An interval that reaches 0% or 100% is cut there and given with both ends.")
    return notes


def _cut(mean: float, low: float, high: float) -> bool:
    """Return whether an interval, in percent, is cut at 0 or 100. NaN is not."""
    return bool(abs((high - mean) - (mean - low)) > 1e-6)


def with_interval(difference: float, low: float, high: float) -> str:
    """Return a difference with its interval, or alone if it has none."""
    interval = f" [{signed(low)}, {signed(high)}]" if pd.notna(low) else ""
    return signed(difference) + interval


def number(value: float) -> str:
    """Return a number with two decimals, or a dash if it is missing."""
    return f"{value:.2f}".replace("-", "−") if pd.notna(value) else "–"


_LATEX = {
    **{character: f"\\{character}" for character in "%&#$_{}"},
    **{character: f"${character}$" for character in "<>|"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
}


def _escaped(text: str) -> str:
    """Return plain text for LaTeX.

    K_audio becomes a formula, 1.00 ± 0.10 a number with a small deviation, 1.00 [0.80, 1.10] one with two.
    """
    text = "".join(_LATEX.get(character, character) for character in text)
    text = re.sub(r"([\d.]+) ± ([\d.]+)", r"$\1_{\\pm \2}$", text)
    text = re.sub(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", _two_sided, text)
    for plain, formula in (
        ("±", r"$\pm$"),
        ("−", "$-$"),
        ("ω²", r"$\omega^2$"),
        ("ε", r"$\varepsilon$"),
        ("†", r"$\dagger$"),
        ("‡", r"$\ddagger$"),
        ("§", r"\S{}"),
        (r"K\_audio", r"$K_\mathrm{audio}$"),
        (r"K\_text", r"$K_\mathrm{text}$"),
    ):
        text = text.replace(plain, formula)
    return text


def _two_sided(match: re.Match[str]) -> str:
    """Return a mean and how far its interval reaches to either side, narrow enough for a column."""
    mean, low, high = map(float, match.groups())
    return f"${match[1]}^{{+{high - mean:.2f}}}_{{-{mean - low:.2f}}}$"
