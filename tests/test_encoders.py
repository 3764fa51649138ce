"""Properties of every encoder in conf/encoder, found in the folder."""

import pytest
import torch

from asr_lab.build import call
from asr_lab.encoders.conformer import RelativePositions, relative_shift
from asr_lab.sweep.cell import resolved

from .conftest import choices, composed, tiny

ENCODERS = choices("encoder")
WIDTH = 24


@pytest.fixture
def make_encoder(tones):
    def go(name: str, seed: int = 0):
        config = resolved(composed(*tiny(tones, f"encoder={name}")))
        torch.manual_seed(seed)
        return call(config, "encoder", in_dim=WIDTH).eval()

    return go


def batch(lens: list[int], seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    feats = torch.zeros(len(lens), max(lens), WIDTH)
    for row, n in zip(feats, lens, strict=True):
        row[:n] = torch.randn(n, WIDTH, generator=generator)
    return feats, torch.tensor(lens)


@pytest.mark.parametrize("name", ENCODERS)
class TestEveryEncoder:
    def test_shapes_and_lengths(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([41, 17, 30, 1, 2, 5])
        hidden, out_lens = encoder(feats, lens)
        assert hidden.shape == (6, int(out_lens.max()), encoder.out_dim)
        assert torch.equal(out_lens, encoder.output_lengths(lens))
        assert (out_lens >= 1).all()

    def test_padding_changes_nothing(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([40, 23, 9])
        clean, out_lens = encoder(feats, lens)
        dirty = torch.nn.functional.pad(feats, (0, 0, 0, 13), value=float("nan"))
        for row, n in zip(dirty, lens.tolist(), strict=True):
            row[n:] = 1e4  # garbage, large on purpose
        other, other_lens = encoder(dirty, lens)
        assert torch.equal(out_lens, other_lens)
        for row, want, n in zip(other, clean, out_lens.tolist(), strict=True):
            torch.testing.assert_close(row[:n], want[:n], rtol=1e-4, atol=1e-5)
            assert (row[n:] == 0).all()

    def test_an_utterance_alone_equals_itself_in_a_batch(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([40, 23, 9])
        together, out_lens = encoder(feats, lens)
        for i, n in enumerate(lens.tolist()):
            alone, _ = encoder(feats[i : i + 1, :n], lens[i : i + 1])
            torch.testing.assert_close(alone[0], together[i, : out_lens[i]], rtol=1e-4, atol=1e-5)

    def test_order_of_the_batch_does_not_matter(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([40, 23, 9])
        order = torch.tensor([2, 0, 1])
        torch.testing.assert_close(encoder(feats[order], lens[order])[0], encoder(feats, lens)[0][order])

    def test_gradient_reaches_every_parameter(self, name, make_encoder):
        encoder = make_encoder(name).train()
        feats, lens = batch([40, 23])
        hidden, _ = encoder(feats, lens)
        weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
        (hidden * weights).sum().backward()
        dead = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert dead == []

    def test_every_valid_frame_is_heard(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([32, 20])
        feats.requires_grad_()
        hidden, out_lens = encoder(feats, lens)
        sum(h[:n].sum() for h, n in zip(hidden, out_lens.tolist(), strict=True)).backward()
        heard = feats.grad.abs().sum(dim=-1) > 0
        assert heard[0, :32].all()
        assert heard[1, :20].all()
        assert not heard[1, 20:].any()

    def test_same_seed_same_weights(self, name, make_encoder):
        a, b, c = make_encoder(name, 5), make_encoder(name, 5), make_encoder(name, 6)
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
        assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))

    def test_bf16_autocast_is_finite(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([40, 23])
        with torch.autocast("cpu", torch.bfloat16):
            hidden, _ = encoder(feats * 10, lens)
        assert torch.isfinite(hidden).all()


def test_relative_shift_picks_the_distance():
    n = 4
    by_distance = torch.arange(n - 1, -n, -1.0).expand(1, 1, n, 2 * n - 1)  # the value is the distance itself
    got = relative_shift(by_distance)[0, 0]
    want = torch.arange(n)[:, None] - torch.arange(n)
    assert torch.equal(got, want.float())


def test_relative_positions_grow_and_agree():
    positions = RelativePositions(8)
    short = positions(3, torch.zeros(1))
    long = positions(7, torch.zeros(1))
    assert short.shape == (5, 8)
    assert torch.equal(long[4:9], short)
    assert torch.equal(positions(3, torch.zeros(1)), short)
    torch.testing.assert_close(short[2], torch.tensor([0.0, 1.0] * 4))  # distance 0


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["encoder=conformer", "encoder.n_heads=5"], "n_heads=5 does not divide d_model=32"),
        (["encoder=conformer", "encoder.kernel_size=4"], "kernel_size must be odd"),
        (["encoder=bilstm", "encoder.stacking=0"], "stacking factor"),
        (["encoder=bilstm", "encoder.n_layers=0"], "must be positive"),
    ],
)
def test_sizes_that_cannot_be(overrides, says, tones):
    from asr_lab.errors import ConfigError

    config = resolved(composed(*tiny(tones, *overrides)))
    with pytest.raises(ConfigError, match=f"conf/encoder: .*{says}"):
        call(config, "encoder", in_dim=WIDTH)
