"""A corpus: validated utterances in named splits."""

import os
import random
from collections.abc import Callable
from pathlib import Path

from asr_lab.data import audio, check
from asr_lab.data.manifest import Utterance, digest, read_manifest
from asr_lab.errors import ConfigError, DataError
from asr_lab.paths import cache_dir

SPLITS = ("train", "val", "test")


class Corpus:
    """The utterances of a manifest, by split, with normalised texts.

    Lines name their split (`dev`, `valid` and `validation` mean `val`). A missing `val` is carved out of `train`: whole
    speakers with `carve_by: speaker` (single utterances where no speakers are known), seeded. A manifest without any
    split name gets a `test` the same way; one that names splits but no `test` is refused.
    """

    def __init__(
        self,
        name: str,
        manifest: str,
        root: str | None,
        obtain: str,
        sample_rate: int,
        resample: bool,
        channel: int | str,
        min_duration_s: float,
        score: str,
        carve_by: str,
        carve_share: float,
        carve_seed: int,
        normalizer: Callable[[str], str],
        prepare: Callable | None = None,
    ):
        if carve_by not in ("speaker", "utterance"):
            raise ConfigError(f"data.carve_by={carve_by}; choose from: speaker, utterance")
        if not 0 < carve_share < 0.5:
            raise ConfigError(f"data.carve_share is a share of the training data in (0, 0.5), {carve_share} came")
        if score not in ("wer", "cer"):
            raise ConfigError(f"data.score={score}; choose from: wer, cer")
        if channel != audio.MIX and (isinstance(channel, str) or channel < 0):
            raise ConfigError(f"data.channel is a number from 0, or mix; {channel!r} came")
        self.name, self.sample_rate, self.resample = name, sample_rate, resample
        self.channel, self.score = channel, score
        self.min_duration_s = min_duration_s
        self.manifest = locate(name, manifest, root, obtain)
        utterances = [u._replace(text=normalizer(u.text)) for u in read_manifest(self.manifest)]
        self.splits = self._split(utterances, carve_by, carve_share, carve_seed)

    @property
    def hint(self) -> str:
        return f"`asr-lab data check {self.manifest}` lists all"

    def digests(self) -> dict[str, str]:
        """Identity of each split's content."""
        return {split: digest(us) for split, us in self.splits.items()}

    def check_audio(self) -> None:
        """
        Raises:
            DataError: a file is not what the manifest says.
        """
        everything = [u for split in SPLITS for u in self.splits[split]]
        check.checked_once(everything, str(self.manifest), self.hint, None if self.resample else self.sample_rate)

    def _split(self, utterances: list[Utterance], by: str, share: float, seed: int) -> dict[str, list[Utterance]]:
        named = any(u.split is not None for u in utterances)
        check.raise_first(check.split_problems(utterances, ("train", "test")), str(self.manifest), self.hint)
        splits: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
        for u in utterances:
            splits.setdefault(check.split_name(u.split) or "train", []).append(u)
        for split in ("val", "test"):
            if not splits[split] and not (named and split == "test"):
                splits["train"], splits[split] = carve(splits["train"], by, share, seed)
        empty = [split for split in SPLITS if not splits[split]]
        if empty:
            raise DataError(f"{self.manifest}: split without utterances: {', '.join(empty)}; the corpus is too small")
        return splits


def carve(utterances: list[Utterance], by: str, share: float, seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """(rest, carved): at least `share` of the utterances, whole speakers where possible, the same for the same seed."""
    speakers = sorted({u.speaker for u in utterances if u.speaker})
    by_speaker = by == "speaker" and len(speakers) > 1 and all(u.speaker for u in utterances)
    key = (lambda u: u.speaker) if by_speaker else (lambda u: u.id)
    groups = speakers if by_speaker else sorted(u.id for u in utterances)
    random.Random(f"carve {seed}").shuffle(groups)
    wanted, chosen, count = share * len(utterances), set(), 0
    sizes: dict[str, int] = {}
    for u in utterances:
        sizes[key(u)] = sizes.get(key(u), 0) + 1
    for group in groups[:-1]:  # one group always stays
        if count >= wanted:
            break
        chosen.add(group)
        count += sizes[group]
    return [u for u in utterances if key(u) not in chosen], [u for u in utterances if key(u) in chosen]


def locate(name: str, manifest: str, root: str | None, obtain: str) -> Path:
    """Path of the manifest, or one line that says how to get the corpus."""
    path = Path(manifest).expanduser()
    if not path.is_absolute() and obtain:
        if not root:
            raise DataError(
                f"data={name}: the variable ASR_LAB_DATA is not set; set it to the folder that holds {path.parent}/. "
                f"{obtain}"
            )
        path = Path(root).expanduser() / path
    if path.is_dir() and (path / "manifest.jsonl").exists():
        path = path / "manifest.jsonl"
    if not path.exists():
        what = f" {obtain}" if obtain else " Check data.manifest."
        raise DataError(f"data={name}: {path} is not there.{what}")
    return path.absolute()


def spoken_numbers(
    n_train: int, n_val: int, n_test: int, n_speakers: int, seed: int, sample_rate: int, **corpus
) -> Corpus:
    """The embedded synthetic corpus, made at its first use and cached."""
    from asr_lab.data.spoken_numbers import prepare

    manifest = prepare(
        cache_dir() / "spoken_numbers",
        n_train=n_train,
        n_val=n_val,
        n_test=n_test,
        n_speakers=n_speakers,
        seed=seed,
        sample_rate=sample_rate,
        n_workers=os.cpu_count() or 1,
    )
    return Corpus(manifest=str(manifest), root=None, obtain="", sample_rate=sample_rate, **corpus)
