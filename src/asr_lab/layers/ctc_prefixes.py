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
    """A frame of each utterance, with what may be done to a prefix: nothing (column 0) or the addition of a label."""

    log_probs: Tensor  # (B, V+1)
    added: Tensor  # (B, 1+w) classes; 0 in column 0
    gains: Tensor  # (B, 1+w) their log-probabilities; -inf for those that are too unlikely; column 0 means nothing
    columns: Tensor  # (B, V+1) where each class stands in `added`; 0 where it does not, or is too unlikely


class Run(NamedTuple):
    """Frames in a row that add no label to any prefix. Log-probabilities, as sums over the frames (0 of no frame):"""

    same: Tensor  # (B, V+1) of one class all along
    turned: Tensor  # (B, V+1) of a class at first, or never, and blanks after it: at least one


class Found(NamedTuple):
    """Label sequences of the last beam, in no order."""

    labels: Tensor  # (B, K, L) classes, padded with 0
    label_lens: Tensor  # (B, K)
    scores: Tensor  # (B, K) as the search saw them; -inf for places that were not filled

    def sequences(self, threshold: float = torch.inf) -> list[list[list[int]]]:
        """Of each utterance the labels 0..V-1 of what was found, but for what is `threshold` nats behind the best."""
        is_near = (self.scores > -torch.inf) & (self.scores > self.scores.amax(dim=1, keepdim=True) - threshold)
        rows = zip((self.labels - 1).tolist(), self.label_lens.tolist(), is_near.tolist(), strict=True)
        return [[labels[:n] for labels, n, keep in zip(*row, strict=True) if keep] for row in rows]


class PrefixSearch:
    """The K best prefixes of each frame, by the sum of their alignments, with a language model's score at each label.

    `n_tokens` labels a frame at the most, and none below `min_log_prob`, are added to prefixes. `lm` is a weighted
    `Scorer` of asr_lab.decoding, or None.
    """

    def __init__(self, beam: int, n_tokens: int, min_log_prob: float, lm: Any):
        self.beam, self.n_tokens, self.min_log_prob, self.lm = beam, n_tokens, min_log_prob, lm

    def __call__(self, log_probs: Tensor, lens: Tensor) -> Found:
        """(B,U,V+1), (B,)"""
        frames, runs, order, live = self._frames(ended(log_probs, lens))
        widths = (frames.gains > -torch.inf).sum(dim=2).amax(dim=1).tolist()
        beam = _held(_empty(len(order), self.beam, log_probs), Run(*(x[0] for x in runs)))
        share = Share(self.lm, beam.hash.numel(), log_probs.device) if self.lm is not None else None
        done = Done(beam, len(widths))
        for t, (n, width) in enumerate(zip(live, widths, strict=True)):
            beam = done.cut(beam, share, n)
            log_probs, added, gains, columns = (x[t, :n] for x in frames)
            frame = Frame(log_probs, added[:, : 1 + width], gains[:, : 1 + width], columns)
            beam, rows, new = _step(beam, frame, None if share is None else share.scores)
            beam = _held(beam, Run(*(x[t + 1, :n] for x in runs)))
            done.rows[t, :n], done.added[t, :n] = rows, new
            if share is not None:
                share.follow(rows, new)
        done.cut(beam, share, 0)
        back = order.argsort()
        return Found(*(x[back] for x in (*done.spelled(), done.scores)))

    def _frames(self, log_probs: Tensor) -> tuple[Frame, Run, Tensor, list[int]]:
        """(B,U,V+1) -> of each utterance the frames that may add a label (T,B,...), padded; the runs of others before
        the first and after each of them (T+1,B,...). The utterance that ends first stands last: their order (B,), and
        how many have a frame at each of the T steps."""
        labels = log_probs[:, :, 1:]
        likely = int((labels >= self.min_log_prob).sum(dim=2).max())
        gains, added = labels.topk(min(self.n_tokens, max(likely, 1)))
        gains = gains.masked_fill(gains < self.min_log_prob, -torch.inf)
        gains, added = (torch.nn.functional.pad(x, (1, 0)) for x in (gains, added + 1))
        columns = torch.zeros_like(log_probs, dtype=torch.long)
        places = torch.arange(added.shape[2], device=added.device)
        columns.scatter_(2, added, places.where(gains > -torch.inf, 0))
        adds = gains[:, :, 1] > -torch.inf
        n_steps, order = adds.sum(dim=1).sort(descending=True)
        at = (~adds[order]).to(torch.uint8).sort(dim=1, stable=True).indices.T[: int(n_steps.max())]  # (T, B)
        # Of each run the last frame, counted from 1; the last run of all ends with the utterance.
        is_step = torch.arange(len(at), device=at.device)[:, None] < n_steps
        ends = torch.nn.functional.pad(at.where(is_step, adds.shape[1]), (0, 0, 0, 1), value=adds.shape[1])
        frames = Frame(*(x[order, at] for x in (log_probs, added, gains, columns)))
        return frames, Run(*(x[ends, order] for x in _runs(log_probs, adds))), order, is_step.sum(dim=1).tolist()


class Done:
    """Beams of utterances that have ended, and all steps that led there; each (T, B, K) or (B, K)."""

    def __init__(self, beam: Beam, n_steps: int):
        n_utterances, size = beam.hash.shape
        self.beam = Beam(*(torch.empty_like(x) for x in beam))
        self.scores = torch.empty_like(beam.ends_blank)
        stay = torch.arange(size, device=beam.hash.device)
        self.rows = stay.expand(n_steps, n_utterances, size).clone()
        self.added = torch.zeros_like(self.rows)

    def cut(self, beam: Beam, share: "Share | None", n: int) -> Beam:
        """The first `n` utterances of a beam, the others kept."""
        n_before = len(beam.hash)
        if n == n_before:
            return beam
        for kept, now in zip(self.beam, beam, strict=True):
            kept[n:n_before] = now[n:]
        scores = torch.logaddexp(beam.ends_blank[n:], beam.ends_label[n:])
        if share is not None:
            scores = scores + share.scores[:, -1].view_as(beam.hash)[n:]
            if n:
                share.cut(n * scores.shape[1])
        self.scores[n:n_before] = scores
        return Beam(*(x[:n] for x in beam))

    def spelled(self) -> tuple[Tensor, Tensor]:
        return _spelled(list(zip(self.rows, self.added, strict=True)), self.beam)


def _runs(log_probs: Tensor, adds: Tensor) -> Run:
    """(B,U,V+1), (B,U) whether a frame may add a label -> (U+1,B,...) the runs before the first frame and up to each"""
    n_utterances, n_frames, n_classes = log_probs.shape
    same = log_probs.new_zeros(n_frames + 1, n_utterances, n_classes)
    turned = torch.full_like(same, -torch.inf)
    starts = adds.T[:, :, None]
    for t, frame in enumerate(log_probs.transpose(0, 1).contiguous()):
        torch.logaddexp(turned[t], same[t], out=turned[t + 1]).add_(frame[:, :1]).masked_fill_(starts[t], -torch.inf)
        torch.add(same[t], frame, out=same[t + 1]).masked_fill_(starts[t], 0)
    return Run(same, turned)


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

    def cut(self, n: int) -> None:
        """Only the first `n` prefixes go on."""
        self.state = self.lm.select(self.state, torch.arange(n, device=self.scores.device))
        self.scores = self.scores[:n]


def _empty(n_utterances: int, beam: int, like: Tensor) -> Beam:
    """The empty prefix in the first place, and places to fill."""
    scores = like.new_full((n_utterances, beam), -torch.inf)
    ints = torch.zeros_like(scores, dtype=torch.long)
    begun = scores.clone()
    begun[:, 0] = 0
    hashes = torch.full_like(ints, DEAD)
    hashes[:, 0] = EMPTY
    return Beam(begun, scores, hashes, torch.full_like(ints, NO_PARENT), ints)


def _held(beam: Beam, run: Run) -> Beam:
    """The beam after the frames of a run."""
    turned, same = (x.gather(1, beam.last) for x in (run.turned, run.same))
    return beam._replace(
        ends_blank=torch.logaddexp(beam.ends_blank + run.same[:, :1], beam.ends_label + turned),
        ends_label=beam.ends_label + same,
    )


def _step(beam: Beam, frame: Frame, lm_scores: Tensor | None) -> tuple[Beam, Tensor, Tensor]:
    """The next beam, of each of its prefixes the place in `beam` it came from (B,K), and the class added or 0 (B,K)"""
    n_utterances, size = beam.hash.shape
    n_columns = frame.added.shape[1]
    total = torch.logaddexp(beam.ends_blank, beam.ends_label)
    again = frame.log_probs.gather(1, beam.last)
    stay = beam._replace(ends_blank=total + frame.log_probs[:, :1], ends_label=beam.ends_label + again)
    # What each prefix may become, and one place more, which is that of nobody.
    nobody = size * n_columns
    flat = total.new_empty(n_utterances, nobody + 1)
    become = flat[:, :nobody].unflatten(1, (size, n_columns))  # (B, K, 1+w), a view
    torch.add(total[:, :, None], frame.gains[:, None], out=become)
    # A label said again after itself needs a blank in between.
    column = frame.columns.gather(1, beam.last)
    is_listed = column > 0
    itself = torch.where(is_listed, column + torch.arange(0, nobody, n_columns, device=column.device), nobody)
    flat.scatter_(1, itself, beam.ends_blank + again)
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
