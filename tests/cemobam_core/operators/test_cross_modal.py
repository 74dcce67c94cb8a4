from __future__ import annotations

import torch

from cemobam_core.operators.cross_modal import CrossModalAttention


def test_it_is_attention_over_the_valid_steps_residual_and_norm() -> None:
    torch.manual_seed(0)
    d, heads = 8, 2
    module = CrossModalAttention(dim=d, heads=heads, dropout=0.3).eval()
    query, key = torch.randn(2, 3, d), torch.randn(2, 5, d)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    torch.nn.init.normal_(module.attention.in_proj_bias)
    w_q, w_k, w_v = module.attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = module.attention.in_proj_bias.chunk(3)
    for i, steps in ((0, 5), (1, 2)):
        q, k, v = query[i] @ w_q.T + b_q, key[i, :steps] @ w_k.T + b_k, key[i, :steps] @ w_v.T + b_v
        answers = []
        for head in torch.arange(d).chunk(heads):
            alpha = torch.softmax(q[:, head] @ k[:, head].T / (d / heads) ** 0.5, dim=-1)
            answers.append(alpha @ v[:, head])
        answer = module.attention.out_proj(torch.cat(answers, dim=-1))
        torch.testing.assert_close(module(query, key, mask)[i], module.norm(query[i] + answer))


def test_with_one_key_the_query_chooses_nothing() -> None:
    torch.manual_seed(0)
    module = CrossModalAttention(dim=8, heads=2, dropout=0.0)
    key, mask = torch.randn(4, 1, 8), torch.ones(4, 1, dtype=torch.bool)
    query = torch.randn(4, 1, 8)
    answer, _ = module.attention(query, key, key)
    other, _ = module.attention(torch.randn(4, 1, 8), key, key)
    torch.testing.assert_close(answer, other)
    torch.testing.assert_close(module(query, key, mask), module.norm(query + answer))
