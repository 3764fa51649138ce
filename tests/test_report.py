"""The report: numbers against closed forms and jiwer, folders in every state of damage, pages against hostile text."""

import csv
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jiwer
import numpy as np
import pytest
from asr_lab.errors import AsrLabError
from asr_lab.report import stats
from asr_lab.report.collect import collect
from asr_lab.report.render import render, table
from asr_lab.report.summary import summarise
from asr_lab.report.svg import ticks
from asr_lab.report.words import align, columns, confusions

WORDS = "zero one two three four five six seven eight nine oh yes no stop go left right up down on off".split()


def recognise(rng: random.Random, ref: str, rate: float) -> str:
    """`ref` with about `rate` of its words wrong."""
    out = []
    for word in ref.split():
        u = rng.random()
        if u < 0.6 * rate:
            out.append(rng.choice(WORDS))
        elif u >= 0.85 * rate:
            out.append(word)
        if rng.random() < 0.15 * rate:
            out.append(rng.choice(WORDS))
    return " ".join(out)


def row(i: int, ref: str, hyp: str, speaker: str) -> dict:
    w, c = jiwer.process_words([ref], [hyp]), jiwer.process_characters([ref], [hyp])
    return {
        "id": f"utt{i:04d}",
        "ref": ref,
        "hyp": hyp,
        "sub": w.substitutions,
        "del": w.deletions,
        "ins": w.insertions,
        "words": len(ref.split()),
        "char_errors": c.substitutions + c.deletions + c.insertions,
        "chars": len(ref),
        "speaker": speaker,
        "duration": 0.4 * len(ref.split()),
    }


def references(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 12))) for _ in range(n)]


def write_cell(
    folder: Path, factors: dict, rate: float, n: int = 40, *, speakers: int = 4, hyp: str = "", **over
) -> dict:
    """A finished cell as a run leaves it; `over` replaces entries of result.json."""
    rng = random.Random(json.dumps(factors))
    rows = [row(i, ref, recognise(rng, ref, rate), f"spk{i % speakers}") for i, ref in enumerate(references(n))]
    if hyp:
        rows[0] = row(0, rows[0]["ref"], hyp, rows[0]["speaker"])
    wer = sum(r["sub"] + r["del"] + r["ins"] for r in rows) / sum(r["words"] for r in rows)
    cer = sum(r["char_errors"] for r in rows) / sum(r["chars"] for r in rows)
    curve = [rate + (1 - rate) * 0.75**e * (1 + 0.1 * rng.random()) for e in range(20)]
    pace = 11 + 5 * rng.random()
    result = {
        "status": "done",
        "reason": None,
        "fingerprint": f"{abs(hash(json.dumps(factors))) % 16**16:016x}",
        "experiment": folder.parent.name,
        "cell": folder.name,
        "factors": {"decoder": "ctc", **factors},
        "metrics": {"test/wer": wer, "test/cer": cer, "test/loss": 1.2, "val/wer": min(curve), "train/clipped": 0.31},
        "parameters": 3_214_567,
        "seconds": {"train": 20 * pace, "total": 21 * pace},
        "audio_seconds_per_second": 412.5 / pace,
        "peak_memory_mb": 812.0,
        "steps": 2000,
        "epochs": 20,
        "best": {"epoch": 18, "step": 1800, "val/wer": min(curve)},
        "environment": {"python": "3.11.8", "torch": "2.11.0", "cpu": "x86_64", "host": "lab", "device": "cpu"},
        "git": {"commit": "0123abc", "dirty": False},
        "data": {"digest": {"train": "aaaa", "test": "bbbb"}},
        "finished": "2026-01-01T12:00:00",
        **over,
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    jsonl(folder / "hyps.test.jsonl", rows)
    rows = [{"step": 100 * e, "epoch": e, "seconds": pace * e, "val/wer": w} for e, w in enumerate(curve)]
    jsonl(folder / "metrics.jsonl", [{"step": 50, "epoch": 0, "seconds": 1.0, "train/loss": float("nan")}, *rows])
    return result


def jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def write_plan(folder: Path, cells: dict[str, dict], **over) -> None:
    axes: dict[str, list] = {}
    for factors in cells.values():
        for k, v in factors.items():
            axes.setdefault(k, [])
            axes[k] += [] if v in axes[k] else [v]
    plan = {
        "experiment": folder.name,
        "question": "Which clipping suits which encoder?",
        "command": "asr-lab sweep clipping --seeds 1,2",
        "axes": axes,
        "cells": [{"name": k, "fingerprint": "", "factors": {"decoder": "ctc", **v}} for k, v in cells.items()],
        **over,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(plan))


RATES = {
    ("bilstm", "none"): 0.24,
    ("bilstm", "norm"): 0.19,
    ("bilstm", "adaptive"): 0.2,
    ("conformer", "none"): 0.31,
    ("conformer", "norm"): 0.135,
    ("conformer", "adaptive"): 0.14,
}


@pytest.fixture(scope="session")
def grid(tmp_path_factory) -> Path:
    return write_grid(tmp_path_factory.mktemp("outputs") / "clipping", n=60)


def write_grid(folder: Path, n: int, speakers: int = 4) -> Path:
    """2 encoders x 3 clippings x 2 seeds; one cell failed, one is missing, one run is not in the plan."""
    cells = {f"{e}-{c}-{s}": {"encoder": e, "clipping": c, "seed": s} for (e, c) in RATES for s in (1, 2)}
    write_plan(folder, cells)
    for name, factors in cells.items():
        rate = RATES[factors["encoder"], factors["clipping"]] + 0.01 * factors["seed"]
        if name == "conformer-none-2":
            write_cell(
                folder / name, factors, rate, n=3, status="exploded", reason="loss was nan for 20 steps", metrics={}
            )
        elif name != "bilstm-adaptive-2":
            write_cell(folder / name, factors, rate, n=n, speakers=speakers)
    write_cell(folder / "by-hand", {"encoder": "gru", "clipping": "none", "seed": 9}, 0.01, n=n)
    return folder
