"""Groups of equal rows, of which only one row each is compared."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from cemobam_core import neighbours
from cemobam_core.neighbours import nearest
from cemobam_core.repeated import groups_of, members_of


def rows(*numbers: int) -> torch.Tensor:
    return torch.randn(9, 4, generator=torch.Generator().manual_seed(0))[list(numbers)]


def test_equal_rows_are_a_group() -> None:
    group = groups_of(rows(3, 1, 3, 3, 1, 8))
    assert group is not None
    assert group.tolist() == [0, 1, 0, 0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_of_every_type_are_grouped(dtype: torch.dtype) -> None:
    group = groups_of(rows(3, 1, 3, 3, 1, 8).to(dtype))
    assert group is not None
    assert group.tolist() == [0, 1, 0, 0, 1, 2]


def test_rows_that_are_mostly_distinct_have_no_groups() -> None:
    assert groups_of(rows(0, 1, 2, 3)) is None
    assert groups_of(rows(0, 1, 2, 0)) is None
    same_start = torch.ones(6, 4)
    same_start[:, 3] = torch.arange(6)
    assert groups_of(same_start) is None
    assert groups_of(torch.zeros(3, 0)) is None


def test_the_first_members_of_each_group_are_listed_in_the_order_of_preference() -> None:
    group = torch.tensor([0, 1, 0, 0, 1, 2])
    assert members_of(group, torch.arange(6), 2).tolist() == [[0, 2], [1, 4], [5, -1]]
    assert members_of(group, torch.arange(5, -1, -1), 4).tolist() == [[3, 2, 0, -1], [4, 1, -1, -1], [5, -1, -1, -1]]


def test_only_one_row_of_each_group_is_compared() -> None:
    x = rows(*[i % 9 for i in range(90)])
    with mock.patch.object(neighbours, "among", wraps=neighbours.among) as compared:
        chosen, _ = nearest(x, 3)
    assert [len(call.args[0]) for call in compared.call_args_list] == [9]
    assert chosen[:3].tolist() == [[9, 18, 27], [10, 19, 28], [11, 20, 29]]
    assert chosen[18].tolist() == [0, 9, 27]
