"""What every encoder family costs at each size, and the sizes at which all of them have as many parameters.

    python benchmarks/equal_footing.py [--target 3e6] [--write-docs]

Counts, no times: the same numbers everywhere. --write-docs puts the tables between the markers of
docs/equal_footing.md.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from asr_lab import schema
from asr_lab.build import call, make
from asr_lab.cost import cost, frames_per_second
from asr_lab.errors import ConfigError
from asr_lab.match import describe
from asr_lab.paths import conf_dir
from asr_lab.report.formats import short
from asr_lab.sweep.cell import SIZES, register_resolvers, resolved

PAGE = Path(__file__).parents[1] / "docs" / "equal_footing.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", type=float, default=3e6, help="parameters of the matched encoders")
    parser.add_argument("--write-docs", action="store_true", help="write the tables into docs/equal_footing.md")
    options = parser.parse_args()
    schema.register()
    register_resolvers()
    names = sorted(p.stem for p in (conf_dir() / "encoder").glob("[!_]*.yaml"))
    text = f"{sizes_table(names)}\n\n{matched_table(names, options.target)}"
    print(text)
    if options.write_docs:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


def sizes_table(names: list[str]) -> str:
    """Parameters and MACs at each size."""
    rows = [
        [
            f"`{name}`",
            *(f"{short(c['parameters'])}, {short(c['macs_per_audio_second'])}" for c in costs),
            _field(costs),
        ]
        for name in names
        for costs in [[measured(config(name, f"size={size}")) for size in SIZES]]
    ]
    return _table(["`encoder=`", *(f"`size={size}`" for size in SIZES), "hears before, after"], rows)


def matched_table(names: list[str], target: float) -> str:
    """Each family at one number of parameters."""
    rows = []
    for name in names:
        try:
            found = config(name, "match.by=parameters", f"match.target={target:.0f}")
        except ConfigError as error:
            rows.append([f"`{name}`", str(error), "", ""])
            continue
        c = measured(found)
        rows.append([f"`{name}`", describe(found), short(c["parameters"]), short(c["macs_per_audio_second"])])
    wish = f"`match.by=parameters match.target={target:.0f}`"
    return _table(["`encoder=`", wish, "parameters", "MACs per second"], rows)


def config(name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolved(compose("config", overrides=[f"encoder={name}", *overrides], return_hydra_config=True))


def measured(config: dict[str, Any]) -> dict[str, Any]:
    frontend = make(config, "frontend")
    head = call(config, "frontend", frontend.head, in_dim=frontend.out_dim)
    with torch.device("meta"):
        encoder = call(config, "encoder", in_dim=head.out_dim)
    found = cost(encoder, head.out_dim, frames_per_second(frontend, head, config["data"]["sample_rate"]))
    return {k: math.nan if v is None else v for k, v in found.items()}


def _field(costs: list[dict[str, Any]]) -> str:
    """Of the small size."""
    sides = costs[1].get("receptive_field_s", ["unknown", "unknown"])
    return ", ".join("all" if s is None else s if isinstance(s, str) else f"{s:.2f} s" for s in sides)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
