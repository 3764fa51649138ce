"""Every YAML of every group composes, is bound to the signature it feeds, and trains two steps."""

import json
import os
from pathlib import Path

import pytest
import torch

from asr_lab.build import build, check, make
from asr_lab.errors import ConfigError, DataError
from asr_lab.lm.arpa import write_arpa
from asr_lab.lm.ngram import of_words
from asr_lab.paths import conf_dir
from asr_lab.sweep.cell import resolved

from .conftest import RATE, choices, composed, make_run, single_words, tiny, tiny_lm
from .test_decoders import MORE_SEARCHES

# Nested ones, such as frontend/cmvn, too; corpora have a test of their own.
GROUPS = sorted({str(p.parent.relative_to(conf_dir())) for p in conf_dir().rglob("*.yaml")} - {".", "data"})
GROUPS = [g for g in GROUPS if not g.startswith("hydra/")]
LM_GROUPS = ("model", "text")  # of config lm
TOY_GROUPS = ("landscape",)  # of config toy
EXPERIMENTS = sorted(p.stem for p in (Path(__file__).parents[1] / "experiments").glob("*.yaml"))


def test_every_group_is_in_the_schema_and_back():
    from asr_lab.schema import Config, LmConfig, ToyConfig

    kinds = (Config, LmConfig, ToyConfig)
    fields = {name for kind in kinds for name in kind.__dataclass_fields__} - {
        "experiment",
        "question",
        "seed",
        "size",
        "match",
        "max_nonfinite_steps",
        "runtime",
        "grid",
    }
    assert fields == {g.partition("/")[0] for g in GROUPS} - {"debug"} | {"data"}


# Choices that train with the quick tests; all others do with the slow ones, and most groups have tests of their own.
QUICK = {
    "augment": ("mixed", "none"),
    "averaging": ("checkpoints",),
    "clipping": ("agc", "value_norm"),
    "decoder": ("ctc", "joint", "keyword"),
    "decoder/cell": ("gru",),
    "decoder/rule": ("location",),
    "decoder/predictor": ("stateless",),
    "decoder/readout": ("mean",),
    "decoding": ("ctc", "attention_rescoring"),
    "encoder": ("quartznet", "transformer_streaming"),
    "encoder/attention": ("additive",),
    "encoder/cell": ("ligru",),
    "encoder/connection": ("residual",),
    "encoder/context": ("chunk",),
    "encoder/readout": ("attention",),
    "encoder/subsampling": ("conv2d4",),
    "frontend": ("kaldi_fbank", "mfcc"),
    "frontend/cmvn": ("speaker",),
    "batching": ("shards",),
    "data/normalizer": ("english",),
    "debug": ("overfit",),
    "detectors": (),
    "encoder/filter": ("per_utterance",),
    "frontend/head": ("stacking",),
    "gradients": ("none",),
    "landscape": ("copy",),
    "logger": ("csv",),
    "through_time": (),
    "lm": ("ngram",),
    "optimizer": ("muon", "sam"),
    "preprocess": ("highpass_loudness", "vad"),
    "schedule": ("plateau",),
    "tokenizer": ("bpe", "words"),
}


def marks(group: str, choice: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if choice not in QUICK.get(group, ()) else []


# What a choice needs beside itself, by group and choice or by group.
BESIDE = {
    ("trainer", "ddp"): ["trainer.devices=1", "trainer.strategy=auto"],  # several processes: tests/test_ddp.py
    ("frontend/head", "learned_filters"): ["frontend=waveform"],
    ("decoder", "ctc_inter"): ["encoder.n_layers=2"],  # a layer inside
    "encoder/cell": ["encoder=bilstm"],
    "encoder/connection": ["encoder=bilstm"],
    "encoder/filter": ["encoder=bilstm"],
    "encoder/readout": ["encoder=bilstm"],
    "decoder/readout": ["decoder=seq2seq"],
    "decoder/rule": ["decoder=attention"],
    "decoder/cell": ["decoder=attention"],
    "decoder/predictor": ["decoder=transducer"],
    "decoder/transducer_loss": ["decoder=transducer"],
    "decoder/auxiliary": ["decoder=transducer"],
}
PACKAGES = {("lm", "kenlm"): "kenlm", ("decoding", "ctc_lexicon"): "flashlight.lib.text"}


def beside(group: str, choice: str, tones: Path, folder: Path) -> tuple[Path, list[str]]:
    """The corpus and the overrides with which a choice can train; skips where something is not here."""
    if (group, choice) == ("trainer", "gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    if (group, choice) == ("logger", "wandb"):
        pytest.skip("needs a service: tests/test_tracking.py")
    if package := PACKAGES.get((group, choice)):
        pytest.importorskip(package, reason=f"{package} is not installed")
    overrides = list(BESIDE.get((group, choice), BESIDE.get(group, [])))
    if group == "decoding":
        overrides = [f"decoder={decoder_of(choice)}"]
    texts = [json.loads(line)["text"] for line in tones.read_text().splitlines()]
    if (group, choice) == ("tokenizer", "phones"):
        words = sorted({w for text in texts for w in text.split()})
        (folder / "lexicon.txt").write_text("".join(f"{w} {' '.join(w)}\n" for w in words))
        overrides = [f"tokenizer.lexicon={folder / 'lexicon.txt'}"]
    if group == "lm" and choice in ("arpa", "kenlm"):
        overrides = [f"lm.model.file={write_arpa(folder / 'words.arpa', of_words(texts, 2, [1])[0])}"]
    if (group, choice) == ("lm", "neural"):
        from asr_lab.train import train

        model = make_run(folder / "lm", tiny_lm(tones, "trainer.max_steps=2"), config="lm")
        train(model)
        overrides = [f"lm.model.run={model.folder}"]
    if (group, choice) == ("distill", "teacher"):
        from asr_lab.train import train

        teacher = make_run(folder / "teacher", tiny(tones, "trainer.max_steps=1"))
        train(teacher)
        overrides = [f"distill.teacher={teacher.folder}"]
    one_frame = group == "encoder/readout" and choice != "frames"
    if one_frame or "decoder=keyword" in (f"{group}={choice}", *overrides):  # one label an utterance
        tones, overrides = single_words(tones, folder), [*overrides, "tokenizer=words"]
    return tones, overrides


@pytest.mark.parametrize(
    ("group", "choice"), [pytest.param(g, c, marks=marks(g, c)) for g in GROUPS for c in choices(g)]
)
def test_choice_trains_two_steps(group, choice, tones, tmp_path):
    from asr_lab.train import train

    tones, extra = beside(group, choice, tones, tmp_path)
    if group in LM_GROUPS:
        small = tiny_lm(tones, f"{group}={choice}", "trainer.max_steps=2")
        run = make_run(tmp_path / "run", small, config="lm")
    elif group in TOY_GROUPS:
        run = make_run(tmp_path / "run", [f"{group}={choice}", "debug=fast", "runtime.quiet=true"], config="toy")
    else:
        run = make_run(tmp_path / "run", tiny(tones, f"{group}={choice}", *extra, "trainer.max_steps=2"))
    result = train(run)
    assert result["status"] == "done"
    if group.partition("/")[0] in run.config:  # debug and logger change other groups, or no number
        assert result["factors"].get(group, choice) == choice
    assert result["steps"] == 2
    scores = {"speech": {"val/wer", "test/wer", "test/cer"}, "lm": {"val/ppl", "test/ppl"}}
    assert {"test/loss", *scores.get(run.kind, {"val/gap", "test/gap"})} <= result["metrics"].keys()
    if run.kind != "toy":
        assert result["parameters"] > 1000
        assert run.rows_file("test").exists()


def decoder_of(decoding: str) -> str:
    """A decoder that a search works with."""
    for decoder in choices("decoder"):
        own = composed(f"decoder={decoder}").hydra.runtime.choices["decoding"]
        if decoding in (own, *MORE_SEARCHES.get(decoder, ())):
            return decoder
    raise AssertionError(f"no decoder has the search {decoding}: name it in MORE_SEARCHES")


@pytest.mark.parametrize("corpus", choices("data"))
@pytest.mark.quick(4)
def test_corpus_gives_three_splits(corpus, tones):
    overrides = [f"data={corpus}"]
    if corpus == "manifest":
        overrides += [f"data.manifest={tones}", f"data.sample_rate={RATE}"]
    elif corpus == "spoken_numbers":
        pytest.importorskip("espeakng_loader", reason="extra 'synth' is not installed")
        overrides += ["data.n_train=6", "data.n_val=3", "data.n_test=3", "data.n_speakers=6"]
    elif not os.environ.get("ASR_LAB_DATA"):
        pytest.skip("ASR_LAB_DATA is not set: no corpora here")
    elif not (Path(os.environ["ASR_LAB_DATA"]) / composed(*overrides).data.get("manifest", "fsdd")).exists():
        pytest.skip(f"{corpus} has not been prepared here")
    if corpus == "fsdd_strings":
        overrides += ["data.strings.n_train=6", "data.strings.n_val=3", "data.strings.n_test=3"]
    config = resolved(composed(*overrides))
    check(config)
    corpus = make(config, "data")
    corpus.check_audio()
    ids = [u.id for us in corpus.splits.values() for u in us]
    assert all(corpus.splits[s] for s in ("train", "val", "test"))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_composes_and_says_what_it_asks(name, monkeypatch):
    cfg = composed(config=name)
    text = (Path(__file__).parents[1] / "experiments" / f"{name}.yaml").read_text()
    assert all(f"# {word}:" in text for word in ("Question", "Expectation", "Budget"))
    assert "_target_" not in text
    assert cfg.experiment == name
    assert cfg.question
    assert cfg.grid
    if "data" in cfg and cfg.data.name == "manifest":
        pytest.fail("an experiment names its corpus")


@pytest.mark.parametrize(
    ("group", "key", "value", "says"),
    [
        ("encoder", "d_modle", 3, "did you mean 'd_model'"),
        ("optimizer", "lrr", 3, "AdamW got an unexpected 'lrr'"),
        ("optimizer", "lr", "fast", "AdamW wants lr as .*'fast' came"),
        ("encoder", "n_layers", 1.5, "wants n_layers as int"),
        ("frontend", "cmvn", {"_target_": "asr_lab.frontend.cmvn.MomentCmvn", "epps": 1}, "unexpected 'epps'"),
        ("clipping", "_target_", "asr_lab.clipping.norm.Nothing", "cannot be imported"),
        ("trainer", "max_epoch", 3, "did you mean 'max_epochs'"),
    ],
)
def test_wrong_values_are_found_before_anything_is_built(group, key, value, says, tones):
    config = resolved(composed(*tiny(tones)))
    config[group][key] = value
    with pytest.raises(ConfigError, match=says):
        check(config)


def test_a_configuration_of_another_version_is_named(tones):
    config = resolved(composed(*tiny(tones)))
    del config["preprocess"]
    with pytest.raises(ConfigError, match=r"conf/preprocess: .*another version of asr_lab froze it"):
        build(config)


def test_missing_value_is_found(tones):
    config = resolved(composed(*tiny(tones)))
    del config["encoder"]["n_layers"]
    with pytest.raises(ConfigError, match="conf/encoder: ConformerEncoder needs 'n_layers'"):
        check(config)


def test_corpus_that_is_not_there_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv("ASR_LAB_DATA", raising=False)
    with pytest.raises(DataError, match=r"an4/manifest.jsonl is not there; `asr-lab data prepare an4` makes it"):
        make(resolved(composed("data=an4")), "data")
    monkeypatch.setenv("ASR_LAB_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=rf"{tmp_path}/an4/manifest.jsonl or .* is not there; `asr-lab data prepare an4`"
    ):
        make(resolved(composed("data=an4")), "data")
