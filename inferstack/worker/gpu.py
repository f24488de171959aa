"""The devices of this machine: GPUs by NVML, cores by what the process may use."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

import pynvml

T = TypeVar("T")

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


class GpuUsage(NamedTuple):
    """One GPU at one moment."""

    number: int
    name: str
    utilisation: float
    """Share of the last second in which a kernel ran, 0 to 1."""
    memory_used: int | None = None
    """Bytes; None if the device does not tell, as one that shares the memory of the machine."""
    memory_total: int | None = None
    """Bytes; likewise."""
    temperature: float | None = None
    """Degrees Celsius; None if the device does not tell."""
    power: float | None = None
    """Watts; likewise."""


def gpus() -> list[GpuUsage]:
    """Every GPU that NVML can see; empty without a driver."""
    with _nvml() as nvml:
        if nvml is None:
            return []
        return [_usage(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]


def cores(cgroup: Path = CGROUP_CPU) -> int:
    """CPU cores that this process may use, by its affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text().split()
        limit = int(quota) // int(period)
    except (OSError, ValueError):
        # No cgroup v2, or no quota: the first word is "max".
        return available
    return max(1, min(available, limit))


@contextlib.contextmanager
def _nvml() -> Iterator[ModuleType | None]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _usage(nvml: ModuleType, index: int) -> GpuUsage:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    used = _told(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
    total = _told(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)
    rates = _told(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    degrees = _told(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    milliwatts = _told(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return GpuUsage(
        index,
        str(nvml.nvmlDeviceGetName(handle)),
        (rates or 0) / 100,
        used,
        total,
        degrees,
        None if milliwatts is None else milliwatts / 1000,
    )


def _told(nvml: ModuleType, ask: Callable[[], T]) -> T | None:
    """What a device says of itself; None if it does not, as a slice of a GPU (MIG) of its load."""
    try:
        return ask()
    except nvml.NVMLError:
        return None
