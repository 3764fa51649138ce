"""Searches over frame-wise distributions with a blank (CTC)."""

import torch
from torch import Tensor

from asr_lab.layers.masks import valid_frames
from asr_lab.types import Hypothesis


class CtcSearch:
    """Best path: the best label of each frame, repeats merged, blanks dropped."""

    def __init__(self, decoder, beam: int):
        self.decoder, self.beam = decoder, beam

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        scores, path = self.decoder.log_probs(hidden).max(dim=-1)  # (B, U) both
        valid = valid_frames(lens, path.shape[1])
        starts = torch.ones_like(valid)
        starts[:, 1:] = path[:, 1:] != path[:, :-1]
        keep = (valid & starts & (path != self.decoder.BLANK)).cpu()
        totals = (scores * valid).sum(dim=1).tolist()
        path = path.cpu() - 1
        frames = torch.arange(path.shape[1])
        return [
            [Hypothesis(row[k].tolist(), total, frames[k].tolist())]
            for row, k, total in zip(path, keep, totals, strict=True)
        ]

    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """log p(labels), summed over all alignments"""
        labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(s, dtype=torch.long) for s in sequences], True)
        label_lens = torch.tensor([len(s) for s in sequences])
        return (-self.decoder.loss(hidden, lens, labels, label_lens)).tolist()
