"""An epoch of training: CemoBAM's operators compared with library modules and the general formulas.

    python benchmarks/epoch.py [--utterances 551 4407 13996] [--threads N] [--precision fp32 bf16] [--rounds 3]

Uses random features of realistic size (768 numbers per modality), K 8, 7, d = 512 and the profile ``paper``. The plain
side is the class ``Plain``. Each side runs in a separate process, the sides take turns, and the fastest epoch of each
side counts, because other work on the machine slows both. Prints both sides, their ratio, and the peak memory of each
process, including features and torch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from cemobam_core import Batch, CemoBAM, Inputs, TopKGraph
from cemobam_core.inputs import Steps
from cemobam_core.operators.cbam import CBAM1d
from cemobam_core.operators.cross_modal import CrossModalAttention
from cemobam_core.operators.fusion import fuse
from cemobam_core.operators.graph_attention import GraphAttention
from cemobam_core.operators.projection import Projection
from cemobam_core.systems.cemobam import CemoBAMNetwork
from cemobam_core.training.config import PRECISIONS
from cemobam_core.training.memory import keep_freed_memory
from cemobam_core.training.step import train_epoch

Side = Literal["fast", "plain"]


class Plain(nn.Module):
    """CemoBAM as in its formulas, with the weights of a network: GATConv, MultiheadAttention, 1D-CBAM over all steps.

    It has no shortcut for a single step and stores a message per edge. The tests compare the network with it.

    Args:
        network: Network that provides the weights.
    """

    def __init__(self, network: CemoBAMNetwork) -> None:
        super().__init__()
        self.network = network
        layers = [] if network.chgat is None else [*network.chgat.hidden, network.chgat.last]
        self.convolutions = nn.ModuleList(_gat_conv(layer) for layer in layers)

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the logits, (N, C)."""
        network, branches = self.network, []
        audio_mask, text_mask = inputs.audio.mask, inputs.text.mask
        f_audio = _projected(network.audio_projection, inputs.audio)  # (N, T_a, d)
        f_text = _projected(network.text_projection, inputs.text)  # (N, T_t, d)
        if network.chgat is not None:
            nodes = torch.cat([_mean(f_text, text_mask), _mean(f_audio, audio_mask)], dim=-1)  # (N, 2d)
            *hidden, last = self.convolutions
            parts = zip(hidden, network.chgat.norms, network.chgat.dropouts, strict=True)
            for i, (convolution, norm, dropout) in enumerate(parts):
                gathered = dropout(leaky_relu(norm(convolution(nodes, inputs.edge_index))))
                nodes = gathered + nodes if i else gathered
            branches.append(last(nodes, inputs.edge_index))  # (N, d)
        if network.xcbam is not None:
            part = network.xcbam
            a_to_t = _gated(part.audio_cbam, _informed(part.audio_to_text, f_audio, f_text, text_mask), audio_mask)
            t_to_a = _gated(part.text_cbam, _informed(part.text_to_audio, f_text, f_audio, audio_mask), text_mask)
            streams, mask = torch.cat([a_to_t, t_to_a], dim=1), torch.cat([audio_mask, text_mask], dim=1)
            branches.append(fuse(streams, mask, part.fusion))  # (N, d)
        logits: Tensor = network.classifier(torch.cat(branches, dim=-1))
        return logits


def _gat_conv(layer: Any) -> nn.Module:
    """Return torch-geometric's layer with the weights of our layer."""
    from torch_geometric.nn import GATConv  # noqa: PLC0415  (slow to import and not needed on the fast side)

    assert isinstance(layer, GraphAttention)
    heads, dim = layer.att_src.shape[1:]
    convolution: Any = GATConv(layer.lin.in_features, dim, heads=heads, concat=layer.concat, add_self_loops=False)
    convolution.lin, convolution.bias = layer.lin, layer.bias
    convolution.att_src, convolution.att_dst = layer.att_src, layer.att_dst
    whole: nn.Module = convolution
    return whole


def _projected(projection: Projection, steps: Steps) -> Tensor:
    valid: Tensor = projection.layers(steps[steps.mask])
    return valid.new_zeros(*steps.mask.shape, valid.shape[-1]).masked_scatter(steps.mask.unsqueeze(-1), valid)


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(dim=1) / weight.sum(dim=1)


def _maximum(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask.unsqueeze(-1), -float("inf")).amax(dim=1)


def _informed(module: CrossModalAttention, query: Tensor, key: Tensor, key_mask: Tensor) -> Tensor:
    answer, _ = module.attention(query, key, key, key_padding_mask=~key_mask, need_weights=False)
    informed: Tensor = module.dropout(module.norm(query + module.linear(answer)))
    return informed


def _gated(cbam: CBAM1d, x: Tensor, mask: Tensor) -> Tensor:
    average, maximum = cbam.channel.mlp(_mean(x, mask)), cbam.channel.mlp(_maximum(x, mask))  # (N, d)
    if cbam.channel.gate == "sum_of_sigmoids":
        gate = torch.sigmoid(average) + torch.sigmoid(maximum)
    else:
        gate = torch.sigmoid(average + maximum)
    x = x * gate.unsqueeze(1)
    if cbam.spatial.axis == "channels":
        planes = torch.stack([_mean(x, mask), _maximum(x, mask)], dim=1)  # (N, 2, d)
        return x * torch.sigmoid(cbam.spatial.conv(planes))
    planes = torch.stack([x.mean(dim=2), x.amax(dim=2)], dim=1) * mask.unsqueeze(1)  # (N, 2, T)
    return x * torch.sigmoid(cbam.spatial.conv(planes)).transpose(1, 2)


def epochs(side: Side, n: int, precision: Literal["fp32", "bf16"]) -> dict[str, float]:
    """Measure the fastest of a few epochs in seconds, and the peak memory of this process in GB."""
    if side == "fast":
        keep_freed_memory()  # like the workers of a study
    torch.manual_seed(0)
    audio, text = torch.randn(n, 768), torch.randn(n, 768)
    edges = TopKGraph.from_features(audio, text, 8).edge_index(8, 7)
    batch = Batch(Inputs.from_features(audio, text, edges), torch.arange(n) % 4, num_classes=4)
    model: nn.Module = CemoBAM().build(batch.sizes)
    if side == "plain":
        model = Plain(model)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-4, weight_decay=5e-4, fused=True)
    seconds = []
    for _ in range(4 if n < 2000 else 3):  # the first epoch does not count, because it fills caches
        start = time.perf_counter()
        train_epoch(model, batch, optimizer, precision)
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds[1:]), "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def apart(side: Side, n: int, precision: str, threads: int) -> dict[str, float]:
    """Measure in a separate process."""
    code = f"import torch, json, epoch; torch.set_num_threads({threads}); "
    code += f"print(json.dumps(epoch.epochs({side!r}, {n}, {precision!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=sys.path[0], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the {side} side failed at {n} utterances: {(done.stderr.splitlines() or ['killed'])[-1]}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Measure both sides at each size and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, nargs="+", default=[551, 4407, 13996], metavar="N")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=[p for p in PRECISIONS if p != "tf32"])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="number of runs of each side (default: 3)")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {arguments.threads} threads")
    print(f"{'utterances':>10}  {'precision':<9}  {'plain':>15}  {'fast':>15}  ratio")
    for n in arguments.utterances:
        for precision in arguments.precision:
            rounds = [
                {side: apart(side, n, precision, arguments.threads) for side in ("plain", "fast")}
                for _ in range(arguments.rounds)
            ]
            best = {
                side: {what: min(r[side][what] for r in rounds) for what in ("seconds", "gb")}
                for side in ("plain", "fast")
            }
            cells = [f"{b['seconds']:6.2f} s {b['gb']:4.1f} GB" for b in (best["plain"], best["fast"])]
            ratio = best["plain"]["seconds"] / best["fast"]["seconds"]
            print(f"{n:>10}  {precision:<9}  {cells[0]:>15}  {cells[1]:>15}  {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
