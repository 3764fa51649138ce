"""What else was not the same: code, data, versions and machines of the runs that are compared."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from asr_lab.report.records import as_object, as_text
from asr_lab.report.sides import Member

NOT_RECORDED = "not recorded"
MACHINE = ("host", "platform", "cpu", "cores", "threads", "device", "cuda")
MAX_SHOWN = 3


def by_side(sides: Sequence[Sequence[Mapping[str, Any]]], absent: str) -> dict[str, tuple[str, ...]]:
    """The keys whose sets of values are not the same in all sides, as text: `0.1, 1, 10`.

    Args:
        sides: of each, flat mappings of its runs; `absent` stands for a key that one of them lacks.
    """
    keys = dict.fromkeys(key for side in sides for run in side for key in run)
    found = {key: [{as_text(run.get(key, absent)) for run in side} for side in sides] for key in keys}
    return {key: tuple(map(_shown, sets)) for key, sets in found.items() if any(s != sets[0] for s in sets)}


def _shown(values: set[str]) -> str:
    ranked = sorted(values)
    return ", ".join(ranked[:MAX_SHOWN]) + (f" and {len(ranked) - MAX_SHOWN} more" if len(ranked) > MAX_SHOWN else "")


def warnings(sides: Mapping[str, Sequence[Member]]) -> Iterator[str]:
    """One line for each circumstance in which the runs of the sides, by letter, differ."""
    facts = {letter: [_facts(m) for m in members] for letter, members in sides.items()}
    different, letters = by_side(list(facts.values()), NOT_RECORDED), list(facts)

    def said(keys: Sequence[str]) -> str:
        return "; ".join(f"{key}: {_pairs(letters, different[key])}" for key in keys)

    if "training data" in different:
        yield f"trained on different data ({said(['training data'])}): the data is a factor too"
    # Commits that changed nothing which counts (a page of the documentation) are no difference.
    code = "code" if all("code" in found for runs in facts.values() for found in runs) else "commit"
    if code in different:
        yield f"made by different code ({said([k for k in ('code', 'commit') if k in different])}): it is a factor too"
    dirty = [letter for letter, runs in facts.items() if any(found.get("dirty") is True for found in runs)]
    if dirty:
        yield f"made with uncommitted changes: {', '.join(dirty)}; no commit holds what ran"
    versions = [k for k in different if k.startswith("version of ")]
    if versions:
        yield f"made with different versions ({said(versions)})"
    machine = [k for k in MACHINE if k in different]
    if machine:
        yield f"made on different machines ({said(machine)}): times and memory cannot be compared"


def _pairs(letters: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{letter} {value}" for letter, value in zip(letters, values, strict=True))


def _facts(m: Member) -> dict[str, Any]:
    """What result.json recorded of a run's code, data, versions and machine."""
    git, data = as_object(m.result.get("git")), as_object(as_object(m.result.get("data")).get("digest"))
    facts = {k if k in MACHINE else f"version of {k}": v for k, v in as_object(m.result.get("environment")).items()}
    commit = git.get("commit")
    facts |= {"commit": commit[:10] if isinstance(commit, str) else None, "dirty": git.get("dirty")}
    facts |= {"code": m.result.get("code"), "training data": data.get("train")}
    return {k: v for k, v in facts.items() if v is not None}
