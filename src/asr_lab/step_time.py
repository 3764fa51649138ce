"""How long a training step of an encoder takes: measured, so only as exact as the machine is quiet."""

import statistics
import time
from typing import Any

import torch

N_UTTERANCES, UTTERANCE_S = 4, 4.0  # of the synthetic batch


def step_times(encoders: list[Any], in_dim: int, rate: float, rounds: int) -> list[float]:
    """Seconds of a forward and backward pass over a batch of random features, for each encoder.

    The batch has `N_UTTERANCES` of `UTTERANCE_S` at `rate` frames a second. On a CPU these are CPU seconds on one
    thread, so that other work on the machine counts little; on a GPU, seconds until it is done. Encoders take turns, a
    step each, and the median of `rounds` turns counts.
    """
    device = next(encoders[0].parameters()).device
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            n_frames = round(UTTERANCE_S * rate)
            feats = torch.randn(N_UTTERANCES, n_frames, in_dim).to(device)
            lens = torch.full((N_UTTERANCES,), n_frames, device=device)
            turns = [[_step(encoder.train(), feats, lens) for encoder in encoders] for _ in range(1 + rounds)]
    finally:
        torch.set_num_threads(n_threads)
    return [statistics.median(times) for times in zip(*turns[1:], strict=True)]  # the first one warms up


def _step(encoder: Any, feats: Any, lens: Any) -> float:
    on_gpu = feats.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    start = clock()
    encoder.zero_grad()
    hidden, _ = encoder(feats, lens)
    hidden.square().mean().backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start
