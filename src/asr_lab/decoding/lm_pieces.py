"""Language model states of hypotheses that do not grow in step."""

from typing import Any

import torch
from torch import Tensor


class LmPieces:
    """States of a `Scorer`, kept in the pieces in which they were made.

    States are opaque: rows of one can be picked, but two states cannot be put together. Where some hypotheses of a beam
    take a label and others do not, each therefore remembers the piece and the row that hold its state, and those that
    take a label are advanced piece by piece.
    """

    def __init__(self, lm: Any, device: torch.device):
        self.lm, self.device = lm, device
        self.pieces = {0: lm.begin(1, device)}
        self.n_made = 1

    def begin(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (n,V+1), pieces (n,) and rows (n,) of n hypotheses without labels"""
        nothing = torch.zeros(n, dtype=torch.long, device=self.device)
        return self.lm.scores(self.pieces[0])[nothing], nothing, nothing.clone()

    def advance(self, piece: Tensor, row: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of N hypotheses, given as pieces and rows, after one label (N,) more"""
        scores, new_piece, new_row = [], torch.empty_like(piece), torch.empty_like(row)
        order = []
        for old in piece.unique().tolist():
            some = (piece == old).nonzero()[:, 0]
            state = self.lm.advance(self.lm.select(self.pieces[old], row[some]), labels[some])
            scores.append(self.lm.scores(state))
            order.append(some)
            new_piece[some], new_row[some] = self.n_made, torch.arange(len(some), device=self.device)
            self.pieces[self.n_made] = state
            self.n_made += 1
        return torch.cat(scores)[torch.cat(order).argsort()], new_piece, new_row

    def keep(self, piece: Tensor) -> None:
        """Forget what no hypothesis refers to any more."""
        alive = set(piece.unique().tolist())
        self.pieces = {i: state for i, state in self.pieces.items() if i in alive}
