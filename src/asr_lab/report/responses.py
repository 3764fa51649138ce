"""Response curves: the score against a number that was swept, such as a clipping threshold or a learning rate."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from asr_lab.report.configurations import Configuration
from asr_lab.report.svg import Line, line_chart

LEAST = 3  # values that make a curve


class Response(NamedTuple):
    """One picture: lines over the values of `key`, where all factors in `facet` have the value that it names."""

    key: str  # clipping.threshold
    facet: str  # "bilstm"; "" when nothing else was swept
    lines: tuple[Line, ...]  # score, its interval as the band; of one point where a choice has one value, or none
    clipped: tuple[Line, ...]  # share of clipped steps, its range over seeds; empty unless it differs
    log: bool


def responses(rows: Sequence[Configuration], swept: Sequence[str]) -> list[Response]:
    """A response for each swept number and each combination of the other factors.

    A choice of the number's own group (`clipping` for `clipping.threshold`) is a line; one without the number, or with
    one value of it, is a line of one point, drawn across for comparison.
    """
    rows = [row for row in rows if row.done and math.isfinite(row.rate.value)]
    found = []
    for key in swept:
        if sum(math.isfinite(x) for x in {_number(row, key) for row in rows}) < LEAST:
            continue
        group = key.partition(".")[0]
        inside = [k for k in swept if k == group]
        facets = [k for k in swept if k not in (key, group)]
        for facet in dict.fromkeys(_label(row, facets) for row in rows):
            here = [row for row in rows if _label(row, facets) == facet]
            found += _response(key, facet, here, inside)
    return found


def _response(key: str, facet: str, rows: list[Configuration], inside: list[str]) -> list[Response]:
    lines, clipped = [], []
    for name in dict.fromkeys(_label(row, inside) for row in rows):
        of_name = sorted((row for row in rows if _label(row, inside) == name), key=lambda row: _number(row, key))
        if len(of_name) > 1:
            of_name = [row for row in of_name if math.isfinite(_number(row, key))]
        xs = [_number(row, key) for row in of_name]
        if len(xs) == 1:
            xs = [math.nan]
        rates = [row.rate for row in of_name]
        low = [r.low if math.isfinite(r.low) else r.value for r in rates]
        high = [r.high if math.isfinite(r.high) else r.value for r in rates]
        lines.append(Line(name or key, xs, [r.value for r in rates], low, high))
        spreads = [row.columns["train/clipped"] for row in of_name]
        if len(xs) > 1 and all(math.isfinite(s.mean) for s in spreads) and len({s.mean for s in spreads}) > 1:
            clipped.append(
                Line(
                    "steps clipped", xs, [s.mean for s in spreads], [s.low for s in spreads], [s.high for s in spreads]
                )
            )
    curves = [line for line in lines if len(line.xs) >= LEAST]
    if not curves:
        return []
    xs = sorted({x for line in curves for x in line.xs})
    lines = [line._replace(xs=[xs[-1]]) if len(line.xs) == 1 else line for line in lines]
    lines.sort(key=lambda line: -len(line.xs))  # curves first
    return [Response(key, facet, tuple(lines), tuple(clipped), xs[0] > 0 and xs[-1] / xs[0] >= 10)]


def _number(row: Configuration, key: str) -> float:
    try:
        return float(row.factors[key])
    except (KeyError, ValueError):
        return math.nan


def _label(row: Configuration, keys: Sequence[str]) -> str:
    return " · ".join(row.factors[k] for k in keys)


def response_chart(response: Response, rate: str) -> Markup:
    """The curves, and under them the share of clipped steps on an axis of its own."""
    where = f" ({response.facet})" if response.facet else ""
    title = f"Test {rate} against {response.key}{where}"
    chart = line_chart(response.lines, title, response.key, f"test {rate} %{where}", log=response.log)
    if response.clipped:
        title = f"Steps clipped against {response.key}{where}"
        chart += line_chart(response.clipped, title, response.key, f"steps clipped %{where}", log=response.log)
    return Markup("<div>{}</div>").format(chart)
