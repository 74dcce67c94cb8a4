"""The devices and the engine that run trials, as the options of the machine say."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cemobam_core.errors import InputError

# torch is imported where it is used, so that typing errors answer at once.
if TYPE_CHECKING:
    from study.engines import Engine
    from study.engines.execution import StudyData


def device_type(args: argparse.Namespace) -> str:
    """Return ``cpu`` or ``cuda``, as ``--device`` says.

    Raises:
        InputError: ``cuda`` is asked for and there is no CUDA device.
    """
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available; use --device cpu or auto")
    return "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"


def devices_of(args: argparse.Namespace) -> list[str]:
    """Return a device for each worker.

    Raises:
        InputError: Options do not fit together, or a device or a cluster is missing.
    """
    import torch

    if args.ray_address:
        if args.engine != "ray":
            raise InputError(f"--ray-address {args.ray_address}: has no effect without --engine ray")
        from study.engines.ray import cluster_devices

        devices = cluster_devices(
            args.ray_address, device=args.device, workers=args.workers, gpus_per_trial=args.gpus_per_trial
        )
    elif device_type(args) == "cpu":
        devices = ["cpu"] * (args.workers or cores())
    else:
        gpus = torch.cuda.device_count()
        workers = args.workers or max(1, int(gpus / args.gpus_per_trial))
        devices = [f"cuda:{i % gpus}" for i in range(workers)]
    if devices[0] == "cpu" and args.precision == "tf32":
        raise InputError("--precision tf32: only CUDA devices have this mode; on a CPU use fp32 or bf16")
    return devices


def engine_of(args: argparse.Namespace, prepared: StudyData, devices: Sequence[str]) -> Engine:
    """Return the engine that runs trials on the devices, as ``--engine`` says."""
    if args.engine == "ray":
        from study.engines.ray import RayEngine

        return RayEngine(
            prepared,
            devices,
            gpus_per_trial=args.gpus_per_trial,
            address=args.ray_address,
            trial_timeout=args.trial_timeout,
        )
    from study.engines.local import LocalEngine

    return LocalEngine(prepared, devices, trial_timeout=args.trial_timeout)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
