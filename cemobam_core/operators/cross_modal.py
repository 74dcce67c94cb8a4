"""The cross-modal transformer: one modality asks, the other answers (Tsai et al., 2019, in the paper's form)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn


class CrossModalAttention(nn.Module):
    r"""Multi-head attention from one modality to the other, residual to the query, LayerNorm.

    .. math:: F_{A \to T} = \mathrm{LayerNorm}(F_A + \mathrm{MultiHead}(Q = F_A, K = F_T, V = F_T))

    Args:
        dim: d, a multiple of ``heads``.
        heads: attention heads.
        dropout: probability of dropout on the attention weights.
        linear_and_dropout: whether a Linear stands between the attention and the residual, and dropout after LayerNorm.

    Shapes:
        query (N, T_q, d), key (N, T_k, d), key_mask (N, T_k) → (N, T_q, d)
    """

    def __init__(self, *, dim: int, heads: int, dropout: float, linear_and_dropout: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.linear = nn.Linear(dim, dim) if linear_and_dropout else nn.Identity()
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout) if linear_and_dropout else nn.Identity()

    def forward(
        self,
        query: Float[Tensor, "*r n tq d"],
        key: Float[Tensor, "*r n tk d"],
        key_mask: Bool[Tensor, "n tk"],
    ) -> Float[Tensor, "*r n tq d"]:
        """The query, informed by the valid steps of the key."""
        answer, _ = self.attention(query, key, key, key_padding_mask=~key_mask, need_weights=False)
        informed: Tensor = self.dropout(self.norm(query + self.linear(answer)))
        return informed
