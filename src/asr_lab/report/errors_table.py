"""The answer of `asr-lab errors` as lines of tables, for the terminal and for the page."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from asr_lab.report.confusion import Confusion
from asr_lab.report.errors import MARKS, Rate
from asr_lab.report.formats import NOTHING, between, percent
from asr_lab.report.stats import Interval

SHOWN = 10  # rows of a table on the terminal


class Section(NamedTuple):
    """One table; a row's last cell is its rate."""

    title: str
    note: str
    heads: list[str]
    rows: list[tuple[list[str], Interval]]


def as_interval(rate: Rate) -> Interval:
    return Interval(*(float("nan") if x is None else x for x in rate))


def shown(rate: Interval) -> str:
    return percent(rate.value) + ("" if rate.low != rate.low else f" ({between(rate)})")


def headline(answer: dict[str, Any]) -> str:
    words = f"{answer['words']:,} {answer['unit']}s"
    kinds = ", ".join(f"{answer[k]:,} {k}" for k in MARKS)
    return f"{answer['utterances']:,} utterances, {words}: {answer['right']:,} right, {kinds}"


def summary(answer: dict[str, Any]) -> list[tuple[str, Interval]]:
    """The rates of the whole, by name."""
    found = [(answer["score"].upper(), answer["rate"]), *((k, answer["rates"][k]) for k in MARKS)]
    found.append(("utterances with an error", answer["sentence_error_rate"]))
    if oov := answer["out_of_vocabulary"]:
        unit = answer["unit"]
        if oov["words"]:
            found.append((f"{unit}s not in train that were found", oov["recall"]))
        found.append((f"other {unit}s that were found", oov["recall_of_the_others"]))
    return [(name, as_interval(rate)) for name, rate in found]


def sections(answer: dict[str, Any]) -> Iterator[Section]:
    """The tables by length, speech rate, frequency and speaker, those without rows left out."""
    unit, rate = f"{answer['unit']}s", f"{answer['score'].upper()} % (95 %)"
    heads = ["utterances", unit, rate]
    for title, note, key in (
        (f"By length, in {unit}", "", "by_length"),
        ("By speech rate, in characters per second", "Spaces are not counted.", "by_speech_rate"),
    ):
        rows = [([_range(r), f"{r['utterances']:,}", f"{r['words']:,}"], as_interval(r["rate"])) for r in answer[key]]
        yield Section(title, note, [title.rpartition("in ")[2], *heads], rows)
    rows = [([_range(r), f"{r['words']:,}"], as_interval(r["rate"])) for r in answer["by_frequency"] or []]
    note = f"How often a reference {answer['unit']} is in the training transcripts. Insertions are not counted."
    yield Section(f"By frequency of {unit} in training", note, ["times in train", unit, "wrong % (95 %)"], rows)
    rows = [
        ([r["speaker"], f"{r['utterances']:,}", f"{r['words']:,}"], as_interval(r["rate"]))
        for r in answer["by_speaker"]
    ]
    yield Section("By speaker", "Each interval is over the speaker's own utterances.", ["speaker", *heads], rows)


def _range(row: dict[str, Any]) -> str:
    return f"{row['from']}" if row["from"] == row["to"] else f"{row['from']} to {row['to']}"


def confused(kind: str, row: dict[str, Any]) -> str:
    return f"{row['ref']} → {row['hyp']}" if kind == "substitutions" else row["ref"] or row["hyp"]


def print_tables(answer: dict[str, Any], console: Console) -> None:
    console.print(Text(headline(answer)))
    table = _table("", ["", "% (95 %)"])
    for name, rate in summary(answer):
        table.add_row(Text(name), Text(shown(rate)))
    console.print(table)
    for section in (s for s in sections(answer) if s.rows):
        table = _table(section.title, section.heads)
        for cells, rate in section.rows[:SHOWN]:
            table.add_row(*map(Text, cells), Text(shown(rate)))
        if len(section.rows) > SHOWN:
            table.caption = f"the first {SHOWN} of {len(section.rows)}; --json lists all"
        console.print(table)
    for kind, rows in answer["most_frequent"].items():
        if rows:
            table = _table(f"Most frequent {kind}", [answer["unit"], "times", "for example in"])
            for row in rows[:SHOWN]:
                table.add_row(Text(confused(kind, row)), Text(str(row["count"])), Text(row["examples"][0]))
            console.print(table)
    if answer["confusion"]:
        console.print(Confusion(**answer["confusion"]).table())
    if answer["out_of_vocabulary"] is None:
        console.print(Text(f"{answer['without_training']}: no figures by frequency", style="dim"))
    console.print(
        Text(f"Intervals draw {answer['resampled']} again, {NOTHING} where there is too little.", style="dim")
    )


def _table(title: str, heads: list[str]) -> Table:
    table = Table(title=Text(title, style="bold") if title else None, title_justify="left", box=SIMPLE_HEAD)
    for i, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if i == 0 else "right", overflow="fold")
    return table
