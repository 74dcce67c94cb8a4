"""One graph attention layer as products with a sparse matrix: no message per edge is ever written.

torch-geometric forms one message an edge and head, E × H × d numbers that are written and read several times in each
direction. Here the attention is a sparse matrix A over the nodes, a row a target, and

    forward            out = A h                     sparse × dense
    for the nodes      ∂h  = Aᵀ ∂out                 sparse × dense
    for the attention  ∂A_ij = ⟨∂out_i, h_j⟩         a product sampled where A has entries

H heads over N nodes are one head over N · H nodes: head a of node i is row i · H + a of one (N · H, d) matrix, which
is what the projection gives, so nothing is copied and the three products are one call each.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import leaky_relu

from cemobam_core.metrics import at_least_fp32


@dataclass(frozen=True, eq=False)
class Adjacency:
    """The entries of the sparse attention matrix of all heads, and of its transpose; made once for a graph.

    M = N · H rows and columns, E' = E · H entries, row by row (CSR).

    Attributes:
        offsets: where each row's entries begin, and the last one's end.
        targets: each entry's row.
        sources: each entry's column.
        transposed_offsets: the same of the transpose.
        transposed_sources: its entries' columns, which are targets.
        transposed_order: which entry of the matrix each of the transpose's is.
    """

    offsets: Int64[Tensor, " m_plus_1"]
    targets: Int64[Tensor, " e"]
    sources: Int64[Tensor, " e"]
    transposed_offsets: Int64[Tensor, " m_plus_1"]
    transposed_sources: Int64[Tensor, " e"]
    transposed_order: Int64[Tensor, " e"]

    @classmethod
    def from_edges(cls, edge_index: Int64[Tensor, "2 e"], n: int, heads: int) -> Adjacency:
        """The matrix of a graph over ``n`` nodes, its edges in any order, for ``heads`` heads."""
        head = torch.arange(heads, device=edge_index.device)
        sources, targets = (edge_index.unsqueeze(-1) * heads + head).flatten(1)  # (E * heads,) each
        # By target, then source: neighbours' rows are then read in the order in which they lie.
        order = (targets * (n * heads) + sources).argsort()
        sources, targets = sources[order], targets[order]
        transposed = sources.argsort(stable=True)
        return cls(
            offsets=_offsets(targets, n * heads),
            targets=targets,
            sources=sources,
            transposed_offsets=_offsets(sources, n * heads),
            transposed_sources=targets[transposed],
            transposed_order=transposed,
        )

    def matrix(self, values: Float[Tensor, " e"]) -> Tensor:
        """The sparse matrix with these entries."""
        return _csr(self.offsets, self.sources, values)

    def transposed(self, values: Float[Tensor, " e"]) -> Tensor:
        """Its transpose."""
        return _csr(self.transposed_offsets, self.transposed_sources, values[self.transposed_order])

    def row_sums(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """The sum of each row's entries."""
        return torch.segment_reduce(values, "sum", offsets=self.offsets)

    def column_sums(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """The sum of each column's."""
        return torch.segment_reduce(values[self.transposed_order], "sum", offsets=self.transposed_offsets)

    def row_maxima(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """The largest of each row's entries."""
        return torch.segment_reduce(values, "max", offsets=self.offsets)


def attend(
    h: Float[Tensor, "n heads d"],
    att_src: Float[Tensor, "1 heads d"],
    att_dst: Float[Tensor, "1 heads d"],
    adjacency: Adjacency,
    negative_slope: float = 0.2,
) -> Float[Tensor, "n heads d"]:
    r"""What graph attention gathers, for every node and head; differentiable in all that is float.

    .. math:: \sum_j \alpha_{ij} h_j, \quad \alpha_{ij} = \mathrm{softmax}_j \, \mathrm{LeakyReLU}(
              a_\mathrm{src} \cdot h_j + a_\mathrm{dst} \cdot h_i)

    Veličković et al., 2018, "Graph Attention Networks"; :class:`torch_geometric.nn.GATConv` after its projection and
    before its bias. A node without neighbours gathers zeros. Under autocast it works in float32.

    Args:
        h: projected nodes.
        att_src: a_src, each head's weights of the one that is gathered.
        att_dst: a_dst, of the one that gathers.
        adjacency: who gathers from whom, for as many heads.
        negative_slope: LeakyReLU's.
    """
    # A bfloat16 product's numbers are summed in float32, as are autocast's own sums and softmax.
    out: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
        at_least_fp32(h).contiguous(), att_src, att_dst, adjacency, negative_slope
    )
    return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, h: Tensor, att_src: Tensor, att_dst: Tensor, adjacency: Adjacency, negative_slope: float
    ) -> Tensor:
        by_source, by_target = (h * att_src).sum(dim=-1).flatten(), (h * att_dst).sum(dim=-1).flatten()  # (M,)
        score = by_source[adjacency.sources] + by_target[adjacency.targets]  # (E',)
        alpha = leaky_relu(score, negative_slope)
        alpha = (alpha - adjacency.row_maxima(alpha)[adjacency.targets]).exp()
        alpha /= adjacency.row_sums(alpha)[adjacency.targets]
        ctx.save_for_backward(h, att_src, att_dst, score, alpha)
        ctx.adjacency, ctx.negative_slope = adjacency, negative_slope
        out: Tensor = torch.sparse.mm(adjacency.matrix(alpha), h.flatten(0, 1), "sum")  # (M, d)
        return out.view_as(h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        h, att_src, att_dst, score, alpha = ctx.saved_tensors
        adjacency: Adjacency = ctx.adjacency
        rows, grad_rows = h.flatten(0, 1), grad_out.contiguous().flatten(0, 1)  # (M, d)
        pattern = adjacency.matrix(torch.zeros_like(alpha))
        grad_alpha = torch.sparse.sampled_addmm(pattern, grad_rows, rows.T, beta=0.0).values()
        grad_score = alpha * (grad_alpha - adjacency.row_sums(alpha * grad_alpha)[adjacency.targets])
        grad_score = torch.where(score > 0, grad_score, ctx.negative_slope * grad_score)
        by_source = adjacency.column_sums(grad_score).view(*h.shape[:2], 1)  # (N, H, 1)
        by_target = adjacency.row_sums(grad_score).view(*h.shape[:2], 1)
        grad_h = torch.sparse.mm(adjacency.transposed(alpha), grad_rows, "sum").view_as(h)
        grad_h.addcmul_(by_source, att_src).addcmul_(by_target, att_dst)
        return grad_h, (by_source * h).sum(0, keepdim=True), (by_target * h).sum(0, keepdim=True), None, None


def _offsets(rows: Tensor, m: int) -> Tensor:
    return torch.cat([rows.new_zeros(1), rows.bincount(minlength=m).cumsum(0)])


def _csr(offsets: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    m = len(offsets) - 1
    return torch.sparse_csr_tensor(offsets, columns, values, (m, m), check_invariants=False)


with warnings.catch_warnings():
    # Said once per process: "Sparse CSR tensor support is in beta state". The products used here are tested.
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
    _csr(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1))
