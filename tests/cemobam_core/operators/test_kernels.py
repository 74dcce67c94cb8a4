"""The sparse products in Triton, on a GPU if there is one and in Triton's interpreter otherwise."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import torch
from batches import READINGS, any_graph, graphs_of, model_of
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core import Batch
from cemobam_core.operators.sparse_attention import Adjacency
from cemobam_core.training.stacks import Stack

if sys.platform != "linux":
    pytest.skip("Triton is for Linux alone", allow_module_level=True)
from cemobam_core.operators import kernels

COMPILED = """
import sys
import triton
from runpy import run_path
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

path, dtype, width, capability = sys.argv[1:]
for kernel in map(run_path(path).get, ("_product_kernel", "_sampled_kernel")):
    types = {"offsets": "*i64", "columns": "*i64", "d": "i32", "width": "constexpr"}
    signature = {name: types.get(name, "*" + dtype) for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs={"width": int(width)})
    compiled = triton.compile(
        source, target=GPUTarget("cuda", int(capability), 32), options={"enable_fp_fusion": True}
    )
    assert len(compiled.asm["cubin"]) > 1000
    print(compiled.asm["ttir"])
"""
"""Compiles the kernels of a file and prints their code in Triton's intermediate language, before optimisation."""

SOURCE = Path(kernels.__file__)

NARROW = {
    "the row": ("tl.program_id(0).to(tl.int64)", "tl.program_id(0)"),
    "the column": ("tl.load(columns + entry)", "tl.load(columns + entry).to(tl.int32)"),
}
"""Changes after which a kernel multiplies a number by the width in 32 bits."""


def compiled(path: Path, tmp_path: Path, *, dtype: str = "fp32", width: int = 16, capability: int = 90) -> str:
    """Compile the kernels of a file for a GPU that need not be there, and return their code."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, str(path), dtype, str(width), str(capability)],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def narrowed(change: str, tmp_path: Path) -> Path:
    """Return a copy of the kernels that computes an offset in 32 bits."""
    text, path = SOURCE.read_text(), tmp_path / "narrow.py"
    assert text.count(NARROW[change][0]) == len(KERNELS)
    path.write_text(text.replace(*NARROW[change]))
    return path


KERNELS = ("_product_kernel", "_sampled_kernel")


def multiplications_by_the_width(code: str) -> list[str]:
    """Return the types of all products with the number of elements of a row."""
    wide = {"%d", *re.findall(r"(%\w+) = arith\.extsi %d :", code)}
    found = re.findall(r"arith\.muli (%\w+), (%\w+)(?: .*)? : (\w+)", code)
    return [kind for left, right, kind in found if wide & {left, right}]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("width", [16, 1024])
def test_the_kernels_compile_for_a_gpu_that_need_not_be_there(
    dtype: str, width: int, capability: int, tmp_path: Path
) -> None:
    code = compiled(SOURCE, tmp_path, dtype=dtype, width=width, capability=capability)
    assert multiplications_by_the_width(code) == ["i64"] * 4  # x and out of the product, a and b of the sampled one


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("change", NARROW)
def test_an_offset_in_32_bits_is_seen_in_the_code(change: str, tmp_path: Path) -> None:
    found = multiplications_by_the_width(compiled(narrowed(change, tmp_path), tmp_path))
    assert sorted(found) == ["i32", "i32", "i64", "i64"]


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # on the CPU conftest.py selects the interpreter


@given(
    n=st.integers(1, 12),
    density=st.integers(0, 4),
    heads=st.integers(1, 3),
    dim=st.sampled_from([1, 5, 16, 100]),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_products_are_those_of_dense_matrices(
    n: int, density: int, heads: int, dim: int, seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    adjacency = Adjacency.from_edges(any_graph(n, n * density, seed, loops=True).to(DEVICE), n, heads)
    m = n * heads
    values = torch.randn(len(adjacency.sources), dtype=dtype, device=DEVICE)
    a, b = torch.randn(2, m, dim, dtype=dtype, device=DEVICE)
    dense = torch.zeros(m, m, dtype=dtype, device=DEVICE)
    dense[adjacency.targets, adjacency.sources] = values
    torch.testing.assert_close(kernels.product(adjacency.offsets, adjacency.sources, values, a), dense @ a)
    sampled = (a @ b.T)[adjacency.targets, adjacency.sources]
    torch.testing.assert_close(kernels.sampled_product(adjacency.offsets, adjacency.sources, a, b), sampled)


def agree_with_float64(adjacency: Adjacency, dim: int, rows: int | None = None) -> None:
    """Check both products in float32 against sums in float64, in the first rows. A sum of n terms has n roundings."""
    m = len(adjacency.offsets) - 1
    entries = int(adjacency.offsets[m if rows is None else rows])
    values = torch.randn(len(adjacency.sources), device=DEVICE)
    a, b = torch.randn(2, m, dim, device=DEVICE)
    rounding = torch.finfo(torch.float32).eps

    terms = values.double().unsqueeze(1) * a[adjacency.sources].double()  # (E', d)
    nothing = torch.zeros(m, dim, dtype=torch.float64, device=DEVICE)
    exact, size = (nothing.index_add(0, adjacency.targets, x) for x in (terms, terms.abs()))
    ours = kernels.product(adjacency.offsets, adjacency.sources, values, a)
    allowed = adjacency.offsets.diff().unsqueeze(1) * rounding * size
    assert ((ours - exact).abs() <= allowed)[:rows].all()

    terms = a[adjacency.targets].double() * b[adjacency.sources].double()
    ours = kernels.sampled_product(adjacency.offsets, adjacency.sources, a, b)
    assert ours.shape == adjacency.sources.shape
    assert ((ours - terms.sum(1)).abs() <= dim * rounding * terms.abs().sum(1))[:entries].all()


@pytest.mark.parametrize("dim", [1, 3, 17, 100])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(
    ("n", "edges"),
    [(1, []), (1, [(0, 0)]), (5, []), (5, [(4, 0)]), (6, [(0, 3), (3, 0), (3, 3), (5, 3)])],
    ids=["one node alone", "one node", "no edge", "one edge", "empty rows at both ends"],
)
def test_rows_may_be_empty(n: int, edges: list[tuple[int, int]], heads: int, dim: int) -> None:
    edge_index = torch.tensor(edges, dtype=torch.int64).view(-1, 2).T.contiguous().to(DEVICE)
    adjacency = Adjacency.from_edges(edge_index, n, heads)
    agree_with_float64(adjacency, dim)
    values, x = torch.ones(len(adjacency.sources), device=DEVICE), torch.ones(n * heads, dim, device=DEVICE)
    out = kernels.product(adjacency.offsets, adjacency.sources, values, x)
    assert torch.equal(out, adjacency.offsets.diff().unsqueeze(1).expand(-1, dim).float())  # 0 for an empty row


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["row", "column"])
def test_a_node_may_have_ten_thousand_neighbours(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n, edges, computed = 10_050, 10_000, 40
    torch.manual_seed(0)
    # Node 0 has ten thousand neighbours, most other nodes have one, and the last fifty have none.
    star = torch.stack([torch.zeros(edges, dtype=torch.int64), torch.randperm(edges)])  # sources, targets
    others = torch.randint(1, 30, (2, 100))
    edge_index = torch.cat([star.flip(0) if hub == "row" else star, others], dim=1).unique(dim=1)
    adjacency = Adjacency.from_edges(edge_index.to(DEVICE), n, 1)
    counts = adjacency.offsets if hub == "row" else adjacency.transposed_offsets
    assert counts[1] == edges
    if DEVICE == "cpu":  # the interpreter takes more than a millisecond for a row
        launch = kernels._launch
        monkeypatch.setattr(kernels, "_launch", lambda of, grid, *a, width: launch(of, (computed, 1), *a, width=width))
    agree_with_float64(adjacency, 3, rows=n if DEVICE == "cuda" else computed)


MAP_NORESERVE = 0x4000  # from <sys/mman.h>; Python has the name from 3.13


def zeros(rows: int, width: int) -> torch.Tensor:
    """Return zeros. On the CPU, only the pages that are written take memory."""
    if DEVICE == "cuda":
        return torch.zeros(rows, width, device=DEVICE)
    pages = mmap.mmap(-1, 4 * rows * width, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.float32).view(rows, width)


def wrong_far_away(module: dict[str, Any]) -> list[str]:
    """Return the kernels that read or write another row than the one that is 2³² elements away."""
    d, near = 2**22, 1
    far = near + 2**32 // d  # 32 bits cannot tell the offsets of the two rows apart
    before = 2**31 // d  # where a negative offset leads
    x, out = (zeros(before + far + 1, d)[before:] for _ in range(2))
    x[near, :16], x[far, :16] = 2.0, 3.0
    offsets = torch.zeros(far + 2, dtype=torch.int64, device=DEVICE)
    offsets[far + 1] = 1  # one entry, at (far, far)
    columns, values = torch.tensor([far], device=DEVICE), torch.ones(1, device=DEVICE)
    wrong = []
    # The first 16 columns alone: in the interpreter, all of them would take hours.
    module["_launch"](module["_product_kernel"], (far + 1, 1), offsets, columns, values, x, out, d, width=16)
    if not (out[far, :16] == 3.0).all() or out[near, :16].any():
        wrong.append("_product_kernel")
    if module["sampled_product"](offsets, columns, x, x).tolist() != [16 * 9.0]:
        wrong.append("_sampled_kernel")
    return wrong


@pytest.mark.skipif(
    DEVICE == "cuda" and torch.cuda.mem_get_info()[0] < 60e9, reason="needs 60 GB of GPU memory, or none at all"
)
class TestOffsetsBeyond32Bits:
    def test_the_right_rows_are_read_and_written(self) -> None:
        assert wrong_far_away(vars(kernels)) == []

    @pytest.mark.parametrize("change", NARROW)
    def test_an_offset_in_32_bits_would_be_seen(self, change: str, tmp_path: Path) -> None:
        assert wrong_far_away(run_path(str(narrowed(change, tmp_path)))) == list(KERNELS)


def test_rows_wider_than_a_program_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_MAX_WIDTH", 16)
    test_the_products_are_those_of_dense_matrices.hypothesis.inner_test(  # type: ignore[attr-defined]
        n=6, density=3, heads=2, dim=40, seed=0, dtype=torch.float64
    )


@pytest.mark.parametrize("reading", sorted(READINGS))
def test_a_stack_learns_the_same_by_them(reading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    models = [model_of(reading, hidden_dim=8, cbam_reduction=2) for _ in range(2)]
    gather_from = READINGS[reading].gather_from
    batch = Batch.together(graphs_of(12, (0, 0), 0, torch.float32, 2, gather_from=gather_from)).to(DEVICE)

    def learnt() -> tuple[torch.Tensor, list[torch.Tensor]]:
        together = Stack(models, [torch.Generator(DEVICE).manual_seed(trial) for trial in range(2)]).to(DEVICE).train()
        logits = together(batch.inputs)
        logits.square().sum().backward()
        return logits.detach(), [p.grad for p in together.parameters() if p.grad is not None]

    monkeypatch.setattr("cemobam_core.operators.sparse_attention.HAS_TRITON", False)  # on a GPU: cuSPARSE
    expected = learnt()
    monkeypatch.setattr("cemobam_core.operators.sparse_attention._product", kernels.product)
    monkeypatch.setattr(
        Adjacency, "sampled_product", lambda self, a, b: kernels.sampled_product(self.offsets, self.sources, a, b)
    )
    torch.testing.assert_close(learnt(), expected, rtol=1e-4, atol=1e-4)
