"""Recognise recordings with a trained run: its configuration and a checkpoint are all that it takes."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from asr_lab.build import build_task, make
from asr_lab.data.batching import pack
from asr_lab.data.pipeline import prepared
from asr_lab.data.segments import Segment
from asr_lab.errors import DataError, RunError
from asr_lab.evaluate import checkpoint_path, read_checkpoint, restore
from asr_lab.evaluate.overrides import overridden
from asr_lab.frontend.cmvn import Moments
from asr_lab.run import Run
from asr_lab.text.subtitles import Passage, TimedWord
from asr_lab.text.timing import words_of
from asr_lab.timeline import Timeline
from asr_lab.types import Hypothesis

# The table of a resampling filter has as many rows as the rates have steps in common: 44.1 to 16 kHz takes 441.
MAX_RATIO = 4000
WAITING = 4  # so many batches are collected before the first is recognised: alike lengths are then found together


class Source(Protocol):
    """asr_lab.data.segments.Recording or Pcm."""

    @property
    def name(self) -> str: ...

    @property
    def is_live(self) -> bool:
        """Each segment is wanted at once, and can be had only once."""
        ...

    def segments(self) -> Iterator[Segment]: ...


class Job(NamedTuple):
    """A segment ready for the encoder."""

    start: float  # seconds of the recording
    end: float
    padding: float  # seconds of silence that were put before it
    feats: Tensor  # (T, F) normalised


class Transcriber:
    """Hypotheses of recordings, by a run's checkpoint and its own way of decoding, or another.

    Features are normalised as in training: `utterance` by the segment, `global` by the training split's moments, which
    are in the checkpoint, `speaker` by all segments of the file, which counts as one speaker. Of a live stream these
    are the segments so far.
    """

    def __init__(self, run: Run, checkpoint: str, overrides: list[str], batch_s: float):
        """
        Args:
            overrides: Hydra overrides of decoding and lm.
            batch_s: padded seconds of audio in a batch at the most.

        Raises:
            RunError: no such checkpoint, or one that does not fit.
            ConfigError: an override that does not fit.
        """
        path = checkpoint_path(run, checkpoint)
        self.config = overridden(run, overrides) if overrides else run.config
        saved = read_checkpoint(path)
        belongings = saved["belongings"]
        self.frontend, self.task = build_task(self.config, belongings["tokenizer"], self._train_texts())
        restore(self.task, saved, path)
        self.preprocess = make(self.config, "preprocess")
        self.rate: int = self.config["data"]["sample_rate"]
        self.shortest = int(self.config["data"]["min_duration_s"] * self.rate)
        self.batch_s, self.score_by = batch_s, run.score
        self.moments: Moments | None = belongings.get("moments")
        if self.frontend.cmvn.scope == "global" and self.moments is None:
            raise RunError(f"{path}: has no moments of the training split for frontend/cmvn=global; train it again")

    def _train_texts(self) -> Iterator[str]:
        """Read only by a search or a language model that is made of them; the corpus must be there then."""
        for u in make(self.config, "data").splits["train"]:
            yield u.text

    @torch.inference_mode()
    def __call__(self, sources: Iterable[Source]) -> Iterator[tuple[Source, Passage | DataError | None]]:
        """The passages of each source in order, then None, or what is wrong with it; one source after the other."""
        waiting: list[tuple[Source, Job | DataError | None]] = []
        seconds = 0.0
        for source in sources:
            for item in self._jobs(source):
                waiting.append((source, item))
                seconds += item.end - item.start if isinstance(item, Job) else 0.0
                if source.is_live or seconds >= WAITING * self.batch_s:
                    yield from self._done(waiting)
                    waiting, seconds = [], 0.0
        yield from self._done(waiting)

    def _jobs(self, source: Source) -> Iterator[Job | DataError | None]:
        try:
            yield from self._prepared(source)
        except DataError as error:
            yield error
        else:
            yield None

    def _prepared(self, source: Source) -> Iterator[Job]:
        cmvn, shared = self.frontend.cmvn, None
        if cmvn.scope == "speaker" and not source.is_live:
            for segment in source.segments():
                own = Moments.of(self._features(segment, source.name))
                shared = own if shared is None else shared.plus(own)
        for segment in source.segments():
            feats = self._features(segment, source.name)
            moments = self.moments if cmvn.scope == "global" else shared or Moments.of(feats)
            if cmvn.scope == "speaker" and source.is_live:
                own = Moments.of(feats)
                moments = shared = own if shared is None else shared.plus(own)
            assert moments is not None
            missing = self.shortest - len(segment.samples) * self.rate / segment.sample_rate
            padding = max(0.0, missing) / 2 / self.rate
            yield Job(segment.start, segment.end, padding, cmvn(feats, moments))

    def _features(self, segment: Segment, name: str) -> Tensor:
        """(T, F) without normalisation"""
        samples = torch.from_numpy(segment.samples)
        if segment.sample_rate != self.rate:
            check_rate(segment.sample_rate, self.rate, name)
            samples = resample(samples, segment.sample_rate, self.rate)
        return self.frontend(prepared(samples, self.shortest, self.preprocess, name))

    def _done(self, waiting: list) -> Iterator[tuple[Source, Passage | DataError | None]]:
        """What was waiting, in its order, jobs recognised in batches of similar length."""
        jobs = [item for _, item in waiting if isinstance(item, Job)]
        lens = torch.tensor([len(job.feats) for job in jobs])
        seconds = torch.tensor([job.end - job.start for job in jobs]).numpy()
        found: dict[int, Hypothesis] = {}
        for batch in pack(lens.argsort(stable=True).tolist(), seconds, self.batch_s) if jobs else []:
            found |= zip(batch, self._recognised([jobs[i].feats for i in batch]), strict=True)
        ready = (self.passage(job, found[i]) for i, job in enumerate(jobs))
        for source, item in waiting:
            yield source, next(ready) if isinstance(item, Job) else item

    def _recognised(self, feats: list[Tensor]) -> list[Hypothesis]:
        lens = torch.tensor([len(f) for f in feats])
        n_frames = self.task.encoder.output_lengths(self.task.head.output_lengths(lens))
        enough = torch.nonzero(n_frames > 0)[:, 0].tolist()  # a click may be shorter than one encoder frame
        found = [Hypothesis([], 0.0, [])] * len(feats)
        if enough:
            padded = pad_sequence([feats[i] for i in enough], batch_first=True)
            hidden, hidden_lens = self.task.encoder(*self.task.head(padded, lens[enough]))
            for i, best in zip(enough, self.task.decode(hidden, hidden_lens), strict=True):
                found[i] = best[0]
        return found

    @cached_property
    def timeline(self) -> Timeline:
        return Timeline.of(self.frontend, self.task.head, self.task.encoder, self.rate)

    def passage(self, job: Job, hypothesis: Hypothesis) -> Passage:
        """Text with times in the recording; no word lies outside its segment."""
        tokenizer, text = self.task.tokenizer, self.task.text(hypothesis)
        joint = "" if self.score_by == "cer" and " " not in text else " "
        words = None
        if hypothesis.frames is not None and getattr(self.preprocess, "keeps_length", True):
            labels, frames = hypothesis.labels, hypothesis.frames
            if joint:
                places = [(w.text, w.start, w.end) for w in words_of(tokenizer, labels, frames)]
            else:
                pieces = [(tokenizer.decode([x]).strip(), f) for x, f in zip(labels, frames, strict=True)]
                places = [(piece, f, f + 1) for piece, f in pieces if piece]

            def seconds(frame: int) -> float:
                return min(max(job.start + self.timeline.seconds(frame) - job.padding, job.start), job.end)

            words = [TimedWord(word, seconds(a), seconds(b)) for word, a, b in places]
        return Passage(job.start, job.end, text, words, hypothesis.score, joint)


def check_rate(rate: int, wanted: int, name: str) -> None:
    """
    Raises:
        DataError: the filter between these rates would not fit into memory.
    """
    common = int(torch.gcd(torch.tensor(rate), torch.tensor(wanted)))
    if max(rate, wanted) // common > MAX_RATIO:
        raise DataError(f"odd sampling rate: {name} has {rate} Hz, which is hard to bring to {wanted}; convert it")
