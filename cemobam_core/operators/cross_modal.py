"""Cross-modal attention: one modality is the query, the other is key and value (Tsai et al., 2019, as in the paper)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.operators.batched import drop, linear


def ask(
    attention: Any,
    query: Float[Tensor, "*r n tq d"],
    key: Float[Tensor, "*r n tk d"],
    key_mask: Bool[Tensor, "n tk"],
) -> Float[Tensor, "*r n tq_or_1 d"]:
    r"""Return :math:`\mathrm{MultiHead}(Q = \mathrm{query}, K = V = \mathrm{key})` over the valid steps of the key.

    With a single key the softmax is 1 for every query. The output is then the value of that key, and the projections of
    query and key are not computed. Their weights get a gradient of zero, which is also the exact result. Without
    dropout the output is the same for all queries and is returned once, with T_q = 1.

    Args:
        attention: A ``torch.nn.MultiheadAttention`` with ``batch_first``, or a stack of them.
        query: (N, T_q, d), one modality.
        key: (N, T_k, d), the other modality.
        key_mask: (N, T_k), true for valid steps of the key.
    """
    if key.shape[-2] == 1:
        return _value(attention, key, query.shape[-2])
    answer: Tensor = attention(query, key, key, key_padding_mask=~key_mask, need_weights=False)[0]
    return answer


def _value(attention: Any, key: Float[Tensor, "*r n 1 d"], queries: int) -> Float[Tensor, "*r n tq_or_1 d"]:
    """Return the output of attention over a single key, for a number of queries."""
    d = key.shape[-1]
    w_value, b_value = attention.in_proj_weight[..., 2 * d :, :], attention.in_proj_bias[..., 2 * d :]
    value = linear(key, w_value, b_value)  # (N, 1, d)
    if attention.dropout and attention.training:
        weight = value.new_ones(*value.shape[:-2], attention.num_heads, queries, 1)
        weight = drop(weight, attention.dropout, getattr(attention, "generators", None))
        value = value.unflatten(-1, (attention.num_heads, -1)).transpose(-2, -3)  # (N, H, 1, d / H)
        value = (weight * value).transpose(-2, -3).flatten(-2)  # (N, T_q, d)
    answer: Tensor = attention.out_proj(value)
    return answer


class CrossModalAttention(nn.Module):
    r"""Multi-head attention from one modality to the other, with a residual to the query and LayerNorm.

    .. math:: F_{A \to T} = \mathrm{LayerNorm}(F_A + \mathrm{MultiHead}(Q = F_A, K = F_T, V = F_T))

    Args:
        dim: d, a multiple of ``heads``.
        heads: Number of attention heads.
        dropout: Dropout probability of the attention weights.
        linear_and_dropout: Whether to add a Linear between attention and residual, and dropout after LayerNorm.

    Shapes:
        query (N, T_q, d), key (N, T_k, d), key_mask (N, T_k) → (N, T_q, d).
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
        """Return the query after attention to the valid steps of the key."""
        answer = ask(self.attention, query, key, key_mask)
        output: Tensor = self.dropout(self.norm(query + self.linear(answer)))
        return output
