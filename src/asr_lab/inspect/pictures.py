"""Pictures of attention and saliency (matplotlib), written whole or not at all."""

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_lab.errors import ConfigError
from asr_lab.files import write_atomic

if TYPE_CHECKING:
    from asr_lab.inspect.attention import Map
    from asr_lab.inspect.saliency import Saliency

ENDINGS = (".png", ".svg", ".pdf")
PANEL = 2.1  # inches
WEIGHTS, FEATURES, GRADIENT = "Blues", "Greys", "Oranges"


def check_targets(attention: Path | None, saliency: Path | None, graph: Path | None) -> None:
    """
    Raises:
        ConfigError: a name that does not end as a picture's does, or a folder where a file is wanted.
    """
    for option, path, endings in (("attention", attention, (*ENDINGS, "")), ("saliency", saliency, ENDINGS)):
        if path and path.suffix.lower() not in endings:
            folder = " or a folder" if "" in endings else ""
            raise ConfigError(f"--{option} {path}: wanted is a file ending in {', '.join(ENDINGS)}{folder}")
    if graph and graph.suffix.lower() != ".svg":
        raise ConfigError(f"--graph {graph}: wanted is a file ending in .svg")
    for path in (attention, saliency, graph):
        _check_place(path)


def check_picture(option: str, path: Path | None) -> None:
    """
    Raises:
        ConfigError: a name that does not end as a picture's does, a folder, or a place where no file can be.
    """
    if path and path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{option} {path}: wanted is a file ending in {', '.join(ENDINGS)}")
    _check_place(path)


def _check_place(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix and path.is_dir():
        raise ConfigError(f"{path}: is a folder; give the name of a file in it")
    folder = path.parent if path.suffix else path
    nearest_one = next(p for p in (folder, *folder.parents) if p.exists())
    if not nearest_one.is_dir():
        raise ConfigError(f"{path}: cannot be written, {nearest_one} is a file, no folder; choose another")


def draw_attention(target: Path, maps: "list[Map]", seconds: float, source: str) -> list[Path]:
    """One panel a head and layer: all in one picture, or one picture a layer in a folder."""
    if target.suffix:
        return [save(target, _attention(maps, seconds, source))]
    width = len(str(len(maps)))
    return [
        save(target / f"{i:0{width}d}.{m.path}.png", _attention([m], seconds, source)) for i, m in enumerate(maps, 1)
    ]


def draw_saliency(target: Path, found: "Saliency", seconds: float, source: str) -> Path:
    """Features above, what matters below, on one time axis; the labels of the best path where they were emitted."""
    figure = new_figure((9, 5.4))
    above, below = figure.subplots(2, 1, sharex=True)
    extent = (0, seconds, 0, found.feats.shape[1])
    shared = {"aspect": "auto", "origin": "lower", "extent": extent, "interpolation": "nearest"}
    first = above.imshow(found.feats.T.numpy(), cmap=FEATURES, **shared)
    second = below.imshow(found.gradient.T.numpy(), cmap=GRADIENT, vmin=0, **shared)
    for axes, image, what in ((above, first, "feature"), (below, second, "gradient, absolute")):
        axes.set_ylabel("feature number")
        figure.colorbar(image, ax=axes, label=what, pad=0.015, aspect=14)
    below.set_xlabel("time, s")
    for share, text in found.labels:
        below.axvline(share * seconds, color="#0072b2", linewidth=0.5, alpha=0.5)
        below.annotate(
            text.replace(" ", "␣"), (share * seconds, 1.02), xycoords=("data", "axes fraction"), ha="center",
            fontsize=9, color="#0072b2", annotation_clip=False, parse_math=False,
        )  # fmt: skip
    if found.at is not None:
        below.axvline(found.at * seconds, color="#0072b2", linewidth=1, linestyle="--")
    figure.suptitle(f"What changes {found.explained}\n{short(source)}", fontsize=11, parse_math=False)
    return save(target, figure)


def _attention(maps: "list[Map]", seconds: float, source: str) -> Any:
    """Rows are layers, columns heads; each panel has its own scale, from 0 (white) to its largest weight."""
    n_heads = max(len(m.weights) for m in maps)
    n_columns = n_heads if len(maps) > 1 else min(n_heads, 4)
    n_rows = sum(-(-len(m.weights) // n_columns) for m in maps)
    figure = new_figure((max(PANEL * n_columns + 1.0, 5.5), PANEL * n_rows + 1.1))
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    row = 0
    for m in maps:
        for head, weights in enumerate(m.weights):
            axes = grid[row + head // n_columns][head % n_columns]
            axes.imshow(
                weights.numpy(), cmap=WEIGHTS, vmin=0, aspect="auto", extent=(0, seconds, seconds, 0),
                interpolation="nearest",
            )  # fmt: skip
            axes.set_title(f"head {head}, largest {weights.max():.2g}", fontsize=8, pad=3)
        grid[row][0].set_ylabel(f"{m.path.removeprefix('encoder.')}\nquery, s", fontsize=8, parse_math=False)
        row += -(-len(m.weights) // n_columns)
    for axes in grid.flat:
        axes.tick_params(labelsize=7, length=2)
        axes.set_visible(bool(axes.images))
    for axes in grid[-1]:
        axes.set_xlabel("key, s", fontsize=8)
    figure.suptitle(f"Attention weights\n{short(source)}", fontsize=10, parse_math=False)
    return figure


def new_figure(size: tuple[float, float]) -> Any:
    """`size` in inches. Without pyplot, which would look for a screen."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("pictures need matplotlib, not installed; pip install 'asr-lab[pictures]'") from None
    return Figure(figsize=size, layout="constrained", facecolor="white")


def save(target: Path, figure: Any) -> Path:
    """In the format of the target's ending, one of `ENDINGS`.

    Raises:
        ConfigError: it cannot be written there.
    """
    from matplotlib import rc_context

    content = io.BytesIO()
    # No date inside: the same picture is the same file.
    metadata = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[target.suffix.lower()]
    with rc_context({"svg.hashsalt": "asr_lab"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a script that the font has not: a box is drawn
        figure.savefig(content, format=target.suffix[1:].lower(), dpi=130, metadata=metadata)
    return write_file(target, content.getvalue())


def write_file(target: Path, content: bytes) -> Path:
    """
    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        return write_atomic(target, lambda f: f.write(content))
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({os.strerror(error.errno or 0)}); choose another") from None


def short(text: str) -> str:
    """For one line of a title"""
    return text if len(text) <= 90 else text[:89] + "…"
