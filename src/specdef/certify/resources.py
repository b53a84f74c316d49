"""Where cells run: how many at once, on which device, with how many threads each."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from specdef.certify.events import Listen
from specdef.certify.executors.local import Executor, LocalExecutor, Run
from specdef.certify.run_cell import run_cell
from specdef.checkpoint.layout import is_pipeline
from specdef.core.devices import check_device, find_device
from specdef.core.memory import physical_memory
from specdef.core.processes import launched
from specdef.errors import SpecdefError

LOCAL_RAY = "local"
BYTES_PER_PARAMETER = 20
"""Memory of an Adam run in float32: weights, gradients, two moments, and a little more."""


@dataclass(frozen=True)
class Resources:
    """Where cells run; what is None is decided when the model is known.

    Attributes:
        workers: cells at once.
        threads: CPU threads per cell.
        device: ``cpu`` or ``cuda``.
        ray: ``auto``, ``HOST:PORT`` of a cluster, or ``local``; None runs in processes of this machine.
        gpus_per_cell: share of a GPU per cell, on Ray.
        processes: how many processes of a launcher make one attack together.
        devices_per_cell: how many processes each cell is shared out to, each with a GPU of its own where `device` is
            ``cuda``; a model that cannot be split (FSDP2) is copied, and what cannot be shared is left to one.
    """

    workers: int | None = None
    threads: int | None = None
    device: str | None = None
    ray: str | None = None
    gpus_per_cell: float = 0.0
    processes: int = 1
    devices_per_cell: int = 1

    def __post_init__(self) -> None:
        counts = {"workers": self.workers, "threads": self.threads, "devices_per_cell": self.devices_per_cell}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise SpecdefError(f"`{name}` must be at least 1; got {value}.")
        check_device(self.device)
        if self.gpus_per_cell < 0:
            raise SpecdefError(f"`gpus_per_cell` must be at least 0; got {self.gpus_per_cell:g}.")
        if self.gpus_per_cell and self.ray is None:
            raise SpecdefError(f"`gpus_per_cell` must be given with `ray`; got {self.gpus_per_cell:g}. Leave it out.")
        if self.gpus_per_cell and self.devices_per_cell > 1:
            raise SpecdefError(
                f"`gpus_per_cell` must be left out with `devices_per_cell`, which says it; got {self.gpus_per_cell:g}."
            )

    def for_model(self, folder: Path) -> Resources:
        """Fill in what is open: as many cells at once as cores and memory allow, the cores shared out among them.

        Raises:
            SpecdefError: see `check`; or a launcher started another number of processes.
        """
        refuse_launched(self.processes)
        self.check()
        device = find_device(self.device) if self.ray is None or self.device is None else self.device
        cores = os.cpu_count() or 1
        alone = 1 if device == "cuda" else _fitting(folder, cores)
        workers = self.workers or max(1, alone // self.devices_per_cell)
        # Threads are part of what a cell is: as many as if one process made it.
        threads = self.threads or max(1, cores // (self.workers or alone))
        return replace(self, workers=workers, threads=threads, device=device)

    def check(self) -> None:
        """Refuse more devices to a cell than this machine has, and cells that would meet on the same GPUs.

        Raises:
            SpecdefError: it is so; or a GPU is asked for and there is none.
        """
        on_cluster = self.ray is not None and self.ray != LOCAL_RAY
        if on_cluster or (self.devices_per_cell == 1 and self.device != "cuda"):
            return
        device = find_device(self.device)
        if self.devices_per_cell == 1:
            return
        if device == "cpu":
            if (cores := os.cpu_count() or 1) < self.devices_per_cell:
                raise SpecdefError(
                    f"`devices_per_cell` must be at most {cores}, the cores of this machine; got "
                    f"{self.devices_per_cell}."
                )
            return
        import torch

        if (found := torch.cuda.device_count()) < self.devices_per_cell:
            raise SpecdefError(
                f"`devices_per_cell` must be at most {found}, the GPUs of this machine; got {self.devices_per_cell}."
            )
        if self.ray is None and (self.workers or 1) > 1:
            raise SpecdefError(
                f"`workers` must be 1 where {self.devices_per_cell} GPUs share a cell; got {self.workers}. Add `--ray "
                "local`, which deals out the GPUs."
            )

    def executor(self, listen: Listen | None = None) -> Executor:
        """The executor that runs cells there; `listen` is told where each is."""
        devices = self.devices_per_cell
        if devices > 1:
            from specdef.certify.executors.shared import run_shared

            run: Run = partial(run_shared, devices=devices)
        else:
            run = run_cell
        if self.ray is None:
            return LocalExecutor(self.workers or 1, run, listen)
        from specdef.certify.executors.ray import RayExecutor

        address = None if self.ray == LOCAL_RAY else self.ray
        gpus = float(devices) if devices > 1 and self.device == "cuda" else self.gpus_per_cell
        return RayExecutor(address, self.workers or 1, gpus, run, listen, processes=devices)


def refuse_launched(processes: int = 1) -> None:
    """Refuse to be one of several processes where each would run every attack whole.

    Args:
        processes: how many make one attack together.

    Raises:
        SpecdefError: a launcher started another number.
    """
    if (found := launched()) != processes:
        raise SpecdefError(
            f"`WORLD_SIZE` must be 1, since this command runs many attacks in processes of its own; got {found}. Start "
            "it by itself, without torchrun or accelerate launch; `specdef attack` is what they may start."
        )


def _fitting(folder: Path, cores: int) -> int:
    weights = "**/*.safetensors" if is_pipeline(folder) else "*.safetensors"
    parameters = sum(path.stat().st_size for path in folder.glob(weights)) / 2
    return max(1, min(cores, int(0.8 * physical_memory() / max(1.0, parameters * BYTES_PER_PARAMETER))))
