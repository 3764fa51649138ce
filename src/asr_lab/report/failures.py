"""What did not finish, how far it came, and why; and every file that could not be used."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from asr_lab.report.collect import Cell, Experiment
from asr_lab.report.formats import percent

WAITING = ("missing", "planned", "running", "preempted", "interrupted")
# How a search says that it gave a cell up (sweep/search.py, sweep/halving.py).
_PRUNED = ("pruned after", "halved at")


class Failure(NamedTuple):
    """One cell or file."""

    name: str
    what: str  # a status, "pruned" for a cell that a search gave up, or "damaged file"
    reached: str  # "epoch 4, best val WER 31.2 %"; "" before the first validation
    reason: str


def failures(experiment: Experiment) -> Iterable[Failure]:
    """Every cell that did not finish and every file that could not be used, each by name."""
    yield from (Failure("(experiment)", "damaged file", "", line) for line in experiment.damage)
    for cell in experiment.cells:
        if not cell.done:
            yield Failure(cell.name, what(cell), reached(cell), cell.reason or "no reason recorded")
        yield from (Failure(cell.name, "damaged file", "", line) for line in cell.damage if line != cell.reason)


def what(cell: Cell) -> str:
    """Its status; a cell that a search gave up is `pruned`: its score is censored, not bad."""
    return "pruned" if cell.status == "cancelled" and cell.reason.startswith(_PRUNED) else cell.status


def reached(cell: Cell) -> str:
    key = f"val/{cell.score}"
    seen = [(row["epoch"], row[key]) for row in cell.curve if key in row and "epoch" in row]
    finite = [value for _, value in seen if math.isfinite(value)]
    if not finite:
        return ""
    shown = f"{percent(min(finite))} %" if cell.score in ("wer", "cer") else f"{min(finite):.3g}"
    return f"epoch {max(e for e, _ in seen):g}, best val {cell.score.upper()} {shown}"


def standing(experiment: Experiment) -> str:
    """`Not finished: 2 of 12 cells are still to come (1 running, 1 missing). 1 has ended without a result (1
    exploded).`; "" when all planned cells are done."""
    planned = [c for c in experiment.cells if c.planned]
    waiting = Counter(c.status for c in planned if c.status in WAITING)
    ended = Counter(what(c) for c in planned if not c.done and c.status not in WAITING)
    said = []
    if n := waiting.total():
        said.append(
            f"Not finished: {n} of {len(planned)} cells {'is' if n == 1 else 'are'} still to come ({_of(waiting)})."
        )
    if n := ended.total():
        whole = "" if waiting else f" of {len(planned)} cells"
        said.append(f"{n}{whole} {'has' if n == 1 else 'have'} ended without a result ({_of(ended)}).")
    return " ".join(said)


def _of(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {status}" for status, n in counts.items())
