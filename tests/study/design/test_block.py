from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cemobam_core import InputError
from study import Block, Factor
from study.design.design import with_values

WIDTH = Factor("hidden_dim", [8, 16])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "block 'x': give either factors or systems, or configurations"),
        ({"factors": [WIDTH], "configurations": {"a": {}}}, "give either factors or systems, or configurations"),
        ({"systems": ["gcn"], "configurations": {"a": {}}}, "give either factors or systems, or configurations"),
        ({"factors": WIDTH}, "block 'x': its factors must be a list"),
        ({"factors": ["hidden_dim"]}, "'hidden_dim' in its factors is not a Factor"),
        ({"systems": "cemobam"}, "block 'x': its systems must be a list"),
        ({"systems": [3]}, "3 in its systems is not a str"),
        ({"systems": ["gcn", "gcn"]}, "factor system: the value 'gcn' is given twice"),
        ({"factors": [WIDTH, WIDTH]}, "two of its factors have the same name"),
        ({"systems": ["gcn"], "factors": [Factor("system", ["gcn"])]}, "two of its factors have the same name"),
        ({"factors": [WIDTH], "reference": 32}, "its reference 32 is not one of its values [8, 16]"),
        ({"systems": ["gcn"], "reference": "mlp"}, "its reference 'mlp' is not one of its values ['gcn']"),
        ({"configurations": {"a": {}}, "reference": "b"}, "its reference 'b' is not one of its values ['a']"),
        (
            {"factors": [WIDTH, Factor("lr", [1])], "reference": 8},
            "a block of several factors has no reference; leave it out",
        ),
        ({"configurations": ["a"]}, "its configurations must be a dict"),
        ({"configurations": {"a": 3}}, "its configuration 'a' must be a dict of settings, not 3"),
        ({"configurations": {3: {}}}, "the name of a configuration must be a text, not 3"),
        ({"configurations": {" ": {}}}, "the name of a configuration must be a text, not ' '"),
        (
            {"factors": [WIDTH], "chooses": True},
            "only a block whose factors are k_audio and k_text can choose the pair of K",
        ),
        ({"name": "a b", "factors": [WIDTH]}, "block 'a b': a block's name must start with a letter"),
        ({"name": "../a", "factors": [WIDTH]}, "a block's name must start with a letter"),
        ({"name": "x\n", "factors": [WIDTH]}, "a block's name must start with a letter"),
        ({"name": "", "factors": [WIDTH]}, "a block's name must start with a letter"),
        ({"name": 3, "factors": [WIDTH]}, "block 3: a block's name must start with a letter"),
    ],
)
def test_a_mistake_is_told_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        Block(**{"name": "x", **given})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "kind", "columns", "names"),
    [
        ({"factors": [WIDTH]}, "line", ("hidden_dim",), (8, 16)),
        ({"factors": [WIDTH, Factor("lr", [0.1, 1])]}, "plane", ("hidden_dim", "lr"), ()),
        ({"factors": [WIDTH, Factor("lr", [1]), Factor("heads", [2])]}, "names", ("hidden_dim", "lr", "heads"), ()),
        ({"factors": [Factor("fusion", ["min", "max"])]}, "names", ("fusion",), ("min", "max")),
        ({"factors": [Factor("gat_first_dropout", [True, False])]}, "names", ("gat_first_dropout",), (True, False)),
        ({"factors": [WIDTH, Factor("fusion", ["min"])]}, "names", ("hidden_dim", "fusion"), ()),
        ({"systems": ["gcn", "cemobam"]}, "names", ("system",), ("gcn", "cemobam")),
        ({"systems": ["gcn"], "factors": [WIDTH]}, "names", ("system", "hidden_dim"), ()),
        ({"configurations": {"wide": {"hidden_dim": 16}, "narrow": {}}}, "names", ("profile",), ("wide", "narrow")),
    ],
)
def test_what_it_varies_says_what_it_is_drawn_as(
    given: dict[str, Any], kind: str, columns: tuple[str, ...], names: tuple[Any, ...]
) -> None:
    block = Block("x", **given)
    assert (block.kind, block.columns, block.names) == (kind, columns, names)


def test_the_values_of_its_factors_are_crossed() -> None:
    block = Block("x", factors=[Factor("lr", [0.1, 1]), WIDTH])
    assert list(block.changes()) == [
        ("", {"lr": lr, "hidden_dim": width}) for lr in (0.1, 1) for width in (8, 16)
    ]  # fmt: skip
    named = Block("x", configurations={"a": {"lr": 1}, "b": {}})
    assert list(named.changes()) == [("a", {"lr": 1}), ("b", {})]


def test_systems_are_a_factor() -> None:
    block = Block("x", systems=["cemobam", "gcn"], reference="gcn")
    assert block == Block("x", factors=[Factor("system", ["cemobam", "gcn"])], reference="gcn")
    assert replace(block, title="Systems").factors == block.factors
    assert with_values(block, {"system": ("gcn",)}).names == ("gcn",)
    assert with_values(block, {"lr": (1,)}) is block


def test_the_pair_is_varied_by_both_of_its_k() -> None:
    pair = [Factor("k_text", [1]), Factor("k_audio", [1, 2])]
    assert Block("x", factors=pair).varies_pair
    assert Block("x", factors=pair, chooses=True).chooses
    assert not Block("x", factors=pair[:1]).varies_pair


def test_values_are_shown_by_their_labels() -> None:
    block = Block("x", factors=[Factor("lr", [1e-4, 0.5])], labels={0.5: "large"})
    assert [block.label(value) for value in block.names] == ["0.0001", "large"]
