"""The feature store."""


class NoCache:
    """Features are computed anew in every epoch."""


class Cache:
    """Features are computed once and kept."""

    def __init__(self, dtype: str, n_workers: int | str):
        self.dtype, self.n_workers = dtype, n_workers
