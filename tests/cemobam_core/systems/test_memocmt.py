"""MemoCMT, compared with values recorded from its authors' code and with its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from goldens import assert_it_is_theirs, golden_of
from pairwise import pairwise
from torch import Tensor
from torch.nn.functional import layer_norm, leaky_relu, linear

from cemobam_core import Inputs, Sizes
from cemobam_core.operators.fusion import FUSIONS, Fusion
from cemobam_core.systems.memocmt import MemoCMT
from cemobam_core.training.stacks import why_alone

# In the authors' code, the query of the attention "text" is audio.
NAMES = {
    "text_attention": "audio_to_text.attention",
    "text_linear": "audio_to_text.linear",
    "text_layer_norm": "audio_to_text.norm",
    "audio_attention": "text_to_audio.attention",
    "audio_linear": "text_to_audio.linear",
    "audio_layer_norm": "text_to_audio.norm",
    "linear_0": "classifier.1",
    "classifer": "classifier.4",
}


@pytest.mark.parametrize("name", ["memocmt_cls", "memocmt_min", "memocmt_utterance_mean"])
def test_the_recorded_logits_loss_and_gradients_come_out(name: str) -> None:
    golden = golden_of(name)
    sizes = Sizes(audio_dim=golden["audio"].shape[-1], text_dim=golden["text"].shape[-1], num_classes=4)
    system = MemoCMT(
        hidden_dim=len(golden["state"]["text_linear.bias"]),
        heads=int(golden["metadata"]["heads"]),
        classifier_dim=int(golden["metadata"]["hidden"]),
        fusion=golden["metadata"]["fusion"],
    )
    assert_it_is_theirs(system.build(sizes), golden, NAMES)


def attended(query: Tensor, key: Tensor, module: Any, heads: int) -> Tensor:
    """Compute multi-head attention of one utterance step by step: (T_q, d), (T_k, d) → (T_q, d)."""
    q, k, v = (
        linear(x, w, b).unflatten(-1, (heads, -1)).transpose(0, 1)  # (H, T, d / H)
        for x, w, b in zip((query, key, key), module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3), strict=True)
    )
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    answer: Tensor = module.out_proj((weights @ v).transpose(0, 1).flatten(1))
    return answer


@pairwise(fusion=FUSIONS, audio_dim=[6, 8], audio_steps=[1, 5], text_steps=[1, 3])
def test_it_is_its_formula(fusion: Fusion, audio_dim: int, audio_steps: int, text_steps: int) -> None:
    torch.manual_seed(0)
    system = MemoCMT(hidden_dim=4, heads=2, classifier_dim=3, fusion=fusion)
    network: Any = system.build(Sizes(audio_dim=audio_dim, text_dim=6, num_classes=3)).double().eval()
    audio, text = (torch.randn(4, t, e).double() for t, e in ((audio_steps, audio_dim), (text_steps, 6)))
    expected = []
    for x_a, x_t in zip(audio, text, strict=True):
        a, t = x_a, x_t
        if audio_dim != 6:
            a, t = network.audio_projection(x_a), network.text_projection(x_t)
        streams = []
        for query, key, stream in ((a, t, network.audio_to_text), (t, a, network.text_to_audio)):
            answer = stream.linear(attended(query, key, stream.attention, 2))
            streams.append(layer_norm(answer, (4,), stream.norm.weight, stream.norm.bias))
        both = torch.cat(streams)
        fused = {"cls": both[0], "min": both.amin(0), "max": both.amax(0), "mean": both.mean(0)}[fusion]
        _, first, _, _, last = network.classifier
        expected.append(last(leaky_relu(first(fused), 0.01)))
    torch.testing.assert_close(network(Inputs.from_features(audio, text)), torch.stack(expected))


@pytest.mark.parametrize("steps", [(None, None), (5, None), (None, 3), (5, 3)])
@pytest.mark.parametrize("audio_dim", [8, 6, 12])
def test_models_can_be_stacked_whether_the_sizes_are_the_same_or_not(
    audio_dim: int, steps: tuple[int | None, int | None]
) -> None:
    dims = (audio_dim, 8 if audio_dim == 8 else 6)
    x = [torch.randn(10, t, e) if t else torch.randn(10, e) for t, e in zip(steps, dims, strict=True)]
    masks = [torch.arange(t) < torch.randint(1, t + 1, (10, 1)) if t else None for t in steps]
    inputs = Inputs.from_features(x[0], x[1], None, *masks)
    sizes = Sizes(audio_dim=dims[0], text_dim=dims[1], num_classes=3)
    assert why_alone(lambda: MemoCMT(hidden_dim=8, heads=4, classifier_dim=5).build(sizes), inputs) == ""


def test_embeddings_of_one_size_that_the_heads_divide_are_attended_as_they_are() -> None:
    def projected(audio_dim: int, text_dim: int) -> bool:
        sizes = Sizes(audio_dim=audio_dim, text_dim=text_dim, num_classes=2)
        return hasattr(MemoCMT(hidden_dim=8, heads=4).build(sizes), "audio_projection")

    assert not projected(12, 12)
    assert projected(12, 16)
    assert projected(10, 10)
