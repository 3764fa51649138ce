"""ARPA files, the common text format of n-gram models (as SRILM and KenLM write them), plain or gzipped."""

import gzip
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from asr_lab.errors import DataError
from asr_lab.files import write_atomic
from asr_lab.lm.backoff import Backoff, BadGram, Grams
from asr_lab.lm.kneser_ney import BEGIN, END, UNKNOWN

SPACE = "<space>"  # the label of a space, in models over characters
_LN10 = math.log(10)
_NEVER = -99.0  # log10 probability of what is never predicted
_Lines = Iterator[tuple[int, bytes]]


class _Section(NamedTuple):
    """The n-grams of one order as they are read."""

    numbers: array  # line of each n-gram
    ids: array  # order ids an n-gram
    log_probs: array  # log10
    backoffs: array  # log10


def read_arpa(path: Path) -> Backoff:
    """A model from a file. A back-off weight that is not written is 0, as SRILM leaves out those of no use.

    Raises:
        DataError: the file cannot be read or is not what it should be, with the line.
    """
    path = Path(path).expanduser()
    try:
        with open(path, "rb") as f:
            if f.read(7) == b"mmap lm":
                raise DataError(f"{path}: this is a binary file of KenLM, not ARPA; use lm=kenlm lm.model.file={path}")
            return _read(path, unzipped(f))
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: the language model cannot be read ({why})") from None


def read_vocabulary(path: Path) -> list[str]:
    """The words of an ARPA file, without reading the rest.

    Raises:
        DataError: as `read_arpa`.
    """
    with open(path, "rb") as f:
        lines: _Lines = enumerate(unzipped(f), 1)
        _counts(path, lines)
        index: dict[bytes, int] = {}
        _section(path, lines, 1, index)
    return _words(path, index)


def unzipped(f: BinaryIO) -> BinaryIO:
    """A file from its beginning, whether it is gzipped or not."""
    f.seek(0)
    is_zipped = f.read(2) == b"\x1f\x8b"
    f.seek(0)
    return gzip.GzipFile(fileobj=f) if is_zipped else f  # pyright: ignore[reportReturnType]


def _words(path: Path, index: dict[bytes, int]) -> list[str]:
    try:
        return [word.decode() for word in index]
    except UnicodeDecodeError:
        raise DataError(f"{path}: it is not UTF-8; convert it") from None


def _read(path: Path, f: BinaryIO) -> Backoff:
    lines: _Lines = enumerate(f, 1)
    counts, index, sections, head = _counts(path, lines), {}, [], b""
    for order, count in enumerate(counts, 1):
        if order > 1 and head != b"\\%d-grams:" % order:
            raise DataError(f"{path}: '\\{order}-grams:' expected, '{_shown(head)}' came")
        section, head = _section(path, lines, order, index)
        if len(section.numbers) != count:
            raise DataError(f"{path}: {len(section.numbers)} {order}-grams, but its head says {count}; is it whole?")
        sections.append(section)
    if head != b"\\end\\":
        raise DataError(f"{path}: '\\end\\' expected, '{_shown(head)}' came")
    words = _words(path, index)
    for word in (BEGIN, END):
        if word not in words:
            raise DataError(f"{path}: '{word}' is not among its words; a model of sentences has it")
    unknown = next((i for i, word in enumerate(words) if word in (UNKNOWN, UNKNOWN.upper())), None)
    grams = [_grams(section, order) for order, section in enumerate(sections, 1)]
    try:
        return Backoff(words, words.index(BEGIN), words.index(END), unknown, grams)
    except BadGram as bad:
        section = sections[bad.order - 1]
        gram = " ".join(words[i] for i in section.ids[bad.row * bad.order : (bad.row + 1) * bad.order])
        raise DataError(f"{path}:{section.numbers[bad.row]}: {bad.order}-gram '{gram}': {bad.why}") from None


def _counts(path: Path, lines: _Lines) -> list[int]:
    """The numbers of n-grams that the head promises, up to the line `\\1-grams:`."""
    if not any(line.strip() == b"\\data\\" for _, line in lines):
        raise DataError(f"{path}: no line '\\data\\'; this is not an ARPA file")
    counts: list[int] = []
    for number, raw in lines:
        line = raw.strip()
        if line == b"\\1-grams:" and counts:
            return counts
        if not line:
            continue
        order, equals, count = line.removeprefix(b"ngram").partition(b"=")
        if not equals or order.strip() != b"%d" % (len(counts) + 1) or not count.strip().isdigit():
            wanted = f"'ngram {len(counts) + 1}=' and a count, or '\\1-grams:'"
            raise DataError(f"{path}:{number}: {wanted} expected, '{_shown(line)}' came")
        counts.append(int(count))
    raise DataError(f"{path}: it ends within its head; is it whole?")


def _section(path: Path, lines: _Lines, order: int, index: dict[bytes, int]) -> tuple[_Section, bytes]:
    """One order, up to the next line that begins with a backslash, and that line. Unigrams fill `index`."""
    section = _Section(array("q"), array("q"), array("d"), array("d"))
    for number, line in lines:
        fields = line.split()
        if not fields:
            continue
        if fields[0].startswith(b"\\"):
            return section, line.strip()
        try:
            backoff = float(fields[order + 1]) if len(fields) > order + 1 else 0.0
            log_prob, words = float(fields[0]), fields[1 : order + 1]
            if order == 1 and index.setdefault(words[0], len(index)) != len(section.numbers):
                raise DataError(f"{path}:{number}: 1-gram '{_shown(words[0])}': it was there before")
            section.ids.extend([index[word] for word in words])
            if not order + 1 <= len(fields) <= order + 2 or not -math.inf < log_prob <= 0 or not math.isfinite(backoff):
                raise ValueError
        except DataError:
            raise
        except (ValueError, IndexError, KeyError) as error:
            raise DataError(f"{path}:{number}: {_why(fields, order, error)}") from None
        section.numbers.append(number)
        section.log_probs.append(log_prob)
        section.backoffs.append(backoff)
    raise DataError(f"{path}: it ends within its {order}-grams; is it whole?")


def _why(fields: list[bytes], order: int, error: Exception) -> str:
    line = _shown(b" ".join(fields))
    if isinstance(error, KeyError):
        return f"'{_shown(error.args[0])}' is not among the 1-grams ('{line}')"
    return (
        f"not a {order}-gram ('{line}'); a line is a finite log10 probability of at most 0, {order} "
        f"word{'s' * (order > 1)}, and a finite back-off weight or none"
    )


def _shown(line: bytes) -> str:
    return line.decode(errors="replace")[:60]


def _grams(section: _Section, order: int) -> Grams:
    ids = np.frombuffer(section.ids, dtype=np.int64) if section.ids else np.zeros(0, np.int64)
    log_probs, backoffs = (np.array(values, dtype=np.float64) * _LN10 for values in section[2:])
    return Grams(ids.reshape(-1, order), log_probs, backoffs)


def write_arpa(path: Path, model: Backoff) -> Path:
    """Write a model whole or not at all; gzipped where the name ends with .gz.

    Raises:
        DiskFullError: it cannot be written.
    """
    path = Path(path)

    def write(f: BinaryIO) -> None:
        if path.suffix != ".gz":
            f.writelines(_lines(model))
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=f, mtime=0) as zipped:  # the same model, the same bytes
            zipped.writelines(_lines(model))

    return write_atomic(path, write)


def _lines(model: Backoff) -> Iterator[bytes]:
    levels = [model.grams(order) for order in range(1, model.order + 1)]
    yield b"\\data\\\n"
    for order, level in enumerate(levels, 1):
        yield b"ngram %d=%d\n" % (order, len(level.words))
    for order, level in enumerate(levels, 1):
        yield b"\n\\%d-grams:\n" % order
        log_probs = np.maximum(level.log_probs / _LN10, _NEVER).tolist()
        backoffs = (level.backoffs / _LN10).tolist()
        for ids, log_prob, backoff in zip(level.words.tolist(), log_probs, backoffs, strict=True):
            words = " ".join([model.words[i] for i in ids])
            weight = f"\t{backoff:.7g}" if order < model.order else ""
            yield f"{log_prob:.7g}\t{words}{weight}\n".encode()
    yield b"\n\\end\\\n"
