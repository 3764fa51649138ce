"""Answers that are made once and given to many: values of files, kept until the files change."""

import gzip
import hashlib
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
PACKED_FROM = 1400  # bytes: less fits one packet anyhow
# A listing is made anew at most so often, and takes at most this share of the time.
EVERY_S, SHARE = 1.0, 0.2
# An answer that nobody asked for so long is made anew before it is given.
STALE_S = 10.0
# So many values are renewed at the same time: a first look at a hundred experiments is not to hold up everything else.
_READERS = threading.Semaphore(3)


class Answer(NamedTuple):
    """JSON, ready to be sent."""

    body: bytes
    packed: bytes | None  # gzip
    etag: str


def answer(value: Any) -> Answer:
    """Numbers that JSON has not (nan, infinities) become null."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    body = text.encode()
    packed = gzip.compress(body, 1) if len(body) > PACKED_FROM else None
    return Answer(body, packed, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


class Kept(Generic[T]):
    """The last values by key, each as long as its mark (stamps of files) stays the same.

    Threads that want the same value wait for one of them to make it; others are not held up.
    """

    def __init__(self, most: int):
        self.most = most
        self._found: OrderedDict[Hashable, tuple[Any, T]] = OrderedDict()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, mark: Any, make: Callable[[], T]) -> T:
        """What `make` gave for this key and mark."""
        with self._lock:
            there = self._there(key, mark)
            if there is not None:
                return there[1]
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._lock:
                there = self._there(key, mark)
            if there is not None:
                return there[1]
            try:
                value = make()
                with self._lock:
                    self._found[key] = (mark, value)
                    while len(self._found) > self.most:
                        self._found.popitem(last=False)
            finally:
                with self._lock:
                    self._locks.pop(key, None)
        return value

    def _there(self, key: Hashable, mark: Any) -> tuple[Any, T] | None:
        there = self._found.get(key)
        if there is None or there[0] != mark:
            return None
        self._found.move_to_end(key)
        return there


class Live(Generic[T]):
    """A value of many files that is renewed while it is asked for: by one thread, while the others get the last one."""

    def __init__(self, make: Callable[[], T]):
        self.make = make
        self._value: T | None = None
        self._made = -math.inf
        self._cost = 0.0
        self._renewing = False
        self._lock, self._making = threading.Lock(), threading.Lock()

    def get(self) -> T:
        """Never older than `STALE_S`. Raises what `make` raises."""
        with self._lock:
            value, age = self._value, time.monotonic() - self._made
            if value is not None and age < STALE_S:
                if age > max(EVERY_S, self._cost / SHARE) and not self._renewing:
                    self._renewing = True
                    threading.Thread(target=self._renew, daemon=True, name="renew").start()
                return value
        with self._making:
            if time.monotonic() - self._made > EVERY_S:
                self._take()
            assert self._value is not None
            return self._value

    def begin(self) -> T | None:
        """What is there, without waiting; where there is nothing, it is begun."""
        with self._lock:
            if self._value is None and not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, daemon=True, name="renew").start()
            if self._value is None:
                return None
        return self.get()

    def _renew(self) -> None:
        try:
            with _READERS, self._making:
                self._take()
        except Exception:  # whoever asks next is told
            with self._lock:
                self._value = None
        finally:
            with self._lock:
                self._renewing = False

    def _take(self) -> None:
        start = time.monotonic()
        value = self.make()
        with self._lock:
            self._value, self._made = value, time.monotonic()
            self._cost = self._made - start
