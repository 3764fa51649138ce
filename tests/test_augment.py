"""Augmentation: what each choice promises is measured, and nothing but the given generator decides."""

import functools
import json
import os

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from asr_lab.augment.chain import Chain
from asr_lab.augment.chance import OneOf, Sometimes
from asr_lab.augment.colours import COLOURS
from asr_lab.augment.folder import AudioFolder
from asr_lab.augment.level import power
from asr_lab.augment.noise import Noise
from asr_lab.augment.none import NoAugment
from asr_lab.augment.reverb import Reverb, reverberated, synthetic_room
from asr_lab.augment.specaugment import AdaptiveSpecAugment, SpecAugment
from asr_lab.augment.speed import SpeedPerturbation
from asr_lab.augment.telephone import Telephone, through_mu_law
from asr_lab.augment.time_warp import TimeWarp, warped
from asr_lab.augment.volume import Volume
from asr_lab.build import build_data, check, make
from asr_lab.errors import ConfigError, DataError
from asr_lab.run import fingerprint
from asr_lab.sweep.cell import resolved

from .conftest import RATE, choices, composed, only_line, tiny, write_tones

FS = 16000


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def tone(seconds: float = 1.0, hz: float = 440.0, rate: int = FS) -> Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * rate)) / rate)


def speech(seconds: float = 1.0, seed: int = 1) -> Tensor:
    """Something broad-banded with pauses."""
    n = round(seconds * FS)
    return 0.1 * torch.randn(n, generator=seeded(seed)) * (torch.arange(n) // 1600 % 3 < 2)


def volume(low=-12.0, high=6.0) -> Volume:
    return Volume(low, high)


def noise(sources=("white",), low=5.0, high=25.0) -> Noise:
    return Noise(list(sources), low, high, FS)


def reverb(sources=("synthetic",), rt60=(0.2, 0.8), drr=(0.0, 12.0)) -> Reverb:
    return Reverb(list(sources), *rt60, *drr, FS)


ON_AUDIO = {
    "volume": volume(),
    "noise": noise(COLOURS),
    "reverb": reverb(),
    "telephone": Telephone(300.0, 3400.0, 4, FS),
    "mixture": Chain(
        ["speed", "room", "noise", "volume"],
        speed=SpeedPerturbation([0.9, 1.0]),
        room=Sometimes(0.5, reverb()),
        noise=OneOf({"loud": 1, "soft": 2}, loud=noise(low=0.0, high=5.0), soft=noise(["babble"])),
        volume=volume(),
    ),
}
ON_FEATURES = {
    "fixed": SpecAugment(2, 27, 2, 40, 0.2),
    "adaptive": AdaptiveSpecAugment(2, 27, 0.04, 20, 0.04),
    "warp": TimeWarp(80, 0.1),
    "greedy": SpecAugment(3, 200, 5, 500, 1.0),
    "adaptive_greedy": AdaptiveSpecAugment(1, 80, 1.0, 1000, 1.0),
}


def config_of(manifest, *overrides):
    return resolved(composed(*tiny(manifest, *overrides)))


def data_of(config):
    return build_data(config, make(config, "frontend"))


@functools.cache
def composed_once(choice: str) -> str:
    return json.dumps(resolved(composed(f"augment={choice}", "data=an4"))["augment"])


def built(choice: str, **values):
    """The augmentation of a choice with other values, checked and made as a run does it."""
    config = {"augment": json.loads(composed_once(choice)) | values}
    check(config)
    return make(config, "augment")


# Every choice, in training


@pytest.mark.parametrize("choice", choices("augment"))
@pytest.mark.quick(3)
def test_seed_epoch_and_utterance_decide_and_not_the_workers(choice, tones):
    data = data_of(config_of(tones, f"augment={choice}"))

    def features(seed=1, epoch=0, n_workers=0) -> dict[str, Tensor]:
        torch.rand(1)  # must not matter
        data.datasets["train"].seed, data.n_workers = seed, n_workers
        loader = data.loader("train")
        loader.sampler.set_epoch(epoch)
        return {i: f[:n] for b in loader for i, f, n in zip(b.ids, b.feats, b.feat_lens.tolist(), strict=True)}

    def same(a, b) -> bool:
        return a.keys() == b.keys() and all(a[i].shape == b[i].shape and torch.equal(a[i], b[i]) for i in a)

    base = features()
    assert len(base) == 24 and all(f.isfinite().all() for f in base.values())
    assert same(base, features(n_workers=2))
    varies = choice not in ("none", "telephone")
    assert same(base, features(epoch=1)) != varies
    assert same(base, features(seed=2)) != varies


@pytest.mark.parametrize("name", [*ON_AUDIO, *ON_FEATURES])
def test_threads_change_no_bit(name):
    """Loading processes have one thread, the training process may have more."""
    if name in ON_AUDIO:
        step, given = ON_AUDIO[name].audio, speech(10.01)
    else:
        step, given = ON_FEATURES[name].features, torch.randn(2001, 80, generator=seeded())
    one = [step(given, seeded(i)) for i in range(4)]
    try:
        torch.set_num_threads(2)
        two = [step(given, seeded(i)) for i in range(4)]
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("choice", choices("augment"))
def test_choice_says_which_side_it_works_on(choice):
    augment = built(choice)
    audio, feats = speech(2.0), torch.randn(200, 80, generator=seeded())
    audios = [augment.audio(audio, seeded(i)) for i in range(8)]
    masked = [augment.features(feats, seeded(i)) for i in range(8)]
    assert augment.on_audio == any(not torch.equal(a, audio) for a in audios)
    assert augment.on_features == any(not torch.equal(f, feats) for f in masked)
    bands = any((f != feats).all(dim=0).any() for f in masked)
    assert augment.masks_bands == (bands and choice != "time_warp")


# Audio


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(ON_AUDIO)), st.integers(0, 5000), st.integers(0, 2**40), st.sampled_from([1e-6, 0.1, 1.5])
)
def test_audio_keeps_its_length_stays_finite_and_the_given_one_is_untouched(name, n_samples, seed, level):
    audio = level * torch.randn(n_samples, generator=seeded(3))
    kept = audio.clone()
    got = ON_AUDIO[name].audio(audio, seeded(seed))
    assert got.shape == audio.shape and got.dtype == audio.dtype
    assert got.isfinite().all()
    assert torch.equal(audio, kept)
    assert torch.equal(got, ON_AUDIO[name].audio(audio, seeded(seed)))


@pytest.mark.parametrize("name", sorted(ON_AUDIO))
@pytest.mark.parametrize("n_samples", [0, 1, 4000])
def test_silence_stays_silence(name, n_samples):
    for seed in range(5):
        got = ON_AUDIO[name].audio(torch.zeros(n_samples), seeded(seed))
        assert torch.equal(got, torch.zeros(n_samples))


def test_volume_is_uniform_in_decibels_and_never_clips():
    soft = tone() / 30
    gains = [20 * np.log10((power(volume().audio(soft, seeded(i))) / power(soft)) ** 0.5) for i in range(400)]
    assert -12 <= min(gains) < -11.5 and 5.5 < max(gains) <= 6
    assert np.mean(gains) == pytest.approx(-3, abs=0.6)
    for loud in (tone() * 3, tone() * 10):
        assert max(volume(6.0, 12.0).audio(loud, seeded(i)).abs().max().item() for i in range(20)) <= 1 + 1e-6


@pytest.mark.parametrize("source", [*COLOURS, "folder"])
@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0, 30.0])
def test_noise_has_the_signal_to_noise_ratio_that_was_asked_for(source, snr, tmp_path):
    if source == "folder":
        source = str(tmp_path)
        soundfile.write(tmp_path / "n.flac", 0.2 * np.random.default_rng(0).standard_normal(44100), 44100)
    audio = speech(2.0)
    got = noise([source], snr, snr).audio(audio, seeded(4))
    measured = 10 * np.log10(power(audio) / power(got - audio))
    assert measured == pytest.approx(snr, abs=0.1)


def test_noise_ratios_are_uniform_in_their_range():
    audio = speech(0.2)
    snrs = [10 * np.log10(power(audio) / power(noise().audio(audio, seeded(i)) - audio)) for i in range(400)]
    assert 4.99 <= min(snrs) < 6 and 24 < max(snrs) <= 25.01
    assert np.mean(snrs) == pytest.approx(15, abs=1)
    assert np.std(snrs) == pytest.approx(20 / 12**0.5, abs=0.6)


def octaves(samples: Tensor, edges: list[float]) -> list[float]:
    """Mean power density in dB of each octave that starts at an edge."""
    density = torch.fft.rfft(samples.double()).abs().square()
    hz = torch.fft.rfftfreq(len(samples), 1 / FS)
    return [10 * density[(hz >= e) & (hz < 2 * e)].mean().log10().item() for e in edges]


@pytest.mark.parametrize(
    ("colour", "edges", "slope"),
    [
        ("white", [62.5, 125, 250, 500, 1000, 2000, 4000], 0),
        ("pink", [62.5, 125, 250, 500, 1000, 2000, 4000], -3.01),
        ("brown", [62.5, 125, 250, 500, 1000, 2000, 4000], -6.02),
        ("babble", [1000, 2000, 4000], -6.02),
        ("babble", [62.5, 125, 250], 0),
        ("babble", [250, 1000], -9.03),  # 10 log10(500^2 / (1000 * 2000))
    ],
)
def test_colours_fall_by_their_decibels_an_octave(colour, edges, slope):
    levels = np.mean([octaves(COLOURS[colour](8 * FS, FS, seeded(i)), edges) for i in range(4)], axis=0)
    assert np.diff(levels) == pytest.approx([slope] * (len(edges) - 1), abs=0.5)


def test_babble_rises_and_falls_with_syllables_and_noise_does_not():
    def modulation(name):
        level = COLOURS[name](20 * FS, FS, seeded()).view(-1, FS // 20).square().mean(dim=1).sqrt()
        return (level.std() / level.mean()).item()

    assert modulation("babble") > 2 * modulation("white")


# Folders


@pytest.fixture
def recordings(tmp_path):
    """Files of a tone of their own each: 1000 Hz, 2000 Hz, 3000 Hz, in other formats, rates and folders."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, hz, rate in (("a.flac", 1000, 44100), ("deep/b.wav", 2000, 8000), ("deep/er/c.OGG", 3000, 48000)):
        samples = 0.3 * np.sin(2 * np.pi * hz * np.arange(rate) / rate)
        soundfile.write(tmp_path / name, np.stack([samples, 0 * samples], axis=1), rate)  # the second channel is silent
    (tmp_path / "readme.txt").write_text("not audio")
    (tmp_path / "._a.wav").write_bytes(b"what a file manager leaves")
    return tmp_path


def pitch(samples: Tensor) -> float:
    return torch.fft.rfft(samples).abs().argmax().item() * FS / len(samples)


def test_folder_lists_what_is_audio_in_the_same_order_everywhere(recordings, monkeypatch):
    files = AudioFolder(str(recordings), FS).files
    assert [f.name for f in files] == ["a.flac", "b.wav", "c.OGG"]
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: reversed(list(walk(top))))
    assert AudioFolder(str(recordings), FS).files == files


@pytest.mark.parametrize("n_samples", [FS // 2, FS, 5 * FS // 2])  # shorter than the file, as long, longer: round
def test_folder_gives_segments_of_every_file_at_the_wanted_rate(recordings, n_samples):
    folder = AudioFolder(str(recordings), FS)
    got = [folder.segment(n_samples, seeded(i)) for i in range(20)]
    assert all(len(s) == n_samples for s in got)
    assert {round(pitch(s), -2) for s in got} == {1000, 2000, 3000}
    assert all(power(s) == pytest.approx(0.045, rel=0.05) for s in got)


def test_segments_start_anywhere(tmp_path):
    soundfile.write(tmp_path / "ramp.wav", np.arange(1000) / 1000, FS, subtype="FLOAT")
    folder = AudioFolder(str(tmp_path), FS)
    starts = {round(folder.segment(990, seeded(i))[0].item() * 1000) for i in range(300)}
    assert starts == set(range(11))
    round_about = folder.segment(2500, seeded(1))
    steps = (round_about.diff() * 1000).round().int().tolist()
    assert sorted(set(steps)) == [-999, 1] and steps.count(-999) in (2, 3)


def silent_file(path):
    soundfile.write(path, np.zeros(100), FS)


def truncated_flac(path):
    soundfile.write(path, np.random.default_rng(0).standard_normal(FS) / 9, FS, format="FLAC")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "text": lambda path: path.write_text("no audio at all"),
    "empty": lambda path: path.write_bytes(b""),
    "no samples": lambda path: soundfile.write(path, np.zeros(0), FS),
    "truncated": truncated_flac,
    "not finite": lambda path: soundfile.write(path, np.array([0.1, np.nan, 0.2]), FS, subtype="FLOAT"),
    "gone": lambda path: path.unlink(missing_ok=True),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_recording_is_named(kind, tmp_path):
    path = tmp_path / "broken.wav"
    silent_file(path)
    augments = (noise([str(tmp_path)]), reverb([str(tmp_path)]))
    path.unlink()
    BROKEN[kind](path)
    for augment in augments:
        with pytest.raises(DataError) as caught:
            augment.audio(tone(2.0), seeded())
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_silent_recordings(tmp_path):
    silent_file(tmp_path / "silent.wav")
    audio = tone()
    assert torch.equal(noise([str(tmp_path)]).audio(audio, seeded()), audio)
    with pytest.raises(DataError, match=r"silent\.wav is silent, and no impulse response"):
        reverb([str(tmp_path)]).audio(audio, seeded())


# Rooms


def rt60_of(response: Tensor) -> float:
    """Seconds, from the line through Schroeder's integral between -5 and -35 dB (ISO 3382, T30)."""
    left = response.double().square().flip(0).cumsum(0).flip(0)
    level = 10 * torch.log10(left / left[0])
    part = torch.nonzero((level <= -5) & (level >= -35))[:, 0].numpy()
    slope = np.polyfit(part / FS, level.numpy()[part], 1)[0]
    return -60 / slope


@pytest.mark.parametrize("rt60", [0.2, 0.4, 0.8, 1.5])
@pytest.mark.parametrize("drr", [-3.0, 6.0])
def test_synthetic_room_has_its_reverberation_time_and_direct_energy(rt60, drr):
    for seed in range(6):
        response = synthetic_room(rt60, drr, FS, seeded(seed))
        assert rt60_of(response[1:]) == pytest.approx(rt60, rel=0.1)
        assert 10 * torch.log10(1 / response[1:].square().sum()).item() == pytest.approx(drr, abs=0.01)


def test_reverb_of_a_click_is_a_room_within_its_ranges():
    click = torch.zeros(2 * FS)
    click[100] = 0.5
    times, ratios = [], []
    for seed in range(30):
        got = reverb(rt60=(0.3, 0.6), drr=(-2.0, 8.0)).audio(click, seeded(seed))
        assert got[:100].abs().max() < 1e-6  # nothing before the direct path, which stays where it was
        assert got.abs().argmax() == 100
        assert power(got) == pytest.approx(power(click), rel=1e-4)
        times.append(rt60_of(got[101 : 100 + int(0.6 * FS)]))
        ratios.append(10 * torch.log10(got[100] ** 2 / got[101:].square().sum()).item())
    assert 0.27 <= min(times) < 0.36 and 0.54 < max(times) <= 0.66
    assert -2.1 <= min(ratios) < 0 and 6 < max(ratios) <= 8.1


def test_reverb_is_a_convolution():
    audio, response = speech(0.1), torch.randn(300, generator=seeded(2)) * 0.1
    response[0] = 1
    expected = np.convolve(audio.double().numpy(), response.double().numpy())[: len(audio)]
    expected *= np.sqrt(audio.double().square().sum().item() / (expected**2).sum())
    torch.testing.assert_close(reverberated(audio, response), torch.from_numpy(expected).float(), atol=1e-5, rtol=0)


def test_recorded_room_is_aligned_to_its_direct_path(tmp_path):
    response = np.zeros(4000)
    response[[50, 700, 900]] = [0.05, -0.9, 0.3]  # a glimpse, the direct path, an echo 200 samples later
    soundfile.write(tmp_path / "room.wav", response, FS, subtype="FLOAT")
    click = torch.zeros(2000)
    click[1000] = 1
    got = reverb([str(tmp_path)]).audio(click, seeded())
    assert torch.nonzero(got.abs() > 1e-4)[:, 0].tolist() == [1000, 1200]
    assert (got[1200] / got[1000]).item() == pytest.approx(-1 / 3, abs=1e-4)


# Telephone


@pytest.mark.parametrize(("hz", "low", "high"), [(100, -120, -30), (1000, -1, 1), (2500, -1, 1), (6000, -120, -30)])
def test_telephone_passes_its_band_only(hz, low, high):
    got = Telephone(300.0, 3400.0, 4, FS).audio(tone(1.0, hz), seeded())[FS // 2 :]
    density = torch.fft.rfft(got).abs().square()
    at = round(hz / 2)
    level = density[at - 3 : at + 4].sum() * 2 / len(got) ** 2 / power(tone(1.0, hz))
    assert low < 10 * level.log10().item() < high


def test_mu_law_has_255_levels_and_38_decibels():
    audio = torch.linspace(-1, 1, 20001)
    got = through_mu_law(audio)
    assert len(got.unique()) == 255
    assert got[10000] == 0 and got[0] == -1 and got[-1] == 1
    sine = tone()
    assert 10 * np.log10(power(sine) / power(through_mu_law(sine) - sine)) > 36


# Features


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(ON_FEATURES)), st.integers(0, 700), st.integers(1, 90), st.integers(0, 2**40))
def test_features_keep_their_shape_and_a_band_and_a_frame_are_never_masked(name, n_frames, n_features, seed):
    feats = torch.randn(n_frames, n_features, generator=seeded(5))
    kept = feats.clone()
    got = ON_FEATURES[name].features(feats, seeded(seed))
    assert got.shape == feats.shape and got.isfinite().all()
    assert torch.equal(feats, kept)
    assert torch.equal(got, ON_FEATURES[name].features(feats, seeded(seed)))
    if name != "warp" and n_frames:
        changed = got != feats
        frames, bands = changed.all(dim=1), changed.all(dim=0)
        assert not frames.all() or n_features == 0
        assert not bands.all()
        assert (~frames[:, None] & ~bands).any()
        assert torch.equal(got[~frames][:, ~bands], feats[~frames][:, ~bands])


def masks(changed: Tensor) -> Tensor:
    """How many frames, how many bands."""
    return torch.stack([changed.all(dim=1).sum(), changed.all(dim=0).sum()])


def test_masks_are_as_many_and_as_wide_as_they_may_be():
    feats = torch.randn(1000, 80, generator=seeded())
    for augment, frames, bands in (
        (SpecAugment(1, 5, 2, 50, 0.02), 40, 5),
        (SpecAugment(1, 5, 2, 7, 1.0), 14, 5),
        (AdaptiveSpecAugment(0, 5, 0.002, 10, 0.01), 20, 0),
        (AdaptiveSpecAugment(2, 3, 0.1, 3, 0.01), 30, 6),
    ):
        got = torch.stack([masks(augment.features(feats, seeded(i)) != feats) for i in range(300)])
        widest = got.amax(dim=0).tolist()
        assert widest[0] <= frames and widest[1] <= bands
        assert widest[0] > 0.7 * frames and widest[1] > 0.7 * bands - 1
        assert (got == 0).all(dim=1).sum() < 50


@pytest.mark.parametrize(("n_frames", "n", "widest"), [(20, 0, 0), (25, 1, 1), (400, 16, 16), (1000, 20, 40)])
def test_adaptive_masks_follow_the_length(n_frames, n, widest):
    augment = AdaptiveSpecAugment(0, 0, 0.04, 20, 0.04)
    assert augment.time_masks(n_frames) == (n, widest)
    feats = torch.randn(n_frames, 4, generator=seeded())
    masked = [(augment.features(feats, seeded(i)) != feats).all(dim=1).float().mean() for i in range(100)]
    # n masks, each of widest/2 frames on average; the more there are, the more of them overlap
    expected = 1 - (1 - widest / 2 / n_frames) ** n
    assert torch.stack(masked).mean().item() == pytest.approx(expected, abs=0.025)


def test_mask_positions_are_uniform():
    augment = SpecAugment(0, 0, 1, 1, 1.0)
    feats = torch.randn(10, 3, generator=seeded())
    hits = sum((augment.features(feats, seeded(i)) != feats).all(dim=1).int() for i in range(4000))
    assert isinstance(hits, Tensor) and hits.sum().item() == pytest.approx(2000, abs=130)
    assert hits.float().tolist() == pytest.approx([200] * 10, abs=55)


def test_masked_cells_have_the_mean():
    feats = torch.randn(100, 20, generator=seeded()) + 3
    got = SpecAugment(1, 10, 1, 30, 1.0).features(feats, seeded(1))
    assert (got != feats).any()
    assert got[got != feats].tolist() == pytest.approx([feats.mean().item()] * int((got != feats).sum()), abs=1e-5)


def test_nothing_masked_is_the_very_same_tensor():
    feats = torch.randn(10, 8)
    assert SpecAugment(0, 27, 2, 0, 0.2).features(feats, seeded()) is feats
    assert TimeWarp(0, 0.5).features(feats, seeded()) is feats


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 300), st.data())
def test_warp_moves_a_frame_and_keeps_the_ends(n_frames, data):
    source, goal = (data.draw(st.integers(1, n_frames - 2)) for _ in range(2))
    ramp = torch.arange(n_frames, dtype=torch.float32)[:, None] * torch.tensor([1.0, -2.0])
    got = warped(ramp, source, goal)
    assert got[[0, goal, n_frames - 1], 0].tolist() == pytest.approx([0, source, n_frames - 1], abs=1e-3)
    torch.testing.assert_close(got[:, 1], -2 * got[:, 0])  # all features alike
    steps = got[:, 0].diff()
    assert (steps > 0).all()
    assert steps[:goal].std(correction=0) < 1e-3 and steps[goal:].std(correction=0) < 1e-3  # two straight lines


def test_warp_shifts_uniformly_up_to_its_bound():
    ramp = torch.arange(101, dtype=torch.float32)[:, None]

    def furthest(augment, seed):  # the moved frame is the one that is furthest from its place
        return (ramp - augment.features(ramp, seeded(seed))).flatten().abs().max().item()

    for augment, bound in ((TimeWarp(80, 0.1), 10), (TimeWarp(5, 1.0), 5), (TimeWarp(200, 1.0), 49)):
        shifts = [round(furthest(augment, i), 3) for i in range(300)]
        assert max(shifts) == bound
        assert min(shifts) == 0


# Mixing


class Counted(NoAugment):
    """x -> factor x + number"""

    on_audio = True

    def __init__(self, number: float, factor: float = 1.0):
        self.number, self.factor = number, factor

    def audio(self, audio, generator):
        return audio * self.factor + self.number


def test_sometimes_happens_with_its_probability():
    for p, low, high in ((0.0, 0, 0), (0.3, 250, 350), (1.0, 1000, 1000)):
        step = Sometimes(p, Counted(1))
        assert low <= sum(step.audio(torch.zeros(1), seeded(i)).item() for i in range(1000)) <= high


def test_one_of_follows_its_weights_whatever_the_order_of_keys():
    weights = {"a": 1.0, "b": 2.0, "c": 0.0, "d": 1.0}
    named = {name: Counted(10.0**i) for i, name in enumerate(weights)}
    one = OneOf(weights, **named)
    other = OneOf(dict(reversed(weights.items())), **dict(reversed(named.items())))
    got = [one.audio(torch.zeros(1), seeded(i)).item() for i in range(2000)]
    assert got == [other.audio(torch.zeros(1), seeded(i)).item() for i in range(2000)]
    assert [got.count(10.0**i) / 2000 for i in range(4)] == pytest.approx([0.25, 0.5, 0, 0.25], abs=0.04)
    assert got.count(100.0) == 0


def test_chain_does_what_is_listed_in_that_order():
    named = {"add": Counted(1), "double": Counted(0, 2), "mask": SpecAugment(1, 2, 0, 0, 0)}
    for steps, result in ((["add", "double"], 2), (["double", "add"], 1), (["double", "add", "double", "add"], 3)):
        assert Chain(steps, **named).audio(torch.zeros(1), seeded()).item() == result
    audio_only = Chain(["add"], **named)
    assert audio_only.on_audio and not audio_only.on_features and not audio_only.masks_bands
    both = Chain(["mask", "add"], **named)
    assert both.on_audio and both.on_features and both.masks_bands
    named["speed"] = SpeedPerturbation([0.9, 1.1])
    assert Chain(["speed", "add"], **named).speeds == (0.9, 1.1)
    assert Chain(["add"], **named).speeds == (1.0,)


def test_order_of_steps_is_part_of_a_runs_identity():
    def identity(steps):
        return fingerprint(resolved(composed("augment=mixed", f"augment.steps=[{steps}]", "data=an4")))

    assert identity("noise,volume") != identity("volume,noise")
    assert identity("noise,volume") == identity("noise, volume")


# What cannot be


PART = "asr_lab.augment."
SPEED = {"_target_": PART + "speed.SpeedPerturbation", "factors": [0.9, 1.1]}
QUIET = {"_target_": PART + "none.NoAugment"}
LOUD = {"_target_": PART + "volume.Volume", "min_gain_db": 0.0, "max_gain_db": 3.0}
WARP = {"_target_": PART + "time_warp.TimeWarp", "max_shift": 5, "max_share": 0.1}


def sometimes(probability, step) -> dict:
    return {"noise": {"_target_": PART + "chance.Sometimes", "probability": probability, "step": step}}


def one_of(weights, **named) -> dict:
    return {"noise": {"_target_": PART + "chance.OneOf", "weights": weights, **named}}


NOWHERE = "/no/such/folder"


@pytest.mark.parametrize(
    ("choice", "values", "says"),
    [
        ("noise", {"sources": [NOWHERE]}, f"sources: {NOWHERE} is neither one of white, .* nor a folder"),
        ("noise", {"sources": ["pnik"]}, "sources: pnik is neither one of white"),
        ("noise", {"sources": []}, r"sources is a list of white, .*\[\] came"),
        ("noise", {"sources": "white"}, "sources is a list of white, .*'white' came"),
        ("noise", {"sources": [None]}, "sources is a list"),
        ("noise", {"min_snr_db": 30.0}, r"min_snr_db and max_snr_db are a range \(min <= max\), 30.0 and 25.0 came"),
        ("noise", {"min_snr_db": float("nan")}, "are a range"),
        ("noise", {"max_snr_db": "loud"}, "Noise wants max_snr_db as float"),
        ("reverb", {"sources": [NOWHERE]}, f"sources: {NOWHERE} is neither one of synthetic nor a folder"),
        ("reverb", {"min_rt60_s": 0.0}, r"min_rt60_s and max_rt60_s are a range \(from 0.01 on\), 0.0 and 0.8 came"),
        ("reverb", {"max_drr_db": -9.0}, "min_drr_db and max_drr_db are a range"),
        ("volume", {"max_gain_db": -20.0}, "min_gain_db and max_gain_db are a range"),
        ("telephone", {"high_hz": 8000.0}, r"0 < low_hz < high_hz < 8000 \(half the sampling rate\)"),
        ("specaugment", {"max_time": -1}, "max_time must not be negative"),
        ("specaugment_adaptive", {"time_masks_per_frame": 1.5}, "time_masks_per_frame and max_time_share are in"),
        ("time_warp", {"max_share": 2.0}, r"max_share is in \[0, 1\]"),
        ("speed", {"factors": []}, "factors are different numbers"),
        ("speed", {"factors": 1.1}, "factors are different numbers"),
        ("mixed", {"steps": []}, "steps is a list of one or more"),
        ("mixed", {"steps": "noise"}, "steps is a list of one or more"),
        ("mixed", {"steps": ["nose"]}, "steps: 'nose' is not defined; did you mean 'noise'"),
        ("mixed", {"steps": ["speed", "speed"]}, "only one step of a chain may change the speed"),
        ("mixed", {"noise": {"probability": 1.0}}, "noise: .* is no augmentation; its _target_ is missing"),
        ("mixed", sometimes(1.5, QUIET), r"probability is a number in \[0, 1\], 1.5 came"),
        ("mixed", sometimes("often", QUIET), "Sometimes wants probability as float"),
        ("mixed", sometimes(0.5, SPEED), "speed cannot be left to a further chance"),
        ("mixed", one_of({"a": 1}, a=SPEED), "speed cannot be left to a further chance"),
        ("mixed", one_of({"a": 1, "b": 1}, a=WARP, b=LOUD), "steps on audio and steps on features are drawn for apart"),
        ("mixed", one_of({"b": 1}, a=QUIET), r"weights has a number for each of \['a'\]"),
        ("mixed", one_of(1, a=QUIET), r"weights has a number for each of \['a'\]"),
        ("mixed", one_of({"a": 0}, a=QUIET), "weights are numbers from 0 on and not all 0"),
        ("mixed", one_of({"a": -1, "b": 3}, a=QUIET, b=QUIET), "weights are numbers from 0 on"),
    ],
)
def test_values_that_cannot_be(choice, values, says):
    with pytest.raises(ConfigError, match=says) as caught:
        built(choice, **values)
    assert str(caught.value).startswith("conf/augment") and "\n" not in str(caught.value)


def test_folder_without_audio(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for choice in ("noise", "reverb"):
        with pytest.raises(ConfigError, match=f"sources: {tmp_path} has no audio files"):
            built(choice, sources=[str(tmp_path)])


def test_command_says_it_in_one_line(tones, tmp_path, asr_lab):
    overrides = tiny(tones, "augment=mixed", "augment.noise.step.sources=[babble,musan]")
    done = asr_lab("train", *overrides, cwd=tmp_path)
    assert "musan is neither one of white, pink, brown, babble nor a folder" in only_line(done)


# Speed


def test_speed_changes_length_and_pitch_and_the_other_steps_still_happen(tmp_path):
    manifest = write_tones(tmp_path, (4, 2, 2))
    t = np.arange(RATE) / RATE
    soundfile.write(tmp_path / "train0.wav", 0.3 * np.sin(2 * np.pi * 500 * t), RATE)
    rows = manifest.read_text().splitlines()
    rows[0] = json.dumps(json.loads(rows[0]) | {"duration": 1.0, "text": "a"})
    manifest.write_text("\n".join(rows))
    data = data_of(config_of(manifest, "augment=mixed", "augment.speed.factors=[1.25]"))
    assert data.augment.speeds == (1.25,)
    fast = data.pipeline.audio(data.corpus.splits["train"][0], 1.25)
    assert len(fast) == pytest.approx(RATE / 1.25, abs=2)
    peak = torch.fft.rfft(fast).abs().argmax().item() * RATE / len(fast)
    assert peak == pytest.approx(625, abs=2)
    frames = data.pipeline.frontend.n_frames(len(fast))
    assert data.datasets["train"].features(0, epoch=0).shape[0] == frames
