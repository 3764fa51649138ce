"""Charts of one row for each rate."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from asr_lab.report.stats import Interval
from asr_lab.report.svg import SIDE, WIDTH, cut, frame, marker, style, tag, text_at, ticks


def interval_chart(rows: Sequence[tuple[str, Interval, Sequence[float]]], title: str) -> Markup:
    """One row per (label, interval, seeds' values), in percent: a bar for the interval, a marker for the mean, rings
    for the seeds."""
    known = [x for _, i, seeds in rows for x in (*i, *seeds) if math.isfinite(x)]
    if not known:
        return Markup("")
    marks = ticks(100 * min(known), 100 * max(known))
    height = 44 * len(rows) + 44

    def x(share: float) -> float:
        return SIDE + (100 * share - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - 2 * SIDE)

    parts = [frame(title, height, "The table below holds the same numbers.")]
    for mark in marks:
        at = x(mark / 100)
        parts.append(tag("line", cls="grid", x1=at, x2=at, y1=8, y2=height - 32))
        parts.append(text_at(f"{mark:g} %", at, height - 14, anchor="middle"))
    for number, (label, interval, seeds) in enumerate(rows):
        y, colour = 44 * number + 38, style(number)
        note = f"{100 * interval.value:.1f} %"
        if math.isfinite(interval.low):
            note += f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
            ends = {"x1": x(interval.low), "x2": x(interval.high), "y1": y, "y2": y}
            parts.append(tag("line", cls=f"bar {colour}", title=f"{label}: {note}", **ends))
        parts.append(text_at(cut(label, 34), SIDE, y - 12, cls="strong"))
        parts.append(text_at(note, WIDTH - SIDE, y - 12, anchor="end"))
        parts += [tag("circle", cls=f"ring {colour}", cx=x(s), cy=y, r=4) for s in seeds if math.isfinite(s)]
        if math.isfinite(interval.value):
            parts.append(marker(number, x(interval.value), y, 5.5, title=label))
    return Markup("\n").join([*parts, Markup("</svg>")])


def bar_chart(rows: Sequence[tuple[str, Interval]], title: str) -> Markup:
    """One horizontal bar for each (label, interval) of shares, drawn in percent from 0, with the interval as a line."""
    known = [x for _, found in rows for x in found if math.isfinite(x)]
    if not known:
        return Markup("")
    marks = ticks(0, 100 * max(known))
    height = 40 * len(rows) + 34

    def x(share: float) -> float:
        return SIDE + 100 * share / marks[-1] * (WIDTH - 2 * SIDE)

    parts = [frame(title, height)]
    for mark in marks:
        at = x(mark / 100)
        parts.append(tag("line", cls="grid", x1=at, x2=at, y1=4, y2=height - 24))
        parts.append(text_at(f"{mark:g} %", at, height - 8, anchor="middle"))
    for number, (label, found) in enumerate(rows):
        y = 40.0 * number + 20
        if not math.isfinite(found.value):
            continue
        note = f"{100 * found.value:.1f} %"
        box = {"x": x(0), "y": y + 4, "width": x(found.value) - x(0), "height": 10.0}
        parts.append(tag("rect", cls="column c0", title=f"{label}: {note}", **box))
        if math.isfinite(found.low):
            note += f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
            parts.append(tag("line", cls="bar c6", x1=x(found.low), x2=x(found.high), y1=y + 9, y2=y + 9))
        parts.append(text_at(cut(label, 34), SIDE, y, cls="strong"))
        parts.append(text_at(note, WIDTH - SIDE, y, anchor="end"))
    return Markup("\n").join([*parts, Markup("</svg>")])
