"""CTC prefix beam search (Hannun et al. 2014), all utterances and hypotheses of a batch in tensors."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr_lab.layers.ctc_alignments import ended
from asr_lab.layers.states import replaced

FACTOR = 6364136223846793005  # of the rolling hash, modulo 2^64; odd (Knuth's MMIX generator)
EMPTY, NO_PARENT, DEAD, DEAD_PARENT = 1, -1, -2, -3  # hashes of what no label sequence hashes to, but by chance


class Beam(NamedTuple):
    """K prefixes of each utterance, in no order; each (B, K)."""

    ends_blank: Tensor  # log-probability of all alignments that end in a blank, a language model's share included
    ends_label: Tensor  # the same of those that end in the prefix's last label
    hash: Tensor
    parent: Tensor  # hash of the prefix without its last label
    last: Tensor  # class of the last label; 0 for the empty prefix


class Frame(NamedTuple):
    """One frame of all utterances, with what may be done to a prefix: nothing (column 0) or the addition of a label."""

    log_probs: Tensor  # (B, V+1)
    added: Tensor  # (B, 1+w) classes; 0 in column 0
    gains: Tensor  # (B, 1+w) their log-probabilities; -inf for those that are too unlikely; column 0 means nothing
    columns: Tensor  # (B, V+1) where each class stands in `added`; 0 where it does not, or is too unlikely


class Found(NamedTuple):
    """Label sequences of the last beam, in no order."""

    labels: Tensor  # (B, K, L) classes, padded with 0
    label_lens: Tensor  # (B, K)
    scores: Tensor  # (B, K) as the search saw them; -inf for places that were not filled

    def sequences(self) -> list[list[list[int]]]:
        """Of each utterance the labels 0..V-1 of what was found."""
        rows = zip((self.labels - 1).tolist(), self.label_lens.tolist(), self.scores.tolist(), strict=True)
        return [
            [labels[:n] for labels, n, score in zip(*row, strict=True) if score > -torch.inf] for row in rows
        ]  # fmt: skip


class PrefixSearch:
    """The K best prefixes of each frame, by the sum of their alignments, with a language model's score at each label.

    `n_tokens` labels a frame at the most, and none below `min_log_prob`, are added to prefixes. `lm` is a weighted
    `Scorer` of asr_lab.decoding, or None.
    """

    def __init__(self, beam: int, n_tokens: int, min_log_prob: float, lm: Any):
        self.beam, self.n_tokens, self.min_log_prob, self.lm = beam, n_tokens, min_log_prob, lm

    def __call__(self, log_probs: Tensor, lens: Tensor) -> Found:
        """(B,U,V+1), (B,)"""
        log_probs = ended(log_probs, lens)
        n_utterances = len(log_probs)
        frames, widths = self._frames(log_probs)
        beam = _empty(n_utterances, self.beam, log_probs)
        share = Share(self.lm, n_utterances * self.beam, log_probs.device) if self.lm is not None else None
        history = []
        for width, *of_all in zip(widths, *(x.unbind(1) for x in frames), strict=True):
            log_probs, added, gains, columns = of_all
            if width == 0:
                beam = _held(beam, log_probs, torch.logaddexp(beam.ends_blank, beam.ends_label))
                continue
            frame = Frame(log_probs, added[:, : 1 + width], gains[:, : 1 + width], columns)
            beam, rows, added = _step(beam, frame, None if share is None else share.scores)
            history.append((rows, added))
            if share is not None:
                share.follow(rows, added)
        scores = torch.logaddexp(beam.ends_blank, beam.ends_label)
        if share is not None:
            scores = scores + share.scores[:, -1].view_as(scores)
        return Found(*_spelled(history, beam), scores)

    def _frames(self, log_probs: Tensor) -> tuple[Frame, list[int]]:
        """All frames (B,U,...) at once, and the w of each: as many as the utterance that needs most labels has"""
        gains, added = log_probs[:, :, 1:].topk(min(self.n_tokens, log_probs.shape[2] - 1))
        gains = gains.masked_fill(gains < self.min_log_prob, -torch.inf)
        widths = (gains > -torch.inf).sum(dim=2).amax(dim=0).tolist()
        gains, added = (torch.nn.functional.pad(x, (1, 0)) for x in (gains, added + 1))
        columns = torch.zeros_like(log_probs, dtype=torch.long)
        places = torch.arange(added.shape[2], device=added.device)
        columns.scatter_(2, added, places.where(gains > -torch.inf, 0))
        return Frame(log_probs, added, gains, columns), widths


class Share:
    """What the language model adds to each label after each prefix; its state is only moved on by new prefixes."""

    def __init__(self, lm: Any, n: int, device: torch.device):
        self.lm, self.state = lm, lm.begin(n, device)
        self.scores = lm.scores(self.state)  # (N, V+1)

    def follow(self, rows: Tensor, added: Tensor) -> None:
        """(B,K) the place of each prefix in the beam before, (B,K) the class added to it or 0"""
        n_utterances, beam = rows.shape
        first = torch.arange(0, n_utterances * beam, beam, device=rows.device)
        flat, labels = (rows + first[:, None]).flatten(), added.flatten() - 1
        self.state, self.scores = self.lm.select(self.state, flat), self.scores[flat]
        new = (labels >= 0).nonzero()[:, 0]
        if len(new) == len(flat):
            self.state = self.lm.advance(self.state, labels)
            self.scores = self.lm.scores(self.state)
        elif len(new):
            part = self.lm.advance(self.lm.select(self.state, new), labels[new])
            self.state = replaced(self.lm, self.state, part, new)
            self.scores[new] = self.lm.scores(part)


def _empty(n_utterances: int, beam: int, like: Tensor) -> Beam:
    """The empty prefix in the first place, and places to fill."""
    scores = like.new_full((n_utterances, beam), -torch.inf)
    ints = torch.zeros_like(scores, dtype=torch.long)
    begun = scores.clone()
    begun[:, 0] = 0
    hashes = torch.full_like(ints, DEAD)
    hashes[:, 0] = EMPTY
    return Beam(begun, scores, hashes, torch.full_like(ints, NO_PARENT), ints)


def _held(beam: Beam, log_probs: Tensor, total: Tensor) -> Beam:
    """A frame (B,V+1) that adds no label to any prefix; `total` (B,K) is the sum of a prefix's two numbers."""
    return beam._replace(
        ends_blank=total + log_probs[:, :1], ends_label=beam.ends_label + log_probs.gather(1, beam.last)
    )


def _step(beam: Beam, frame: Frame, lm_scores: Tensor | None) -> tuple[Beam, Tensor, Tensor]:
    """The next beam, of each of its prefixes the place in `beam` it came from (B,K), and the class added or 0 (B,K)"""
    n_utterances, size = beam.hash.shape
    n_columns = frame.added.shape[1]
    total = torch.logaddexp(beam.ends_blank, beam.ends_label)
    stay = _held(beam, frame.log_probs, total)
    # What each prefix may become, and one place more, which is that of nobody.
    nobody = size * n_columns
    flat = total.new_empty(n_utterances, nobody + 1)
    become = flat[:, :nobody].unflatten(1, (size, n_columns))  # (B, K, 1+w), a view
    torch.add(total[:, :, None], frame.gains[:, None], out=become)
    # A label said again after itself needs a blank in between.
    column = frame.columns.gather(1, beam.last)
    is_listed = column > 0
    again = torch.where(is_listed, column + torch.arange(0, nobody, n_columns, device=column.device), nobody)
    flat.scatter_(1, again, beam.ends_blank + frame.log_probs.gather(1, beam.last))
    if lm_scores is not None:
        labels = (frame.added - 1).remainder(lm_scores.shape[1])  # column 0 reads the end's, and is overwritten
        become += lm_scores.view(n_utterances, size, -1).gather(2, labels[:, None].expand_as(become))
    # A prefix of the beam may also come from its parent in the beam, in this frame: one prefix, not two.
    is_parent = (beam.parent[:, :, None] == beam.hash[:, None]).to(torch.uint8)  # (B, K, K)
    found, parent = is_parent.max(dim=2)
    twin = torch.where(is_listed & (found > 0), parent * n_columns + column, nobody)
    flat[:, nobody] = -torch.inf
    stay = stay._replace(ends_label=torch.logaddexp(stay.ends_label, flat.gather(1, twin)))
    flat.scatter_(1, twin, -torch.inf)
    torch.logaddexp(stay.ends_blank, stay.ends_label, out=become[:, :, 0])
    best, at = flat[:, :nobody].topk(size, sorted=False)
    rows = at // n_columns
    added = frame.added.gather(1, at - rows * n_columns)
    return _chosen(stay, best, rows, added), rows, added


def _chosen(stay: Beam, best: Tensor, rows: Tensor, added: Tensor) -> Beam:
    """The prefixes `rows` (B,K), each with the class `added` after it, where it is not 0"""
    blank, label, hashes, parents, last = (x.gather(1, rows) for x in stay)
    is_new = added > 0
    # Places that nothing fills must not be found by anybody who looks for a parent.
    is_dead = best == -torch.inf
    return Beam(
        ends_blank=blank.masked_fill_(is_new, -torch.inf),
        ends_label=torch.where(is_new, best, label),
        hash=torch.where(is_new, hashes * FACTOR + added, hashes).masked_fill_(is_dead, DEAD),
        parent=torch.where(is_new, hashes, parents).masked_fill_(is_dead, DEAD_PARENT),
        last=torch.where(is_new, added, last),
    )


def _spelled(history: list[tuple[Tensor, Tensor]], beam: Beam) -> tuple[Tensor, Tensor]:
    """(B,K,L) classes of the prefixes of the last beam, padded with 0, and (B,K) how many each has"""
    n_utterances, size = beam.hash.shape
    place = torch.arange(size, device=beam.hash.device).expand(n_utterances, size)
    backwards = [torch.zeros_like(beam.last)]
    for rows, added in reversed(history):
        backwards.append(added.gather(1, place))
        place = rows.gather(1, place)
    steps = torch.stack(backwards[::-1], dim=2)  # (B, K, number of steps + 1), 0 where nothing was added
    lens = (steps != 0).sum(dim=2)
    # Those that are not 0 to the front, in their order.
    order = (steps == 0).to(torch.uint8).sort(dim=2, stable=True).indices
    return steps.gather(2, order)[:, :, : int(lens.max())], lens
