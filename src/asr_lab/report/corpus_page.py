"""The page of `asr-lab data stats --page`: one self-contained file with charts, tables, and recordings to hear."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from asr_lab import __version__
from asr_lab.data.manifest import Utterance
from asr_lab.files import write_text
from asr_lab.report.clips import CLIPS_BYTES, clip
from asr_lab.report.corpus_table import headline, printable, rows
from asr_lab.report.svg_counts import histogram

LISTED = 100  # rows of a table
# Statistic: axis, and what the chart is of.
CHARTS = {
    "duration_s": ("seconds", "Durations"),
    "words": ("words per utterance", "Lengths of the transcripts"),
    "rms_db": ("RMS level, dBFS", "Levels"),
    "snr_db": ("SNR, dB", "Speech above noise"),
    "silent": ("silent share of the recording", "Silence"),
    "characters_per_s": ("characters per second of sound", "Speech rates"),
    "speaker_minutes": ("minutes of a speaker", "Speakers"),
    "z": ("robust z-score", "Sound against transcript"),
}


def write_page(path: Path, answer: dict[str, Any], utterances: Mapping[str, Utterance], channel: int | str) -> Path:
    """Write the page of an answer of `data.stats.analyse` (with `corpus` and `manifest`), under 5 MB, atomically.

    Args:
        utterances: by id; the recordings of `answer["examples"]` are read from them.
        channel: of those recordings, as the corpus says.
    """
    examples = [row | {"utterance": utterances[row["id"]]} for row in answer["examples"]]
    room = CLIPS_BYTES * 3 // 4 // max(1, len(examples))  # base64 makes four bytes of three
    for row in examples:
        row["clip"], row["played_s"] = clip(row["utterance"], channel, room)
    env = Environment(
        loader=PackageLoader("asr_lab.report", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = env.get_template(
        "corpus.html.j2"
    ).render(
        a=answer,
        headline=headline(answer),
        sections=rows(answer),
        charts=[
            _chart(bars, *of)
            for name, of in CHARTS.items()
            if (bars := answer["histograms"][name]) and len(bars["counts"]) > 1  # one bar says nothing
        ],
        examples=examples,
        suspects=answer["suspects"][:LISTED],
        listed=LISTED,
        version=__version__,
    )
    return write_text(path, printable(page))


def _chart(bars: Mapping[str, Any], axis: str, title: str) -> dict[str, str]:
    edges, counts = bars["edges"], bars["counts"]
    most = max(range(len(counts)), key=counts.__getitem__)
    said = (
        f"{title}: {sum(counts):,} values from {bars['min']:.3g} to {bars['max']:.3g} {axis}, "
        f"most of them between {edges[most]:.3g} and {edges[most + 1]:.3g}"
    )
    notes = [f"The first bar holds all from {bars['min']:.3g}."] if bars["min"] < edges[0] else []
    notes += [f"The last bar holds all up to {bars['max']:.3g}."] if bars["max"] > edges[-1] else []
    return {"title": title, "note": " ".join(notes), "svg": histogram(edges, counts, said, axis)}
