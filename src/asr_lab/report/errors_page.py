"""The page of `asr-lab errors --page`: one self-contained file with the tables, charts and worst utterances."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from asr_lab import __version__
from asr_lab.files import write_text
from asr_lab.report.alignment import Aligned, worst_first
from asr_lab.report.confusion import Confusion
from asr_lab.report.corpus_table import printable
from asr_lab.report.errors_table import confused, headline, sections, shown, summary
from asr_lab.report.svg_bars import bar_chart
from asr_lab.report.svg_counts import heat_map

WORST = 40
LISTED = 200  # rows of a table
BARS = 12  # of a chart


def write_page(path: Path, title: str, answer: dict[str, Any], utterances: Sequence[Aligned]) -> Path:
    """Write the page of an answer of `errors.analyse`, atomically."""
    env = Environment(
        loader=PackageLoader("asr_lab.report", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["rate"] = shown
    tables = [s for s in sections(answer) if s.rows]
    matrix = Confusion(**answer["confusion"]) if answer["confusion"] else None
    page = env.get_template("errors.html.j2").render(
        a=answer,
        title=title,
        headline=headline(answer),
        summary=summary(answer),
        overview=bar_chart(summary(answer)[:4], f"{answer['score'].upper()} and its parts"),
        sections=[(s, bar_chart([(c[0], r) for c, r in s.rows[:BARS]], s.title)) for s in tables],
        matrix=matrix and heat_map(matrix.names, matrix.counts, "Confusions: said in rows, recognised in columns"),
        bars=BARS,
        listed=LISTED,
        confusions={
            kind: [(confused(kind, row), row) for row in rows] for kind, rows in answer["most_frequent"].items()
        },
        worst=[u for u in worst_first(utterances)[:WORST] if u.count("S", "D", "I")],
        version=__version__,
    )
    return write_text(path, printable(page))
