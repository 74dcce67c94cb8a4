"""The systems that use one vector per modality, and the gate of GloMER, compared with their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batches import SIZES, any_batch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from cemobam_core import Inputs, NeuralSystem
from cemobam_core.operators.gated_unit import GatedMultimodalUnit
from cemobam_core.systems.audio_mlp import AudioMLP
from cemobam_core.systems.concat_mlp import ConcatMLP
from cemobam_core.systems.glomer import GloMER
from cemobam_core.systems.late_fusion import LateFusion
from cemobam_core.systems.lmf import LMF
from cemobam_core.systems.ser_fuse import SERFuse
from cemobam_core.systems.server import SERVER
from cemobam_core.systems.text_mlp import TextMLP
from cemobam_core.systems.tfn import TFN
from cemobam_core.training.step import settle_batch_norm

BATCH = any_batch(20, (4, 3), 0, torch.float64)
INPUTS = BATCH.inputs
AUDIO, TEXT = (
    torch.stack([x[mask].mean(dim=0) for x, mask in zip(one.as_subclass(Tensor), one.mask, strict=True)])
    for one in (INPUTS.audio, INPUTS.text)
)
"""Both modalities pooled."""


def network_of(system: NeuralSystem) -> Any:
    """Return a network with random weights and statistics."""
    torch.manual_seed(3)
    network = system.build(SIZES).double()
    settle_batch_norm(network, BATCH)
    return network.eval()


def through(layers: Any, x: Tensor) -> Tensor:
    """Compute Linear, batch norm and ReLU of one hidden layer."""
    first, norm = layers[0], layers[1]
    x = (linear(x, first.weight, first.bias) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    return (x * norm.weight + norm.bias).relu()


@pytest.mark.parametrize(("system", "x"), [(AudioMLP(hidden_dim=7), AUDIO), (TextMLP(hidden_dim=7), TEXT)])
def test_a_perceptron_of_one_modality_is_a_hidden_layer_on_it(system: NeuralSystem, x: Tensor) -> None:
    network = network_of(system)
    torch.testing.assert_close(network(INPUTS), network.classifier(through(network.hidden, x)))


@pytest.mark.parametrize(("system", "other"), [(AudioMLP(), "text"), (TextMLP(), "audio")])
def test_the_other_modality_does_not_matter(system: NeuralSystem, other: str) -> None:
    network = network_of(system)
    kept = {"audio": INPUTS.audio, "text": INPUTS.text}
    changed = kept | {other: type(INPUTS.audio).of(torch.randn_like(kept[other].as_subclass(Tensor)))}
    assert torch.equal(network(INPUTS), network(Inputs(**changed, edge_index=INPUTS.edge_index)))


def test_late_fusion_is_the_mean_of_the_probabilities() -> None:
    network = network_of(LateFusion(hidden_dim=7))
    probabilities = [
        classifier(through(layers, x)).softmax(dim=1)
        for layers, classifier, x in (
            (network.audio, network.classifier.audio, AUDIO),
            (network.text, network.classifier.text, TEXT),
        )
    ]
    mean = (probabilities[0] + probabilities[1]) / 2
    torch.testing.assert_close(network(INPUTS), mean.log())
    torch.testing.assert_close(network(INPUTS).softmax(dim=1), mean)


def test_late_fusion_stays_finite_where_a_network_is_certain() -> None:
    network = network_of(LateFusion(hidden_dim=7))
    with torch.no_grad():
        network.classifier.audio.bias += torch.tensor([1e4, 0.0, -1e4])
    assert network(INPUTS).isfinite().all()


def test_late_fusions_gradient_is_each_networks_own_by_its_share_of_the_right_class() -> None:
    network = network_of(LateFusion(hidden_dim=7))
    of_audio, of_text = (
        classifier(x).detach().requires_grad_()
        for classifier, x in zip(
            (network.classifier.audio, network.classifier.text),
            network.embedding(INPUTS).chunk(2, dim=1),
            strict=True,
        )
    )
    mean = (of_audio.softmax(1) + of_text.softmax(1)) / 2
    torch.nn.functional.nll_loss(mean.log(), BATCH.labels, reduction="sum").backward()
    right = torch.arange(len(BATCH.labels)), BATCH.labels
    share = (of_audio.softmax(1) / (2 * mean))[right].unsqueeze(1)
    own = of_audio.softmax(1) - torch.nn.functional.one_hot(BATCH.labels, 3)
    torch.testing.assert_close(of_audio.grad, (share * own).detach())


def test_ser_fuse_is_three_linear_layers_on_text_and_audio() -> None:
    network = network_of(SERFuse(hidden_dim=5, classifier_dim=4))
    x = torch.cat([TEXT, AUDIO], dim=1)
    for layer in (network.first, network.second, network.classifier):
        x = x @ layer.weight.T + layer.bias
    torch.testing.assert_close(network(INPUTS), x)


def test_server_brings_both_to_one_size_first() -> None:
    network = network_of(SERVER(hidden_dim=5, classifier_dim=4))
    x = torch.cat(
        [
            TEXT @ network.text.weight.T + network.text.bias,
            AUDIO @ network.audio.weight.T + network.audio.bias,
        ],
        dim=1,
    )
    for layer in (network.hidden, network.classifier):
        x = x @ layer.weight.T + layer.bias
    torch.testing.assert_close(network(INPUTS), x)


def encoded(encoder: Any, x: Tensor) -> Tensor:
    for layer in (encoder.first, encoder.second, encoder.third):
        x = linear(x, layer.weight, layer.bias).relu()
    return x


def test_tensor_fusion_sees_every_product_and_each_modality_alone() -> None:
    network = network_of(TFN(hidden_dim=3))
    one = torch.ones(1, dtype=torch.float64)
    expected = []
    for a, t in zip(encoded(network.audio, AUDIO), encoded(network.text, TEXT), strict=True):
        outer = torch.outer(torch.cat([one, a]), torch.cat([one, t])).flatten()
        assert torch.equal(outer[1:4], t)
        hidden = linear(linear(outer, network.fused[1].weight, network.fused[1].bias).relu(), network.fused[3].weight)
        expected.append(network.classifier((hidden + network.fused[3].bias).relu()))
    torch.testing.assert_close(network(INPUTS), torch.stack(expected))


def test_low_rank_fusion_is_a_linear_layer_on_the_outer_product() -> None:
    h, rank = 6, 2
    network = network_of(LMF(hidden_dim=h, rank=rank))
    one = torch.ones(1, dtype=torch.float64)
    # each modality's factors (rank, h / 2, h + 1), the column of the 1 first
    factors_a, factors_t = (
        torch.cat([f.bias.unsqueeze(1), f.weight], dim=1).view(h // 2, rank, h + 1).transpose(0, 1)
        for f in (network.audio_factors, network.text_factors)
    )
    weights = torch.einsum("r,roa,rot->oat", network.sum.weight[0], factors_a, factors_t)  # (h / 2, h + 1, h + 1)
    expected = []
    for a, t in zip(encoded(network.audio, AUDIO), encoded(network.text, TEXT), strict=True):
        outer = torch.outer(torch.cat([one, a]), torch.cat([one, t]))
        expected.append(network.classifier((weights * outer).sum(dim=(1, 2))))
    torch.testing.assert_close(network(INPUTS), torch.stack(expected))


def test_low_rank_factors_are_drawn_as_the_toolkit_draws_them() -> None:
    torch.manual_seed(0)
    network: Any = LMF(hidden_dim=64, rank=5).build(SIZES)
    theirs = torch.nn.init.xavier_normal_(torch.empty(5, 65, 32))
    for factors in (network.audio_factors, network.text_factors):
        ours = torch.cat([factors.weight.flatten(), factors.bias])
        assert ours.shape == theirs.flatten().shape
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)


def test_the_gate_takes_as_much_of_each_modality_as_it_says() -> None:
    unit = GatedMultimodalUnit(2)
    state = {
        "audio.weight": torch.eye(2),
        "audio.bias": torch.zeros(2),
        "text.weight": 2 * torch.eye(2),
        "text.bias": torch.tensor([0.0, 1.0]),
        "gate.weight": torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -1.0]]),  # of [text ‖ audio]
        "gate.bias": torch.zeros(2),
    }
    unit.load_state_dict(state)
    audio, text = torch.tensor([[0.3, 0.7]]), torch.tensor([[0.5, -0.2]])
    z = torch.tensor([0.5, -0.7]).sigmoid()
    expected = z * torch.tensor([0.3, 0.7]).tanh() + (1 - z) * torch.tensor([1.0, 0.6]).tanh()
    torch.testing.assert_close(unit(audio, text), expected.unsqueeze(0))


def test_glomer_is_its_formula() -> None:
    network = network_of(GloMER(hidden_dim=8, heads=2, classifier_dim=5))

    def layer(layers: Any, x: Tensor) -> Tensor:
        first, norm = layers[0], layers[2]
        x = linear(x, first.weight, first.bias).relu()
        return layer_norm(x, norm.normalized_shape, norm.weight, norm.bias)

    expected = []
    for i in range(len(INPUTS)):
        a = layer(network.audio_projection, INPUTS.audio.as_subclass(Tensor)[i][INPUTS.audio.mask[i]])
        t = layer(network.text_projection, INPUTS.text.as_subclass(Tensor)[i][INPUTS.text.mask[i]])
        g_t = network.residual(t) + network.text_attention(t, a, a)[0]
        g_a = network.residual(a) + network.audio_attention(a, t, t)[0]
        fused = network.gate(g_a.mean(dim=0, keepdim=True), g_t.mean(dim=0, keepdim=True))[0]
        classifier = network.classifier
        expected.append(classifier[8](layer(classifier[4:8], layer(classifier[:4], fused))))
    torch.testing.assert_close(network(INPUTS), torch.stack(expected))


def test_the_hidden_layers_of_concat_mlp_are_drawn_as_before() -> None:
    torch.manual_seed(0)
    network: Any = ConcatMLP(hidden_dim=5, layers=2).build(SIZES)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 5), torch.nn.Linear(5, 5), torch.nn.Linear(5, 3)]
    for mine, expected in zip((network.hidden[0], network.hidden[4], network.classifier), layers, strict=True):
        assert torch.equal(mine.weight, expected.weight)
