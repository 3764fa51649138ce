"""The documentation tells the truth: its commands run, its links lead somewhere, its tables are those of the code.

Every ```bash block of README.md, CONTRIBUTING.md and docs/ is run in a folder of the page's own, top to bottom, as a
reader would; blocks with a file's title are written there first. A comment right above a block may say otherwise:
`<!-- slow: reason -->` leaves it to `make test-slow`, `<!-- not run: reason -->` to nobody.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))
BIN = ROOT / ".venv" / "bin"

# Sizes at which a command takes seconds. They stand after the command's own overrides and therefore win.
TINY_RUN = ["trainer.max_steps=2", "batching.batch_seconds=8", "runtime.n_threads=1"]
TINY_CORPUS = ["data.n_train=16", "data.n_val=6", "data.n_test=6", "data.n_speakers=6"]
# Text of blocks in other people's pages, where no override can be appended.
SMALLER = {
    "docs/spoken_numbers.md": {"n_train=600": "n_train=8", "n_val=80": "n_val=3", "n_test=120": "n_test=3"},
}


class Block(NamedTuple):
    page: str
    line: int
    language: str
    title: str | None
    text: str
    skip: str | None  # reason in "not run"
    slow: str | None  # reason in "slow"

    @property
    def is_run(self) -> bool:
        return self.title is None and self.language in ("bash", "python") and self.skip is None


def blocks(page: str) -> Iterator[Block]:
    lines = (ROOT / page).read_text().splitlines()
    number = 0
    while number < len(lines):
        if not (fence := re.match(r"```(\w*)(?: +title=\"([^\"]+)\")?\s*$", lines[number])):
            assert not lines[number].startswith("```"), f"{page}:{number + 1}: a fence that this test cannot read"
            number += 1
            continue
        end = next(i for i in range(number + 1, len(lines)) if lines[i].startswith("```"))
        notes = dict(re.findall(r"<!-- (slow|not run): (.+?) -->", lines[number - 1] if number else ""))
        text = "\n".join(lines[number + 1 : end]) + "\n"
        yield Block(page, number + 1, fence[1], fence[2], text, notes.get("not run"), notes.get("slow"))
        number = end + 1


BLOCKS = {page: list(blocks(page)) for page in PAGES}


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#+ |\Z)", (ROOT / page).read_text(), re.M | re.S)
    assert found, f"{page} has no section '{heading}'"
    return found[1]


# Running


def serve(path: str) -> None:
    """Run commands in children of one process that has everything imported: a command starts in milliseconds."""
    import asr_lab.build
    import asr_lab.cli
    import asr_lab.evaluate
    import asr_lab.report.render
    import asr_lab.train
    import hydra
    import pytorch_lightning.callbacks
    import rich.progress  # noqa: F401

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            caller, _ = server.accept()
            request, fds, *_ = socket.recv_fds(caller, 1 << 20, 3)
            if os.fork() == 0:  # and once more, so that no child is left to wait for
                if os.fork() == 0:
                    answer(caller, json.loads(request), fds)
                os._exit(0)
            os.wait()
            caller.close()
            for fd in fds:
                os.close(fd)


def answer(caller: socket.socket, request: dict, fds: list[int]) -> None:
    """What the installed `asr-lab`, or `python -m asr_lab.train`, would do with the caller's files and folder."""
    import atexit
    import traceback

    from asr_lab import cli, train

    code: int | str | None = 1
    try:
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.path[:0] = [p for p in os.environ.get("PYTHONPATH", "").split(":") if p]
        sys.executable, argv = request["python"], request["argv"]
        if request["name"] == "asr-lab":
            sys.argv = sys.orig_argv = ["/bin/asr-lab", *argv, *tiny(argv)]
            cli.main()
        else:
            sys.path.insert(0, request["cwd"])
            code = train.main(argv[-1])
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    else:
        code = code if request["name"] == "python" else 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    caller.sendall(str(code if isinstance(code, int) else int(code is not None)).encode())
    os._exit(0)


# Stands for both `asr-lab` and, inside a sweep, for Python.
SHIM = """#!{python} -IS
import json, os, socket, sys
name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python" and argv[:2] != ["-m", "asr_lab.train"]:
    os.execv("{python}", ["{python}", *argv])
with socket.socket(socket.AF_UNIX) as s:
    s.connect("{socket}")
    request = dict(name=name, argv=argv, cwd=os.getcwd(), env=dict(os.environ), python="{bin}/python")
    socket.send_fds(s, [json.dumps(request).encode()], [0, 1, 2])
    sys.exit(int(s.recv(9) or 1))
"""


def tiny(argv: list[str]) -> list[str]:
    """What is added to a command of the documentation, so that it takes seconds."""
    if argv[:1] not in (["train"], ["sweep"]) or {"-sc", "--help"} & set(argv):
        return []
    words = " ".join(argv)
    other_corpus = any(w in words for w in ("data=", "encoder_x_clipping"))
    logger = [] if "logger=" in words or "sweep" in words else ["logger=none"]
    return TINY_RUN + logger + ([] if other_corpus else TINY_CORPUS)


@pytest.fixture(scope="module")
def commands() -> Iterator[Path]:
    """A folder for PATH with an `asr-lab` that answers at once."""
    with tempfile.TemporaryDirectory(prefix="docs") as folder:
        bin_ = Path(folder) / "bin"
        bin_.mkdir()
        path = f"{folder}/socket"
        for name in ("asr-lab", "python"):
            (bin_ / name).write_text(SHIM.format(python=sys.executable, socket=path, bin=bin_))
            (bin_ / name).chmod(0o755)
        server = subprocess.Popen([sys.executable, __file__, path], env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            while not os.path.exists(path):
                assert server.poll() is None, "the server of the documentation's commands did not start"
                time.sleep(0.05)
            yield bin_
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    serve(sys.argv[1])
