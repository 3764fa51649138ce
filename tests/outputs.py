"""An outputs folder as sweeps leave it, written without any training: for pages that show many runs."""

import json
import math
import os
import random
import time
from itertools import product
from pathlib import Path

import numpy as np

from asr_lab.gradients.record import STEP_COLUMNS
from asr_lab.hold import _start_of

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "yes", "no", "stop", "go", "left", "right", "up", "down")
ENCODERS = ("bilstm", "gru", "conformer", "transformer", "zipformer")
CLIPPINGS = ("none", "norm", "value", "agc", "autoclip")
# What a large sweep looks like in the middle, in parts of a thousand.
MIX = {"done": 760, "running": 12, "queued": 40, "failed": 25, "exploded": 23, "preempted": 15, "cancelled": 5}


def write_outputs(folder: Path, n: int, points: int = 60, name: str = "encoder_x_clipping", seed: int = 0) -> Path:
    """`n` cells of encoder x clipping x threshold x seed in `folder`/`name`, in all states, the rest only planned."""
    rng = random.Random(seed)
    home = folder / name
    n_seeds = max(1, min(5, n // 12))
    grid = list(product(ENCODERS, CLIPPINGS, (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0), range(1, n_seeds + 1)))
    if n < len(grid):
        grid = grid[:: max(1, len(grid) // n)]
    grid = grid[:n]
    cells, events = [], []
    states = [s for s, share in MIX.items() for _ in range(round(n * share / 1000))]
    rng.shuffle(grid)
    for i, (encoder, clipping, threshold, s) in enumerate(grid):
        factors = {"encoder": encoder, "clipping": clipping, "clipping.threshold": threshold, "seed": s}
        cell = f"encoder={encoder},clipping={clipping},threshold={threshold:g},seed={s}-{rng.getrandbits(32):08x}"
        state = states[i] if i < len(states) else "planned"
        cells.append({"name": cell, "fingerprint": f"{rng.getrandbits(64):016x}", "factors": factors})
        event = {"v": 1, "time": 1.7e9 + i, "cell": cell, "state": "planned", "host": "lab", "pid": 1}
        events += [event, event | {"state": state, "time": 1.7e9 + 2000 + i}]
        if state == "done":
            result = write_run(home / cell, factors, rng, points)
            events[-1] |= {"metric": "wer", "score": result["metrics"]["test/wer"], "seconds": 200.0}
        elif state not in ("planned", "queued"):
            write_unfinished(home / cell, factors, state, rng, points)
    axes: dict = {}
    for c in cells:
        for k, v in c["factors"].items():
            axes.setdefault(k, [])
            axes[k] += [] if v in axes[k] else [v]
    home.mkdir(parents=True, exist_ok=True)
    plan = {
        "experiment": name,
        "question": "Which clipping suits which encoder, and at which threshold?",
        "command": f"asr-lab sweep {name}",
        "axes": {k: sorted(v) for k, v in axes.items()},
        "common": {"decoder": "ctc", "data": "spoken_numbers", "optimizer": "adamw"},
        "cells": sorted(cells, key=lambda c: list(c["factors"].values())),
        "time": "2026-01-01T10:00:00",
    }
    (home / "sweep.json").write_text(json.dumps(plan))
    (home / "ledger").mkdir(exist_ok=True)
    _jsonl(home / "ledger" / "20260101T100000-lab-1.jsonl", events)
    return home


def quality(factors: dict, rng: random.Random) -> float:
    """A test WER that depends on the factors as one would think."""
    base = 0.08 + 0.03 * ENCODERS.index(factors["encoder"])
    base += {"none": 0.09, "norm": 0.0, "value": 0.03, "agc": 0.01, "autoclip": 0.015}[factors["clipping"]]
    base += 0.0 if factors["clipping"] == "none" else 0.02 * abs(math.log10(factors["clipping.threshold"]))
    return max(0.02, base + rng.gauss(0, 0.012))


def write_run(folder: Path, factors: dict, rng: random.Random, points: int = 60, n: int = 30, **over) -> dict:
    """A run that is done; `over` replaces entries of its result.json."""
    folder.mkdir(parents=True)
    rate = quality(factors, rng)
    rows = hypotheses(rng, rate, n)
    wer = sum(r["sub"] + r["del"] + r["ins"] for r in rows) / sum(r["words"] for r in rows)
    clipped = 0.0 if factors["clipping"] == "none" else min(1.0, 0.6 / factors["clipping.threshold"])
    result = {
        "status": "done",
        "reason": None,
        "fingerprint": f"{rng.getrandbits(64):016x}",
        "factors": {"decoder": "ctc", "data": "spoken_numbers", "optimizer": "adamw", **factors},
        "score": "wer",
        "metrics": {"test/wer": wer, "test/cer": wer / 2.2, "val/wer": rate * 0.95, "train/clipped": clipped},
        "parameters": 1_200_000 + 640_000 * ENCODERS.index(factors["encoder"]),
        "seconds": {"train": 180.0, "total": 190 + 60 * rng.random()},
        "audio_seconds_per_second": 300 + 100 * rng.random(),
        "peak_memory_mb": 700 + 300 * rng.random(),
        "steps": 20 * points,
        "epochs": points // 2,
        "gradients": {"kept": 1 - clipped / 2},
        "finished": f"2026-01-01T{rng.randrange(10, 23)}:{rng.randrange(10, 60)}:00+00:00",
        **over,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    (folder / "config.yaml").write_text(
        f"experiment: x\nseed: {factors['seed']}\nencoder:\n  name: {factors['encoder']}\n"
        f"clipping:\n  name: {factors['clipping']}\n  threshold: {factors['clipping.threshold']}\n"
    )
    _jsonl(folder / "hyps.test.jsonl", rows)
    _jsonl(folder / "metrics.jsonl", curve(rng, rate, points))
    return result


def write_unfinished(folder: Path, factors: dict, state: str, rng: random.Random, points: int) -> None:
    """A run in another state; one that runs is held by this very process."""
    folder.mkdir(parents=True)
    reasons = {"failed": "RuntimeError: out of memory", "exploded": "20 steps in a row without a finite gradient"}
    status = {"preempted": "running", "cancelled": "planned"}.get(state, state)
    result = {"status": status, "reason": reasons.get(state), "fingerprint": "0", "factors": factors, "metrics": {}}
    (folder / "result.json").write_text(json.dumps(result))
    if state == "cancelled":
        (folder / ".cancelled").touch()
        return
    done = rng.randrange(2, points)
    _jsonl(folder / "metrics.jsonl", curve(rng, quality(factors, rng), points)[:done])
    if state == "running":
        hold_run(folder)
    now = {"epoch": done // 2, "epochs": points // 2, "step": 20 * done, "steps": 20 * points, "metric": "wer"}
    now |= {"score": 0.3, "began": time.time() - 60, "first_step": 0, "time": time.time()}
    (folder / "progress.json").write_text(json.dumps(now))


def hold_run(folder: Path) -> None:
    """As a run that this process trains."""
    (folder / ".lock").write_text(f"pid {os.getpid()} on {os.uname().nodename} started {_start_of(os.getpid())}\n")


def curve(rng: random.Random, rate: float, points: int) -> list[dict]:
    rows = []
    for i in range(points):
        left = 0.9 ** (40 * i / points)
        row = {"step": 20 * i, "epoch": i // 2, "seconds": round(3.1 * i + rng.random(), 3)}
        row |= {"train/loss": 3 * left + 0.4 + 0.3 * rng.random(), "train/grad_norm": 1 + 6 * left * rng.random()}
        rows.append(row)
        if i % 2:
            score = {"val/wer": rate + (1 - rate) * left + 0.01 * rng.random(), "val/loss": 3 * left + 0.5}
            rows.append({k: row[k] for k in ("step", "epoch", "seconds")} | score)
    return rows


def hypotheses(rng: random.Random, rate: float, n: int) -> list[dict]:
    rows = []
    for i in range(n):
        ref = [WORDS[(7 * i + 3 * k) % len(WORDS)] for k in range(2 + i % 7)]
        hyp, counts = [], {"sub": 0, "del": 0, "ins": 0}
        for word in ref:
            u = rng.random()
            if u < 0.6 * rate:
                hyp.append(rng.choice([w for w in WORDS if w not in ref]))
                counts["sub"] += 1
            elif u < rate:
                counts["del"] += 1
            else:
                hyp.append(word)
        row = {"id": f"utt{i:04d}", "ref": " ".join(ref), "hyp": " ".join(hyp), **counts, "words": len(ref)}
        chars = {"char_errors": 3 * (counts["sub"] + counts["del"]), "chars": len(row["ref"])}
        rows.append(row | chars | {"speaker": f"spk{i % 12}", "duration": 0.4 * len(ref)})
    return rows


def write_gradients(folder: Path, n_steps: int = 2000, n_looks: int = 40, n_layers: int = 6) -> None:
    """gradients.npz as a run with clipping=norm at 1 leaves it."""
    rng = np.random.default_rng(0)
    steps = np.arange(n_steps)
    before = np.exp(rng.normal(0.2, 0.5, n_steps)) * (1 + 4 * np.exp(-steps / 300))
    values = np.zeros((n_steps, len(STEP_COLUMNS)), np.float32)
    columns = {"loss": 3 * np.exp(-steps / 500) + 0.4, "norm_before": before, "norm_after": np.minimum(before, 1)}
    columns |= {"clipped": before > 1, "lr": 1e-3, "loss_scale": 1.0, "skipped": 0.0}
    for name, column in columns.items():
        values[:, STEP_COLUMNS.index(name)] = column
    names = [f"encoder.layers.{i}.weight" for i in range(n_layers)]
    none = np.zeros(0, np.int64)
    looks = {k: rng.lognormal(-1, 0.6, (n_looks, n_layers)) for k in ("norms", "peaks", "weights", "moves")}
    looks["norms"] *= 10.0 ** -np.arange(n_layers)[None]
    empty = {k: np.zeros((n_looks, 0), np.float32) for k in ("elements", "unit_norms", "unit_weights")}
    sample = {"parameters": np.array(names), "sizes": np.full(n_layers, 10), "n_units": np.full(n_layers, 2)}
    np.savez(
        folder / "gradients.npz",
        **sample,
        element_of=none,
        unit_of=none,
        columns=np.array(STEP_COLUMNS),
        steps=steps,
        values=values,
        looked=np.linspace(0, n_steps - 1, n_looks).astype(np.int64),
        **looks,
        **empty,
    )


def _jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
