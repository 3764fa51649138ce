"""How numbers are written, the same on every page. A dash where there is no number."""

import math
from collections.abc import Callable

from asr_lab.report.configurations import NOTHING, Spread
from asr_lab.report.stats import Interval


def percent(share: float, signed: bool = False) -> str:
    """0.1234 -> `12.3`; the `%` is left to the column or the sentence."""
    if not math.isfinite(share):
        return NOTHING
    return f"{100 * share:+.1f}".replace("-", "−") if signed else f"{100 * share:.1f}"


def level(share: float) -> str:
    """0.95 -> `95 %`."""
    return f"{100 * share:g} %"


def between(interval: Interval, signed: bool = False) -> str:
    """`10.9 to 13.8`, in percent, or `no interval`."""
    if math.isnan(interval.low):
        return "no interval"
    return f"{percent(interval.low, signed)} to {percent(interval.high, signed)}"


def p_value(p: float) -> str:
    """`0.034`, `< 0.001`; a dash where there is no test."""
    return NOTHING if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.995 else "1"


def enough(n: float) -> str:
    """`1,234`, or `no number is enough`."""
    return f"{n:,.0f}" if n < 1e6 else "no number is enough"


def seconds(value: float) -> str:
    """`45 s`, `12.5 min`, `3.4 h`."""
    if not math.isfinite(value):
        return NOTHING
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def short(value: float) -> str:
    """Three figures: `1.23`, `456`, `7.80 M`."""
    if not math.isfinite(value):
        return NOTHING
    for size, divisor, unit in ((1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k"), (0, 1, "")):
        if abs(value) >= size:
            return (
                f"{value / divisor:#.3g}".removesuffix(".") if abs(value) < 1e3 * divisor else f"{value:.0f}"
            ) + unit
    raise AssertionError


def span(spread: Spread, show: Callable[[float], str]) -> str:
    """The range over seeds, its unit written once; empty where all of them show the same."""
    low, high = show(spread.low), show(spread.high)
    if low == high:
        return ""
    (number, *unit), other = low.split(" "), high.split(" ")[1:]
    return f"{number if unit == other else low} – {high}"


# Heading, unit-giving formatter and explanation of each of a configuration's columns; {score} is WER or CER.
HEADINGS: dict[str, tuple[str, Callable[[float], str], str]] = {
    "val": ("best val {score} %", percent, "validation {score} of the checkpoint that was tested"),
    "train/clipped": (
        "clipped steps %",
        percent,
        "share of training steps whose gradient was clipped; clipping was inert (0 %), a safety net (under 5 %), a "
        "limiter of steps (over 50 %) or in between",
    ),
    "gradients/kept": ("length kept %", percent, "mean share of a step's gradient norm that clipping kept"),
    "parameters": ("parameters", short, "trainable parameters"),
    "encoder/macs_per_audio_second": ("MACs per s", short, "of the encoder, per second of audio"),
    "seconds/train": ("training", seconds, "wall-clock time of training"),
    "audio_seconds_per_second": ("audio s/s", short, "seconds of audio trained on per second"),
    "peak_memory_mb": ("memory MB", short, "peak memory of the run"),
}
