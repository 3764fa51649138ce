"""In what runs differ: keys of their configurations, and which of these belong to the factor that was asked about.

Pure functions over mappings. What is compared need not be a whole configuration: what result.json says of factors or
of the environment is compared in the same way.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from asr_lab.run import flatten, is_numbered

ABSENT = "–"  # the value of a key that a configuration does not have
SEED = "seed"
# A factor whose choice decides values elsewhere: under these, but never which part it is (`_target_`).
_SIZES = {"size": ("encoder", "decoder"), "match": ("encoder",)}
# A group whose choice brings that of another one.
_BRINGS = {"decoder": ("decoding",)}


def differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The dotted keys that can change a number and do not have one value in all, the seed apart.

    Args:
        configs: nested or flat configurations by name.

    Returns:
        For each key, in the order of the first configuration that has it, its values in the order of `configs`;
        `ABSENT` where a configuration has no such key.
    """
    flat = [flatten(dict(config)) for config in configs.values()]
    keys = dict.fromkeys(key for config in flat for key in config)
    found = {}
    for key in keys:
        values = tuple(config.get(key, ABSENT) for config in flat)
        if key != SEED and is_numbered(key) and any(not _same(value, values[0]) for value in values):
            found[key] = values
    return found


def _same(a: Any, b: Any) -> bool:
    """1 and 1.0 are the same number, 1 and True are not the same value."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def belongs(key: str, factor: str) -> bool:
    """Whether a key is the factor's own: `encoder.d_model` is `encoder`'s, and `encoder.subsampling.stride`
    `encoder/subsampling`'s; widths are also `size`'s, and the search (`decoding`) comes with the decoder."""
    root = factor.replace("/", ".")
    if _is_under(key, (root, *_BRINGS.get(root, ()))):
        return True
    return _is_under(key, _SIZES.get(root.partition(".")[0], ())) and not key.endswith("_target_")


def _is_under(key: str, roots: Iterable[str]) -> bool:
    key = key.replace("/", ".")
    return any(key == root or key.startswith(root + ".") for root in roots)


def confounds(keys: Iterable[str], factor: str | None) -> list[str]:
    """The keys among those that differ which are not the factor's; all of them without a factor."""
    return [key for key in keys if factor is None or not belongs(key, factor)]


def guessed_factor(keys: Iterable[str], choices: Iterable[str] = ()) -> str | None:
    """The most specific of `choices` (what was chosen differently: `encoder`, `clipping.threshold`) that all keys
    belong to, or else the group that all of them are in; None where more than one thing differs."""
    keys = list(keys)
    if not keys:
        return None
    groups = dict.fromkeys(key.partition(".")[0] for key in keys)
    whole = keys if len(keys) == 1 else []
    for factor in [*whole, *sorted(choices, key=len, reverse=True), *groups]:
        if not confounds(keys, factor):
            return factor
    return None
