"""An outputs folder of many finished runs without training any: for what reads runs and has to stay quick.

    python benchmarks/synthetic_outputs.py FOLDER [--runs 1000] [--points 200] [--utterances 130]

The plan, names, fingerprints and configurations are those that `asr-lab sweep` would make of the grid below; curves,
hypotheses and times are drawn at random, the same ones for the same seed. From Python: `write_outputs(folder)`.
"""

import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rapidfuzz.distance import Levenshtein

from asr_lab.ledger import Ledger
from asr_lab.sweep.opened import plan_of
from asr_lab.sweep.plan import Plan, Planned

EXPERIMENT = """
defaults:
  - config
  - override logger: none
  - override clipping: norm
  - _self_
experiment: {name}
question: Which encoder, optimizer and clipping threshold, if nothing of it were true?
grid:
  encoder: [rnn, lstm, bilstm, gru, conformer]
  optimizer: [adam, adamw, sgd, adagrad]
  clipping.threshold: [0.1, 0.3, 1.0, 3.0, 10.0]
  seed: [{seeds}]
"""
N_CONFIGURATIONS = 100
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twenty", "hundred")
N_SPEAKERS = 20
# Shares of words wrong, on top of 5 %.
ENCODER = {"rnn": 0.12, "lstm": 0.06, "bilstm": 0.02, "gru": 0.05, "conformer": 0.0}
OPTIMIZER = {"adam": 0.0, "adamw": 0.0, "sgd": 0.05, "adagrad": 0.03}
UNFINISHED = {7: "failed", 23: "exploded", 41: "preempted"}  # every so many-th run, of a hundred


def write_outputs(
    folder: Path,
    n_runs: int = 1000,
    n_points: int = 200,
    n_utterances: int = 130,
    experiment: str = "many",
    seed: int = 0,
    unfinished: bool = True,
) -> Path:
    """Write `folder/<experiment>/` with the first `n_runs` cells of the grid and return it.

    Args:
        n_points: rows of metrics.jsonl, a tenth of which are validations.
        unfinished: three runs of each hundred failed, exploded or were preempted.
    """
    plan = _plan(Path(folder) / experiment, experiment, n_runs)
    plan.save()
    references = _references(n_utterances, seed)
    for i, cell in enumerate(plan.cells):
        status = UNFINISHED.get(i % 100, "done") if unfinished else "done"
        _write_run(plan, cell, status, references, n_points, np.random.default_rng([seed, i]))
    ledger = Ledger(plan.folder)
    states = [UNFINISHED.get(i % 100, "done") if unfinished else "done" for i in range(len(plan.cells))]
    for name in ("planned", "running"):
        ledger.extend((cell.name, name, "", {}) for cell in plan.cells)
    ledger.extend((cell.name, state, "", {}) for cell, state in zip(plan.cells, states, strict=True))
    return plan.folder


def _plan(folder: Path, experiment: str, n_runs: int) -> Plan:
    seeds = ", ".join(str(s + 1) for s in range(math.ceil(n_runs / N_CONFIGURATIONS)))
    with tempfile.TemporaryDirectory() as here:
        Path(here, f"{experiment}.yaml").write_text(EXPERIMENT.format(name=experiment, seeds=seeds))
        plan = plan_of(["--config-dir", here, "--config-name", experiment], [])
    return replace(plan, folder=folder, cells=plan.cells[:n_runs])


def _references(n: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng([seed, 1 << 30])
    return [[WORDS[k] for k in rng.integers(len(WORDS), size=rng.integers(2, 11))] for _ in range(n)]


def _write_run(
    plan: Plan, cell: Planned, status: str, references: list[list[str]], n_points: int, rng: np.random.Generator
) -> None:
    folder, f = plan.folder / cell.name, cell.factors
    folder.mkdir(parents=True)
    distance = abs(math.log10(float(f["clipping.threshold"])))  # 1.0 is best
    rate = (0.05 + ENCODER[f["encoder"]] + OPTIMIZER[f["optimizer"]] + 0.02 * distance) * math.exp(0.1 * rng.normal())
    config = yaml.dump(plan.config(cell), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
    (folder / "config.yaml").write_text(config)
    rows = _curve(n_points, rate, float(f["clipping.threshold"]), rng)
    _lines(folder / "metrics.jsonl", rows)
    metrics = {}
    if status == "done":
        hyps = [_scored(i, ref, rate, rng) for i, ref in enumerate(references)]
        _lines(folder / "hyps.test.jsonl", hyps)
        metrics = {
            "test/wer": sum(h["sub"] + h["del"] + h["ins"] for h in hyps) / sum(h["words"] for h in hyps),
            "test/cer": sum(h["char_errors"] for h in hyps) / sum(h["chars"] for h in hyps),
            "val/wer": rows[-1]["val/wer"],
            "train/clipped": float(np.mean([r["train/clipped"] for r in rows if "train/clipped" in r])),
        }
    (folder / "result.json").write_text(json.dumps(_result(plan, cell, status, metrics, rows[-1]["seconds"], rng)))


def _result(
    plan: Plan, cell: Planned, status: str, metrics: dict[str, float], seconds: float, rng: np.random.Generator
) -> dict[str, Any]:
    n_parameters = 400_000 * (1 + list(ENCODER).index(cell.factors["encoder"]))
    return {
        "status": status,
        "reason": None if status == "done" else f"synthetic: {status}",
        "fingerprint": cell.fingerprint,
        "experiment": plan.experiment,
        "cell": cell.name,
        "factors": cell.factors,
        "metrics": metrics,
        "started": "2026-01-01T12:00:00+00:00",
        "finished": "2026-01-01T13:00:00+00:00",
        "git": {"commit": "0" * 40, "dirty": False},
        "score": "wer",
        "environment": {"python": "3.11.7", "torch": "2.11.0", "host": "synthetic", "cpu": "none", "device": "cpu"},
        "data": {"digest": {"train": "a" * 16, "val": "b" * 16, "test": "c" * 16}},
        "encoder": {"parameters": n_parameters, "macs_per_audio_second": 30 * n_parameters},
        "parameters": n_parameters + 8000,
        "seconds": {"train": seconds, "total": 1.1 * seconds},
        "audio_seconds_per_second": 60 * (1 + 0.05 * rng.normal()),
        "peak_memory_mb": 700 + n_parameters / 1e4,
        "steps": 4000,
        "epochs": 20,
        "best": {"epoch": 19, "step": 3800, **({"val/wer": metrics["val/wer"]} if metrics else {})},
    }


def _curve(n: int, rate: float, threshold: float, rng: np.random.Generator) -> list[dict[str, float]]:
    """Rows of metrics.jsonl: of training, and every tenth one of validation, the last one too."""
    pace = 9 * (1 + 0.1 * rng.random())
    norms = np.exp(rng.normal(1.0, 0.6, n)) * (1 + 5 / (1 + np.arange(n)))
    noise = rng.normal(0, 0.05, n)
    rows = []
    for i in range(n):
        row = {"step": 20 * i, "epoch": i // 10, "seconds": round(pace * (i + 1), 3)}
        left = math.exp(-4 * i / n)
        if (n - 1 - i) % 10 == 0:
            wer = rate + (1 - rate) * left * (1 + noise[i])
            rows.append(row | {"val/loss": 0.2 + 3 * left, "val/wer": wer, "val/cer": wer / 2})
            continue
        after = min(norms[i], threshold)
        rows.append(
            row
            | {"train/loss": 0.1 + 4 * left * (1 + noise[i]), "train/lr": 1e-3 * left, "train/nonfinite": 0.0}
            | {"train/grad_norm": norms[i], "train/grad_norm_after": after, "train/clipped": float(after < norms[i])}
        )
    return rows


def _scored(i: int, ref: list[str], rate: float, rng: np.random.Generator) -> dict[str, Any]:
    """A row of hyps.test.jsonl: about `rate` of the words wrong, counted as they are."""
    hyp, counts = list(ref), {"replace": 0, "delete": 0, "insert": 0}
    if (wrong := rng.random(len(ref)) < rate).any():
        hyp = []
        for word, bad in zip(ref, wrong, strict=True):
            kind = rng.integers(3) if bad else 3
            hyp += {0: [WORDS[rng.integers(len(WORDS))]], 1: [], 2: [word, "uh"], 3: [word]}[int(kind)]
        for edit in Levenshtein.editops(ref, hyp):
            counts[edit.tag] += 1
    said, heard = " ".join(ref), " ".join(hyp)
    return {
        "id": f"utt{i:04d}",
        "ref": said,
        "hyp": heard,
        "sub": counts["replace"],
        "del": counts["delete"],
        "ins": counts["insert"],
        "words": len(ref),
        "char_errors": Levenshtein.distance(said, heard) if said != heard else 0,
        "chars": len(said),
        "speaker": f"spk{i % N_SPEAKERS:02d}",
        "duration": 0.4 * len(ref),
    }


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--utterances", type=int, default=130)
    options = parser.parse_args()
    print(write_outputs(options.folder, options.runs, options.points, options.utterances))


if __name__ == "__main__":
    main()
