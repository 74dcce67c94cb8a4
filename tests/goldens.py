"""Values that were recorded from the comparators' own code. The files lie beside the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cemobam_core import Inputs

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "comparators" / "golden"


def golden_of(name: str) -> dict[str, Any]:
    """Return the tensors of a file by name, with ``state`` and ``grad`` as dictionaries, and its ``metadata``.

    Skip the test if the file is missing.
    """
    path = GOLDEN / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"the values recorded from the comparators' code are not at hand ({path.name} beside the checkout)")
    parts: dict[str, Any] = {"state": {}, "grad": {}}
    with safe_open(path, "pt") as file:
        parts["metadata"] = file.metadata()
        for key in file.keys():  # noqa: SIM118  (no mapping)
            kind, _, rest = key.partition(".")
            if rest:
                parts[kind][rest] = file.get_tensor(key)
            else:
                parts[key] = file.get_tensor(key)
    return parts


def assert_it_is_theirs(model: nn.Module, golden: dict[str, Any], names: dict[str, str]) -> None:
    """Load the recorded weights into a model, and assert that logits, loss and gradients are the recorded ones.

    Args:
        model: Model of the same sizes.
        golden: Result of :func:`golden_of`.
        names: Prefixes of our weights' names, by the prefixes of the recorded names. Weights with other names are not
            loaded.
    """

    def ours(named: dict[str, Tensor]) -> dict[str, Tensor]:
        found = ((mine + name.removeprefix(of), value) for name, value in named.items() for of, mine in names.items()
                 if name.startswith(of))  # fmt: skip
        return dict(found)

    unused = [name for name in golden["state"] if not name.startswith(tuple(names))]
    assert not [name for name in unused if name in golden["grad"]]
    model.load_state_dict(ours(golden["state"]))
    model.eval()
    logits = model(Inputs.from_features(golden["audio"], golden["text"], golden.get("edge_index")))
    torch.testing.assert_close(logits, golden["logits"], rtol=1e-5, atol=1e-5)
    loss = cross_entropy(logits, golden["labels"])
    torch.testing.assert_close(loss.view(1), golden["loss"], rtol=1e-5, atol=1e-5)
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    expected = ours(golden["grad"])
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        gradient = gradients[name]
        torch.testing.assert_close(
            torch.zeros_like(value) if gradient is None else gradient, value, rtol=1e-5, atol=1e-5, msg=name
        )
