from __future__ import annotations

import torch
from batches import TOLERANCE
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import dropout as drop
from torch.nn.functional import layer_norm

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


@given(
    d_of_head=st.sampled_from([1, 3, 8]),
    heads=st.sampled_from([1, 2, 4]),
    asked=st.integers(1, 4),
    keys=st.integers(1, 5),
    n=st.integers(1, 9),
    dropout=st.sampled_from([0.0, 0.3]),
    linear=st.booleans(),
    training=st.booleans(),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_it_is_torchs_attention_in_value_gradients_and_random_numbers(
    d_of_head: int,
    heads: int,
    asked: int,
    keys: int,
    n: int,
    dropout: float,
    linear: bool,
    training: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    """A single key is included, for which our code takes a shortcut."""
    torch.manual_seed(seed)
    d = d_of_head * heads
    module = CrossModalAttention(dim=d, heads=heads, dropout=dropout, linear_and_dropout=linear).to(dtype)
    module.train(training)
    torch.nn.init.normal_(module.attention.in_proj_bias)
    tensors = [torch.randn(n, steps, d, dtype=dtype) for steps in (asked, keys)]
    mask = torch.arange(keys) < torch.randint(1, keys + 1, (n, 1))

    def theirs(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        answer, _ = module.attention(query, key, key, key_padding_mask=~mask, need_weights=False)
        normed = layer_norm(query + module.linear(answer), (d,), module.norm.weight, module.norm.bias)
        return drop(normed, dropout, training) if linear else normed

    results = []
    for forward in (lambda query, key: module(query, key, mask), theirs):
        module.zero_grad()
        query, key = (x.clone().requires_grad_() for x in tensors)
        torch.manual_seed(seed)
        out = forward(query, key)
        (out * torch.linspace(-1, 1, d, dtype=dtype)).sum().backward()
        grads = [p.grad for p in module.parameters()]
        results.append([out.detach(), query.grad, key.grad, torch.rand(1), *grads])
    for mine, of in zip(*results, strict=True):
        torch.testing.assert_close(mine, of, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_with_one_key_the_query_chooses_nothing() -> None:
    torch.manual_seed(0)
    module = CrossModalAttention(dim=8, heads=2, dropout=0.0)
    key, mask = torch.randn(4, 1, 8), torch.ones(4, 1, dtype=torch.bool)
    query = torch.randn(4, 1, 8)
    answer, _ = module.attention(query, key, key)
    other, _ = module.attention(torch.randn(4, 1, 8), key, key)
    torch.testing.assert_close(answer, other)
    torch.testing.assert_close(module(query, key, mask), module.norm(query + answer))
