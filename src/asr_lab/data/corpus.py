"""A corpus: validated utterances in named splits."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from asr_lab.data import audio, check
from asr_lab.data.corpora.fsdd_strings import Strings
from asr_lab.data.corpora.fsdd_strings import make as make_strings
from asr_lab.data.manifest import Utterance, digest, read_manifest
from asr_lab.data.processes import available
from asr_lab.errors import ConfigError, DataError
from asr_lab.paths import cache_dir

SPLITS = ("train", "val", "test")


class Corpus:
    """The utterances of a manifest, by split, with normalised texts.

    Lines name their split (`dev`, `valid` and `validation` mean `val`). A missing `val` is carved out of `train`: whole
    speakers with `carve_by: speaker` (single utterances where no speakers are known), seeded. A manifest without any
    split name gets a `test` the same way; one that names splits but no `test` is refused. Further names (`test_other`)
    are splits of their own.

    A corpus that can be prepared is looked for in `root`, then in the cache; `prepare` itself is for
    `asr-lab data prepare` and is not called here.
    """

    def __init__(
        self,
        name: str,
        manifest: str,
        root: str | None,
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
        self.manifest = locate(name, manifest, corpora_dirs(root) if prepare else [])
        utterances = read_manifest(self.manifest)
        self.normalize = _bare(normalizer)
        for i, u in enumerate(utterances):  # in place: two copies of a large corpus are too many
            utterances[i] = u._replace(text=self.normalize(u.text))
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


def _bare(function: Callable) -> Callable:
    """Hydra's partials look up a policy at every call, which over a million transcripts takes a minute."""
    return partial(function.func, *function.args, **function.keywords) if isinstance(function, partial) else function


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


def corpora_dirs(root: str | None) -> list[Path]:
    """Where prepared corpora may be: `root` (ASR_LAB_DATA) when there is one, and the cache."""
    return [*([Path(root).expanduser().absolute()] if root else []), cache_dir() / "corpora"]


def locate(name: str, manifest: str, roots: list[Path]) -> Path:
    """Path of the manifest, in the first of `roots` that has it; without roots it is absolute or relative to here.

    Raises:
        DataError: it is nowhere; says how to get it.
    """
    places = [root / manifest for root in roots] or [Path(manifest).expanduser()]
    for path in (p for place in places for p in (place / "manifest.jsonl", place)):
        if path.is_file():
            return path.absolute()
    how = f"`asr-lab data prepare {name}` makes it (--from FILE for what you have)" if roots else "check data.manifest"
    raise DataError(f"data={name}: {' or '.join(map(str, places))} is not there; {how}")


def spoken_numbers(
    n_train: int,
    n_val: int,
    n_test: int,
    n_speakers: int,
    seed: int,
    sample_rate: int,
    n_workers: int | None = None,
    **corpus,
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
        n_workers=n_workers or available(),
    )
    return Corpus(manifest=str(manifest), root=None, sample_rate=sample_rate, **corpus)


def fsdd_strings(digits: str, root: str | None, strings: Strings, n_workers: int | None = None, **corpus) -> Corpus:
    """Connected digits, made at their first use from the prepared FSDD, and cached.

    Args:
        digits: manifest of FSDD, relative to the folders of corpora.
    """
    utterances = read_manifest(locate("fsdd", digits, corpora_dirs(root)))
    manifest = make_strings(cache_dir() / "fsdd_strings", utterances, strings, n_workers or available())
    return Corpus(manifest=str(manifest), root=None, **corpus)
