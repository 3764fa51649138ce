"""What the data side costs: cache against live features, waiting, padding, processes, a million utterances.

    python benchmarks/data.py [epoch loader padding workers million] [--rounds 5]

`epoch`, `loader` and `workers` use AN4 and FSDD (ASR_LAB_DATA). Compared ways alternate; medians; one thread a process.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from asr_lab import schema
from asr_lab.build import build_data, call, identity, make
from asr_lab.data.batching import DurationBuckets
from asr_lab.data.corpora.fsdd_strings import Strings
from asr_lab.data.corpora.fsdd_strings import make as make_strings
from asr_lab.data.corpus import Corpus
from asr_lab.data.manifest import read_manifest
from asr_lab.paths import conf_dir
from asr_lab.sweep.cell import register_resolvers, resolved

PARTS = ("epoch", "loader", "padding", "workers", "million")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("parts", nargs="*", default=PARTS)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    schema.register()
    register_resolvers()
    for part in options.parts:
        if part not in PARTS:
            arguments.error(f"{part}: choose from {', '.join(PARTS)}")
        with tempfile.TemporaryDirectory() as folder:
            os.environ["ASR_LAB_CACHE"] = folder
            globals()[part](options.rounds, Path(folder))


def data_of(*overrides: str):
    """The data of AN4 with its cache open."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = resolved(compose("config", overrides=["data=an4", *overrides]))
    data = build_data(config, make(config, "frontend"))
    data.open_cache(make(config, "cache"), identity(config))
    return data


def epoch(rounds: int, folder: Path) -> None:
    """One pass over AN4's training split, as the trainer gets it: features with and without the cache."""
    for augment in ("none", "specaugment_speed"):
        loaders = {way: data_of(f"cache={way}", f"augment={augment}").loader("train") for way in ("none", "features")}
        seconds: dict[str, list[float]] = {way: [] for way in loaders}
        for number in range(rounds + 1):  # the first warms up
            for way, loader in loaders.items():
                loader.sampler.set_epoch(number)
                start = time.process_time()
                for _ in loader:
                    pass
                seconds[way].append(time.process_time() - start)
        live, cached = (statistics.median(seconds[way][1:]) for way in ("none", "features"))
        report(f"epoch of AN4, augment={augment}: live / cached", live, cached)


def loader(rounds: int, folder: Path) -> None:
    """How long steps of the fastest encoder wait for one loading process."""
    command = [sys.executable, "-m", "asr_lab", "train", "data=an4", "encoder=bilstm", "size=tiny", "logger=none"]
    command += ["trainer.max_epochs=3", "runtime.quiet=true", "runtime.n_threads=1", f"hydra.run.dir={folder}/run"]
    for n_workers in (0, 1):
        subprocess.run(
            [*command, f"runtime.n_workers={n_workers}", "runtime.rerun=true"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = json.loads((folder / "run" / "result.json").read_text())["seconds"]
        share = seconds["data"] / seconds["train"]
        what = f"waiting for data, bilstm size=tiny, {n_workers} loading processes"
        print(f"{what}: {100 * share:.1f} % of {seconds['train']:.1f} s")


def padding(rounds: int, folder: Path) -> None:
    """Padded seconds over speech seconds, less one, at equal batch seconds."""
    rng = np.random.default_rng(0)
    # LibriSpeech's training durations: three quarters near 14 s, the rest spread below, at most 24.5 s.
    libri = np.where(rng.random(28_539) < 0.75, rng.normal(14.3, 1.2, 28_539), rng.uniform(1.5, 14, 28_539)).clip(
        1.4, 24.5
    )
    sets = [("LibriSpeech-like", libri, 200.0)]
    if os.environ.get("ASR_LAB_DATA"):
        manifest = read_manifest(Path(os.environ["ASR_LAB_DATA"]) / "an4" / "manifest.jsonl")
        an4 = np.array([u.duration for u in manifest if u.split == "train"])
        sets = [("AN4", an4, 24.0), ("AN4", an4, 100.0), *sets]
    for name, durations, limit in sets:
        for n_buckets in (1, 48):
            sampler = DurationBuckets(lambda epoch, d=durations: d, True, 1, limit, n_buckets, True, False)
            batches = [batch for _, batch in sampler]
            padded = sum(durations[b].max() * len(b) for b in batches)
            kind = "random" if n_buckets == 1 else f"{n_buckets} buckets"
            print(f"padding, {name}, {limit:.0f} s a batch, {kind}: {100 * (padded / durations.sum() - 1):.1f} %, "
                  f"{len(batches)} batches")  # fmt: skip


def workers(rounds: int, folder: Path) -> None:
    """Filling the cache and preparing a corpus, with one and with two processes, wall time."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for n, values in seconds.items():
            os.environ["ASR_LAB_CACHE"] = str(folder / f"{number}-{n}")
            data_of("cache=none")  # the check of the audio is not what is measured
            start = time.perf_counter()
            data_of(f"cache.n_workers={n}")
            values.append(time.perf_counter() - start)
    report("filling the cache with AN4: 1 / 2 processes", *(statistics.median(seconds[n]) for n in (1, 2)))
    digits = read_manifest(Path(os.environ["ASR_LAB_DATA"]) / "fsdd" / "manifest.jsonl")
    wanted = Strings(8000, 500, 500, [3, 7], [50, 300], -60.0, False, 5, 0)
    seconds = {1: [], 2: []}
    for number in range(rounds):
        for n, values in seconds.items():
            start = time.perf_counter()
            make_strings(folder / f"strings-{number}-{n}", digits, wanted, n, progress=False)
            values.append(time.perf_counter() - start)
    report("preparing 9,000 digit strings: 1 / 2 processes", *(statistics.median(seconds[n]) for n in (1, 2)))


def million(rounds: int, folder: Path) -> None:
    """A manifest of a million utterances: read, checked (text, labels against frames), bucketed."""
    manifest = folder / "million.jsonl"
    write_million(manifest)
    start, wall = time.process_time(), time.perf_counter()
    Corpus.check_audio = lambda self: None  # there is none
    overrides = ["data=manifest", f"data.manifest={manifest}", "batching.batch_seconds=200", "cache=none"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = resolved(compose("config", overrides=overrides))
    data = build_data(config, make(config, "frontend"))
    encoder = call(config, "encoder", in_dim=80)
    decoder = call(config, "decoder", in_dim=encoder.out_dim, n_labels=len(data.tokenizer))
    data.check_frames(encoder.output_lengths, decoder.min_frames)
    n_batches = len(data.sampler(data.datasets["train"], shuffle=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"a million utterances: {time.process_time() - start:.1f} s of CPU, {time.perf_counter() - wall:.1f} s, "
          f"{memory:.2f} GiB at most, {n_batches} batches")  # fmt: skip


def write_million(path: Path) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 8))) for _ in range(5000)]
    with open(path, "w") as f:
        for i in range(1_000_000):
            n = rng.randint(5, 55)
            row = {
                "audio_filepath": f"train/{i // 5000}/{i // 100}/{i:07d}.flac",
                "duration": round(0.4 * n + rng.random(), 2),
                "text": " ".join(rng.choices(words, k=n)),
                "speaker": str(i // 500),
                "split": "test" if i >= 995_000 else "val" if i >= 990_000 else "train",
            }
            f.write(json.dumps(row) + "\n")


def report(what: str, a: float, b: float) -> None:
    print(f"{what:58} {a:8.3f} s {b:8.3f} s  {a / b:6.2f}x", flush=True)


if __name__ == "__main__":
    main()
