"""Configuration in, objects out: the only place that instantiates, and the one that wires sizes together."""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor

from asr_lab.data.speech import SpeechData
from asr_lab.errors import ConfigError, nearest
from asr_lab.frontend import Frontend
from asr_lab.task import SpeechTask
from asr_lab.text.tokenizer import Tokenizer

# What build.py itself passes to the partial of each group.
GIVEN = {
    "tokenizer": {"train_texts"},
    "encoder": {"in_dim"},
    "decoder": {"in_dim", "n_labels"},
    "decoding": {"decoder", "lm", "tokenizer", "train_texts"},
    "lm": {"tokenizer", "train_texts"},
    "text": {"corpus", "tokenizer", "seed", "n_workers"},
    "model": {"n_labels"},
    "optimizer": {"params"},
    "schedule": {"total_steps", "steps_per_epoch"},
    "batching": {"lengths", "shards", "shuffle", "seed", "rank", "world_size"},
    "trainer": {"callbacks", "logger", "default_root_dir", "enable_progress_bar"},
    "logger": {"run"},
    "gradients": {"folder"},
    "detectors": {"folder", "tell"},
}


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
    schedule: Callable
    clipper: Any

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Outline":
        frontend = make(config, "frontend")
        optimizer, schedule, clipper = (make(config, group) for group in ("optimizer", "schedule", "clipping"))
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


def make(config: dict[str, Any], group: str) -> Any:
    """The object or partial of one group."""
    if group not in config:
        raise ConfigError(f"conf/{group}: the configuration has no such group; another version of asr_lab froze it")
    try:
        return instantiate(config[group], _convert_="all")
    except InstantiationException as error:
        raise _for_people(error, group) from error


def call(config: dict[str, Any], group: str, partial: Callable | None = None, /, **given: Any) -> Any:
    """The object of a group whose YAML is (or holds) a partial that wants `given`."""
    try:
        return (partial or make(config, group))(**given)
    except (ValueError, TypeError, RuntimeError, InstantiationException) as error:
        raise _for_people(error, group) from error


def check(config: dict[str, Any]) -> None:
    """Every value of every group is held against the signature it will be given to, before anything is built.

    Raises:
        ConfigError: an unexpected, missing or ill-typed key, with the group and the nearest names.
    """
    for group, node in config.items():
        if isinstance(node, dict) and group not in ("runtime", "match", "grid"):
            _check_node(node, f"conf/{group}", GIVEN.get(group, set()))


def _check_node(node: dict[str, Any], where: str, given: set[str]) -> None:
    if "_target_" not in node:
        raise ConfigError(f"{where}: has no _target_; a choice names the class or function that it builds")
    target = _import(node["_target_"], where)
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # a builtin without a signature
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    keys = {k for k in node if not (k.startswith("_") and k.endswith("_"))}
    name = target.__name__
    for key in sorted(keys - parameters.keys()):
        if not open_ended:
            options = parameters.keys() - given - {"self"}
            raise ConfigError(f"{where}: {name} got an unexpected '{key}'{nearest(key, options)}")
    for p in parameters.values():
        required = p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        if required and p.name not in keys | given and not (node.get("_partial_") and where.count(".")):
            raise ConfigError(f"{where}: {name} needs '{p.name}', which is missing")
        if p.name in keys:
            _check_value(node[p.name], p, where, name)
    for key in keys:
        if isinstance(node[key], dict) and "_target_" in node[key]:
            _check_node(node[key], f"{where}.{key}", set())


def _check_value(value: Any, p: inspect.Parameter, where: str, name: str) -> None:
    """Catch a word where a number belongs and a fraction where a count does; leave what annotations do not say."""
    kinds = set(typing.get_args(p.annotation)) if _is_union(p.annotation) else {p.annotation}
    kinds = {k for k in kinds if getattr(k, "__name__", "") != "Tensor"}  # YAML has none
    wrong = (
        (isinstance(value, str) and kinds <= _NUMBERS)
        or (isinstance(value, float) and kinds <= {int, types.NoneType})
        or (isinstance(value, int | float) and kinds == {str})
        or (value is None and kinds <= {int, float, bool, str})
    )
    if wrong:
        wanted = " or ".join(sorted(k.__name__ for k in kinds - {types.NoneType}))
        raise ConfigError(f"{where}: {name} wants {p.name} as {wanted}, {value!r} came")


def _import(path: str, where: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}: _target_ {path} cannot be imported ({error})") from None


def _for_people(error: BaseException, group: str) -> Exception:
    """The reason inside Hydra's wrapping; a ValueError becomes ours, anything else stays what it is."""
    cause = error
    while isinstance(cause, InstantiationException) and cause.__cause__:
        cause = cause.__cause__
    if isinstance(cause, ConfigError) or type(cause).__module__ == "asr_lab.errors":
        return cause  # pyright: ignore[reportReturnType]
    if isinstance(cause, ValueError | TypeError | AssertionError):
        return ConfigError(f"conf/{group}: {' '.join(str(cause).split())}")
    return cause  # pyright: ignore[reportReturnType]


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union


_NUMBERS = {int, float, bool, types.NoneType}

__all__ = ["Parts", "build", "build_data", "build_search", "build_task", "call", "check", "identity", "make"]
