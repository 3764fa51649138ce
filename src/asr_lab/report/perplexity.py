"""The report of language models: test perplexity by configuration, mean and range over seeds."""

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from asr_lab.report.configurations import Configuration, Spread
from asr_lab.report.formats import NOTHING, seconds, short
from asr_lab.report.summary import Summary

HEADINGS = {
    "test/ppl": "test ppl",
    "test/ppl_word": "a word",
    "val": "val ppl",
    "parameters": "parameters",
    "seconds/train": "training",
}


def context(summary: Summary) -> dict[str, Any]:
    """What the template shows."""
    rows = ranked(summary)
    return {"s": summary, "e": summary.experiment, "headings": list(HEADINGS.values()), "answer": answer(rows)} | {
        "rows": [(r, shown(r)) for r in rows]
    }


def table(summary: Summary) -> Table:
    """The same for the terminal."""
    rows = ranked(summary)
    gaps = dict.fromkeys(gap for row in rows for gap in row.gaps)
    out = Table(
        title=Text(summary.experiment.name),
        caption=Text("\n".join([answer(rows), *gaps])),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in summary.swept or ["configuration"]:
        out.add_column(Text(name), no_wrap=True)
    for name in [*HEADINGS.values(), "seeds"]:
        out.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        cells = [*(row.factors.values() or ["all"]), *shown(row), f"{len(row.done)}/{len(row.cells)}"]
        out.add_row(*map(Text, cells), style="" if row.done else "dim")
    return out


def ranked(summary: Summary) -> list[Configuration]:
    """Configurations from the lowest test perplexity to the highest, those without any at the end."""

    def rank(row: Configuration) -> tuple[bool, float]:
        mean = row.columns["test/ppl"].mean
        return math.isnan(mean), mean

    return sorted(summary.configurations, key=rank)


def shown(row: Configuration) -> list[str]:
    """The columns of `HEADINGS`."""
    ways = {"parameters": short, "seconds/train": seconds}
    return [
        ways[key](row.columns[key].mean) if key in ways else _perplexity(row.columns[key]) if row.done else NOTHING
        for key in HEADINGS
    ]


def answer(rows: list[Configuration]) -> str:
    best = next((r for r in rows if not math.isnan(r.columns["test/ppl"].mean)), None)
    if best is None:
        return "No planned cell has a test perplexity yet."
    n = len(best.done)
    seeds = f"mean of {n} seeds, their range in brackets" if n > 1 else "one seed"
    return f"Lowest test perplexity: {best.label}, with {_perplexity(best.columns['test/ppl'])} a label ({seeds})."


def _perplexity(spread: Spread) -> str:
    if math.isnan(spread.mean):
        return NOTHING
    low, high = f"{spread.low:.2f}", f"{spread.high:.2f}"
    return f"{spread.mean:.2f}" + (f" ({low} – {high})" if low != high else "")
