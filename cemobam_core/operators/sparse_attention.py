"""Graph attention as products with a sparse matrix: no message per edge is ever written.

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
"""Whether the products on a GPU are ours (:mod:`.kernels`); else they are cuSPARSE's."""


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
    def from_edges(cls, edge_index: Tensor, n: int, heads: int) -> Adjacency:
        """Return the matrix of a graph.

        Args:
            edge_index: (2, E) int64, the edges in any order: row 0 the source, row 1 the target that gathers from it.
            n: how many nodes there are.
            heads: attention heads.

        Raises:
            InputError: edges of another type or shape, or to a node that is not there.
        """
        if edge_index.dtype != torch.int64 or edge_index.ndim != 2 or len(edge_index) != 2:
            kind = f"{str(edge_index.dtype).removeprefix('torch.')} {tuple(edge_index.shape)}"
            raise InputError(f"edge_index is {kind}; it must be int64 (2, E): row 0 the sources, row 1 the targets")
        if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < n:
            raise InputError(
                f"edge_index names utterances {int(edge_index.min())} to {int(edge_index.max())}, but there are {n}: "
                "make the graph from the same features"
            )
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

    def product(self, values: Float[Tensor, " e"], x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Return the matrix with these entries times ``x``."""
        return _product(self.offsets, self.sources, values, x)

    def transposed_product(self, values: Float[Tensor, " e"], x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Return the transpose of the matrix with these entries times ``x``."""
        values = values.index_select(0, self.transposed_order)
        return _product(self.transposed_offsets, self.transposed_sources, values, x)

    def sampled_product(self, a: Float[Tensor, "m d"], b: Float[Tensor, "m d"]) -> Float[Tensor, " e"]:
        """Return the entries of ``a @ b.T`` where the matrix has some."""
        if a.is_cuda and HAS_TRITON:
            from cemobam_core.operators import kernels  # noqa: PLC0415  (needs Triton, which comes with torch for CUDA)

            return kernels.sampled_product(self.offsets, self.sources, a, b)
        pattern = _csr(self.offsets, self.sources, a.new_zeros(len(self.sources)))
        sampled: Tensor = torch.sparse.sampled_addmm(pattern, a, b.T, beta=0.0).values()
        return sampled

    def row_sums(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """Return the sum of each row's entries."""
        return torch.segment_reduce(values, "sum", offsets=self.offsets)

    def column_sums(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """Return the sum of each column's entries."""
        values = values.index_select(0, self.transposed_order)
        return torch.segment_reduce(values, "sum", offsets=self.transposed_offsets)

    def row_maxima(self, values: Float[Tensor, " e"]) -> Float[Tensor, " m"]:
        """Return the largest of each row's entries."""
        return torch.segment_reduce(values, "max", offsets=self.offsets)

    def to_entries(self, rows: Float[Tensor, " m"]) -> Float[Tensor, " e"]:
        """Return one number a row, repeated for each of the row's entries."""
        return rows.index_select(0, self.targets)


_KNOWN: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""By graph, and for as long as it lives, its matrices by number of nodes and of heads."""


def adjacency_of(edge_index: Tensor, n: int, heads: int) -> Adjacency:
    """Return the matrix of a graph; it is made once for a tensor of edges, and again if the tensor is changed.

    Args:
        edge_index: (2, E), as :class:`torch_geometric.nn.GATConv` takes it.
        n: how many nodes there are.
        heads: attention heads.

    Raises:
        InputError: edges of another type or shape, or to a node that is not there.
    """
    known = _KNOWN.setdefault(edge_index, {})
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
    r"""Return what graph attention gathers for every node and head; differentiable in every argument that is float.

    .. math:: \sum_j \alpha_{ij} h_j, \quad \alpha_{ij} = \mathrm{softmax}_j \, \mathrm{LeakyReLU}(
              a_\mathrm{src} \cdot h_j + a_\mathrm{dst} \cdot h_i)

    Veličković et al., 2018, "Graph Attention Networks"; :class:`torch_geometric.nn.GATConv` after its projection and
    before its bias. A node without neighbours gathers zeros. Under autocast it works in float32.

    Args:
        h: projected nodes; of several graphs with as many nodes each, one graph's after another's.
        att_src: a_src of each graph, the weights of the node that is gathered.
        att_dst: a_dst of each graph, the weights of the node that gathers.
        adjacency: who gathers from whom, for as many heads.
        negative_slope: of the LeakyReLU.
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
        by_graph = h.unflatten(0, (len(att_src), -1))  # (G, N, H, d)
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
        grad_h.addcmul_(by_source, att_src.unsqueeze(1)).addcmul_(by_target, att_dst.unsqueeze(1))
        return grad_h.view_as(h), (by_source * by_graph).sum(1), (by_target * by_graph).sum(1), None, None


def _offsets(rows: Tensor, m: int) -> Tensor:
    return torch.cat([rows.new_zeros(1), rows.bincount(minlength=m).cumsum(0)])


def _csr(offsets: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    m = len(offsets) - 1
    return torch.sparse_csr_tensor(offsets, columns, values, (m, m), check_invariants=False)


with warnings.catch_warnings():
    # Said once per process: "Sparse CSR tensor support is in beta state". The products used here are tested.
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
    _csr(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1))
