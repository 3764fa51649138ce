"""Pre-processing against signals whose right answer is known."""

import math

import numpy as np
import pytest
import torch
import torchaudio
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy import signal

from asr_lab.build import check, make
from asr_lab.errors import ConfigError
from asr_lab.paths import conf_dir
from asr_lab.preprocess.butterworth import BandPass, HighPass
from asr_lab.preprocess.chain import Chain
from asr_lab.preprocess.loudness import Loudness, k_weighting, loudness
from asr_lab.preprocess.none import NoPreprocess
from asr_lab.preprocess.preemphasis import Preemphasis
from asr_lab.preprocess.vad import EnergyVad

from .conftest import choices

RATE = 16000
ALL = choices("preprocess")
DENOISERS = ["spectral_gating", "wiener"]


def built(choice: str, *overrides: str, rate: int = RATE):
    """From the YAML of the choice alone: the whole configuration takes longer to compose than most tests."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(f"preprocess/{choice}", overrides=[f"+data.sample_rate={rate}", *overrides])
    node = {"preprocess": OmegaConf.to_container(cfg, resolve=True)["preprocess"]}
    check(node)
    return make(node, "preprocess")


@pytest.fixture(scope="module")
def made():
    return {(choice, rate): built(choice, rate=rate) for choice in ALL for rate in (8000, RATE)}


def sine(hz: float, seconds: float, amplitude: float = 0.5, rate: int = RATE) -> torch.Tensor:
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (amplitude * torch.sin(2 * math.pi * hz * t)).float()


def noise(n: int, sigma: float, seed: int = 0) -> torch.Tensor:
    return sigma * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def db(y: torch.Tensor, x: torch.Tensor) -> float:
    """Level of y over that of x, both without their ends."""
    middle = slice(len(x) // 4, -len(x) // 4)
    return 20 * math.log10(float(y[middle].double().norm() / x[middle].double().norm()))


# Every choice


def kinds(n: int) -> dict[str, torch.Tensor]:
    return {
        "silence": torch.zeros(n),
        "dc": torch.full((n,), 0.3),
        "noise": noise(n, 0.1),
        "loud": torch.sign(noise(n, 1.0)),
        "tiny": noise(n, 1e-7),
        "click": torch.nn.functional.pad(torch.ones(1), (n // 2, n - n // 2 - 1)),
    }


@pytest.mark.parametrize("rate", [8000, RATE])
@pytest.mark.parametrize("choice", ALL)
def test_any_length_and_any_signal(made, choice, rate):
    preprocess = made[choice, rate]
    for n in (1, 2, 3, 7, 40, 300, 513, 5000):
        for kind, audio in kinds(n).items():
            before = audio.clone()
            out = preprocess(audio)
            where = f"{n} samples of {kind}"
            assert torch.isfinite(out).all(), where
            assert out.dtype == torch.float32, where
            assert out.ndim == 1 and 1 <= len(out) <= n, where
            assert len(out) == n or not preprocess.keeps_length, where
            assert torch.equal(audio, before), where
            assert torch.equal(preprocess(audio), out), where


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), st.integers(1, 4000), st.integers(0, 99))
def test_never_empty_never_longer(made, choice, n, seed):
    out = made[choice, RATE](noise(n, 0.1, seed))
    assert 1 <= len(out) <= n
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("choice", ALL)
def test_pieces_of_memory_are_fine(made, choice):
    """A view into a longer recording gives what a copy gives."""
    long = noise(9000, 0.1)
    assert torch.equal(made[choice, RATE](long[2000:6000]), made[choice, RATE](long[2000:6000].clone()))


@pytest.mark.parametrize(
    ("choice", "override", "says"),
    [
        ("preemphasis", "coefficient=0", r"coefficient is in \(0, 1\], 0 came"),
        ("preemphasis", "coefficient=1.5", "1.5 came"),
        ("highpass", "cutoff_hz=8000", "between 0 and 8000 Hz, half of the sampling rate; 8000 came"),
        ("highpass", "cutoff_hz=-1", "between 0 and 8000 Hz"),
        ("highpass", "order=0", "order must be at least 1, 0 came"),
        ("highpass", "cutof_hz=80", "unexpected 'cutof_hz'.*did you mean 'cutoff_hz'"),
        ("bandpass", "low_hz=3400", "rise between 0 and 8000 Hz.*3400 and 3400 came"),
        ("bandpass", "high_hz=9000", "300 and 9000 came"),
        ("spectral_gating", "noise_share=0", r"noise_share is in \(0, 1\]"),
        ("spectral_gating", "width_db=0", "width_db must be positive"),
        ("spectral_gating", "window_ms=0", "window_ms=0 is not a window"),
        ("spectral_gating", "smooth_ms=-1", "not negative"),
        ("wiener", "noise_share=1.5", "1.5"),
        ("wiener", "reduction_db=-3", "reduction_db is positive.* -3 came"),
        ("wiener", "smoothing=1", r"smoothing is in \[0, 1\), 1 came"),
        ("vad", "frame_ms=0", "frame_ms=0 is not a length"),
        ("vad", "threshold_db=0", "threshold_db must be positive"),
        ("vad", "padding_ms=-5", "padding_ms not negative.* -5"),
        ("loudness", "target_lufs=3", "target_lufs is in .* 3 and -1.0 came"),
        ("loudness", "peak_dbfs=1", "peak_dbfs in"),
        ("highpass_loudness", "highpass.cutoff_hz=99999", "99999 came"),
    ],
)
def test_values_that_cannot_be(choice, override, says):
    plus = "+" if "cutof_" in override else ""
    with pytest.raises(ConfigError, match=f"conf/preprocess: .*{says}") as caught:
        built(choice, f"{plus}preprocess.{override}")
    assert "\n" not in str(caught.value)


# Filters


def test_preemphasis_by_hand():
    out = Preemphasis(0.5)(torch.tensor([1.0, 2.0, 4.0]))
    assert out.tolist() == [0.5, 1.5, 3.0]


@pytest.mark.parametrize("hz", [50, 1000, 4000, 7900])
def test_preemphasis_response(hz):
    want = 10 * math.log10(1 + 0.97**2 - 2 * 0.97 * math.cos(2 * math.pi * hz / RATE))
    x = sine(hz, 1)
    assert db(Preemphasis(0.97)(x), x) == pytest.approx(want, abs=0.01)


@pytest.mark.parametrize("zero_phase", [False, True])
@pytest.mark.parametrize("hz", [40, 80, 100, 160, 1000])
def test_highpass_attenuation(hz, zero_phase):
    """|H|^2 = 1 / (1 + (fc / f)^2n), frequencies warped by the bilinear transform; twice in dB forward and backward."""
    ratio = math.tan(math.pi * 80 / RATE) / math.tan(math.pi * hz / RATE)
    want = -10 * math.log10(1 + ratio ** (2 * 4)) * (2 if zero_phase else 1)
    x = sine(hz, 4)
    assert db(HighPass(RATE, 80.0, 4, zero_phase)(x), x) == pytest.approx(want, abs=0.05)


@pytest.mark.parametrize(("hz", "low", "high"), [(300, -3.1, -2.9), (3400, -3.1, -2.9), (1010, -0.01, 0.01)])
def test_bandpass_passes_its_band(hz, low, high):
    x = sine(hz, 2)
    assert low < db(BandPass(RATE, 300.0, 3400.0, 4, False)(x), x) < high


@pytest.mark.parametrize("hz", [50, 7000])
def test_bandpass_stops_the_rest(hz):
    x = sine(hz, 2)
    assert db(BandPass(RATE, 300.0, 3400.0, 4, False)(x), x) < -40


def test_phase():
    click = torch.zeros(2001)
    click[1000] = 1
    both = HighPass(RATE, 200.0, 4, zero_phase=True)(click)
    torch.testing.assert_close(both, both.flip(0), atol=1e-6, rtol=0)
    causal = HighPass(RATE, 200.0, 4, zero_phase=False)(click)
    assert (causal[:1000] == 0).all()
    assert causal[1001:1100].abs().max() > 1e-3


@pytest.mark.parametrize("zero_phase", [False, True])
def test_dc_makes_no_click(zero_phase):
    out = HighPass(RATE, 80.0, 4, zero_phase)(torch.full((4000,), 0.5))
    assert out.abs().max() < 1e-4


# Noise reduction


def burst() -> torch.Tensor:
    """3 s with harmonics of 200 Hz in the middle second."""
    tone = sum(sine(200.0 * k, 1, 0.2 / k) for k in range(1, 8))
    return torch.nn.functional.pad(tone, (RATE, RATE))


def snr(clean: torch.Tensor, noisy: torch.Tensor) -> float:
    return 10 * math.log10(float(clean.square().sum() / (noisy - clean).square().sum()))


@pytest.mark.parametrize("choice", DENOISERS)
@pytest.mark.parametrize(("before", "gain"), [(0, 8), (10, 6)])
def test_snr_gain(made, choice, before, gain):
    clean = burst()
    hiss = noise(len(clean), 1.0)
    noisy = clean + hiss * (clean.norm() / hiss.norm()) * 10 ** (-before / 20)
    assert snr(clean, noisy) == pytest.approx(before, abs=0.01)
    assert snr(clean, made[choice, RATE](noisy)) > before + gain


@pytest.mark.parametrize("choice", DENOISERS)
def test_stationary_noise_is_turned_down_by_what_was_asked(choice):
    hiss = noise(4 * RATE, 0.05)
    out = built(choice, "preprocess.reduction_db=12", "preprocess.noise_share=1")(hiss)
    assert -12.1 < db(out, hiss) < -8
    assert db(built(choice, "preprocess.reduction_db=30", "preprocess.noise_share=1")(hiss), hiss) < -14


@pytest.mark.parametrize("choice", DENOISERS)
def test_clean_speech_stays(made, choice):
    clean = burst() + noise(3 * RATE, 1e-5)
    assert snr(clean, made[choice, RATE](clean)) > 25


@pytest.mark.parametrize("choice", DENOISERS)
@pytest.mark.parametrize("before", [3000, 3333])
def test_zeros_around_a_recording_do_not_hide_its_noise(made, choice, before):
    clean = burst()
    noisy = clean + noise(len(clean), 0.03)
    padded = torch.nn.functional.pad(noisy, (before, 20000))
    out = made[choice, RATE](padded)[before : before + len(noisy)]
    assert snr(clean, out) > snr(clean, noisy) + 6


@pytest.mark.parametrize("choice", DENOISERS)
def test_too_short_to_tell_its_noise(made, choice):
    audio = noise(600, 0.1)
    assert torch.equal(made[choice, RATE](audio), audio)


# Trimming


def vad(**changes):
    values = {"frame_ms": 10.0, "threshold_db": 40.0, "silence_dbfs": -60.0, "padding_ms": 50.0, "cut_pauses": False}
    return EnergyVad(RATE, **(values | changes))


def spoken(*spans: tuple[int, int], total: int = 32000) -> torch.Tensor:
    """Noise in the spans, 60 dB of it less elsewhere; the values differ everywhere, so positions can be found."""
    audio = noise(total, 1e-4)
    for start, stop in spans:
        audio[start:stop] *= 1000
    return audio


def test_trims_to_the_sample():
    audio = spoken((8000, 16000))  # 50 and 100 frames of 160 samples: a padding of 800 is kept
    assert torch.equal(vad()(audio), audio[7200:16800])
    assert torch.equal(vad(padding_ms=0.0)(audio), audio[8000:16000])


def test_a_frame_that_is_partly_speech_is_kept():
    audio = spoken((8100, 15900))
    assert torch.equal(vad(padding_ms=0.0)(audio), audio[8000:16000])


def test_padding_ends_with_the_recording():
    audio = spoken((160, 31900))
    assert torch.equal(vad()(audio), audio)


def test_inner_pauses():
    audio = spoken((3200, 8000), (16000, 19200), (19840, 22400))
    assert torch.equal(vad()(audio), audio[2400:23200])
    want = torch.cat([audio[2400:8800], audio[15200:23200]])  # 640 samples of pause are less than two paddings
    assert torch.equal(vad(cut_pauses=True)(audio), want)


def test_dc_is_not_speech():
    audio = spoken((8000, 16000)) + 0.2
    assert len(vad()(audio)) == 9600


@pytest.mark.parametrize("audio", [torch.zeros(5000), torch.full((5000,), 0.4), noise(5000, 1e-4)])
def test_silence_is_kept_whole(audio):
    assert torch.equal(vad()(audio), audio)
    assert torch.equal(vad(cut_pauses=True)(audio), audio)


def test_what_is_not_a_number_is_left_for_others_to_refuse():
    audio = torch.full((1000,), math.nan)
    assert len(vad()(audio)) == 1000


# Loudness


def test_k_weighting_of_the_standard():
    """ITU-R BS.1770-4, tables 1 and 2, at 48 kHz."""
    shelf, high_pass = k_weighting(48000)
    want = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585]
    np.testing.assert_allclose(shelf, want, atol=1e-9)
    np.testing.assert_allclose(high_pass, [1, -2, 1, 1, -1.99004745483398, 0.99007225036621], atol=1e-9)


@pytest.mark.parametrize(("rate", "tolerance"), [(48000, 0.01), (44100, 0.01), (16000, 0.06), (8000, 0.06)])
def test_full_scale_sine_of_997_hz(rate, tolerance):
    """ITU-R BS.1770-4: -3.01 LKFS."""
    assert loudness(sine(997, 3, 1.0, rate).numpy(), rate) == pytest.approx(-3.01, abs=tolerance)


def test_quiet_parts_are_gated():
    """As case 3 of EBU Tech 3341, in one channel (3.01 LU less): -36, -23 and -36 dBFS give the loudness of -23."""
    rate = 8000
    parts = [sine(1000, s, 10 ** (level / 20), rate) for s, level in ((10, -36), (60, -23), (10, -36))]
    assert loudness(torch.cat(parts).numpy(), rate) == pytest.approx(-23 - 3.01, abs=0.1)


def test_silence_around_does_not_count():
    rate = 48000
    tone = sine(997, 20, 0.1, rate)
    around = torch.nn.functional.pad(tone, (10 * rate, 10 * rate))
    assert loudness(around.numpy(), rate) == pytest.approx(-23.01, abs=0.1)


def test_agrees_with_torchaudio_where_that_is_right():
    audio = noise(5 * RATE, 0.02) * (1 + torch.sin(torch.arange(5 * RATE) / 3000))
    want = torchaudio.functional.loudness(audio[None], RATE).item()
    assert loudness(audio.numpy(), RATE) == pytest.approx(want, abs=0.25)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 3])
def test_reaches_its_target(seconds):
    audio = signal.lfilter([1], [1, -0.9], noise(round(seconds * RATE), 0.01).numpy())
    out = Loudness(RATE, target_lufs=-23.0, peak_dbfs=-1.0)(torch.from_numpy(audio).float())
    assert loudness(out.numpy(), RATE) == pytest.approx(-23, abs=0.05)


def test_never_clips():
    audio = noise(RATE, 0.01)
    audio[5000] = 0.9
    out = Loudness(RATE, target_lufs=-10.0, peak_dbfs=-6.0)(audio)
    assert out.abs().max().item() == pytest.approx(10 ** (-6 / 20), rel=1e-6)
    torch.testing.assert_close(out / out[5000], audio / audio[5000])  # a gain, no distortion
    assert loudness(out.numpy(), RATE) < -10


@pytest.mark.parametrize("audio", [torch.zeros(RATE), noise(RATE, 1e-5)])
def test_below_the_gate_nothing_is_changed(made, audio):
    assert torch.equal(made["loudness", RATE](audio), audio)


# Chains


def test_chain_keeps_its_order():
    class Add(NoPreprocess):
        def __call__(self, audio):
            return audio + 1

    class Double(NoPreprocess):
        def __call__(self, audio):
            return audio * 2

    assert Chain(["a", "b"], a=Add(), b=Double())(torch.ones(2)).tolist() == [4, 4]
    assert Chain(["b", "a"], a=Add(), b=Double())(torch.ones(2)).tolist() == [3, 3]
    assert Chain(["a"], a=Add(), v=vad()).keeps_length
    assert not Chain(["a", "v"], a=Add(), v=vad()).keeps_length
    with pytest.raises(ValueError, match="list of one or more"):
        Chain([], a=Add())
    with pytest.raises(ValueError, match="'ad' is not defined; did you mean 'add'"):
        Chain(["ad"], add=Add())


def test_steps_of_a_chain_are_reached_by_name():
    chain = built("highpass_loudness", "preprocess.highpass.cutoff_hz=500", "preprocess.loudness.target_lufs=-30")
    audio = sine(60, 2, 0.5) + sine(2000, 2, 0.01)
    out = chain(audio)
    assert loudness(out.numpy(), RATE) == pytest.approx(-30, abs=0.05)
    assert abs(db(out, sine(2000, 2, 0.01)) - db(HighPass(RATE, 500.0, 4, True)(out), sine(2000, 2, 0.01))) < 0.05
