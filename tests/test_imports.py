"""Import direction, and what must stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "asr_lab"
PARTS = {"frontend", "preprocess", "augment", "text", "encoders", "decoders", "decoding", "lm"}
PARTS |= {"averaging", "clipping", "landscapes", "optim", "metrics"}
# Each level may import the ones to its left: types <- parts <- task <- build <- train <- {cli, sweep}.
BASE = {"errors", "files", "paths", "types", "layers"}


def imports(path: Path) -> set[str]:
    """Names of asr_lab's modules (first component) that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asr_lab."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "asr_lab":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("asr_lab.")}
    return found


def top_level(path: Path) -> set[str]:
    return {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("part", sorted(PARTS))
def test_parts_import_neither_each_other_nor_hydra(part):
    for path in (SOURCE / part).glob("*.py"):
        assert imports(path) <= BASE | {part}, path
        assert not top_level(path) & {"hydra", "omegaconf", "pytorch_lightning", "wandb"}, path


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("types.py", set()),
        ("errors.py", set()),
        ("base_task.py", BASE | PARTS),
        ("task.py", BASE | PARTS | {"base_task", "distill"}),
        ("lm_task.py", BASE | PARTS | {"base_task"}),
        ("toy_task.py", BASE | PARTS | {"base_task"}),
        ("distill/__init__.py", BASE),
        ("distill/teacher.py", BASE | {"build", "run"}),  # loads a run: above build, which finds it by its name alone
        ("instantiate.py", BASE),
        ("build.py", BASE | PARTS | {"task", "data", "instantiate"}),
        ("build_lm.py", BASE | PARTS | {"build", "lm_task", "data"}),
        ("build_toy.py", BASE | PARTS | {"build", "toy_task", "data"}),
        ("lm_run.py", BASE | PARTS | {"build", "build_lm", "run"}),
        ("build_callbacks.py", BASE | {"build", "callbacks", "process", "run"}),
        ("run.py", BASE | {"hold"}),
        ("endings.py", BASE | {"run"}),
        ("lean_imports.py", set()),
        ("hold.py", BASE),
        ("ledger.py", BASE),
        (
            "train.py",
            BASE
            | {
                "build",
                "build_lm",
                "build_callbacks",
                "build_toy",
                "callbacks",
                "cost",
                "endings",
                "environment",
                "evaluate",
                "hold",
                "lean_imports",
                "ledger",
                "process",
                "report",
                "run",
                "tracking",
            },
        ),
    ],
)
def test_direction(module, allowed):
    assert imports(SOURCE / module) <= allowed


@pytest.mark.parametrize("package", ["data", "callbacks", "tracking", "report"])
def test_nothing_imports_upwards(package):
    above = {
        "build",
        "build_lm",
        "build_toy",
        "train",
        "cli",
        "sweep",
        "base_task",
        "task",
        "lm_task",
        "toy_task",
        "lm_run",
    }
    for path in (SOURCE / package).rglob("*.py"):
        assert not imports(path) & above, path


def loaded_after(code: str) -> set[str]:
    command = f"{code}\nimport sys; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "pytorch_lightning", "hydra", "omegaconf", "wandb", "numpy", "rich", "jiwer", "soundfile"}


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_after("import asr_lab") & HEAVY


def test_help_loads_nothing_heavy():
    """What makes `asr-lab --help` answer at once."""
    call = "from asr_lab.cli import main\ntry: main()\nexcept SystemExit: pass"
    code = f"import sys; sys.argv = ['asr-lab', '--help']\n{call}"
    assert not loaded_after(code) & HEAVY


def test_composing_a_grid_loads_no_torch():
    assert "torch" not in loaded_after("import hydra_plugins.asr_lab, asr_lab.sweep.local")


def test_no_module_is_called_utils():
    assert not list(SOURCE.rglob("utils.py"))
