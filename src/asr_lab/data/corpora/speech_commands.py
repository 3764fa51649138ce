"""Speech Commands V2 (Warden 2018, https://arxiv.org/abs/1804.03209): one word of 35, about a second each."""

import hashlib
import math
import re
from pathlib import Path
from random import Random

from asr_lab.data import audio
from asr_lab.data.corpora.layout import holder, lines
from asr_lab.data.recordings import Recording
from asr_lab.errors import DataError

NOISE = "_background_noise_"
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
N_HASHES = 2**27 - 1  # of the rule that made the lists
# The part of each noise file that a split's silence is cut from: no split hears another's.
NOISE_PARTS = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}


def recordings(folders: list[Path]) -> list[Recording]:
    """All 35 words, `<word>/<speaker>_nohash_<number>.wav`, split as the corpus's two lists say.

    Raises:
        DataError: another layout, or a split without recordings.
    """
    home = _home(folders)
    listed = _listed(home)
    words = sorted(path for path in home.iterdir() if path.is_dir() and path.name != NOISE)
    found = []
    for path in (file for word in words for file in sorted(word.glob("*.wav"))):
        name = f"{path.parent.name}/{path.name}"
        split = listed.get(name, "train") if listed is not None else which_set(path.name)
        speaker = path.stem.partition("_nohash_")[0]
        found.append(Recording(name.removesuffix(".wav"), path, path.parent.name, split, speaker))
    if missing := {"train", *LISTS} - {r.split for r in found}:
        raise DataError(f"{home}: no recordings of the split {', '.join(sorted(missing))}; fetch the corpus again")
    return found


def recordings_12(
    folders: list[Path], words: list[str], unknown_share: float, silence_share: float, silence_s: float, seed: int
) -> list[Recording]:
    """The task of twelve classes: ten words, `unknown` (some recordings of the other words) and `silence`.

    Args:
        words: the words to tell apart.
        unknown_share, silence_share: of the recordings of `words` in each split; so many are added to them.
        silence_s: seconds of a silence, a segment of a noise file.
        seed: of the choice of unknown words and of where silences lie.

    Raises:
        DataError: as `recordings`; no noise files; a word that the corpus has not.
    """
    everything = recordings(folders)
    if strange := set(words) - {r.text for r in everything}:
        raise DataError(f"{_home(folders)}: has no recordings of {', '.join(sorted(strange))}; see data.prepare")
    found = []
    for split in NOISE_PARTS:
        known = [r for r in everything if r.split == split and r.text in words]
        others = [r for r in everything if r.split == split and r.text not in words]
        n_unknown = min(len(others), math.ceil(unknown_share * len(known)))
        unknown = Random(f"{seed}/{split}/unknown").sample(others, n_unknown)
        found += known + [r._replace(text="unknown") for r in unknown]
        found += _silences(_home(folders), split, math.ceil(silence_share * len(known)), silence_s, seed)
    return found


def which_set(name: str) -> str:
    """The split of a file by the rule that made the lists: all recordings of a speaker fall into one.

    As the corpus' README has it: the hash of the speaker's part of the name, as a percentage, lies below 10 for
    validation, below 20 for testing.
    """
    speaker = re.sub(r"_nohash_.*$", "", name)
    share = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % (N_HASHES + 1) * (100 / N_HASHES)
    return "val" if share < 10 else "test" if share < 20 else "train"


def _home(folders: list[Path]) -> Path:
    return holder(folders, NOISE, "Speech Commands")


def _listed(home: Path) -> dict[str, str] | None:
    """{file: split} of the official lists; None when one of them is missing."""
    if not all((home / name).is_file() for name in LISTS.values()):
        return None
    return {line.strip(): split for split, name in LISTS.items() for line in lines(home / name)}


def _silences(home: Path, split: str, n: int, seconds: float, seed: int) -> list[Recording]:
    files = sorted((home / NOISE).glob("*.wav"))
    first, last = NOISE_PARTS[split]
    spans = []
    for file in files:
        info = audio.probe(file)
        start, stop = (round(part * info.n_samples) for part in (first, last))
        if stop - round(seconds * info.sample_rate) > start:
            spans.append((file, info.sample_rate, start, stop - round(seconds * info.sample_rate)))
    if not spans:
        raise DataError(f"{home / NOISE}: no noise file long enough for a silence of {seconds} s; fetch it again")
    rng, found = Random(f"{seed}/{split}/silence"), []
    for number in range(n):
        file, rate, start, stop = rng.choice(spans)
        offset = rng.randint(start, stop) / rate
        found.append(Recording(f"silence/{split}-{number:05d}", file, "silence", split, None, offset, seconds))
    return found
