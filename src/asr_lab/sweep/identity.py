"""Fingerprints of many configurations that differ from one base in a few keys."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Protocol

from asr_lab.run import is_numbered


class _Change(Protocol):
    @property
    def gone(self) -> frozenset[str]: ...
    @property
    def values(self) -> dict[str, Any]: ...


class Identity:
    """Gives what `run.fingerprint` gives, without writing the whole configuration as JSON each time."""

    def __init__(self, flat: dict[str, Any]):
        """`flat`: the base, dotted keys"""
        self._base = {k: _piece(k, v) for k, v in flat.items() if is_numbered(k)}
        self._pieces: dict[int, tuple[Any, dict[str, str]]] = {}

    def of(self, changes: Iterable[_Change]) -> str:
        """16 hex digits of the base with all changes laid over it in their order"""
        pieces = self._base
        for change in changes:
            pieces = {k: p for k, p in pieces.items() if k not in change.gone} if change.gone else pieces
            pieces = pieces | self._pieces_of(change)
        text = "{" + ", ".join(pieces[k] for k in sorted(pieces)) + "}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _pieces_of(self, change: _Change) -> dict[str, str]:
        if id(change) not in self._pieces:  # kept with its change, or another could get its id
            own = {k: _piece(k, v) for k, v in change.values.items() if is_numbered(k)}
            self._pieces[id(change)] = (change, own)
        return self._pieces[id(change)][1]


def _piece(key: str, value: Any) -> str:
    return json.dumps({key: value}, sort_keys=True)[1:-1]
