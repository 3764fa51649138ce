"""Numbers and shapes as short texts."""

from collections.abc import Sequence


def shape(sizes: Sequence[int] | None) -> str:
    """(1, 96, 144) -> 1×96×144"""
    if sizes is None:
        return ""
    return "×".join(map(str, sizes)) if sizes else "()"


def amount(n: float) -> str:
    """1234567 -> 1.23 M; nothing for zero"""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:g}" if n else ""


def number(x: float | None, rough: bool = False) -> str:
    """Three significant digits, or `rough`ly two decimals; nothing for None."""
    if x is None:
        return ""
    return f"{x:.2f}".replace("-0.00", "0.00") if rough and abs(x) < 1000 else f"{x + 0.0:.3g}"
