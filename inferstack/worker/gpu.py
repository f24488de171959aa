"""The devices of this machine: GPUs by NVML, cores by what the process may use."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

import pynvml

from inferstack import config

log = logging.getLogger(__name__)

T = TypeVar("T")

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")

_told_lost: set[int] = set()


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
    uuid: str = ""


def gpus() -> list[GpuUsage]:
    """Every GPU of this machine that works; empty without a driver."""
    with _nvml() as nvml:
        if nvml is None:
            return []
        count = _told(nvml, nvml.nvmlDeviceGetCount) or 0
        found = [_usage_unless_lost(nvml, index) for index in range(count)]
        return [usage for usage in found if usage is not None]


def visible() -> list[str]:
    """The GPUs for replicas: those that work and that CUDA_VISIBLE_DEVICES, if set, names.

    Each is the number that NVML gives it, or the name of a slice of a GPU (MIG).
    """
    found = gpus()
    named = config.visible_gpus()
    if named is None or not found:
        return [str(usage.number) for usage in found]
    ids = [_id(found, name.strip()) for name in named.split(",")]
    return [each for each in ids if each is not None]


def environment(ids: Sequence[str]) -> dict[str, str]:
    """Variables of a process that shall see these GPUs only, in this order."""
    # By default CUDA puts the fastest first, and numbers them unlike NVML.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(ids)}


def on_machine(device: str) -> str:
    """What a device of this process, such as `cuda:0`, is called on the machine as a whole."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return device
    seen = dict(enumerate((config.visible_gpus() or "").split(",")))
    name = seen.get(int(number or 0), "")
    return f"cuda:{name}" if name.isdecimal() else f"cuda:{number or 0}"


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


def _id(found: Sequence[GpuUsage], name: str) -> str | None:
    """What `visible` calls a GPU that CUDA_VISIBLE_DEVICES names by number or start of a UUID."""
    if name.startswith("MIG-"):
        return name
    for usage in found:
        if name == str(usage.number) or (name.startswith("GPU-") and usage.uuid.startswith(name)):
            return str(usage.number)
    return None


def _usage_unless_lost(nvml: ModuleType, index: int) -> GpuUsage | None:
    try:
        return _usage(nvml, index)
    except nvml.NVMLError as error:
        if index not in _told_lost:
            log.error("GPU %d is left out: %s", index, error)
        _told_lost.add(index)
        return None


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
        _told(nvml, lambda: str(nvml.nvmlDeviceGetUUID(handle))) or "",
    )


def _told(nvml: ModuleType, ask: Callable[[], T]) -> T | None:
    """What a device says of itself; None if it does not, as a slice of a GPU (MIG) of its load."""
    try:
        return ask()
    except nvml.NVMLError:
        return None
