from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cemobam_core.encoders.store import Parts
from cemobam_core.errors import InputError

IDS = ["a", "b", "c"]


def made(folder: Path) -> Path:
    """Write a part."""
    Parts(folder).add(0, {"a": torch.ones(2, 3), "b": torch.zeros(1, 3)}, {"c": "is silent"})
    return folder / "00000.safetensors"


def test_a_part_is_found_again(tmp_path: Path) -> None:
    made(tmp_path)
    parts = Parts(tmp_path)
    assert parts.find({0: IDS[::-1], 1: ["d"]}) == {0}
    assert (parts.steps, parts.bad) == ({"a": 2, "b": 1}, {"c": "is silent"})
    assert {name: rows.tolist() for name, rows in parts.embeddings()} == {"a": [[1] * 3] * 2, "b": [[0] * 3]}
    assert Parts(tmp_path).find({0: ["a", "b"]}) == set()


def test_a_part_without_embeddings_is_found_again(tmp_path: Path) -> None:
    Parts(tmp_path).add(0, {}, {"a": "is silent"})
    parts = Parts(tmp_path)
    assert parts.find({0: ["a"]}) == {0}
    assert parts.bad == {"a": "is silent"} and list(parts.embeddings()) == []


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (torch.ones(2, 3), {}),
        (torch.ones(3), {}),
        (torch.ones(3, 0), {}),
        (torch.ones(3, 3) * float("nan"), {}),
        (torch.ones(3, 3, dtype=torch.int64), {}),
        (torch.ones(3, 3, dtype=torch.complex64), {}),
        (torch.ones(3, 3), {"steps": {"a": -1, "b": 4}}),
        (torch.ones(3, 3), {"steps": {"a": 3}}),
        (torch.ones(3, 3), {"steps": {"a": 2.0, "b": 1.0}}),
        (torch.ones(3, 3), {"steps": []}),
        (torch.ones(3, 3), {"bad": {"c": 1}}),
        (torch.ones(3, 3), {"asked": 1}),
        (torch.ones(3, 3), {"steps": "[" * 100_000}),
        (torch.ones(3, 3), {"steps": "9" * 10_000}),
    ],
)
def test_a_part_that_was_changed_is_made_again(tmp_path: Path, rows: torch.Tensor, told: dict[str, Any]) -> None:
    right = {"asked": IDS, "steps": {"a": 2, "b": 1}, "bad": {"c": "is silent"}}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in {**right, **told}.items()}
    save_file({"rows": rows}, tmp_path / "00000.safetensors", texts)
    parts = Parts(tmp_path)
    assert parts.find({0: IDS}) == set()
    assert parts.steps == {}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "00000.safetensors")
    assert Parts(tmp_path).find({0: IDS}) == set()


def test_embeddings_of_two_sizes_are_not_mixed(tmp_path: Path) -> None:
    made(tmp_path)
    Parts(tmp_path).add(1, {"d": torch.ones(1, 4)}, {})
    parts = Parts(tmp_path)
    assert parts.find({0: IDS, 1: ["d"]}) == {0}
    with pytest.raises(InputError, match="holds embeddings of 3 numbers, but this encoder's have 4; remove"):
        parts.add(1, {"d": torch.ones(1, 4)}, {})
