"""A finished run of a language model, ready to help a search: what conf/lm/neural.yaml names."""

import torch

from asr_lab.build import check
from asr_lab.build_lm import build_model
from asr_lab.errors import RunError
from asr_lab.lm.neural import NeuralLm
from asr_lab.run import find_run
from asr_lab.text.tokenizer import Tokenizer


def trained_model(tokenizer: Tokenizer, run: str | int, fingerprint: str) -> NeuralLm:
    """The model of a run's best checkpoint, in evaluation mode, its weights fixed.

    Args:
        run: its folder, or the beginning of its cell name or fingerprint (which may be digits only: a number in YAML).
        fingerprint: the run that was meant when this configuration was frozen.

    Raises:
        RunError: there is no such run, it is a speech recogniser's, is another than was meant or has not finished, or
            its labels are not those of `tokenizer`.
    """
    found = find_run(str(run), kind="lm")
    if found.fingerprint != fingerprint:
        raise RunError(
            f"{found.folder}: language model {found.fingerprint}, but {fingerprint} is wanted; set lm.model.run to "
            "where that one is now"
        )
    if not found.is_done() or not found.best_checkpoint.exists():
        raise RunError(f"{found.folder}: has not finished training; train it to its end, then use it as lm.model.run")
    saved = torch.load(found.best_checkpoint, map_location="cpu", weights_only=False)
    symbols = saved["belongings"]["tokenizer"].symbols
    if symbols != tokenizer.symbols:
        raise RunError(
            f"{found.folder}: its {len(symbols)} labels are not the {len(tokenizer)} of this run's tokenizer"
            f"{_difference(symbols, tokenizer.symbols)}; train both on the same data with the same tokenizer"
        )
    check(found.config)
    model = build_model(found.config, tokenizer)
    weights = {k.removeprefix("model."): v for k, v in saved["state_dict"].items() if k.startswith("model.")}
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def _difference(theirs: list[str], ours: list[str]) -> str:
    apart = sorted(set(theirs) ^ set(ours))
    return f" (only one of them has {', '.join(map(repr, apart[:5]))})" if apart else " (another order)"
