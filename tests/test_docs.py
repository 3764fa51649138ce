"""The documentation tells the truth: its commands run, its links lead somewhere, its tables are those of the code.

The ```bash and ```python blocks of a page are run top to bottom in one shell, in a folder of the page's own, as a
reader would; a block with a file's title is written there first. A comment right above a block may say otherwise:
`<!-- slow: reason -->` leaves it to `make test-slow`, where it runs alone, or after the page's quick blocks above it if
the reason says "after the above"; `<!-- not run: reason -->` to nobody. Runs are made small by
overrides after the command's own, and commands are answered by a process that has everything imported.
"""

import importlib
import inspect
import json
import os
import re
import shlex
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

TINY_RUN = ["trainer.max_steps=2", "batching.batch_seconds=8", "runtime.n_threads=1", "runtime.quiet=true"]
TINY_CORPUS = ["data.n_train=16", "data.n_val=6", "data.n_test=6", "data.n_speakers=6"]
QUICK = {
    "smoke": ["clipping=norm", "seed=1"],
    "gru_clipping": ["seed=1"],
    "thresholds": ["seed=1", "clipping.threshold=0.1,1.0"],
}
# Where no override can be appended.
SMALLER = {"n_train=600": "n_train=6", "n_val=80": "n_val=3", "n_test=120": "n_test=3", "n_speakers=20": "n_speakers=6"}
# What a page takes for granted, made before its first block.
BEFORE = {"docs/report.md": "asr-lab train encoder=bilstm size=tiny experiment=clipping"}


class Block(NamedTuple):
    line: int
    language: str
    title: str | None
    text: str
    skip: str | None  # reason after "not run"
    slow: str | None  # reason after "slow"

    @property
    def is_command(self) -> bool:
        return self.language in ("bash", "python") and self.title is None


def blocks(page: str) -> Iterator[Block]:
    lines = (ROOT / page).read_text().splitlines()
    number = 0
    while number < len(lines):
        if not lines[number].startswith("```"):
            number += 1
            continue
        fence = re.fullmatch(r'```(\w+)(?: title="([^"]+)")?', lines[number])
        assert fence, f"{page}:{number + 1}: a fence that this test cannot read"
        end = next(i for i in range(number + 1, len(lines)) if lines[i] == "```")
        notes = dict(re.findall(r"<!-- (slow|not run): (.+?) -->", lines[number - 1] if number else ""))
        text = "\n".join(lines[number + 1 : end]) + "\n"
        yield Block(number + 1, fence[1], fence[2], text, notes.get("not run"), notes.get("slow"))
        number = end + 1


BLOCKS = {page: list(blocks(page)) for page in PAGES}


def runs(page: str, slow: bool) -> list[Block]:
    return [b for b in BLOCKS[page] if b.is_command and not b.skip and bool(b.slow) == slow]


AFTER = "after the above"

# The commands


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if runs(p, slow=False)])
def test_commands_run(page, tmp_path, commands):
    carry_out(page, runs(page, slow=False), tmp_path, commands)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "block"), [pytest.param(p, b, id=f"{p}:{b.line}") for p in PAGES for b in runs(p, slow=True)]
)
def test_slow_commands_run(page, block, tmp_path, commands):
    """The README's and those of several processes with the installed command, as it is, apart from the small sizes."""
    if "ASR_LAB_DATA" in block.slow and not os.environ.get("ASR_LAB_DATA"):
        pytest.skip("ASR_LAB_DATA is not set: no corpora here")
    before = [b for b in runs(page, slow=False) if b.line < block.line] if AFTER in block.slow else []
    as_it_is = page == "README.md" or "trainer=ddp" in block.text
    carry_out(page, [*before, block], tmp_path, installed(tmp_path) if as_it_is else commands)


def installed(folder: Path) -> Path:
    """A folder for PATH with the real command and small sizes"""
    folder.joinpath("bin").mkdir()
    command = folder / "bin" / "asr-lab"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.test_docs import tiny\n"
        "from asr_lab.cli import main\nsys.argv += tiny(sys.argv[1:], quick=False)\nmain()\n"
    )
    command.chmod(0o755)
    return command.parent


def carry_out(page: str, todo: list[Block], folder: Path, commands: Path) -> None:
    from .conftest import write_tones

    (folder / "my_corpus").mkdir()
    write_tones(folder / "my_corpus")
    for block in BLOCKS[page]:
        if block.title and block.language in ("python", "yaml"):
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text)
    script = f"set -eo pipefail\n{BEFORE.get(page, '')}\n"
    for block in todo:
        script += f"echo '::: {page}:{block.line}' >&2\n" + (
            bash(block.text) if block.language == "bash" else f"python - <<'END'\n{smaller(block.text)}\nEND\n"
        )
    env = {**os.environ, "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def bash(text: str) -> str:
    """A block with `make TARGET` replaced by that target's own commands."""
    lines = []
    for line in text.splitlines():
        if line.startswith("make "):
            words = shlex.split(line, comments=True)
            plan = subprocess.run(
                [*words, "--dry-run", "-o", ".venv/.installed"], cwd=ROOT, capture_output=True, text=True, check=True
            )
            lines += [c.removeprefix(".venv/bin/") for c in plan.stdout.splitlines() if not c.startswith("make")]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def smaller(text: str) -> str:
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return text


def tiny(argv: list[str], quick: bool = True) -> list[str]:
    """Overrides after which a command takes seconds."""
    if argv[:1] not in (["train"], ["sweep"]) or {"-sc", "--help", "--cfg", "--info"} & set(argv):
        return []
    words = " ".join(argv)
    if any(word in words for word in ("--config-name lm", "lm_width", "--config-name toy", "gradient_pathologies")):
        return [o for o in TINY_RUN if not o.startswith("batching.")] + ["logger=none"]
    extra = [] if "logger=" in words else ["logger=none"]
    extra += [] if "size=" in words else ["size=tiny"]
    extra += [] if "data=" in words or "encoder_x_clipping" in words else TINY_CORPUS
    for axis in QUICK.get(argv[1], []) if quick and argv[0] == "sweep" else []:
        extra += [] if axis.split("=")[0] + "=" in words else [axis]
    return TINY_RUN + extra


# What stands for `asr-lab` and, when a sweep starts its cells, for Python.
SHIM = """#!{python} -IS
import json, os, socket, sys
name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python" and argv[:2] not in (["-m", "asr_lab.train"], ["-m", "asr_lab.sweep.nursery"]):
    os.execv({python!r}, [{python!r}, *argv])
with socket.socket(socket.AF_UNIX) as s:
    s.connect({socket!r})
    request = dict(name=name, argv=argv, cwd=os.getcwd(), env=dict(os.environ), python={cell_python!r})
    socket.send_fds(s, [json.dumps(request).encode()], [0, 1, 2])
    sys.exit(int(s.recv(9) or 1))
"""


@pytest.fixture(scope="module")
def commands() -> Iterator[Path]:
    """A folder for PATH with an `asr-lab` that answers at once."""
    with tempfile.TemporaryDirectory(prefix="docs") as name:
        folder, address = Path(name), f"{name}/socket"
        for command in ("asr-lab", "python"):
            python = str(folder / "python")
            (folder / command).write_text(SHIM.format(python=sys.executable, socket=address, cell_python=python))
            (folder / command).chmod(0o755)
        server = subprocess.Popen([sys.executable, __file__, address], env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            while not os.path.exists(address):
                assert server.poll() is None, "the server of the documentation's commands did not start"
                time.sleep(0.05)
            yield folder
        finally:
            server.kill()
            server.wait()


def serve(address: str) -> None:
    """Run each command in a child of this process: it has everything imported, and starts in milliseconds."""
    for module in ("build", "cli", "evaluate", "report.render", "sweep.local", "train", "tracking.wandb"):
        importlib.import_module(f"asr_lab.{module}")
    for module in ("hydra", "rich.progress", "pytorch_lightning.callbacks"):
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        while True:
            caller, _ = server.accept()
            request, fds, *_ = socket.recv_fds(caller, 1 << 20, 3)
            if os.fork() == 0:
                if os.fork() == 0:  # a grandchild, so that nobody is left for this process to wait for
                    answer(caller, json.loads(request), fds)
                os._exit(0)
            os.wait()
            caller.close()
            for fd in fds:
                os.close(fd)


def answer(caller: socket.socket, request: dict, fds: list[int]) -> None:
    """Do what `asr-lab`, `python -m asr_lab.train` or a nursery does, with the caller's streams and folder."""
    import atexit
    import traceback

    from asr_lab import cli, train
    from asr_lab.sweep import nursery

    code: int | str | None = 1
    try:
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.path[:1] = [p for p in os.environ.get("PYTHONPATH", "").split(":") if p]  # and not this file's folder
        sys.executable, argv = request["python"], request["argv"]
        if request["name"] == "asr-lab":
            sys.argv = sys.orig_argv = ["/bin/asr-lab", *argv, *tiny(argv)]
            code = cli.main()
        else:
            sys.path.insert(0, request["cwd"])  # as -m does
            code = nursery.main() if argv[1] == "asr_lab.sweep.nursery" else train.main(argv[-1])
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    caller.sendall(str(code if isinstance(code, int) else int(code is not None)).encode())
    os._exit(0)


# What the pages say


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page):
    for block in BLOCKS[page]:
        where = f"{page}:{block.line}"
        assert block.language in ("bash", "python", "yaml", "json", "text"), f"{where}: what language is this?"
        assert not block.skip or len(block.skip) > 5, f"{where}: the reason is missing"
        if block.language == "text":  # output that is shown; a command belongs into a block that is run
            assert not re.search(r"^(\$ )?(asr-lab|make|pip|python) ", block.text, re.M), f"{where}: a command in text"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page} links to {target}; headings: {sorted(slugs)}"


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text()
    assert [p for p in PAGES if p.startswith("docs/") and p.removeprefix("docs/") not in nav] == []


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of a table's rows: the first table after a heading, or after a paragraph with these words."""
    text = (ROOT / page).read_text()
    rows = text[text.index(heading) :].split("\n|", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_guide_lists_exactly_the_choices():
    from .conftest import composed

    conf = ROOT / "conf"
    folders = sorted(p for p in conf.rglob("*") if p.is_dir() and list(p.glob("*.yaml")))
    have = {str(f.relative_to(conf)): {p.stem for p in f.glob("[!_]*.yaml")} for f in folders}
    said = {words(group)[0]: words(choices) for group, choices, _ in table("docs/guide.md", "### Config groups")}
    assert {group: set(choices) for group, choices in said.items()} == have
    default = composed().hydra.runtime.choices  # of groups inside the default encoder too, but not inside other ones
    first = {
        group: choices[0] for group, choices in said.items() if group in default and not group.startswith("hydra/")
    }
    assert first == {group: default[group] for group in first}


def test_the_guide_lists_every_kind_of_problem():
    from asr_lab.data import audio, check, manifest

    source = "".join(inspect.getsource(module) for module in (audio, check, manifest))
    kinds = set(re.findall(r'Problem\(\s*"([^"]+)"', source)) | set(re.findall(r'DataError\(\s*f"(\w[\w ]+): ', source))
    said = [words(kind)[0] for kind, _ in table("docs/guide.md", "The kinds:")]
    assert sorted(said) == sorted(kinds)


def test_the_guide_lists_every_field_of_a_run(tmp_path, asr_lab):
    one_run = ["train", "encoder=bilstm", "size=tiny", "trainer.log_every_n_steps=1"]
    assert asr_lab(*one_run, *tiny(one_run), cwd=tmp_path).returncode == 0
    [folder] = (tmp_path / "outputs" / "adhoc").iterdir()
    result = json.loads((folder / "result.json").read_text())
    said = [name for field, _ in table("docs/guide.md", "Fields of `result.json`") for name in words(field)]
    assert sorted(said) == sorted(result)
    text = (ROOT / "docs/guide.md").read_text()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows.append(json.loads((folder / "hyps.test.jsonl").read_text().splitlines()[0]))
    logged = set().union(*rows, result["metrics"])
    assert [key for key in sorted(logged) if f"`{key}`" not in text] == []
    files = {p.name for p in folder.iterdir()} - {".lock"}
    assert [name for name in sorted(files) if f"`{name}" not in text] == []


HELP = [b for b in BLOCKS["docs/cli.md"] if b.title and b.title.endswith("--help")]


def test_the_command_page_has_every_subcommand():
    listed = re.findall(r"^  (\w+) ", HELP[0].text.partition("Commands:")[2], re.M)
    titles = [b.title for b in HELP]
    assert {f"asr-lab {name} --help" for name in listed} <= set(titles)


@pytest.mark.parametrize("block", HELP, ids=lambda b: b.title)
@pytest.mark.quick(8)
def test_the_command_page_shows_what_help_prints(block):
    env = {**os.environ, "COLUMNS": "80", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(shlex.split(block.title), env=env, capture_output=True, text=True, check=True)
    shown, dots, _ = block.text.partition("...\n")  # the beginning, of a help that is long
    assert done.stdout.startswith(shown) if dots else done.stdout == shown


if __name__ == "__main__":
    serve(sys.argv[1])
