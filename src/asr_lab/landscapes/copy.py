"""A recurrent network that has to remember: gradients through time explode."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asr_lab.landscapes import at_least, generator_of


class CopyTask(nn.Module):
    """Symbols are read, then `delay` blanks, and at a sign the symbols are to be said in order (Hochreiter &
    Schmidhuber 1997; as Arjovsky et al. 2016 have it).

    A plain tanh network, h_t = tanh(W h_(t-1) + V x_t + b), whose W begins as `spectral_radius` times a random
    orthogonal matrix: where the units are not saturated, a gradient grows by that factor at each step back in time
    (Pascanu et al. 2013). The loss is the cross-entropy of a recalled symbol in nats. Who does not remember has
    log(n_symbols); `gap` is the share of that, and `error` is the share of symbols that are wrong.
    """

    score_names = ("loss", "gap", "error")

    def __init__(
        self, seed: int, n_symbols: int, n_recalled: int, delay: int, d_hidden: int, spectral_radius: float,
        batch_size: int, n_batches: int, n_scored: int,
    ):  # fmt: skip
        super().__init__()
        at_least(2, n_symbols=n_symbols)
        counts = {"n_recalled": n_recalled, "d_hidden": d_hidden, "batch_size": batch_size, "n_scored": n_scored}
        at_least(1, **counts, n_batches=n_batches)
        at_least(0, delay=delay)
        if not spectral_radius > 0:
            raise ValueError(f"landscape.spectral_radius must be positive, {spectral_radius} came")
        self.n_symbols, self.n_recalled, self.delay = n_symbols, n_recalled, delay
        self.batch_size, self.n_batches, self.n_scored = batch_size, n_batches, n_scored
        g = generator_of(seed)
        n_inputs = n_symbols + 2  # a blank and the sign
        self.rnn = nn.RNN(n_inputs, d_hidden, nonlinearity="tanh", batch_first=True)
        self.output = nn.Linear(d_hidden, n_symbols)
        orthogonal, _ = torch.linalg.qr(torch.randn(d_hidden, d_hidden, generator=g))
        inward = torch.randn(d_hidden, n_inputs, generator=g) / math.sqrt(d_hidden)
        outward = torch.randn(n_symbols, d_hidden, generator=g) / math.sqrt(d_hidden)
        begin = {"rnn.weight_hh_l0": spectral_radius * orthogonal, "rnn.weight_ih_l0": inward, "output.weight": outward}
        with torch.no_grad():
            for name, p in self.named_parameters():
                p.copy_(begin.get(name, torch.zeros_like(p)))

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """((B, L) symbols,)"""
        return (torch.randint(self.n_symbols, (self.batch_size, self.n_recalled), generator=generator),)

    def forward(self, symbols: Tensor) -> Tensor:
        """(B, L) -> (B, L, V) logits of what is recalled"""
        blank, sign = self.n_symbols, self.n_symbols + 1
        n = self.n_recalled
        read = torch.nn.functional.pad(symbols, (0, self.delay + n), value=blank)
        read[:, n + self.delay] = sign
        hidden, _ = self.rnn(torch.nn.functional.one_hot(read, self.n_symbols + 2).to(self.output.weight.dtype))
        return self.output(hidden[:, -n:])

    def loss(self, symbols: Tensor) -> Tensor:
        return cross_entropy(self(symbols).flatten(0, 1).float(), symbols.flatten())

    def scores(self, symbols: Tensor) -> dict[str, Tensor]:
        logits = self(symbols).flatten(0, 1).double()
        loss = cross_entropy(logits, symbols.flatten())
        error = (logits.argmax(dim=1) != symbols.flatten()).double().mean()
        return {"loss": loss, "gap": loss / math.log(self.n_symbols), "error": error}
