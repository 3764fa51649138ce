"""CTC search over the words of a lexicon, by flashlight-text (Kahn et al. 2022), an optional package."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr_lab.decoding.ctc import check_counts, exact, scored
from asr_lab.errors import ConfigError, DataError
from asr_lab.types import Hypothesis

BLANK = 0
IMPOSSIBLE = -1e9  # a log-probability that flashlight can add up


class CtcLexiconSearch:
    """Only words of the lexicon come out: the words of the training transcripts, or of a file with a word a line.

    flashlight looks for the words by their best alignments. The score of what it finds is, as in `CtcSearch`, the
    log-probability summed over all alignments; plus, for words, `word_lm_weight` log p of the model `word_lm` (an ARPA
    or KenLM file of words, or `none`) and `word_score` a word. Words are spelled by the tokenizer. Where it has a label
    for a space, one must stand between two words.
    """

    in_search = True  # for `scored`: words have a score of their own

    def __init__(
        self,
        decoder: Any,
        tokenizer: Any,
        train_texts: Iterable[str],
        beam: int,
        n_tokens: int,
        beam_threshold: float,
        lexicon: str,
        word_lm: str,
        word_lm_weight: float,
        word_score: float,
    ):
        check_counts(beam=beam, n_tokens=n_tokens)
        if not beam_threshold > 0:
            raise ValueError(f"beam_threshold must be positive, {beam_threshold} came")
        self.decoder, self.tokenizer, self.beam = decoder, tokenizer, beam
        self.word_lm_weight, self.word_score = word_lm_weight, word_score
        self.space = tokenizer.symbols.index(" ") + 1 if " " in tokenizer.symbols else BLANK
        words = _words(lexicon, train_texts)
        self.words, self.lm = _model(word_lm, words)
        trie = self._trie(words)
        # The narrow one too: what it finds is among the candidates, so that a wide beam is never worse.
        self.searches = {size: self._search(trie, size, n_tokens, beam_threshold) for size in (beam, 1)}

    @torch.no_grad()
    def __call__(self, hidden: Tensor, lens: Tensor) -> list[list[Hypothesis]]:
        log_probs = self.decoder.log_probs(hidden)
        n_best = [self._found(frames[:n]) for frames, n in zip(log_probs.cpu(), lens.tolist(), strict=True)]
        # A language model of labels may change their order later.
        return scored(n_best, log_probs, lens, self, self.beam, aligns_all=True)

    @torch.no_grad()
    def force(self, hidden: Tensor, lens: Tensor, sequences: list[list[int]]) -> list[float]:
        """log p(labels), summed over all alignments, and the score of the words"""
        return exact(self.decoder.log_probs(hidden), lens, sequences, list(range(len(sequences))), self)

    def total(self, sequences: list[list[int]], device: torch.device) -> Tensor:
        """(N,): the score of each sequence's words"""
        return torch.tensor([self._total(self.tokenizer.decode(labels).split()) for labels in sequences], device=device)

    def _total(self, words: list[str]) -> float:
        state, log10 = self.lm.start(False), 0.0
        for word in words:
            state, score = self.lm.score(state, self.words.get_index(word))
            log10 += score
        log10 += self.lm.finish(state)[1]
        return self.word_lm_weight * math.log(10) * log10 + self.word_score * len(words)

    def _found(self, frames: Tensor) -> list[list[int]]:
        """(U,V+1) -> label sequences, each once"""
        if self.space:
            # The last word, too, ends with a space: it is certain in one frame more.
            end = torch.full_like(frames[:1], IMPOSSIBLE)
            end[:, self.space] = 0
            frames = torch.cat([frames, end])
        frames = frames.clamp(min=IMPOSSIBLE).contiguous()
        found: dict[tuple[int, ...], None] = {}
        for size, search in self.searches.items():
            for result in search.decode(frames.data_ptr(), *frames.shape)[:size]:
                words = [self.words.get_entry(i) for i in result.words if i >= 0]
                found[tuple(self.tokenizer.encode(" ".join(words)))] = None
        return [list(labels) for labels in found] or [[]]

    def _trie(self, words: list[str]) -> Any:
        from flashlight.lib.text.decoder import SmearingMode, Trie

        trie, begin = Trie(len(self.tokenizer) + 1, self.space), self.lm.start(False)
        for i, word in enumerate(words):
            unknown = self.tokenizer.unknown(word)
            if unknown:
                raise DataError(f"lexicon: the tokenizer has no label for {', '.join(map(repr, unknown))} of {word!r}")
            spelling = [label + 1 for label in self.tokenizer.encode(word)] + [self.space] * bool(self.space)
            trie.insert(spelling, i, self.lm.score(begin, i)[1])
        trie.smear(SmearingMode.MAX)
        return trie

    def _search(self, trie: Any, beam: int, n_tokens: int, beam_threshold: float) -> Any:
        from flashlight.lib.text.decoder import CriterionType, LexiconDecoder, LexiconDecoderOptions

        options = LexiconDecoderOptions(
            beam_size=beam,
            beam_size_token=min(n_tokens, len(self.tokenizer) + 1),
            beam_threshold=beam_threshold,
            lm_weight=self.word_lm_weight * math.log(10),
            word_score=self.word_score,
            unk_score=-math.inf,
            sil_score=0,
            log_add=False,
            criterion_type=CriterionType.CTC,
        )
        return LexiconDecoder(options, trie, self.lm, self.space, BLANK, self.words.get_index("<unk>"), [], False)


def _words(lexicon: str, train_texts: Iterable[str]) -> list[str]:
    """The words of the transcripts (`train`) or of a file with a word a line, sorted."""
    if lexicon == "train":
        words = {word for text in train_texts for word in text.split()}
    elif os.path.isfile(lexicon):
        words = set(Path(lexicon).read_text(encoding="utf-8").split())
    else:
        raise ConfigError(f"decoding.lexicon={lexicon}: no such file; name one with a word a line, or `train`")
    if not words:
        raise DataError(f"decoding.lexicon={lexicon}: not a single word")
    return sorted(words)


def _model(word_lm: str, words: list[str]) -> tuple[Any, Any]:
    """flashlight's dictionary of the words, and its language model over them"""
    try:
        from flashlight.lib.text.decoder import ZeroLM
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError:
        raise ConfigError(
            "decoding=ctc_lexicon is made with flashlight-text, which is not installed: pip install 'asr-lab[lexicon]'"
        ) from None
    dictionary = Dictionary()
    for word in [*words, "<unk>"]:
        dictionary.add_entry(word)
    dictionary.set_default_index(len(words))
    if word_lm == "none":
        return dictionary, ZeroLM()
    if not os.path.isfile(word_lm):
        raise ConfigError(f"decoding.word_lm={word_lm}: no such file; name an ARPA or KenLM file of words, or `none`")
    try:
        return dictionary, KenLM(word_lm, dictionary)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise ConfigError(f"decoding.word_lm={word_lm} is not read as an ARPA or KenLM file: {reason}") from None
