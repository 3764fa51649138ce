"""Any n-gram model as a deterministic automaton over the tokenizer's labels, its tables filled as states are met."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asr_lab.lm.backoff import Floats, Ints

_AT_ONCE = 1 << 16  # automata of up to so many states are filled whole, which takes less than filling them bit by bit
_DENSE = 1 << 23  # automata of up to so many states find their rows in an array (4 bytes a state), others in a dict


class Source(Protocol):
    """An automaton, row by row. States are whole numbers that stay what they are."""

    n_labels: int  # V
    start: int
    n_states: int | None  # states are below it; None: no bound is known

    def rows(self, states: Ints) -> tuple[Floats, Ints]:
        """(K,) -> log-probabilities (K, V+1) of the labels and the end, and the states (K, V) after the labels"""
        ...


class Automaton:
    """`Scorer` of asr_lab.decoding: a state (N,) int64 is a row of a table, which is filled when it is first met.

    When the tables of a device would grow beyond `cache_mb` MiB they are emptied, and filled anew with what is still
    met; states stay valid. Only the states of one single call may take more.
    """

    def __init__(self, source: Source, cache_mb: float):
        if not cache_mb > 0:
            raise ValueError(f"cache_mb is the size of the tables in MiB, more than 0; {cache_mb} came")
        self.source, self.cache_mb = source, cache_mb
        self._tables: dict[torch.device, _Tables] = {}

    def begin(self, n: int, device: torch.device) -> Tensor:
        return torch.full((n,), self.source.start, dtype=torch.long, device=device)

    def scores(self, state: Tensor) -> Tensor:
        tables = self._on(state.device)
        rows = tables.rows_of(state)
        return tables.scores.index_select(0, rows)

    def advance(self, state: Tensor, labels: Tensor) -> Tensor:
        tables = self._on(state.device)
        rows = tables.rows_of(state)  # before the table is looked at: it may be a new one afterwards
        return tables.after[rows, labels]

    def select(self, state: Tensor, rows: Tensor) -> Tensor:
        return state[rows]

    def _on(self, device: torch.device) -> "_Tables":
        if device not in self._tables:
            self._tables[device] = _Tables(self.source, self.cache_mb, device)
        return self._tables[device]


class _Tables:
    def __init__(self, source: Source, cache_mb: float, device: torch.device):
        self.source, self.device = source, device
        n_bytes = 4 * (source.n_labels + 1) + 8 * source.n_labels  # of a row
        self.most = max(1, int(cache_mb * 2**20 / n_bytes))  # rows
        is_dense = source.n_states is not None and source.n_states <= _DENSE
        self._index = _Dense(source.n_states or 0, device) if is_dense else _Sparse(device)
        self._n = 0
        self.scores, self.after = self._room(0)
        if source.n_states is not None and source.n_states <= min(self.most, _AT_ONCE):
            self._fill(torch.arange(source.n_states, device=device))

    def rows_of(self, state: Tensor) -> Tensor:
        """(N,) -> the rows (N,) of these states, which are there afterwards"""
        rows = self._index.get(state)
        missing = rows < 0
        if missing.any():
            new = state[missing].unique()
            if self._n + len(new) > self.most:
                self._index.clear()
                self._n, new = 0, state.unique()
            self._fill(new)
            rows = self._index.get(state)
        return rows

    def _fill(self, states: Tensor) -> None:
        scores, after = self.source.rows(states.cpu().numpy())
        begin, end = self._n, self._n + len(states)
        if end > len(self.scores):
            old = self.scores, self.after
            self.scores, self.after = self._room(max(end, min(2 * end, self.most)))
            self.scores[:begin], self.after[:begin] = old[0][:begin], old[1][:begin]
        self.scores[begin:end] = torch.from_numpy(scores.astype(np.float32)).to(self.device)
        self.after[begin:end] = torch.from_numpy(after).to(self.device)
        self._index.put(states, torch.arange(begin, end, device=self.device))
        self._n = end

    def _room(self, n: int) -> tuple[Tensor, Tensor]:
        v = self.source.n_labels
        with torch.inference_mode(False):  # or they could not be written to outside it
            scores = torch.empty(n, v + 1, device=self.device)
            return scores, torch.empty(n, v, dtype=torch.long, device=self.device)


class _Dense:
    """Rows of states 0..n-1; -1: none."""

    def __init__(self, n: int, device: torch.device):
        with torch.inference_mode(False):
            self._rows = torch.full((n,), -1, dtype=torch.int32, device=device)

    def get(self, states: Tensor) -> Tensor:
        return self._rows[states]

    def put(self, states: Tensor, rows: Tensor) -> None:
        self._rows[states] = rows.int()

    def clear(self) -> None:
        self._rows.fill_(-1)


class _Sparse:
    """The same for states of any size."""

    def __init__(self, device: torch.device):
        self._rows: dict[int, int] = {}
        self._device = device

    def get(self, states: Tensor) -> Tensor:
        rows = [self._rows.get(state, -1) for state in states.tolist()]
        return torch.tensor(rows, dtype=torch.long, device=self._device)

    def put(self, states: Tensor, rows: Tensor) -> None:
        self._rows.update(zip(states.tolist(), rows.tolist(), strict=True))

    def clear(self) -> None:
        self._rows.clear()
