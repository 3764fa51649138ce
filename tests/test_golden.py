"""Numbers that must not move by themselves: features, decoding, scores. A change here is a change of results."""

import jiwer
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import make
from asr_lab.frontend.cmvn import Moments
from asr_lab.metrics.wer import ErrorRates, utterance_errors
from asr_lab.sweep.cell import resolved
from asr_lab.text.tokenizer import CharTokenizer, char_tokenizer_of_train

from .conftest import composed

# Frame 25 of the chirp below, as first computed by this code; its formula is tested by the next test.
GOLDEN_FRAME = [-0.5797, -0.7485, -0.4527, 1.1781, 0.8403, -0.7922, -0.3875, -0.2694]


def test_log_mel_of_a_chirp():
    frontend = make(resolved(composed("frontend.n_mels=8", "data.sample_rate=16000")), "frontend")
    t = torch.arange(8000) / 16000
    feats = frontend(0.1 * torch.sin(2 * torch.pi * (200 + 3000 * t) * t))
    feats = frontend.cmvn(feats, Moments.of(feats))
    assert feats.shape == (51, 8) == (frontend.n_frames(8000), frontend.out_dim)
    torch.testing.assert_close(feats.mean(dim=0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(feats.std(dim=0, correction=0), torch.ones(8), atol=1e-3, rtol=0)
    want = torch.tensor(GOLDEN_FRAME)
    torch.testing.assert_close(feats[25], want, atol=2e-3, rtol=0)


def test_log_mel_follows_the_formula():
    """Against torch.stft and a triangle by hand, before normalisation."""
    frontend = make(resolved(composed("frontend.n_mels=20")), "frontend")
    audio = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    window = torch.nn.functional.pad(torch.hann_window(400), (56, 56))
    power = torch.stft(audio, 512, 160, 512, window, center=True, pad_mode="constant", return_complex=True).abs() ** 2
    want = (power.T @ frontend.mel.mel_scale.fb + 1e-6).log()
    torch.testing.assert_close(frontend(audio), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("ref", "hyp", "want"),
    [
        ("a b c", "a b c", (0, 0, 0, 3)),
        ("a b c", "a x c", (1, 0, 0, 3)),
        ("a b c", "a c", (0, 1, 0, 3)),
        ("a b c", "a b b c", (0, 0, 1, 3)),
        ("a b", "", (0, 2, 0, 2)),
        ("one", "two three four", (1, 0, 2, 1)),
    ],
)
def test_errors_by_hand(ref, hyp, want):
    row = utterance_errors(ref, hyp)
    assert (row["sub"], row["del"], row["ins"], row["words"]) == want


def test_corpus_rate_is_not_the_mean_of_sentence_rates():
    rates = ErrorRates()
    rates.update([utterance_errors("a", "b"), utterance_errors("a b c d e f g h i", "a b c d e f g h i")])
    assert rates.compute()["wer"] == pytest.approx(0.1)  # 1 of 10 words, not (100 % + 0 %) / 2


def test_reset_forgets():
    rates = ErrorRates()
    rates.update([utterance_errors("a", "b")])
    rates.reset()
    rates.update([utterance_errors("a", "a")])
    assert rates.compute()["wer"] == 0


words = st.lists(st.sampled_from(["a", "bc", "d"]), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(words, words | st.just("")), min_size=1, max_size=5))
def test_rates_agree_with_jiwer(pairs):
    refs, hyps = map(list, zip(*pairs, strict=True))
    rates = ErrorRates()
    for ref, hyp in pairs:
        rates.update([utterance_errors(ref, hyp)])
    got = rates.compute()
    assert got["wer"].item() == pytest.approx(jiwer.wer(refs, hyps))
    assert got["cer"].item() == pytest.approx(jiwer.cer(refs, hyps))


@given(st.text(alphabet=" 'abcdefghijklmnopqrstuvwxyz"))
def test_tokenizer_round_trip(text):
    tokenizer = CharTokenizer(" 'abcdefghijklmnopqrstuvwxyz")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_tokenizer_of_any_script(texts):
    tokenizer = char_tokenizer_of_train(texts)
    assert [tokenizer.decode(tokenizer.encode(t)) for t in texts] == texts
    assert len(tokenizer) == len(set("".join(texts)))


def test_tokenizer_names_what_it_does_not_know():
    tokenizer = CharTokenizer("ab")
    with pytest.raises(ValueError, match=r"outside the tokenizer: \['1', 'c'\]"):
        tokenizer.encode("ab1c")
    with pytest.raises(ValueError, match="names 'a' more than once"):
        CharTokenizer("aba")
    with pytest.raises(ValueError, match="is empty"):
        CharTokenizer("")


def test_dropout_keeps_the_expectation_and_the_rate():
    from asr_lab.layers.dropout import Dropout

    torch.manual_seed(0)
    x = torch.ones(400, 1000)
    for p in (0.0, 0.001, 0.1, 0.5):
        dropout = Dropout(p)
        y = dropout(x)
        assert y.mean().item() == pytest.approx(1.0, abs=5e-3)
        assert (y == 0).float().mean().item() == pytest.approx(p, abs=5e-3)
        assert torch.equal(dropout.eval()(x), x)
    a, b = (torch.manual_seed(1), Dropout(0.3)(x))[1], (torch.manual_seed(1), Dropout(0.3)(x))[1]
    assert torch.equal(a, b)
    columns = (Dropout(0.5)(x) == 0).float()
    lag = (columns[:, :-1] * columns[:, 1:]).mean().item()  # neighbours share one draw of the generator
    assert lag == pytest.approx(0.25, abs=5e-3)
