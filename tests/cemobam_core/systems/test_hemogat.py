"""HemoGAT, compared with values recorded from its authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batches import SIZES, any_batch
from goldens import assert_it_is_theirs, golden_of

from cemobam_core import InputError, Sizes, TopKGraph
from cemobam_core.systems.hemogat import HemoGAT

# In the authors' code, the query of the attention "text" is audio.
NAMES = {
    "audio_projection.": "audio_projection.layers.",
    "text_projection.": "text_projection.layers.",
    "gnn.conv1.": "chgat.hidden.0.",
    "gnn.convs.0.": "chgat.hidden.1.",
    "gnn.conv_last.": "chgat.last.",
    "gnn.batch_norm.": "chgat.norms.0.",
    "cross_fusion.text_attention.": "audio_to_text.attention.",
    "cross_fusion.text_linear.": "audio_to_text.linear.",
    "cross_fusion.text_layer_norm.": "audio_to_text.norm.",
    "cross_fusion.audio_attention.": "text_to_audio.attention.",
    "cross_fusion.audio_linear.": "text_to_audio.linear.",
    "cross_fusion.audio_layer_norm.": "text_to_audio.norm.",
    "mlp.": "classifier.",
}


def theirs() -> dict[str, Any]:
    golden = golden_of("hemogat")
    # one batch norm, which our code lists under each layer that uses it
    golden["state"] |= {n.replace("batch_norm", "norm1"): v for n, v in golden["state"].items() if "batch_norm" in n}
    return golden


def test_the_recorded_logits_loss_and_gradients_come_out() -> None:
    golden = theirs()
    sizes = Sizes(audio_dim=768, text_dim=768, num_classes=4)
    model = HemoGAT(hidden_dim=32, heads=int(golden["metadata"]["heads"])).build(sizes)
    assert_it_is_theirs(model, golden, NAMES | {"gnn.norm1.": "chgat.norms.1."})


def test_the_recorded_graph_is_that_of_the_prescribed_direction() -> None:
    golden = golden_of("hemogat")
    ranked = TopKGraph.from_features(golden["audio"], golden["text"], 8)
    k = {name: int(golden["metadata"][name]) for name in ("k_audio", "k_text")}
    ours = ranked.edge_index(**k, gather_from=str(HemoGAT.prescribed["gather_from"]))  # type: ignore[arg-type]
    assert {tuple(edge) for edge in ours.T.tolist()} == {tuple(edge) for edge in golden["edge_index"].T.tolist()}


def test_the_classifier_sees_the_graph_and_the_means_of_both_streams() -> None:
    torch.manual_seed(0)
    network: Any = HemoGAT(hidden_dim=8, heads=2).build(SIZES).eval()
    inputs = any_batch(12, (4, 3), 0).inputs
    audio, text = network.audio_projection(inputs.audio), network.text_projection(inputs.text)
    lengths = [one.mask.sum(dim=1).tolist() for one in (inputs.audio, inputs.text)]

    def mean(x: torch.Tensor, of: list[int]) -> torch.Tensor:
        return torch.stack([one[:length].mean(dim=0) for one, length in zip(x, of, strict=True)])

    nodes = torch.cat([mean(text, lengths[1]), mean(audio, lengths[0])], dim=1)
    a_to_t = network.audio_to_text(audio, text, inputs.text.mask)
    t_to_a = network.text_to_audio(text, audio, inputs.audio.mask)
    graph = network.chgat(nodes, inputs.edge_index)
    expected = torch.cat([graph, mean(a_to_t, lengths[0]), mean(t_to_a, lengths[1])], dim=1)
    torch.testing.assert_close(network.embedding(inputs), expected)


def test_a_single_graph_layer_is_refused() -> None:
    with pytest.raises(InputError, match="gat_layers=1 must be at least 2"):
        HemoGAT(gat_layers=1)
