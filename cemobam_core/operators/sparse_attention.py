"""Graph attention as products with a sparse matrix, without storing a message per edge.

torch-geometric stores one message per edge and head: E × H × d numbers that are written and read several times in the
forward and in the backward pass. Here the attention is a sparse matrix A over the nodes, with one row per target:

    forward                    out = A h                  sparse × dense
    gradient of the nodes      ∂h  = Aᵀ ∂out              sparse × dense
    gradient of the attention  ∂A_ij = ⟨∂out_i, h_j⟩      a product sampled at the entries of A

H heads over N nodes are treated as one head over N · H nodes: head a of node i is row i · H + a of one (N · H, d)
matrix. The projection already returns this layout, so nothing is copied, and each of the three products is one call.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import leaky_relu
from torch.utils.weak import WeakTensorKeyDictionary

from cemobam_core.errors import InputError
from cemobam_core.operators.precision import at_least_fp32

HAS_TRITON = find_spec("triton") is not None
"""Whether Triton is installed. If so, our kernels compute the products on a GPU. Otherwise cuSPARSE does."""


@dataclass(frozen=True, eq=False)
class Adjacency:
    """The entries of the sparse attention matrix of all heads and of its transpose. It is built once per graph.

    The matrix has M = N · H rows and columns and E' = E · H entries, stored row by row (CSR).

    Attributes:
        offsets: (M + 1,), start of each row's entries, and the end of the last row.
        targets: (E',), row of each entry.
        sources: (E',), column of each entry.
        transposed_offsets: (M + 1,), offsets of the transpose.
        transposed_sources: (E',), columns of the transpose's entries, which are targets.
        transposed_order: (E',), index in the matrix of each entry of the transpose.
    """

    offsets: Int64[Tensor, " m_plus_1"]
    targets: Int64[Tensor, " e"]
    sources: Int64[Tensor, " e"]
    transposed_offsets: Int64[Tensor, " m_plus_1"]
    transposed_sources: Int64[Tensor, " e"]
    transposed_order: Int64[Tensor, " e"]

    @classmethod
    def from_edges(cls, edge_index: Tensor, n: int, heads: int) -> Adjacency:
        """Build the matrix of a graph.

        Args:
            edge_index: (2, E) int64, edges in any order. Row 0 is the source, row 1 the target that gathers from it.
            n: Number of nodes.
            heads: Number of attention heads.

        Raises:
            InputError: The edges have a wrong type or shape, or refer to a node that does not exist.
        """
        if edge_index.dtype != torch.int64 or edge_index.ndim != 2 or len(edge_index) != 2:
            kind = f"{str(edge_index.dtype).removeprefix('torch.')} {tuple(edge_index.shape)}"
            raise InputError(f"edge_index is {kind}; it must be int64 (2, E): row 0 the sources, row 1 the targets")
        if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < n:
            raise InputError(
                f"edge_index refers to utterances {int(edge_index.min())} to {int(edge_index.max())}, but there are "
                f"{n}: build the graph from the same features"
            )
        head = torch.arange(heads, device=edge_index.device)
        sources, targets = (edge_index.unsqueeze(-1) * heads + head).flatten(1)  # (E * heads,) each
        # Sort by target, then by source, so that the rows of neighbours are read in memory order.
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

    def product(self, values: Float[Tensor, " e"], x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Return the product of the matrix with these entries and ``x``."""
        return _product(self.offsets, self.sources, values, x)

    def transposed_product(self, values: Float[Tensor, " e"], x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Return the product of the transposed matrix with these entries and ``x``."""
        values = values.index_select(0, self.transposed_order)
        return _product(self.transposed_offsets, self.transposed_sources, values, x)

    def sampled_product(self, a: Float[Tensor, "m d"], b: Float[Tensor, "m d"]) -> Float[Tensor, " e"]:
        """Return the elements of ``a @ b.T`` at the entries of the matrix."""
        if a.is_cuda and HAS_TRITON:
            from cemobam_core.operators import kernels  # noqa: PLC0415  (Triton comes with torch for CUDA only)

            return kernels.sampled_product(self.offsets, self.sources, a, b)
        pattern = _csr(self.offsets, self.sources, a.new_zeros(len(self.sources)))
        sampled: Tensor = torch.sparse.sampled_addmm(pattern, a, b.T, beta=0.0).values()
        return sampled

    def row_sums(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """Return the sum of the entries of each row."""
        return torch.segment_reduce(values, "sum", offsets=self.offsets)

    def column_sums(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """Return the sum of the entries of each column."""
        values = values.index_select(0, self.transposed_order)
        return torch.segment_reduce(values, "sum", offsets=self.transposed_offsets)

    def row_maxima(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """Return the largest entry of each row."""
        return torch.segment_reduce(values, "max", offsets=self.offsets)

    def to_entries(self, rows: Float[Tensor, " m"]) -> Float[Tensor, " e"]:
        """Repeat one number per row for each entry of the row."""
        return rows.index_select(0, self.targets)


_CACHE: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Cached matrices of each graph, by number of nodes and of heads. They are freed together with the graph."""


def adjacency_of(edge_index: Tensor, n: int, heads: int) -> Adjacency:
    """Return the matrix of a graph. It is built once per tensor of edges, and again if the tensor changes.

    Args:
        edge_index: (2, E), as for ``torch_geometric.nn.GATConv``.
        n: Number of nodes.
        heads: Number of attention heads.

    Raises:
        InputError: The edges have a wrong type or shape, or refer to a node that does not exist.
    """
    known = _CACHE.setdefault(edge_index, {})
    version = None if edge_index.is_inference() else edge_index._version
    if (n, heads, version) not in known:
        known[n, heads, version] = Adjacency.from_edges(edge_index, n, heads)
    made: Adjacency = known[n, heads, version]
    return made


def _product(
    offsets: Int64[Tensor, " m_plus_1"],
    columns: Int64[Tensor, " e"],
    values: Float[Tensor, " e"],
    x: Float[Tensor, "m d"],
) -> Float[Tensor, "m d"]:
    if not x.is_cuda:
        out: Tensor = torch.sparse.mm(_csr(offsets, columns, values), x, "sum")
        return out
    if HAS_TRITON:
        from cemobam_core.operators import kernels  # noqa: PLC0415

        return kernels.product(offsets, columns, values, x)
    return _csr(offsets, columns, values) @ x


def attend(
    h: Float[Tensor, "n heads d"],
    att_src: Float[Tensor, "graphs heads d"],
    att_dst: Float[Tensor, "graphs heads d"],
    adjacency: Adjacency,
    negative_slope: float = 0.2,
) -> Float[Tensor, "n heads d"]:
    r"""Compute what graph attention gathers for every node and head. Every float argument gets a gradient.

    .. math:: \sum_j \alpha_{ij} h_j, \quad \alpha_{ij} = \mathrm{softmax}_j \, \mathrm{LeakyReLU}(
              a_\mathrm{src} \cdot h_j + a_\mathrm{dst} \cdot h_i)

    Veličković et al., 2018, "Graph Attention Networks". This is ``torch_geometric.nn.GATConv`` after its projection and
    before its bias. A node without neighbours gathers zeros. Under autocast the computation is in float32.

    Args:
        h: (N, H, d), projected nodes. Several graphs with the same number of nodes follow each other.
        att_src: (G, H, d), a_src of each of the G graphs: weights of the node that is gathered.
        att_dst: (G, H, d), a_dst of each graph: weights of the node that gathers.
        adjacency: Attention matrix with the same number of heads.
        negative_slope: Negative slope of the LeakyReLU.
    """
    # The elements of a bfloat16 product are summed in float32, like autocast's own sums and softmax.
    out: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
        at_least_fp32(h).contiguous(), att_src, att_dst, adjacency, negative_slope
    )
    return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, h: Tensor, att_src: Tensor, att_dst: Tensor, adjacency: Adjacency, negative_slope: float
    ) -> Tensor:
        by_graph = h.unflatten(0, (len(att_src), -1))  # (G, N, H, d)
        if h.is_cuda:
            by_source, by_target = scores_in_one_pass(by_graph, att_src, att_dst)
        else:
            by_source, by_target = ((by_graph * att.unsqueeze(1)).sum(dim=-1).flatten() for att in (att_src, att_dst))
        score = by_source.index_select(0, adjacency.sources) + adjacency.to_entries(by_target)  # (E',)
        alpha = leaky_relu(score, negative_slope)
        alpha = (alpha - adjacency.to_entries(adjacency.row_maxima(alpha))).exp()
        alpha /= adjacency.to_entries(adjacency.row_sums(alpha))
        ctx.save_for_backward(h, att_src, att_dst, score, alpha)
        ctx.adjacency, ctx.negative_slope = adjacency, negative_slope
        return adjacency.product(alpha, h.flatten(0, 1)).view_as(h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        h, att_src, att_dst, score, alpha = ctx.saved_tensors
        adjacency: Adjacency = ctx.adjacency
        by_graph = h.unflatten(0, (len(att_src), -1))
        grad_rows = grad_out.contiguous().flatten(0, 1)  # (M, d)
        grad_alpha = adjacency.sampled_product(grad_rows, h.flatten(0, 1))
        grad_score = alpha * (grad_alpha - adjacency.to_entries(adjacency.row_sums(alpha * grad_alpha)))
        grad_score = torch.ops.aten.leaky_relu_backward(grad_score, score, ctx.negative_slope, False)
        by_source = adjacency.column_sums(grad_score).view(*by_graph.shape[:3], 1)  # (G, N, H, 1)
        by_target = adjacency.row_sums(grad_score).view(*by_graph.shape[:3], 1)
        grad_h = adjacency.transposed_product(alpha, grad_rows).view_as(by_graph)
        if h.is_cuda:
            gradients = score_gradients_in_one_pass(grad_h, by_graph, att_src, att_dst, by_source, by_target)
            return grad_h.view_as(h), *gradients, None, None
        grad_h.addcmul_(by_source, att_src.unsqueeze(1)).addcmul_(by_target, att_dst.unsqueeze(1))
        return grad_h.view_as(h), (by_source * by_graph).sum(1), (by_target * by_graph).sum(1), None, None


def scores_in_one_pass(by_graph: Tensor, att_src: Tensor, att_dst: Tensor) -> Iterable[Tensor]:
    """Return a_src · h and a_dst · h of every node and head, (G · N · H,) each.

    All heads and both vectors are one matrix product per graph. It computes H times more than is needed, but it reads h
    only once, and on a GPU reading h is what takes the time.

    Args:
        by_graph: (G, N, H, d), h.
        att_src: (G, H, d).
        att_dst: (G, H, d).
    """
    both = by_graph.flatten(2) @ _block_columns(att_src, att_dst)  # (G, N, 2 H)
    return (scores.flatten() for scores in both.chunk(2, dim=-1))


def score_gradients_in_one_pass(  # noqa: PLR0917
    grad_h: Tensor, by_graph: Tensor, att_src: Tensor, att_dst: Tensor, by_source: Tensor, by_target: Tensor
) -> tuple[Tensor, Tensor]:
    """Add the gradient of the scores to ``grad_h`` in place, and return the gradients of a_src and a_dst, (G, H, d).

    Args:
        grad_h: (G, N, H, d), contiguous.
        by_graph: (G, N, H, d), h.
        att_src: (G, H, d).
        att_dst: (G, H, d).
        by_source: (G, N, H, 1), gradient of a_src · h.
        by_target: (G, N, H, 1), gradient of a_dst · h.
    """
    heads = att_src.shape[1]
    both = torch.cat([by_source.squeeze(-1), by_target.squeeze(-1)], dim=-1)  # (G, N, 2 H)
    grad_h.flatten(2).baddbmm_(both, _block_columns(att_src, att_dst).transpose(1, 2))
    products = (both.transpose(1, 2) @ by_graph.flatten(2)).unflatten(-1, (heads, -1))  # (G, 2 H, H, d)
    of_source, of_target = (half.diagonal(dim1=1, dim2=2).transpose(1, 2) for half in products.chunk(2, dim=1))
    return of_source, of_target


def _block_columns(att_src: Tensor, att_dst: Tensor) -> Tensor:
    """Return (G, H · d, 2 H): column a has a_src of head a in the rows of head a, and column H + a has its a_dst."""
    same_head = torch.eye(att_src.shape[1], device=att_src.device, dtype=att_src.dtype).unsqueeze(1)  # (H, 1, H)
    return torch.cat([(att.unsqueeze(-1) * same_head).flatten(1, 2) for att in (att_src, att_dst)], dim=-1)


def _offsets(rows: Tensor, m: int) -> Tensor:
    return torch.cat([rows.new_zeros(1), rows.bincount(minlength=m).cumsum(0)])


def _csr(offsets: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    m = len(offsets) - 1
    return torch.sparse_csr_tensor(offsets, columns, values, (m, m), check_invariants=False)


with warnings.catch_warnings():
    # torch warns once per process that sparse CSR tensors are in beta state, and (2.11) that they are not checked. The
    # products used here are tested, and the edges are checked.
    warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)", category=UserWarning)
    _csr(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1))
