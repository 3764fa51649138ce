"""The plan of a sweep: the cells of an experiment's grid, each with its name, its choices and its fingerprint.

`make_plan` reads the grid and the command line and composes; `Plan.save` writes sweep.json, the truth about an
experiment from then on: what is done, found and reported is looked up by it.
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from asr_lab.errors import RunError
from asr_lab.files import write_json
from asr_lab.run import Run, now, unflatten
from asr_lab.sweep import algebra, values
from asr_lab.sweep.algebra import Cell
from asr_lab.sweep.cell import cell_name, factors_of, key_of, resolved
from asr_lab.sweep.planning import Configs, compose_with, composer, overrides

FILE = "sweep.json"


@dataclass(frozen=True)
class Planned:
    """One cell of a plan."""

    name: str  # of its folder
    fingerprint: str
    factors: dict[str, Any]
    overrides: list[str]  # of the grid's axes and of the command line
    cell: Cell  # its values on the axes


@dataclass
class Plan:
    """All cells of one launch, each once."""

    folder: Path  # outputs/<experiment>
    experiment: str
    question: str
    cells: list[Planned]
    axes: dict[str, list[Any]]  # the values of each, as they are in the factors
    merged: int  # cells that were the same as another
    excluded: list[tuple[Cell, str]]  # and the condition that left each out
    configs: Configs

    def look(self, key: str) -> Any:
        """A value that all cells share"""
        return self.configs.looker(self.cells[0].cell)(key)

    def config(self, cell: Planned) -> dict[str, Any]:
        """The resolved configuration of a cell"""
        return unflatten(self.configs.flat(cell.cell))

    def run(self, cell: Planned) -> Run:
        return Run(self.folder / cell.name, self.config(cell), cell.factors)

    def save(self) -> Path:
        """Writes sweep.json.

        Cells of an earlier launch stay in the plan, except where the same factors now mean another fingerprint.
        """
        old = read_plan(self.folder) or {}
        cells = [{"name": c.name, "fingerprint": c.fingerprint, "factors": c.factors} for c in self.cells]
        ours = {_key(c["factors"]) for c in cells} | {c["fingerprint"] for c in cells}
        earlier = [c for c in with_common(old) if not {_key(c["factors"]), c["fingerprint"]} & ours]
        axes = {axis: list(found) for axis, found in self.axes.items()}
        for axis, found in old.get("axes", {}).items() if earlier else ():
            axes[axis] = axes.get(axis, []) + [v for v in found if v not in axes.get(axis, [])]
        cells = earlier + cells
        common = dict(cells[0]["factors"])
        for cell in cells:
            common = {k: v for k, v in common.items() if k in cell["factors"] and cell["factors"][k] == v}
        for cell in cells:
            cell["factors"] = {k: v for k, v in cell["factors"].items() if k not in common}
        plan = {
            "experiment": self.experiment,
            "question": self.question,
            "command": command(),
            "axes": {axis: found for axis, found in axes.items() if len(found) > 1 or axis == "seed"},
            "common": common,  # factors that all cells share
            "cells": cells,
            "time": now(),
        }
        return write_json(self.folder / FILE, plan)


def make_plan(loader: Any, master: DictConfig, arguments: Sequence[str], cells: list[Cell] | None = None) -> Plan:
    """`cells`, or the cells of an experiment's `grid`, with the command line's overrides.

    An override of several values is an axis, or replaces the axis of that name; one of a single value holds for all
    cells. `loader` and `master` are Hydra's: its config loader and the experiment composed without overrides.

    Raises:
        ConfigError: something is wrong with the grid; Hydra's own errors for an unknown key or choice.
    """
    grid, fixed = read_arguments(loader, master, arguments)
    excluded: list[tuple[Cell, str]] = []
    if cells is None:
        cells = algebra.cells(grid, excluded) if grid else [{}]

    def load(overrides: list[str]) -> DictConfig:
        return loader.load_sweep_config(master, [*overrides, *fixed])

    groups = [axis for axis in {axis for cell in cells for axis in cell} if loader.get_group_options(axis)]
    configs = composer(compose_with(load, resolved), cells, groups)
    folder = Path(configs.folder).absolute()
    old = _names(folder)
    found: dict[str, Planned] = {}
    for cell, mark in zip(cells, configs.fingerprints(), strict=True):
        if mark not in found:
            said = [*overrides(cell), *fixed]
            chosen = factors_of(configs.choices(cell), said, configs.tops, configs.looker(cell))
            found[mark] = Planned(old.get(mark[:8]) or cell_name(said, mark), mark, chosen, said, cell)
    planned = [*found.values()]
    merged = len(cells) - len(planned) + sum(reason == algebra.SAME for _, reason in excluded)
    excluded = [(cell, reason) for cell, reason in excluded if reason != algebra.SAME]
    experiment, question = (str(configs.looker(cells[0])(key) or "") for key in ("experiment", "question"))
    return Plan(folder, experiment, question, planned, _axes(planned), merged, excluded, configs)


def read_plan(folder: Path) -> dict[str, Any] | None:
    """sweep.json of an experiment, None if there is none.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return json.loads((Path(folder) / FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}/{FILE}: cannot be read ({error}); move it away, then run the sweep again") from None


def with_common(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells of sweep.json, with the factors that all of them share"""
    common = plan.get("common", {})
    return [cell | {"factors": common | cell["factors"]} for cell in plan.get("cells", [])]


def command() -> str:
    """The command line that this process was started with, as a person would type it."""
    words = sys.orig_argv[1:]
    while words and (words[0] in ("-m", "asr_lab") or words[0].endswith(("/asr-lab", "__main__.py"))):
        words = words[1:]
    return shlex.join(["asr-lab", *words])


def read_arguments(loader: Any, master: DictConfig, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(the experiment's grid with the command line's axes, overrides that hold for all cells)"""
    grid: Any = OmegaConf.to_container(master.grid) if "grid" in master else {}
    fixed: dict[str, str] = {}
    for argument in OverridesParser.create(config_loader=loader).parse_overrides(list(arguments)):
        key = argument.get_key_element()
        if argument.is_sweep_override() or not key.startswith("~"):
            wanted = values.read(argument)
            grid_with, there = algebra.overridden(grid, key, wanted)
            if there or argument.is_sweep_override():
                grid = grid_with if there else grid | {key: wanted}
                fixed.pop(key, None)  # the last one counts, as ever with Hydra
                continue
        fixed[key] = str(argument.input_line)
    return grid, [*fixed.values()]


def _names(folder: Path) -> dict[str, str]:
    """Folders of cells by the beginning of their fingerprint, with which a name ends: an old cell keeps its folder."""
    try:
        return {name.rpartition("-")[2]: name for name in sorted(os.listdir(folder)) if "-" in name}
    except FileNotFoundError:
        return {}


def _axes(cells: list[Planned]) -> dict[str, list[Any]]:
    axes: dict[str, list[Any]] = {}
    for cell in cells:
        for key in map(key_of, cell.cell):
            if key in cell.factors and cell.factors[key] not in axes.setdefault(key, []):
                axes[key].append(cell.factors[key])
    return axes


def _key(factors: dict[str, Any]) -> str:
    return repr(sorted(factors.items(), key=lambda item: item[0]))
