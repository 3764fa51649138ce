"""What is pushed through the network: random features, an utterance of the corpus, or an audio file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from asr_lab.build import make
from asr_lab.data.manifest import Utterance
from asr_lab.data.pipeline import Pipeline
from asr_lab.data.speech import SpeechData
from asr_lab.errors import ConfigError, DataError, nearest
from asr_lab.frontend.cmvn import Moments
from asr_lab.inspect.network import Subject

LONGEST_S = 120.0  # of random features: attention's memory grows with the square
N_COMPARED = 10_000  # ids among which a similar one is looked for


class Features(NamedTuple):
    feats: Tensor  # (1, T, F)
    lens: Tensor  # (1,)
    seconds: float
    source: str  # for the reader


def random_features(subject: Subject, seconds: float) -> Features:
    """Standard normal numbers, as many frames as the front-end would make of `seconds`; drawn with the run's seed."""
    if not 0 < seconds <= LONGEST_S:
        raise ConfigError(f"--seconds {seconds:g}: wanted is a time above 0 and at most {LONGEST_S:g} s")
    n_frames = subject.frontend.n_frames(max(1, round(seconds * subject.config["data"]["sample_rate"])))
    generator = torch.Generator().manual_seed(subject.config["seed"])
    feats = torch.randn(n_frames, subject.frontend.out_dim, generator=generator)
    return _features(feats, seconds, f"random features, {seconds:g} s")


def corpus_features(subject: Subject, split: str | None, utterance: str | None) -> Features:
    """As validation would see an utterance; without an id the first one of the split.

    Raises:
        DataError: no such split or utterance.
    """
    data = subject.data
    assert data is not None
    if split is not None and split not in data.datasets:
        raise DataError(f"--split {split}: the corpus has no such split{nearest(split, data.datasets)}")
    for name in [split] if split else list(data.datasets):
        dataset = data.plain(name)
        for i, u in enumerate(dataset.utterances):
            if utterance is None or u.id == utterance:
                return _features(dataset.features(i, 0), u.duration, f"{name} {u.id}, {u.duration:.2f} s: {u.text!r}")
    raise DataError(f"--utterance {utterance}: {_unknown(str(utterance), split, data)}")


def file_features(subject: Subject, path: Path) -> Features:
    """An audio file behind pre-processing and front-end; it is a speaker of its own to CMVN.

    Raises:
        DataError: no audio, or at another sampling rate than the configuration allows.
    """
    config, cmvn = subject.config["data"], subject.frontend.cmvn
    wanted = {key: config[key] for key in ("sample_rate", "resample", "channel", "min_duration_s")}
    u = Utterance(id=path.name, audio=path, duration=0.0, text="")
    # Of a corpus the pipeline reads these four keys only.
    pipeline = Pipeline(cast(Any, SimpleNamespace(**wanted)), make(subject.config, "preprocess"), subject.frontend)
    audio = pipeline.audio(u)
    feats = subject.frontend(audio)
    moments = Moments.of(feats)
    if cmvn.scope == "global":
        assert subject.data is not None
        moments = subject.data.plain("train").shared_moments()[None]
    seconds = len(audio) / wanted["sample_rate"]
    return _features(cmvn(feats, moments), seconds, f"{path}, {seconds:.2f} s")


def _features(feats: Tensor, seconds: float, source: str) -> Features:
    return Features(feats[None], torch.tensor([len(feats)]), seconds, source)


def _unknown(utterance: str, split: str | None, data: SpeechData) -> str:
    known = [u.id for name, us in data.corpus.splits.items() if split in (None, name) for u in us]
    hint = nearest(utterance, known[:N_COMPARED])
    return f"no such utterance in {split or 'the corpus'}" + (
        hint if hint.startswith("; did") else f"; {data.corpus.manifest} lists all, the first is {known[0]}"
    )
