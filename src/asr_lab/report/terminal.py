"""Text of others on a terminal: nothing in it is a command, and what is too wide goes on below."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

# What moves a cursor, colours, or turns the direction of the text after it.
_COMMANDS = {"Cc", "Cs", "Zl", "Zp"}
_DIRECTION = {*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}


def visible(text: str) -> str:
    """Control characters, marks of direction and lone surrogates as escapes: `\\x1b`, `\\u202e`."""
    return "".join(_escaped(c) if unicodedata.category(c) in _COMMANDS or c in _DIRECTION else c for c in text)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def stacked(
    names: Sequence[str], columns: Iterable[Sequence[tuple[str, str]]], width: int, gap: str = "*"
) -> Iterator[list[Text]]:
    """Lines of words one under the other, in blocks of `width` cells of the terminal.

    Args:
        names: of the lines, repeated in every block.
        columns: for each column, a (word, style) a line; an empty word is filled with `gap`.

    Returns:
        Blocks, one after the other, of one line for each name. A word wider than a block is cut into pieces.
    """
    head = max(map(cell_len, names)) + 1
    room = max(width - head, 8)
    for block in _blocks(columns, room):
        lines = [Text(name.ljust(head)) for name in names]
        for column in block:
            wide = max(cell_len(word) for word, _ in column)
            for line, (word, style) in zip(lines, column, strict=True):
                line.append(word or gap * wide, style or None)
                line.append(" " * (wide - cell_len(word or gap * wide) + 1))
        for line in lines:
            line.rstrip()
        yield lines


def _blocks(columns: Iterable[Sequence[tuple[str, str]]], room: int) -> Iterator[list[Sequence[tuple[str, str]]]]:
    block: list[Sequence[tuple[str, str]]] = []
    used = 0
    for column in (piece for whole in columns for piece in _pieces(whole, room)):
        wide = max(cell_len(word) for word, _ in column)
        if block and used + wide > room:
            yield block
            block, used = [], 0
        block.append(column)
        used += wide + 1
    if block:
        yield block


def _pieces(column: Sequence[tuple[str, str]], room: int) -> Iterator[Sequence[tuple[str, str]]]:
    """A column that fits, or one cut into several that do."""
    if max(cell_len(word) for word, _ in column) <= room:
        yield column
        return
    cut = [_cut(word, room) for word, _ in column]
    for i in range(max(map(len, cut))):
        yield [(parts[i] if i < len(parts) else "", style) for parts, (_, style) in zip(cut, column, strict=True)]


def _cut(word: str, room: int) -> list[str]:
    parts = [""]
    for char in word:
        if cell_len(parts[-1]) + cell_len(char) > room:
            parts.append("")
        parts[-1] += char
    return parts
