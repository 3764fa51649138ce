"""A run's identity and files: fingerprint, frozen configuration, result, "is it done already?"."""

import hashlib
import json
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from asr_lab.errors import RunError, nearest
from asr_lab.files import parse_yaml, write_json, write_text
from asr_lab.hold import hold

# Keys that cannot change a number: where things are, who watches, how many processes load data.
UNNUMBERED = (
    "experiment",
    "question",
    "grid",
    "size",
    "match",
    "logger",
    "gradients",
    "through_time",
    "detectors",
    "runtime",
    "data.root",
    "data.prepare",
    "distill.teacher",  # its fingerprint counts
    "cache.n_workers",
    "lm.model.run",  # which run it is, its fingerprint says
)


KINDS = {"speech": "a speech recogniser", "lm": "a language model", "toy": "a toy landscape"}
CANCELLED = ".cancelled"  # a file in a run's folder: it is not to be run
MAX_NAMES = 8  # of runs, in a line about one that is not there
SCORES = {"lm": "ppl", "toy": "gap"}


def fingerprint(config: dict[str, Any]) -> str:
    """16 hex digits over the resolved configuration without the keys that cannot change a number."""
    numbered = {k: v for k, v in flatten(config).items() if is_numbered(k)}
    return hashlib.sha256(json.dumps(numbered, sort_keys=True).encode()).hexdigest()[:16]


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """`flatten` undone, where no key has a dot of its own"""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def is_numbered(key: str) -> bool:
    """Whether a dotted key can change a number."""
    return not _is_under(key, UNNUMBERED)


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_under(key: str, roots: tuple[str, ...]) -> bool:
    return any(key == root or key.startswith(root + ".") for root in roots)


class Run:
    """One folder `outputs/<experiment>/<cell>/` and what is in it."""

    def __init__(self, folder: Path, config: dict[str, Any], factors: dict[str, Any]):
        self.folder, self.config, self.factors = Path(folder), config, factors
        self.fingerprint = fingerprint(config)
        self.result_file = self.folder / "result.json"
        self.metrics_file = self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "ckpt"
        self.cancelled_file = self.folder / CANCELLED

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """A run that was frozen earlier.

        Raises:
            RunError: the folder is not a run's.
        """
        folder = Path(folder).absolute()
        try:
            config = parse_yaml((folder / "config.yaml").read_text())
            factors = json.loads((folder / "result.json").read_text())["factors"]
            if not (isinstance(config, dict) and isinstance(factors, dict)):
                raise ValueError("config.yaml or result.json does not hold what a run writes")
        except (OSError, KeyError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise RunError(f"{folder}: not a run's folder ({error}); give outputs/<experiment>/<cell>") from None
        return cls(folder, config, factors)

    def hyps_file(self, split: str) -> Path:
        return self.folder / f"hyps.{split}.jsonl"

    def confusion_file(self, split: str) -> Path:
        """Written where every utterance has one label (decoder=keyword)."""
        return self.folder / f"confusion.{split}.csv"

    def rows_file(self, split: str) -> Path:
        """What came of each utterance: its hypothesis, or a language model's opinion of its text."""
        return self.hyps_file(split) if self.kind == "speech" else self.folder / f"sentences.{split}.jsonl"

    @property
    def kind(self) -> str:
        """ "speech", "lm" for a language model, or "toy" for a toy landscape."""
        return "speech" if "encoder" in self.config else "toy" if "landscape" in self.config else "lm"

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def score(self) -> str:
        """ "wer", "cer", "ppl" or "gap": what stands for the run, and chooses its checkpoint but for a gap."""
        return self.config["data"].get("score", "wer") if self.kind == "speech" else SCORES[self.kind]

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / "last.ckpt"

    def result(self) -> dict[str, Any] | None:
        """What result.json holds now; None when there is none."""
        return self.result_in(self.folder)

    @staticmethod
    def result_in(folder: Path) -> dict[str, Any] | None:
        """result.json of a run's folder; None when there is none."""
        path = folder / "result.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read ({error}); move it away, then run again") from None

    def is_done(self) -> bool:
        result = self.result()
        return bool(result) and result["status"] == "done" and result["fingerprint"] == self.fingerprint

    def freeze(self, rerun: bool = False) -> None:
        """Write the configuration and a first result, unless this very run is there already.

        Raises:
            RunError: the folder holds another run that has something to lose.
        """
        self.cancelled_file.unlink(missing_ok=True)
        old = self.result()
        if old and rerun and old["status"] not in ("planned", "running"):
            self._put_aside()
            old = None
        if old and old["fingerprint"] != self.fingerprint:
            if old["status"] == "done" or self.last_checkpoint.exists():
                raise RunError(
                    f"{self.folder}: holds another run ({self._difference()}); choose another hydra.run.dir, "
                    "or runtime.rerun=true to keep the old one beside it"
                )
            old = None
        if old is None:
            write_text(self.folder / "config.yaml", yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
            self.write_result(status="planned")

    def write_result(self, **changes: Any) -> dict[str, Any]:
        """Replace result.json by itself with `changes`, atomically."""
        base = self.result() or {
            "status": "planned",
            "reason": None,
            "fingerprint": self.fingerprint,
            "experiment": self.config["experiment"],
            "cell": self.name,
            "factors": self.factors,
            "metrics": {},
        }
        result = base | changes
        write_json(self.result_file, result)
        return result

    def locked(self) -> AbstractContextManager[None]:
        """Hold the run: two processes never train the same cell.

        Raises:
            BusyError: another process holds it.
        """
        return hold(self.folder)

    def _difference(self) -> str:
        """The first keys in which the frozen configuration differs from ours."""
        try:
            theirs = flatten(yaml.safe_load((self.folder / "config.yaml").read_text()))
        except (OSError, yaml.YAMLError):
            return "its config.yaml cannot be read"
        ours = flatten(self.config)
        keys = [
            k for k in sorted(theirs.keys() | ours.keys())
            if theirs.get(k) != ours.get(k) and not _is_under(k, UNNUMBERED)
        ]  # fmt: skip
        shown = ", ".join(f"{k}: {theirs.get(k)} there, {ours.get(k)} here" for k in keys[:3])
        return shown + (f" and {len(keys) - 3} more keys" if len(keys) > 3 else "")

    def _put_aside(self) -> None:
        number = 1
        while (aside := self.folder / f"previous-{number}").exists():
            number += 1
        aside.mkdir()
        for path in list(self.folder.iterdir()):
            if not path.name.startswith(("previous-", ".lock", ".hydra")) and path != aside:
                path.rename(aside / path.name)


def find_run(name: str, outputs: Path = Path("outputs"), kind: str | None = "speech") -> Run:
    """A run by its folder, or by the beginning of its fingerprint or cell name under `outputs/`; `kind` None: of any.

    Raises:
        RunError: none or several fit, or it is of another kind.
    """
    run = _find(name, outputs)
    if kind is not None and run.kind != kind:
        raise RunError(f"{run.folder}: {KINDS[run.kind]}'s run; {KINDS[kind]}'s is wanted here")
    return run


def show_score(score: str, value: float) -> str:
    """`12.3 %` of an error rate, `12.30` of a perplexity, `0.00123` of a gap."""
    if score == "gap":
        return f"{value:.3g}"
    return f"{value:.2f}" if score == "ppl" else f"{100 * value:.1f} %"


def _find(name: str, outputs: Path) -> Run:
    folder = Path(name)
    if (folder / "result.json").exists():
        return Run.open(folder)
    cells = {p.parent for p in outputs.glob("*/*/result.json")}
    fits = [c for c in cells if c.name == name]
    fits = fits or sorted(c for c in cells if c.name.startswith(name) or c.name.rpartition("-")[2].startswith(name))
    if len(fits) == 1:
        return Run.open(fits[0])
    if fits:
        raise RunError(f"'{name}' fits {len(fits)} runs ({', '.join(str(f) for f in fits[:3])}, ...); give the folder")
    known = sorted(c.name for c in cells)
    raise RunError(f"no run '{name}'{_hint(name, [c for c in known if name in c] or known)}")


def _hint(name: str, known: list[str]) -> str:
    hint = nearest(name, known) or "; outputs/ holds none"
    if len(known) > MAX_NAMES and "did you mean" not in hint:
        return f"; there are {len(known)}, such as {known[0]}"
    return hint


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
