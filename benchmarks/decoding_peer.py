"""pyctcdecode over saved log-probabilities, once for each line that comes in. Runs in an environment of its own."""

import json
import sys
import time

import numpy as np
from pyctcdecode import build_ctcdecoder


def main(path: str) -> None:
    with open(path) as f:
        task = json.load(f)
    saved = np.load(task["frames"])
    frames = [saved[name] for name in saved.files]
    decoder = build_ctcdecoder(
        task["labels"], kenlm_model_path=task["arpa"], unigrams=task["words"], alpha=task["weight"], beta=0.0
    )
    for _ in sys.stdin:
        start = time.perf_counter()
        hyps = [decoder.decode(x, beam_width=task["beam"]) for x in frames]
        print(json.dumps({"seconds": time.perf_counter() - start, "hyps": hyps}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
