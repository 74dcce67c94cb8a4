"""Groups of trials: how they are formed, and how a worker treats a group that is too large or fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from invented import small_design

from cemobam_core import CemoBAM, Fold, GraphConfig, InputError, Inputs, neighbours
from cemobam_core.graph import Ranking
from cemobam_core.neighbours import Pooled
from cemobam_core.training.batch import Batch
from cemobam_core.training.config import TrainingConfig
from cemobam_core.training.footprint import bytes_of_training
from cemobam_core.training.metrics import confusion_matrix
from study import Block, Factor
from study.design.configuration import Configuration, Trial
from study.design.design import ANY_PAIR, Design
from study.design.factors import Pair
from study.engines import execution
from study.engines.execution import (
    STACKED,
    Attempts,
    Group,
    StudyData,
    at_once,
    by_stack,
    check_k,
    execute,
    groups,
    unfinished,
)
from study.ledger.outcomes import Outcome

DESIGN = small_design(seeds=(0, 1, 2), hidden_dim=8, heads=2, epochs=2)
GRID = DESIGN.trials("grid", Pair(1, 1))
FUSION = DESIGN.trials("fusion", Pair(1, 1))


@pytest.fixture
def data(small_fold: Fold) -> StudyData:
    return StudyData.prepare((small_fold,), 2)


def test_on_a_cpu_trials_go_one_by_one_and_on_a_gpu_together() -> None:
    assert (at_once("cpu"), at_once("cuda:1")) == (1, STACKED)


def at_one_pair(configuration: Configuration) -> Configuration:
    return configuration.having({"k_audio": 1, "k_text": 1})


@given(st.lists(st.sampled_from([*GRID, *FUSION]), max_size=40), st.integers(1, 8))
def test_groups_keep_the_order_and_hold_trials_of_one_kind(trials: list[Trial], at_most: int) -> None:
    made = list(groups(trials, at_most))
    assert [trial for group in made for trial in group] == trials
    for group in made:
        assert 1 <= len(group) <= at_most
        assert len({(t.fold, at_one_pair(t.configuration)) for t in group}) == 1
    kinds = [at_one_pair(group[0].configuration) for group in made]
    for i, group in enumerate(made[:-1]):  # no group could have been larger
        assert len(group) == at_most or kinds[i] != kinds[i + 1]


def test_trials_with_learning_rates_of_their_own_go_one_by_one() -> None:
    released = replace(DESIGN, profile="released").trials("grid", Pair(1, 1))
    assert released[0].configuration.get("schedule") == "plateau"
    assert [len(group) for group in groups(released, 8)] == [1] * len(released)


def test_no_trial_is_taken_before_a_group_is_asked_for() -> None:
    taken: list[Trial] = []

    def lazily() -> object:
        for trial in GRID:
            taken.append(trial)
            yield trial

    asked = groups(lazily(), 3)  # type: ignore[arg-type]
    assert taken == []
    next(asked)
    assert len(taken) == 3


def test_what_is_left_of_a_group_is_tried_again() -> None:
    group = tuple(GRID[:4])
    done = Outcome(status="done", seconds=1.0, device="cpu")
    assert unfinished(group, [done] * 4, 1) == []
    assert unfinished(group, [done], 1) == [(group[1:], 1)]
    assert unfinished(group, [], 1) == [((trial,), 1) for trial in group]
    assert unfinished(group[:1], [], 1) == [(group[:1], 2)]


def test_a_group_too_large_for_the_memory_is_halved_and_the_worker_remembers(
    data: StudyData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    def limited(trials: Group, data: StudyData, device: str) -> list[Outcome]:
        tried.append(len(trials))
        if len(trials) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return execute(trials, data, device)

    monkeypatch.setattr(execution, "execute", limited)
    attempts = Attempts(data, "cpu")
    waiting: list[tuple[Group, int]] = [(tuple(GRID), 1)]
    outcomes: dict[Trial, Outcome] = {}
    while waiting:
        group, tries = waiting.pop()
        answer = attempts.attempt(group)
        outcomes |= dict(zip(group, answer, strict=False))
        waiting += unfinished(group, answer, tries)
    assert tried == [12, 6, 3, 3, 3, 3]
    assert outcomes.keys() == set(GRID)
    assert all(outcome.status == "done" for outcome in outcomes.values())
    assert "cpu has too little memory for 12 trials at once" in caplog.text


def test_of_one_trial_too_large_the_worker_dies(data: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> list[Outcome]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(execution, "execute", never)
    with pytest.raises(torch.OutOfMemoryError):
        Attempts(data, "cpu").attempt(tuple(GRID[:4]))


def test_as_many_are_trained_at_once_as_the_free_memory_takes(data: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    base, batch = DESIGN.base, execution.batches_of(GRID[0], data)["train"]
    assert base.training
    n = len(batch.labels)
    each = bytes_of_training(base.system, batch, base.training, train=n, largest=n)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(5.5 * each), 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * each)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: each)
    attempts = Attempts(data, "cuda")
    assert attempts.room(tuple(GRID)) == 6  # 0.8 of 7.5
    assert attempts.room(tuple(GRID[:1])) == 1
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: each)
    assert attempts.room(tuple(GRID)) == 1


def test_a_group_too_large_for_the_memory_is_trained_in_equal_parts(
    data: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, sizes = Attempts(data, "cpu"), []
    monkeypatch.setattr(Attempts, "room", lambda *_: 5)
    monkeypatch.setattr(execution, "execute", lambda trials, *_: sizes.append(len(trials)) or [None] * len(trials))
    rest = tuple(GRID[:12])
    while rest:
        rest = rest[len(attempts.attempt(rest)) :]
    assert sizes == [4, 4, 4]


@pytest.mark.parametrize("n", [40, 400])
def test_the_estimate_of_a_trainings_memory_is_near_what_it_keeps(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(n, 24, generator=generator), torch.randn(n, 16, generator=generator)
    target = torch.arange(n).repeat_interleave(9)
    source = (target + torch.arange(9).repeat(n)) % n
    batch = Batch(Inputs.from_features(audio, text, torch.stack([source, target])), torch.arange(n) % 4, 4)
    system = CemoBAM(hidden_dim=32)
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    from cemobam_core.training.stacks import Stack

    model = Stack([system.build(batch.sizes) for _ in range(3)], [torch.Generator() for _ in range(3)])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logits = model(Batch.together([batch] * 3).inputs)
    actual = sum(kept.values()) / 3
    assert logits.shape == (3, n, 4)
    assert actual < bytes_of_training(system, batch, TrainingConfig(), train=n, largest=n) < 3 * actual


def test_a_trial_of_a_group_that_diverges_fails_alone(data: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    from cemobam_core.training import loop as training

    together = training.train_together

    def one_broken(*arguments: object, **named: object) -> list[object]:
        results: list[object] = list(together(*arguments, **named))  # type: ignore[arg-type]
        results[1] = training.TrainingDiverged("the training loss is nan at epoch 1")
        return results

    monkeypatch.setattr(training, "train_together", one_broken)
    outcomes = Attempts(data, "cpu").attempt(tuple(GRID[:3]))
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].reason == "TrainingDiverged: the training loss is nan at epoch 1"


# The groups that a worker on a GPU gets, for the paper's study and for a user's blocks.


def counted(design: Design, block: str) -> tuple[int, int]:
    """Return the number of groups of a block's trials in their own order, and sorted by stack."""
    trials = design.trials(block, Pair(8, 7))
    ordered = by_stack(trials)
    assert sorted(map(repr, ordered)) == sorted(map(repr, trials))
    return len(list(groups(trials, STACKED))), len(list(groups(ordered, STACKED)))


FIVE = small_design(k_audio=range(1, 11), k_text=range(1, 11), seeds=range(5))


def test_by_stack_brings_the_seeds_of_a_configuration_together() -> None:
    assert counted(FIVE, "fusion") == (20, 4)
    assert counted(FIVE, "ablation") == (15, 3)
    assert counted(FIVE, "grid") == (16, 16)  # 500 in groups of 32, whatever the order
    plateau = {one.profile for one in FIVE.configurations("gaps", ANY_PAIR) if one.get("schedule") == "plateau"}
    assert len(plateau) == 1 + 10  # each has its own learning rate, so two are never in one group
    assert counted(FIVE, "gaps") == (110, 11 + 5 * 11)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Block("x", factors=[Factor("hidden_dim", [8, 16, 32])]), (15, 3)),
        (Block("x", factors=[Factor("lr", [0.1, 1])]), (10, 2)),
        (Block("x", factors=[Factor("k_audio", [1, 2, 3])]), (1, 1)),
        (Block("x", factors=[Factor("k_audio", [1, 2]), Factor("fusion", ["min", "max"])]), (20, 2)),
        (Block("x", systems=["cemobam", "gcn", "concat_mlp", "logistic"]), (20, 3 + 5)),
        (Block("x", systems=["logistic"]), (5, 5)),
        (Block("x", factors=[Factor("gather_from", ["chosen", "choosers"])]), (10, 2)),
        (Block("x", configurations={"a": {"lr": 1}, "b": {"lr": 1.0}}), (1, 1)),
        (Block("x", configurations={"a": {"schedule": "plateau"}}), (5, 5)),
    ],
)
def test_groups_of_a_users_block(block: Block, expected: tuple[int, int]) -> None:
    assert counted(replace(FIVE, blocks={"x": block}), "x") == expected


@pytest.mark.parametrize("in_group", [1, 3])
def test_an_outcome_has_what_its_trial_predicted(data: StudyData, in_group: int) -> None:
    """This holds for a trial that is trained alone and for trials in a stack."""
    labels = data.folds[0].test.labels
    outcomes = Attempts(data, "cpu").attempt(tuple(GRID[:in_group]))
    assert len(outcomes) == in_group
    for outcome in outcomes:
        predicted = torch.tensor(list(outcome.predicted))
        assert confusion_matrix(labels, predicted, 4).tolist() == [list(row) for row in outcome.confusion]
        assert (predicted == labels).double().mean().item() == pytest.approx(outcome.metrics["test_wa"])
    assert len({outcome.predicted for outcome in outcomes}) == in_group


def test_folds_are_never_in_one_group() -> None:
    folded = replace(FIVE, folds=3)
    assert counted(folded, "fusion") == (60, 12)
    for group in groups(by_stack(folded.trials("fusion", ANY_PAIR)), STACKED):
        assert len({trial.fold for trial in group}) == 1


def test_what_uses_no_graph_is_given_none_and_needs_no_ranking(small_fold: Fold) -> None:
    study = replace(DESIGN, blocks={"x": Block("x", systems=["concat_mlp", "logistic"])}, seeds=(0,))
    data = StudyData.prepare((small_fold,), 0)
    assert data.graphs == ({},)
    for trial in study.trials("x", ANY_PAIR):
        assert {b.inputs.edge_index.shape for b in execution.batches_of(trial, data).values()} == {(2, 0)}
        (outcome,) = execute((trial,), data, "cpu")
        assert outcome.status == "done"
        assert bool(outcome.curve) == (trial.configuration.training is not None)
        (alone,) = execute((trial,), StudyData.prepare((small_fold,), 2), "cpu")
        assert replace(outcome, seconds=0) == replace(alone, seconds=0)


# The graph at evaluation, and ties.


def test_trials_whose_batches_hold_other_utterances_are_never_in_one_group() -> None:
    def grouped(*factors: Factor) -> tuple[int, int]:
        return counted(replace(FIVE, blocks={"x": Block("x", factors=factors)}), "x")

    assert grouped(Factor("evaluation_graph", ["anchored", "joint"]), Factor("k_audio", [1, 2])) == (1, 1)
    assert grouped(Factor("ties", ["index", "random", "all"]), Factor("k_audio", [1, 2])) == (1, 1)
    assert grouped(Factor("evaluation_size", [0, 20, 40])) == (1, 1)
    assert grouped(Factor("evaluation_graph", ["own", "anchored"])) == (10, 2)


def study_of(**settings: object) -> Design:
    return small_design(seeds=(0, 1), hidden_dim=8, heads=2, epochs=2, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", ["paper", "released"])
@pytest.mark.parametrize(
    "settings",
    [
        {"evaluation_graph": "anchored"},
        {"evaluation_graph": "joint", "ties": "all"},
        {"evaluation_size": 10},
        {"ties": "random"},
    ],
)
def test_a_graph_that_was_not_prepared_is_made_when_it_is_needed(
    small_fold: Fold, profile: str, settings: dict[str, object]
) -> None:
    trial = study_of(profile=profile, **settings).trials("grid", ANY_PAIR)[-1]
    graph = trial.configuration.graph
    assert graph
    late, early = StudyData.prepare((small_fold,), 2), StudyData.prepare((small_fold,), 5, graphs=[graph], seeds=[1])
    (one,), (other,) = (execute((trial,), data, "cpu") for data in (late, early))
    assert replace(one, seconds=0) == replace(other, seconds=0)
    for name, batch in execution.batches_of(trial, early).items():
        assert len(batch.labels) == len(small_fold.splits[name])
        in_train = "evaluation_graph" in settings and name != "train"
        assert batch.context == (len(small_fold.train) if in_train else 0)


def test_ties_at_random_are_another_order_for_each_seed(small_fold: Fold) -> None:
    text = small_fold.train.text[:1].repeat(40, 1)
    fold = replace(small_fold, train=replace(small_fold.train, text=text))
    trials = study_of(ties="random").trials("grid", ANY_PAIR)
    graphs = [trial.configuration.graph for trial in trials if trial.configuration.graph]
    data = StudyData.prepare((fold,), 2, graphs=graphs, seeds=(0, 1))
    edges = {
        (trial.seed, trial.configuration.pair): execution.batches_of(trial, data)["train"].inputs.edge_index
        for trial in trials
    }
    assert not torch.equal(edges[0, Pair(2, 2)], edges[1, Pair(2, 2)])
    of_small, of_large = (set(map(tuple, edges[0, pair].T.tolist())) for pair in (Pair(1, 1), Pair(2, 2)))
    assert of_small < of_large  # one order for all K of a seed
    assert len(data.graphs[0]) == 3 * 2


def test_what_is_prepared_is_shared_and_each_graph_is_ranked_once(
    small_fold: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[int] = []
    of = execution.Ranking.of

    def counting(pooled: Pooled, *arguments: object, **named: object) -> Ranking:
        ranked.append(len(pooled.audio))
        return of(pooled, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(execution.Ranking, "of", counting)
    graphs = [one.graph for one in study_of().configurations("evaluation", Pair(2, 2)) if one.graph]
    data = StudyData.prepare((small_fold,), 2, graphs=graphs, seeds=range(5))
    # Train, val and test alone; both again as the only part of 60 and of 20; then each of them with train.
    assert sorted(ranked) == [24, 24, *[24] * 4, 40, 64, 64]
    tensors = list(data.tensors())
    assert len({id(tensor) for tensor in tensors}) == len(tensors)
    assert len(data.graphs[0]) == 1 + 2 * 5


def test_k_is_bounded_by_the_splits_in_which_neighbours_are_looked_for(small_fold: Fold) -> None:
    with pytest.raises(
        InputError, match=r"24 utterances in the val split, so K can be 23 at most; or give --evaluation"
    ):
        check_k((small_fold,), 30)
    check_k((small_fold,), 30, [GraphConfig(evaluation_graph="anchored"), GraphConfig(evaluation_graph="joint")])
    with pytest.raises(InputError, match=r"in the val split"):
        check_k((small_fold,), 30, [GraphConfig(evaluation_graph="anchored"), GraphConfig()])
    with pytest.raises(InputError, match=r"40 utterances in the train split, so K can be 39 at most$"):
        check_k((small_fold,), 40, [GraphConfig(evaluation_graph="anchored")])


def test_too_many_ties_are_told_of_the_split(small_fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST_LINKS", 50)
    with pytest.raises(InputError, match=r"^train: --ties all: too many utterances are equally similar, so K=2 would"):
        StudyData.prepare((small_fold,), 2, graphs=[GraphConfig(ties="all")])


def test_a_system_without_a_graph_has_no_context(small_fold: Fold) -> None:
    design = replace(
        study_of(evaluation_graph="anchored"), blocks={"x": Block("x", systems=["concat_mlp", "logistic"])}, seeds=(0,)
    )
    usual = replace(design, settings={name: v for name, v in design.settings.items() if name != "evaluation_graph"})
    data = StudyData.prepare((small_fold,), 0)
    for trial, same in zip(design.trials("x", ANY_PAIR), usual.trials("x", ANY_PAIR), strict=True):
        assert trial.signature("f") == same.signature("f")
        assert {batch.context for batch in execution.batches_of(trial, data).values()} == {0}
        (one,), (other,) = (execute((of,), data, "cpu") for of in (trial, same))
        assert replace(one, seconds=0) == replace(other, seconds=0)
