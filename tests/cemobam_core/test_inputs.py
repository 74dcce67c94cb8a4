from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import nn

from cemobam_core import Batch, InputError, Inputs
from cemobam_core.inputs import Steps

MASK = torch.arange(3) < torch.tensor([[1], [2], [3], [3]])


def sequences() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(4, 3, 5, generator=generator), torch.randn(4, 6, generator=generator)
    return Inputs.from_features(audio, text, torch.tensor([[0, 1, 2, 3], [0, 1, 2, 0]]), audio_mask=MASK)


def assert_same(ours: Inputs, theirs: Inputs) -> None:
    assert torch.equal(ours.edge_index, theirs.edge_index)
    for mine, of in ((ours.audio, theirs.audio), (ours.text, theirs.text)):
        assert type(mine) is Steps
        assert torch.equal(mine, of)
        assert torch.equal(mine.mask, of.mask)
        assert mine.padded == of.padded
        torch.testing.assert_close(mine.pooled, of.pooled)


def test_a_modality_is_a_tensor_with_a_mask_and_a_mean() -> None:
    inputs = sequences()
    assert len(inputs) == 4
    assert isinstance(inputs.audio, torch.Tensor)
    assert inputs.audio.shape == (4, 3, 5)
    assert torch.equal(inputs.audio.mask, MASK)
    means = torch.stack([inputs.audio[i][MASK[i]].mean(dim=0) for i in range(4)])
    torch.testing.assert_close(inputs.audio.pooled, means)
    assert inputs.text.shape == (4, 1, 6)
    assert inputs.text.mask.tolist() == [[True]] * 4
    assert torch.equal(inputs.text.pooled, inputs.text[:, 0])
    assert (inputs.audio.padded, inputs.text.padded) == (True, False)
    assert Inputs.from_features(torch.randn(4, 3), torch.randn(4, 3)).edge_index.shape == (2, 0)


@pytest.mark.parametrize(
    "of",
    [
        lambda x: x + 1,
        lambda x: 2 * x,
        lambda x: x.mean(dim=1),
        lambda x: x[:, 0],
        lambda x: x.double(),
        lambda x: x.transpose(0, 1),
        lambda x: torch.cat([x, x]),
        lambda x: nn.functional.linear(x, torch.ones(2, 5)),
        nn.Linear(5, 2),
        lambda x: x.detach(),
        lambda x: x.pooled,
        lambda x: x.valid,
    ],
)
def test_results_are_plain_tensors(of: Callable[[Any], torch.Tensor]) -> None:
    assert type(of(sequences().audio)) is torch.Tensor


def test_to_copies_nothing_that_need_not_be() -> None:
    inputs = sequences()
    there = inputs.to("cpu")
    assert there.audio is inputs.audio
    assert there.text is inputs.text
    assert there.edge_index is inputs.edge_index
    double = inputs.to("cpu", torch.float64)
    assert double.audio.dtype == double.text.dtype == torch.float64
    assert double.edge_index is inputs.edge_index
    assert_same(double, Inputs(Steps.of(inputs.audio.double(), MASK), double.text, inputs.edge_index))
    meta = inputs.to("meta")
    assert meta.audio.device == meta.audio.mask.device == meta.edge_index.device == torch.device("meta")
    assert meta.audio.padded


def sent(inputs: Inputs) -> Inputs:
    """Send inputs to a process and back."""
    context = torch.multiprocessing.get_context("fork")
    there, back = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=lambda: back.put(there.get()) or there.get())
    process.start()
    there.put(inputs)
    returned: Inputs = back.get()
    copied = copy.deepcopy(returned)  # shared memory exists only as long as the process
    there.put(None)
    process.join()
    return copied


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda inputs: pickle.loads(pickle.dumps(inputs)), sent],
    ids=["copy", "deepcopy", "pickle", "sent"],
)
def test_a_copy_has_the_masks(again: Callable[[Inputs], Inputs]) -> None:
    inputs = sequences()
    assert_same(again(inputs), inputs)


def test_a_pickle_leaves_out_what_was_computed() -> None:
    fresh, used = sequences(), sequences()
    assert used.audio.pooled.shape == (4, 5)
    assert used.audio.valid.shape == (9, 5)
    assert len(pickle.dumps(used)) == len(pickle.dumps(fresh))


def test_a_deep_copy_is_of_its_own() -> None:
    inputs = sequences()
    copied = copy.deepcopy(inputs)
    copied.audio[0] = 0.0
    assert inputs.audio[0].any()


def test_what_was_seen_in_inference_mode_can_be_trained_on() -> None:
    inputs = sequences()
    with torch.inference_mode():
        assert inputs.audio.laid_out(inputs.audio.valid).shape == (4, 3, 5)
        assert inputs.audio.pooled.shape == (4, 5)
    nn.Linear(5, 2)(inputs.audio.valid).sum().backward()
    nn.Linear(5, 2)(inputs.audio.pooled).sum().backward()


def test_together_the_graphs_are_one_that_falls_into_parts() -> None:
    inputs = sequences()
    together = Inputs.together([inputs, Inputs(inputs.audio, inputs.text, torch.tensor([[3], [1]]))])
    assert together.audio is inputs.audio
    assert together.edge_index.tolist() == [[0, 1, 2, 3, 7], [0, 1, 2, 0, 5]]


def test_the_first_few_keep_that_there_is_padding() -> None:
    steps = Steps.of(torch.randn(4, 3, 5), MASK.flip(0))
    assert steps.part(torch.arange(1)).mask.all()
    assert steps.part(torch.arange(1)).padded
    assert torch.equal(steps.part(torch.arange(3)), steps[:3])


def test_a_few_utterances_have_a_graph_like_the_whole() -> None:
    inputs = Inputs.from_features(torch.randn(50, 5), torch.randn(50, 6), torch.arange(50).repeat(2, 4))
    few = Batch(inputs, torch.arange(50) % 3, num_classes=3).few(8)
    assert (len(few.inputs), few.labels.tolist(), few.num_classes) == (8, [0, 1, 2, 0, 1, 2, 0, 1], 3)
    assert few.inputs.edge_index.shape == (2, 32)
    assert few.inputs.edge_index[1].bincount().tolist() == [4] * 8
    alone = Batch(Inputs.from_features(torch.randn(5, 5), torch.randn(5, 6)), torch.zeros(5, dtype=torch.int64), 3)
    assert alone.few(8).inputs.edge_index.shape == (2, 0)
    assert len(alone.few(8).inputs) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": torch.randn(3, 6)}, "4 audio embeddings but 3 text embeddings"),
        ({"audio": torch.randn(4)}, r"embeddings of shape \(4,\): they must be \(N, E\), or \(N, T, E\)"),
        ({"audio_mask": MASK[:, :2]}, r"a mask is bool \(4, 2\); for embeddings \(4, 3, 5\) it must be bool \(4, 3\)"),
        ({"audio_mask": MASK.float()}, r"a mask is float32 \(4, 3\)"),
        ({"audio_mask": MASK.flip(1)}, "a mask must have the valid steps first"),
        ({"audio_mask": torch.zeros(4, 3, dtype=torch.bool)}, "at least one for each utterance"),
    ],
)
def test_what_does_not_fit_together_is_named(given: dict[str, torch.Tensor], message: str) -> None:
    fitting = {"audio": torch.randn(4, 3, 5), "text": torch.randn(4, 6), "audio_mask": MASK}
    with pytest.raises(InputError, match=message):
        Inputs.from_features(**{**fitting, **given})
