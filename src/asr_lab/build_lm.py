"""Configuration in, objects out, for language models: what build.py is to speech runs."""

from typing import Any, NamedTuple

from asr_lab.build import call, check, make, make_optimisation
from asr_lab.data.text import TextData
from asr_lab.lm.neural import NeuralLm
from asr_lab.lm_task import LmTask
from asr_lab.text.tokenizer import Tokenizer


class LmParts(NamedTuple):
    """Everything that a language model's run is made of, except the trainer."""

    data: TextData
    task: LmTask


def build_lm(config: dict[str, Any]) -> LmParts:
    """The text and the task of a resolved configuration.

    Raises:
        ConfigError: a key or value does not fit the part it is given to.
        DataError: the corpus or a text file is missing or wrong.
    """
    check(config)
    optimizer, schedule, clipper = make_optimisation(config)
    corpus = make(config, "data")
    # Of the transcripts alone, as in a speech run: both then have the same labels, whatever further text there is.
    tokenizer = call(config, "tokenizer", train_texts=[u.text for u in corpus.splits["train"]])
    model = build_model(config, tokenizer)
    n_workers = config["runtime"]["n_workers"]
    data = call(config, "text", corpus=corpus, tokenizer=tokenizer, seed=config["seed"], n_workers=n_workers)
    task = LmTask(
        model=model,
        tokenizer=tokenizer,
        optimizer=optimizer,
        weight_decay=config["optimizer"].get("weight_decay", 0.0),
        schedule=schedule,
        clipper=clipper,
        max_nonfinite_steps=config["max_nonfinite_steps"],
    )
    return LmParts(data, task)


def build_model(config: dict[str, Any], tokenizer: Tokenizer) -> NeuralLm:
    """The model without a corpus: what using a trained one takes."""
    return call(config, "model", n_labels=len(tokenizer))
