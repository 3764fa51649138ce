"""A comparison on the terminal."""

import math
from collections.abc import Callable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from asr_lab.report.compared import KINDS, Change, Compared, Entry, Paired
from asr_lab.report.differences import belongs
from asr_lab.report.formats import HEADINGS, NOTHING, between, level, percent
from asr_lab.report.side_by_side import side_by_side
from asr_lab.report.stats import LEVEL, N_RESAMPLES, Interval, Needed
from asr_lab.report.stats.power import POWER
from asr_lab.report.terminal import stacked, visible

LABEL, COLUMN = 18, 24  # cells of the terminal for a row's name and for a side
MAX_KEYS = 40
WRONG = {"": "", "S": "bold red", "D": "red", "I": "bold magenta"}
MOST = 1_000_000  # seeds or utterances that anyone could have
ALPHA = 1 - LEVEL


def print_compared(found: Compared, console: Console, top: int, tests: bool) -> None:
    """
    Args:
        top: so many of the utterances that changed most.
        tests: also every test of every pair.
    """
    unit = "words" if found.score == "wer" else "characters"
    size = f"{found.n_utterances:,} utterances, {found.n_units:,} {unit}"
    over = found.resampled + (" and seeds" if any(e.n_seeds > 1 for e in found.entries) else "")
    console.print(Text(f"{found.split}: {size}; {level(LEVEL)} intervals over {over}"))
    for e in found.entries:
        console.print(Text.assemble((f"{e.side.letter}  ", "bold"), visible(e.side.name), f" ({_runs(e)})"))
    console.print()
    console.print(Text(_factor(found)))
    _print_differences(found, console)
    for line in _confounds(found):
        console.print(Text(f"! {visible(line)}", "yellow"))
    for line in found.warnings:
        console.print(Text(f"! {visible(line)}", "yellow"))
    console.print()
    _print_numbers(found, console)
    console.print()
    for line in [*map(visible, found.notes), *_verdicts(found)]:
        console.print(Text(line))
    if tests:
        _print_tests(found, console)
    _print_changes(found, console, top)


def _runs(e: Entry) -> str:
    n, seeds = len(e.members), e.n_seeds
    if n == 1:
        return "1 run"
    return f"{n} runs" if n == seeds else f"{n} runs of {seeds} seed{'s' * (seeds > 1)}"


def _factor(found: Compared) -> str:
    over = [k for k in found.over if not k.endswith(("_target_", "_partial_"))] or list(found.over)
    mean = f"; each is a mean over {', '.join(map(visible, dict.fromkeys(k.partition('.')[0] for k in over)))}"
    if not found.differing:
        return "The configurations are the same, but for seeds" + (mean if over else "")
    if found.factor is None:
        return "No single factor differs" + (mean if over else "")
    how = " (guessed; --factor names another)" if found.factor_guessed else ""
    return f"Factor: {visible(found.factor)}{how}{mean if over else ''}"


def _confounds(found: Compared) -> Iterator[str]:
    if not found.confounds:
        return
    keys = list(dict.fromkeys(_choice(found, k) for k in found.confounds))
    shown = ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
    if found.factor is None:
        yield f"several things differ ({shown}): what the difference comes from cannot be said"
    elif any(belongs(key, found.factor) for key in found.differing):
        yield f"not only {found.factor} differs, also {shown}: a difference may come from there"
    else:
        yield f"{found.factor} does not differ; what does is {shown}"


def _choice(found: Compared, key: str) -> str:
    """The choice that a key belongs to, or the key."""
    return next((c for c in found.choices if belongs(key, c)), key)


def _print_differences(found: Compared, console: Console) -> None:
    rows = dict(found.choices)
    for key, values in found.differing.items():
        told = any(belongs(key, choice) for choice in found.choices)
        if key not in rows and not (told and key.endswith(("_target_", "_partial_"))):
            rows[key] = values
    if not rows:
        return
    shown = list(rows.items())[:MAX_KEYS]
    for letters in _chunks(found, console.width):
        table = _table("what differs", letters, found)
        for key, values in shown:
            table.add_row(Text(visible(key)), *(Text(visible(values[i])) for i in letters))
        if len(rows) > MAX_KEYS:
            table.caption = f"the first {MAX_KEYS} of {len(rows)} keys; --json lists all"
        console.print(table)


def _print_numbers(found: Compared, console: Console) -> None:
    for letters in _chunks(found, console.width):
        table = _table("", letters, found)
        for name, cell in _rows(found):
            values = [cell(i) for i in letters]
            if any(value.strip(NOTHING) for value in values):
                table.add_row(Text(name), *map(Text, values))
        console.print(table)


def _rows(found: Compared) -> Iterator[tuple[str, Callable[[int], str]]]:
    """The names of the table's rows, and what stands there for each side."""
    first = found.entries[0]
    for kind in sorted(("wer", "cer"), key=lambda kind: kind != found.score):
        yield f"{kind.upper()} %", lambda i, kind=kind: rate(found.entries[i].rates[kind])
        if kind == found.score:
            yield "  to A", lambda i: rate(found.pair("A", _letter(found, i)).delta, signed=True) if i else ""
            yield "  p, corrected", lambda i: p_value(found.pair("A", _letter(found, i)).p_holm) if i else ""
    for k, kind in enumerate(KINDS):
        yield f"{kind} %", lambda i, k=k: _shifted(found.entries[i].kinds[k], first.kinds[k], i)
    for key in first.cost:
        heading, show, _ = HEADINGS[key]
        yield heading, lambda i, key=key, show=show: show(found.entries[i].cost[key].mean)


def _letter(found: Compared, i: int) -> str:
    return found.entries[i].side.letter


def rate(x: Interval, signed: bool = False) -> str:
    """`12.3 (10.1 to 14.5)`, in percent."""
    if math.isnan(x.value):
        return NOTHING
    return f"{percent(x.value, signed)} ({between(x, signed)})"


def _shifted(value: float, first: float, i: int) -> str:
    moved = f" ({percent(value - first, signed=True)})" if i and math.isfinite(value) else ""
    return percent(value) + moved


def p_value(p: float) -> str:
    """Three digits after the point, and never 0: no test is surer than its resamples."""
    if math.isnan(p):
        return NOTHING
    return f"{p:.3f}" if p >= 0.001 else f"{p:.4f}" if p > 1.5 / N_RESAMPLES else f"< {1 / N_RESAMPLES:.4f}"


def _chunks(found: Compared, width: int) -> Iterator[list[int]]:
    """Sides that fit beside each other, the first one always among them."""
    n = max(1, (width - LABEL) // COLUMN - 1)
    others = list(range(1, len(found.entries)))
    for start in range(0, len(others), n):
        yield [0, *others[start : start + n]]


def _table(title: str, letters: Sequence[int], found: Compared) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, caption_justify="left")
    table.add_column(Text(title), overflow="fold")
    for i in letters:
        table.add_column(Text(_letter(found, i), "bold"), overflow="fold")
    return table


def _verdicts(found: Compared) -> Iterator[str]:
    """A sentence for each side about the first one."""
    n = len(found.pairs)
    corrected = f", corrected for {n} pairs" if n > 1 else ""
    for pair in (pair for pair in found.pairs if pair.a == "A"):
        if math.isnan(pair.p_holm):
            yield f"{pair.b} and A: nothing says how sure the difference is."
            continue
        p = p_value(pair.p_holm)
        said = f"{found.score.upper()} {rate(pair.delta, signed=True)} points, p {p if p[0] == '<' else '= ' + p}"
        if pair.p_holm < ALPHA:
            yield f"{pair.b} is {'better' if pair.delta.value < 0 else 'worse'} than A: {said}{corrected}."
        else:
            yield f"{pair.b} and A are tied: {said}{corrected}.{_needed(pair.needed)}"


def _needed(needed: Needed | None) -> str:
    """What would separate two that are tied."""
    if needed is None or not math.isfinite(needed.detectable):
        return ""
    text = f" A true difference of {percent(needed.detectable)} points would be found with a chance of {POWER:.0%}"
    ways = [(needed.n_seeds, "seeds of each"), (needed.n_utterances, "utterances")]
    ways = [f"{n:,.0f} {what}" for n, what in ways if n <= MOST]
    return text + (f"; this one with {' or '.join(ways)}." if ways else ".")


def _print_tests(found: Compared, console: Console) -> None:
    names = list(dict.fromkeys(name for pair in found.pairs for name in [*pair.tests, *pair.skipped]))
    for start in range(0, len(found.pairs), n := max(1, (console.width - LABEL) // 14)):
        pairs = found.pairs[start : start + n]
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column(Text("p, not corrected"))
        for pair in pairs:
            table.add_column(Text(f"{pair.a} and {pair.b}"), justify="right")
        for name in names:
            table.add_row(Text(name), *(Text(_p(pair, name)) for pair in pairs))
        console.print()
        console.print(table)
    for name, why in dict.fromkeys(item for pair in found.pairs for item in pair.skipped.items()):
        console.print(Text(f"{name} {why}.", "dim"))


def _p(pair: Paired, name: str) -> str:
    return p_value(pair.tests[name].p) if name in pair.tests else NOTHING


def _print_changes(found: Compared, console: Console, top: int) -> None:
    if not found.changes or top < 1:
        return
    console.print()
    for pair in (pair for pair in found.pairs if pair.a == "A"):
        same = found.n_utterances - pair.fewer - pair.more
        said = (
            f"{pair.b} has fewer errors than A in {pair.fewer:,} utterances, more in {pair.more:,}, as many in {same:,}"
        )
        console.print(Text(said))
    names = ["REF", *(e.side.letter for e in found.entries)]
    for change in found.changes[:top]:
        console.print()
        console.print(_head(change, found))
        texts = map(visible, (change.ref, *change.hyps))
        columns = [
            [(c.ref, ""), *((word, WRONG[mark]) for word, mark in zip(c.hyps, c.marks, strict=True))]
            for c in side_by_side(next(texts), list(texts), found.score)
        ]
        for block in stacked(names, columns, console.width):
            for line in block:
                console.print(line, soft_wrap=True)


def _head(change: Change, found: Compared) -> Text:
    speaker = f", speaker {visible(change.speaker)}" if change.speaker else ""
    said = [f"{e.side.letter} {errors:.3g}" for e, errors in zip(found.entries, change.errors, strict=True)]
    return Text.assemble((visible(change.id), "bold"), f"{speaker}; errors: {', '.join(said)}")
