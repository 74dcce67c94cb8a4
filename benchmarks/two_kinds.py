"""Error rates and power of the statistics for both kinds of luck.

    python benchmarks/two_kinds.py [STUDIES] [SECTION ...]

Simulates studies with a known truth (``populations.py``) and prints one table per section, by default for all sections.
A share of 2,000 studies is accurate to 0.01. The first version of this tool tested seeds alone. If its data had taken
part in choosing K, it used the weaker of two tests. Its rules are included in short form, for comparison.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from populations import CLASSES, KINDS, Array, Labels, Luck, draw_family, draw_grids, draw_systems
from scipy import stats

from cemobam_core.metrics import METRICS
from study.design.seeds import LOOKS, SPENT
from study.findings.analysis import Comparison, judged
from study.findings.luck import (
    ROPE,
    contributions,
    crossed,
    equivalence,
    level,
    over_looks,
    probabilities,
    reproduced,
)
from study.findings.ranks import ranked
from study.findings.statistics import LEVEL, Difference, best, held_out, paired
from study.findings.systems import better_than_all, graph_helps

MOST = max(LOOKS)
TEST_SET = 1.2
Row = dict[str, Any]


def generator(section: str) -> np.random.Generator:
    """Return the random generator of a section, which is the same in every run."""
    return np.random.default_rng(list(section.encode()))


def differences(rng: np.random.Generator, luck: Luck, metrics: Iterable[str], **of: Any) -> dict[str, Array]:
    """Return the differences D[s, u] of two systems by metric."""
    labels, _, first, second = draw_systems(rng, luck, **of)
    return {m: contributions(first, labels, m, CLASSES) - contributions(second, labels, m, CLASSES) for m in metrics}


def differences_in_wa(rng: np.random.Generator, luck: Luck, **of: Any) -> Array:
    """Return the differences D[s, u] of two systems for WA, to which a correct utterance contributes 1."""
    labels, _, first, second = draw_systems(rng, luck, **of)
    return np.asarray((first == labels) * 1.0 - (second == labels))


def over_seeds(values: Array, level: float = LEVEL) -> Difference:
    """Return the result of the test over seeds alone."""
    return paired(values.mean(axis=1), np.zeros(len(values)), level)


def claimed(values: list[Difference]) -> float:
    """Return the share of tests that claim an effect at 5%."""
    return float(np.mean([value.p < LEVEL for value in values]))


def shares(claims: list[dict[str, bool]]) -> Row:
    """Return the share of studies in which each test claimed an effect."""
    return {name: float(np.mean([study[name] for study in claims])) for name in claims[0]}


def null(studies: int) -> Iterator[Row]:
    """Measure how often equally good systems are said to differ, by seeds alone and with both kinds of luck."""
    rng = generator("null")
    for test_set in (0.0, TEST_SET):
        for kind, luck in KINDS.items():
            claims: list[dict[str, bool]] = []
            for _ in range(studies):
                made = differences(rng, replace(luck, test_set=test_set), METRICS, seeds=MOST)
                claims.append({f"seeds alone, WA, {n}": over_seeds(made["wa"][:n]).p < LEVEL for n in LOOKS})
                for metric in METRICS:
                    for n in LOOKS:
                        claims[-1][f"both, {METRICS[metric].label}, {n}"] = crossed(made[metric][:n]).p < LEVEL
            yield {"luck": kind, "test set": test_set} | shares(claims)


def power(studies: int) -> Iterator[Row]:
    """Measure how often an advantage of one or two points of WA is found, with gaussian luck of 1 point."""
    rng = generator("power")
    for test_set in (0.0, 0.6, TEST_SET):
        for edge in (1.0, 2.0):
            luck = replace(KINDS["gaussian"], test_set=test_set)
            claims: list[dict[str, bool]] = []
            for _ in range(studies):
                made = differences_in_wa(rng, luck, seeds=MOST, edge=edge)
                claims.append({f"seeds alone, {n}": over_seeds(made[:n]).p < LEVEL for n in LOOKS})
                claims[-1] |= {f"both, {n}": crossed(made[:n]).p < LEVEL for n in LOOKS}
            yield {"test set": test_set, "edge": edge} | shares(claims)


def pigeonhole(studies: int, draws: int = 500) -> Iterator[Row]:
    """Measure coverage and width of 95% intervals, and of Owen's (2007) bootstrap of seeds and utterances."""
    rng = generator("pigeonhole")
    for metric in ("wa", "macro_f1"):
        for n in LOOKS:
            held: dict[str, list[tuple[bool, float]]] = {"seeds alone": [], "both": [], "pigeonhole": []}
            for _ in range(studies):
                luck = replace(KINDS["gaussian"], test_set=TEST_SET)
                values = differences(rng, luck, (metric,), seeds=n)[metric]
                for name, interval in (("seeds alone", over_seeds(values)), ("both", crossed(values))):
                    held[name].append((interval.low <= 0 <= interval.high, interval.high - interval.low))
                of_seeds = rng.multinomial(n, np.full(n, 1 / n), draws)
                of_utterances = rng.multinomial(values.shape[1], np.full(values.shape[1], 1 / values.shape[1]), draws)
                means = ((of_seeds @ values) * of_utterances).sum(axis=1) / values.size
                low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
                held["pigeonhole"].append((low <= 0 <= high, high - low))
            row: Row = {"metric": METRICS[metric].label, "seeds": n}
            for name, values_held in held.items():
                row[f"{name}: holds"] = np.mean([inside for inside, _ in values_held])
                row[f"{name}: width"] = 100 * np.mean([width for _, width in values_held])
            yield row


def speakers(studies: int) -> Iterator[Row]:
    """Measure false claims about other speakers if two equally good systems suit different speakers better."""
    rng = generator("speakers")
    for deviation in (0.0, 2.0, 4.0):
        for groups in (2, 4, 6, 8, 10, 20):
            luck = replace(KINDS["gaussian"], test_set=0.6, speaker=deviation)
            alone, by_speaker, widths, found = [], [], [], []
            for _ in range(studies):
                labels, speaker, first, second = draw_systems(rng, luck, seeds=10, speakers=groups)
                values = (first == labels) * 1.0 - (second == labels)
                alone.append(crossed(values))
                by_speaker.append(crossed(values, clusters=speaker))
                widths.append(100 * (by_speaker[-1].high - by_speaker[-1].low))
                found.append(crossed(values + 0.03, clusters=speaker))  # three points better
            yield {
                "of speakers": deviation,
                "speakers": groups,
                "utterances": claimed(alone),
                "clusters": claimed(by_speaker),
                "width, clusters": float(np.median(widths)),
                "width, utterances": float(np.median([100 * (one.high - one.low) for one in alone])),
                "3 points found, clusters": claimed(found),
            }


def folds(studies: int, n: int = 400, parts: int = 5, seeds: int = 5) -> Iterator[Row]:
    """Measure false claims about two equally good learners in a cross-validation with five folds.

    The learners are trained in each fold. Each learner is a linear discriminant on 60 features of its own, of which a
    seed uses a share. A large share leaves little luck to seeds. What the learners learn from a small training set
    varies, and training sets overlap.
    """
    rng = generator("folds")
    signal = 0.5 * (np.arange(60) < 12)
    for share in (0.5, 0.9, 1.0):
        claims: list[dict[str, bool]] = []
        for _ in range(studies):
            labels, which = rng.integers(0, 2, n), np.arange(n) % parts
            values = np.zeros((seeds, n))
            for sign in (1.0, -1.0):
                features = rng.standard_normal((n, len(signal))) + np.where(labels, 1.0, -1.0)[:, None] * signal
                for seed in range(seeds):
                    kept = rng.permutation(len(signal))[: int(share * len(signal))]
                    for part in range(parts):
                        tested = which == part
                        values[seed, tested] += sign * _discriminant(features[:, kept], labels, tested)
            claims.append(
                {
                    "seeds alone": over_seeds(values).p < LEVEL,
                    "utterances": crossed(values).p < LEVEL,
                    "folds": crossed(values, clusters=which).p < LEVEL,
                    "folds, corrected": crossed(values, clusters=which, fold_ratio=1 / (parts - 1)).p < LEVEL,
                }
            )
        yield {"features of a seed": share} | shares(claims)


def _discriminant(features: Array, labels: Labels, tested: npt.NDArray[np.bool_]) -> Array:
    """Return where a linear discriminant, fitted to the other utterances, is correct."""
    train, of = features[~tested], labels[~tested]
    means = np.stack([train[of == c].mean(axis=0) for c in (0, 1)])
    centred = train - means[of]
    weights = np.linalg.solve(centred.T @ centred / len(train) + 0.01 * np.eye(train.shape[1]), means[1] - means[0])
    return np.asarray(((features[tested] - means.mean(axis=0)) @ weights > 0) == labels[tested], dtype=float)


def first_version(choosing: Array, measured: Array, variant: Array) -> bool:
    """Return whether the first version called a variant worse or better than the chosen pair, on the same seeds."""
    chosen = int(best(choosing.mean(axis=0).ravel()))
    other = variant.reshape(len(variant), -1)[:, chosen]
    as_it_is = paired(measured.reshape(len(measured), -1)[:, chosen], other)
    as_others_choose = paired(held_out(choosing, measured), other)
    return as_it_is.mean * as_others_choose.mean > 0 and max(as_it_is.p, as_others_choose.p) < LEVEL


def confirm(studies: int) -> Iterator[Row]:
    """Measure claims about a variant and the best of 100 pairs that seeds 0 to 4 chose, on the same or fresh seeds."""
    rng = generator("confirm")
    for kind in KINDS:
        row: Row = {"luck": kind}
        drawn = [[grid / 100 for grid in draw_grids(rng, kind, 5 + 10)] for _ in range(studies)]
        for edge in (0.0, 1.0, 2.0):
            claims: dict[str, list[bool]] = {
                "first version": [],
                "same seeds": [],
                "5 fresh": [],
                "10 fresh": [],
            }
            for val, test, same_as in drawn:
                variant = same_as - edge / 100
                claims["first version"].append(first_version(val[:5], test[:5], variant[:5]))
                chosen = int(best(val[:5].mean(axis=0).ravel()))
                own, other = (grid.reshape(15, -1)[:, chosen] for grid in (test, variant))
                claims["same seeds"].append(paired(own[:5], other[:5]).p < LEVEL)
                claims["5 fresh"].append(paired(own[5:10], other[5:10]).p < LEVEL)
                claims["10 fresh"].append(paired(own[5:], other[5:]).p < LEVEL)
            row |= {f"{name}, {edge:g}": np.mean(of) for name, of in claims.items()}
        yield row


def looks(studies: int) -> Iterator[Row]:
    """Measure verdicts and seeds used with looks after 5, 10 and 20 fresh seeds, stopping for effect or equivalence."""
    rng = generator("looks")
    for both in (False, True):
        for kind, luck in KINDS.items():
            of = replace(luck, test_set=0.6 if both else 0.0)
            for edge in (0.0, 1.0, 2.0):
                ends = [
                    until_clear(differences_in_wa(rng, of, seeds=MOST, edge=edge), both=both) for _ in range(studies)
                ]
                yield {
                    "luck": kind,
                    "over": "seeds and utterances" if both else "seeds",
                    "edge": edge,
                    "effect": np.mean([verdict == "effect" for verdict, _ in ends]),
                    "equivalent": np.mean([verdict == "equivalent" for verdict, _ in ends]),
                    "seeds": np.mean([n for _, n in ends]),
                }


def until_clear(values: Array, *, both: bool) -> tuple[str, int]:
    """Return the verdict and the number of seeds after which it was reached."""
    for n, spent in zip(LOOKS, SPENT, strict=True):
        made = crossed(values[:n], level=spent) if both else over_seeds(values[:n], spent)
        if over_looks(made.p, spent) < LEVEL:
            return "effect", n
        if over_looks(equivalence(made), spent) < LEVEL:
            return "equivalent", n
    return "undecided", LOOKS[-1]


def edge_of_the_rope(studies: int) -> Iterator[Row]:
    """Measure how often two one-sided tests call a difference of exactly one point, or of none, practically none."""
    rng = generator("rope")
    for kind, luck in KINDS.items():
        row: Row = {"luck": kind}
        for edge in (1.0, 0.0):
            for both in (False, True):
                of = replace(luck, test_set=0.6 if both else 0.0)
                made = [differences_in_wa(rng, of, seeds=MOST, edge=edge) for _ in range(studies)]
                for n in LOOKS:
                    found = [equivalence(crossed(d[:n]) if both else over_seeds(d[:n])) < LEVEL for d in made]
                    row[f"{edge:g}, {'both' if both else 'seeds'}, {n}"] = np.mean(found)
        yield row


def calibrated(studies: int, seeds: int = 5) -> Iterator[Row]:
    """Compare the stated probability of an advantage of over a point with its frequency, if true values are drawn."""
    rng = generator("calibrated")
    bins = np.array([0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1])
    for both in (False, True):
        for spread in (1.0, 2.0, 4.0):
            told: list[float] = []
            true: list[bool] = []
            for _ in range(2 * studies):
                edge = float(np.round(spread * rng.standard_normal(), 2))
                luck = replace(KINDS["gaussian"], test_set=0.6 if both else 0.0)
                values = differences_in_wa(rng, luck, seeds=seeds, edge=edge)
                made = probabilities(crossed(values) if both else over_seeds(values))
                told += made
                true += [edge > 100 * ROPE, abs(edge) <= 100 * ROPE, edge < -100 * ROPE]
            place = np.clip(np.digitize(told, bins) - 1, 0, len(bins) - 2)
            for i in range(len(bins) - 1):
                inside = place == i
                yield {
                    "over": "seeds and utterances" if both else "seeds",
                    "true differences' deviation": spread,
                    "told": f"{bins[i]:g} to {bins[i + 1]:g}",
                    "mean told": np.asarray(told)[inside].mean(),
                    "was so": np.asarray(true)[inside].mean(),
                    "of": int(inside.sum()),
                }


def levels(studies: int) -> Iterator[Row]:
    """Measure verdicts on fair and other replications of a published level of five seeds on its own test set.

    WA and UA count, each at half the level for "lower" and "higher". Both must be "reproduced", as in the claims.
    """
    rng = generator("levels")
    for kind, luck in KINDS.items():
        for short in (0.0, 2.0, 5.0):
            for n in (5, 20):
                ends: list[tuple[str, str]] = []
                for _ in range(studies):
                    labels, _, ours, _ = draw_systems(rng, luck, seeds=n)
                    theirs_labels, _, theirs, _ = draw_systems(rng, luck, seeds=5, edge=short)
                    published = {m: contributions(theirs, theirs_labels, m, CLASSES).mean() for m in ("wa", "ua")}
                    values = {m: contributions(ours, labels, m, CLASSES) for m in ("wa", "ua")}
                    ends.append((_now(values, published), _first_version_of_level(values, published)))
                for number, version in enumerate(("now", "first version")):
                    verdicts = [end[number] for end in ends]
                    yield {
                        "luck": kind,
                        "ours is lower by": short,
                        "seeds": n,
                        "version": version,
                        **{v: verdicts.count(v) / len(ends) for v in ("reproduced", "lower", "higher", "undecided")},
                    }


def _now(values: dict[str, Array], published: dict[str, float]) -> str:
    made = [reproduced(level(values[m]), published[m]) for m in values]
    if all(equivalence(one) < LEVEL for one in made):
        return "reproduced"
    told = [one for one in made if one.p < LEVEL / len(made)]
    return "undecided" if not told else "lower" if min(one.mean for one in told) < 0 else "higher"


def _first_version_of_level(values: dict[str, Array], published: dict[str, float]) -> str:
    reached, lower, higher = True, False, False
    for metric, contributed in values.items():
        of_seed = contributed.mean(axis=1)
        n, mean, std = len(of_seed), of_seed.mean(), of_seed.std(ddof=1)
        half = stats.t.ppf(1 - LEVEL / 2, n - 1) * std / np.sqrt(n)
        reach = stats.t.ppf(1 - LEVEL / 4, n - 1) * std * np.sqrt(1 / n + 1 / 5)
        reached &= max(abs(mean - half - published[metric]), abs(mean + half - published[metric])) <= ROPE
        lower |= mean < published[metric] - reach
        higher |= mean > published[metric] + reach
    return "reproduced" if reached else "lower" if lower else "higher" if higher else "undecided"


def graph(studies: int) -> Iterator[Row]:
    """Measure how often "Does a graph help?" is confirmed and contradicted if the best systems of both kinds are equal.

    Validation chooses among 12 systems without a graph, of which all but one are worse by the stated points.
    *Confirmed* and *contradicted* are the verdicts of the claim, *at 5%* those without the correction of the level.
    *Pair* is the plain test of the two systems that validation chooses.
    """
    rng = generator("graph")
    for test_set in (0.0, TEST_SET):
        for kind in ("gaussian", "all at once"):
            for count, behind in ((8, 0.0), (8, 1.0), (8, 3.0), (1, 0.0), (1, 3.0)):
                luck = replace(KINDS[kind], test_set=test_set)
                edges = np.array([0.0] * (count + 1) + [-behind] * 11)
                ends = shares([_asked(rng, luck, edges, count) for _ in range(studies)])
                yield {"luck": kind, "test set": test_set, "with a graph": count, "others behind": behind} | ends
    for ahead in (2.0, 4.0, 6.0):
        luck = replace(KINDS["gaussian"], test_set=TEST_SET)
        ends = shares([_asked(rng, luck, np.array([ahead] + [0.0] * 19), 8) for _ in range(studies)])
        yield {"luck": "gaussian", "test set": TEST_SET, "with a graph": 8, "one ahead": ahead} | ends


def _asked(rng: np.random.Generator, luck: Luck, edges: Array, count: int) -> dict[str, bool]:
    val, test = draw_family(rng, luck, edges, seeds=5)
    chosen = val.mean(axis=(1, 2))
    first, second = int(chosen[:count].argmax()), count + int(chosen[count:].argmax())
    made = _family([test[i] - test[second] for i in range(count)])
    ahead = [bool(x.mean() > test[count:].mean(axis=(1, 2)).max()) for x in test[:count]]
    pair = made[first]
    return {
        "confirmed": graph_helps(made, ahead) == "confirmed",
        "contradicted": graph_helps(made, ahead) == "contradicted",
        "at 5%: confirmed": any(c.verdict == "better" for c in made),
        "at 5%: contradicted": all(c.p < LEVEL and c.difference.mean < 0 for c in made),
        "pair: confirmed": pair.p < LEVEL and pair.difference.mean > 0,
        "pair: contradicted": pair.p < LEVEL and pair.difference.mean < 0,
    }


def best_of_systems(studies: int) -> Iterator[Row]:
    """Measure how often "Is CemoBAM better than 19 others?" is confirmed and contradicted, for a known advantage."""
    rng = generator("best")
    for test_set in (0.0, TEST_SET):
        for kind in ("gaussian", "uneven: 0.5 and 2", "all at once"):
            for ahead, equals in ((0.0, 19), (0.0, 1), (4.0, 19), (8.0, 19)):
                luck = replace(KINDS[kind], test_set=test_set)
                if ahead and (kind, test_set) != ("gaussian", TEST_SET):
                    continue
                edges = np.array([ahead] + [0.0] * equals + [-20.0] * (19 - equals))
                ends = []
                for _ in range(studies):
                    _, test = draw_family(rng, luck, edges, seeds=5, val=1)
                    said = better_than_all(_family([test[0] - other for other in test[1:]]))
                    ends.append({"confirmed": said == "confirmed", "contradicted": said == "contradicted"})
                yield {"luck": kind, "test set": test_set, "ahead": ahead, "equals": equals} | shares(ends)


def _family(values: list[Array]) -> list[Comparison]:
    """Return differences as the comparisons of one family."""
    return judged(
        [
            Comparison(
                family="",
                metric="wa",
                first="",
                second="",
                seed=(made := crossed(one)),
                utterances=made,
                decided_by="utterances",
                level=LEVEL,
                components=None,
                rope=100 * ROPE,
            )
            for one in values
        ]
    )


def folds_ranked(studies: int, systems: int = 20, n: int = 5) -> Iterator[Row]:
    """Measure how often the tests of Friedman and Nemenyi find a difference of equal systems on independent corpora."""
    rng = generator("ranks")
    for k in (3, 10, systems):
        for corpora in (n, 2 * n):
            made = [ranked(pd.DataFrame(rng.standard_normal((corpora, k)))) for _ in range(studies)]
            yield {
                "systems": k,
                "corpora": corpora,
                "Friedman": np.mean([one.p < LEVEL for one in made]),
                "any pair": np.mean([one.means[-1] - one.means[0] > one.critical for one in made]),
            }


SECTIONS: dict[str, Callable[[int], Iterator[Row]]] = {
    "null": null,
    "power": power,
    "pigeonhole": pigeonhole,
    "speakers": speakers,
    "folds": folds,
    "confirm": confirm,
    "looks": looks,
    "rope": edge_of_the_rope,
    "calibrated": calibrated,
    "levels": levels,
    "graph": graph,
    "best": best_of_systems,
    "ranks": folds_ranked,
}


def main(studies: int, sections: list[str]) -> None:
    """Print the tables of the sections, with ``studies`` simulations per row."""
    for name in sections or SECTIONS:
        rows = list(SECTIONS[name](studies))
        print(f"\n## {name}: {(SECTIONS[name].__doc__ or '').splitlines()[0]}\n", flush=True)
        print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3f"), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, sys.argv[2:])
