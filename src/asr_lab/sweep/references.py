"""Which keys of a configuration its interpolations name."""

import re
from typing import Any

from omegaconf import Container, DictConfig, ListConfig

_NAMED = re.compile(r"\$\{\s*([.\w]+(?:[.\w\[\]-]*))\s*\}")
_RESOLVER = re.compile(r"\$\{\s*([\w.]+)\s*:")
# What our own resolvers read beside their arguments; anything may hang on another's.
_READS = {"by_size": "size", "fingerprint_of": "", "oc.env": ""}
ANY = "*"


def references(config: DictConfig) -> dict[str, frozenset[str]]:
    """Dotted key -> dotted keys that its interpolation names, `ANY` for a resolver that nobody knows."""
    found: dict[str, frozenset[str]] = {}
    _collect(config, "", found)
    return found


def _collect(node: Container, path: str, found: dict[str, frozenset[str]]) -> None:
    keys: Any = range(len(node)) if isinstance(node, ListConfig) else list(node)  # pyright: ignore[reportArgumentType]
    if node._is_interpolation() or node._is_none() or node._is_missing():
        keys = []
    for key in keys:
        child = node._get_node(key)  # pyright: ignore
        here = f"{path}.{key}".lstrip(".")
        raw = child._value() if child is not None else None  # pyright: ignore
        if isinstance(raw, str) and "${" in raw:
            found[here] = frozenset(_names(raw, path))
        elif isinstance(child, Container):
            _collect(child, here, found)


def _names(text: str, parent: str) -> set[str]:
    named = {_absolute(name, parent) for name in _NAMED.findall(text)}
    for resolver in _RESOLVER.findall(text):
        named.add(_READS.get(resolver, ANY))
    return named - {""}


def _absolute(name: str, parent: str) -> str:
    """`..beam` in `a.b` is `a.beam`: one dot is the node's own parent, each further one a step up"""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    steps = parent.split(".") if parent else []
    return ".".join([*steps[: len(steps) - (dots - 1)], name.lstrip(".")])
