"""What int8 costs and gains: size, speed and error rates beside float32, measured on the test split."""

import statistics
import time
from typing import Any

import numpy as np
import torch

from asr_lab.build import Parts
from asr_lab.export.check import Exported, batches
from asr_lab.export.formats import FORMATS
from asr_lab.export.network import Network
from asr_lab.metrics.wer import utterance_errors
from asr_lab.report.stats import Interval, bootstrap, error_rate, interval
from asr_lab.types import Batch

N_ROUNDS = 5


def measure(network: Network, int8: Exported, size: int, parts: Parts) -> list[dict[str, Any]]:
    """One row each for float32 and int8: bytes, times real time on one thread, WER and CER with intervals.

    Both are traced and take turns, a pass over the test split each; the median of the CPU seconds counts, of features
    to log-probabilities, without reading audio and without search. Intervals are those of utterances drawn again
    (Bisani & Ney 2004), the same draws for both rows.
    """
    test = list(batches(parts, "test"))
    content = FORMATS["torchscript"].write(network)
    networks = {"float32": (FORMATS["torchscript"].read(content), len(content)), "int8": (int8, size)}
    seconds = _seconds([run for run, _ in networks.values()], test)
    refs = [text for batch in test for text in batch.texts]
    audio = sum(batch.seconds for batch in test)
    rows, texts = [], []
    for (name, (run, n_bytes)), spent in zip(networks.items(), seconds, strict=True):
        texts.append([text for batch in test for text in network.hypotheses(*run(batch.feats, batch.feat_lens))])
        errors = [utterance_errors(ref, hyp, parts.task.score_by) for ref, hyp in zip(refs, texts[-1], strict=True)]
        rates = {"wer": _rate(errors, ("sub", "del", "ins"), "words"), "cer": _rate(errors, ("char_errors",), "chars")}
        equal = sum(a == b for a, b in zip(texts[0], texts[-1], strict=True))
        row = {"weights": name, "bytes": n_bytes, "real_time": audio / spent, **rates}
        rows.append(row | {"utterances": len(refs), "equal_hypotheses": equal})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table for people."""
    lines = [
        "| Weights | MB | x real time, one thread | WER % (95 %) | CER % (95 %) | as float32 |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        wer, cer = (f"{100 * row[k][0]:.2f} ({100 * row[k][1]:.2f} to {100 * row[k][2]:.2f})" for k in ("wer", "cer"))
        equal = f"{row['equal_hypotheses']} of {row['utterances']}"
        speed = f"{row['bytes'] / 1e6:.2f} | {row['real_time']:.0f}"
        lines.append(f"| {row['weights']} | {speed} | {wer} | {cer} | {equal} |")
    return "\n".join(lines) + "\n"


def _rate(errors: list[dict[str, int]], edits: tuple[str, ...], of: str) -> Interval:
    """As shares"""
    wrong = np.array([sum(e[k] for k in edits) for e in errors])
    n = np.array([e[of] for e in errors])
    return interval(float(error_rate(wrong, n)), bootstrap(wrong, n)[0])


def _seconds(networks: list[Exported], test: list[Batch]) -> list[float]:
    """CPU seconds on one thread of a pass over all batches, for each network."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [[_pass(run, test) for run in networks] for _ in range(1 + N_ROUNDS)]
    finally:
        torch.set_num_threads(n_threads)
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]  # the first one warms up


def _pass(run: Exported, test: list[Batch]) -> float:
    start = time.process_time()
    for batch in test:
        run(batch.feats, batch.feat_lens)
    return time.process_time() - start
