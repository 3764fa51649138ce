"""The length scaling as one SVG: time above, memory below, a column for each kind of encoder. No script, no fonts."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from asr_lab.report.svg import N_COLOURS, style

KINDS = ("recurrent", "convolution, state space", "self-attention")
TITLE = "Time and memory of a training step over the length of the utterances"
PLOT_W, PLOT_H, LABEL_W, TOP, GAP, LEFT = 190, 200, 140, 46, 74, 54
LINE = 13  # least distance of two labels
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b57b00", "#56b4e9", "#333333")
DARK = ("#3d9be0", "#ee7733", "#1fbf92", "#dd9bc0", "#f0b429", "#7cc8f2", "#dddddd")


class Axis(NamedTuple):
    """A logarithmic axis from `low` to `high`, over `length` units."""

    low: float
    high: float
    length: float

    def at(self, value: float) -> float:
        return self.length * math.log(value / self.low) / math.log(self.high / self.low)

    def marks(self) -> list[float]:
        """Powers of ten with 2 and 5 between them."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        values = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
        return [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]


def scaling_chart(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of encoder_speed.scaling -> SVG."""
    rows = [r for r in rows if "step_s" in r]
    measures = (
        ("training step, ms for each second of speech", lambda r: 1e3 * r["step_s"] / (r["batch"] * r["seconds"])),
        ("memory of a step, MiB", lambda r: max(r["memory_mib"], 1.0)),
    )
    xs = Axis(min(r["seconds"] for r in rows), max(r["seconds"] for r in rows), PLOT_W)
    width, height = LEFT + len(KINDS) * (PLOT_W + LABEL_W), TOP + 2 * (PLOT_H + GAP)
    parts = [_head(width, height)]
    for row, (title, measure) in enumerate(measures):
        values = [measure(r) for r in rows]
        ys = Axis(min(values) * 0.9, max(values) * 1.1, PLOT_H)
        for column, kind in enumerate(KINDS):
            x, y = LEFT + column * (PLOT_W + LABEL_W), TOP + row * (PLOT_H + GAP)
            parts.append(f'<g transform="translate({x},{y})">')
            parts += _grid(xs, ys, labelled=column == 0)
            parts.append(_text(f"{kind}: {title}" if column == 0 else kind, 0, -12, "strong"))
            parts.append(_text("length of an utterance, s", PLOT_W / 2, PLOT_H + 34, "middle"))
            parts += _curves([r for r in rows if r["kind"] == kind], measure, xs, ys)
            parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _head(width: float, height: float) -> str:
    def colours(values: Sequence[str]) -> str:
        return " ".join(f".c{i} {{ --c: {value} }}" for i, value in enumerate(values))

    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
 font-family="sans-serif"><title>{TITLE}</title>
<style>
svg {{ --ink: #333; --line: #ddd; --page: #fff }} {colours(LIGHT)}
@media (prefers-color-scheme: dark) {{ svg {{ --ink: #ddd; --line: #444; --page: #1e2129 }} {colours(DARK)} }}
text {{ fill: var(--ink); font-size: 11px }} .strong {{ font-weight: bold }}
.middle {{ text-anchor: middle }} .end {{ text-anchor: end }}
.grid {{ stroke: var(--line) }} .curve {{ stroke: var(--c); fill: none; stroke-width: 1.8 }}
.dashed {{ stroke-dasharray: 5 3 }}
.lead {{ stroke: var(--c); stroke-width: 0.6; fill: none }} circle {{ fill: var(--c) }}
</style>
<rect width="100%" height="100%" fill="var(--page)"/>"""


def _grid(xs: Axis, ys: Axis, labelled: bool) -> list[str]:
    parts = []
    for mark in ys.marks():
        y = PLOT_H - ys.at(mark)
        parts.append(f'<line class="grid" x1="0" x2="{PLOT_W}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if labelled:
            parts.append(_text(f"{mark:g}", -6, y + 4, "end"))
    for mark in (2, 5, 10, 20, 60):
        if xs.low <= mark <= xs.high:
            parts.append(_text(f"{mark:g}", xs.at(mark), PLOT_H + 16, "middle"))
    return parts


def _curves(rows: Sequence[dict[str, Any]], measure: Any, xs: Axis, ys: Axis) -> list[str]:
    curves = {}
    for name in dict.fromkeys(r["encoder"] for r in rows):
        mine = sorted((r for r in rows if r["encoder"] == name), key=lambda r: r["seconds"])
        curves[name] = [(xs.at(r["seconds"]), PLOT_H - ys.at(measure(r))) for r in mine]
    labels = _apart([points[-1][1] for points in curves.values()])
    parts = []
    for number, (name, points) in enumerate(curves.items()):
        colour, (x, y) = style(number % (2 * N_COLOURS)), points[-1]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="curve {colour}" points="{line}"><title>{escape(name)}</title></polyline>')
        parts += [f'<circle class="{colour}" cx="{a:.1f}" cy="{b:.1f}" r="2"/>' for a, b in points]
        lead = f"{x:.1f},{y:.1f} {PLOT_W + 10},{labels[number]:.1f}"
        parts.append(f'<polyline class="lead {colour}" points="{lead}"/>')
        parts.append(_text(name, PLOT_W + 13, labels[number] + 4))
    return parts


def _apart(ys: Sequence[float]) -> list[float]:
    """Heights near `ys`, at least a line apart, as low as the plot at most."""
    placed, last = [0.0] * len(ys), -math.inf
    order = sorted(range(len(ys)), key=lambda i: ys[i])
    for i in order:
        placed[i] = last = max(ys[i], last + LINE)
    limit = float(PLOT_H)
    for i in reversed(order):
        placed[i] = limit = min(placed[i], limit)
        limit -= LINE
    return placed


def _text(text: str, x: float, y: float, cls: str = "") -> str:
    return f'<text class="{cls}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
