"""Configuration in, objects out: the only place that instantiates, and the one that wires sizes together."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, zeros
from torch.nn import Parameter

from asr_lab.data.speech import SpeechData
from asr_lab.errors import ConfigError
from asr_lab.frontend import Frontend
from asr_lab.instantiate import call, check, make
from asr_lab.optim.schedules import Schedule
from asr_lab.task import SpeechTask
from asr_lab.text.tokenizer import Tokenizer


class Parts(NamedTuple):
    """Everything that a run is made of, except the trainer."""

    data: SpeechData
    task: SpeechTask


def build(config: dict[str, Any]) -> Parts:
    """The data and the task of a resolved configuration, sizes wired: feature width -> encoder -> vocabulary.

    Raises:
        ConfigError: a key or value does not fit the part it is given to.
        DataError: the corpus is missing or wrong.
    """
    check(config)
    # What is quick to build comes first: a wrong threshold should not wait for a corpus.
    outline = Outline.of(config)
    data = build_data(config, outline.frontend)
    task = _task(config, outline, data.tokenizer, (u.text for u in data.corpus.splits["train"]))

    def output_lengths(lens: Tensor) -> Tensor:
        return task.encoder.output_lengths(task.head.output_lengths(lens))

    data.check_frames(output_lengths, task.decoder.min_frames)
    if data.open_cache(make(config, "cache"), identity(config)):
        data.check_frames(output_lengths, task.decoder.min_frames)
    task.belongings["moments"] = data.moments()
    return Parts(data, task)


def build_task(config: dict[str, Any], tokenizer: Tokenizer, train_texts: Iterable[str]) -> tuple[Frontend, SpeechTask]:
    """The front-end and the task without a corpus: what using a trained run takes. `train_texts` is read only by a
    search or language model that is made from the training transcripts.

    Raises:
        ConfigError: as `build`.
    """
    check(config)
    outline = Outline.of(config)
    return outline.frontend, _task(config, outline, tokenizer, train_texts)


class Outline(NamedTuple):
    """What needs no corpus."""

    frontend: Frontend
    head: Any
    encoder: Any
    optimizer: Callable
    schedule: Schedule
    clipper: Any

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Outline":
        frontend = make(config, "frontend")
        optimizer, schedule, clipper = make_optimisation(config)
        head = call(config, "frontend", frontend.head, in_dim=frontend.out_dim)
        encoder = call(config, "encoder", in_dim=head.out_dim)
        return cls(frontend, head, encoder, optimizer, schedule, clipper)


class Model(NamedTuple):
    """What is trained."""

    head: Any
    encoder: Any
    decoder: Any


def build_model(config: dict[str, Any], n_labels: int) -> Model:
    """A configuration's model with fresh weights, and nothing around it.

    Raises:
        ConfigError: as `build`.
    """
    check(config)
    outline = Outline.of(config)
    return Model(outline.head, outline.encoder, _decoder(config, outline, n_labels))


def _decoder(config: dict[str, Any], outline: Outline, n_labels: int) -> Any:
    decoder = call(config, "decoder", in_dim=outline.encoder.out_dim, n_labels=n_labels)
    if hasattr(decoder, "attach"):
        decoder.attach(outline.encoder)
    return decoder


def _task(config: dict[str, Any], outline: Outline, tokenizer: Tokenizer, train_texts: Iterable[str]) -> SpeechTask:
    decoder = _decoder(config, outline, len(tokenizer))
    search, lm = build_search(config, decoder, tokenizer, train_texts)
    return SpeechTask(
        head=outline.head,
        encoder=outline.encoder,
        decoder=decoder,
        search=search,
        lm=lm,
        distill=make(config, "distill"),
        tokenizer=tokenizer,
        optimizer=outline.optimizer,
        weight_decay=config["optimizer"].get("weight_decay", 0.0),
        schedule=outline.schedule,
        clipper=outline.clipper,
        max_nonfinite_steps=config["max_nonfinite_steps"],
        score=config["data"].get("score", "wer"),
    )


def build_search(config: dict[str, Any], decoder: Any, tokenizer: Tokenizer, train_texts: Iterable[str]) -> tuple:
    """(search, language model) of a configuration around a decoder.

    Raises:
        ConfigError: they do not fit each other.
    """
    texts = Texts(train_texts)
    lm = make(config, "lm")
    if callable(lm):
        lm = call(config, "lm", lm, tokenizer=tokenizer, train_texts=texts)
    given = {"decoder": decoder, "lm": lm, "tokenizer": tokenizer, "train_texts": texts}
    search = make(config, "decoding")
    wanted = inspect.signature(search).parameters
    if lm.in_search and "lm" not in wanted:
        raise ConfigError("conf/decoding: this search takes no language model; set lm.use=rescoring, or lm=none")
    return call(config, "decoding", search, **{k: v for k, v in given.items() if k in wanted}), lm


class Texts:
    """Transcripts that can be read again and again, and are only read if anyone asks."""

    def __init__(self, texts: Iterable[str]):
        self._texts: Iterable[str] = texts

    def __iter__(self) -> Iterator[str]:
        if not isinstance(self._texts, list):
            self._texts = list(self._texts)
        return iter(self._texts)


def build_data(config: dict[str, Any], frontend: Frontend) -> SpeechData:
    """The corpus of a configuration with its tokenizer, checked, behind the given front-end."""
    preprocess, augment, batching = (make(config, group) for group in ("preprocess", "augment", "batching"))
    if augment.masks_bands and not frontend.has_frequency_axis:
        raise ConfigError(
            "conf/augment: masks frequency bands, which this front-end has not; choose augment=speed, or set "
            "augment.specaugment.n_freq_masks=0 (augment.n_freq_masks=0 with augment=specaugment)"
        )
    corpus = make(config, "data")
    tokenizer = call(config, "tokenizer", train_texts=[u.text for u in corpus.splits["train"]])
    return SpeechData(
        corpus=corpus,
        preprocess=preprocess,
        frontend=frontend,
        augment=augment,
        tokenizer=tokenizer,
        batching=batching,
        seed=config["seed"],
        n_workers=config["runtime"]["n_workers"],
    )


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """What features depend on, by group: no normalisation and no head, which work on what was read from the cache."""
    audio = {key: config["data"][key] for key in ("sample_rate", "resample", "channel", "min_duration_s")}
    frontend = {key: value for key, value in config["frontend"].items() if key not in ("cmvn", "head")}
    return {"data": audio, "preprocess": config["preprocess"], "frontend": frontend}


def make_optimisation(config: dict[str, Any]) -> tuple[Callable, Schedule, Any]:
    """(optimizer, schedule, clipper): a partial and two objects.

    Raises:
        ConfigError: a value is out of its range. Optimizers are tried here, and made where training starts.
    """
    optimizer, schedule, clipper = (make(config, group) for group in ("optimizer", "schedule", "clipping"))
    call(
        config, "optimizer", optimizer, params=[{"params": [Parameter(zeros(2, 2))]}, {"params": [Parameter(zeros(2))]}]
    )
    return optimizer, schedule, clipper


__all__ = [
    "Parts",
    "build",
    "build_data",
    "build_search",
    "build_task",
    "call",
    "check",
    "identity",
    "make",
    "make_optimisation",
]
