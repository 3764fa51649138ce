"""The layer table: one row a module, as far down as is asked for."""

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from asr_lab.cost import n_parameters
from asr_lab.inspect.features import Features
from asr_lab.inspect.numbers import amount, number, shape
from asr_lab.inspect.trace import Call

if TYPE_CHECKING:
    from rich.console import Console


class Row(NamedTuple):
    """A module. Shapes, mean and std are those of its first call; MACs are those of all its calls."""

    path: str
    depth: int
    kind: str  # name of its class
    n_calls: int
    input: tuple[int, ...] | None
    output: tuple[int, ...] | None
    parameters: int
    macs: int
    mean: float | None
    std: float | None


def rows(network: nn.Module, calls: list[Call], depth: int) -> list[Row]:
    """Modules down to `depth` names, in the order of their first call; those that nobody calls come last."""
    by_path: dict[str, list[Call]] = {}
    for call in calls:
        by_path.setdefault(call.path, []).append(call)
    return list(_below(network, "", 0, depth, by_path))


def macs(path: str, by_path: dict[str, list[Call]]) -> int:
    """Of a module's own calls; of what is inside it where nobody calls it (a ModuleList)."""
    if path in by_path:
        return sum(call.macs for call in by_path[path])
    inside = {c.index for p, cs in by_path.items() if p.startswith(f"{path}.") for c in cs}
    top = [c for cs in by_path.values() for c in cs if c.index in inside and c.parent not in inside]
    return sum(call.macs for call in top)


def _below(module: nn.Module, path: str, depth: int, deepest: int, by_path: dict[str, list[Call]]):
    if depth == deepest:
        return
    never = 1 << 60
    firsts = {p: cs[0].index for p, cs in by_path.items()}

    def first_call(item: tuple[str, nn.Module]) -> int:
        own = f"{path}.{item[0]}".lstrip(".")
        return min((i for p, i in firsts.items() if p == own or p.startswith(f"{own}.")), default=never)

    for name, child in sorted(module.named_children(), key=first_call):
        own = f"{path}.{name}".lstrip(".")
        calls = by_path.get(own, [])
        first = calls[0] if calls else None
        came = first.inputs[0].shape if first and first.inputs else None
        went = first.outputs[0] if first and first.outputs else None
        yield Row(
            path=own,
            depth=depth,
            kind=type(child).__name__,
            n_calls=len(calls),
            input=came,
            output=went.shape if went else None,
            parameters=n_parameters(child),
            macs=macs(own, by_path),
            mean=went.mean if went else None,
            std=went.std if went else None,
        )
        yield from _below(child, own, depth + 1, deepest, by_path)


def as_json(network: nn.Module, calls: list[Call], features: Features, depth: int) -> dict[str, Any]:
    """The table and its totals."""
    return {
        "features": {"source": features.source, "seconds": features.seconds, "shape": list(features.feats.shape)},
        "modules": [row._asdict() for row in rows(network, calls, depth)],
        "parameters": n_parameters(network),
        "macs": calls[0].macs,
        "macs_per_audio_second": round(calls[0].macs / features.seconds),
    }


def print_table(answer: dict[str, Any], console: "Console") -> None:
    """What `as_json` gave, as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("module", no_wrap=True)
    table.add_column("class", overflow="ellipsis", min_width=10, style="cyan")  # the one that gives way
    for name in ("input", "output", "params", "MACs", "mean", "std"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in answer["modules"]:
        name = "  " * row["depth"] + row["path"].rpartition(".")[2]
        calls = f" ({row['n_calls']} calls)" if row["n_calls"] > 1 else ""
        table.add_row(
            Text(name, style="bold" if row["depth"] == 0 else ""),
            Text(row["kind"] + calls),
            shape(row["input"]),
            shape(row["output"]),
            f"{row['parameters']:,}",
            amount(row["macs"]),
            number(row["mean"], rough=True),
            number(row["std"], rough=True),
        )
    console.print(Text(answer["features"]["source"], style="bold"), soft_wrap=True)
    console.print(table)
    console.print(
        f"{answer['parameters']:,} parameters, {amount(answer['macs'])} MACs in this pass, "
        f"{amount(answer['macs_per_audio_second'])} MACs a second of audio",
        highlight=False,
        soft_wrap=True,
    )
