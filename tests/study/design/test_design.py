from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented import small_design
from own_systems import FILES, GRU

from cemobam_core import CemoBAM, InputError
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.systems.search import Value
from study import Block, Factor
from study.design.design import ANY_PAIR, Design, distinct, with_values
from study.design.factors import Pair
from study.papers.cemobam import paper
from study.papers.cemobam.paper import GAPS
from study.papers.cemobam.profiles import PROFILES
from study.papers.cemobam.published import paper_pair

PAPERS = Design(blocks={block.name: block for block in (*paper.blocks, *paper.optional)}, dataset="iemocap")


def design(block: Block, **changes: Any) -> Design:
    return Design(**{"blocks": {block.name: block}, "dataset": "iemocap", "seeds": (0,), **changes})


def test_the_papers_study_is_525_trials() -> None:
    blocks = {block.name: PAPERS.trials(block.name, Pair(8, 7)) for block in paper.blocks}
    assert {block: len(trials) for block, trials in blocks.items()} == {"grid": 500, "fusion": 20, "ablation": 15}
    assert len(distinct(t for trials in blocks.values() for t in trials)) == 525
    signatures = {t.signature("f") for trials in blocks.values() for t in trials}
    assert len(signatures) == 525


def test_the_default_configuration_is_the_papers() -> None:
    system, training = PAPERS.base.system, PAPERS.base.training
    assert isinstance(system, CemoBAM)
    assert training
    assert training.epochs == 100
    assert (training.lr, training.weight_decay) == (1e-4, 5e-4)
    assert (training.lr_step, training.lr_gamma) == (30, 0.1)
    assert (system.hidden_dim, system.heads, system.gat_layers, system.dropout) == (512, 4, 3, 0.3)
    assert (system.cbam_kernel, system.cbam_reduction, system.fusion) == (7, 16, "min")


def differing(one: Any, other: Any) -> dict[str, Value]:
    return {f.name: v for f in fields(one) if (v := getattr(one, f.name)) != getattr(other, f.name)}


def test_the_gaps_are_all_that_the_profiles_differ_in() -> None:
    start, end = PROFILES["paper"], PROFILES["released"]
    for side, one, other in ((0, start, end), (1, end, start)):
        differs: dict[str, Value] = {}
        for part in ("graph", "system", "training"):
            differs |= differing(getattr(one, part), getattr(other, part))
        told: dict[str, Value] = {}
        for choices in GAPS.values():
            assert not told.keys() & choices[side].keys()
            told |= choices[side]
        same = {name: told.pop(name) for name in set(told) - set(differs)}
        assert told == differs
        # added to both, because this setting only matters together with another setting of its gap
        assert all(choices[0].get(name, 0) == choices[1].get(name, 0) for choices in GAPS.values() for name in same)


def test_each_gap_is_switched_alone_from_either_side() -> None:
    configurations = {one.profile: one for one in PAPERS.configurations("gaps", Pair(8, 7))}
    assert list(configurations) == ["paper", "released", *(f"{s}+{gap}" for s in PROFILES for gap in GAPS)]
    assert {one.pair for one in configurations.values()} == {Pair(8, 7)}
    for name, one in configurations.items():
        side, _, gap = name.partition("+")
        changed = {key: value for key, value in one.settings().items() if configurations[side].settings()[key] != value}
        theirs = GAPS[gap][1 if side == "paper" else 0] if gap else {}
        assert changed.items() <= theirs.items()
        assert bool(changed) == bool(gap)
    mixed = configurations["paper"].having({k: v for _, choices in GAPS.values() for k, v in choices.items()})
    assert replace(mixed, profile="released") == configurations["released"]


def test_seeds_come_one_after_the_other() -> None:
    trials = PAPERS.trials("grid", ANY_PAIR)
    assert [t.seed for t in trials] == [seed for seed in range(5) for _ in range(100)]


def test_folds_multiply_trials() -> None:
    trials = replace(PAPERS, folds=5, seeds=(0, 7)).trials("ablation", Pair(2, 3))
    assert len(trials) == 3 * 2 * 5
    assert {(t.seed, t.fold) for t in trials} == {(s, f) for s in (0, 7) for f in range(5)}


@given(st.sets(st.integers(1, 30), min_size=1), st.sets(st.integers(1, 30), min_size=1), st.integers(1, 3))
def test_a_grid_is_every_pair_with_every_seed_once(audio: set[int], text: set[int], seeds: int) -> None:
    study = small_design(k_audio=sorted(audio), k_text=sorted(text), seeds=range(seeds))
    trials = study.trials("grid", ANY_PAIR)
    seen = [(t.configuration.get("k_audio"), t.configuration.get("k_text"), t.seed) for t in trials]
    assert sorted(seen) == [(a, t, s) for a in sorted(audio) for t in sorted(text) for s in range(seeds)]
    assert study.values("k_audio") == tuple(sorted(audio))


def test_settings_go_to_whichever_part_has_them() -> None:
    one = replace(PAPERS, settings={"hidden_dim": 64, "epochs": 3, "gather_from": "choosers"}).configuration(
        {"fusion": "max", "lr": 1, "k_text": 4}, Pair(8, 7)
    )
    assert (one.get("hidden_dim"), one.get("fusion")) == (64, "max")
    assert (one.get("epochs"), one.get("lr"), type(one.get("lr"))) == (3, 1.0, float)
    assert (one.get("gather_from"), one.pair) == ("choosers", Pair(8, 4))
    assert one.get("nothing") is None
    assert (one.get("system"), one.get("profile")) == ("cemobam", "paper")
    # changes of a block override those of the study; only the combination must be valid
    assert replace(PAPERS, settings={"heads": 3}).configuration({"hidden_dim": 9}, ANY_PAIR).get("heads") == 3


def test_whole_numbers_for_a_setting_that_takes_any_are_one_configuration() -> None:
    one, other = (
        design(Block("x", factors=[Factor("lr", [lr, 0.5])])).configurations("x", ANY_PAIR) for lr in (1, 1.0)
    )
    assert one == other
    assert hash(one[0]) == hash(other[0])
    assert [type(made.get("lr")) for made in one] == [float, float]


def test_a_data_sets_own_settings_are_for_cemobam_and_those_of_training_for_all() -> None:
    demo = Design(blocks={}, dataset="demo")
    assert [demo.base.get(name) for name in ("hidden_dim", "epochs", "lr")] == [16, 20, 0.012]
    mlp = replace(demo, system="concat_mlp").base
    assert [mlp.get(name) for name in ("hidden_dim", "epochs", "lr")] == [64, 20, 0.006]
    fuse = replace(demo, system="ser_fuse").base  # the small model needs the demo's rate; the epochs are its source's
    assert [fuse.get(name) for name in ("hidden_dim", "epochs", "lr")] == [64, 200, 0.006]
    assert replace(demo, system="concat_mlp", dataset="mine").base.get("hidden_dim") == ConcatMLP().hidden_dim
    assert replace(demo, settings={"hidden_dim": 4, "epochs": 1}).base.get("hidden_dim") == 4
    assert replace(demo, dataset="mine").base.get("hidden_dim") == 512


def test_a_profile_is_what_cemobam_starts_from() -> None:
    released = replace(PAPERS, profile="released")
    assert released.base.system == PROFILES["released"].system
    assert released.base.training == PROFILES["released"].training
    assert released.configuration({"profile": "paper"}, ANY_PAIR).system == CemoBAM()
    other = replace(released, system="gcn").base
    assert other.graph
    assert (other.profile, other.graph.gather_from, other.get("schedule")) == ("released", "choosers", "plateau")
    with pytest.raises(InputError, match="profile 'mine': choose from paper, released"):
        replace(PAPERS, profile="mine").configuration({}, ANY_PAIR)


SYSTEMS = Block(
    "systems",
    systems=["cemobam", "gcn", "concat_mlp", "logistic"],
    factors=[Factor("k_audio", [1, 2]), Factor("k_text", [1, 2, 3])],
)


def test_what_uses_no_graph_is_trained_once_and_what_is_fitted_has_no_training() -> None:
    made = design(SYSTEMS).configurations("systems", ANY_PAIR)
    of = {name: [one for one in made if one.get("system") == name] for name in SYSTEMS.factors[0].values}
    assert {name: len(those) for name, those in of.items()} == {
        "cemobam": 6, "gcn": 6, "concat_mlp": 1, "logistic": 1,
    }  # fmt: skip
    (mlp,), (logistic,) = of["concat_mlp"], of["logistic"]
    assert (mlp.graph, mlp.pair, mlp.get("k_audio"), mlp.get("epochs")) == (None, None, None, 100)
    assert (logistic.graph, logistic.training, logistic.get("lr")) == (None, None, None)
    # a system without a graph has one configuration in the whole grid
    assert len(Design(blocks={"grid": paper.grid}, system="concat_mlp").configurations("grid", ANY_PAIR)) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"factors": [Factor("hiden_dim", [8])]}, "cemobam has no setting 'hiden_dim'; did you mean hidden_dim?"),
        ({"factors": [Factor("zzz", [8])]}, "cemobam has no setting 'zzz'; choose from batch, batch_norm, cbam_kernel"),
        ({"factors": [Factor("seed", [8])]}, "cemobam has no setting 'seed'"),
        ({"factors": [Factor("hidden_dim", [-8])]}, "hidden_dim=-8 must be a whole number"),
        ({"factors": [Factor("heads", [3])]}, "hidden_dim=512 must be a multiple of heads=3"),
        ({"configurations": {"a": {"layers": 2}}}, "cemobam has no setting 'layers'"),
        ({"configurations": {"a": {"profile": "mine"}}}, "profile 'mine': choose from paper, released"),
        ({"systems": ["concat_mpl"]}, "no system is called 'concat_mpl'"),
        ({"systems": ["concat_mlp"], "factors": [Factor("heads", [2])]}, "concat_mlp has no setting 'heads'"),
        ({"systems": ["nowhere.py:X"]}, "nowhere.py: no such file"),
    ],
)
def test_what_no_system_has_is_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        design(Block("x", **changes)).configurations("x", ANY_PAIR)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_setting_of_one_system_is_left_out_for_the_others() -> None:
    block = Block("x", systems=["cemobam", "concat_mlp"], factors=[Factor("layers", [1, 2])])
    made = design(block).configurations("x", ANY_PAIR)
    assert [(one.get("system"), one.get("layers")) for one in made] == [
        ("cemobam", None), ("concat_mlp", 1), ("concat_mlp", 2),
    ]  # fmt: skip


def test_a_block_needs_a_pair_if_the_pair_matters_to_it() -> None:
    both = {"k_audio": 1, "k_text": 3}
    blocks = [
        paper.grid,
        paper.fusion,
        Block("mlp", systems=["concat_mlp", "logistic"]),
        Block("mixed", systems=["concat_mlp", "cemobam"]),
        Block("half", factors=[Factor("k_audio", [1, 2])]),
        Block("given", configurations={"near": both, "far": {**both, "k_audio": 9}, "none": {"system": "logistic"}}),
        Block("partly", configurations={"near": both, "far": {"k_audio": 9}}),
    ]  # fmt: skip
    study = Design(blocks={block.name: block for block in blocks})
    assert [name for name in study.blocks if study.needs_pair(name)] == ["fusion", "mixed", "half", "partly"]
    assert study.choosing == "grid"
    assert study.factors == ()
    assert Design(blocks={}).choosing is None


def test_what_a_block_varies_is_told_of_its_trials() -> None:
    study = design(Block("x", systems=["cemobam", "logistic"], factors=[Factor("lr", [1, 0.1])]))
    assert study.factors == ("lr",)
    first, *_, last = study.trials("x", Pair(1, 2))
    told = ("system", "k_audio", "lr")
    assert first.parameters(told) == {"system": "cemobam", "k_audio": 1, "lr": 1.0, "fold": 0, "seed": 0}
    assert last.parameters(told) == {"system": "logistic", "fold": 0, "seed": 0}


def test_systems_in_files_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name.partition(":")[0]).write_text(content)
    Path("other").mkdir()
    Path("other/gru.py").write_text(f"# another\n{GRU}")
    study = design(Block("x", systems=["cemobam", *FILES]))
    made = study.configurations("x", ANY_PAIR)
    assert [one.get("system") for one in made] == ["cemobam", *FILES]
    assert [one.training is None for one in made] == [False, False, True]
    assert study.shared()["system"] == "cemobam"
    for other in ("other/gru.py:GRU", "./gru.py:GRU"):
        with pytest.raises(InputError, match=r"block 'x': gru\.py:GRU and .*gru\.py:GRU have the same name; rename"):
            design(Block("x", systems=["gru.py:GRU", other])).configurations("x", ANY_PAIR)
    Path("gru.py").write_text(f"# edited\n{GRU}")
    # a running study keeps the file that it began with; a new study reads the current one
    assert study.configurations("x", Pair(3, 3))[1] == made[1]
    assert design(study.blocks["x"]).configurations("x", Pair(3, 3))[1] != made[1]


def test_values_can_be_replaced() -> None:
    small = with_values(paper.grid, {"k_audio": (3,), "hidden_dim": (1,)})
    assert [factor.values for factor in small.factors] == [(3,), tuple(range(1, 11))]
    assert (small.title, small.chooses) == (paper.grid.title, True)


def test_the_papers_pairs() -> None:
    assert paper_pair("iemocap") == Pair(8, 7)
    assert paper_pair("esd") == Pair(4, 5)
    assert paper_pair("demo") is None
