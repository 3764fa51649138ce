"""From a corpus to batches of features and labels."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from asr_lab.augment import Augment
from asr_lab.data import check
from asr_lab.data.corpus import SPLITS, Corpus
from asr_lab.data.manifest import Utterance
from asr_lab.data.pipeline import Pipeline
from asr_lab.frontend import Frontend
from asr_lab.preprocess import Preprocess
from asr_lab.text.tokenizer import Tokenizer
from asr_lab.types import Batch


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
        self.corpus, self.tokenizer, self.augment, self.frontend = corpus, tokenizer, augment, frontend
        self.batching, self.seed, self.n_workers = batching, seed, n_workers
        everything = [u for split in SPLITS for u in corpus.splits[split]]
        texts = check.text_problems(everything, lambda text: text, tokenizer.unknown)
        check.raise_first(texts, str(corpus.manifest), corpus.hint)
        corpus.check_audio()
        self.pipeline = Pipeline(corpus, preprocess, frontend)
        self.datasets = {
            split: Utterances(self.pipeline, split, augment if split == "train" else None, tokenizer, seed)
            for split in corpus.splits
        }

    def check_frames(self, output_lengths: Callable[[Tensor], Tensor], min_frames: Callable) -> None:
        """Every utterance has enough encoder frames for its labels, at the fastest speed perturbation too.

        Raises:
            DataError: naming the utterance and how many more there are.
        """
        problems = []
        for split in SPLITS:
            speed = max(self.augment.speeds) if split == "train" else 1.0
            for u in self.corpus.splits[split]:
                labels = torch.tensor([self.tokenizer.encode(u.text)])
                n_samples = self.pipeline.n_samples(u, speed)
                n_frames = int(output_lengths(torch.tensor([self.frontend.n_frames(n_samples)])))
                needed = int(min_frames(labels, torch.tensor([labels.shape[1]])))
                problems.append(check.frame_problem(u, n_frames, needed))
        check.raise_first((p for p in problems if p), str(self.corpus.manifest), self.corpus.hint)

    def loader(self, split: str, rank: int = 0, world_size: int = 1) -> DataLoader:
        """Batches of one split; the training split is shuffled by (seed, epoch)."""
        dataset = self.datasets[split]
        sampler = self.batching(
            durations=[max(u.duration, self.corpus.min_duration_s) for u in dataset.utterances],
            shuffle=split == "train",
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        # batch_size=None: the sampler's items are whole batches already, and Lightning calls its set_epoch.
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            collate_fn=_as_is,
            num_workers=self.n_workers,
            persistent_workers=self.n_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class Utterances(Dataset):
    """Utterances of one split; indexed with `(epoch, [indices])`, it gives a padded batch."""

    def __init__(self, pipeline: Pipeline, split: str, augment: Augment | None, tokenizer: Tokenizer, seed: int):
        self.pipeline, self.augment, self.seed = pipeline, augment, seed
        self.utterances = pipeline.corpus.splits[split]
        self.labels = [torch.tensor(tokenizer.encode(u.text), dtype=torch.long) for u in self.utterances]

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, item: tuple[int, list[int]]) -> Batch:
        epoch, indices = item
        chosen = [self.utterances[i] for i in indices]
        return collate([self.features(i, epoch) for i in indices], [self.labels[i] for i in indices], chosen)

    def features(self, index: int, epoch: int) -> Tensor:
        """(T, F) of one utterance, augmented as (seed, epoch, utterance) says."""
        u, frontend = self.utterances[index], self.pipeline.frontend
        if self.augment is None:
            return frontend.cmvn(self.pipeline.features(u), None)
        generator = torch.Generator().manual_seed(_seed(self.seed, epoch, u.id))
        speeds = self.augment.speeds
        speed = speeds[int(torch.randint(len(speeds), (), generator=generator))]
        samples = self.augment.audio(self.pipeline.audio(u, speed), generator)
        return self.augment.features(frontend.cmvn(frontend(samples), None), generator)


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


def _seed(run_seed: int, epoch: int, utterance: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{run_seed} {epoch} {utterance}".encode(), digest_size=7).digest())


def _as_is(batch: Any) -> Any:
    return batch
