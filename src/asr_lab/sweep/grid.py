"""The sweeper: an experiment's `grid` is the product of its axes; the plan is written before anything starts."""

import shlex
import sys
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from asr_lab.errors import ConfigError
from asr_lab.files import write_json
from asr_lab.run import fingerprint, now
from asr_lab.sweep.cell import factors, resolved


class GridSweeper(BasicSweeper):
    """Hydra's own product of overrides, with the axes of `grid` as defaults; an override of an axis replaces it."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None and self.hydra_context is not None
        grid = OmegaConf.to_container(self.config.grid) if "grid" in self.config else {}
        assert isinstance(grid, dict)
        self.params = {str(axis): _axis(str(axis), values) for axis, values in grid.items()}
        self.write_plan(arguments)
        return super().sweep(arguments)

    def write_plan(self, arguments: list[str]) -> Path:
        """sweep.json: every cell of the grid with its folder, factors and fingerprint.

        Cells of an earlier launch stay in the plan, except where the same factors now mean another fingerprint.
        """
        assert self.config is not None and self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(self._parse_config() + arguments)
        [batch] = self.split_arguments(overrides, None)
        cells, axes = [], {}
        for job in batch:
            cfg = loader.load_sweep_config(self.config, list(job))
            config = resolved(cfg)
            chosen = factors(cfg.hydra, config)
            name = Path(cfg.hydra.sweep.subdir).name
            cells.append({"name": name, "fingerprint": fingerprint(config), "factors": chosen})
            for override in job:
                axis = override.partition("=")[0].lstrip("+~")
                if axis in chosen and chosen[axis] not in axes.setdefault(axis, []):
                    axes[axis].append(chosen[axis])
        path = Path(self.config.hydra.sweep.dir) / "sweep.json"
        return write_json(path, _plan(self.config, cells, axes, _read(path)))


def _plan(config: DictConfig, cells: list[dict], axes: dict[str, list], old: dict[str, Any]) -> dict[str, Any]:
    ours = {_key(c) for c in cells}
    earlier = [c for c in old.get("cells", []) if _key(c) not in ours]
    for axis, values in old.get("axes", {}).items() if earlier else ():
        axes[axis] = axes.get(axis, []) + [v for v in values if v not in axes.get(axis, [])]
    return {
        "experiment": config.experiment,
        "question": config.question,
        "command": command(),
        "axes": {axis: values for axis, values in axes.items() if len(values) > 1 or axis == "seed"},
        "cells": earlier + cells,
        "time": now(),
    }


def command() -> str:
    """The command line that this process was started with, as a person would type it."""
    words = sys.orig_argv[1:]
    while words and (words[0] in ("-m", "asr_lab") or words[0].endswith(("/asr-lab", "__main__.py"))):
        words = words[1:]
    return shlex.join(["asr-lab", *words])


def _axis(axis: str, values: Any) -> str:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"grid.{axis}: a list of values is wanted, {values!r} came")
    return ",".join(_value(v) for v in values)


def _value(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return "[" + ",".join(_value(v) for v in value) + "]"
    text = str(value)
    plain = all(c.isalnum() or c in "_-./+" for c in text)
    return text if plain or not isinstance(value, str) else "'" + text.replace("'", "\\'") + "'"


def _key(cell: dict[str, Any]) -> str:
    return repr(sorted(cell["factors"].items(), key=lambda item: item[0]))


def _read(path: Path) -> dict[str, Any]:
    import json

    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
