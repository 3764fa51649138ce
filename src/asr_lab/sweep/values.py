"""Values between YAML and the grammar of Hydra's overrides."""

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString, Transformer
from hydra.errors import HydraException

from asr_lab.errors import ConfigError


def write(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return "[" + ",".join(write(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{write(v)}" for k, v in value.items()) + "}"
    text = str(value)
    plain = all(c.isalnum() or c in "_-./+" for c in text) and text.lower() not in ("", "null", "true", "false")
    if not isinstance(value, str) or (plain and not _is_number(text)):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def read(override: Override) -> list[Any]:
    """The values that an override sweeps over (`a=1,2`, `choice()`, `range()`, `glob()`, ...), or its only one."""
    if not override.is_sweep_override():
        return [_plain(override.value())]
    try:
        return [_plain(v) for v in override.sweep_iterator(Transformer.identity)]
    except (HydraException, ValueError, NotImplementedError, TypeError) as error:
        raise ConfigError(f"{override.input_line}: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
