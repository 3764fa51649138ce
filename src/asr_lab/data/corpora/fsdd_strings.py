"""Connected digits from isolated ones: strings of FSDD recordings of one speaker, with pauses between them.

Everything follows from the parameters and the recordings. Each string is drawn by itself, so that a larger `n_train`
adds strings and changes none.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from asr_lab.data import audio
from asr_lab.data.building import locked, replacing
from asr_lab.data.corpora.fsdd import DIGITS
from asr_lab.data.manifest import Utterance, digest
from asr_lab.data.recordings import Recording, rows
from asr_lab.errors import DataError
from asr_lab.files import write_jsonl

VERSION = 1  # raise it with every change that can change a sample or a transcript
SPLITS = ("train", "val", "test")

Pool = dict[str, dict[str, list[Path]]]  # speaker -> digit -> files


class Strings(NamedTuple):
    """What the strings are like.

    Args:
        n_train, n_val, n_test: strings of each split.
        n_digits: the least and the most digits of a string.
        pause_ms: the shortest and the longest pause, before, between and after digits.
        noise_db: level of the white noise under a string, dB of full scale; without it pauses were digital zeros.
        speaker_disjoint: one speaker only in test, one only in val; otherwise all speakers are in all splits.
        n_val_takes: with shared speakers, recordings of each digit and speaker that are kept for val.
        seed: of all that is drawn.
    """

    n_train: int
    n_val: int
    n_test: int
    n_digits: list[int]
    pause_ms: list[int]
    noise_db: float
    speaker_disjoint: bool
    n_val_takes: int
    seed: int

    def check(self) -> None:
        for name, (low, high) in {"n_digits": (1, 100), "pause_ms": (0, 10_000)}.items():
            pair = getattr(self, name)
            if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
                raise DataError(f"data.strings.{name} is two numbers in {low} .. {high}, in order; {pair} came")
        for name in ("n_train", "n_val", "n_test", "n_val_takes"):
            if getattr(self, name) < 1:
                raise DataError(f"data.strings.{name} must be positive, {getattr(self, name)} came")


def make(folder: Path, digits: list[Utterance], strings: Strings, n_workers: int, progress: bool = True) -> Path:
    """Manifest of the strings, in a folder of `folder` that is named after all that they depend on; made when missing.

    Args:
        digits: FSDD: isolated digits with speaker and split. Test strings use its test recordings only.

    Raises:
        DataError: a parameter out of range; a speaker without a digit; a folder that cannot be written.
        DiskFullError: no space; what was begun is removed.
    """
    strings.check()
    identity = json.dumps([VERSION, strings._asdict(), digest(digits)], sort_keys=True)
    home = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
    manifest = home / "manifest.jsonl"
    if not manifest.is_file():
        with locked(home, "choose another cache folder (ASR_LAB_CACHE)"):
            if not manifest.is_file():  # another process may have made it while this one waited
                plan = recordings(digits, strings)
                with replacing(home) as building:
                    write_jsonl(building / manifest.name, rows(plan, building, building, n_workers, progress))
    return manifest


def recordings(digits: list[Utterance], strings: Strings) -> list[Recording]:
    """The strings of all splits, still to be rendered."""
    pools = _pools(digits, strings)
    return [
        _string(pools[split], split, number, strings)
        for split in SPLITS
        for number in range(getattr(strings, f"n_{split}"))
    ]


def render(files: tuple[Path, ...], pauses_ms: tuple[int, ...], noise_db: float, seed: int) -> tuple[np.ndarray, int]:
    """((S,) float32 samples, rate): the recordings in turn, a pause before each and one at the end, noise under all."""
    rate = _samples(files[0])[1]
    parts: list[np.ndarray] = []
    for file, pause in zip(files, pauses_ms, strict=False):
        samples, its_rate = _samples(file)
        if its_rate != rate:
            raise DataError(f"wrong sampling rate: {file} has {its_rate} Hz, {files[0].name} has {rate}; resample it")
        parts += [np.zeros(round(pause * rate / 1000), np.float32), samples]
    parts.append(np.zeros(round(pauses_ms[-1] * rate / 1000), np.float32))
    string = np.concatenate(parts)
    noise = np.random.default_rng(seed).standard_normal(len(string), dtype=np.float32)
    return string + np.float32(10 ** (noise_db / 20)) * noise, rate


@lru_cache(maxsize=4096)  # the whole of FSDD, 22 minutes
def _samples(file: Path) -> tuple[np.ndarray, int]:
    return audio.read(file)


def _pools(digits: list[Utterance], strings: Strings) -> dict[str, Pool]:
    """What the strings of each split may use."""
    speakers = sorted({u.speaker for u in digits if u.speaker})
    takes = {split: _by_speaker(u for u in digits if u.split == split) for split in ("train", "test")}
    if not strings.speaker_disjoint:
        rng, train, val = Random(f"{strings.seed}/val takes"), {}, {}
        for speaker, words in sorted(takes["train"].items()):
            drawn = {word: rng.sample(files, len(files)) for word, files in sorted(words.items())}
            val[speaker] = {word: sorted(files[: strings.n_val_takes]) for word, files in drawn.items()}
            train[speaker] = {word: sorted(files[strings.n_val_takes :]) for word, files in drawn.items()}
        pools = {"train": train, "val": val, "test": takes["test"]}
    else:
        order = Random(f"{strings.seed}/speakers").sample(speakers, len(speakers))
        own = {"test": order[:1], "val": order[1:2], "train": order[2:]}
        source = {"test": takes["test"], "val": takes["train"], "train": takes["train"]}
        pools = {split: {s: source[split].get(s, {}) for s in people} for split, people in own.items()}
    for split, pool in pools.items():
        lacking = [f"{speaker}: {word}" for speaker in pool for word in DIGITS if not pool[speaker].get(word)]
        if not pool or lacking:
            what = f"{lacking[0]} and {len(lacking) - 1} more" if lacking else "speakers"
            raise DataError(f"fsdd_strings: FSDD has no recordings for {split} of {what}; prepare the whole FSDD")
    return pools


def _by_speaker(utterances: Iterable[Utterance]) -> Pool:
    pool: Pool = {}
    for u in sorted(utterances, key=lambda u: u.id):  # in whatever order a manifest has them
        if u.text in DIGITS and u.speaker:
            pool.setdefault(u.speaker, {}).setdefault(u.text, []).append(u.audio)
    return pool


def _string(pool: Pool, split: str, number: int, strings: Strings) -> Recording:
    rng, people = Random(f"{strings.seed}/{split}/{number}"), sorted(pool)
    speaker = people[number % len(people)]
    words = [rng.choice(DIGITS) for _ in range(rng.randint(*strings.n_digits))]
    files = tuple(rng.choice(pool[speaker][word]) for word in words)
    pauses = tuple(rng.randint(*strings.pause_ms) for _ in range(len(words) + 1))
    return Recording(
        id=f"{split}-{number:05d}",
        audio=None,
        text=" ".join(words),
        split=split,
        speaker=speaker,
        render=partial(render, files, pauses, strings.noise_db, rng.getrandbits(32)),
    )
