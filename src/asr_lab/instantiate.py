"""A group of the configuration becomes an object, its keys and values held against what they are given to."""

import importlib
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from asr_lab.errors import ConfigError, nearest

# What the builders themselves pass to the partial of each group.
GIVEN = {
    "tokenizer": {"train_texts"},
    "encoder": {"in_dim"},
    "decoder": {"in_dim", "n_labels"},
    "decoding": {"decoder", "lm", "tokenizer", "train_texts"},
    "lm": {"tokenizer", "train_texts"},
    "text": {"corpus", "tokenizer", "seed", "n_workers"},
    "model": {"n_labels"},
    "landscape": {"seed"},
    "optimizer": {"params"},
    "batching": {"lengths", "shards", "shuffle", "seed", "rank", "world_size"},
    "trainer": {"callbacks", "logger", "default_root_dir", "enable_progress_bar"},
    "logger": {"run"},
    "gradients": {"folder"},
    "through_time": {"folder"},
    "detectors": {"folder", "tell"},
}


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
