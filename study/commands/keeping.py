"""``--keep-models``: train what is to be kept and is not, and keep it; ``--keep-probabilities``."""

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

# What imports torch is imported where it is used: the local engine's server starts before.
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
    """Check that the disk takes the probabilities that are to be kept.

    Args:
        request: what is asked for.
        trials: that are to be run.
        folds: the features.

    Raises:
        InputError: it does not.
    """
    needed = trials * max(2 * len(fold.test) * fold.test.num_classes for fold in folds)
    free = shutil.disk_usage(request.results).free
    if needed > free:
        raise InputError(
            f"--keep-probabilities: those of {trials} trials take {needed / 1e9:.3f} GB and {request.results} has "
            f"{free / 1e9:.3f} GB left; make room, give other --results, or leave the option out"
        )


def told_of_probabilities(request: Request, run: StudyRun) -> str:
    """Return in a sentence of how many trials probabilities are kept."""
    kept = probabilities_of(request, run.facts)
    known = run.known(trial for block in run.plan.blocks for trial in run.trials(block))
    places = {kept.place(trial) for trial, outcome in known.items() if outcome.status == "done"}
    there = sum(place.is_file() for place in places)
    said = f"the probabilities of {there} of {len(places)} trials are kept under {kept.folder}"
    return said if there == len(places) else f"{said}; the others were run without --keep-probabilities"


def check_kept(request: Request, run: StudyRun) -> None:
    """Check that the models that are to be kept can be.

    Raises:
        InputError: a system is fitted without an estimator that could be written.
    """
    kept = {name_of(trial.configuration.system): trial.configuration.system for trial in _wanted(request, run)}
    kept |= {name_of(system): system for system in [request.design.base.system]}
    for name, system in kept.items():
        if isinstance(system, FittedSystem) and not isinstance(system, EstimatorSystem):
            raise InputError(
                f"--keep-models {request.args.keep_models}: {name} cannot be kept, for it labels by the labels of the "
                "training utterances, which no kept model has; leave the option or the system out"
            )


def check_room(request: Request, run: StudyRun, folds: tuple[Fold, ...]) -> None:
    """Check that the disk takes the models that are to be kept.

    Raises:
        InputError: it does not.
    """
    from study.engines.models import size_in_bytes

    design, which = request.design, request.args.keep_models
    count = run.counts()[0] if which == "all" else len(_wanted(request, run)) or len(design.fresh_seeds) * design.folds
    graph = max(request.graphs(run.pair()), key=lambda one: one.k_audio + one.k_text, default=None)
    needed = count * size_in_bytes(design.base.system, design.base.graph and graph, folds[0].train)
    free = shutil.disk_usage(request.results).free
    if needed > free:
        raise InputError(
            f"--keep-models {which}: {count} models take {needed / 1e9:.1f} GB and {request.results} "
            f"has {free / 1e9:.1f} GB left; make room, give other --results, or keep fewer"
        )


def keep_models(request: Request, run: StudyRun, folds: tuple[Fold, ...], devices: Sequence[str]) -> bool:
    """Train again what is to be kept and is not: on one CPU the weights are those that the ledger's figures are of.

    Returns:
        Whether all of it is kept.
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
                        f"{described(run, trial)}: trained again for its weights, and not the same to the last bit as "
                        "in the ledger (another device, or other versions?); config.json has the figures of these "
                        "weights",
                        file=sys.stderr,
                    )
    kept = [trial for trial in known if keeping.has(trial)]
    complete = all(keeping.has(trial) for trial, outcome in known.items() if outcome.status == "done")
    if kept:
        print(f"\n{len(kept)} models are kept, such as {keeping.place(kept[0])}")
    else:
        print("\nno model is kept: no trial of the chosen configuration is done")
    return complete


def _wanted(request: Request, run: StudyRun) -> list[Trial]:
    """Return the trials whose models are to be kept: every one, or those of the chosen configuration."""
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
