"""How long cells will take: from runs that are done, or from a few measured steps."""

import contextlib
import copy
import io
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from asr_lab.run import Run, flatten, is_numbered
from asr_lab.sweep.plan import Plan, Planned

BATCHES = 8  # that are measured
# What hardly changes the time of a step.
CHEAP = ("seed", "clipping", "optimizer", "schedule", "averaging", "max_nonfinite_steps")
VALIDATION = 0.4  # seconds of scoring an utterance, as a share of training on it


class Estimate(NamedTuple):
    """Of one cell."""

    seconds: float | None
    parameters: int | None
    macs: int | None  # of the encoder, a second of audio
    source: str  # where it comes from


def estimates(plan: Plan, measure: bool) -> dict[str, Estimate]:
    """By name of the cells. `measure`: train a few batches of what no earlier run tells."""
    alike: dict[str, list[Planned]] = {}
    for cell in plan.cells:
        alike.setdefault(_kind(plan.configs.flat(cell.cell)), []).append(cell)
    done = list(_done(plan.folder))
    found: dict[str, Estimate] = {}
    for kind, cells in alike.items():
        same = [result for result, flat in done if _kind(flat) == kind]
        own = _of_results(same) if same else (_measured(plan, cells[0]) if measure else Estimate(None, None, None, ""))
        by_name = {result["cell"]: result for result in same}
        for cell in cells:
            past = by_name.get(cell.name)
            found[cell.name] = (
                own if past is None else own._replace(seconds=past["seconds"]["total"], source="it is done")
            )
    return found


def _kind(flat: dict[str, Any]) -> str:
    """Equal for cells whose steps cost the same"""
    kept = {k: v for k, v in flat.items() if is_numbered(k) and k.partition(".")[0] not in CHEAP}
    return json.dumps(kept, sort_keys=True, default=str)


def _done(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(result, flat configuration) of the experiment's finished runs"""
    for path in sorted(folder.glob("*/result.json")):
        result = Run.result_in(path.parent)
        if result and result["status"] == "done" and not result.get("resumed_at_step"):
            yield result, flatten(Run.open(path.parent).config)


def _of_results(results: Iterable[dict[str, Any]]) -> Estimate:
    results = list(results)
    seconds = statistics.median(r["seconds"]["total"] for r in results)
    macs = (results[0].get("encoder") or {}).get("macs_per_audio_second")
    return Estimate(seconds, results[0].get("parameters"), macs, f"{len(results)} runs like it")


def _measured(plan: Plan, cell: Planned) -> Estimate:
    """Trains a few batches in a folder that is thrown away."""
    from asr_lab.train import train

    config = copy.deepcopy(plan.config(cell))
    epochs, steps = config["trainer"]["max_epochs"], config["trainer"]["max_steps"]
    config["trainer"] |= {
        "max_epochs": 1,
        "limit_train_batches": BATCHES,
        "limit_val_batches": 1,
        "limit_test_batches": 1,
    }
    config["logger"] = {"_target_": "asr_lab.tracking.loggers.none", "_partial_": True}
    config["runtime"]["quiet"] = True
    print(f"measuring {cell.name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        run = Run(Path(folder) / "run", config, cell.factors)
        run.freeze()
        result = train(run)
    own = Estimate(None, result["parameters"], (result.get("encoder") or {}).get("macs_per_audio_second"), "measured")
    step = result["seconds"]["train"] / max(1, result["steps"])
    if steps and steps > 0:
        return own._replace(seconds=steps * step)
    rate = result.get("audio_seconds_per_second")
    if not rate or epochs < 1:
        return own
    audio = _audio_seconds(config)
    each = audio["train"] + VALIDATION * audio["val"]
    return own._replace(seconds=(epochs * each + VALIDATION * (audio["val"] + audio["test"])) / rate)


def _audio_seconds(config: dict[str, Any]) -> dict[str, float]:
    """Of each split"""
    from asr_lab.build import build

    corpus = build(config).data.corpus
    return {split: sum(u.duration for u in utterances) for split, utterances in corpus.splits.items()}
