"""Lengths of windows and hops."""


def samples(ms: float, sample_rate: int, name: str) -> int:
    """Milliseconds in samples, rounded.

    Raises:
        ValueError: it is not at least one sample.
    """
    if not 1 <= sample_rate * ms / 1000 < 1e9:
        raise ValueError(f"{name}={ms} is not a length of at least one sample at {sample_rate} Hz")
    return round(sample_rate * ms / 1000)
