"""results.csv: one row per cell, with every metric."""

import csv
import io

from asr_lab.report.collect import Cell
from asr_lab.report.configurations import cell_rate
from asr_lab.report.summary import Summary


def results_csv(summary: Summary) -> str:
    """One row per cell, whatever its status; rates are shares, times seconds, empty where nothing was recorded."""
    cells = summary.experiment.cells
    factors, metrics, numbers = (
        list(dict.fromkeys(k for c in cells for k in getattr(c, part))) for part in ("factors", "metrics", "numbers")
    )
    fixed = ["cell", "planned", "status", "reason", "fingerprint", "commit", "test_digest", "score"]
    counted = [f"counted/{k}" for k in ("words", "sub", "del", "ins", "wer", "chars", "char_errors", "cer")]
    names = [*fixed, *counted, *metrics, *numbers]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_safe, [*fixed, *(f"factor.{k}" if k in names else k for k in factors), *names[len(fixed) :]]))
    for c in cells:
        head = [c.name, c.planned, c.status, c.reason, c.fingerprint, c.git.get("commit"), c.digest.get("test")]
        head.append(c.score if c.done else None)
        values = [c.metrics.get(k) for k in metrics] + [c.numbers.get(k) for k in numbers]
        writer.writerow(map(_safe, [*head, *(c.factors.get(k) for k in factors), *_counted(c), *values]))
    return out.getvalue()


def _counted(cell: Cell) -> list[float | None]:
    """The sums behind the rates of a cell, in the order of the columns `counted/...`."""
    if cell.scores is None:
        return [None] * 8
    s, chars = cell.scores, cell.scores.counts("cer")
    by_word = [int(s.words.sum()), *map(int, s.edits.sum(0)), cell_rate(cell, "wer")]
    return by_word + ([int(chars[1].sum()), int(chars[0].sum()), cell_rate(cell, "cer")] if chars else [None] * 3)


def _safe(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets a leading quote (OWASP, "CSV Injection"); numbers stay."""
    if not isinstance(value, str):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value
    return value
