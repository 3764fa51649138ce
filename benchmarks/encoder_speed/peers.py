"""Training steps of other libraries against ours: processes that take turns, ratios within a round."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from encoder_speed.built import choices
from encoder_speed.models import CONFORMERS, LSTMS
from environments import environment

HERE = Path(__file__).resolve().parents[1]
TORCH = ["torch==2.11.0", "torchaudio==2.11.0", "numpy==2.4.6"]
# What import needs, at named versions; the lists of dependencies of both hold much more (tests, data sets, vocoders).
PACKAGES = {
    "SpeechBrain": [
        "speechbrain==1.1.2", "hyperpyyaml==1.2.3", "ruamel.yaml==0.18.16", "joblib==1.6.0", "scipy==1.17.1",
        "tqdm==4.70.1", "requests==2.34.2", "huggingface_hub==2.4.0", "sentencepiece==0.2.3", "packaging==26.3",
    ],
    "ESPnet": ["espnet==202511", "typeguard==4.6.0", "packaging==26.3"],
}  # fmt: skip
PAIRS = {  # ours first
    "conformer": list(CONFORMERS),
    "bilstm": ["asr_lab bilstm", "torch.nn.LSTM, both directions"],
    "lstm": ["asr_lab lstm", "torch.nn.LSTM"],
}
FRAMES = {"conformer": {4: 100, 12: 300}, "bilstm": {4: 133, 12: 400}, "lstm": {4: 133, 12: 400}}
TURN_S = 0.4
ROW_S = 40.0  # rounds of a row end then, after three at least


class Worker:
    """A process that times steps of one model when asked."""

    def __init__(self, name: str, python: Path, device: str, malloc: str):
        command = [str(python), "-m", "encoder_speed.worker", name, device, malloc]
        path = os.pathsep.join([str(HERE), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])])
        environ = os.environ | {"PYTHONPATH": str(HERE) if name in PACKAGES else path, "PYTHONWARNINGS": "ignore"}
        self.name = name
        self.process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def time(self, **request: Any) -> dict[str, float]:
        assert self.process.stdin
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout and self.process.stderr
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.name}: {(self.process.communicate()[1].strip().splitlines() or ['no message'])[-1]}"
            )
        return json.loads(line)


def measure(rounds: int, device: str, console: Console) -> dict[str, Any]:
    """Rows of Conformers and LSTMs with their ratios to ours, and what was compared."""
    pythons = {name: Path(sys.executable) for name in [*CONFORMERS, *LSTMS]}
    about: dict[str, Any] = {}
    for name, packages in PACKAGES.items():
        try:
            pythons[name] = environment(name, TORCH, packages, console)
        except (subprocess.CalledProcessError, OSError) as error:
            pythons.pop(name)
            reason = getattr(error, "stderr", None) or str(error)
            about[name] = {"left out": " ".join(str(reason).split())[-300:]}
            console.print(f"{name} is left out, its environment could not be made: {about[name]['left out']}")
    rows = []
    for kind, malloc in itertools.product(PAIRS, ("kept", "default")):
        conditions = list(_conditions(kind, malloc, device)) if kind == "conformer" or kind in choices() else []
        if not conditions:
            continue
        workers = [w for n in PAIRS[kind] if n in pythons and (w := _started(n, pythons[n], device, malloc, console))]
        about |= {w.name: w.about for w in workers}
        for condition in conditions:
            console.print(f"  {kind}, {condition}")
            rows += _interleaved(workers, condition, rounds, kind, console)
        for worker in workers:
            worker.close()
    return {"rows": rows, "about": about}


def _started(name: str, python: Path, device: str, malloc: str, console: Console) -> Worker | None:
    try:
        return Worker(name, python, device, malloc)
    except RuntimeError as error:
        console.print(f"{name} is left out, it does not start: {error}")
        return None


def _conditions(kind: str, malloc: str, device: str) -> Iterable[dict[str, Any]]:
    """Lengths with threads, and as extra rows of the Conformer: bfloat16, and the allocator as it comes."""
    kept = malloc == "kept"
    if not kept and (device != "cpu" or kind != "conformer"):
        return
    ways = [(1, "float32")]
    if kept and device == "cpu":
        ways.append((2, "float32"))
    if kept and kind == "conformer":
        ways.append((1, "bfloat16"))
    for seconds, (n_threads, precision) in itertools.product(FRAMES[kind], ways):
        yield {"seconds": seconds, "n_threads": n_threads, "precision": precision, "malloc": malloc}


def _interleaved(
    workers: list[Worker], condition: dict[str, Any], rounds: int, kind: str, console: Console
) -> list[dict[str, Any]]:
    """Rounds in which each has a turn, backwards every other time: a slow moment of the machine hits all."""
    n_frames = FRAMES[kind][condition["seconds"]]
    request = {"n_frames": n_frames, "n_threads": condition["n_threads"], "precision": condition["precision"]}
    for worker in list(workers):
        refused = worker.time(**request, seconds=0).get("error")
        if refused:
            console.print(f"  {worker.name} cannot do this: {refused}")
            workers = [w for w in workers if w is not worker]
    if not workers or workers[0].name != PAIRS[kind][0]:
        return []  # nothing of ours to compare with
    turns: dict[str, list[dict[str, float]]] = {w.name: [] for w in workers}
    end = time.monotonic() + ROW_S
    for number in range(rounds):
        if number >= 3 and time.monotonic() > end:
            break
        for worker in workers[:: 1 if number % 2 else -1]:
            turns[worker.name].append(worker.time(**request, seconds=TURN_S))
    ours = turns[workers[0].name]
    return [{"kind": kind, **condition, "model": name, **_summary(ours, theirs)} for name, theirs in turns.items()]


def _summary(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over rounds, and the ratio theirs / ours within rounds with its quartiles."""
    ratios = sorted(t["step_s"] / o["step_s"] for t, o in zip(theirs, ours, strict=True))
    return {
        **{key: statistics.median(t[key] for t in theirs) for key in ("step_s", "wall_s", "cpu_s")},
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "n_rounds": len(ratios),
    }
