"""What is compared: runs, or configurations whose runs (seeds, above all) are taken together."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from asr_lab.errors import RunError, nearest
from asr_lab.report.differences import SEED, differences
from asr_lab.report.records import RESULT, Scores, as_object, as_text, hypotheses_of, read_object, scored
from asr_lab.run import Run, find_run, flatten


@dataclass(frozen=True)
class Member:
    """One finished run and what it said on the split."""

    run: Run
    result: Mapping[str, Any]
    scores: Scores

    @property
    def seed(self) -> str:
        return as_text(self.run.config.get(SEED))

    @property
    def flat(self) -> dict[str, Any]:
        """The dotted keys of its configuration."""
        return flatten(self.run.config)

    @property
    def factors(self) -> dict[str, str]:
        return {k: as_text(v) for k, v in as_object(self.result.get("factors")).items()}


@dataclass(frozen=True)
class Side:
    """One run, or the runs of a configuration."""

    letter: str  # A, B, ...
    name: str  # as it was asked for; of a run, its cell
    members: tuple[Member, ...]
    notes: tuple[str, ...] = ()  # what was left out, and why


def sides_of(arguments: Sequence[str], outputs: Path, split: str, experiment: str | None, seeds: bool) -> list[Side]:
    """What the arguments of `asr-lab compare` stand for.

    Args:
        arguments: each a run (folder, or the beginning of a fingerprint or cell name) or `key=value,key=value`.
        experiment: where the latter are looked for; None: the only one in `outputs`.
        seeds: a run stands for all seeds of its configuration.

    Raises:
        RunError: nothing fits, a run is not finished or is there twice, a file of hypotheses is damaged.
    """
    if len(arguments) < 2:
        raise RunError("two runs or configurations are wanted, as in `asr-lab compare RUN RUN`; one came")
    if len(arguments) > len(ascii_uppercase):
        raise RunError(f"{len(arguments)} runs or configurations: at most {len(ascii_uppercase)} can be compared")
    found = []
    for letter, argument in zip(ascii_uppercase, arguments, strict=False):
        runs, notes = _runs(argument, outputs, experiment, seeds)
        name = argument if len(runs) > 1 or _is_choice(argument) else runs[0].name
        found.append(Side(letter, name, tuple(_member(run, split) for run in runs), tuple(notes)))
    _check_distinct(found)
    return found


def _check_distinct(sides: Sequence[Side]) -> None:
    seen: dict[Path, Side] = {}
    for side in sides:
        for m in side.members:
            other = seen.setdefault(m.run.folder.resolve(), side)
            if other is side:
                continue
            if len(side.members) == len(other.members) == 1:
                raise RunError(f"{m.run.folder}: is both {other.letter} and {side.letter}, so nothing can differ")
            raise RunError(
                f"{m.run.folder}: is in both {other.letter} ({other.name}) and {side.letter} ({side.name}); "
                "choose what has no run in common"
            )


def _is_choice(argument: str) -> bool:
    return "=" in argument and not (Path(argument) / RESULT).exists()


def _runs(argument: str, outputs: Path, experiment: str | None, seeds: bool) -> tuple[list[Run], list[str]]:
    """(the runs that an argument stands for, all finished; what was left out)"""
    if not _is_choice(argument):
        run = find_run(argument, outputs)
        return _with_seeds(run) if seeds else ([run], [])
    try:
        return _chosen(argument, _experiment(outputs, experiment))
    except RunError:
        named = [p for p in outputs.glob(f"*/*/{RESULT}") if p.parent.name.startswith(argument)]
        if len(named) != 1:
            raise
        run = find_run(str(named[0].parent), outputs)
        return _with_seeds(run) if seeds else ([run], [])


def _experiment(outputs: Path, name: str | None) -> Path:
    known = sorted({p.parent.parent for p in outputs.glob(f"*/*/{RESULT}")})
    if name is None:
        if len(known) == 1:
            return known[0]
        raise RunError(
            f"{outputs}: holds no run"
            if not known
            else f"--experiment is wanted for key=value{nearest('', [p.name for p in known])}"
        )
    for folder in (Path(name), outputs / name):
        if any(folder.glob(f"*/{RESULT}")):
            return folder
    raise RunError(f"no experiment '{name}' in {outputs}{nearest(name, [p.name for p in known]) or '; it holds none'}")


def _chosen(argument: str, folder: Path) -> tuple[list[Run], list[str]]:
    """The finished runs of an experiment with all of `key=value,key=value`."""
    wanted = [part.partition("=") for part in re.split(r",(?![^\[]*\])", argument)]
    if bad := [key for key, equals, value in wanted if not (key and equals and value)]:
        raise RunError(f"'{argument}': key=value,key=value is wanted; '{bad[0]}' is none")
    left = {path.parent: _values(path) for path in sorted(folder.glob(f"*/{RESULT}"))}
    for key, _, value in wanted:
        having = {cell: _value(cell, values, key) for cell, values in left.items()}
        having = {cell: found for cell, found in having.items() if found is not None}
        if not having:
            names = {k for values in left.values() for k in values}
            raise RunError(f"{folder}: no run has a factor '{key}'{nearest(key, names)}")
        kept = [cell for cell, found in having.items() if _equal(found, value)]
        if not kept:
            hint = nearest(value, set(having.values()))
            raise RunError(f"{folder}: no run for '{argument}', as none has {key}={value}{hint}")
        left = {cell: left[cell] for cell in kept}
    return _finished(list(left), f"'{argument}'")


def _values(path: Path) -> dict[str, str]:
    result, _ = read_object(path)
    return {k: as_text(v) for k, v in as_object(result.get("factors")).items()}


def _value(cell: Path, factors: dict[str, str], key: str) -> str | None:
    """The value of a factor, or of any other key of the configuration."""
    if key in factors or "." not in key:
        return factors.get(key)
    try:
        value = flatten(Run.open(cell).config).get(key)
    except RunError:
        return None
    return None if value is None else as_text(value)


def _equal(found: str, wanted: str) -> bool:
    try:
        return float(found) == float(wanted)
    except ValueError:
        return found == wanted


def _with_seeds(run: Run) -> tuple[list[Run], list[str]]:
    """All finished runs of the experiment whose configuration differs from the run's in the seed alone."""
    cells = []
    for path in sorted(run.folder.parent.glob(f"*/{RESULT}")):
        try:
            same = not differences({"": run.config, "other": Run.open(path.parent).config})
        except RunError:
            continue
        if same:
            cells.append(path.parent)
    return _finished(cells, f"the configuration of {run.name}")


def _finished(cells: Sequence[Path], what: str) -> tuple[list[Run], list[str]]:
    runs, others = [], []
    for cell in cells:
        result, damage = read_object(cell / RESULT)
        status = damage[0] if damage else str(result.get("status"))
        if status == "done":
            runs.append(Run.open(cell))
        else:
            reason = f": {result['reason']}" if result.get("reason") else ""
            others.append(f"{cell.name} ({status}{reason})")
    if not runs:
        raise RunError(f"{what}: none of its {len(cells)} runs is finished, the first is {others[0]}")
    shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return runs, [f"left out, for not finished: {shown}"] if others else []


def _member(run: Run, split: str) -> Member:
    """
    Raises:
        RunError: the run is not finished, or its hypotheses are not there or damaged.
    """
    result = run.result() or {}
    if result.get("status") != "done":
        reason = f": {result['reason']}" if result.get("reason") else ""
        raise RunError(f"{run.folder}: is not finished ({result.get('status')}{reason}); only finished runs compare")
    files = hypotheses_of(run.folder)
    if split not in files:
        hint = nearest(split, files) or "; the run has none"
        raise RunError(f"{run.folder}: no hypotheses of '{split}'{hint}; `asr-lab evaluate --split` makes them")
    scores, problem = scored(files[split])
    if scores is None:
        raise RunError(f"{files[split]}: {problem}; score the run again with `asr-lab evaluate`")
    return Member(run, result, scores)
