"""The study in a paper's words: a methods paragraph with citations, and the BibTeX of what it used."""

import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from asr_lab import __version__
from asr_lab.report.formats import level, percent, seconds
from asr_lab.report.heat_maps import levels
from asr_lab.report.summary import Summary
from asr_lab.report.tex import escape_tex

# Groups that a reader wants to know, by what they are called in a sentence.
_SHARED = {
    "data": "corpus",
    "encoder": "encoder",
    "decoder": "decoder",
    "tokenizer": "tokenizer",
    "optimizer": "optimiser",
    "schedule": "schedule",
    "clipping": "gradient clipping",
    "augment": "augmentation",
}
Sentence = list[str | tuple[str, ...]]  # text, and keys of references


class Reference(NamedTuple):
    """One entry of references.bib."""

    key: str
    uses: frozenset[str]  # "encoder=conformer", or one of the words of `_uses`
    entry: str
    short: str  # "Gulati et al., 2020"


@cache
def references() -> tuple[Reference, ...]:
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8").replace("@VERSION@", __version__)
    found = []
    for block in re.split(r"\n\n(?=% )", text.strip()):
        uses, entry = block.split("\n", 1)
        key = re.match(r"@\w+\{(\w+),", entry)
        assert key, block
        found.append(Reference(key[1], frozenset(uses[2:].split()), entry, _short(entry)))
    return tuple(found)


def _short(entry: str) -> str:
    """`Bisani & Ney, 2004`; `asr_lab 0.1.0` of software"""
    fields = dict(re.findall(r"(\w+) += \{(.*)\},?$", entry, re.M))
    if "year" not in fields:
        return f"asr_lab {fields['note'].removeprefix('Version ')}"
    names = [_plain(name.split(",")[0]) for name in fields["author"].split(" and ")]
    who = " & ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return f"{who}, {fields['year']}"


def _plain(name: str) -> str:
    for accent, letter in (
        ('{\\"u}', "ü"),
        ('{\\"e}', "ë"),
        ("{\\v{s}}", "š"),
        ("{\\'a}", "á"),
        ("{\\L}", "Ł"),
        ("{\\O}", "Ø"),
    ):
        name = name.replace(accent, letter)
    return name.replace("{", "").replace("}", "")


def _uses(summary: Summary) -> set[str]:
    """What the study made use of"""
    found = {"always"}
    found |= {f"{k}={v}" for row in summary.configurations for c in row.cells for k, v in c.factors.items()}
    if any(math.isfinite(row.rate.low) for row in summary.configurations):
        found |= {"interval"} | ({"speakers"} if summary.by_speaker else set())
    found |= {"seeds"} if any(len(row.done) > 1 for row in summary.configurations) else set()
    found |= {"ties"} if any(row.tied or (row.comparable and not row.best) for row in summary.configurations) else set()
    found |= {"power"} if summary.power and math.isfinite(summary.power.detectable) else set()
    return found | ({"factorial"} if summary.factorial else set())


def cited(summary: Summary) -> list[Reference]:
    uses = _uses(summary)
    return [r for r in references() if r.uses & uses]


def bibtex(summary: Summary) -> str:
    return "\n\n".join(r.entry for r in cited(summary)) + "\n"


def methods(summary: Summary) -> str:
    """One paragraph of plain text, with citations as `(Bisani & Ney, 2004)`."""
    named = {r.key: r.short for r in references()}
    said = [
        "".join(part if isinstance(part, str) else f" ({'; '.join(named[key] for key in part)})" for part in sentence)
        for sentence in _sentences(summary)
    ]
    return " ".join(said)


def methods_tex(summary: Summary) -> str:
    """The same for LaTeX, with `\\cite`, one sentence a line; the keys are those of references.bib."""
    lines = [
        "".join(escape_tex(part) if isinstance(part, str) else f"~\\cite{{{','.join(part)}}}" for part in sentence)
        for sentence in _sentences(summary)
    ]
    return "% Made by asr_lab, with the keys of references.bib.\n" + "\n".join(lines) + "\n"


def _sentences(summary: Summary) -> Iterator[Sentence]:
    yield from _what(summary)
    yield from _how(summary)
    yield from _sure(summary)
    yield [f"{summary.answer}"]
    yield from _cost(summary)


def _what(summary: Summary) -> Iterator[Sentence]:
    """What was trained"""
    cells = [c for row in summary.configurations for c in row.cells]
    seeds = sorted({len(row.cells) for row in summary.configurations})
    n, count = len(summary.configurations), f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    parts: Sentence = [f"We compare {n} configuration{'s' * (n > 1)}"]
    for i, key in enumerate(summary.swept):
        parts.append(f"{'; ' if i else ' ('}{key}: ")
        for j, value in enumerate(levels(cells, key)):
            parts += [", " * bool(j) + value, *_cites(f"{key}={value}")]
    parts.append(")" * bool(summary.swept))
    done = sum(c.done for c in cells)
    parts.append(f", each trained with {count} random seed{'s' * (count != '1')}: {len(cells)} runs, of which {done} ")
    parts.append("have finished so far." if summary.waits else "finished.")
    yield parts


def _how(summary: Summary) -> Iterator[Sentence]:
    """What all of them share, and how they were scored"""
    shared = [(name, summary.fixed[key], _cites(f"{key}={summary.fixed[key]}")) for key, name in _SHARED.items()
              if summary.fixed.get(key, "none") != "none"]  # fmt: skip
    if shared:
        parts: Sentence = ["All of them share "]
        for i, (name, value, cites) in enumerate(shared):
            last = i == len(shared) - 1 and i > 0
            parts += [" and " if last else ", " * bool(i), f"the {name} {value}", *cites]
        yield [*parts, "."]
    rate, best = summary.score.upper(), summary.best_cell
    size = ""
    if best and best.scores:
        length, unit = (best.scores.words, "words") if summary.score == "wer" else (best.scores.chars, "characters")
        size = f" of {len(best.scores.ids):,} utterances and {int(length.sum()) if length is not None else 0:,} {unit}"
    yield [
        f"Each run is scored on the test set{size} with the checkpoint that had the lowest {rate} on the validation "
        f"set; we report corpus {rate}, averaged over the finished seeds."
    ]


def _sure(summary: Summary) -> Iterator[Sentence]:
    """How the intervals were made, and what they cannot tell"""
    uses = _uses(summary)
    if "interval" not in uses:
        yield ["No intervals can be given: no run has counts per utterance."]
        return
    by = ("bisani2004bootstrap", *(["liu2020blockwise"] if summary.by_speaker else []), "hesterberg2015what")
    parts: Sentence = [
        f"{level(summary.level)} intervals come from {summary.n_resamples:,} bootstrap resamples of the test "
        f"{'speakers' if summary.by_speaker else 'utterances'}",
        by,
    ]
    if "seeds" in uses:
        parts.append(", and of the seeds by their variance components")
        parts += [("searle1992variance",), ", with the variances of all configurations moderated", ("smyth2004linear",)]
    yield [*parts, "; all runs share the resamples, so differences are paired."]
    if "ties" in uses:
        yield [
            "Configurations tied with the best are the model confidence set",
            ("hansen2011model",),
            f" at {level(summary.level)}.",
        ]
    if summary.power and "power" in uses:
        yield [
            f"With {summary.power.utterances:,} utterances and {_seeds(summary.power.seeds)}, the smallest difference "
            f"found with a power of 80 % is {percent(summary.power.detectable)} points",
            ("cohen1988statistical",),
            ".",
        ]
    if summary.factorial:
        yield [
            "The share of variance of each factor is from an analysis of variance with sums of squares of type II",
            ("langsrud2003anova",),
            ".",
        ]


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"


def _cost(summary: Summary) -> Iterator[Sentence]:
    cells = [c for row in summary.configurations for c in row.cells]
    spent = sum(t for c in cells if math.isfinite(t := c.numbers.get("seconds/total", math.nan)))
    kinds = sorted({c.environment[k] for c in cells for k in ("device",) if c.environment.get(k)})
    torch = sorted({c.environment["torch"] for c in cells if "torch" in c.environment})
    if spent:
        yield [f"All runs together took {seconds(spent)}{' on ' + ', '.join(kinds) if kinds else ''}."]
    parts: Sentence = ["Experiments were run with asr_lab", ("asr_lab",)]
    yield [*parts, f" and PyTorch {', '.join(torch)}." if torch else "."]


def _cites(use: str) -> list[tuple[str, ...]]:
    keys = tuple(r.key for r in references() if use in r.uses)
    return [keys] if keys else []
