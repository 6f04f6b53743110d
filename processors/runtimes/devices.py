"""What this machine, or the container on it, has: devices, processors, memory."""

import importlib.util
import math
import os
import platform
import sys
from pathlib import Path

import psutil

_SHARE_OF_FREE_MEMORY = 0.25
_CPU_TOKENS = 1024  # more gains nothing on a CPU; 256, which it is while queries come, loses 6 to 10 %
_GPU_TOKENS = 65_536
_CGROUPS = Path("/sys/fs/cgroup")


def device_named(device: str) -> str:
    """``cuda``, ``mps`` or ``cpu``; ``auto`` takes the best that is here and that something can run on.

    Raises:
        ValueError: The device needs torch, which is not installed.
    """
    if device != "auto":
        if device != "cpu" and not has_torch():
            raise ValueError(f"EMBEDDING_DEVICE={device} needs torch: `make full` installs it")
        return device
    if has_torch() and Path("/dev/nvidiactl").exists():  # asking torch itself takes it seconds to load
        return "cuda"
    return "mps" if has_torch() and (sys.platform, platform.machine()) == ("darwin", "arm64") else "cpu"


def has_torch() -> bool:
    """Whether torch is installed; asking does not load it."""
    return importlib.util.find_spec("torch") is not None


def batch_tokens(device: str, *, bytes_per_token: int) -> int:
    """The token budget of a forward pass that the free memory of a device allows, at most what is worth having."""
    if device == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info()
        return _fitting(free, bytes_per_token, _GPU_TOKENS)
    return _fitting(free_memory(), bytes_per_token, _CPU_TOKENS)


def batch_items(*, bytes_per_item: int, most: int) -> int:
    """How many items at once the free memory allows, one at least."""
    return max(1, min(most, int(free_memory() * _SHARE_OF_FREE_MEMORY) // bytes_per_item))


def gpu_memory() -> int:
    """Bytes that this process has taken on CUDA devices; 0 where it uses none. Asking does not load torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return sum(torch.cuda.memory_reserved(number) for number in range(torch.cuda.device_count()))


def free_memory(root: Path = _CGROUPS) -> int:
    """Bytes that this process may still take: what the machine has, or what its control group leaves.

    The group's page cache counts as free: the kernel gives it back before it kills. Files as in the kernel's
    Documentation/admin-guide/cgroup-v2.rst.
    """
    available: int = psutil.virtual_memory().available
    group = _group(root)
    limit = _number(group / "memory.max")
    if limit is None:
        return available
    used = (_number(group / "memory.current") or 0) - _inactive_files(group)
    return max(0, min(available, limit - used))


def processors(root: Path = _CGROUPS) -> int:
    """CPUs that this process may use: its affinity, and its control group's quota, rounded up."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(_group(root) / "cpu.max").partition(" ")
    return min(here, max(1, math.ceil(int(quota) / int(period)))) if quota.isdigit() and period else here


def _fitting(free: int, bytes_per_token: int, most: int) -> int:
    return max(64, min(most, int(free * _SHARE_OF_FREE_MEMORY) // bytes_per_token))


def _group(root: Path) -> Path:
    """This process's control group (version 2), or the root where it is not listed: a container's own."""
    line = _read(Path("/proc/self/cgroup")).partition("0::")[2].strip().lstrip("/")
    return root / line if line and (root / line).is_dir() else root


def _inactive_files(group: Path) -> int:
    fields = dict(line.split() for line in _read(group / "memory.stat").splitlines())
    return int(fields.get("inactive_file", 0))


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
