"""The sparse products in Triton, on a GPU if there is one and in Triton's interpreter otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from cemobam_core.operators import kernels

for kernel in (kernels._product_kernel, kernels._sampled_kernel):
    types = {"offsets": "*i64", "columns": "*i64", "d": "i32", "width": "constexpr"}
    signature = {name: types.get(name, "*" + sys.argv[1]) for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs={"width": int(sys.argv[2])})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
    assert len(compiled.asm["cubin"]) > 1000
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
@pytest.mark.parametrize("width", [16, 1024])
def test_the_kernels_compile_for_a_gpu_that_need_not_be_there(dtype: str, width: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, dtype, str(width)],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


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
