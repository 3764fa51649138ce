"""Text for language models: a corpus's transcripts and further files, as batches of label sequences."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from asr_lab.data import check
from asr_lab.data.batching import DurationBuckets
from asr_lab.data.corpus import Corpus
from asr_lab.data.loader import ResumableLoader
from asr_lab.errors import ConfigError, DataError
from asr_lab.text.tokenizer import Tokenizer
from asr_lab.types import TextBatch

log = logging.getLogger(__name__)


class TextData:
    """Loaders over the transcripts of a corpus's splits; the training split is followed by the lines of `extra`.

    Lines go through the corpus's normaliser; empty ones are left out. A line that the tokenizer has no labels for ends
    the run with `unknown: refuse`, or is left out with `unknown: skip`, which says how many there were. Batches have at
    most `batch_labels` labels, padding and ends of sentences included, and are drawn inside `n_buckets` buckets of
    similar length.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        seed: int,
        n_workers: int,
        extra: list[str],
        unknown: str,
        batch_labels: int,
        n_buckets: int,
    ):
        if unknown not in ("refuse", "skip"):
            raise ConfigError(f"text.unknown={unknown}; choose from: refuse, skip")
        if batch_labels < 1 or n_buckets < 1:
            raise ConfigError(f"text: batch_labels and n_buckets are at least 1, {batch_labels} and {n_buckets} came")
        if isinstance(extra, str):
            raise ConfigError(f"text.extra is a list of files, as text.extra=[{extra}]")
        self.corpus, self.tokenizer, self.seed, self.n_workers = corpus, tokenizer, seed, n_workers
        self.batch_labels, self.n_buckets = batch_labels, n_buckets
        self._digests = corpus.digests()
        everything = [u for utterances in corpus.splits.values() for u in utterances]
        problems = check.text_problems(everything, lambda text: text, tokenizer.unknown)
        check.raise_first(problems, str(corpus.manifest), corpus.hint)
        self.datasets: dict[str, Sentences] = {}
        for split, utterances in corpus.splits.items():
            lines = [(u.id, u.text) for u in utterances]
            if split == "train":
                files = (self._read(Path(name).expanduser(), unknown == "skip") for name in extra)
                lines = chain(lines, *files)
            self.datasets[split] = Sentences(lines, tokenizer, named=split != "train")

    def digests(self) -> dict[str, str]:
        """Identity of each split's content, and of each further file."""
        return self._digests

    def loader(self, split: str, rank: int = 0, world_size: int = 1) -> ResumableLoader:
        """Batches of one split; the training split is shuffled by (seed, epoch)."""
        dataset = self.datasets[split]
        lengths = dataset.label_lens + 1.0
        # Its "seconds" are labels here.
        sampler = DurationBuckets(
            lambda epoch: lengths,
            shuffle=split == "train",
            seed=self.seed,
            batch_seconds=self.batch_labels,
            n_buckets=self.n_buckets,
            reshuffle=True,
            sorted_first_epoch=False,
            rank=rank,
            world_size=world_size,
        )
        return ResumableLoader(dataset, sampler, self.n_workers)

    def _read(self, path: Path, skip: bool) -> Iterator[tuple[str, str]]:
        """(name, normalised text) of each line of a file that has labels.

        Raises:
            DataError: the file cannot be read or has nothing to learn from, or a line has no labels.
        """
        digest, kept, skipped = hashlib.sha256(), 0, 0
        try:
            with open(path, "rb") as f:
                for number, line in enumerate(f, 1):
                    digest.update(line)
                    text = self.corpus.normalize(line.decode())
                    if not text:
                        continue
                    if strange := self.tokenizer.unknown(text):
                        if not skip:
                            raise DataError(_unlabelled(f"{path}:{number}", strange))
                        skipped += 1
                        continue
                    kept += 1
                    yield f"{path.name}:{number}", text
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check text.extra") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
        if skipped:
            log.info(
                "%s: %d of %d lines left out, for which the tokenizer has no labels", path, skipped, skipped + kept
            )
        if not kept:
            raise DataError(f"{path}: no line to learn from; it wants one sentence a line")
        self._digests[str(path)] = digest.hexdigest()[:16]


class Sentences(Dataset):
    """Sentences of one split; indexed with `(epoch, [indices])`, it gives a padded batch.

    Only `named` sentences keep their id and text: nobody asks for those of training, and there may be many.
    """

    def __init__(self, lines: Iterable[tuple[str, str]], tokenizer: Tokenizer, named: bool):
        self.ids: list[str] = []
        self.texts: list[str] = []
        labels: list[np.ndarray] = []
        # The smallest type: a large text is mostly its labels.
        kind = np.min_scalar_type(len(tokenizer))
        for name, text in lines:
            if named:
                self.ids.append(name)
                self.texts.append(text)
            labels.append(np.array(tokenizer.encode(text), dtype=kind))
        self.label_lens = np.array([len(row) for row in labels])
        self._labels = np.concatenate(labels)
        self._ends = np.cumsum(self.label_lens)

    def __len__(self) -> int:
        return len(self.label_lens)

    def labels(self, i: int) -> torch.Tensor:
        """(L,) int64 of one sentence"""
        return torch.from_numpy(self._labels[self._ends[i] - self.label_lens[i] : self._ends[i]].astype(np.int64))

    def __getitem__(self, item: tuple[int, list[int]]) -> TextBatch:
        _, indices = item
        lens = torch.from_numpy(self.label_lens[indices])
        return TextBatch(
            labels=pad_sequence([self.labels(i) for i in indices], batch_first=True),
            label_lens=lens,
            n_labels=int(lens.sum()) + len(indices),
            ids=tuple(self.ids[i] for i in indices if self.ids),
            texts=tuple(self.texts[i] for i in indices if self.texts),
        )


def _unlabelled(where: str, strange: list[str]) -> str:
    shown = ", ".join(map(repr, strange[:10]))
    return (
        f"{where}: {shown} have no label; normalise the text (data/normalizer=...), choose another tokenizer, or leave "
        "such lines out with text.unknown=skip"
    )
