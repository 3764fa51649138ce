"""Tables with a header line: CSV (comma or semicolon) and TSV."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from asr_lab.data.formats import Entry, Source, Target
from asr_lab.data.formats._reading import NUMBERS, fields, lines, utterance
from asr_lab.data.formats._writing import needs_ending, row
from asr_lab.data.manifest import Problem, Utterance
from asr_lab.errors import DataError
from asr_lab.files import write_atomic

COLUMNS = ("id", "audio_filepath", "duration", "text", "speaker", "split", "sample_rate", "offset", "channel", "member")


def read(source: Source) -> Iterator[Entry | Problem]:
    """Rows of a table; columns are found by `source.columns` and the usual names.

    Raises:
        DataError: the table cannot be read, or has no column for audio or text.
    """
    for item in rows(source):
        if isinstance(item, Problem):
            yield item
            continue
        where, values = item
        try:
            yield Entry(where, utterance(values, source, source.path.parent))
        except DataError as error:
            yield Problem("unreadable line", where, str(error))


def rows(source: Source) -> Iterator[tuple[str, dict[str, str | float]] | Problem]:
    """("file:line", {our field: value}) of each row; empty cells are left out, except that of the text.

    Raises:
        DataError: as `read`.
    """
    text = _Lines(source.path)
    header = next(text, "")
    delimiter = _delimiter(source.path, header)
    quoting = csv.QUOTE_MINIMAL if source.quotes else csv.QUOTE_NONE
    try:
        names = next(csv.reader([header], delimiter=delimiter, quoting=quoting, strict=True), [])
        columns = fields([name.strip() for name in names], source.columns, required=("audio", "text"))
    except (DataError, csv.Error) as error:
        raise DataError(f"{source.path}: {error}") from None
    places = {field: [n.strip() for n in names].index(name) for field, name in columns.items()}
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=source.quotes)
    while True:
        first = text.number + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            where = f"{source.path}:{first}"
            yield Problem("unreadable line", where, f"{error}; mend its quotes, or read them as letters (--no-quotes)")
            return  # where the next row would begin is anybody's guess
        yield from text.problems()
        if cells is None:
            return
        if not cells:
            continue
        where = f"{source.path}:{first}"
        if len(cells) != len(names):
            yield Problem("unreadable line", where, f"{len(cells)} cells for {len(names)} columns; mend the line")
            continue
        yield where, {f: _value(f, cells[i]) for f, i in places.items() if cells[i] or f == "text"}


def write(utterances: list[Utterance], target: Target) -> None:
    """A .csv or .tsv with all our columns; what an utterance has not stays empty."""
    needs_ending(target.path, ".csv", ".tsv")
    folder = target.path.absolute().parent
    text = io.StringIO(newline="")
    cells = [[row(u, folder).get(column, "") for column in COLUMNS] for u in utterances]
    # A lone carriage return ends a line for readers, but Python's writer would not quote it.
    quoting = csv.QUOTE_ALL if any("\r" in str(c) for line in cells for c in line) else csv.QUOTE_MINIMAL
    table = csv.writer(text, delimiter=_delimiter(target.path, ""), lineterminator="\n", quoting=quoting)
    table.writerow(COLUMNS)
    table.writerows(cells)
    write_atomic(target.path, lambda f: f.write(text.getvalue().encode()))


class _Lines:
    """The lines of a file, for a csv reader that may take several for a row."""

    def __init__(self, path: Path):
        self.number = 0
        self._items = lines(path, raw=True)
        self._problems: list[Problem] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for item in self._items:
            self.number += 1
            if not isinstance(item, Problem):
                return item[1]
            self._problems.append(item)
        raise StopIteration

    def problems(self) -> list[Problem]:
        """Those met since the last call."""
        found, self._problems = self._problems, []
        return found


def _delimiter(path: Path, header: str) -> str:
    if path.suffix == ".tsv" or "\t" in header:
        return "\t"
    return ";" if ";" in header and "," not in header else ","


def _value(field: str, cell: str) -> str | float:
    if field not in NUMBERS:
        return cell
    try:
        return float(cell)
    except ValueError:
        return cell  # `utterance` says what is wrong with it
