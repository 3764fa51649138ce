"""Opaque states of many hypotheses side by side, as `Scorer` of asr_lab.decoding has them."""

from typing import Any

from torch import Tensor


def replaced(scorer: Any, state: Any, part: Any, rows: Tensor) -> Any:
    """`state` of N hypotheses, with the M < N hypotheses of `part` in the places `rows` (M,), each once.

    A scorer may say how, by a method `replaced(state, part, rows)`. Otherwise a state is a tensor, or (nested) tuples,
    lists or dictionaries of tensors, and each tensor has one axis of hypotheses.

    Raises:
        ValueError: the state cannot be taken apart so.
    """
    own = getattr(scorer, "replaced", None)
    return _replaced(state, part, rows) if own is None else own(state, part, rows)


def _replaced(state: Any, part: Any, rows: Tensor) -> Any:
    if isinstance(state, Tensor):
        axes = [i for i, (n, m) in enumerate(zip(state.shape, part.shape, strict=True)) if n != m]
        if len(axes) == 1 and part.shape[axes[0]] == len(rows):
            return state.index_copy(axes[0], rows, part)
        if not axes and state.equal(part):  # what all hypotheses share
            return state
    elif isinstance(state, dict):
        return {key: _replaced(state[key], part[key], rows) for key in state}
    elif isinstance(state, tuple | list):
        inner = [_replaced(s, p, rows) for s, p in zip(state, part, strict=True)]
        return type(state)(*inner) if hasattr(state, "_fields") else type(state)(inner)
    elif state == part:
        return state
    raise ValueError(
        "this language model cannot hold hypotheses of different lengths side by side, as a search over frames needs "
        "them; set lm.use=rescoring"
    )
