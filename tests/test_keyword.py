"""One label an utterance: the decoder, its search, the share of wrong utterances and the confusion matrix."""

import csv
import io
from functools import partial

import pytest
import torch
from rich.console import Console

from asr_lab.build import build
from asr_lab.decoders.keyword import KeywordDecoder
from asr_lab.decoding.keyword import KeywordSearch
from asr_lab.errors import DataError
from asr_lab.files import read_jsonl
from asr_lab.layers.readout import AttentionPooling, LastState, Mean
from asr_lab.metrics.wer import ErrorRates, utterance_errors
from asr_lab.report.confusion import NOTHING, confusion
from asr_lab.sweep.cell import resolved

from .conftest import composed, single_words, tiny

D, V = 6, 4


def decoder_of(readout=Mean, label_smoothing: float = 0.0) -> KeywordDecoder:
    torch.manual_seed(0)
    return KeywordDecoder(D, V, readout=readout, label_smoothing=label_smoothing, dropout=0.0).eval()


def test_loss_is_the_cross_entropy_of_the_readout():
    decoder = decoder_of()
    hidden, lens, labels = torch.randn(2, 5, D), torch.tensor([5, 3]), torch.tensor([[1], [3]])
    means = torch.stack([hidden[0].mean(dim=0), hidden[1, :3].mean(dim=0)])
    want = -decoder.output(means).log_softmax(dim=-1)[[0, 1], [1, 3]]
    torch.testing.assert_close(decoder.loss(hidden, lens, labels, torch.ones(2)), want)


def test_smoothing_is_of_training_only():
    decoder, smoothed = decoder_of(), decoder_of(label_smoothing=0.2)
    batch = torch.randn(2, 5, D), torch.tensor([5, 3]), torch.tensor([[1], [3]]), torch.ones(2)
    torch.testing.assert_close(smoothed.loss(*batch), decoder.loss(*batch))
    log_probs = decoder.logits(*batch[:2]).log_softmax(dim=-1)
    want = 0.8 * decoder.loss(*batch) - 0.2 * log_probs.mean(dim=-1)
    torch.testing.assert_close(smoothed.train().loss(*batch), want)
    with pytest.raises(ValueError, match="label_smoothing is a share"):
        decoder_of(label_smoothing=1.0)


@pytest.mark.parametrize("readout", [Mean, LastState, partial(AttentionPooling, d_attention=3)])
def test_an_encoder_that_gives_one_vector_is_read_as_it_is(readout):
    decoder, hidden = decoder_of(readout), torch.randn(3, 1, D)
    torch.testing.assert_close(decoder.logits(hidden, torch.ones(3, dtype=torch.long)), decoder.output(hidden[:, 0]))


@pytest.mark.parametrize(("encoder", "directions"), [("bilstm", 2), ("lstm", 1), ("conformer", 1)])
def test_the_last_state_of_both_directions(encoder, directions, tones, tmp_path):
    """The backward half of a BiLSTM has heard everything at the first frame, not at the last."""
    overrides = [f"encoder={encoder}", "decoder=keyword", "decoder/readout=last_state", "tokenizer=words"]
    task = build(resolved(composed(*tiny(single_words(tones, tmp_path), *overrides)))).task
    assert task.decoder.readout.n_directions == directions
    hidden, lens = torch.randn(1, 4, task.encoder.out_dim), torch.tensor([3])
    half = task.encoder.out_dim // 2
    want = torch.cat([hidden[0, 2, :half], hidden[0, 0 if directions == 2 else 2, half:]])
    torch.testing.assert_close(task.decoder.eval().logits(hidden, lens)[0], task.decoder.output(want))


def test_all_classes_by_their_probability():
    decoder = decoder_of()
    search = KeywordSearch(decoder)
    hidden, lens = torch.randn(3, 5, D), torch.tensor([5, 4, 1])
    found = search(hidden, lens)
    p = decoder.logits(hidden, lens).softmax(dim=-1)
    for i, row in enumerate(found):
        assert [h.labels for h in row] == [[c] for c in p[i].argsort(descending=True).tolist()]
        assert sum(torch.tensor(h.score).exp().item() for h in row) == pytest.approx(1)
        for h in row:
            assert search.force(hidden[i : i + 1], lens[i : i + 1], [h.labels]) == pytest.approx([h.score])
    assert search.force(hidden, lens, [[0, 1], [], [2]])[:2] == [float("-inf")] * 2


def test_transcripts_of_several_labels_are_refused(tones):
    """Before training, and whichever tokenizer they come from."""
    for tokenizer in ("words", "char"):
        config = resolved(composed(*tiny(tones, "encoder=bilstm", "decoder=keyword", f"tokenizer={tokenizer}")))
        with pytest.raises(DataError, match=r"a transcript has \d+; choose tokenizer=words, and a corpus of single"):
            build(config)


def test_share_of_utterances_with_any_error():
    rates = ErrorRates()
    rates.update([utterance_errors(r, h) for r, h in [("a b", "a b"), ("a", "b"), ("a b c", "x y"), ("a", "a")]])
    assert rates.compute()["ser"] == pytest.approx(0.5)
    rates.reset()
    rates.update([utterance_errors("我 用", "我用", score="cer"), utterance_errors("我用", "我", score="cer")])
    assert rates.compute()["ser"] == pytest.approx(0.5)  # layout is no error


ROWS = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("yes", "no"), ("a|b", ""), ("no", "yes")]


class TestConfusion:
    matrix = confusion({"ref": ref, "hyp": hyp} for ref, hyp in ROWS)

    def test_counts_by_hand(self):
        assert self.matrix.names == (NOTHING, "a|b", "no", "yes")
        assert self.matrix.counts == ((0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 1, 1), (0, 0, 2, 1))
        assert self.matrix.total == 6
        assert self.matrix.accuracy == pytest.approx(2 / 6)
        assert self.matrix.mistakes() == [("yes", "no", 2), ("a|b", NOTHING, 1), ("no", "yes", 1)]

    def test_csv_is_read_back(self):
        head, *rows = csv.reader(self.matrix.csv().splitlines())
        assert head == ["said", *self.matrix.names]
        assert {row[0]: tuple(map(int, row[1:])) for row in rows} == dict(
            zip(self.matrix.names, self.matrix.counts, strict=True)
        )

    def test_tables_name_everything(self):
        lines = self.matrix.markdown().splitlines()
        assert lines[0] == "| said | (nothing) | a\\|b | no | yes |"
        assert lines[-1] == "| yes | · | · | 2 | 1 |"
        console = Console(width=80, file=io.StringIO(), record=True)
        console.print(self.matrix.table())
        printed = console.export_text()
        assert "33.3 % of 6 right" in printed and "(nothing)" in printed and "a|b" in printed

    def test_heat_map(self):
        drawn = self.matrix.svg("val <1>")
        assert drawn.startswith("<svg") and drawn.endswith("</svg>") and "val &lt;1&gt;" in drawn
        assert drawn.count("<rect") == 16
        assert "<title>yes as no: 2</title>" in drawn

    def test_of_nothing(self):
        empty = confusion([])
        assert empty.names == () and empty.total == 0 and empty.accuracy != empty.accuracy
        assert empty.csv() == "said\n" and empty.svg("x").startswith("<svg")


def test_a_run_tells_its_accuracy_and_its_confusions(tones, tmp_path):
    from asr_lab.train import train

    from .conftest import make_run

    words = single_words(tones, tmp_path)
    run = make_run(tmp_path / "run", tiny(words, "encoder=bilstm", "decoder=keyword", "tokenizer=words"))
    metrics = train(run)["metrics"]
    rows = read_jsonl(run.hyps_file("test"))
    assert metrics["test/ser"] == pytest.approx(sum(r["ref"] != r["hyp"] for r in rows) / len(rows))
    assert 0 <= metrics["val/ser"] <= 1
    assert (run.folder / "confusion.test.csv").read_text() == confusion(rows).csv()
    assert run.confusion_file("val").exists()
