"""How fast transcripts are found: prefix beam search beside pyctcdecode, greedy search beside the clock.

    python benchmarks/decoding.py RUN [--beam 16] [--weight 0.5] [--rounds 5] [--json FILE]

RUN is a finished run of `decoder=ctc` over characters. Its test split is encoded once; both searches get the same
log-probabilities, the same word 3-gram (estimated from the training transcripts) and the same beam, and take turns, on
one thread. pyctcdecode is installed once, in an environment of its own in the cache. Then the small BiLSTM (untrained:
weights do not change its speed) goes from audio, and from features, to labels by greedy search, in fp32 and bf16.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from asr_lab.build import Parts, build, build_search
from asr_lab.data.pipeline import load
from asr_lab.environment import environment as machine
from asr_lab.files import write_json
from asr_lab.metrics.wer import ErrorRates, utterance_errors
from asr_lab.process import keep_freed_memory
from asr_lab.run import Run, find_run
from environments import environment

PEER = (
    ["numpy==1.26.4", "setuptools==80.9.0"],
    ["pyctcdecode==0.5.0", "pygtrie==2.5.0", "hypothesis==6.148.2", "kenlm==0.3.0"],
)
BATCH_S = 400.0  # audio searched side by side


def main() -> None:
    options = _options()
    console = Console()
    keep_freed_memory()
    torch.set_num_threads(1)
    run = find_run(str(options.run))
    parts = loaded(run)
    results: dict[str, Any] = {"about": {**machine(), "run": run.name, "beam": options.beam, "weight": options.weight}}
    results["beam"] = beam(parts, run, options, console)
    results["greedy"] = greedy(run, options.rounds)
    show(results, console)
    if options.json:
        write_json(options.json, results)


def loaded(run: Run) -> Parts:
    parts = build(run.config)
    saved = torch.load(run.best_checkpoint, map_location="cpu", weights_only=False)
    parts.task.load_state_dict(saved["state_dict"])
    parts.task.eval()
    return parts


@torch.inference_mode()
def encoded(parts: Parts, split: str) -> list[tuple[torch.Tensor, torch.Tensor, list[str]]]:
    """Batches of hidden frames, their lengths, and the references, utterances of like length together"""
    dataset = parts.data.plain(split)
    order = np.argsort([-u.duration for u in dataset.utterances])
    batches: list[list[int]] = []
    batch, seconds = [], 0.0
    for i in order.tolist():
        seconds += dataset.utterances[i].duration
        batch.append(i)
        if seconds > BATCH_S:
            batches.append(batch)
            batch, seconds = [], 0.0
    if batch:
        batches.append(batch)
    items = [dataset[(0, indices)] for indices in batches]
    return [(*parts.task.encode(item), list(item.texts)) for item in items]


@torch.inference_mode()
def beam(parts: Parts, run: Run, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Ours and pyctcdecode's prefix beam search with a word 3-gram, in turns."""
    batches = encoded(parts, "test")
    seconds = sum(u.duration for u in parts.data.corpus.splits["test"])
    train_texts = [u.text for u in parts.data.corpus.splits["train"]]
    config = run.config | ours(options)
    decoder = parts.task.decoder
    given = [(decoder.log_probs(hidden), lens) for hidden, lens, _ in batches]  # pyright: ignore
    decoder.log_probs = lambda log_probs: log_probs  # pyright: ignore
    search, _ = build_search(config, decoder, parts.task.tokenizer, train_texts)
    refs = [text for _, _, texts in batches for text in texts]

    def once() -> list[str]:
        return [parts.task.text(h[0]) for log_probs, lens in given for h in search(log_probs, lens)]

    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(Path(folder), parts, given, train_texts, options, console)
        rounds: dict[str, list[float]] = {"asr_lab": [], "pyctcdecode": []}
        hyps: dict[str, list[str]] = {}
        once()  # tables of the language model are filled
        for _ in range(options.rounds):
            start = time.perf_counter()
            hyps["asr_lab"] = once()
            rounds["asr_lab"].append(time.perf_counter() - start)
            answer = peer.turn()
            hyps["pyctcdecode"] = answer["hyps"]
            rounds["pyctcdecode"].append(answer["seconds"])
        peer.close()
    own = statistics.median(rounds["asr_lab"])
    return {
        "utterances": len(refs),
        "audio_s": seconds,
        "rows": {
            name: {
                "real_time": seconds / statistics.median(times),
                "wer": wer(refs, hyps[name]),
                "seconds": statistics.median(times),
            }
            for name, times in rounds.items()
        },
        "ratio": statistics.median(rounds["pyctcdecode"]) / own,
        "same": sum(a == b for a, b in zip(*hyps.values(), strict=True)) / len(refs),
    }


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """The search's part of a configuration, its pruning as pyctcdecode's."""
    from hydra import compose, initialize_config_dir

    from asr_lab import schema
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers, resolved

    schema.register()
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(
            "config",
            [
                "decoder=ctc",
                "lm=ngram_words",
                f"decoding.beam={options.beam}",
                "decoding.min_log_prob=-5",
                "decoding.beam_threshold=10",
                f"lm.weight={options.weight}",
                "lm.model.unk_log_prob=-27",  # -10 in log10 beside what the n-grams say of <unk>, as pyctcdecode
            ],
            return_hydra_config=True,
        )
        config = resolved(cfg)
    return {key: config[key] for key in ("decoding", "lm")}


class Peer:
    """pyctcdecode in a process of its own, over the same log-probabilities."""

    def __init__(
        self, folder: Path, parts: Parts, given: list, texts: list[str], options: argparse.Namespace, console: Console
    ):
        from asr_lab.lm.arpa import write_arpa
        from asr_lab.lm.ngram import of_words

        python = environment("pyctcdecode", *PEER, console)
        frames = [log_probs[i, : lens[i]].numpy() for log_probs, lens in given for i in range(len(lens))]
        np.savez(folder / "frames.npz", *frames)
        write_arpa(folder / "words.arpa", of_words(texts, order=3, min_counts=[1])[0])
        words = sorted({w for t in texts for w in t.split()})
        task = {
            "frames": str(folder / "frames.npz"),
            "arpa": str(folder / "words.arpa"),
            "labels": ["", *parts.task.tokenizer.symbols],
            "words": words,
            "beam": options.beam,
            "weight": options.weight,
        }
        (folder / "task.json").write_text(json.dumps(task))
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        worker = Path(__file__).with_name("decoding_peer.py")
        self.process = subprocess.Popen(
            [str(python), str(worker), str(folder / "task.json")],
            env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def turn(self) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        print("go", file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def greedy(run: Run, rounds: int) -> dict[str, Any]:
    """Times real time of the small BiLSTM with greedy search on one thread: from audio, and from cached features."""
    from hydra import compose, initialize_config_dir

    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import resolved

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        bilstm = resolved(compose("config", ["encoder=bilstm", "decoder=ctc"], return_hydra_config=True))
    config = run.config | {key: bilstm[key] for key in ("encoder", "decoder", "decoding", "lm")}
    parts = build(config)
    task, data = parts.task.eval(), parts.data
    dataset = data.plain("test")
    seconds = sum(u.duration for u in dataset.utterances)
    items = list(data.sampler(dataset, shuffle=False))
    ready = [dataset[item] for item in items]
    samples = [torch.from_numpy(load(u, data.corpus)) for u in dataset.utterances]
    cmvn, frontend = data.pipeline.frontend.cmvn, data.pipeline.frontend
    from asr_lab.frontend.cmvn import Moments

    @torch.inference_mode()
    def from_features(dtype: torch.dtype) -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            for batch in ready:
                task.decode(*task.encode(batch))

    def features() -> None:
        for audio in samples:
            feats = frontend(audio)
            cmvn(feats, Moments.of(feats))

    turns = {
        "features": features,
        "fp32": partial(from_features, torch.float32),
        "bf16": partial(from_features, torch.bfloat16),
    }
    times: dict[str, list[float]] = {name: [] for name in turns}
    for n in range(rounds + 1):
        for name, go in turns.items():
            taken = timed(go)
            if n:  # the first round warms up
                times[name].append(taken)
    took = {name: statistics.median(of) for name, of in times.items()}
    return {
        "parameters": sum(p.numel() for p in task.parameters()),
        "from_features": {name: seconds / took[name] for name in ("fp32", "bf16")},
        "from_audio": {name: seconds / (took[name] + took["features"]) for name in ("fp32", "bf16")},
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def timed(go: Callable[[], Any]) -> float:
    start = time.perf_counter()
    go()
    return time.perf_counter() - start


def wer(refs: list[str], hyps: list[str]) -> float:
    rates = ErrorRates()
    rates.update([utterance_errors(ref, hyp, "wer") for ref, hyp in zip(refs, hyps, strict=True)])
    return float(rates.compute()["wer"])


def show(results: dict[str, Any], console: Console) -> None:
    found = results["beam"]
    table = Table(title=f"Beam {results['about']['beam']} with a word 3-gram, {found['utterances']} utterances")
    for column in ("search", "x real time", "test WER %"):
        table.add_column(column, justify="right")
    for name, row in found["rows"].items():
        table.add_row(name, f"{row['real_time']:.0f}", f"{100 * row['wer']:.2f}")
    console.print(table)
    console.print(
        f"their time / ours: {found['ratio']:.2f}; {100 * found['same']:.0f} % of the transcripts are the same"
    )
    g = results["greedy"]
    for name in ("fp32", "bf16"):
        console.print(
            f"greedy, small BiLSTM, one thread, {name}: {g['from_features'][name]:.0f} x real time from features, "
            f"{g['from_audio'][name]:.0f} from audio in memory"
        )


def _options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path, help="a finished run of decoder=ctc, its folder or name")
    arguments.add_argument("--beam", type=int, default=16)
    arguments.add_argument("--weight", type=float, default=0.5, help="of the language model")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", type=Path, metavar="FILE")
    return arguments.parse_args()


if __name__ == "__main__":
    sys.exit(main())
