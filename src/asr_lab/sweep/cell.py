"""One point of a grid: a composed Hydra configuration becomes a frozen run."""

import re
from collections.abc import Callable, Container, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from asr_lab.errors import AsrLabError, ConfigError
from asr_lab.run import UNNUMBERED, Run, find_run, fingerprint

SIZES = ("tiny", "small", "medium", "large")
# Not part of a run's identity, what they pick is; but choices that a person made.
SHORTHANDS = ("size", "match", "lm.model.run", "distill.teacher")
UNSAFE = re.compile(r"[^\w=,.+-]")  # in the name of a folder
NO_MATCH = {"by": "none", "target": "none"}


def register_resolvers() -> None:
    """`${cell_name:}`: an output folder, of the overrides that matter and the fingerprint; `${by_size:...}`: a size;
    `${fingerprint_of:RUN,KIND,KEY}`: that of another run, which KEY names."""
    OmegaConf.register_new_resolver("cell_name", _cell_name, replace=True)
    OmegaConf.register_new_resolver("by_size", _by_size, replace=True)
    OmegaConf.register_new_resolver("fingerprint_of", _fingerprint_of, replace=True)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, without Hydra's own, the encoder's sizes matched if `match` asks for it.

    Raises:
        ConfigError: a mandatory value is missing, or nothing can be matched.
    """
    own = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
    config = _plain(own)
    if config.get("match", NO_MATCH) == NO_MATCH:
        return config
    from asr_lab.match import matched

    def encoder_of(sizes: dict[str, int]) -> dict[str, Any]:
        own.encoder.update(sizes)
        return _plain(own.encoder)

    return matched(config, encoder_of)


def factors(hydra: DictConfig, config: dict[str, Any]) -> dict[str, Any]:
    """`factors_of` a composed configuration"""
    return factors_of(hydra.runtime.choices, hydra.overrides.task, config, lambda key: _lookup(config, key))


def factors_of(
    choices: Mapping[Any, Any], overrides: Iterable[Any], tops: Container[str], look: Callable[[str], Any]
) -> dict[str, Any]:
    """What was chosen: the choice of every group, every overridden value that can change a number, and the seed.

    `tops` are the first parts of the configuration's keys; `look` gives the value of a dotted key, None if there is
    none.
    """
    choices = {str(k): v for k, v in choices.items() if str(k).partition("/")[0] in tops}
    chosen: dict[str, Any] = {k: v for k, v in choices.items() if not _unnumbered(k)}
    groups = {k.partition("@")[0] for k in choices}
    for key in map(key_of, overrides):
        if key not in groups and not _unnumbered(key):
            chosen[key] = look(key)
    if look("match.by") not in (None, "none"):
        from asr_lab.match import describe

        chosen["match.found"] = describe(look("encoder"))
    if teacher := look("distill.fingerprint"):
        chosen["distill.teacher"] = teacher
    chosen["seed"] = look("seed")
    return chosen


def frozen(cfg: DictConfig, hydra: DictConfig, folder: Path, n_threads: int | None = None) -> Run:
    """The run of a composed configuration, written to its folder unless it is there already.

    `n_threads` takes the place of `auto`, in a run that is one of many.
    """
    config = resolved(cfg)
    if n_threads is not None:
        config["runtime"]["quiet"] = True
        if config["runtime"]["n_threads"] == "auto":
            config["runtime"]["n_threads"] = n_threads
    run = Run(folder, config, factors(hydra, config))
    run.freeze(rerun=config["runtime"]["rerun"])
    return run


def _by_size(*values: Any, _root_: DictConfig) -> Any:
    """`${by_size:96,144,256,512}`: the value for `size`, from the smallest to the largest."""
    if _root_.size not in SIZES:
        raise ConfigError(f"size: there is no {_root_.size!r}, choose among {', '.join(SIZES)}")
    return values[SIZES.index(_root_.size)]


def _fingerprint_of(name: str, kind: str, key: str) -> str:
    try:
        return find_run(str(name), kind=kind).fingerprint
    except AsrLabError as error:
        raise ConfigError(f"{key}: {error}") from None


def cell_name(overrides: Iterable[Any], mark: str) -> str:
    """Of a cell's folder: the overrides that matter, and the beginning of its fingerprint `mark`."""
    kept = [o.lstrip("+~") for o in map(str, overrides) if not _unnumbered(o.lstrip("+~").partition("=")[0])]
    readable = ",".join(kept)[:120] or "default"
    safe = UNSAFE.sub("_", readable)
    return f"{safe}-{mark[:8]}"


def _cell_name(*, _root_: DictConfig) -> str:
    return cell_name(_root_.hydra.overrides.task, fingerprint(resolved(_root_)))


def key_of(override: Any) -> str:
    """The key or group of `+key@package=value`"""
    return str(override).lstrip("+~").partition("=")[0].partition("@")[0]


@cache
def _unnumbered(key: str) -> bool:
    def is_under(roots: tuple[str, ...]) -> bool:
        return any(key == root or key.startswith(root + ".") for root in roots)

    return is_under(UNNUMBERED) and not is_under(SHORTHANDS)


def _plain(node: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} is missing; give it as {error.full_key}=VALUE") from None
    except OmegaConfBaseException as error:
        cause: BaseException | None = error
        while cause := cause.__cause__ or cause.__context__:
            if isinstance(cause, AsrLabError):  # a resolver's
                raise cause from None
        raise ConfigError(" ".join(str(error).split())) from None
    assert isinstance(plain, dict)
    return plain  # pyright: ignore[reportReturnType]


def _lookup(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
