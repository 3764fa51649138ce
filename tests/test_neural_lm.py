"""Neural language models: what they say, how they are trained, and what a search has of them."""

import json
import math
import subprocess
import sys

import pytest
import torch

from asr_lab.build_lm import build_lm, build_model
from asr_lab.errors import AsrLabError
from asr_lab.files import read_jsonl
from asr_lab.lm import Fusion
from asr_lab.lm.neural import NeuralLm
from asr_lab.lm_run import trained_model
from asr_lab.lm_task import sentences
from asr_lab.metrics.perplexity import Perplexity
from asr_lab.run import Run, find_run
from asr_lab.sweep.cell import resolved
from asr_lab.text.tokenizer import CharTokenizer
from asr_lab.train import train
from asr_lab.types import TextBatch

from .conftest import choices, composed, make_run, only_line, tiny, tiny_lm
from .test_training import compare_with_resumed

V = 4
LETTERS = CharTokenizer("ab c")
MODELS = choices("model")
SMALL = {"d_embedding": 8, "d_hidden": 12, "d_model": 8, "n_layers": 2, "n_heads": 2}


def model_of(name: str, seed: int = 0) -> NeuralLm:
    """Two small layers with random weights, in evaluation mode."""
    cfg = composed(f"model={name}", config="lm")
    for key, value in SMALL.items():
        if key in cfg.model:
            cfg.model[key] = value
    torch.manual_seed(seed)
    model = build_model(resolved(cfg), LETTERS)
    with torch.no_grad():
        model.output_bias.normal_()
        for p in model.parameters():
            p.mul_(1.5)
    return model.eval()


def batch_of(*texts: str) -> TextBatch:
    rows = [torch.tensor(LETTERS.encode(t), dtype=torch.long) for t in texts]
    lens = torch.tensor([len(r) for r in rows])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return TextBatch(padded, lens, int(lens.sum()) + len(rows), texts, texts)


# The models


def test_a_model_that_knows_nothing_has_a_perplexity_of_v_plus_one():
    model, batch = model_of("lstm"), batch_of("a b", "cab", "c")
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    metric = Perplexity()
    for half in (batch_of("a b"), batch_of("cab", "c")):  # sums, never means of means
        metric.update(sentences(half, model.loss(half.labels, half.label_lens)))
    n_labels, n_words = 3 + 3 + 1 + 3, 2 + 1 + 1 + 3
    assert n_labels == batch.n_labels
    assert metric.compute()["ppl"].item() == pytest.approx(V + 1)
    assert metric.compute()["ppl_word"].item() == pytest.approx((V + 1) ** (n_labels / n_words), rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
class TestModel:
    def test_probabilities_of_all_short_sentences_and_their_beginnings_are_one(self, name):
        """Every sentence of up to 2 labels, and the mass of what begins with 3."""
        model = model_of(name)
        ended, three = [[]], []
        for a in range(V):
            ended.append([a])
            for b in range(V):
                ended.append([a, b])
                three += [[a, b, c] for c in range(V)]
        p = 0.0
        for row in ended:
            labels = torch.tensor([row], dtype=torch.long)
            p += math.exp(-model.loss(labels, torch.tensor([len(row)])).item())
        log_probs = model(torch.tensor(three))[:, :3].gather(2, torch.tensor(three)[:, :, None])
        assert p + log_probs.sum(dim=(1, 2)).exp().sum().item() == pytest.approx(1, abs=1e-5)

    def test_step_by_step_equals_taught_as_a_whole(self, name):
        model = model_of(name)
        labels = torch.randint(V, (5, 9), generator=torch.Generator().manual_seed(0))
        whole = model(labels)
        state = model.begin(5, torch.device("cpu"))
        for i in range(10):
            torch.testing.assert_close(model.scores(state), whole[:, i], rtol=1e-4, atol=1e-5)
            if i < 9:
                state = model.advance(state, labels[:, i])

    def test_rows_are_selected_repeated_and_left_out_and_states_never_change(self, name):
        model = model_of(name)
        labels = torch.tensor([[0, 1, 2], [3, 3, 1], [2, 0, 0]])
        state = model.begin(3, torch.device("cpu"))
        state = model.advance(state, labels[:, 0])
        kept = model.scores(state).clone()
        rows = torch.tensor([2, 0, 2, 2])
        picked = model.advance(model.select(state, rows), labels[rows, 1])
        torch.testing.assert_close(model.scores(picked), model(labels[rows])[:, 2], rtol=1e-4, atol=1e-5)
        assert torch.equal(model.scores(state), kept)
        again = model.advance(state, labels[:, 1])
        torch.testing.assert_close(model.scores(again), model(labels)[:, 2], rtol=1e-4, atol=1e-5)

    def test_sentences_of_different_lengths_side_by_side(self, name):
        """As in a search over frames, where some hypotheses grow and others wait."""
        model, g = model_of(name), torch.Generator().manual_seed(1)
        texts: list[list[int]] = [[] for _ in range(6)]
        state = model.begin(6, torch.device("cpu"))
        for step in range(12):
            rows = torch.randint(6, (6,), generator=g)
            state, texts = model.select(state, rows), [list(texts[i]) for i in rows]
            grows = torch.randperm(6, generator=g)[: step % 4 + 1].sort().values
            labels = torch.randint(V, (len(grows),), generator=g)
            state = model.replaced(state, model.advance(model.select(state, grows), labels), grows)
            for i, label in zip(grows.tolist(), labels.tolist(), strict=True):
                texts[i].append(label)
        assert len({len(t) for t in texts}) > 1
        for i, text in enumerate(texts):
            alone = model(torch.tensor([text], dtype=torch.long))[0, -1]
            torch.testing.assert_close(model.scores(state)[i], alone, rtol=1e-4, atol=1e-5)

    def test_padding_never_matters(self, name):
        model = model_of(name)
        batch = batch_of("ab", "cab b a", "c")
        together = model.loss(batch.labels, batch.label_lens)
        dirty = torch.nn.functional.pad(batch.labels, (0, 3), value=1)
        torch.testing.assert_close(model.loss(dirty, batch.label_lens), together, rtol=1e-4, atol=1e-5)
        for i, text in enumerate(batch.texts):
            alone = batch_of(text)
            torch.testing.assert_close(model.loss(alone.labels, alone.label_lens)[0], together[i], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_finite_under_autocast(self, name, dtype):
        model, batch = model_of(name).train(), batch_of("ab", "cab b a")
        with torch.autocast("cpu", dtype=dtype):
            loss = model.loss(batch.labels, batch.label_lens)
            state = model.begin(2, torch.device("cpu"))
            state = model.advance(state, batch.labels[:, 0])
        assert loss.dtype == model.scores(state).dtype == torch.float32
        assert torch.isfinite(loss).all()
        loss.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())

    def test_learns_a_text_by_heart(self, name):
        """Two sentences, one three times as frequent: nothing is left but which one it is."""
        model, batch = model_of(name).train(), batch_of("abc cab", "abc cab", "abc cab", "b a")
        for layer in model.modules():
            if hasattr(layer, "p"):
                layer.p = 0.0
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
        for _ in range(150):
            optimizer.zero_grad()
            loss = model.loss(batch.labels, batch.label_lens).sum() / batch.n_labels
            loss.backward()
            optimizer.step()
        entropy = -(3 * math.log(3 / 4) + math.log(1 / 4)) / batch.n_labels
        assert entropy <= loss.item() + 1e-5 < 1.05 * entropy + 0.005


@pytest.mark.parametrize(
    ("model", "key", "value", "says"),
    [
        ("lstm", "n_layers", 0, "n_layers is at least 1"),
        ("transformer", "n_layers", 0, "n_layers is at least 1"),
        ("transformer", "n_heads", 3, "n_heads=3 does not divide d_model=128"),
        ("lstm", "dropout", 1.5, "dropout is a probability"),
        ("lstm", "recurrent_init", "zeros", "recurrent_init is one of"),
    ],
)
def test_wrong_sizes_are_one_line(model, key, value, says):
    config = resolved(composed(f"model={model}", config="lm"))
    config["model"][key] = value
    with pytest.raises(AsrLabError, match=rf"conf/model: .*{says}"):
        build_model(config, LETTERS)


# Text


@pytest.fixture
def text_of(tones):
    def go(*overrides: str):
        return build_lm(resolved(composed(*tiny_lm(tones, *overrides), config="lm"))).data

    return go


def texts_in(data, split: str) -> list[list[int]]:
    found = []
    for batch in data.loader(split):
        assert batch.n_labels == int(batch.label_lens.sum()) + len(batch.label_lens)
        found += [row[:n].tolist() for row, n in zip(batch.labels, batch.label_lens.tolist(), strict=True)]
    return found


def test_training_text_is_transcripts_and_further_files(text_of, tmp_path):
    (tmp_path / "a.txt").write_text("  Abba  AB\n\n dad\n")
    (tmp_path / "b.txt").write_text("cab")
    plain, more = text_of(), text_of(f"text.extra=[{tmp_path}/a.txt,{tmp_path}/b.txt]")
    encode = plain.tokenizer.encode
    transcripts = [encode(u.text) for u in plain.corpus.splits["train"]]
    assert sorted(texts_in(plain, "train")) == sorted(transcripts)
    assert sorted(texts_in(more, "train")) == sorted([*transcripts, *map(encode, ["abba ab", "dad", "cab"])])
    assert sorted(texts_in(more, "val")) == sorted(texts_in(plain, "val"))
    before, after = plain.digests(), more.digests()
    assert after == before | {k: after[k] for k in (f"{tmp_path}/a.txt", f"{tmp_path}/b.txt")}


def test_batches_keep_within_their_size_and_differ_by_epoch(text_of):
    data = text_of("text.batch_labels=30")
    loader = data.loader("train")
    first = [b.labels.tolist() for b in loader]
    assert all(len(rows) * (len(rows[0]) + 1) <= 30 for rows in first)
    assert first == [b.labels.tolist() for b in data.loader("train")]
    loader.sampler.set_epoch(1)
    assert first != [b.labels.tolist() for b in loader]


def test_lines_without_labels_are_refused_or_left_out(text_of, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("ab\nca$h\nba\n")
    with pytest.raises(AsrLabError, match=r"a.txt:2: '\$' have no label.*text.unknown=skip"):
        text_of(f"text.extra=[{file}]")
    data = text_of(f"text.extra=[{file}]", "text.unknown=skip")
    assert len(texts_in(data, "train")) == 24 + 2


@pytest.mark.parametrize(
    ("content", "overrides", "says"),
    [
        (None, [], r"a.txt: cannot be read \(No such file"),
        (b"\n \n", [], "a.txt: no line to learn from"),
        (b"ab\n\xff\n", [], "a.txt: not UTF-8"),
        (b"ab\n", ["text.unknown=drop"], "choose from: refuse, skip"),
        (b"ab\n", ["text.batch_labels=0"], "batch_labels and n_buckets are at least 1"),
        (b"ab\n", ["text.extra=a.txt"], r"text.extra is a list of files, as text.extra=\[a.txt\]"),
    ],
)
def test_broken_text_is_one_line(content, overrides, says, text_of, tmp_path):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(AsrLabError, match=says):
        text_of(f"text.extra=[{tmp_path}/a.txt]", *overrides)


# Runs


@pytest.fixture(scope="module")
def lm_run(tmp_path_factory, tones) -> Run:
    """A finished one; tests only read it."""
    run = make_run(tmp_path_factory.mktemp("lm") / "lm", tiny_lm(tones, "model=transformer"), config="lm")
    train(run)
    return run


def test_result_says_what_came_out(lm_run, capsys):
    result = lm_run.result()
    assert result["status"] == "done"
    assert result["score"] == "ppl"
    assert result["labels_per_second"] > 0
    assert result["factors"]["model"] == "transformer"
    assert set(result["data"]["digest"]) == {"train", "val", "test"}
    for split in ("val", "test"):
        rows = read_jsonl(lm_run.rows_file(split))
        nats, n = sum(r["nats"] for r in rows), sum(r["labels"] for r in rows)
        assert result["metrics"][f"{split}/loss"] == pytest.approx(nats / n, rel=1e-5)
        assert result["metrics"][f"{split}/ppl"] == pytest.approx(math.exp(nats / n), rel=1e-5)
    assert rows[0].keys() == {"id", "text", "nats", "labels", "words", "speaker", "duration"}
    from asr_lab.sweep.pool import line

    assert line(lm_run).endswith(f"test/ppl {result['metrics']['test/ppl']:.2f}  {result['seconds']['total']:.0f} s")
    best = min(r["val/ppl"] for r in read_jsonl(lm_run.metrics_file) if "val/ppl" in r)
    assert result["metrics"]["val/ppl"] == pytest.approx(best, rel=1e-5)


def test_same_seed_same_numbers(lm_run, tones, tmp_path):
    again = make_run(tmp_path / "again", tiny_lm(tones, "model=transformer"), config="lm")
    other = make_run(tmp_path / "other", tiny_lm(tones, "model=transformer", "seed=2"), config="lm")
    assert again.fingerprint == lm_run.fingerprint != other.fingerprint
    assert train(again)["metrics"] == lm_run.result()["metrics"] != train(other)["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_resumed_within_an_epoch_equals_uninterrupted(model, tones, tmp_path):
    overrides = tiny_lm(tones, f"model={model}", "trainer.max_epochs=3")
    run = make_run(tmp_path / "whole", overrides, config="lm")
    whole = train(run)
    stop = whole["steps"] // 3 + 2
    often = [*overrides, "runtime.checkpoint_minutes=0.00001"]
    compare_with_resumed(run, whole, tmp_path / "cut", often, stop=stop, resumed=stop, config="lm")


def test_from_the_command_line_to_the_report(asr_lab, tones, tmp_path):
    flags = ["-m", "--config-name", "lm", "hydra/launcher=basic", *tiny_lm(tones), "model.d_hidden=8,12"]
    done = asr_lab("train", *flags, "trainer.max_steps=2", "experiment=texts", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "outputs" / "texts" / "sweep.json").read_text())
    assert plan["axes"]["model.d_hidden"] == [8, 12]
    done = asr_lab("report", "texts", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Lowest test perplexity: model.d_hidden=" in done.stdout.replace("\n", " ")
    page = (tmp_path / "outputs" / "texts" / "report.md").read_text()
    assert "| model.d\\_hidden |" in page or "| model.d_hidden |" in page
    assert "1/1" in page
    assert (tmp_path / "outputs" / "texts" / "results.csv").read_text().count("ppl") >= 2


def test_speech_commands_do_not_take_a_language_model(asr_lab, lm_run, tmp_path):
    for command in (["evaluate", str(lm_run.folder)], ["inspect", "--run", str(lm_run.folder)]):
        assert "a language model's run; a speech recogniser's is wanted here" in only_line(
            asr_lab(*command, cwd=tmp_path)
        )


def test_unknown_keys_are_hinted_from_the_right_configuration(asr_lab, tmp_path):
    line = only_line(asr_lab("train", "--config-name", "lm", "model.d_hiden=3", cwd=tmp_path))
    assert "did you mean 'model.d_hidden'?" in line
    assert "no such key" in only_line(asr_lab("train", "--config-name", "lm", "encoder=lstm", cwd=tmp_path))


# In a search


def tokenizer_of(run: Run):
    return torch.load(run.best_checkpoint, weights_only=False)["belongings"]["tokenizer"]


def test_fusion_gives_what_was_taught(lm_run):
    tokenizer = tokenizer_of(lm_run)
    model = trained_model(tokenizer, str(lm_run.folder), lm_run.fingerprint)
    assert not model.training and not any(p.requires_grad for p in model.parameters())

    def made(tokenizer):
        return trained_model(tokenizer, str(lm_run.folder), lm_run.fingerprint)

    fusion = Fusion(tokenizer, [], made, weight=0.7, bonus=0.5, use="fusion")
    assert fusion.replaced == fusion.model.replaced  # for searches whose hypotheses grow unevenly
    rows = read_jsonl(lm_run.rows_file("test"))
    total = fusion.total([tokenizer.encode(r["text"]) for r in rows], torch.device("cpu"))
    expected = [-0.7 * r["nats"] + 0.5 * (r["labels"] - 1) for r in rows]
    assert total.tolist() == pytest.approx(expected, abs=1e-3)


def test_a_speech_run_keeps_the_identity_and_not_the_weights(lm_run, tones, tmp_path):
    overrides = ["encoder=bilstm", "trainer.max_steps=2", "lm=neural", "lm.use=rescoring"]
    run = make_run(tmp_path / "a", tiny(tones, *overrides, f"lm.model.run={lm_run.folder}"))
    assert run.config["lm"]["model"]["fingerprint"] == lm_run.fingerprint
    assert run.factors["lm.model.run"] == str(lm_run.folder)
    train(run)
    saved = torch.load(run.best_checkpoint, weights_only=False)
    assert not any("embedding" in k for k in saved["state_dict"])
    # Elsewhere it is still the same model, and the same run.
    moved = tmp_path / "moved"
    moved.symlink_to(lm_run.folder)
    assert make_run(tmp_path / "b", tiny(tones, *overrides, f"lm.model.run={moved}")).fingerprint == run.fingerprint


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("nowhere", "no run 'nowhere'"),
        ("speech", "a speech recogniser's run; a language model's is wanted here"),
        ("planned", "has not finished training"),
        ("other", "but 0123456789abcdef is wanted"),
        ("labels", r"its 28 labels are not the 3 of this run's tokenizer \(only one of them has ' '.*train both"),
        ("order", r"its 28 labels are not the 28 of this run's tokenizer \(another order\)"),
    ],
)
def test_a_language_model_that_does_not_fit_is_one_line(damage, says, lm_run, tones, tmp_path):
    tokenizer, run, fingerprint = tokenizer_of(lm_run), lm_run, lm_run.fingerprint
    if damage == "speech":
        run = make_run(tmp_path / "run", tiny(tones))
    elif damage == "planned":
        run = make_run(tmp_path / "run", tiny_lm(tones, "seed=5"), config="lm")
        fingerprint = run.fingerprint
    elif damage == "other":
        fingerprint = "0123456789abcdef"
    elif damage == "labels":
        tokenizer = CharTokenizer("abc")
    elif damage == "order":
        tokenizer = CharTokenizer("".join(reversed(tokenizer.symbols)))
    name = "nowhere" if damage == "nowhere" else str(run.folder)
    with pytest.raises(AsrLabError, match=says):
        trained_model(tokenizer, name, fingerprint)


def test_the_command_line_says_so_too(asr_lab, lm_run, tones, tmp_path):
    speech = make_run(tmp_path / "run", tiny(tones))
    for value, says in [("", "lm.model.run is missing"), (speech.folder, "a speech recogniser's run")]:
        given = [f"lm.model.run={value}"] if value else []
        assert says in only_line(asr_lab("train", *tiny(tones), "lm=neural", *given, cwd=tmp_path))
    with pytest.raises(AsrLabError, match="a speech recogniser's is wanted"):
        find_run(str(lm_run.folder))


@pytest.mark.slow
def test_two_processes_count_every_sentence_once(tones, tmp_path):
    overrides = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=2"]
    run = make_run(tmp_path / "run", tiny_lm(tones, *overrides), config="lm")
    command = [sys.executable, "-m", "asr_lab.train", str(run.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = run.result()["metrics"]
    for split in ("val", "test"):
        rows = read_jsonl(run.rows_file(split))
        assert len(rows) == len({r["id"] for r in rows}) == 6
        loss = sum(r["nats"] for r in rows) / sum(r["labels"] for r in rows)
        assert metrics[f"{split}/loss"] == pytest.approx(loss, rel=1e-5)
        assert metrics[f"{split}/ppl"] == pytest.approx(math.exp(loss), rel=1e-5)
