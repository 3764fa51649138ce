"""Equal footing: the width, and where widths are too coarse the depth, at which an encoder costs what is asked for.

`match.by=parameters match.target=3e6` turns `d_model` (or `d_hidden`) and `n_layers` of the encoder, whatever its
family. The numbers found stand in the frozen configuration as if they had been written by hand.
"""

import contextlib
import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from asr_lab.build import call, check, make
from asr_lab.cost import COUNTED_S, counted_frames, frames_per_second, macs, n_parameters
from asr_lab.errors import ConfigError, nearest
from asr_lab.files import write_json
from asr_lab.paths import cache_dir
from asr_lab.step_time import step_times

UNITS = {
    "parameters": "parameters",
    "macs": "multiply-accumulate operations a second of audio",
    "step_time": "seconds a training step",
}
TOLERANCE = {"parameters": 0.03, "macs": 0.03, "step_time": 0.1}  # step_time: as near as measuring allows
WIDTHS = ("d_model", "d_hidden")
MAX_WIDTH = 16384
MAX_STEP = 64  # between widths: heads and the like that must divide them
ALIGNED = 8  # matrix kernels like such widths, so they come first

_kept: dict[str, dict[str, int]] = {}


def matched(config: dict[str, Any], encoder_of: Callable[[dict[str, int]], dict[str, Any]] | None = None) -> dict:
    """The resolved configuration with the encoder's sizes as `match` asks; the same one where that asks for nothing.

    The preset's depth is kept if a width at it is within 3 % of the target, and changed as little as possible if not. A
    configuration that was matched before stays as it is.

    Args:
        encoder_of: the encoder's node for given sizes, where other keys of it follow them.

    Raises:
        ConfigError: `match` is wrong, the encoder has no width to turn, or no width meets the target.
    """
    by, target = _wanted(config.get("match") or {"by": "none"})
    if by == "none":
        return config
    encoder_of = encoder_of or (lambda sizes: config["encoder"] | sizes)
    memory = _Memory(config, by, target)
    sizes = memory.recall()
    if sizes is None:
        check({group: config[group] for group in ("frontend", "encoder")})
        sizes = _Family.of(config, by, encoder_of).solve(target)
        memory.keep(sizes)
    config = config | {"encoder": encoder_of(sizes)}
    _Memory(config, by, target).keep(sizes)
    return config


def describe(encoder: dict[str, Any]) -> str:
    """`d_model 208, n_layers 4`: the sizes in an encoder's configuration."""
    return ", ".join(f"{k} {encoder[k]}" for k in (*WIDTHS, "n_layers") if k in encoder)


@dataclass
class _Family:
    """An encoder whose width and depth can be turned, and what it costs at each."""

    name: str  # of its class
    by: str
    width: str  # the key
    start: dict[str, int]  # the preset's sizes
    in_dim: int
    rate: float  # feature frames a second
    device: str  # where steps are timed
    encoder_of: Callable[[dict[str, int]], dict[str, Any]]
    costs: dict[tuple[int, int], float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, config: dict[str, Any], by: str, encoder_of: Callable[[dict[str, int]], dict[str, Any]]) -> "_Family":
        node = config["encoder"]
        width = next((k for k in WIDTHS if type(node.get(k)) is int), None)
        if width is None:
            raise ConfigError(f"match.by: {_name(node)} has neither d_model nor d_hidden, so there is nothing to match")
        start = {k: node[k] for k in (width, "n_layers") if type(node.get(k)) is int}
        frontend = make(config, "frontend")
        head = call(config, "frontend", frontend.head, in_dim=frontend.out_dim)
        rate = frames_per_second(frontend, head, config["data"]["sample_rate"])
        on_gpu = config["trainer"].get("accelerator") in ("gpu", "cuda") and torch.cuda.is_available()
        return cls(_name(node), by, width, start, head.out_dim, rate, "cuda" if on_gpu else "cpu", encoder_of)

    def solve(self, target: float) -> dict[str, int]:
        """The sizes nearest to the target at the first depth where they are near enough."""
        best: tuple[float, int, int] | None = None
        coarse, fine = self._steps()
        depths = self._depths()
        while depths:
            depth, costs = depths.pop(0), []
            for step in (coarse, fine) if self.by != "step_time" else (coarse,):
                for width, cost in self._around(target, step, depth):
                    best = min(best or (math.inf, 0, 0), (abs(cost / target - 1), width, depth))
                    costs.append(cost)
                if best and best[0] <= TOLERANCE[self.by]:
                    _, width, depth = best
                    return self._sizes(self._retimed(target, width, depth, step), depth)
            # No width is small enough: more layers will not help. Nor fewer, if none is large enough.
            if costs and min(costs) > target:
                depths = [n for n in depths if n < depth]
            elif costs and max(costs) < target:
                depths = [n for n in depths if n > depth]
        if best is None:
            raise ConfigError(f"match.target={target:g}: no width of {self.name} can be built")
        _, width, depth = best
        value = self._cost(width, depth)
        given = f"{value:.3g}" if self.by == "step_time" else f"{value:,.0f}"
        sizes = ", ".join(f"{k}={v}" for k, v in self._sizes(width, depth).items())
        raise ConfigError(
            f"match.target={target:g}: no width of {self.name} has so many {UNITS[self.by]}; the nearest is {given}, "
            f"with {sizes}; ask for that, or choose another size"
        )

    def _timed(self, widths: list[int], depth: int, rounds: int) -> list[float]:
        return step_times([self._build(w, depth, self.device) for w in widths], self.in_dim, self.rate, rounds)

    def _retimed(self, target: float, width: int, depth: int, step: int) -> int:
        """The best of a width and its neighbours, timed in turns: the machine may have been slower for one of them."""
        if self.by != "step_time":
            return width
        widths = [w for w in (width - step, width, width + step) if w > 0 and self._built(w, depth) is not None]
        return min(
            zip(self._timed(widths, depth, rounds=7), widths, strict=True), key=lambda pair: abs(pair[0] - target)
        )[1]

    def _sizes(self, width: int, depth: int) -> dict[str, int]:
        return {self.width: width} | ({"n_layers": depth} if "n_layers" in self.start else {})

    def _depths(self) -> list[int]:
        preset = self.start.get("n_layers", 1)
        others = range(1, 2 * preset + 3) if "n_layers" in self.start else [preset]
        return sorted(others, key=lambda n: abs(n - preset))

    def _build(self, width: int, depth: int, device: str) -> Any:
        with torch.device(device):
            return call({"encoder": self.encoder_of(self._sizes(width, depth))}, "encoder", in_dim=self.in_dim)

    def _built(self, width: int, depth: int) -> Any:
        """The encoder on the meta device, or on the CPU if it cannot be built there; None: it refuses such sizes."""
        try:
            return self._build(width, depth, "meta")
        except ConfigError:
            return None
        except (RuntimeError, NotImplementedError):
            return self._build(width, depth, "cpu")

    def _cost(self, width: int, depth: int) -> float | None:
        """In the unit of the target; None where the encoder refuses such sizes."""
        if (width, depth) not in self.costs:
            encoder = self._built(width, depth)
            if encoder is None:
                value = None
            elif self.by == "parameters":
                value = float(n_parameters(encoder))
            elif self.by == "macs":
                value = macs(encoder, self.in_dim, counted_frames(self.rate)) / COUNTED_S
            else:
                [value] = self._timed([width], depth, rounds=3)
            self.costs[width, depth] = value
        return self.costs[width, depth]

    def _steps(self) -> tuple[int, int]:
        """(a multiple of `ALIGNED`, the smallest): widths that are multiples of these can be built.

        If two neighbouring multiples of a number can, whatever has to divide the width divides the number.
        """
        start, depth = self.start[self.width], self.start.get("n_layers", 1)
        for step in range(1, MAX_STEP + 1):
            k = max(1, start // step)
            if all(self._built(n * step, depth) is not None for n in (k, k + 1)):
                return math.lcm(step, ALIGNED), step
        self._build(start, depth, "meta")  # the reason, if it is the preset's own
        raise ConfigError(f"match.by: no other {self.width} of {self.name} than {start} can be built")

    def _around(self, target: float, step: int, depth: int) -> Iterator[tuple[int, float]]:
        """The multiples of `step` right below and above the target that can be built, and what they cost."""

        def root(k: int) -> float:
            """The square root of the cost, which grows about as the width does."""
            cost = self._cost(k * step, depth) if k else 0.0
            return math.sqrt(cost) if cost is not None else 0.0 if k * step < self.start[self.width] else math.inf

        wanted, low, high = math.sqrt(target), 0, max(1, self.start[self.width] // step)
        while root(high) < wanted and high * step < MAX_WIDTH:
            low, high = high, 2 * high
        for n in range(64):
            if high - low < 2:
                break
            share = (wanted - root(low)) / (root(high) - root(low)) if n < 6 and root(high) < math.inf else 0.5
            middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
            low, high = (middle, high) if root(middle) < wanted else (low, middle)
        for k in (low, high):
            if k and (cost := self._cost(k * step, depth)) is not None:
                yield k * step, cost


def _wanted(match: dict[str, Any]) -> tuple[str, float]:
    by, target = match["by"], match.get("target")
    if by != "none" and by not in UNITS:
        raise ConfigError(f"match.by: there is no {by!r}{nearest(str(by), ['none', *UNITS])}")
    if by == "none":
        if target not in (None, "none"):
            raise ConfigError(f"match.target={target} says nothing without match.by={'|'.join(UNITS)}")
        return by, 0.0
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target < math.inf:
        raise ConfigError(
            f"match.target: a positive number of {UNITS[by]} is wanted (as in match.target=3e6), {target!r} came"
        )
    return by, float(target)


def _name(node: dict[str, Any]) -> str:
    return str(node.get("_target_", "the encoder")).rpartition(".")[2]


class _Memory:
    """What was found before: in this process, and what was measured on this machine in a file, so that a run that goes
    on tomorrow is the same run."""

    def __init__(self, config: dict[str, Any], by: str, target: float):
        what = [config["frontend"], config["encoder"], config["data"]["sample_rate"], by, target]
        where = [platform.node(), torch.__version__, config["trainer"].get("accelerator")]
        text = json.dumps(what + (where if by == "step_time" else []), sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.file = cache_dir() / "match" / f"{self.key}.json" if by == "step_time" else None

    def recall(self) -> dict[str, int] | None:
        if self.key not in _kept and self.file:
            with contextlib.suppress(OSError, ValueError):
                _kept[self.key] = json.loads(self.file.read_text())
        return _kept.get(self.key)

    def keep(self, sizes: dict[str, int]) -> None:
        if self.file and self.key not in _kept:
            write_json(self.file, sizes)
        _kept[self.key] = sizes
