"""The paper's whole study at full size on the GPUs of this machine.

    python benchmarks/gpu.py [--utterances 4407 551 551] [--precision tf32] [--trials 525] [--epochs 100]
    python benchmarks/gpu.py --model

First it compares a stack of 32 trials with 32 trials in sequence, and recorded epochs (CUDA graphs) with launched ones:
both sides of each ratio are trainings of one process, in turns. Then it runs the study. ``--trials 0`` leaves it out.

Uses random features of realistic size (768 numbers per modality; for ESD: --utterances 13996 1750 1754), the profile
``paper`` and 525 trials, with the local engine and one worker per GPU. Prints the device, the precision, the number of
trials per stack, the time, and how busy the GPU was according to nvidia-smi. It also prints the share of the time that
the matrix products alone would take at the rate that the device reaches in the study's largest product. ``--device
cpu`` tests the script on a machine without a GPU.

``--model`` needs no GPU. It predicts the seconds of the same study on several GPUs from counted operations and bytes
(``roofline.py``) and compares them with the one study that was measured. It predicts the time of the device, without
what the host does alone: starting, ranking, drawing weights, compiling kernels, computing metrics.
"""

from __future__ import annotations

import argparse
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
from roofline import DEVICES, Cost, Passes, seconds, trace_stack
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from cemobam_core.corpora.demo import DEMO
from cemobam_core.features import FeatureSet, Fold
from cemobam_core.systems.cemobam import CemoBAM
from cemobam_core.training.batch import Batch
from cemobam_core.training.config import PRECISIONS, Precision
from cemobam_core.training.cuda_graphs import Recorded
from cemobam_core.training.stacks import Stack
from cemobam_core.training.step import train_epoch
from study.design.configuration import Trial
from study.design.design import Design, distinct
from study.design.factors import Pair
from study.engines.execution import STACKED, Attempts, StudyData, batches_of, by_stack
from study.engines.local import LocalEngine
from study.papers.cemobam import paper


def features(n: int, seed: int) -> FeatureSet:
    """Return ``n`` random utterances."""
    generator = torch.Generator().manual_seed(seed)
    return FeatureSet(
        audio=torch.randn(n, 768, generator=generator),
        text=torch.randn(n, 768, generator=generator),
        labels=torch.arange(n) % len(DEMO.class_names),
        class_names=DEMO.class_names,
        utterance_ids=tuple(f"{seed}-{i}" for i in range(n)),
        source="random",
    )


class Watch(threading.Thread):
    """A thread that records once a second how busy the first GPU is, according to nvidia-smi."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[float] = []

    def run(self) -> None:
        """Record until the program ends."""
        query = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while True:
            self.seen.append(float(subprocess.run(query, capture_output=True, text=True, check=True).stdout))
            time.sleep(1)


def products(trial: Trial, data: StudyData) -> float:
    """Return the floating-point operations of the matrix products in one epoch, counted on a few utterances."""
    batch = batches_of(trial, data)["train"]
    sample, system = batch.few(64), trial.configuration.system
    assert isinstance(system, CemoBAM)
    model = system.build(batch.sizes).train()
    optimizer = torch.optim.Adam(model.parameters())
    with FlopCounterMode(display=False) as counter:
        train_epoch(model, sample, optimizer)
    return float(counter.get_total_flops()) * len(batch.labels) / len(sample.labels)


def rate(device: str, precision: str, n: int, width: int) -> float:
    """Return the floating-point operations per second in a product of (n, width) and (width, width)."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(n, width, device=device, dtype=dtype), torch.randn(width, width, device=device, dtype=dtype)

    def timed(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            c = a @ b
        float(c[0, 0])  # waits for the device
        return time.perf_counter() - start

    timed(5)
    return 50 * 2 * n * width**2 / timed(50)


def epoch_seconds(trials: Sequence[Trial], data: StudyData, precision: Precision, *, recorded: bool) -> float:
    """Return the seconds of one training epoch of some trials as one stack on the first GPU, the median of ten."""
    device = torch.device("cuda:0")
    batch = Batch.together([batches_of(trial, data)["train"] for trial in trials]).to(device)
    system = trials[0].configuration.system
    assert isinstance(system, CemoBAM)
    generators = [torch.Generator(device).manual_seed(trial.seed) for trial in trials]
    stack = Stack([system.build(batch.sizes)] * len(trials), generators).to(device).train()
    lr = torch.tensor(1e-4, device=device)
    optimizer = torch.optim.Adam(stack.parameters(), lr=lr, weight_decay=5e-4, fused=True, capturable=True)
    step: Callable[[], object] = partial(train_epoch, stack, batch, optimizer, precision)
    if recorded:
        step = Recorded(partial(train_epoch, stack, batch, optimizer, precision), device, generators)
    for _ in range(5):
        step()
    seconds = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def compare(trials: Sequence[Trial], data: StudyData, precision: Precision) -> None:
    """Print how much faster a stack is than its trials in sequence, and a recorded epoch than a launched one."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    print(f"seconds per epoch and trial, {precision} ({torch.cuda.get_device_name()}):")
    print("trials per stack | recorded | launched | launched / recorded")
    alone = 0.0
    for size in sorted({1, 8, len(trials)}):
        recorded, launched = (epoch_seconds(trials[:size], data, precision, recorded=r) / size for r in (True, False))
        alone = alone or recorded
        print(f"{size:16} | {recorded:8.5f} | {launched:8.5f} | {launched / recorded:.2f}")
        torch.cuda.empty_cache()
    print(f"{len(trials)} trials in sequence take {alone / recorded:.1f} times as long as one stack")
    print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


class Measured(NamedTuple):
    """A study that was measured: its settings, seconds in all and of one epoch and trial, and how busy the GPU was."""

    device: str
    precision: Precision
    utterances: list[int]
    trials: int
    epochs: int
    study: float
    epoch: float
    busy: float


MEASURED = Measured("H200 SXM", "tf32", [4407, 551, 551], 525, 100, study=273.2, epoch=4.03e-3, busy=0.84)


def traced(trials: Sequence[Trial], data: StudyData, precision: Precision) -> Passes:
    """Trace a stack as large as the largest one, with the mean number of edges of some trials of one system."""
    stacked = min(STACKED, len(trials))
    edges: dict[str, int] = {}
    for trial in trials:
        batches = batches_of(trial, data)
        for name, batch in batches.items():
            edges[name] = edges.get(name, 0) + batch.inputs.edge_index.shape[1]
    splits = {name: (len(batch.inputs), edges[name] * stacked // len(trials)) for name, batch in batches.items()}
    system = trials[0].configuration.system
    assert isinstance(system, CemoBAM)
    return trace_stack(system, batches["train"].sizes, stacked, splits, precision)


def predict(trials: Sequence[Trial], data: StudyData, utterances: list[int], epochs: int) -> None:
    """Print the seconds of the study on each device that the model knows, and compare with the measured study."""
    systems: dict[object, list[Trial]] = {}
    for trial in trials:
        systems.setdefault(trial.configuration.system, []).append(trial)
    print(f"predicted seconds of {len(trials)} trials of {epochs} epochs, in stacks of up to {STACKED}:")
    print("device         | precision | products | memory | starts | study | ms per epoch and trial")
    precisions: tuple[Precision, ...] = ("tf32", "bf16")
    for precision in precisions:
        passes = [(traced(own, data, precision), len(own)) for own in systems.values()]
        first = traced(trials[:STACKED], data, precision).epoch
        for device in DEVICES:
            cost = Cost()
            for one, number in passes:
                cost += one.training(epochs, device, precision) * (number / min(STACKED, number))
            epoch = seconds(first, device, precision, recorded=True).total / min(STACKED, len(trials))
            print(
                f"{device.name:14} | {precision:9} | {cost.products:8.1f} | {cost.memory:6.1f} | {cost.start:6.1f} | "
                f"{cost.total:5.1f} | {1e3 * epoch:.2f}"
            )
            if (device.name, precision, utterances, len(trials), epochs) == MEASURED[:5]:
                measured = MEASURED.study, MEASURED.study * MEASURED.busy, MEASURED.epoch
                predicted = cost.total, cost.total, epoch
    if MEASURED[2:5] == (utterances, len(trials), epochs):
        print(f"predicted and measured on the {MEASURED.device}, {MEASURED.precision}:")
        names = "the study (s)", "the GPU while it is busy (s)", "one epoch and trial (s)"
        for what, ours, theirs in zip(names, predicted, measured, strict=True):
            print(f"{what}: {ours:.4g} and {theirs:.4g}, ratio {ours / theirs:.2f}")


def main() -> None:
    """Run the study and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, nargs=3, default=[4407, 551, 551], metavar="N")
    parser.add_argument("--precision", default="tf32", choices=PRECISIONS)
    parser.add_argument("--trials", type=int, default=525, metavar="N", help="number of trials, from the first")
    parser.add_argument("--epochs", type=int, default=100, metavar="N")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--model", action="store_true", help="predict the time instead of measuring it")
    arguments = parser.parse_args()
    settings = {"precision": arguments.precision, "epochs": arguments.epochs}
    design = Design(blocks={block.name: block for block in paper.blocks}, settings=settings, dataset="random")
    planned = distinct(trial for block in design.blocks for trial in design.trials(block, Pair(8, 7)))
    asked = by_stack(planned[: arguments.trials])
    train, val, test = (features(n, seed) for seed, n in enumerate(arguments.utterances))
    start = time.perf_counter()
    data = StudyData.prepare((Fold(train=train, val=val, test=test),), 10)
    print(f"{arguments.utterances} utterances ranked in {time.perf_counter() - start:.1f} s")
    if arguments.model:
        predict(asked, data, arguments.utterances, arguments.epochs)
        return
    on_gpu = arguments.device == "cuda"
    if on_gpu:
        compare(by_stack(planned)[:STACKED], data, arguments.precision)
    if not asked:
        return
    flops = products(asked[0], data) * arguments.epochs * len(asked)
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if on_gpu else ["cpu"]
    stacked = min(STACKED, Attempts(data, devices[0]).room(tuple(asked[:STACKED]))) if on_gpu else 1
    reached = rate(
        devices[0], arguments.precision, arguments.utterances[0] * stacked, 4 * int(design.base.get("hidden_dim") or 0)
    )
    watch = Watch()
    if on_gpu:
        torch.cuda.empty_cache()
        watch.start()
    start = time.perf_counter()
    failed = 0
    with LocalEngine(data, devices) as engine, tqdm(total=len(asked), unit="trial") as bar:
        for _, outcome in engine.run(asked):
            failed += outcome.status == "failed"
            bar.update()
    took = time.perf_counter() - start
    name = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} cores"
    print(f"{len(devices)} x {name}, torch {torch.__version__}, {arguments.precision}, {stacked} trials per stack")
    print(f"{len(asked)} trials of {arguments.epochs} epochs in {took:.1f} s, {failed} failed")
    if watch.seen:
        print(f"GPU busy {sum(watch.seen) / len(watch.seen):.0f}% of the time")
    alone = flops / reached / len(devices)
    print(
        f"the matrix products alone: {flops / 1e12:.0f} TFLOP at {reached / 1e12:.1f} TFLOP/s take {alone:.1f} s, "
        f"{alone / took:.0%} of the time"
    )


if __name__ == "__main__":
    main()
