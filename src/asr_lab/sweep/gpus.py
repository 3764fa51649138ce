"""Which GPUs a cell gets: the least laden ones, several cells on one as far as their measured memory goes."""

import os
import shutil
import subprocess

SHARE = 0.9  # of a GPU's memory that cells may fill together


class Gpus:
    """The GPUs of this machine as places for cells."""

    def __init__(self, memory_mb: dict[str, float], cells_per_gpu: int | str):
        """`memory_mb`: of each GPU, by the name that CUDA_VISIBLE_DEVICES has for it; `cells_per_gpu`: a count, or
        "auto", one until the first cell has shown how much memory it needs."""
        self.memory_mb, self.cells_per_gpu = memory_mb, cells_per_gpu
        self.cells = dict.fromkeys(memory_mb, 0)
        self.needs_mb = 0.0  # the most that a cell has needed so far

    def __len__(self) -> int:
        return len(self.memory_mb)

    def capacity(self, gpu: str) -> int:
        """Cells that fit on it together"""
        if self.cells_per_gpu != "auto":
            return int(self.cells_per_gpu)
        return max(1, int(SHARE * self.memory_mb[gpu] / self.needs_mb)) if self.needs_mb else 1

    def take(self, n: int) -> list[str] | None:
        """`n` GPUs for a cell, None while there are not so many with room."""
        free = sorted((g for g in self.cells if self.cells[g] < self.capacity(g)), key=lambda g: self.cells[g])
        if len(free) < n:
            return None
        for gpu in free[:n]:
            self.cells[gpu] += 1
        return free[:n]

    def give(self, gpus: list[str], peak_mb: float | None) -> None:
        """Back, from a cell that needed `peak_mb` on each of them, if that is known."""
        for gpu in gpus:
            self.cells[gpu] -= 1
        self.needs_mb = max(self.needs_mb, peak_mb or 0.0)


def gpus_here() -> dict[str, float]:
    """Memory in MiB of the NVIDIA GPUs that this process may use, by name.

    The driver's tool is asked, not CUDA, which would keep some of it.
    """
    if not shutil.which("nvidia-smi"):
        return {}
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return visible(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(listing: str, wanted: str | None) -> dict[str, float]:
    """What `index, uuid, MiB` lines and CUDA_VISIBLE_DEVICES leave"""
    found: dict[str, float] = {}
    by_name: dict[str, float] = {}
    for line in listing.strip().splitlines():
        index, uuid, memory = (word.strip() for word in line.split(","))
        found[index] = by_name[index] = by_name[uuid] = float(memory)
    if wanted is None:
        return found
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    return {name: by_name[name] for name in names if name in by_name}
