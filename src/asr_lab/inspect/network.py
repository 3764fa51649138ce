"""The network of a configuration: head, encoder, and the decoder where a corpus gives its vocabulary."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.build import build_data, call, check, make
from asr_lab.data.speech import SpeechData
from asr_lab.errors import AsrLabError, ConfigError, DataError, RunError
from asr_lab.run import Run


class Network(nn.Module):
    """Named as in a checkpoint, so `encoder.layers.0` is the same module in both."""

    def __init__(self, head: Any, encoder: Any, decoder: Any = None):
        super().__init__()
        self.head, self.encoder, self.decoder = head, encoder, decoder

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> log-probabilities (B,U,V+1) where the decoder is frame-wise, else hidden frames (B,U,D)"""
        hidden, lens = self.encoder(*self.head(feats, lens))
        return (self.decoder.log_probs(hidden), lens) if self.is_frame_wise else (hidden, lens)

    @property
    def is_frame_wise(self) -> bool:
        return hasattr(self.decoder, "log_probs")


class Subject(NamedTuple):
    """What is looked at."""

    network: Network  # in evaluation: no dropout
    frontend: Any
    data: SpeechData | None  # where the corpus was wanted and is there
    config: dict[str, Any]
    is_trained: bool


@contextmanager
def mistakes_of_forward() -> Iterator[None]:
    """What a network says of its input (too short for it, say) is for people."""
    try:
        yield
    except AsrLabError:
        raise
    except ValueError as error:
        raise ConfigError(f"conf/encoder: {' '.join(str(error).split())}") from error


def subject(config: dict[str, Any], with_corpus: bool) -> Subject:
    """The network with the weights that training would begin with.

    Raises:
        ConfigError: a key or value does not fit.
        DataError: the corpus is wanted and not there.
    """
    check(config)
    torch.manual_seed(config["seed"])
    # In the order of build.py: the weights come from one stream of random numbers.
    frontend = make(config, "frontend")
    head = call(config, "frontend", frontend.head, in_dim=frontend.out_dim)
    encoder = call(config, "encoder", in_dim=head.out_dim)
    data = decoder = None
    if with_corpus:
        data = build_data(config, frontend)
        decoder = call(config, "decoder", in_dim=encoder.out_dim, n_labels=len(data.tokenizer))
    return Subject(Network(head, encoder, decoder).eval(), frontend, data, config, is_trained=False)


def trained_subject(run: Run, needs_corpus: bool) -> tuple[Subject, str]:
    """The network of a run with the weights of its best checkpoint, and why the decoder is missing where it is.

    Raises:
        RunError: the run has no checkpoint, or one that does not fit.
        DataError: the corpus is needed for features, and not there. Otherwise the decoder is left out.
    """
    path, note = run.best_checkpoint, ""
    if not path.exists():
        raise RunError(f"{run.folder}: no checkpoint 'best'; train the run first (asr-lab train)")
    try:
        found = subject(run.config, with_corpus=True)
    except DataError as error:
        if needs_corpus:
            raise
        found, note = subject(run.config, with_corpus=False), f"without the decoder: {error}"
    parts = {"head.", "encoder."} | ({"decoder."} if found.data else set())
    try:
        saved = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
        found.network.load_state_dict({k: v for k, v in saved.items() if k.startswith(tuple(parts))})
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise RunError(f"{path}: cannot be loaded ({why}); train the run again") from None
    return found._replace(is_trained=True), note
