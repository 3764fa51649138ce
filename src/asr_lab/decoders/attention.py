"""Listen, attend and spell (Chan et al. 2016): a recurrent decoder that looks at the frames for each label."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.layers.attention_rules import Projected
from asr_lab.layers.label_loss import smoothed_nll, with_end, with_start
from asr_lab.layers.label_rnn import LabelRnn, LayerStates
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.recurrence import Recurrence
from asr_lab.layers.shared_memory import SharedMemory


class State(NamedTuple):
    """Of N hypotheses."""

    memory: SharedMemory
    layers: LayerStates
    context: Tensor  # (N, C)
    weights: Tensor | None  # (N, H, U), None without attention


class RecurrentDecoder(nn.Module):
    """s_i = RNN(s_i-1, [y_i-1; c]), p(y_i) = softmax(W_o tanh(W_c [s_i; c_i])) (Luong et al. 2015, equations 5 and 6).

    A subclass says what the context c is. Label V is the end where labels are said, and the beginning where they are
    read. Scheduled sampling (Bengio et al. 2015) at a constant rate, as Chan et al. have it: in training a label that
    is read is, with that probability, one drawn from the decoder's own distribution instead of the right one.
    """

    def __init__(self, n_labels: int, rnn: LabelRnn, d_context: int, scheduled_sampling: float, label_smoothing: float):
        super().__init__()
        for name, value in (("scheduled_sampling", scheduled_sampling), ("label_smoothing", label_smoothing)):
            if not 0 <= value <= 1:
                raise ValueError(f"decoder.{name} is a share in [0, 1], {value} came")
        self.end = n_labels
        self.scheduled_sampling, self.label_smoothing = scheduled_sampling, label_smoothing
        self.rnn = rnn
        d_hidden = rnn.embedding.embedding_dim
        self.join = nn.Linear(d_hidden + d_context, d_hidden)
        self.output = nn.Linear(d_hidden, n_labels + 1)

    # What a subclass says

    at_once = True  # no label's state depends on what another looked at

    def remember(self, hidden: Tensor, lens: Tensor) -> State:
        """(B,U,D), (B,) -> the state of B hypotheses before the beginning"""
        raise NotImplementedError

    def fed(self, context: Tensor) -> Tensor | None:
        """(...,C) -> what of a context the cells read, (...,d_fed)"""
        raise NotImplementedError

    def look(self, memory: SharedMemory, query: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """queries (A,Q,d_hidden), weights before (A,H,Q,U) -> context (A,Q,C), weights (A,H,Q,U)"""
        raise NotImplementedError

    # Training

    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,U,D), (B,), (B,L), (B,) -> (B,) nats, the end included; labels are smoothed in training only"""
        targets, valid = with_end(labels, label_lens, self.end)
        log_probs = self.forced(hidden, lens, labels, self.scheduled_sampling if self.training else 0.0)
        return smoothed_nll(log_probs, targets, valid, self.label_smoothing if self.training else 0.0)

    def posteriors(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,L+1,V+1) log-probabilities behind the right labels, (B,L+1) where they count"""
        return self.forced(hidden, lens, labels, 0.0), with_end(labels, label_lens, self.end)[1]

    def forced(self, hidden: Tensor, lens: Tensor, labels: Tensor, sampling: float) -> Tensor:
        """(B,U,D), (B,), (B,L) -> (B,L+1,V+1) log-probabilities of each label and the end"""
        state, read = self.remember(hidden, lens), with_start(labels, self.end)
        if self.at_once and not sampling:
            return self._all_steps(state, read)
        queries, contexts = [], []
        for i, right in enumerate(read.unbind(1)):
            state = self.step(state, self._sampled(state, right, sampling) if i and sampling else right)
            queries.append(state.layers[-1][0])
            contexts.append(state.context)
        return self.predict(torch.stack(queries, dim=1), torch.stack(contexts, dim=1))

    def _all_steps(self, state: State, read: Tensor) -> Tensor:
        """labels (B,L+1) -> (B,L+1,V+1), without a loop"""
        fed = self.fed(state.context)
        fed = None if fed is None else fed[:, None].expand(-1, read.shape[1], -1)
        query = self.rnn.run(read, fed, state.layers)
        return self.predict(query, self.look(state.memory, query, None)[0])

    @torch.no_grad()
    def _sampled(self, state: State, right: Tensor, sampling: float) -> Tensor:
        """(B,): the right labels, or instead of some of them own ones (never the end, which is not read)"""
        own = torch.multinomial(self.scores(state)[:, : self.end].softmax(dim=1), 1)[:, 0]
        return torch.where(torch.rand(right.shape, device=right.device) < sampling, own, right)

    def predict(self, query: Tensor, context: Tensor) -> Tensor:
        """(...,d_hidden), (...,C) -> (...,V+1) log-probabilities, in float32 at least whatever the autocast"""
        joined = torch.tanh(self.join(torch.cat([query, context.to(query.dtype)], dim=-1)))
        logits = self.output(self.rnn.dropout(joined))
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """(B,L), (B,) -> (B,) ones: several labels may look at the same frame"""
        return torch.ones_like(label_lens)

    # The contract of a Scorer

    def begin(self, hidden: Tensor, lens: Tensor) -> State:
        """(B,U,D), (B,) -> the state of B empty hypotheses"""
        return self.step(self.remember(hidden, lens), lens.new_full((len(lens),), self.end))

    def scores(self, state: State) -> Tensor:
        """(N,V+1) log-probabilities of what comes next"""
        return self.predict(state.layers[-1][0], state.context)

    def advance(self, state: State, labels: Tensor) -> State:
        """The state after labels (N,)"""
        return self.step(state, labels)

    def select(self, state: State, rows: Tensor) -> State:
        """The hypotheses `rows` (M,)"""
        layers = tuple(tuple(x[rows] for x in layer) for layer in state.layers)
        weights = None if state.weights is None else state.weights[rows]
        return State(state.memory.select(rows), layers, state.context[rows], weights)

    def step(self, state: State, labels: Tensor) -> State:
        """The state after labels (N,); the beginning (V) comes first"""
        memory = state.memory
        layers = self.rnn.step(labels, self.fed(state.context), state.layers)
        before = None if state.weights is None else memory.by_utterance(state.weights).transpose(1, 2)
        context, weights = self.look(memory, memory.by_utterance(layers[-1][0]), before)
        weights = None if weights is None else weights.transpose(1, 2).flatten(0, 1)
        return State(memory, layers, context.flatten(0, 1), weights)


class AttentionDecoder(RecurrentDecoder):
    """c_i is what an attention rule reads of the frames for the query s_i.

    `input_feeding`: the cells read the context before, c_i-1, beside the label (Chan et al. 2016, equation 6; Luong et
    al. 2015 call it so, and feed the tanh). Without it, and with a rule that does not ask for the weights before, a
    loss is computed for all labels at once.
    """

    def __init__(
        self,
        in_dim: int,
        n_labels: int,
        rule: Callable,
        cell: Callable[..., Recurrence],
        d_hidden: int,
        n_layers: int,
        input_feeding: bool,
        scheduled_sampling: float,
        label_smoothing: float,
        dropout: float,
    ):
        made = rule(query_dim=d_hidden, key_dim=in_dim)
        rnn = LabelRnn(n_labels, made.out_dim if input_feeding else 0, d_hidden, n_layers, cell, dropout)
        super().__init__(n_labels, rnn, made.out_dim, scheduled_sampling, label_smoothing)
        self.rule, self.input_feeding = made, input_feeding
        self.at_once = not input_feeding and not made.uses_previous

    def remember(self, hidden: Tensor, lens: Tensor) -> State:
        mask = valid_frames(lens, hidden.shape[1])
        # Whatever stands in the padding gets a weight of 0, and 0 times infinity is no number.
        known = self.rule.project(hidden.masked_fill(~mask[:, :, None], 0))
        context = known.values.new_zeros(len(lens), self.rule.out_dim)
        memory = SharedMemory((known.keys, known.values, mask[:, None]), 1)
        return State(memory, self.rnn.begin(context), context, None)

    def fed(self, context: Tensor) -> Tensor | None:
        return context if self.input_feeding else None

    def look(self, memory: SharedMemory, query: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        keys, values, mask = memory.tensors
        return self.rule(query, Projected(keys, values), mask, weights)

    def attended(self, state: State) -> Tensor:
        """(N,U): the attention, the mean of the heads', with which the next label is predicted"""
        assert state.weights is not None
        return state.weights.float().mean(dim=1)
