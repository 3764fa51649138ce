"""config.yaml of runs, read once for each content."""

from pathlib import Path
from typing import Any, NamedTuple

from asr_lab.dashboard.answers import Kept
from asr_lab.dashboard.places import Places
from asr_lab.files import parse_yaml
from asr_lab.report.records import as_object, as_text
from asr_lab.run import flatten

FILE = "config.yaml"
MOST_BYTES = 200_000  # a run's has a few thousand


class Config(NamedTuple):
    """A frozen configuration."""

    values: dict[str, str]  # dotted keys
    data: dict[str, Any]  # the group of that name, as it is
    damage: str  # what is wrong with the file, "" where nothing is


class Configs:
    """Those of all runs."""

    def __init__(self, places: Places):
        self.places = places
        self._found: Kept[Config] = Kept(256)

    def read(self, run: Path) -> Config:
        """Never raises."""
        stamp = self.places.stamp(run / FILE)
        if stamp is None:
            return Config({}, {}, f"{FILE}: missing")
        if stamp.size > MOST_BYTES:
            return Config({}, {}, f"{FILE}: {stamp.size} bytes, which no run writes; not read")
        return self._found.get(run, stamp, lambda: _read(run / FILE))


def _read(path: Path) -> Config:
    import yaml

    try:
        config = parse_yaml(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            return Config({}, {}, f"{FILE}: not a configuration")
        values = {k: as_text(v) for k, v in flatten(config).items()}
        return Config(values, dict(as_object(config.get("data"))), "")
    except (OSError, ValueError, RecursionError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()).replace(str(path), FILE)
        return Config({}, {}, f"{FILE}: cannot be read ({reason[:200]})")
