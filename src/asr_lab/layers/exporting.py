"""Whether what runs is recorded for an export, which has to hold for every length."""

import torch


def exporting() -> bool:
    """True under torch.export and torch.jit.trace. What is fast because it names sizes must then name none."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # pyright: ignore
