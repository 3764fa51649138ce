"""What may change on a finished run: how it is decoded. Hydra's override syntax over the groups `decoding` and `lm`."""

import itertools
import re
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from asr_lab.build import check
from asr_lab.errors import ConfigError, nearest
from asr_lab.paths import conf_dir
from asr_lab.run import Run, flatten

GROUPS = ("decoding", "lm")


def parsed(overrides: list[str]) -> list[Override]:
    """
    Raises:
        ConfigError: one of them is about something else than decoding, or cannot be listed.
    """
    found = OverridesParser.create().parse_overrides(overrides)
    for text, o in zip(overrides, found, strict=True):
        if re.split(r"[./@]", o.key_or_group)[0] not in GROUPS:
            raise ConfigError(
                f"{o.key_or_group}: only {' and '.join(GROUPS)} can change on a finished run; `asr-lab train {text}` "
                "trains another"
            )
        if o.type is not OverrideType.CHANGE:
            raise ConfigError(f"{text}: a value can be changed but not added or removed; give KEY=VALUE")
        if o.value_type in (ValueType.GLOB_CHOICE_SWEEP, ValueType.INTERVAL_SWEEP):
            raise ConfigError(f"{text}: is no list of values; write {o.key_or_group}=1,2 or choice(...) or range(...)")
    return found


def is_sweep(overrides: list[str]) -> bool:
    return any(o.is_sweep_override() for o in parsed(overrides))


def combinations(overrides: list[str]) -> list[list[str]]:
    """Every combination of the values listed, as overrides of one value each; the last key varies fastest."""
    axes = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()] if o.is_sweep_override() else [text]
        for text, o in zip(overrides, parsed(overrides), strict=True)
    ]
    return [list(cell) for cell in itertools.product(*axes)]


def overridden(run: Run, overrides: list[str]) -> dict[str, Any]:
    """The run's frozen configuration with other values, or other choices, of decoding and lm.

    Choices first, then values, whatever their order. A group that is chosen anew has the values of its YAML.

    Raises:
        ConfigError: no such choice, key or value.
    """
    found = parsed(overrides)
    cfg = OmegaConf.create(run.config)
    for group in GROUPS:
        choices = [text for text, o in zip(overrides, found, strict=True) if _is_choice_of(o, group)]
        if choices:
            cfg[group] = _composed(run, group, choices)
    for o in (o for o in found if "." in o.key_or_group):
        key, group = o.key_or_group, o.key_or_group.partition(".")[0]
        known = _keys(cfg, group)
        if not any(k == key or k.startswith(f"{key}.") for k in known):
            hint = nearest(key, [k for k in known if not k.rpartition(".")[2].startswith("_")])
            raise ConfigError(
                f"{key}: no such key{hint}"
                if hint
                else f"{key}: what this run has as {group} has no values; choose another too ({group}=...)"
            )
        OmegaConf.update(cfg, key, o.value())
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} is missing; give it as {error.full_key}=VALUE") from None
    assert isinstance(config, dict)
    check(config)  # pyright: ignore[reportArgumentType]
    return config  # pyright: ignore[reportReturnType]


def _is_choice_of(o: Override, group: str) -> bool:
    return "." not in o.key_or_group and re.split("[/@]", o.key_or_group)[0] == group


def _keys(cfg: Any, group: str) -> list[str]:
    node = OmegaConf.to_container(cfg[group], resolve=False) if group in cfg else {}
    assert isinstance(node, dict)
    return list(flatten({group: node}))


def _composed(run: Run, group: str, choices: list[str]) -> Any:
    """One group as its YAMLs say, the run's own choices standing where none is given; interpolations are kept."""
    from asr_lab import schema
    from asr_lab.sweep.cell import register_resolvers

    schema.register()
    register_resolvers()
    given = {c.partition("=")[0] for c in choices}
    own = []
    if group not in given:  # a choice inside it, of what the run has
        own = [f"{k}={v}" for k, v in run.factors.items() if k.partition("/")[0] == group and k not in given]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", overrides=[*own, *choices])
    return OmegaConf.to_container(cfg[group], resolve=False)
