"""What being watched costs a training: the time of a step with each logger, against services that misbehave.

    python benchmarks/tracking.py [--steps 400] [--rounds 5]

Trains the same small model on tones again and again, interleaved, and prints the median time of a step over that with
logger=none, with the share of a step's time that the median round differs by. The service is the stand-in of the tests.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# name -> (logger, what the service does)
CASES = {
    "none": ("none", ""),
    "wandb offline": ("wandb_offline", ""),
    "wandb, healthy": ("wandb", ""),
    "wandb, slow": ("wandb", "slow"),
    "wandb, hangs": ("wandb", "hang"),
    "wandb, fails": ("wandb", "500"),
    "tensorboard": ("tensorboard", ""),
    "csv": ("csv", ""),
}
# Prints seconds a step (the middle one of them) and seconds of the whole training.
TRAIN = """
import sys, time
from pathlib import Path
from statistics import median
from pytorch_lightning import Callback
from asr_lab import build_callbacks as module
from asr_lab.run import Run
from asr_lab.train import train
class Clock(Callback):
    at = []
    def on_train_batch_start(self, *args): self.at.append(time.perf_counter())
made = module.build_callbacks
def with_clock(*args):
    callbacks, best = made(*args)
    return [*callbacks, Clock()], best
module.build_callbacks = with_clock
start = time.perf_counter()
train(Run.open(Path(sys.argv[1])))
steps = [b - a for a, b in zip(Clock.at, Clock.at[1:])]
print(median(steps), sum(steps) / len(steps), time.perf_counter() - start)
"""


def main() -> None:
    from tests.conftest import make_run, tiny, write_tones
    from tests.wandb_server import Service

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ["none", *args.only]}
    with tempfile.TemporaryDirectory() as folder:
        tones = write_tones(Path(folder), (96, 6, 6))
        for number in range(args.rounds):
            for name, rounds in found.items():
                logger, fault = CASES[name]
                overrides = [f"logger={logger}", f"trainer.max_steps={args.steps}", "trainer.max_epochs=1000"]
                overrides += ["trainer.check_val_every_n_epoch=5", "trainer.log_every_n_steps=5", "encoder.d_model=96"]
                if logger == "wandb":
                    overrides += ["logger.init_timeout_s=5", "logger.finish_timeout_s=10"]
                run = make_run(Path(folder) / f"{name}{number}", tiny(tones, "encoder=conformer", *overrides))
                with Service(fault) as service:
                    rounds.append(seconds(run.folder, service.environment))
                    service.fault = ""
                print(f"round {number + 1} {name}: {rounds[-1]}", file=sys.stderr, flush=True)
    print(f"{'':16} ms a step (median)  over none   mean ms   s in all")
    for name, rounds in found.items():
        pairs = [b[0] / a[0] for a, b in zip(found["none"], rounds, strict=True)]
        steps, means, whole = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:16} {1e3 * steps:18.2f} {statistics.median(pairs):10.3f} {1e3 * means:9.2f} {whole:9.2f}")


def seconds(folder: Path, environment: dict[str, str]) -> tuple[float, float, float]:
    """(median step, mean step, whole training)"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | environment
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(folder)], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    time.sleep(1)  # a copy in the background should not run into the next training
    median, mean, whole = map(float, done.stdout.splitlines()[-1].split())
    return median, mean, whole


if __name__ == "__main__":
    main()
