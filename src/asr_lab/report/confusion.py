"""Which name was heard for which: the confusion matrix of isolated words."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NOTHING = "(nothing)"  # an empty hypothesis


@dataclass(frozen=True)
class Confusion:
    """`counts[i][j]` utterances of `names[i]` were recognised as `names[j]`."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        return sum(map(sum, self.counts))

    @property
    def accuracy(self) -> float:
        """Share of the utterances on the diagonal; NaN without any."""
        return sum(row[i] for i, row in enumerate(self.counts)) / self.total if self.total else float("nan")

    def mistakes(self) -> list[tuple[str, str, int]]:
        """(said, recognised, how often) off the diagonal, the most frequent first."""
        pairs = [
            (self.names[i], self.names[j], n)
            for i, row in enumerate(self.counts)
            for j, n in enumerate(row)
            if n and i != j
        ]
        return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))

    def csv(self) -> str:
        """A row a name that was said, a column a name that was recognised."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["said", *self.names])
        writer.writerows([name, *row] for name, row in zip(self.names, self.counts, strict=True))
        return out.getvalue()

    def markdown(self) -> str:
        """The same as a table; a dot for 0."""
        cells = [[name, *(str(n or "·") for n in row)] for name, row in zip(self.names, self.counts, strict=True)]
        lines = [["said", *self.names], ["---", *["--:"] * len(self.names)], *cells]
        return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)

    def table(self) -> Any:
        """The same as a `rich.table.Table`, the diagonal in bold."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{100 * self.accuracy:.1f} % of {self.total} right; a row a name that was said")
        table.add_column("said")
        for name in self.names:
            table.add_column(Text(name), justify="right")
        for i, (name, row) in enumerate(zip(self.names, self.counts, strict=True)):
            numbers = [Text(str(n or "·"), style="bold" if i == j else "") for j, n in enumerate(row)]
            table.add_row(Text(name), *numbers)
        return table

    def svg(self, title: str) -> str:
        """A heat map: a row a name that was said, the colour its share of the row."""
        from asr_lab.report.svg_counts import heat_map

        return str(heat_map(self.names, self.counts, title))


def confusion(rows: Iterable[dict[str, Any]]) -> Confusion:
    """From the rows of hyps.<split>.jsonl, every text taken as one name."""
    pairs = Counter((row["ref"], row["hyp"] or NOTHING) for row in rows)
    names = tuple(sorted({name for pair in pairs for name in pair}))
    return Confusion(names, tuple(tuple(pairs[said, heard] for heard in names) for said in names))


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
