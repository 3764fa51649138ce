"""The embedded corpus `spoken_numbers`: number phrases (see number_grammar) spoken by eSpeak NG, made once and cached.

Everything follows from the parameters: who speaks, what, how fast, how loud, over how much noise. eSpeak NG keeps state
between utterances, so the work is cut into shards of fixed size, each spoken in a fixed order by a fresh process; the
number of workers only says how many run at once. Each split is drawn by itself and from its start: a larger `n_train`
adds utterances and changes none, in no split.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from asr_lab.data import espeak
from asr_lab.data.building import locked, replacing
from asr_lab.data.channel import Channel, shortest, transmit
from asr_lab.data.number_grammar import phrases
from asr_lab.errors import DataError
from asr_lab.files import write_json, write_jsonl

if TYPE_CHECKING:
    import numpy as np

GENERATOR_VERSION = 2  # raise it with every change that can change a sample or a transcript
SHARD_SIZE = 100  # utterances of one process; part of the corpus' identity
SPLITS = ("train", "val", "test")
MAX_SPEAKERS = len(espeak.HIGH_VOICES) + len(espeak.LOW_VOICES)


class Take(NamedTuple):
    """One utterance of the corpus, before it is recorded."""

    id: str
    split: str
    text: str
    voice: espeak.Voice
    channel: Channel


class Parameters(NamedTuple):
    """All that the corpus depends on."""

    n_train: int
    n_val: int
    n_test: int
    n_speakers: int
    seed: int
    sample_rate: int  # Hz

    def check(self) -> None:
        for name, low, high in (
            *((f"n_{split}", 1, 99_999) for split in SPLITS),
            ("n_speakers", len(SPLITS), MAX_SPEAKERS),
            ("sample_rate", 8_000, 48_000),
        ):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"spoken_numbers: {name} must lie in {low} .. {high}, {getattr(self, name)} came")

    def fingerprint(self) -> str:
        identity = {**self._asdict(), "generator": GENERATOR_VERSION, "shard_size": SHARD_SIZE}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def prepare(
    folder: Path,
    *,
    n_train: int,
    n_val: int,
    n_test: int,
    n_speakers: int,
    seed: int,
    sample_rate: int,
    n_workers: int,
    progress: bool = True,
) -> Path:
    """Manifest of the corpus under `folder`, which is made first when it is not there yet.

    Args:
        n_train, n_val, n_test: utterances of each split.
        n_speakers: of all splits together; one fifth each (at least one) for val and test, never shared.
        sample_rate: of the written FLAC files, Hz.
        n_workers: processes at once; changes the time it takes and nothing else.

    Raises:
        DataError: a parameter out of range, eSpeak NG not installed, or a folder that cannot be written.
        DiskFullError: no space; what was begun is removed.
    """
    parameters = Parameters(n_train, n_val, n_test, n_speakers, seed, sample_rate)
    parameters.check()
    home = Path(folder) / parameters.fingerprint()
    if not _is_complete(home):
        with locked(home, "choose another cache folder (ASR_LAB_CACHE)"):
            if not _is_complete(home):  # another process may have made it while this one waited
                _build(home, parameters, max(1, n_workers), progress)
    return home / "manifest.jsonl"


def speakers(n_speakers: int, seed: int) -> dict[str, list[espeak.Voice]]:
    """The speakers of each split. High and low voices alternate as long as there are both, val and test first."""
    rng = Random(f"{seed}/speakers")
    high, low = (rng.sample(voices, len(voices)) for voices in (espeak.HIGH_VOICES, espeak.LOW_VOICES))
    variants = [v for pair in zip_longest(high, low) for v in pair if v]
    everyone = [
        espeak.Voice(
            name=f"{rng.choice(espeak.ACCENTS)}+{variant}",
            rate=rng.randrange(140, 201),
            pitch=rng.randrange(35, 66),
            pitch_range=rng.randrange(30, 71),
        )
        for variant in variants[:n_speakers]
    ]
    n_held = max(1, n_speakers // 5)
    return {"test": everyone[:n_held], "val": everyone[n_held : 2 * n_held], "train": everyone[2 * n_held :]}


def plan(parameters: Parameters, split: str) -> list[Take]:
    """What is to be spoken and recorded in `split`; its first takes are the same for every size of the split."""
    n, seed = getattr(parameters, f"n_{split}"), parameters.seed
    people = speakers(parameters.n_speakers, seed)[split]
    rng = Random(f"{seed}/{split}/recording")
    takes = []
    for number, text in enumerate(phrases(n, f"{seed}/{split}")):
        habit = people[number % len(people)]
        voice = habit._replace(
            rate=round(habit.rate * rng.uniform(0.92, 1.08)), pitch=habit.pitch + rng.randrange(-4, 5)
        )
        channel = Channel(
            level_db=rng.uniform(-32, -20),
            snr_db=rng.uniform(20, 40),
            lead_s=rng.uniform(0.1, 0.3),
            tail_s=rng.uniform(0.1, 0.3),
            noise_seed=rng.getrandbits(32),
        )
        takes.append(Take(f"{split}-{number:05d}", split, text, voice, channel))
    return takes


def _is_complete(home: Path) -> bool:
    """A finished build whose files are all there: a scratch disk that is swept by age loses some of them."""
    try:
        wanted = json.loads((home / "corpus.json").read_text(encoding="utf-8"))["n_utterances"]
        return (home / "manifest.jsonl").is_file() and len(os.listdir(home / "audio")) == wanted
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _build(home: Path, parameters: Parameters, n_workers: int, progress: bool) -> None:
    """Make the corpus beside `home` and rename it when it is whole."""
    with replacing(home) as building:
        (building / "audio").mkdir()
        rows, espeak_version = _record_all(building, parameters, n_workers, progress)
        write_jsonl(building / "manifest.jsonl", rows)
        corpus = {
            "parameters": parameters._asdict(),
            "generator_version": GENERATOR_VERSION,
            "espeak_version": espeak_version,
            "n_utterances": len(rows),
            "minutes": round(sum(row["duration"] for row in rows) / 60, 2),
            "digest": hashlib.sha256("".join(f"{r['id']} {r['digest']}\n" for r in rows).encode()).hexdigest(),
        }
        write_json(building / "corpus.json", corpus)


def _record_all(building: Path, parameters: Parameters, n_workers: int, progress: bool) -> tuple[list[dict], str]:
    """All shards, `n_workers` at once: the manifest's rows in order and the version of eSpeak NG."""
    from rich.console import Console
    from rich.progress import Progress

    plans = [plan(parameters, split) for split in SPLITS]
    shards = [rows[i : i + SHARD_SIZE] for rows in plans for i in range(0, len(rows), SHARD_SIZE)]
    with (
        Progress(console=Console(stderr=True), disable=not progress) as bar,
        ThreadPoolExecutor(n_workers) as pool,
    ):
        task = bar.add_task("making spoken_numbers", total=sum(map(len, shards)))
        futures = [pool.submit(_record_shard, building, shard, parameters.sample_rate) for shard in shards]
        try:
            for future in as_completed(futures):
                bar.advance(task, len(future.result()[0]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [row for future in futures for row in future.result()[0]], futures[0].result()[1]


def _record_shard(building: Path, shard: list[Take], sample_rate: int) -> tuple[list[dict], str]:
    speech, version = espeak.speak_afresh([(take.text, take.voice) for take in shard])
    return [_record(building, take, pcm, sample_rate) for take, pcm in zip(shard, speech, strict=True)], version


def _record(building: Path, take: Take, speech: "np.ndarray", sample_rate: int) -> dict:
    """Write the file of one utterance; its row of the manifest."""
    import io

    import soundfile

    pcm = transmit(speech, sample_rate, take.channel, shortest(take.text))
    encoded = io.BytesIO()  # written by Python, which says so when the disk is full; libsndfile does not
    soundfile.write(encoded, pcm, sample_rate, format="FLAC", subtype="PCM_16")
    path = Path("audio", f"{take.id}.flac")
    with open(building / path, "wb") as f:
        f.write(encoded.getvalue())
        os.fsync(f.fileno())  # or a power cut could leave empty files in a corpus that counts as complete
    return {
        "id": take.id,
        "audio_filepath": path.as_posix(),
        "duration": round(len(pcm) / sample_rate, 4),
        "text": take.text,
        "speaker": take.voice.name,
        "split": take.split,
        "sample_rate": sample_rate,
        "digest": hashlib.sha256(pcm.astype("<i2").tobytes() + take.text.encode()).hexdigest()[:16],
    }
