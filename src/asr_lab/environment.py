"""What a result was made with: versions, machine, code."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Versions of the packages that make the numbers, and the machine."""
    import torch

    packages = ("asr-lab", "torch", "torchaudio", "pytorch-lightning", "hydra-core", "wandb", "jiwer", "numpy")
    gpu = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **{p: _version(p) for p in packages},
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "cuda": torch.version.cuda if gpu else None,
    }


def git_state() -> dict[str, Any]:
    """Commit of the checkout that asr_lab runs from, and whether it has uncommitted changes; None outside of one."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed wheel may lie inside somebody else's repository (a .venv): ours tracks this very file.
    if not git("ls-files", "--error-unmatch", Path(__file__).name):
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


# What cannot change a number of a run.
_ELSEWHERE = ("cli", "report", "sweep", "tracking", "ledger.py", "hold.py")


@cache
def code_digest() -> str:
    """12 hex digits over the sources of this package that can change a number."""
    here = Path(__file__).resolve().parent
    files = sorted(p for p in here.rglob("*.py") if p.relative_to(here).parts[0] not in _ELSEWHERE)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(here)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def peak_memory_mb(reset: bool = False) -> float:
    """Largest resident memory of this process (MiB) since the last reset; on a GPU, of its allocator."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
