"""Recorded trainings, put together by what they trained, and what clipping would have done in each group."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from asr_lab.clipping import Clipper
from asr_lab.errors import DataError, nearest
from asr_lab.gradients.advice import Threshold, percentiles, role, suggested, thresholds, usable
from asr_lab.gradients.record import Floats, Record, read_record
from asr_lab.gradients.what_if import Replay, replay
from asr_lab.run import Run


class Recorded(NamedTuple):
    """A run and its record, from the wanted step on."""

    run: Run
    record: Record

    @property
    def norms(self) -> Floats:
        """(N,) before clipping, finite and not 0"""
        return self.record.column("norm_before")[usable(self.record)].astype(np.float64)

    @property
    def did(self) -> dict[str, Any]:
        """What the run's own choice did to the recorded steps."""
        there = usable(self.record)
        before, after = (self.record.column(c)[there].astype(np.float64) for c in ("norm_before", "norm_after"))
        clipped = float(self.record.column("clipped")[there].mean()) if there.any() else 0.0
        return {
            "run": self.run.name,
            "clipping": self.run.factors.get("clipping"),
            "clipped": clipped,
            "kept": float((after / before).mean()) if there.any() else None,
            "skipped": float(self.record.column("skipped").mean()) if len(self.record.steps) else 0.0,
            "role": role(clipped),
        }


class Group(NamedTuple):
    """Runs with the same value of a factor, and their norms together."""

    name: str
    runs: list[Recorded]
    norms: Floats

    @property
    def example(self) -> Recorded:
        """Whose steps are replayed, in their order: a run that was not clipped, if there is one."""
        return next((r for r in self.runs if r.run.factors.get("clipping") == "none"), self.runs[0])

    def advice(self, wanted: Iterable[float], values: Iterable[float], choices: "Choices") -> "Advice":
        wanted = list(wanted)
        grid = suggested(self.norms, wanted)
        replays = {name: replay(name, make(), self.example.record) for name, make in choices.items()}
        return Advice(
            self,
            percentiles(self.norms, wanted),
            grid,
            thresholds(self.norms, sorted({*values, *grid})),
            [found for found in replays.values() if found],
            [name for name, found in replays.items() if found is None],
        )


Choices = dict[str, Callable[[], Clipper]]


class Advice(NamedTuple):
    """All that is said of a group."""

    group: Group
    percentiles: dict[str, float]
    grid: list[float]
    thresholds: list[Threshold]
    replays: list[Replay]
    not_recorded: list[str]  # choices that look at what the record has not

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.group.name,
            "runs": [r.did for r in self.group.runs],
            "steps": len(self.group.norms),
            "percentiles": self.percentiles,
            "grid": self.grid,
            "thresholds": [t._asdict() for t in self.thresholds],
            "replay_of": self.group.example.run.name,
            "replay": [r._asdict() for r in self.replays],
            "not_recorded": self.not_recorded,
        }


def groups(runs: list[Run], by: str, skip_first: int) -> list[Group]:
    """The runs by their factor `by`; those without it make one group of their own.

    Raises:
        DataError: a record is missing or broken, no run has the factor, or nothing was recorded from `skip_first` on.
    """
    if len(runs) > 1 and not any(by in run.factors for run in runs):
        known = list(dict.fromkeys(key for run in runs for key in run.factors))
        raise DataError(f"--by {by}: no run has such a factor{nearest(by, known)}; there are {', '.join(known)}")
    found: dict[str, list[Recorded]] = {}
    for run in runs:
        record = read_record(run.folder / "gradients.npz")
        record.skip(skip_first)
        found.setdefault(str(run.factors.get(by, "–")), []).append(Recorded(run, record))
    made = [Group(name, of, np.concatenate([r.norms for r in of])) for name, of in sorted(found.items())]
    for group in made:
        if not len(group.norms):
            raise DataError(
                f"{group.runs[0].run.folder}: no finite gradient norm was recorded from step {skip_first} on"
            )
    return made
