"""The gradient page of a run: norms before and after clipping, layers over time, and what detectors found."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from asr_lab.dashboard.metrics import thin
from asr_lab.dashboard.places import Places
from asr_lab.errors import AsrLabError
from asr_lab.gradients.advice import SUMMARY_PERCENTILES, percentiles, role, usable
from asr_lab.gradients.record import Record, read_record

FILE = "gradients.npz"
FINDINGS = "findings.jsonl"
POINTS, LOOKS = 600, 160  # of a curve, and columns of the heat map
MOST = 200  # findings that are shown


def mark(places: Places, run: Path) -> Any:
    return [places.stamp(run / name) for name in (FILE, FINDINGS)]


def page(places: Places, run: Path) -> dict[str, Any]:
    """Everything; what is not there or damaged is said in `notes`."""
    notes: list[str] = []
    rows = _rows(run / FINDINGS, notes) if places.stamp(run / FINDINGS) else []
    found: dict[str, Any] = {
        "findings": [_finding(row) for row in rows[:MOST]],
        "n_findings": len(rows),
        "incidents": _incidents(places, run),
        "record": None,
        "notes": notes,
    }
    if places.stamp(run / FILE) is None:
        notes.append(f"{FILE}: none; train with gradients=record")
        return found
    try:
        found["record"] = _record(read_record(run / FILE))
    except (AsrLabError, ValueError, IndexError, MemoryError) as error:
        notes.append(str(error).replace(f"{run}/", ""))
    return found


def _record(record: Record) -> dict[str, Any]:
    steps = record.steps.astype(np.float64)
    before, clipped = record.column("norm_before"), record.column("clipped").astype(np.float64)
    there = usable(record)
    share = float(clipped.mean()) if len(clipped) else 0.0
    return {
        "n_steps": len(steps),
        "curves": {
            key: thin(steps, record.column(key).astype(np.float64), POINTS)
            for key in ("norm_before", "norm_after", "loss", "lr")
        },
        "clipped": thin(steps, clipped, 60),
        "share": share,
        "role": role(share),
        "skipped": float(record.column("skipped").mean()) if len(steps) else 0.0,
        "percentiles": percentiles(before[there], SUMMARY_PERCENTILES) if there.any() else {},
        "layers": _layers(record),
    }


def _layers(record: Record) -> dict[str, Any] | None:
    """log10 of each layer's gradient norm, and of the relative change of its weights, at the close looks."""
    if not record.has("norms", "moves", "weights"):
        return None
    layers = record.layers()
    at = np.unique(np.linspace(0, len(record.looked) - 1, LOOKS).round().astype(int))
    with np.errstate(divide="ignore", invalid="ignore"):
        pictures = {"norms": np.log10(layers.norms[at]), "ratios": np.log10(layers.ratios[at])}
    return {
        "names": list(layers.names),
        "steps": record.looked[at].tolist(),
        **{
            k: [[float(f"{x:.3g}") if np.isfinite(x) else None for x in row] for row in v.T.tolist()]
            for k, v in pictures.items()
        },
    }


def _rows(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    rows, bad = [], 0
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                rows += [row] if isinstance(row, dict) else []
                bad += not isinstance(row, dict)
    except OSError as error:
        notes.append(f"{path.name}: cannot be read ({error.strerror})")
    if bad:
        notes.append(f"{path.name}: {bad} line(s) that are no findings, left out")
    return rows


def _finding(row: dict[str, Any]) -> dict[str, Any]:
    ids = row.get("ids")
    return {
        **{key: str(row.get(key, "")) for key in ("kind", "text")},
        "step": row.get("step") if isinstance(row.get("step"), int) else None,
        "layer": row.get("layer") if isinstance(row.get("layer"), str) else None,
        "ids": [str(i) for i in ids[:8]] if isinstance(ids, list) else [],
    }


def _incidents(places: Places, run: Path) -> list[dict[str, str]]:
    """Verdicts on steps that were not finite (asr-lab forensics says more)."""
    found = []
    for path in sorted(run.glob("forensics/step_*/report.json"))[:20]:
        if places.leads_out(path.parents[1]) or places.leads_out(path.parent) or not places.stamp(path):
            continue
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            found.append({"step": str(report["step"]), "verdict": str(report["verdict"])})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            found.append({"step": path.parent.name, "verdict": "report.json: cannot be read"})
    return found
