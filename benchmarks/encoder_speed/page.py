"""Measured rows as tables: for the terminal and, between markers, for docs/encoders_speed.md."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table as RichTable

from asr_lab.errors import DataError
from asr_lab.files import write_text
from encoder_speed.picture import TITLE, scaling_chart


class Table(NamedTuple):
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def rich(self) -> RichTable:
        table = RichTable(title=self.title)
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def tables(results: dict[str, Any]) -> dict[str, Table]:
    """By the name of their markers; parts that were not measured have none."""
    found = {}
    if "peers" in results:
        rows = results["peers"]["rows"]
        found["peers"] = _peers("Conformer blocks", [r for r in rows if r["kind"] == "conformer"])
        found["lstm"] = _peers("LSTM layers", [r for r in rows if r["kind"] != "conformer"])
    if "utilisation" in results:
        found["utilisation"] = _utilisation(results["utilisation"])
        found["operations"] = _operations(results["utilisation"])
    if "scaling" in results:
        for name, title, value in (
            ("time", "ms a training step takes for each second of speech", _ms_per_second),
            ("memory", "MiB that a training step takes", lambda r: f"{r['memory_mib']:.0f}"),
        ):
            found[name] = _scaling(title, results["scaling"], value)
    return found


def write_page(page: Path, picture: Path, results: dict[str, Any]) -> None:
    """Every table between its markers, and the picture.

    Raises:
        DataError: the page lacks a marker.
    """
    text = page.read_text()
    for name, table in tables(results).items():
        text = between(text, name, table.markdown(), page)
    text = between(text, "machine", machine(results["about"]), page)
    if results.get("scaling"):
        write_text(picture, scaling_chart(results["scaling"]))
        link = f"![{TITLE}]({picture.relative_to(page.parent).as_posix()})"
        text = between(text, "picture", link, page)
    write_text(page, text)


def between(text: str, name: str, content: str, page: Path) -> str:
    """`text` with `content` between the comments `<!-- name -->` and `<!-- /name -->`."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in text or end not in text:
        raise DataError(f"{page}: the markers {start} and {end} are missing; put them where the table belongs")
    before, after = text.split(start, maxsplit=1)[0], text.split(end)[1]
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def machine(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"Measured on {about['device']} ({about['cores']} cores), with {versions}."


def _peers(title: str, rows: Iterable[dict[str, Any]]) -> Table:
    header = ["model", "seconds", "threads", "precision", "malloc", "ms a step", "their time / ours"]
    lines = []
    for r in rows:
        low, high = r["ratio_quartiles"]
        ratio = "1" if low == high == 1 else f"{r['ratio']:.2f} ({low:.2f} to {high:.2f})"
        lines.append([r["model"], str(r["seconds"]), str(r["n_threads"]), r["precision"], r["malloc"],
                      f"{1e3 * r['step_s']:.0f}", ratio])  # fmt: skip
    return Table(title, header, lines)


def _utilisation(rows: Iterable[dict[str, Any]]) -> Table:
    header = ["encoder", "size", "parameters", "GFLOP a step", "ms a step", "of torch.mm", "wanted", "of the fastest"]
    lines = [
        [
            r["encoder"],
            r["size"],
            f"{r['parameters'] / 1e6:.2f} M",
            f"{r['flops'] / 1e9:.1f}",
            f"{1e3 * r['step_s']:.0f}",
            f"{100 * r['utilisation']:.0f} %",
            f"{100 * r['wanted']:.0f} %" if r["wanted"] else "",
            f"{100 * r['utilisation_of_best']:.0f} %",
        ]
        for r in rows
    ]
    return Table("Use of the matrix speed", header, lines)


def _operations(rows: Iterable[dict[str, Any]]) -> Table:
    lines = [
        [f"{r['encoder']}, {r['size']}", ", ".join(f"{o['operation']} {100 * o['share']:.0f} %" for o in r["top"])]
        for r in rows
        if r["top"]
    ]
    return Table("Where the time of a step goes", ["encoder", "operations that take most themselves"], lines)


def _ms_per_second(row: dict[str, Any]) -> str:
    return f"{1e3 * row['step_s'] / (row['batch'] * row['seconds']):.1f}"


def _scaling(title: str, rows: Iterable[dict[str, Any]], value: Any) -> Table:
    cells: dict[str, dict[float, str]] = {}
    for r in rows:
        cells.setdefault(r["encoder"], {})[r["seconds"]] = value(r) if "step_s" in r else "failed"
    lengths = sorted({s for by_length in cells.values() for s in by_length})
    lines = [[name, *(by_length.get(s, "") for s in lengths)] for name, by_length in cells.items()]
    return Table(title, ["encoder", *(f"{s:g} s" for s in lengths)], lines)
