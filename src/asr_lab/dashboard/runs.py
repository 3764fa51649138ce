"""The page of one run: its state, its configuration, and what else there is to see of it."""

from pathlib import Path
from typing import Any

from asr_lab.dashboard.configs import Configs
from asr_lab.dashboard.gradients import FILE as GRADIENTS
from asr_lab.dashboard.gradients import FINDINGS
from asr_lab.dashboard.metrics import Metrics
from asr_lab.dashboard.places import Places
from asr_lab.dashboard.utterances import Utterances
from asr_lab.report.records import as_text, read_object

LOG = "train.log"
LOG_BYTES = 20_000  # of its end


def page(
    places: Places,
    folder: Path,
    row: dict[str, Any] | None,
    utterances: Utterances,
    metrics: Metrics,
    configs: Configs,
) -> dict[str, Any]:
    """`row` is the run's line of the table; what is not there or damaged is said in `notes`."""
    notes: list[str] = []
    result: dict[str, Any] = {}
    if places.stamp(folder / "result.json"):
        result, notes = read_object(folder / "result.json")
    config, _, bad = configs.read(folder)
    keys, n_bad = metrics.keys(folder)
    notes += [bad] if bad else []
    notes += [f"metrics.jsonl: {n_bad} line(s) that are no rows, left out"] if n_bad else []
    shown = ("environment", "git", "best", "data", "encoder", "started", "finished", "fingerprint", "code")
    return {
        "row": row or {"name": folder.name, "state": "planned", "reason": "", "factors": {}, "numbers": {}},
        "keys": keys,
        "splits": utterances.splits(folder),
        "gradients": places.stamp(folder / GRADIENTS) is not None or places.stamp(folder / FINDINGS) is not None,
        "config": sorted(config.items()),
        "facts": [[k, as_text(result[k])] for k in shown if result.get(k) not in (None, "", {})],
        "log": _end(places, folder / LOG),
        "notes": notes,
    }


def _end(places: Places, path: Path) -> str:
    """The last lines of a log."""
    stamp = places.stamp(path)
    if stamp is None:
        return ""
    try:
        with open(path, "rb") as f:
            f.seek(max(0, stamp.size - LOG_BYTES))
            text = f.read(LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return text if stamp.size <= LOG_BYTES else text.partition("\n")[2]
