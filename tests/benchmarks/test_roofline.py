"""The roofline model: what it counts, and that it runs on a machine without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from roofline import KERNEL, LAUNCH, MEMORY_SHARE, PRODUCT_SHARE, Cost, Device, Operation, Trace, seconds

from cemobam_core.operators.sparse_attention import HAS_TRITON

ROOT = Path(__file__).resolve().parents[2]
DEVICE = Device("tested", {"fp32": 1e12, "tf32": 4e12, "bf16": 8e12}, 1e12)


def counted(trace: Trace) -> list[tuple[str, float, float]]:
    return [(one.name, one.flops, one.bytes) for one in trace.operations]


def test_a_kernel_counts_what_it_reads_and_writes() -> None:
    a, b = torch.zeros(10, 20), torch.zeros(20, 30)
    with Trace() as trace:
        c = a @ b
        d = c.T.reshape(30, 10).unsqueeze(0)[:, :5]  # views alone
        d + d.sum()
        c.add_(c.new_empty(1).expand(10, 30))  # a repeated number is read once
        c.bernoulli_(0.5)
        a.index_select(0, torch.zeros(2, dtype=torch.int64))
    assert counted(trace) == [
        ("mm", 2 * 10 * 20 * 30, 4 * (10 * 20 + 20 * 30 + 10 * 30)),
        ("sum", 0, 4 * (50 + 1)),
        ("add", 0, 4 * (50 + 1 + 50)),
        ("add_", 0, 4 * (300 + 1 + 300)),
        ("bernoulli_", 0, 4 * 300),
        ("zeros", 0, 8 * 2),
        ("index_select", 0, 4 * 40 + 8 * 2 + 4 * 40),
    ]


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is for Linux alone")
def test_a_sparse_product_reads_a_row_for_each_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    from cemobam_core.operators import kernels

    trace = Trace()
    monkeypatch.setattr(kernels, "_launch", trace.launch)
    offsets, columns = torch.tensor([0, 3, 3]), torch.tensor([0, 1, 1])
    x = torch.zeros(2, 16)
    kernels.product(offsets, columns, torch.zeros(3), x)
    kernels.sampled_product(offsets, columns, x, x)
    graph = 8 * (3 + 3)
    assert counted(trace) == [
        ("product_kernel", 0, graph + 4 * (3 + 3 * 16 + 2 * 16)),  # values, a row for each of 3 edges, the result
        ("sampled_kernel", 0, graph + 4 * (2 * 16 + 3 * 16 + 3)),
    ]


def test_an_operation_takes_the_longest_of_its_three_times() -> None:
    product, copy, tiny = (
        Operation("mm", 1e12, False, 1e9),
        Operation("copy_", 0.0, False, 1e12),
        Operation("add", 0.0, False, 1e3),
    )
    cost = seconds([product, copy, tiny], DEVICE, "tf32", recorded=True)
    assert cost == Cost(products=0.25 / PRODUCT_SHARE, memory=1 / MEMORY_SHARE, start=KERNEL)
    assert seconds([tiny], DEVICE, "tf32", recorded=False).total == LAUNCH
    assert seconds([product], DEVICE, "bf16", recorded=True).products == 1 / PRODUCT_SHARE  # not reduced: in fp32
    reduced = Operation("mm", 1e12, True, 0.0)
    assert seconds([reduced], DEVICE, "bf16", recorded=True).total == 0.125 / PRODUCT_SHARE


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not HAS_TRITON, reason="Triton is for Linux alone")
def test_the_model_needs_no_gpu() -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--model", "--utterances", "60", "20", "20", "--trials", "2"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if " | " in line]
    assert len(rows) == 1 + 3 * 2
    assert all(float(row[5]) > 0 for row in rows[1:])
    assert "measured" not in done.stdout  # the measured study had other sizes
