"""Features against references, and the properties of every front-end and head in conf/frontend."""

import math
import os
from functools import cache

import numpy as np
import pytest
import torch
import torchaudio
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torchaudio.compliance import kaldi

from asr_lab.build import call, check, make
from asr_lab.data import audio as audio_files
from asr_lab.errors import ConfigError
from asr_lab.frontend.cmvn import NoCmvn
from asr_lab.frontend.head import NoHead, Stacking
from asr_lab.frontend.kaldi import KaldiFbank, KaldiMel, mel_filters
from asr_lab.frontend.learned_filters import mel_gabors
from asr_lab.frontend.mfcc import Mfcc, dct, deltas
from asr_lab.layers.stacking import FrameStacking
from asr_lab.paths import conf_dir

from .conftest import choices

RATE = 16000
FRONTENDS = choices("frontend")
HEADS = choices("frontend/head")
PAIRS = [(f, h) for f in FRONTENDS for h in HEADS if h != "learned_filters" or f == "waveform"]


def config_of(frontend: str, *overrides: str, rate: int = RATE):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(f"frontend/{frontend}", overrides=[f"+data.sample_rate={rate}", *overrides])
    return {"frontend": OmegaConf.to_container(cfg, resolve=True)["frontend"]}


def built(frontend: str, *overrides: str, rate: int = RATE):
    config = config_of(frontend, *overrides, rate=rate)
    check(config)
    return make(config, "frontend")


@cache
def shared(frontend: str, rate: int):
    return built(frontend, rate=rate)


def made_with_head(config):
    """(front-end, head), as build.py makes them"""
    check(config)
    made = make(config, "frontend")
    return made, call(config, "frontend", made.head, in_dim=made.out_dim).eval()


def pair(frontend: str, head: str, *overrides: str, rate: int = RATE):
    return made_with_head(config_of(frontend, f"frontend/head={head}", *overrides, rate=rate))


def noise(n: int, seed: int = 0, sigma: float = 0.05) -> torch.Tensor:
    return sigma * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def sweep(n: int, rate: int) -> torch.Tensor:
    """Something like speech: a rising tone with harmonics that comes and goes, over some noise and an offset."""
    t = torch.arange(n, dtype=torch.float64) / rate
    phase = 2 * math.pi * (120 * t + 60 * t * t)
    tone = sum(torch.sin(k * phase) / k for k in range(1, 15))
    return (0.1 * tone * torch.sin(2 * math.pi * 3 * t) ** 2 + noise(n, sigma=1e-3) + 0.01).float()


# Every front-end


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FRONTENDS), st.sampled_from([8000, 11025, RATE]), st.integers(1, 5000))
def test_number_of_frames_is_exact(frontend, rate, n):
    made = shared(frontend, rate)
    feats = made(noise(n))
    assert feats.shape == (made.n_frames(n), made.out_dim)
    assert len(feats) >= 1
    assert feats.dtype == torch.float32
    assert torch.isfinite(feats).all()


@pytest.mark.parametrize("frontend", FRONTENDS)
class TestEveryFrontend:
    @pytest.mark.parametrize("n", [1, 2, 79, 80, 81, 159, 160, 200, 399, 400, 401, 559, 560, 561])
    def test_lengths_around_a_hop_and_a_window(self, frontend, n):
        for rate in (8000, RATE):
            made = shared(frontend, rate)
            assert len(made(noise(n))) == made.n_frames(n) >= 1

    @pytest.mark.parametrize("value", [0.0, 0.5, -1.0])
    def test_constant_input_is_finite(self, frontend, value):
        assert torch.isfinite(shared(frontend, RATE)(torch.full((3000,), value))).all()

    def test_input_stays_and_output_repeats(self, frontend):
        audio = noise(3000)
        before = audio.clone()
        first = shared(frontend, RATE)(audio)
        assert torch.equal(audio, before)
        assert torch.equal(shared(frontend, RATE)(audio), first)
        assert not first.requires_grad

    def test_a_view_is_as_good_as_a_copy(self, frontend):
        long = noise(9000)
        view = shared(frontend, RATE)(long[1111:5111])
        torch.testing.assert_close(view, shared(frontend, RATE)(long[1111:5111].clone()))

    def test_what_comes_later_changes_no_earlier_frame(self, frontend):
        """A frame hears its own window only: T - 5 frames are the same when more follows."""
        made, audio = shared(frontend, RATE), sweep(8000, RATE)
        short, long = made(audio[:4000]), made(audio)
        torch.testing.assert_close(short[:-5], long[: len(short) - 5], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("frontend", "override", "says"),
    [
        ("logmel", "window_ms=0", "window_ms=0 is not a length of at least one sample at 16000 Hz"),
        ("logmel", "hop_ms=0.01", "hop_ms=0.01 is not a length"),
        ("logmel", "f_min=8000", "f_min below 8000 Hz"),
        ("logmel", "n_mels=0", "n_mels and floor must be positive"),
        ("spectrogram", "floor=0", "floor keeps .* 0 came"),
        ("spectrogram", "window_ms=-1", "window_ms=-1 is not"),
        ("kaldi_fbank", "preemphasis=1.5", r"preemphasis is a coefficient in \[0, 1\], 1.5 came"),
        ("kaldi_fbank", "n_mels=200", "n_mels=200 is too much for 512 points at 16000 Hz: filter 2"),
        ("kaldi_fbank", "f_min=9000", "from 9000 to 8000 Hz"),
        ("kaldi_fbank", "f_max_below_nyquist=-400", "from 20 to 8400 Hz"),
        ("kaldi_fbank", "hop_ms=0", "hop_ms=0 is not"),
        ("kaldi_fbank", "snip_edge=false", "unexpected 'snip_edge'; did you mean 'snip_edges'"),
        ("mfcc", "n_mfcc=24", "n_mfcc=24 coefficients come from 23 mel energies"),
        ("mfcc", "n_deltas=-1", "n_deltas must not be negative"),
        ("mfcc", "delta_window=0", "delta_window must be positive"),
        ("mfcc", "lifter=0", "lifter and delta_window must be positive"),
        ("mfcc", "mel.n_mels=0", "0 mel filters"),
        ("waveform", "frame_ms=0", "frame_ms=0 is not"),
        ("waveform", "head.window_ms=5", "window_ms=5 is shorter than a frame of 10.0 ms"),
        ("waveform", "head.stride_ms=3", r"stride_ms=3 \(48 samples\) does not divide a frame of 160 samples"),
        ("waveform", "head.f_min=8000", "f_min between 0 and 8000 Hz"),
        ("waveform", "head.n_filters=0", "n_filters and floor must be positive"),
        ("logmel", "/head=stacking frontend.head.stride=3", "stacking factor 2 with stride 3"),
        ("logmel", "/head=stacking frontend.head.stride=0", "stacking factor 2 with stride 0"),
        ("logmel", "/head=learned_filters", "learned filters read raw audio.*choose frontend=waveform"),
    ],
)
def test_values_that_cannot_be(frontend, override, says):
    first, *more = override.split()
    first = f"frontend{first}" if first.startswith("/") else f"frontend.{first}"
    plus = "+" if "snip_edge=" in first else ""
    with pytest.raises(ConfigError, match=f"conf/frontend: .*{says}") as caught:
        made_with_head(config_of(frontend, plus + first, *more))
    assert "\n" not in str(caught.value)


def test_learned_filters_are_not_for_features_that_are_as_wide_as_a_hop():
    """80 log-mel energies are no 80 samples."""
    with pytest.raises(ConfigError, match="read raw audio"):
        pair("logmel", "learned_filters", rate=8000)


# Kaldi


def kaldi_by_the_book(samples: np.ndarray, rate: int, n_mels: int, snip: bool, f_max: float) -> np.ndarray:
    """The published algorithm one step at a time, in float64: another way to the same numbers."""
    x = samples.astype(np.float64) * 32768
    size, shift = int(rate * 0.025), int(rate * 0.010)
    n_frames = 1 + (len(x) - size) // shift if snip else (len(x) + shift // 2) // shift
    n_fft = 1
    while n_fft < size:
        n_fft *= 2

    def mel(f):
        return 1127 * np.log(1 + f / 700)

    low, step = mel(20.0), (mel(f_max) - mel(20.0)) / (n_mels + 1)
    out = np.zeros((n_frames, n_mels))
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))) ** 0.85
    for t in range(n_frames):
        start = t * shift if snip else t * shift + shift // 2 - size // 2
        frame = np.empty(size)
        for i in range(size):
            j = start + i
            while j < 0 or j >= len(x):
                j = -j - 1 if j < 0 else 2 * len(x) - 1 - j
            frame[i] = x[j]
        frame -= frame.mean()
        for i in range(size - 1, 0, -1):
            frame[i] -= 0.97 * frame[i - 1]
        frame[0] -= 0.97 * frame[0]
        power = np.abs(np.fft.fft(frame * window, n_fft)) ** 2
        for m in range(n_mels):
            left, centre, right = (low + (m + k) * step for k in (0, 1, 2))
            energy = 0.0
            for b in range(n_fft // 2):
                here = mel(rate * b / n_fft)
                if left < here <= centre:
                    energy += power[b] * (here - left) / (centre - left)
                elif centre < here < right:
                    energy += power[b] * (right - here) / (right - centre)
            out[t, m] = np.log(max(energy, np.finfo(np.float32).eps))
    return out


SIGNALS = {"noise": lambda n, rate: noise(n), "sweep": sweep, "silence": lambda n, rate: torch.zeros(n)}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("snip", [True, False])
@pytest.mark.parametrize(("rate", "n_mels", "below"), [(RATE, 80, 0.0), (8000, 40, 0.0), (11025, 23, 400.0)])
class TestKaldi:
    def frontend(self, rate, n_mels, below, snip):
        return KaldiFbank(rate, n_mels, 25.0, 10.0, 20.0, below, 0.97, snip, NoCmvn(), NoHead)

    def test_agrees_with_torchaudio(self, rate, n_mels, below, snip, signal):
        audio = SIGNALS[signal](rate, rate)
        want = kaldi.fbank(
            audio[None] * 32768,
            sample_frequency=rate,
            num_mel_bins=n_mels,
            dither=0.0,
            snip_edges=snip,
            high_freq=-below,
            energy_floor=0.0,
        )
        got = self.frontend(rate, n_mels, below, snip)(audio)
        torch.testing.assert_close(got, want, atol=1e-3, rtol=0)

    def test_agrees_with_the_published_steps(self, rate, n_mels, below, snip, signal):
        audio = SIGNALS[signal](round(0.1 * rate) + 7, rate)
        want = kaldi_by_the_book(audio.numpy(), rate, n_mels, snip, rate / 2 - below)
        got = self.frontend(rate, n_mels, below, snip)(audio)
        np.testing.assert_allclose(got.numpy(), want, atol=1e-3, rtol=0)


def test_kaldi_mirrors_a_recording_that_is_shorter_than_a_window():
    audio = noise(100)
    want = kaldi_by_the_book(audio.numpy(), RATE, 23, False, 8000.0)
    got = KaldiMel(RATE, 23, 25.0, 10.0, 20.0, 0.0, 0.97, False)(audio)[0]
    np.testing.assert_allclose(got.numpy(), want, atol=1e-3, rtol=0)


def test_a_recording_shorter_than_a_window_is_padded():
    mel = shared("kaldi_fbank", RATE)
    torch.testing.assert_close(mel(noise(100)), mel(torch.nn.functional.pad(noise(100), (0, 300))))


def test_kaldi_on_speech():
    if not os.environ.get("ASR_LAB_DATA"):
        pytest.skip("ASR_LAB_DATA is not set: no corpora here")
    from pathlib import Path

    found = sorted(Path(os.environ["ASR_LAB_DATA"]).glob("an4/audio/**/*.*"))
    if not found:
        pytest.skip("AN4 is not in ASR_LAB_DATA")
    for path in found[:: max(1, len(found) // 4)]:
        samples, rate = audio_files.read(path)
        audio = torch.from_numpy(samples)
        want = kaldi.fbank(audio[None] * 32768, sample_frequency=rate, num_mel_bins=80, dither=0.0)
        torch.testing.assert_close(shared("kaldi_fbank", rate)(audio), want, atol=1e-3, rtol=0)


def test_mel_triangles():
    filters = mel_filters(RATE, 512, 40, 20.0, 8000.0)
    assert filters.shape == (257, 40)
    assert (filters >= 0).all() and (filters <= 1).all()
    assert (filters[256] == 0).all()
    inner = slice(5, 240)  # between the first and the last centre two triangles add up to one
    torch.testing.assert_close(filters[inner].sum(dim=1), torch.ones(235))


# MFCC


@pytest.mark.parametrize("use_energy", [True, False])
@pytest.mark.parametrize("snip", [True, False])
def test_mfcc_agrees_with_kaldi(use_energy, snip):
    audio = sweep(RATE, RATE)
    mel = KaldiMel(RATE, 23, 25.0, 10.0, 20.0, 0.0, 0.97, snip)
    got = Mfcc(mel, 13, 22.0, use_energy, 0, 2, NoCmvn(), NoHead)(audio)
    want = kaldi.mfcc(audio[None] * 32768, dither=0.0, use_energy=use_energy, energy_floor=0.0, snip_edges=snip)
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-5)


def test_mfcc_puts_deltas_behind():
    feats = shared("mfcc", RATE)(sweep(RATE, RATE))
    assert feats.shape == (98, 39)
    still, velocity, acceleration = feats.split(13, dim=1)
    torch.testing.assert_close(velocity, torchaudio.functional.compute_deltas(still.T, win_length=5).T)
    torch.testing.assert_close(acceleration, torchaudio.functional.compute_deltas(velocity.T, win_length=5).T)


def test_deltas_by_hand():
    """HTK book, eq. 5.16, window 2, the ends repeated."""
    ramp = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]])
    assert deltas(ramp, 2).flatten().tolist() == pytest.approx([0.5, 0.8, 1.0, 1.0, 0.8, 0.5])
    step = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    assert deltas(step, 1).flatten().tolist() == pytest.approx([0, 0.5, 0.5, 0])


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("n_frames", [1, 2, 3, 30])
def test_deltas_agree_with_torchaudio(window, n_frames):
    feats = torch.randn(n_frames, 5, generator=torch.Generator().manual_seed(0))
    want = torchaudio.functional.compute_deltas(feats.T, win_length=2 * window + 1).T
    torch.testing.assert_close(deltas(feats, window), want)


def test_dct_is_orthonormal():
    matrix = dct(23, 23)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(23, dtype=torch.float64))
    torch.testing.assert_close(dct(23, 13).float(), torchaudio.functional.create_dct(13, 23, "ortho"))


# Spectrogram and waveform


def test_spectrogram_by_hand():
    audio = sweep(4000, RATE)
    frame = audio[10 * 160 - 200 : 10 * 160 + 200].double() * torch.hann_window(400, dtype=torch.float64)
    want = (torch.fft.rfft(torch.nn.functional.pad(frame, (56, 56))).abs() ** 2 + 1e-6).log()
    got = shared("spectrogram", RATE)(audio)
    assert got.shape == (26, 257)
    torch.testing.assert_close(got[10].double(), want, atol=1e-3, rtol=1e-4)


def test_spectrogram_of_a_sine():
    t = torch.arange(RATE) / RATE
    feats = shared("spectrogram", RATE)(0.1 * torch.sin(2 * math.pi * 1000 * t))
    assert (feats[5:-5].argmax(dim=1) == 32).all()  # 1000 Hz of 31.25 Hz each


def test_waveform_is_the_audio():
    audio = noise(400)
    feats = shared("waveform", RATE)(audio)
    assert feats.shape == (3, 160)
    assert torch.equal(feats.flatten(), torch.nn.functional.pad(audio, (0, 80)))


# Heads


def batch(frontend, seconds: tuple[float, ...], rate: int = RATE) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [frontend(noise(round(s * rate), seed)) for seed, s in enumerate(seconds)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(r) for r in rows])


@pytest.mark.parametrize(("frontend", "head"), PAIRS)
class TestEveryHead:
    SECONDS = (0.31, 0.2, 0.123, 0.003)

    def test_shapes_and_lengths(self, frontend, head):
        made, module = pair(frontend, head)
        feats, lens = batch(made, self.SECONDS)
        out, out_lens = module(feats, lens)
        assert out.shape == (4, int(out_lens.max()), module.out_dim)
        assert torch.equal(out_lens, module.output_lengths(lens))
        assert (out_lens >= 1).all()
        assert torch.isfinite(out).all()

    @pytest.mark.parametrize("garbage", [1e4, math.nan, math.inf])
    def test_padding_changes_nothing(self, frontend, head, garbage):
        made, module = pair(frontend, head)
        feats, lens = batch(made, self.SECONDS)
        clean, out_lens = module(feats, lens)
        dirty = torch.nn.functional.pad(feats, (0, 0, 0, 7))
        for row, n in zip(dirty, lens.tolist(), strict=True):
            row[n:] = garbage
        other, other_lens = module(dirty, lens)
        assert torch.equal(out_lens, other_lens)
        for row, want, n in zip(other, clean, out_lens.tolist(), strict=True):
            torch.testing.assert_close(row[:n], want[:n], rtol=1e-4, atol=1e-4)

    def test_an_utterance_alone_equals_itself_in_a_batch(self, frontend, head):
        made, module = pair(frontend, head)
        feats, lens = batch(made, self.SECONDS)
        together, out_lens = module(feats, lens)
        for i, n in enumerate(lens.tolist()):
            alone, _ = module(feats[i : i + 1, :n], lens[i : i + 1])
            torch.testing.assert_close(alone[0], together[i, : out_lens[i]], rtol=1e-4, atol=1e-4)

    def test_gradient_reaches_every_parameter(self, frontend, head):
        made, module = pair(frontend, head)
        feats, lens = batch(made, self.SECONDS)
        out, _ = module(feats, lens)
        if list(module.parameters()):
            (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
        assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in module.parameters())

    def test_silence_is_finite_with_its_gradient(self, frontend, head):
        _, module = pair(frontend, head)
        made = shared(frontend, RATE)
        out, _ = module(made(torch.zeros(2000))[None], torch.tensor([made.n_frames(2000)]))
        assert torch.isfinite(out).all()
        if list(module.parameters()):
            out.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_stacking_by_hand():
    frames = torch.arange(1.0, 6).reshape(1, 5, 1).expand(1, 5, 2)
    out, lens = FrameStacking(3, stride=2)(frames, torch.tensor([5]))
    assert out[0].tolist() == [[1, 1, 2, 2, 3, 3], [3, 3, 4, 4, 5, 5], [5, 5, 0, 0, 0, 0]]
    assert lens.tolist() == [3]
    out, lens = FrameStacking(2, stride=2)(frames, torch.tensor([3]))  # two frames of padding
    assert out[0].tolist() == [[1, 1, 2, 2], [3, 3, 0, 0], [0, 0, 0, 0]]
    assert lens.tolist() == [2]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 30))
def test_every_frame_is_in_a_stack(n_stacked, stride, n_frames):
    if stride > n_stacked:
        n_stacked, stride = stride, n_stacked
    head = Stacking(1, n_stacked, stride)
    frames = torch.arange(1.0, n_frames + 1).reshape(1, -1, 1)
    out, lens = head(frames, torch.tensor([n_frames]))
    assert out.shape == (1, int(lens), head.out_dim)
    assert set(out.flatten().tolist()) - {0} == set(range(1, n_frames + 1))


# Learned filters


@pytest.mark.parametrize("rate", [8000, RATE])
def test_a_tone_is_loudest_in_its_own_filter(rate):
    made, head = pair("waveform", "learned_filters", rate=rate)
    edges = torch.linspace(math.log1p(60 / 700), math.log1p(rate / 1400), 42).expm1() * 700
    t = torch.arange(rate // 2) / rate
    for n in (0, 7, 20, 39):
        feats = made(0.1 * torch.sin(2 * math.pi * edges[n + 1] * t))
        energies = head._energies(feats.reshape(1, -1), torch.tensor([len(feats)]))[0, 10:-10]
        assert (energies.argmax(dim=1) == n).all()
        assert energies.std(dim=0)[n] / energies.mean(dim=0)[n] < 0.01  # the modulus does not follow the phase


def test_gabors_have_unit_energy_and_the_width_of_triangles():
    real, imaginary = mel_gabors(20, 400, RATE, 60.0).double()
    torch.testing.assert_close(real.square().sum(1) + imaginary.square().sum(1), torch.ones(20).double())
    edges = torch.linspace(math.log1p(60 / 700), math.log1p(8000 / 700), 22).double().expm1() * 700
    power = torch.fft.fft(torch.complex(real, imaginary), 1 << 16).abs().square()
    for n in (8, 12, 18):
        above = (power[n] > power[n].max() / 2).nonzero().flatten() * RATE / (1 << 16)
        assert float(above[-1] - above[0]) == pytest.approx(float(edges[n + 2] - edges[n]) / 2, rel=0.05)


def test_learned_filters_begin_close_to_log_mel():
    made, head = pair("waveform", "learned_filters")
    mel = built("logmel", "frontend.n_mels=40", "frontend.f_min=60")
    audio = sweep(2 * RATE, RATE) + noise(2 * RATE, sigma=0.01)
    learned = head(made(audio)[None], torch.tensor([200]))[0][0]
    feats = mel(audio)
    feats = (feats[:200] + feats[1:201]) / 2  # log-mel frames lie half a hop earlier and later
    feats = (feats - feats.mean(dim=0)) / feats.std(dim=0)
    assert (learned * feats).mean() > 0.9


def test_learned_filters_are_normalised_over_valid_frames():
    made, head = pair("waveform", "learned_filters")
    feats, lens = batch(made, (0.5, 0.3))
    out, _ = head(feats, lens)
    for row, n in zip(out, lens.tolist(), strict=True):
        torch.testing.assert_close(row[:n].mean(dim=0), torch.zeros(40), atol=1e-4, rtol=0)
        torch.testing.assert_close(row[:n].std(dim=0, correction=0), torch.ones(40), atol=1e-3, rtol=0)
        assert (row[n:] == 0).all()


def test_learned_filters_under_autocast():
    made, head = pair("waveform", "learned_filters")
    feats, lens = batch(made, (0.2, 0.1))
    want, _ = head(feats, lens)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(feats, lens)[0], want)


def test_learned_filters_learn():
    """Two tones that one of four wide filters takes for the same: with a fixed readout, only the filters can help."""
    made, head = pair("waveform", "learned_filters", "frontend.head.n_filters=4")
    t = torch.arange(3200) / RATE
    tones = torch.stack([made(0.1 * torch.sin(2 * math.pi * hz * t)) for hz in (900, 950)]).flatten(1)
    lens, readout = torch.tensor([20, 20]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    apart = []
    for _ in range(30):
        scores = (head._energies(tones, lens) + head.floor).log().mean(dim=1) @ readout
        apart.append((scores[0] - scores[1]).item())
        optimizer.zero_grad()
        (scores[1] - scores[0]).backward()
        optimizer.step()
    assert abs(apart[0]) < 0.5
    assert apart[-1] > 3
