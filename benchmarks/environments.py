"""Environments of their own for other libraries, so that both sides of a comparison run in one go."""

import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from asr_lab.paths import cache_dir


def environment(name: str, first: list[str], packages: list[str], console: Console) -> Path:
    """Python of an environment that holds `first`, then `packages`, the first of them without what it asks for; made
    once, kept in the cache.

    Raises:
        CalledProcessError: something cannot be installed.
    """
    folder = cache_dir() / "benchmarks" / name.lower()
    python, stamp, wanted = folder / "bin" / "python", folder / "wanted.txt", "\n".join([*first, *packages])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    console.print(f"making an environment for {name} in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        _run([sys.executable, "-m", "venv", str(folder)])
        install = [str(python), "-m", "pip", "install", "--quiet"]
    _run([*install, *first])
    if packages[1:]:
        _run([*install, *packages[1:]])
    _run([*install, "--no-deps", packages[0]])
    stamp.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
