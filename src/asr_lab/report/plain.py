"""Scores without intervals over utterances: the module that makes their table, and its template."""

from asr_lab.report import gap, perplexity
from asr_lab.report.collect import GAP, PERPLEXITY

PLAIN = {PERPLEXITY: (perplexity, "perplexity.md.j2"), GAP: (gap, "gap.md.j2")}
