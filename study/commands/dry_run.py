"""The option ``--dry-run``: print the plan of a study and an estimate of its time."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import psutil

from study.commands.machine import cores, engine_of
from study.commands.recall import so_far
from study.commands.request import Request
from study.commands.wording import duration, rounded, spanned
from study.ledger.outcomes import StudyFacts

# Modules that import torch are imported where they are used: the local engine's server starts first.
if TYPE_CHECKING:
    from cemobam_core.corpora.splits import Assignment
    from cemobam_core.encoders.settings import Recipe
    from cemobam_core.features import Fold
    from study.design.configuration import Configuration
    from study.driver import StudyRun

_ANSWER_S, _LEAST_TIMED_S = 16.0, 5.0
"""Seconds within which ``--dry-run`` should answer, and the least that it spends on timing."""


def dry_run(
    request: Request,
    folds: tuple[Fold, ...],
    facts: StudyFacts,
    devices: Sequence[str],
    *,
    needs: str,
    shortage: str,
) -> None:
    """Print how many trials there are and how many are done, and time some epochs to estimate the rest.

    Args:
        request: The study.
        folds: Its features.
        facts: Its facts.
        devices: Device of each worker.
        needs: The memory that it needs, in words.
        shortage: Why it does not fit into the memory, or an empty string if it fits.
    """
    run = so_far(request, facts)
    request.check_pair(run)
    asked, done = run.counts()
    print(f"{facts.title}: {asked} trials, {done} done, {asked - done} to run")
    _print_plan(request, run, {name: len(features) for name, features in folds[0].splits.items()})
    if asked == done:
        print("  time        none: every trial is done")
        return
    print(f"  memory      about {needs}")
    if shortage:
        print(textwrap.fill(f"warning: {shortage}", 100, initial_indent=" " * 14, subsequent_indent=" " * 14))
    print("  time        measuring, about 15 s …", flush=True)
    _print_time(request, run, folds[0], devices, unfinished=asked - done)


def dry_run_before_features(request: Request, run: StudyRun, recipe: Recipe, folds: Sequence[Assignment]) -> None:
    """Print the plan of a study whose features do not exist yet."""
    from cemobam_core.corpora.leaks import copies, leaks

    raw = recipe.corpus
    asked = sum(len(run.planned(block)) for block in run.plan.blocks)
    print(f"{raw.title}: at most {asked} trials (blocks share some); features are made first", *raw.notes, sep="\n  ")
    _print_plan(request, run, {name: len(utterances) for name, utterances in folds[0].splits.items()})
    for modality, layers in zip(("audio", "text"), recipe.tuned, strict=True):
        tuned = f"the upper {layers} layers fine-tuned" if layers else "not fine-tuned"
        print(f"  {modality:<11} {getattr(recipe, modality).name}, {tuned}")
    print(*(f"  leaks       {leak}" for leak in leaks(*folds)), sep="\n")
    for line in copies(*folds, k=request.k_max()) if request.k_max() else ():
        print(textwrap.fill(str(line), 100, initial_indent="  ties        ", subsequent_indent=" " * 14))
    print("  time        known after the features are made: run without --dry-run, or use cemobam features")


def _print_plan(request: Request, run: StudyRun, sizes: Mapping[str, int]) -> None:
    design, pair = run.plan.design, run.pair()
    folds = f", {request.folds} folds" if request.folds > 1 else ""
    print(f"  features    {', '.join(f'{name} {n}' for name, n in sizes.items())} utterances{folds}")
    if tuning := run.plan.tuning:
        tuned = f"{len(tuning.systems)} system{'s' if len(tuning.systems) > 1 else ''}"
        print(f"  tuning      {tuned}, at most {tuning.budget} configurations each, seed {design.seeds[0]}")
        if run.to_come:
            print(f"  tuned       what validation chooses, seeds {spanned(design.fresh_seeds)}")
    for block in run.plan.blocks:
        if design.blocks[block].tunes:
            continue
        trials = run.planned(block)
        at = f" at K {pair}" if pair else f" at the K pair that {design.choosing or 'the user'} chooses"
        fresh = f", seeds {spanned(run.seeds_of(block))}" if run.confirms(block) else ""
        print(f"  {block:<11} {len(trials)} trials{at if design.needs_pair(block) else ''}{fresh}")
    settings = ", ".join(f"{name} {value}" for name, value in design.shared().items())
    print(textwrap.fill(settings, 100, initial_indent="  settings    ", subsequent_indent=" " * 14), flush=True)


def _print_time(request: Request, run: StudyRun, fold: Fold, devices: Sequence[str], *, unfinished: int) -> None:
    from study.commands.estimate import parts, time_trials, typical
    from study.engines.execution import StudyData, at_once

    # More workers than cores or trials do not help; on GPUs the user sets their number.
    gpu, here = devices[0] != "cpu", devices[0] == "cpu" and not request.args.ray_address
    side_by_side = max(1, min(len(devices), unfinished, cores() if here else len(devices)))
    trial = typical(run)
    k_max = max(trial.pair.k_audio, trial.pair.k_text) if trial.pair else 0
    timed = parts(fold, k_max)
    prepared = StudyData.prepare(timed, k_max, graphs=[trial.graph] if trial.graph else [])
    with engine_of(request.args, prepared, devices[:side_by_side]) as engine:
        one = time_trials(
            trial,
            fold,
            timed,
            engine,
            side_by_side=side_by_side * at_once(devices[0]),
            budget=max(_LEAST_TIMED_S, _ANSWER_S - (time.time() - psutil.Process().create_time())),
            gpu=gpu,
        )
    rounds = unfinished / side_by_side
    whole, low, high = (duration(seconds * rounds) for seconds in (one.seconds, one.low, one.high))
    print(
        f"  time        about {whole}, between {low} and {high}: {rounded(one.seconds)} s a trial, "
        f"{side_by_side} at a time{_as_if(run, trial)}"
    )
    if one.timed_on == one.of:
        print(f"              (epochs timed on the train split, {one.of} utterances, on {devices[0]})")
    else:
        print(
            f"              (extrapolated: epochs timed on {one.timed_on} of {one.of} utterances of the train split, "
            f"on {devices[0]})"
        )


def _as_if(run: StudyRun, timed: Configuration) -> str:
    """Return a remark that all trials are estimated as one system's, or an empty string for a single system."""
    from cemobam_core.systems import name_of
    from study.design.design import ANY_PAIR

    design = run.plan.design
    systems = {type(one.system) for block in run.plan.blocks for one in design.configurations(block, ANY_PAIR)}
    return f", as if all were of {name_of(timed.system)}" if len(systems) > 1 else ""
