"""Charts of counts, drawn as those of svg.py."""

from collections.abc import Sequence

from markupsafe import Markup

from asr_lab.report.svg import BOTTOM, SIDE, TOP, WIDTH, cut, frame, tag, text_at, ticks


def histogram(edges: Sequence[float], counts: Sequence[int], title: str, x_label: str) -> Markup:
    """Bars of `counts` (N) between `edges` (N + 1), each with its numbers as a tooltip."""
    height, left, base = 230, 44, 230 - BOTTOM
    tall, wide = base - TOP, WIDTH - left - SIDE
    y_marks = ticks(0, max(counts), 3)

    def x(value: float) -> float:
        return left + (value - edges[0]) / (edges[-1] - edges[0]) * wide

    parts = [frame(title, height)]
    for mark in (m for m in y_marks if m == round(m)):  # there is no half recording
        y = base - mark / y_marks[-1] * tall
        parts.append(tag("line", cls="grid", x1=left, x2=WIDTH - SIDE, y1=y, y2=y))
        parts.append(text_at(f"{mark:,.0f}", left - 6, y + 4, anchor="end"))
    for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True):
        up, at = n / y_marks[-1] * tall, x(low)
        box = {"x": at + 0.5, "y": base - up, "width": max(x(high) - at - 1, 0.5), "height": up}
        parts.append(tag("rect", cls="column c0", title=f"{low:.3g} to {high:.3g}: {n:,}", **box))
    for mark in (m for m in ticks(edges[0], edges[-1]) if edges[0] <= m <= edges[-1]):
        parts.append(text_at(f"{mark:g}", x(mark), base + 18, anchor="middle"))
    parts.append(text_at(x_label, left + wide / 2, height - 8, anchor="middle"))
    return Markup("\n").join([*parts, Markup("</svg>")])


def heat_map(names: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Markup:
    """A square of `counts` (N, N) with `names` at its rows and columns, darker with the share of the row."""
    left, top = 110, 110
    cell = (WIDTH - left - 4) / max(len(names), 1)
    parts = [frame(title, top + cell * len(names) + 4)]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        middle = cell * (i + 0.5) + 4
        parts.append(text_at(cut(name, 14), left - 6, top + middle, anchor="end", title=name))
        turned = Markup('<g transform="translate({:.1f} {}) rotate(-60)">{}</g>')
        parts.append(turned.format(left + middle, top - 6, text_at(cut(name, 14), 0, 0, title=name)))
        for j, n in enumerate(row):
            box: dict[str, float | str] = {"x": left + cell * j, "y": top + cell * i}
            box |= {"width": cell - 1, "height": cell - 1, "style": "fill: var(--c, #0072b2)"}
            # At least a trace of colour: one mistake among hundreds is what one looks for.
            box["fill-opacity"] = f"{0.15 + 0.85 * n / sum(row):.2f}" if n else "0.03"
            parts.append(tag("rect", cls="c0", title=f"{name} as {names[j]}: {n:,}", **box))
    return Markup("\n").join([*parts, Markup("</svg>")])
