"""Shared fixtures: one thread, a tiny corpus of tones that any encoder can learn, and runs of it."""

import copy
import functools
import json
import os
import random
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from asr_lab import schema
from asr_lab.cli import main
from asr_lab.paths import conf_dir
from asr_lab.run import Run
from asr_lab.sweep.cell import factors, register_resolvers, resolved

torch.set_num_threads(1)
schema.register()
register_resolvers()

RATE = 8000
TONES = {"a": 400.0, "b": 700.0, "c": 1100.0, "d": 1700.0}
# Sizes at which a step takes milliseconds. Keys that a choice does not have are left out by `tiny`.
SMALL = {
    "encoder": {
        "d_model": 32,
        "d_hidden": 24,
        "n_layers": 1,
        "attention.n_heads": 2,
        "kernel_size": 7,
        "n_repeats": 2,
        "prologue": "[9,0.5,2]",
        "blocks": "[[9,0.5],[11,1]]",
        "epilogue": "[[7,1,2],[1,2,1]]",
        "subsampling.channels": 8,
        "context.chunk_size": 4,
        "context.n_left_chunks": 2,
    },
    "decoder": {"d_model": 32, "n_layers": 1, "attention.d_model": 32, "attention.n_layers": 1},
    "frontend": {"n_mels": 24},
    "tokenizer": {"n_labels": 8},
    "augment": {"max_freq": 4, "max_time": 8, "specaugment.max_freq": 4, "specaugment.max_time": 8},
}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`@pytest.mark.quick(n)`: of the test's cases n, evenly spread, are quick ones; the others are slow."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("quick"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for found in cases.values():
        n = min(found[0].get_closest_marker("quick").args[0], len(found))
        kept = {i * len(found) // n for i in range(n)}
        for i, item in enumerate(found):
            if i not in kept:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Validation stamps of tests stay out of the user's cache; the synthetic corpus may stay where it was made."""
    os.environ["ASR_LAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["WANDB_SILENT"] = "true"
    os.environ["TRACKIO_DIR"] = str(tmp_path_factory.mktemp("trackio"))


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    """Manifest of words over a, b, c, d, each letter a tone of 0.15 s: 24 train, 6 val and 6 test utterances."""
    return write_tones(tmp_path_factory.mktemp("tones"))


def write_tones(folder: Path, sizes: tuple[int, int, int] = (24, 6, 6)) -> Path:
    rng = random.Random(7)
    noise = np.random.default_rng(7)
    rows = []
    for split, n in zip(("train", "val", "test"), sizes, strict=True):
        for i in range(n):
            words = ["".join(rng.choice("abcd") for _ in range(rng.randint(1, 3))) for _ in range(rng.randint(1, 2))]
            text = " ".join(words)
            samples = np.concatenate([np.zeros(400), *[_tone(c) for c in text], np.zeros(400)])
            samples = samples + 0.003 * noise.standard_normal(len(samples))
            name = f"{split}{i}.wav"
            soundfile.write(folder / name, samples, RATE)
            rows.append(
                {
                    "audio_filepath": name,
                    "duration": round(len(samples) / RATE, 4),
                    "text": text,
                    "speaker": f"{split}-{i % 3}",
                    "split": split,
                    "sample_rate": RATE,
                }
            )
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def _tone(letter: str) -> np.ndarray:
    if letter == " ":
        return np.zeros(round(0.15 * RATE))
    t = np.arange(round(0.15 * RATE)) / RATE
    return 0.3 * np.sin(2 * np.pi * TONES[letter] * t) * np.hanning(len(t))


def composed(*overrides: str, config: str = "config") -> DictConfig:
    """The composed configuration with Hydra's own node, as the command line would give it."""
    return copy.deepcopy(_composed(overrides, config))


@functools.cache  # a composition takes 0.2 s, and many tests ask for the same one
def _composed(overrides: tuple[str, ...], config: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(config, overrides=list(overrides), return_hydra_config=True)


def tiny(manifest: Path, *overrides: str) -> list[str]:
    """Overrides that make a run on `manifest` take a second; a key set in `overrides` wins."""
    base = [
        "data=manifest",
        f"data.manifest={manifest}",
        f"data.sample_rate={RATE}",
        "augment=none",
        "logger=none",
        "runtime.n_threads=1",
        "runtime.quiet=true",
        "runtime.fast_malloc=false",
        "through_time=none",  # a third of such a run's time
        "batching.batch_seconds=6",
        "batching.n_buckets=2",
        "trainer.max_epochs=2",
    ]
    groups = [o for o in overrides if o.partition("=")[0].partition("/")[0] in (*SMALL, "size", "debug")]
    cfg = _composed(("augment=none", *(o for o in groups if "." not in o.partition("=")[0])), "config")
    for group, values in SMALL.items():
        base += [f"{group}.{k}={v}" for k, v in values.items() if OmegaConf.select(cfg[group], k) is not None]
    return [*base, *overrides]


def tiny_lm(manifest: Path, *overrides: str) -> list[str]:
    """The same for a language model (config="lm") of the manifest's transcripts."""
    choices = [o for o in overrides if "." not in o.partition("=")[0]]
    small = {"d_embedding": 8, "d_hidden": 12, "d_model": 8, "n_layers": 1, "n_heads": 2}
    model = composed(*choices, config="lm").model
    return [
        "data=manifest",
        f"data.manifest={manifest}",
        "logger=none",
        "runtime.n_threads=1",
        "runtime.quiet=true",
        "runtime.fast_malloc=false",
        "text.batch_labels=40",
        "trainer.max_epochs=2",
        *(f"model.{k}={v}" for k, v in small.items() if k in model),
        *overrides,
    ]


def make_run(folder: Path, overrides: list[str], config: str = "config") -> Run:
    """A frozen run in `folder`."""
    cfg = composed(*overrides, config=config)
    values = resolved(cfg)
    run = Run(folder, values, factors(cfg.hydra, values))
    run.freeze(rerun=values["runtime"]["rerun"])
    return run


@pytest.fixture
def trained(tmp_path, tones):
    """`trained(*overrides) -> (run, result)`: a tiny run trained in this process."""
    from asr_lab.train import train

    def go(*overrides: str, name: str = "run"):
        run = make_run(tmp_path / name, tiny(tones, *overrides))
        return run, train(run)

    return go


@pytest.fixture
def service(monkeypatch):
    """The stand-in for the service of W&B, healthy; processes that a test starts find it."""
    from .wandb_server import Service

    with Service() as started:
        for key in [k for k in os.environ if k.startswith("WANDB_")]:
            monkeypatch.delenv(key)
        for key, value in started.environment.items():
            monkeypatch.setenv(key, value)
        yield started
    if "wandb" in sys.modules:  # a client in this process keeps the address
        from asr_lab.tracking.wandb_copy import close_client

        close_client(at_once=True)


def single_words(manifest: Path, folder: Path) -> Path:
    """Manifest of the tones' utterances of one word, written to `folder`."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [r | {"audio_filepath": str(manifest.parent / r["audio_filepath"])} for r in rows if " " not in r["text"]]
    written = folder / "words.jsonl"
    written.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return written


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def asr_lab(monkeypatch, capfd):
    """`asr_lab(*args, cwd=..., **environment) -> Done`, in this process: imports are paid for once."""

    def run(*args: str, cwd: Path, **env: str) -> Done:
        capfd.readouterr()
        with monkeypatch.context() as m:
            m.chdir(cwd)
            m.setattr(sys, "argv", ["asr-lab", *args])
            m.setattr(sys, "orig_argv", [sys.executable, "-m", "asr_lab", *args])
            for key, value in {"COLUMNS": "200", "ASR_LAB_DEBUG": "", "HYDRA_FULL_ERROR": "1", **env}.items():
                m.setenv(key, value)
            GlobalHydra.instance().clear()
            code = 0
            try:
                main()
            except SystemExit as stop:
                code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run


def only_line(done: Done) -> str:
    """The one line of a mistake."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("asr-lab: ")
    return lines[0]


def families(*quick: str) -> list:
    """Every encoder, as parameters of a test: all but `quick` are left to `make test-slow`."""
    return [pytest.param(e, marks=() if e in quick else pytest.mark.slow) for e in choices("encoder")]


def choices(group: str) -> list[str]:
    """Every choice of a group, from the folder."""
    return sorted(p.stem for p in (conf_dir() / group).glob("*.yaml") if not p.stem.startswith("_"))
