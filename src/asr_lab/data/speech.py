"""From a corpus to batches of features and labels."""

import hashlib
import inspect
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from asr_lab.augment import Augment
from asr_lab.data import check
from asr_lab.data.cache import Cache, Live, NoCache, Stored
from asr_lab.data.corpus import Corpus
from asr_lab.data.loader import ResumableLoader
from asr_lab.data.manifest import Utterance
from asr_lab.data.pipeline import Pipeline
from asr_lab.errors import DataError
from asr_lab.frontend import Frontend
from asr_lab.frontend.cmvn import Moments
from asr_lab.preprocess import Preprocess
from asr_lab.text.tokenizer import Tokenizer
from asr_lab.types import Batch

# Utterances whose labels are looked at together when frames are checked.
CHUNK = 1024


class SpeechData:
    """Loaders over the splits of a corpus. Every utterance is checked against tokenizer and audio when it is built."""

    def __init__(
        self,
        corpus: Corpus,
        preprocess: Preprocess,
        frontend: Frontend,
        augment: Augment,
        tokenizer: Tokenizer,
        batching: Callable,
        seed: int,
        n_workers: int,
    ):
        self.corpus, self.tokenizer, self.augment = corpus, tokenizer, augment
        self.batching, self.seed, self.n_workers = batching, seed, n_workers
        self.pipeline = Pipeline(corpus, preprocess, frontend)
        everything = [u for utterances in corpus.splits.values() for u in utterances]
        texts = check.text_problems(everything, lambda text: text, tokenizer.unknown)
        check.raise_first(texts, str(corpus.manifest), corpus.hint)
        corpus.check_audio()
        self.datasets: dict[str, Utterances] = {}
        self._open(Live(self.pipeline))

    def check_frames(self, output_lengths: Callable[[Tensor], Tensor], min_frames: Callable) -> None:
        """Every utterance has enough encoder frames for its labels, at the fastest speed perturbation too.

        Raises:
            DataError: naming the utterance and how many more there are.
        """
        problems = []
        for split, utterances in self.corpus.splits.items():
            speed = max(self.augment.speeds) if split == "train" else 1.0
            source = self.datasets[split].source
            for start in range(0, len(utterances), CHUNK):
                chunk = utterances[start : start + CHUNK]
                labels, label_lens = _padded_labels([self.tokenizer.encode(u.text) for u in chunk])
                frames = output_lengths(torch.tensor([source.n_frames(u, speed) for u in chunk]))
                needed = min_frames(labels, label_lens)
                for i in torch.nonzero(frames < needed)[:, 0].tolist():
                    problems.append(check.frame_problem(chunk[i], int(frames[i]), int(needed[i])))
        check.raise_first(problems, str(self.corpus.manifest), self.corpus.hint)

    def open_cache(self, cache: Cache | NoCache, identity: dict[str, Any]) -> bool:
        """Fill the cache with what this data will ask for, and read from it. True when lengths are now known better.

        Raises:
            DataError: an audio file cannot be read.
            DiskFullError: there is no room for the cache.
        """
        augment, splits = self.augment, self.corpus.splits
        plain = [u for split, utterances in splits.items() for u in utterances if split != "train"]
        by_audio = augment.on_audio
        needs_moments = self.pipeline.frontend.cmvn.scope in ("speaker", "global")
        if not by_audio or needs_moments:
            plain += splits["train"]
        varied = dict.fromkeys(augment.speeds, splits["train"])
        features = {} if by_audio else dict(varied)
        features[1.0] = plain
        source = cache.open(self.pipeline, identity, features, varied if by_audio else {})
        self._open(source)
        return source.knows_lengths and not self.pipeline.preprocess.keeps_length

    def _open(self, source: Live | Stored) -> None:
        train = None
        for split in self.corpus.splits:
            augment = self.augment if split == "train" else None
            dataset = Utterances(self.pipeline, source, split, augment, self.tokenizer, self.seed)
            dataset.train = train = train or dataset
            self.datasets[split] = dataset

    def plain(self, split: str) -> "Utterances":
        """A split without augmentation, the training split too."""
        dataset = self.datasets[split]
        if dataset.augment is None:
            return dataset
        same = Utterances(self.pipeline, dataset.source, split, None, self.tokenizer, self.seed)
        same.train = dataset.train
        return same

    def moments(self) -> Moments | None:
        """The training split's, where `frontend/cmvn=global` normalises everything by them."""
        if self.pipeline.frontend.cmvn.scope != "global":
            return None
        return self.datasets["train"].shared_moments()[None]

    def sampler(self, dataset: "Utterances", shuffle: bool, rank: int = 0, world_size: int = 1) -> Any:
        """What decides which utterances form a batch, and in which order."""
        given = {"lengths": dataset.seconds, "shuffle": shuffle, "seed": self.seed}
        if "shards" in inspect.signature(self.batching).parameters:
            given["shards"] = [str(u.audio) if u.member else "" for u in dataset.utterances]
        return self.batching(**given, rank=rank, world_size=world_size)

    def loader(self, split: str, rank: int = 0, world_size: int = 1) -> ResumableLoader:
        """Batches of one split; the training split is shuffled by (seed, epoch)."""
        dataset = self.datasets[split]
        dataset.measure()
        return ResumableLoader(dataset, self.sampler(dataset, split == "train", rank, world_size), self.n_workers)


class Utterances(Dataset):
    """Utterances of one split; indexed with `(epoch, [indices])`, it gives a padded batch."""

    def __init__(
        self,
        pipeline: Pipeline,
        source: Live | Stored,
        split: str,
        augment: Augment | None,
        tokenizer: Tokenizer,
        seed: int,
    ):
        self.pipeline, self.source, self.augment = pipeline, source, augment
        self.tokenizer, self.seed = tokenizer, seed
        self.utterances = pipeline.corpus.splits[split]
        self.speeds = augment.speeds if augment else (1.0,)
        self.train: Utterances = self  # the split that `global` CMVN is measured on
        self._shared: dict[str | None, Moments] = {}

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, item: tuple[int, list[int]]) -> Batch:
        epoch, indices = item
        chosen = [self.utterances[i] for i in indices]
        labels = [torch.tensor(self.tokenizer.encode(u.text), dtype=torch.long) for u in chosen]
        return collate([self.features(i, epoch) for i in indices], labels, chosen)

    def seconds(self, epoch: int) -> np.ndarray:
        """(N,) how long each utterance is in this epoch."""
        if self.source.knows_lengths and not self.pipeline.preprocess.keeps_length:
            rate = self.pipeline.frontend.n_frames(100 * self.pipeline.corpus.sample_rate) / 100
            plain = np.array([self.source.n_frames(u, 1.0) / rate for u in self.utterances])
        else:
            shortest = self.pipeline.corpus.min_duration_s
            plain = np.array([max(u.duration, shortest) for u in self.utterances])
        if len(self.speeds) == 1:
            return plain / self.speeds[0]
        return plain / np.array([self.speed(_seed(self.seed, epoch, u.id)) for u in self.utterances])

    def speed(self, seed: int) -> float:
        """The factor that an utterance's seed draws."""
        return self.speeds[seed % len(self.speeds)]

    def features(self, index: int, epoch: int) -> Tensor:
        """(T, F) of one utterance, normalised, augmented as (seed, epoch, utterance) says."""
        u, frontend, augment = self.utterances[index], self.pipeline.frontend, self.augment
        if augment is None:
            feats, moments = self.source.features(u, 1.0)
            return frontend.cmvn(feats, self.moments(u, moments))
        seed = _seed(self.seed, epoch, u.id)
        generator = torch.Generator().manual_seed(seed)
        if augment.on_audio:
            feats = frontend(augment.audio(self.source.audio(u, self.speed(seed)), generator))
            moments = Moments.of(feats)
        else:
            feats, moments = self.source.features(u, self.speed(seed))
        return augment.features(frontend.cmvn(feats, self.moments(u, moments)), generator)

    def measure(self) -> None:
        """Look once at what CMVN wants to know beforehand, so that loading processes need not."""
        if self.pipeline.frontend.cmvn.scope in ("speaker", "global"):
            (self if self.pipeline.frontend.cmvn.scope == "speaker" else self.train).shared_moments()

    def moments(self, u: Utterance, own: Moments) -> Moments:
        """The moments that CMVN wants: of the utterance, its speaker in this split, or the training split."""
        scope = self.pipeline.frontend.cmvn.scope
        if scope == "global":
            return self.train.shared_moments()[None]
        if scope == "speaker":
            return self.shared_moments()[u.speaker]
        return own

    def shared_moments(self) -> dict[str | None, Moments]:
        """Moments by speaker, and under None over the whole split; computed once, at the utterances' own speed."""
        if not self._shared:
            by_speaker = self.pipeline.frontend.cmvn.scope == "speaker"
            for u in self.utterances:
                if by_speaker and not u.speaker:
                    raise DataError(
                        f"{self.pipeline.corpus.manifest}: {u.id} has no speaker, which frontend/cmvn=speaker needs; "
                        "add it, or choose frontend/cmvn=utterance"
                    )
                key = u.speaker if by_speaker else None
                more = self.source.moments(u, 1.0)
                self._shared[key] = self._shared[key].plus(more) if key in self._shared else more
        return self._shared


def collate(feats: list[Tensor], labels: list[Tensor], utterances: list[Utterance]) -> Batch:
    """Pad (T_i, F) and (L_i,) of a list of utterances to one batch."""
    return Batch(
        feats=pad_sequence(feats, batch_first=True),
        feat_lens=torch.tensor([len(f) for f in feats]),
        labels=pad_sequence(labels, batch_first=True),
        label_lens=torch.tensor([len(row) for row in labels]),
        ids=tuple(u.id for u in utterances),
        texts=tuple(u.text for u in utterances),
        seconds=sum(u.duration for u in utterances),
    )


def _padded_labels(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """[L_i] -> (B, L), (B,)"""
    lens = np.array([len(row) for row in rows])
    padded = np.zeros((len(rows), lens.max()), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lens[:, None]] = np.fromiter(chain.from_iterable(rows), np.int64, lens.sum())
    return torch.from_numpy(padded), torch.from_numpy(lens)


def _seed(run_seed: int, epoch: int, utterance: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{run_seed} {epoch} {utterance}".encode(), digest_size=7).digest())
