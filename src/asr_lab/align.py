"""Forced alignment: when each word of a known text is said, by the model of a trained run."""

import importlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import instantiate
from torch import Tensor

from asr_lab.build import Parts
from asr_lab.data import check
from asr_lab.data.alignments import AlignedWord, Alignment, Timed
from asr_lab.data.cache import Live
from asr_lab.data.manifest import Problem, Utterance, read_manifest
from asr_lab.data.speech import Utterances
from asr_lab.decoders import Span
from asr_lab.errors import ConfigError, DataError
from asr_lab.evaluate import check_splits, encoded, opened
from asr_lab.paths import conf_dir
from asr_lab.run import Run
from asr_lab.text.timing import words_of
from asr_lab.timeline import Timeline

MANIFEST = "(manifest)"  # the split that a manifest becomes


def align(run: Run, split: str, manifest: Path | None, checkpoint: str = "best") -> Iterator[Alignment | Problem]:
    """Each utterance of a split, or of a manifest, in the order of their batches; or why there is no alignment of it.

    Raises:
        RunError: no such checkpoint or split.
        ConfigError: the run's decoder cannot align, or its pre-processing cuts audio away.
        DataError: the manifest cannot be read.
    """
    check_able(run)
    parts, _ = opened(run, checkpoint)
    if manifest is not None:
        split = MANIFEST
        yield from _add(parts, run, manifest)
        if not parts.data.corpus.splits[split]:
            return
    check_splits(run, parts, [split])
    frontend, corpus = parts.data.pipeline.frontend, parts.data.corpus
    timeline = Timeline.of(frontend, parts.task.head, parts.task.encoder, corpus.sample_rate)
    utterances = {u.id: u for u in corpus.splits[split]}
    for u, spans, problem in _spans(parts, split, utterances):
        if problem:
            yield problem
        else:
            yield alignment(u, spans, parts.data.tokenizer, timeline, corpus)


def check_able(run: Run) -> None:
    """
    Raises:
        ConfigError: this run cannot align.
    """
    node = run.config["decoder"]
    if not hasattr(_class(node["_target_"]), "align"):
        able = ", ".join(name for name, target in sorted(_decoders().items()) if hasattr(_class(target), "align"))
        raise ConfigError(f"{run.folder}: its decoder does not align; these do: {able or 'none'}")
    if not getattr(instantiate(run.config["preprocess"], _convert_="all"), "keeps_length", True):
        raise ConfigError(
            f"{run.folder}: its pre-processing cuts audio away, so times would be of what is left; train a run with "
            "preprocess=none"
        )


def _class(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _decoders() -> dict[str, str]:
    """{choice: class} of conf/decoder."""
    files = {p.stem: yaml.safe_load(p.read_text()) for p in (conf_dir() / "decoder").glob("[!_]*.yaml")}
    return {name: node["_target_"] for name, node in files.items() if "_target_" in node}


def _add(parts: Parts, run: Run, manifest: Path) -> Iterator[Problem]:
    """Make a split of a manifest's utterances; those that cannot be aligned are told instead."""
    data = parts.data
    normalize = instantiate(run.config["data"]["normalizer"], _convert_="all")
    utterances = [u._replace(text=normalize(u.text)) for u in read_manifest(manifest)]
    problems = list(check.text_problems(utterances, lambda text: text, data.tokenizer.unknown))
    rate = None if data.corpus.resample else data.corpus.sample_rate
    problems += check.audio_problems(utterances, rate, decode=False)
    bad = {p.where for p in problems}
    data.corpus.splits[MANIFEST] = [u for u in utterances if u.id not in bad]
    dataset = Utterances(data.pipeline, Live(data.pipeline), MANIFEST, None, data.tokenizer, data.seed)
    dataset.train = data.datasets["train"]
    data.datasets[MANIFEST] = dataset
    yield from problems


@torch.inference_mode()
def _spans(
    parts: Parts, split: str, utterances: dict[str, Utterance]
) -> Iterator[tuple[Utterance, list[Span], Problem | None]]:
    decoder: Any = parts.task.decoder
    for batch, hidden, lens in encoded(parts, split):
        needed = decoder.min_frames(batch.labels, batch.label_lens)
        enough = torch.nonzero(lens >= needed.to(lens.device))[:, 0]
        for i in torch.nonzero(lens < needed.to(lens.device))[:, 0].tolist():
            u = utterances[batch.ids[i]]
            yield u, [], check.frame_problem(u, int(lens[i]), int(needed[i]))
        if not len(enough):
            continue
        given: tuple[Tensor, ...] = (hidden, lens, batch.labels, batch.label_lens)
        found = decoder.align(*(t[enough.to(t.device)] for t in given))
        for i, spans in zip(enough.tolist(), found, strict=True):
            yield utterances[batch.ids[i]], spans, None


def alignment(u: Utterance, spans: Sequence[Span], tokenizer: Any, timeline: Timeline, corpus: Any) -> Alignment:
    """Spans of encoder frames as words in seconds, within the utterance. Words are written as the text has them.

    A corpus that is scored by characters has each label as a word.
    """
    # A short utterance was padded on both sides.
    shift = max(0.0, corpus.min_duration_s - u.duration) / 2

    def timed(text: str, some: Sequence[Span]) -> Timed:
        start, end = (timeline.seconds(frame) - shift for frame in (some[0].start, some[-1].end))
        n_frames = [max(1, s.end - s.start) for s in some]
        mean = sum(s.score * n for s, n in zip(some, n_frames, strict=True)) / sum(n_frames)
        return Timed(text, min(max(start, 0.0), u.duration), min(max(end, 0.0), u.duration), math.exp(min(mean, 0.0)))

    labels = [timed(tokenizer.symbols[s.label], [s]) for s in spans]
    if corpus.score == "cer":
        pieces = [(tokenizer.decode([s.label]).strip(), i, i + 1) for i, s in enumerate(spans)]
        pieces = [p for p in pieces if p[0]]
    else:
        found = words_of(tokenizer, [s.label for s in spans], [s.start for s in spans], [s.end for s in spans])
        pieces = [(w.text, w.first, w.last) for w in found]
        texts = u.text.split()
        if len(texts) == len(pieces):  # homophones and unknown words have another spelling than their labels
            pieces = [(text, *piece[1:]) for text, piece in zip(texts, pieces, strict=True)]
    words = [AlignedWord(timed(text, spans[a:b]), labels[a:b]) for text, a, b in pieces]
    channel = 1 + (u.channel or 0)
    return Alignment(u.id, u.duration, channel, words, labels)


def write(folder: Path, name: str, form: str, alignments: list[Alignment]) -> list[Path]:
    """`<name>.ctm`, `<name>.jsonl`, or one `<id>.TextGrid` an utterance (`/` in an id is written %2F), atomically.

    Raises:
        DiskFullError: no space.
    """
    from asr_lab.data.alignments import ctm, json_row, textgrid
    from asr_lab.files import write_jsonl, write_text

    try:
        if form == "ctm":
            return [write_text(folder / f"{name}.ctm", "".join(ctm(alignments)))]
        if form == "json":
            return [write_jsonl(folder / f"{name}.jsonl", map(json_row, alignments))]
        return [
            write_text(folder / f"{a.id.replace('%', '%25').replace('/', '%2F')}.TextGrid", textgrid(a))
            for a in alignments
        ]
    except OSError as error:
        raise DataError(f"--out {folder}: cannot be written ({error.strerror}); choose another folder") from None
