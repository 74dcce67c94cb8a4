"""The options ``--keep-models`` and ``--keep-probabilities``: check for room, and train missing models again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from cemobam_core.errors import InputError
from cemobam_core.systems import EstimatorSystem, FittedSystem, name_of
from study.commands.machine import engine_of
from study.commands.progress import described
from study.commands.request import Request
from study.design.configuration import Trial
from study.design.design import ANY_PAIR, distinct
from study.ledger.outcomes import StudyFacts

# Modules that import torch are imported where they are used: the local engine's server starts first.
if TYPE_CHECKING:
    from cemobam_core.features import Fold
    from study.driver import StudyRun
    from study.engines.models import Keeping
    from study.engines.probabilities import KeptProbabilities


def keeping_of(request: Request, facts: StudyFacts) -> Keeping:
    """Return where and how the study's trained models are kept."""
    from study.engines.models import Keeping

    return Keeping(folder=request.models, dataset=facts.dataset, fingerprint=facts.fingerprint)


def probabilities_of(request: Request, facts: StudyFacts) -> KeptProbabilities:
    """Return where the probabilities of the study's test utterances are kept."""
    from study.engines.probabilities import KeptProbabilities

    return KeptProbabilities(folder=request.probabilities, fingerprint=facts.fingerprint)


def check_room_of_probabilities(request: Request, trials: int, folds: tuple[Fold, ...]) -> None:
    """Check that the disk has room for the probabilities to keep.

    Args:
        request: The study that is asked for.
        trials: Number of trials to run.
        folds: Features of the study.

    Raises:
        InputError: The disk has too little room.
    """
    needed = trials * max(2 * len(fold.test) * fold.test.num_classes for fold in folds)
    free = shutil.disk_usage(request.results).free
    if needed > free:
        raise InputError(
            f"--keep-probabilities: {trials} trials need {needed / 1e9:.3f} GB and {request.results} has "
            f"{free / 1e9:.3f} GB left; free some space, give other --results, or leave the option out"
        )


def told_of_probabilities(request: Request, run: StudyRun) -> str:
    """Return a sentence about how many trials have their probabilities kept."""
    kept = probabilities_of(request, run.facts)
    known = run.known(trial for block in run.plan.blocks for trial in run.trials(block))
    places = {kept.place(trial) for trial, outcome in known.items() if outcome.status == "done"}
    there = sum(place.is_file() for place in places)
    sentence = f"the probabilities of {there} of {len(places)} trials are kept under {kept.folder}"
    return sentence if there == len(places) else f"{sentence}; the others were run without --keep-probabilities"


def check_kept(request: Request, run: StudyRun) -> None:
    """Check that the models to keep can be kept.

    Raises:
        InputError: A system is fitted without an estimator that can be written to a file.
    """
    kept = {name_of(trial.configuration.system): trial.configuration.system for trial in _wanted(request, run)}
    kept |= {name_of(system): system for system in [request.design.base.system]}
    for name, system in kept.items():
        if isinstance(system, FittedSystem) and not isinstance(system, EstimatorSystem):
            raise InputError(
                f"--keep-models {request.args.keep_models}: {name} cannot be kept, because it needs the labels of the "
                "training utterances in its graph at every prediction; leave out the option or the system"
            )


def check_room(request: Request, run: StudyRun, folds: tuple[Fold, ...]) -> None:
    """Check that the disk has room for the models to keep.

    Raises:
        InputError: The disk has too little room.
    """
    from study.engines.models import size_in_bytes

    design, which = request.design, request.args.keep_models
    count = run.counts()[0] if which == "all" else len(_wanted(request, run)) or len(design.fresh_seeds) * design.folds
    graph = max(request.graphs(run.pair()), key=lambda one: one.k_audio + one.k_text, default=None)
    needed = count * size_in_bytes(design.base.system, design.base.graph and graph, folds[0].train)
    free = shutil.disk_usage(request.results).free
    if needed > free:
        raise InputError(
            f"--keep-models {which}: {count} models need {needed / 1e9:.1f} GB and {request.results} "
            f"has {free / 1e9:.1f} GB left; free some space, give other --results, or keep fewer models"
        )


def keep_models(request: Request, run: StudyRun, folds: tuple[Fold, ...], devices: Sequence[str]) -> bool:
    """Train again the models that should be kept and are not.

    On the same CPU the weights are exactly those of the recorded trials.

    Returns:
        Whether all models are kept.
    """
    from study.engines.execution import StudyData

    keeping = keeping_of(request, run.facts)
    known = run.known(_wanted(request, run))
    missing = [trial for trial, outcome in known.items() if outcome.status == "done" and not keeping.has(trial)]
    if missing:
        prepared = StudyData.prepare(
            folds,
            request.k_max(run.pair()),
            graphs=[trial.configuration.graph for trial in missing if trial.configuration.graph],
            seeds={trial.seed for trial in missing},
            keeping=keeping,
        )
        with (
            engine_of(request.args, prepared, devices) as engine,
            tqdm(total=len(missing), unit="model", desc="keeping") as bar,
        ):
            for trial, outcome in engine.run(missing):
                bar.update()
                if outcome.status == "failed":
                    bar.write(f"not kept: {described(run, trial)}: {outcome.reason}", file=sys.stderr)
                elif outcome.metrics != known[trial].metrics:
                    bar.write(
                        f"{described(run, trial)}: trained again for its weights; the metrics differ from those in the "
                        "ledger (another device, or other versions?). config.json has the metrics of these weights",
                        file=sys.stderr,
                    )
    kept = [trial for trial in known if keeping.has(trial)]
    complete = all(keeping.has(trial) for trial, outcome in known.items() if outcome.status == "done")
    if kept:
        print(f"\n{len(kept)} models are kept, such as {keeping.place(kept[0])}")
    else:
        print("\nno model is kept, because no trial of the chosen configuration is done")
    return complete


def _wanted(request: Request, run: StudyRun) -> list[Trial]:
    """Return the trials whose models should be kept: all, or those of the chosen configuration."""
    if request.args.keep_models == "all":
        return distinct(trial for block in run.plan.blocks for trial in run.trials(block))
    design, pair = request.design, run.pair()
    own = design.configuration({}, pair or ANY_PAIR)
    if own.graph and pair is None:
        return []
    fresh = dict.fromkeys(seed for block in run.plan.blocks if run.confirms(block) for seed in run.seeds_of(block))
    return [
        Trial(configuration=own, seed=seed, fold=fold) for seed in fresh or design.seeds for fold in range(design.folds)
    ]
