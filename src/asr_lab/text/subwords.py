"""Subword labels by sentencepiece, trained on the transcripts of the train split and cached."""

import hashlib
import io
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from asr_lab.errors import AsrLabError, ConfigError, DataError
from asr_lab.files import write_atomic
from asr_lab.paths import cache_dir

log = logging.getLogger(__name__)

SPACE = "▁"  # how sentencepiece writes a space inside a piece
# Characters that sentencepiece keeps for itself, and half characters, which have no UTF-8 form.
_RESERVED = re.compile("[\0\n\u2581\u2585\ud800-\udfff]")


class SubwordTokenizer:
    """The pieces of a sentencepiece model, without its own special ids: no label means "unknown"."""

    def __init__(self, model: bytes):
        """`model` is a sentencepiece ModelProto whose piece 0 is the unknown one, and the only special one."""
        from sentencepiece import SentencePieceProcessor

        self._pieces = SentencePieceProcessor(model_proto=model)
        self.symbols = [self._pieces.id_to_piece(i) for i in range(1, len(self._pieces))]
        self._known = {" " if s == SPACE else s for s in self.symbols if len(s) == 1}

    def __len__(self) -> int:
        return len(self.symbols)

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that have no label, sorted."""
        return sorted(set(text) - self._known)

    def encode(self, text: str) -> list[int]:
        """
        Raises:
            DataError: a character has no label.
        """
        ids = [] if self.unknown(text) else self._pieces.encode(text)
        if text and (not ids or 0 in ids):
            raise DataError(f"text {text!r} has characters outside the tokenizer: {self.unknown(text)}")
        return [i - 1 for i in ids]

    def decode(self, labels: Iterable[int]) -> str:
        return "".join(self.symbols[i] for i in labels).replace(SPACE, " ").removeprefix(" ")


def subword_tokenizer(
    train_texts: Iterable[str], model_type: str, n_labels: int, character_coverage: float
) -> SubwordTokenizer:
    """Byte-pair encoding (Sennrich et al. 2016) or a unigram language model (Kudo 2018) over characters.

    The same texts, in whatever order, give the same labels. The model is kept in the cache under a hash of the texts,
    the values and sentencepiece's version; a file that is not what was written is trained again.

    Raises:
        ConfigError: a value is wrong, or these texts allow fewer labels, or need more.
        DataError: there is no text to train on.
    """
    if model_type not in ("bpe", "unigram"):
        raise ConfigError(f"tokenizer.model_type={model_type}; choose from: bpe, unigram")
    if n_labels < 1:
        raise ConfigError(f"tokenizer.n_labels is a count of labels, {n_labels} came")
    if not 0.98 <= character_coverage <= 1:
        raise ConfigError(f"tokenizer.character_coverage is a share in [0.98, 1], {character_coverage} came")
    texts = sorted(t for t in train_texts if t and not _RESERVED.search(t))
    if not texts:
        raise DataError(f"tokenizer={model_type}: the training transcripts hold no text to learn from")
    from sentencepiece import __version__

    key = json.dumps([__version__, model_type, n_labels, character_coverage, texts])
    path = cache_dir() / "tokenizers" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.model"
    model = _read(path)
    if model is None:
        model = _train(texts, model_type, n_labels, character_coverage)
        _keep(path, model)
    return SubwordTokenizer(model)


def _train(texts: list[str], model_type: str, n_labels: int, character_coverage: float) -> bytes:
    from sentencepiece import SentencePieceTrainer

    out = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=out,
            model_type=model_type,
            vocab_size=n_labels + 1,  # with the unknown piece, which sentencepiece insists on
            character_coverage=character_coverage,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            # A word at the beginning then has the label it has elsewhere; in a script without spaces there is nothing
            # to be alike, and a label more to learn.
            add_dummy_prefix=any(" " in t for t in texts),
            max_sentence_length=1 << 30,  # longer ones would be left out without a word
            num_threads=1,  # sums in one order, on every machine
            minloglevel=3,
        )
    except RuntimeError as error:
        raise _for_people(str(error), model_type, n_labels) from None
    return out.getvalue()


def _for_people(message: str, model_type: str, n_labels: int) -> AsrLabError:
    if most := re.search(r"too high .*<= (\d+)", message):
        n = int(most[1]) - 1
        return ConfigError(
            f"tokenizer.n_labels={n_labels}: the training transcripts have pieces for at most {n}; "
            f"set tokenizer.n_labels={n} or less"
        )
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        n = int(least[1]) - 1
        return ConfigError(
            f"tokenizer.n_labels={n_labels}: the training transcripts have {n} different characters, and each needs a "
            f"label; set tokenizer.n_labels={n} or more"
        )
    return DataError(f"tokenizer={model_type}: sentencepiece cannot learn from the training transcripts ({message})")


def _read(path: Path) -> bytes | None:
    """The model, if the file is whole: its first 32 bytes are the digest of the rest."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None


def _keep(path: Path, model: bytes) -> None:
    """Written whole or not at all, so several processes may; a cache that cannot be written costs time only."""
    try:
        write_atomic(path, lambda f: f.write(hashlib.sha256(model).digest() + model))
    except (OSError, AsrLabError) as error:
        log.warning("%s; the tokenizer will be trained again next time", error)
