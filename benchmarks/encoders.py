"""How fast the encoders train: against other libraries, against the machine, and over the length of the utterances.

    python benchmarks/encoders.py [--only peers|utilisation|scaling] [--rounds 7] [--json FILE] [--device cuda]
    python benchmarks/encoders.py --only nothing --json benchmarks/results/encoders.json --write-docs

Tables go to the terminal. With `--json` the parts that were measured replace those in FILE, and the others stay;
`--write-docs` puts what is in FILE into docs/encoders_speed.md and its picture. Other libraries are installed once, in
environments of their own in the cache. Everything together takes about half an hour.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from asr_lab.environment import environment
from asr_lab.files import write_json
from asr_lab.process import keep_freed_memory
from encoder_speed import page, peers, scaling, utilisation

DOCS = Path(__file__).resolve().parents[1] / "docs"
PARTS = ("peers", "utilisation", "scaling")


def main() -> None:
    options = _options()
    console = Console()
    results: dict[str, Any] = {}
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text())
    keep_freed_memory()
    torch.set_num_threads(1)
    for part in PARTS if options.only is None else [p for p in PARTS if p == options.only]:
        console.print(f"[bold]{part}[/]")
        results[part] = _measured(part, options, console)
        results["about"] = about(options.device, results)
        for name, table in page.tables({part: results[part]}).items():
            console.print(table.rich() if table.rows else f"{name}: nothing to show")
        if options.json:
            write_json(options.json, results)
    if options.write_docs:
        page.write_page(DOCS / "encoders_speed.md", DOCS / "images" / "encoders_scaling.svg", results)


def _measured(part: str, options: argparse.Namespace, console: Console) -> Any:
    if part == "peers":
        return peers.measure(options.rounds, options.device, console)
    if part == "utilisation":
        return utilisation.measure(options.rounds, options.device, console)
    return scaling.measure(options.device, console)


def about(device: str, results: dict[str, Any]) -> dict[str, Any]:
    """The machine, and the versions of what was compared."""
    found = environment()
    versions = {"PyTorch": found["torch"], "torchaudio": found["torchaudio"]}
    for name, of in results.get("peers", {}).get("about", {}).items():
        if name in peers.PACKAGES and name.lower() in of:
            versions[name] = of[name.lower()]
    return {
        "device": found["device"] if device == "cuda" else found["cpu"],
        "cores": found["cores"],
        "versions": versions,
    }


def _options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", choices=[*PARTS, "nothing"])
    arguments.add_argument("--rounds", type=int, default=7, help="turns of each of the compared, 3 at least are good")
    arguments.add_argument("--json", type=Path, metavar="FILE")
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--write-docs", action="store_true", help="needs --json")
    options = arguments.parse_args()
    if options.write_docs and not options.json:
        arguments.error("--write-docs needs --json FILE, whose numbers it writes")
    if options.only == "nothing" and not (options.json and options.json.exists()):
        arguments.error("--only nothing needs --json FILE of an earlier run")
    if options.rounds < 1:
        arguments.error(f"--rounds is a positive count, {options.rounds} came")
    if options.device == "cuda" and not torch.cuda.is_available():
        arguments.error("--device cuda: PyTorch sees no GPU here")
    return options


if __name__ == "__main__":
    main()
