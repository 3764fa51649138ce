"""One model in a process of its own, in the environment of its library: a JSON request a line in, an answer a line out.

    python -m encoder_speed.worker ESPnet cpu kept

Between its turns it waits for a line and uses no processor.
"""

import importlib.metadata
import json
import sys
from typing import Any

import torch

from encoder_speed.models import CONFORMERS, LSTM_WIDTH, LSTMS, WIDTH
from encoder_speed.stepping import TrainingStep, batch, keep_freed_memory, timed


def main(name: str, device: str, malloc: str) -> None:
    if malloc == "kept":
        keep_freed_memory()
    answers, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not disturb the answers
    torch.manual_seed(0)
    model = (CONFORMERS | LSTMS)[name]().to(device)
    width = WIDTH if name in CONFORMERS else LSTM_WIDTH
    print(json.dumps(_about(model)), file=answers, flush=True)
    steps: dict[Any, TrainingStep] = {}
    for line in sys.stdin:
        request = json.loads(line)
        torch.set_num_threads(request["n_threads"])
        key = (request["n_frames"], request["precision"])
        try:
            if key not in steps:
                x, lens = batch(request["n_frames"], width, device)
                steps[key] = TrainingStep(model, x.requires_grad_(), lens, request["precision"])
                timed(steps[key], 0)  # the first calls choose kernels and fill caches
            answer = timed(steps[key], request["seconds"])._asdict()
        except RuntimeError as error:
            answer = {"error": str(error).splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


def _about(model: torch.nn.Module) -> dict[str, Any]:
    found = {"torch": torch.__version__, "parameters": sum(p.numel() for p in model.parameters())}
    for package in ("torchaudio", "speechbrain", "espnet"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
