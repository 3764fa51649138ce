"""Response curves: the score against a number that was swept, such as a clipping threshold or a learning rate."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from asr_lab.report.configurations import Configuration
from asr_lab.report.figures import Figure, of_lines
from asr_lab.report.formats import percent, short
from asr_lab.report.svg import MAX_LINES
from asr_lab.report.svg_lines import Line, line_chart

LEAST = 3  # values that make a curve
FACETS = 8  # pictures of one number; a table of so many levels is easier to read


class Response(NamedTuple):
    """One picture: lines over the values of `key`, where the factor of facets has the value that it names."""

    key: str  # clipping.threshold
    facet: (
        str  # "bilstm"; "" when nothing else was swept, "all" where the curves of all facets are laid over each other
    )
    lines: tuple[Line, ...]  # score, its interval as the band; of one point where a choice has one value, or none
    clipped: tuple[Line, ...]  # share of clipped steps, its range over seeds; empty unless it differs
    log: bool
    lost: str = ""  # what has no point, because nothing came of it
    names: tuple[str, ...] = ()  # lines of all facets, in one order: a name has one style in all of them


def responses(rows: Sequence[Configuration], swept: Sequence[str]) -> list[Response]:
    """A response for each swept number and each encoder (or other first factor); of two and more, one of all.

    Each choice of the other factors is a line, that of the number's own group (`clipping` for `clipping.threshold`)
    among them; one without the number, or with one value of it, is a line of one point, drawn across for comparison.
    """
    found = []
    for key in swept:
        if sum(math.isfinite(x) for x in {_number(row, key) for row in rows if _usable(row)}) < LEAST:
            continue
        group = key.partition(".")[0]
        others = sorted((k for k in swept if k not in (key, group)), key=lambda k: k != "encoder")
        facet, inside = others[:1], [k for k in swept if k in (*others[1:], group) and k != key]
        names = list(dict.fromkeys(_label(row, facet) for row in rows))[:FACETS]
        styles = tuple(dict.fromkeys(_label(row, inside) or key for row in rows))
        made = [r._replace(names=styles) for name in names if (r := _response(key, name, rows, facet, inside))]
        curves = [
            line._replace(label=f"{r.facet} · {line.label}") for r in made for line in r.lines if len(line.xs) >= LEAST
        ]
        found += made
        if len(made) > 1 and len(curves) <= MAX_LINES:
            found.append(Response(key, "all", tuple(curves), (), made[0].log))
    return found


def _usable(row: Configuration) -> bool:
    return bool(row.done) and math.isfinite(row.rate.value)


def _response(
    key: str, name: str, rows: Sequence[Configuration], facet: list[str], inside: list[str]
) -> Response | None:
    here = [row for row in rows if _label(row, facet) == name]
    lines, clipped = [], []
    for label in dict.fromkeys(_label(row, inside) for row in here if _usable(row)):
        of_label = [row for row in here if _label(row, inside) == label and _usable(row)]
        of_label.sort(key=lambda row: _number(row, key))
        if len(of_label) > 1:
            of_label = [row for row in of_label if math.isfinite(_number(row, key))]
        if not of_label:
            continue
        lines.append(_rates(label or key, of_label, key))
        if len(of_label) > 1 and (shares := _shares(label or key, of_label, key)):
            clipped.append(shares)
    curves = [line for line in lines if len(line.xs) >= LEAST]
    if not curves:
        return None
    xs = sorted({x for line in curves for x in line.xs})
    lines = [line._replace(xs=[xs[-1]]) if len(line.xs) == 1 else line for line in lines]
    lines.sort(key=lambda line: -len(line.xs))  # curves first
    return Response(
        key, name, tuple(lines), tuple(clipped), xs[0] > 0 and xs[-1] / xs[0] >= 10, _lost(here, key, inside)
    )


def _rates(label: str, rows: Sequence[Configuration], key: str) -> Line:
    xs = [_number(row, key) for row in rows] if len(rows) > 1 else [math.nan]
    rates = [row.rate for row in rows]
    low = [r.low if math.isfinite(r.low) else r.value for r in rates]
    high = [r.high if math.isfinite(r.high) else r.value for r in rates]
    return Line(label, xs, [r.value for r in rates], low, high)


def _shares(label: str, rows: Sequence[Configuration], key: str) -> Line | None:
    """Of clipped steps; None where they are not known or all the same."""
    spreads = [row.columns["train/clipped"] for row in rows]
    if not all(math.isfinite(s.mean) for s in spreads) or len({s.mean for s in spreads}) < 2:
        return None
    xs = [_number(row, key) for row in rows]
    return Line(label, xs, [s.mean for s in spreads], [s.low for s in spreads], [s.high for s in spreads])


def _lost(rows: Sequence[Configuration], key: str, inside: Sequence[str]) -> str:
    """`norm at 100: 2 exploded`, of every configuration with the number and without a result."""
    said = []
    for row in rows:
        if not _usable(row) and math.isfinite(_number(row, key)):
            statuses = [c.status for c in row.cells]
            counts = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
            said.append(f"{_label(row, inside) or key} at {row.factors[key]}: {counts}")
    return "; ".join(said)


def _number(row: Configuration, key: str) -> float:
    try:
        return float(row.factors[key])
    except (KeyError, ValueError):
        return math.nan


def _label(row: Configuration, keys: Sequence[str]) -> str:
    return " · ".join(row.factors[k] for k in keys)


def response_figures(response: Response, rate: str) -> list[Figure]:
    """The curves, and the share of clipped steps on an axis of its own."""
    where = f" ({response.facet})" if response.facet else ""
    found = []
    for lines, what in ((response.lines, f"Test {rate}"), (response.clipped, "Steps clipped")):
        title = f"{what} against {response.key}{where}"
        numbers = [
            response.names.index(line.label) if line.label in response.names else i for i, line in enumerate(lines)
        ]
        label = f"{what[0].lower()}{what[1:]} %{where}"
        svg = line_chart(lines, title, response.key, label, log=response.log, numbers=numbers)
        note = f"No result: {response.lost}." if response.lost and lines is response.lines else ""
        found.append(of_lines(title, svg, lines, response.key, percent, short)._replace(note=note))
    return [figure for figure in found if figure]
