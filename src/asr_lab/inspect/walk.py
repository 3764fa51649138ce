"""One module step by step: what goes in, its own weights, what its children make of it, what comes out."""

import inspect
import re
from typing import TYPE_CHECKING, Any

from torch import nn

from asr_lab.cost import n_parameters
from asr_lab.errors import ConfigError, nearest
from asr_lab.inspect.numbers import amount, number, shape
from asr_lab.inspect.trace import Call, values

if TYPE_CHECKING:
    from rich.console import Console


def find(network: nn.Module, path: str) -> nn.Module:
    """
    Raises:
        ConfigError: there is no such module; says which names are near, or what is there instead.
    """
    known = dict(network.named_modules())
    if path in known and path:
        return known[path]
    hint = nearest(path, [p for p in known if p])
    if not hint.startswith("; did"):
        above = path
        while above not in known:
            above = above.rpartition(".")[0]
        names = [name for name, _ in known[above].named_children()]
        hint = f"; {above or 'the network'} has: {', '.join(names) or 'no modules inside'}"
    raise ConfigError(f"--module {path}: there is no such module{hint}")


def walk(network: nn.Module, calls: list[Call], path: str, depth: int) -> dict[str, Any]:
    """The first call of a module, and the calls inside it down to `depth` levels, in their order.

    A module that is not called itself, such as a ModuleList, is shown by the calls of what is in it.
    """
    module = find(network, path)
    own = [call for call in calls if call.path == path]
    by_parent: dict[int | None, list[Call]] = {}
    for call in calls:
        by_parent.setdefault(call.parent, []).append(call)
    if own:
        inside = by_parent.get(own[0].index, [])
    else:
        within = {call.index for call in calls if call.path.startswith(f"{path}.")}
        inside = [calls[i] for i in sorted(within) if calls[i].parent not in within]
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {
        "path": path,
        "class": type(module).__name__,
        "about": about(module, whole=True),
        "shapes": shapes(module),
        "n_calls": len(own),
        "inputs": [v._asdict() for v in own[0].inputs] if own else [],
        "own": [v._asdict() for name, x in tensors for v in values(name, x)],
        "parameters": n_parameters(module),
        "macs": sum(call.macs for call in own or inside),
        "steps": [_step(call, by_parent, depth, path) for call in inside],
        "outputs": [v._asdict() for v in own[0].outputs] if own else [],
    }


def _step(call: Call, by_parent: dict[int | None, list[Call]], depth: int, above: str) -> dict[str, Any]:
    deeper = by_parent.get(call.index, []) if depth > 1 else []
    return {
        "path": call.path,
        "name": call.path.removeprefix(f"{above}."),
        "class": type(call.module).__name__,
        "about": about(call.module),
        "macs": call.macs,
        "inputs": [v._asdict() for v in call.inputs],
        "outputs": [v._asdict() for v in call.outputs],
        "steps": [_step(c, by_parent, depth - 1, call.path) for c in deeper],
    }


def about(module: nn.Module, whole: bool = False) -> str:
    """What its class's docstring says: the first sentence, or all of it for our own and a user's classes."""
    text = inspect.cleandoc(type(module).__doc__ or "")
    if whole and not type(module).__module__.startswith("torch."):
        return text
    first = " ".join(text.partition("\n\n")[0].split())
    first = re.sub(r":\w+:`~?([^`]*)`", r"\1", first).replace("`", "")  # reStructuredText
    return re.split(r"(?<=[.:]) (?=[A-Z(])", first, maxsplit=1)[0]


def shapes(module: nn.Module) -> str:
    """Shapes in and out, where `forward` says them."""
    text = inspect.cleandoc(type(module).forward.__doc__ or "").partition("\n\n")[0]
    return " ".join(text.split()) if "->" in text else ""


def print_walk(answer: dict[str, Any], source: str, console: "Console") -> None:
    from rich.text import Text

    def say(text: str = "", style: str = "", indent: int = 0) -> None:
        console.print(Text(" " * indent + text, style=style), soft_wrap=True)

    say(f"{answer['path']}: {answer['class']}", "bold")
    for line in filter(None, [*answer["about"].splitlines(), answer["shapes"]]):
        say(line, indent=2)
    say(f"{answer['parameters']:,} parameters, {amount(answer['macs']) or 'no'} MACs; features: {source}", "dim", 2)
    if answer["n_calls"] > 1:
        say(f"called {answer['n_calls']} times; this is the first call", indent=2)
    if not answer["n_calls"]:
        say("not called itself; these are the calls inside" if answer["steps"] else "never called in this pass", "", 2)
    for title in ("inputs", "own"):
        if answer[title]:
            say("own parameters and buffers" if title == "own" else title, "bold cyan")
            for v in answer[title]:
                _say_values(v, say, 2, corner=True)
    if answer["steps"]:
        say("steps inside, in the order of the calls", "bold cyan")
        _say_steps(answer["steps"], say, 2, "")
    if answer["outputs"]:
        say("outputs", "bold cyan")
        for v in answer["outputs"]:
            _say_values(v, say, 2, corner=True)


def _say_steps(steps: list[dict[str, Any]], say: Any, indent: int, prefix: str) -> None:
    for number_, step in enumerate(steps, 1):
        label = f"{prefix}{number_}"
        macs = f", {amount(step['macs'])} MACs" if step["macs"] else ""
        say(f"{label} {step['name']}: {step['class']}{macs}", "bold", indent)
        if step["about"]:
            say(step["about"], "dim", indent + 2)
        for title in ("inputs", "outputs"):
            for v in step[title]:
                _say_values(v, say, indent + 2, corner=False, sign="in " if title == "inputs" else "out")
        _say_steps(step["steps"], say, indent + 4, f"{label}.")


def _say_values(v: dict[str, Any], say: Any, indent: int, corner: bool, sign: str = "") -> None:
    text = f"{sign} {v['name']:<8} {shape(v['shape'])} {v['dtype']}".lstrip()
    if v["dtype"] in ("int", "float"):
        text, corner = f"{sign} {v['name']:<8} {v['corner'][0][0]:g}".lstrip(), False
    if v["mean"] is not None and v["dtype"] == "bool":
        text += f"  {100 * v['mean']:.3g} % true"
    elif v["mean"] is not None:
        text += f"  mean {number(v['mean'])}  std {number(v['std'])}  from {number(v['min'])} to {number(v['max'])}"
    if v["n_nonfinite"]:
        text += f"  {v['n_nonfinite']:,} of them NaN or infinite"
    say(text, indent=indent)
    if corner and v["dtype"] != "bool":
        for row in v["corner"]:
            say("".join(f"{number(x):>11}" for x in row), "dim", indent)
