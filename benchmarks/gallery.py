"""Pictures of the report, the dashboard and a comparison for the README and the documentation.

    python benchmarks/gallery.py                     the runs of `ARCHIVE` -> docs/pictures/*.png
    python benchmarks/gallery.py --pack FOLDER       outputs/smoke of a finished sweep -> `ARCHIVE`

The archive holds what the runs left, without checkpoints: configurations, results, curves, hypotheses, and the
gradients of one run. Nothing of the pictures is drawn by hand. Needs Debian's Chromium and playwright.
"""

import argparse
import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from asr_lab.report.render import render
from page_clients import served

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "experiments" / "results" / "smoke" / "runs.tar.xz"
PICTURES = ROOT / "docs" / "pictures"
KEPT = ("config.yaml", "result.json", "metrics.jsonl", "progress.json", "hyps.test.jsonl", "hyps.val.jsonl")
WITH_GRADIENTS = "encoder=bilstm,clipping=norm,seed=1-"  # of the run whose gradients are kept too
MOST_BYTES = 200_000  # of a picture


class Shot(NamedTuple):
    """One picture."""

    name: str
    page: str  # the report's file, or what stands after the dashboard's address
    part: str = ""  # a CSS selector; "" for the top of the page
    width: int = 1200
    height: int = 800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, metavar="FOLDER")
    parser.add_argument("--to", type=Path, default=PICTURES, metavar="FOLDER")
    options = parser.parse_args()
    if options.pack:
        print(f"{pack(options.pack)}: {ARCHIVE.stat().st_size / 1000:.0f} kB")
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in gallery(unpack(Path(folder)), options.to):
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def pack(folder: Path) -> Path:
    """An archive of the same bytes for the same files."""
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    files = [folder / "sweep.json", *sorted(folder.glob("ledger/*.jsonl"))]
    files += [path for name in KEPT for path in sorted(folder.glob(f"*/{name}"))]
    files += sorted(folder.glob(f"{WITH_GRADIENTS}*/*.npz"))
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for path in files:
            entry = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder)}")
            entry.size, entry.mode = path.stat().st_size, 0o644
            archive.addfile(entry, io.BytesIO(path.read_bytes()))
    return ARCHIVE


def unpack(folder: Path) -> Path:
    """The experiment's folder, in `folder`/outputs."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder / "outputs", filter="data")
    return folder / "outputs" / "smoke"


def gallery(experiment: Path, to: Path) -> Iterator[Path]:
    """Write all pictures of an experiment's folder to the folder `to`."""
    to.mkdir(parents=True, exist_ok=True)
    render(experiment)
    compared = experiment / "compared.html"
    compared.write_text(comparison(experiment))
    shots = [
        Shot("report", "report.html", height=1150),
        *(Shot(f"report_{part}", "report.html", f"section[aria-labelledby={part}]") for part in ("pairs", "curves")),
        *(Shot(f"report_{part}", "report.html", f"section[aria-labelledby={part}]") for part in ("norms", "costs")),
        Shot("report_phone", "report.html", width=390, height=844),
        Shot("compare", "compared.html", "pre", width=1000),
    ]
    with browser() as opened:
        for shot in shots:
            yield taken(opened, shot, f"file://{experiment / shot.page}", to)
        with served(experiment.parent) as (port, _):
            for shot in _of_dashboard(experiment):
                yield taken(opened, shot, f"http://127.0.0.1:{port}/{shot.page}", to)


def _of_dashboard(experiment: Path) -> list[Shot]:
    runs = sorted(path.parent.name for path in experiment.glob("*/result.json"))
    shown = next(name for name in runs if name.startswith(WITH_GRADIENTS))
    other = next(name for name in runs if "conformer" in name and "norm" in name)
    home, a, b = f"#/e/{experiment.name}", quote(shown, safe=""), quote(other, safe="")
    return [
        Shot("dashboard", home),
        Shot("dashboard_curves", f"{home}/curves"),
        Shot("dashboard_factors", f"{home}/factors"),
        Shot("dashboard_utterances", f"{home}/r/{a}/utterances"),
        Shot("dashboard_gradients", f"{home}/r/{a}/gradients"),
        Shot("dashboard_compare", f"#/compare/{experiment.name}/{a}/{experiment.name}/{b}"),
    ]


def comparison(experiment: Path) -> str:
    """A page of what `asr-lab compare` prints for the two encoders, clipped by norm."""
    from rich.console import Console

    from asr_lab.report.compare import compare
    from asr_lab.report.compare_table import print_compared
    from asr_lab.report.sides import sides_of

    choices = [f"encoder={encoder},clipping=norm" for encoder in ("bilstm", "conformer")]
    found = compare(sides_of(choices, experiment.parent, "test", experiment.name, seeds=False), "test")
    console = Console(record=True, width=92, file=io.StringIO(), highlight=False, force_terminal=True)
    print_compared(found, console, top=3, tests=False)
    style = "<style>body{margin:0}pre{display:inline-block;margin:0;padding:16px;font:14px/1.35 monospace}</style>"
    return console.export_html(inline_styles=True).replace("<head>", f"<head>{style}", 1)


@contextmanager
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("gallery: playwright is not installed; pip install playwright (its own browser is not needed)")
    if chromium is None:
        sys.exit("gallery: no chromium on the PATH; apt-get install chromium")
    with sync_playwright() as p:
        opened = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--hide-scrollbars"])
        yield opened
        opened.close()


def taken(opened: Any, shot: Shot, address: str, to: Path) -> Path:
    page = opened.new_page(viewport={"width": shot.width, "height": shot.height})
    page.goto(address, wait_until="networkidle")
    page.wait_for_timeout(1000)  # what is drawn after the data has come
    whole = page.locator(shot.part).first.screenshot() if shot.part else page.screenshot()
    page.close()
    return optimised(whole, to / f"{shot.name}.png")


def optimised(png: bytes, path: Path) -> Path:
    """As few colours, then as few pixels, as make the file small."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    colours, scale = 256, 1.0
    while True:
        size = (round(image.width * scale), round(image.height * scale))
        made = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
        made.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return path
        colours, scale = (colours // 2, scale) if colours > 64 else (colours, 0.8 * scale)


if __name__ == "__main__":
    main()
