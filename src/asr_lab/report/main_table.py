"""The report on the terminal: the main table and the answer."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from asr_lab.report.formats import between, level, percent
from asr_lab.report.plain import PLAIN
from asr_lab.report.summary import Summary
from asr_lab.report.terminal import visible


def main_table(summary: Summary) -> Table:
    """One row per configuration, with the answer underneath."""
    if summary.score in PLAIN:
        return PLAIN[summary.score][0].table(summary)
    notes = [
        f"{gap.partition(':')[0]}: {_short(gap.partition(':')[2])}" for c in summary.configurations for gap in c.gaps
    ]
    lines = [*filter(None, [summary.standing]), summary.answer, *dict.fromkeys(notes)]
    out = Table(
        title=Text(visible(summary.experiment.name)),
        caption=Text("\n".join(map(visible, lines))),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    rate = f"test {summary.score.upper()} % ({level(summary.level)})"
    for name in summary.swept or ["configuration"]:
        out.add_column(Text(visible(name).replace(".", ".\n")), no_wrap=True)  # a long key over two lines
    for name in (rate, "to best", "seeds"):
        out.add_column(Text(name), justify="right", no_wrap=True)
    out.add_column(Text(""), no_wrap=True)
    for row in summary.configurations:
        mark = "best" if row.best else "tied" if row.tied else ""
        cells = [
            *(row.factors.values() or ["all"]),
            percent(row.rate.value) + (f" ({between(row.rate)})" if row.done else ""),
            between(row.delta, signed=True) if row.comparable and not row.best else "",
            f"{len(row.done)}/{len(row.cells)}",
            mark or ("" if row.done else "no result"),
        ]
        out.add_row(*map(Text, map(visible, cells)), style="bold" if row.best else "" if row.done else "dim")
    return out


def _short(text: str, width: int = 160) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
