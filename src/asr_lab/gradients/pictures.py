"""Pictures of what gradients do (matplotlib)."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_lab.inspect.pictures import new_figure, save, short

if TYPE_CHECKING:
    from asr_lab.gradients.range_test import Advice, RangeTest
    from asr_lab.gradients.through_time import ThroughTime

LOWEST, HIGHEST = 1e-8, 1e4  # gains that are shown; lines beyond leave the picture
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"


def draw_through_time(target: Path, found: "ThroughTime", source: str) -> Path:
    """The gain over the lag, one line a cell: the first look on the left, the last on the right."""
    from matplotlib import colormaps

    looks = [0] if len(found.steps) == 1 else [0, len(found.steps) - 1]
    figure = new_figure((4.2 * len(looks) + 1.8, 4.2))
    panels = figure.subplots(1, len(looks), sharey=True, squeeze=False)[0]
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(found.cells)))
    lags = np.arange(found.logs.shape[2])
    with np.errstate(over="ignore"):
        gains = np.exp(found.logs.astype(np.float64))
    for axes, look in zip(panels, looks, strict=True):
        for level in (0.5, 0.01):
            axes.axhline(level, color=GREY, linewidth=0.6, linestyle=":")
        for name, colour, gain in zip(found.cells, colours, gains[look], strict=True):
            is_back = name.endswith("cells.1")
            axes.plot(
                lags, np.maximum(gain, 1e-300), color=colour, linestyle="--" if is_back else "-",
                linewidth=1.4, label=name.removeprefix("encoder."),
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_title(f"after {found.steps[look]} steps", fontsize=10)
        axes.set_xlabel("lag, encoder frames")
    shown = gains[looks][np.isfinite(gains[looks])]
    top, bottom = (np.clip(x, LOWEST, HIGHEST) for x in (shown.max(initial=1.0), shown.min(initial=0.01)))
    panels[0].set_ylim(bottom / 2, 3 * top)
    panels[0].set_ylabel("gradient, relative to lag 0")
    panels[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle(f"Gradients through time\n{short(source)}", fontsize=10, parse_math=False)
    return save(target, figure)


def draw_range_test(target: Path, test: "RangeTest", advice: "Advice", source: str) -> Path:
    """The loss over the learning rate, as it came and smoothed, and what is suggested."""
    figure = new_figure((7.2, 4.2))
    axes = figure.subplots()
    axes.plot(test.lrs, test.losses, color=GREY, linewidth=0.6, alpha=0.7, label="loss of a batch")
    axes.plot(test.lrs, advice.smoothed, color=BLUE, linewidth=1.6, label="smoothed")
    marks: dict[str, tuple[float | None, str]] = {
        "steepest descent": (advice.steepest, "-"),
        "a tenth of the lowest": (advice.tenth, "--"),
        "lowest": (advice.lowest, ":"),
    }
    for name, (lr, style) in marks.items():
        if lr is not None:
            axes.axvline(lr, color=ORANGE, linewidth=1.0, linestyle=style, label=f"{name}: {lr:.2g}")
    low, start = float(np.min(advice.smoothed)), float(advice.smoothed[0])
    axes.set_ylim(low - 0.15 * (start - low) - 1e-12, start + 0.6 * max(start - low, 0.1 * abs(start)))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"Learning-rate range test\n{short(source)}", fontsize=10, parse_math=False)
    return save(target, figure)
