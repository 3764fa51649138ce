"""The numbers of `asr-lab data stats` as rows of text, the same on the terminal and on the page."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from asr_lab.data.findings import counted
from asr_lab.report.formats import NOTHING, percent, seconds

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 5  # suspects and problems of a kind on the terminal
ACROSS = 4  # splits beside each other

Row = tuple[str, list[str]]
Split = dict[str, Any]


def rows(answer: dict[str, Any]) -> dict[str, list[Row]]:
    """(label, one text a split) by section, in the order of `answer["splits"]`."""
    splits = answer["splits"]
    sections = {"Recordings and speakers": _manifest, "Transcripts": _text, "Against train": _unseen, "Sound": _sound}
    return {name: found for name, section in sections.items() if (found := list(section(answer, splits)))}


def print_tables(answer: dict[str, Any], console: "Console") -> None:
    """What fits a terminal of 80 columns; `--json` has the rest."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        console.print(Text(printable(text), style=style), soft_wrap=True)

    say(f"{answer['corpus']}: {headline(answer)}", "bold")
    names, sections = list(answer["splits"]), rows(answer)
    for start in range(0, len(names), ACROSS):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=True)
        for name in names[start : start + ACROSS]:
            table.add_column(Text(printable(name)), justify="right")
        for section in sections.values():
            for label, values in section:
                table.add_row(label, *map(Text, values[start : start + ACROSS]))
            table.add_section()
        console.print(table)
    for line in answer["findings"] or ["Nothing stands out."]:
        say(f"- {line}")
    if answer["suspects"]:
        say("\nToo much (+) or too little (-) sound for the transcript, by robust z-score:", "bold")
        for s in answer["suspects"][:SHOWN]:
            say(f"  {s['z']:+5.1f}  {s['id']}: {s['active_s']:.2f} s for {s['text'][:80]!r}")
        _more(len(answer["suspects"]) - SHOWN, say)
    for kind, n in answer["problems"]["counts"].items():
        say(f"\n{kind} ({n}):", "bold")
        for item in [i for i in answer["problems"]["items"] if i["kind"] == kind][:SHOWN]:
            say(f"  {item['where']}: {item['detail']}")
        _more(n - SHOWN, say)


def headline(answer: dict[str, Any]) -> str:
    """Size of the corpus, and how much of it was measured."""
    n, audio = answer["utterances"], answer["audio"]
    speakers = counted(len(answer["speakers"]), "speaker")
    size = f"{counted(n, 'utterance')}, {seconds(3600 * answer['hours'])}, {speakers}"
    if not audio:
        return f"{size}; recordings not measured"
    if audio["wanted"] < n:
        return f"{size}; {counted(audio['wanted'], 'recording')} drawn at random and measured (seed {audio['seed']})"
    return size


def printable(text: str) -> str:
    """Without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _more(n: int, say: Callable[[str], None]) -> None:
    if n > 0:
        say(f"  and {n:,} more (--json lists all)")


def _manifest(answer: dict[str, Any], splits: dict[str, Split]) -> Iterator[Row]:
    yield _row("utterances", splits, lambda s: f"{s['utterances']:,}")
    yield _row("length", splits, lambda s: seconds(s["seconds"]))
    yield _row("speakers", splits, lambda s: f"{s['speakers']:,}")
    yield from _spread("duration, s", splits, lambda s: s["duration_s"], 2, 2)
    yield _row("  95 % and 99 % below", splits, lambda s: _pair(s["duration_s"], "p95", "p99", 2, ", "))
    yield _row("  shortest to longest", splits, lambda s: _pair(s["duration_s"], "min", "max", 2))


def _text(answer: dict[str, Any], splits: dict[str, Split]) -> Iterator[Row]:
    if answer["unit"] == "word":
        yield _row("words", splits, lambda s: f"{s['text']['words']:,}")
        yield _row("  different", splits, lambda s: f"{s['text']['vocabulary']:,}")
        yield _row("  said only once", splits, lambda s: f"{s['text']['words_once']:,}")
        yield _row("  per utterance, median", splits, lambda s: _one(s["words_per_utterance"], "median", 0))
    yield _row("characters", splits, lambda s: f"{s['text']['characters']:,}")
    yield _row("  different", splits, lambda s: f"{s['text']['alphabet']:,}")
    yield _row("  per utterance, median", splits, lambda s: _one(s["characters_per_utterance"], "median", 0))


def _unseen(answer: dict[str, Any], splits: dict[str, Split]) -> Iterator[Row]:
    new = {name: answer["unseen"].get(name) for name in splits}
    if not any(new.values()):
        return
    if answer["unit"] == "word":
        yield _row("words not in train", new, lambda n: f"{n['word_types']:,}")
        yield _row("  % of different words", new, lambda n: percent(n["word_type_share"]))
        yield _row("  % of all words said", new, lambda n: percent(n["word_token_share"]))
    yield _row("characters not in train", new, lambda n: f"{len(n['characters']):,}")
    yield _row("transcripts in train", new, lambda n: f"{n['repeated_transcripts']:,}")
    yield _row("  % of the utterances", new, lambda n: percent(n["repeated_transcript_share"]))
    yield _row("speakers in train", new, lambda n: f"{len(n['shared_speakers']):,}")


def _sound(answer: dict[str, Any], splits: dict[str, Split]) -> Iterator[Row]:
    audio = {name: s["audio"] for name, s in splits.items()}
    if not any(audio.values()):
        return
    yield _row("recordings measured", audio, lambda a: f"{a['measured']:,}")
    yield _row("sampling rate, Hz", audio, lambda a: ", ".join(map(str, a["sample_rates"])))
    yield _row("channels", audio, lambda a: ", ".join(map(str, a["channels"])))
    yield from _spread("RMS level, dBFS", audio, lambda a: a["rms_db"], 1, 0)
    yield _row("highest peak, dBFS", audio, lambda a: _one(a["peak_db"], "max", 1))
    yield _row("clipped recordings", audio, lambda a: f"{a['flagged']['clipped']:,}")
    yield _row("  worst, % of samples", audio, lambda a: f"{100 * a['clipped']['max']:.2f}")
    yield _row("with a DC offset", audio, lambda a: f"{a['flagged']['dc']:,}")
    yield from _spread("SNR, dB", audio, lambda a: a["snr_db"], 1, 0)
    yield _row("  recordings below 10 dB", audio, lambda a: f"{a['flagged']['noisy']:,}")
    yield _row("without any sound", audio, lambda a: f"{a['flagged']['soundless']:,}")
    yield _row("median silence before, s", audio, lambda a: _one(a["leading_s"], "median", 2))
    yield _row("median silence after, s", audio, lambda a: _one(a["trailing_s"], "median", 2))
    yield _row("median silent share, %", audio, lambda a: percent(a["silent"]["median"]))
    yield from _spread("characters/s", audio, lambda a: a["characters_per_s"], 1, 1)
    if answer["pace"]:
        yield _row("do not fit transcript", audio, lambda a: f"{a['suspects']:,}")


def _row(label: str, splits: dict[str, Any], show: Callable[[Any], str]) -> Row:
    return label, [NOTHING if s is None else show(s) for s in splits.values()]


def _spread(
    label: str, splits: dict[str, Any], get: Callable[[Any], dict | None], digits: int, rough: int
) -> Iterator[Row]:
    yield _row(f"{label}, median", splits, lambda s: _one(get(s), "median", digits))
    yield _row("  middle half", splits, lambda s: _pair(get(s), "q1", "q3", rough))


def _one(spread: dict[str, float] | None, name: str, digits: int) -> str:
    if spread is None:
        return NOTHING
    return f"{round(spread[name], digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def _pair(spread: dict[str, float] | None, low: str, high: str, digits: int, between: str = "–") -> str:
    if spread is None:
        return NOTHING
    texts = _one(spread, low, digits), _one(spread, high, digits)
    return (" to " if between == "–" and texts[0].startswith("−") else between).join(texts)
