"""Properties of every encoder in conf/encoder, found in the folder, and of what encoders are built from."""

import math

import pytest
import torch

from asr_lab.build import call
from asr_lab.errors import ConfigError
from asr_lab.sweep.cell import SIZES, resolved

from .conftest import choices, composed, tiny

ENCODERS = choices("encoder")
WIDTH = 24
CACHE: dict[tuple[str, ...], dict] = {}


def config_of(tones, *overrides: str) -> dict:
    if overrides not in CACHE:
        CACHE[overrides] = resolved(composed(*tiny(tones, *overrides)))
    return CACHE[overrides]


@pytest.fixture
def make_encoder(tones):
    def go(name: str, *overrides: str, seed: int = 0):
        torch.manual_seed(seed)
        return call(config_of(tones, f"encoder={name}", *overrides), "encoder", in_dim=WIDTH).eval()

    return go


def batch(lens: list[int], seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    feats = torch.zeros(len(lens), max(lens), WIDTH)
    for row, n in zip(feats, lens, strict=True):
        row[:n] = torch.randn(n, WIDTH, generator=generator)
    return feats, torch.tensor(lens)


def shortest(encoder) -> int:
    """Fewest feature frames that give one encoder frame: 1, unless the subsampling pads nothing."""
    return 1 + int((encoder.output_lengths(torch.arange(1, 64)) < 1).sum())


@pytest.mark.parametrize("name", ENCODERS)
class TestEveryEncoder:
    @pytest.mark.quick(8)
    def test_shapes_and_lengths(self, name, make_encoder):
        encoder = make_encoder(name)
        first = shortest(encoder)
        assert first == 1 or encoder.subsampling.padding == "valid"
        feats, lens = batch([41, 17, 30, first, first + 1, first + 4])
        hidden, out_lens = encoder(feats, lens)
        assert hidden.shape == (6, int(out_lens.max()), encoder.out_dim)
        assert torch.equal(out_lens, encoder.output_lengths(lens))
        assert (out_lens >= 1).all()

    @pytest.mark.quick(8)
    def test_no_frame_is_one_line(self, name, make_encoder):
        encoder = make_encoder(name)
        with pytest.raises(ValueError, match="feature frames"):
            encoder(torch.zeros(1, 0, WIDTH), torch.tensor([0]))
        n = shortest(encoder) - 1
        if n:
            with pytest.raises(ValueError, match=f"{n} feature frames are fewer than the .* needs"):
                encoder(*batch([n]))

    def test_padding_changes_nothing(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([40, 23, 12])
        clean, out_lens = encoder(feats, lens)
        dirty = torch.nn.functional.pad(feats, (0, 0, 0, 13))
        for row, n in zip(dirty, lens.tolist(), strict=True):
            row[n:] = 1e4  # garbage, large on purpose
        dirty[2, -1] = float("nan")
        other, other_lens = encoder(dirty, lens)
        assert torch.equal(out_lens, other_lens)
        for row, want, n in zip(other, clean, out_lens.tolist(), strict=True):
            torch.testing.assert_close(row[:n], want[:n], rtol=1e-4, atol=1e-5)
            assert (row[n:] == 0).all()

    def test_padding_changes_no_gradient(self, name, make_encoder):
        """In training mode too: garbage in the padding enters no statistic and no gradient."""
        gradients = []
        for garbage in (0.0, 50.0):
            encoder = make_encoder(name).train()
            for layer in encoder.modules():
                if hasattr(layer, "p"):  # dropout of any kind
                    layer.p = 0.0
            feats, lens = batch([40, 23])
            feats[1, 23:] = garbage
            torch.manual_seed(0)
            hidden, _ = encoder(feats, lens)
            (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
            gradients.append([p.grad for p in encoder.parameters()])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

    def test_an_utterance_alone_equals_itself_in_a_batch(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([40, 23, 12])
        together, out_lens = encoder(feats, lens)
        for i, n in enumerate(lens.tolist()):
            alone, _ = encoder(feats[i : i + 1, :n], lens[i : i + 1])
            torch.testing.assert_close(alone[0], together[i, : out_lens[i]], rtol=1e-4, atol=1e-5)

    def test_order_of_the_batch_does_not_matter(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([40, 23, 12])
        order = torch.tensor([2, 0, 1])
        torch.testing.assert_close(
            encoder(feats[order], lens[order])[0], encoder(feats, lens)[0][order], rtol=1e-4, atol=1e-5
        )

    def test_gradient_reaches_every_parameter(self, name, make_encoder):
        encoder = make_encoder(name).train()
        feats, lens = batch([60, 43])
        hidden, _ = encoder(feats, lens)
        weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
        (hidden * weights).sum().backward()
        dead = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert dead == []

    def test_every_valid_frame_is_heard_and_no_other(self, name, make_encoder):
        encoder = make_encoder(name)
        feats, lens = batch([32, 20])
        feats.requires_grad_()
        hidden, _ = encoder(feats, lens)
        (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
        heard = feats.grad.abs().sum(dim=-1) > 0
        # Windows of the subsampling may end before the last frames.
        field, counts = getattr(encoder, "subsampling", encoder).receptive_field, encoder.output_lengths(lens).tolist()
        for row, n, n_out in zip(heard, lens.tolist(), counts, strict=True):
            assert row[: int(min(n, (n_out - 1) * field.stride + field.right + 1))].all()
            assert not row[n:].any()

    def test_receptive_field_is_what_gradients_say(self, name, make_encoder):
        encoder = make_encoder(name)
        field = encoder.receptive_field
        n = 151  # fills the windows of a subsampling that pads nothing
        feats, lens = batch([n])
        feats.requires_grad_()
        hidden = encoder(feats, lens)[0][0]
        weights = torch.randn(encoder.out_dim, generator=torch.Generator().manual_seed(3))
        exact = [False, False]
        for u in range(0, len(hidden), max(1, len(hidden) // 12)):
            [gradient] = torch.autograd.grad((hidden[u] * weights).sum(), feats, retain_graph=True)
            heard = (gradient[0].abs().sum(dim=-1) > 0).nonzero().flatten().tolist()
            first, last = max(0, u * field.stride - field.left), min(n - 1, u * field.stride + field.right)
            assert first <= heard[0]
            assert heard[-1] <= last
            exact = [exact[0] or heard[0] == first, exact[1] or heard[-1] == last]
        assert exact == [True, True]

    @pytest.mark.quick(8)
    def test_memory_grows_as_stated(self, name, make_encoder):
        """Bytes kept for the backward step, at two lengths, on the meta device: nothing is computed."""
        encoder = make_encoder(name).train().to("meta")
        kept = [bytes_kept(encoder, n) for n in (192, 384, 768)]
        growth = (kept[2] - kept[1]) / (kept[1] - kept[0])  # 2 for a line, 4 for a parabola
        assert (growth < 2.1) == (encoder.memory_growth == "linear"), kept
        assert growth > 1.9

    def test_same_seed_same_weights(self, name, make_encoder):
        a, b, c = make_encoder(name, seed=5), make_encoder(name, seed=5), make_encoder(name, seed=6)
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
        assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))

    def test_state_dict_round_trip(self, name, make_encoder):
        a, b = make_encoder(name, seed=5), make_encoder(name, seed=6)
        feats, lens = batch([40, 23])
        with torch.no_grad():
            a.train()(feats, lens)  # what batches leave behind belongs to the state
            want = a.eval()(feats, lens)[0]
        b.load_state_dict(a.state_dict())
        assert torch.equal(b(feats, lens)[0], want)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_is_finite(self, name, dtype, make_encoder):
        encoder = make_encoder(name).train()
        feats, lens = batch([40, 23])
        with torch.autocast("cpu", dtype):
            hidden, _ = encoder(feats * 10, lens)
        hidden.float().square().mean().backward()
        assert torch.isfinite(hidden).all()
        assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())

    def test_streamed_equals_whole(self, name, make_encoder):
        encoder = make_encoder(name)
        if encoder.stream_frames is None:
            pytest.skip("this configuration does not stream")
        for n in (5 * encoder.stream_frames, 7 * encoder.stream_frames + 1):
            feats, lens = batch([n, n])
            with torch.no_grad():
                whole = encoder(feats, lens)[0]
                pieces, state = [], None
                for piece in feats.split(encoder.stream_frames, dim=1):
                    hidden, state = encoder.stream(piece, state)
                    pieces.append(hidden)
            torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_sizes_cost_alike_in_every_family(self, name):
        cfg = composed(f"encoder={name}")
        counts = []
        for size in SIZES:
            cfg.size = size
            with torch.device("meta"):
                encoder = call(resolved(cfg), "encoder", in_dim=80)
            counts.append(sum(p.numel() for p in encoder.parameters()) / 1e6)
        if len(set(counts)) > 1:  # else a preset of one size
            assert counts == pytest.approx([0.75, 2.5, 10, 30], rel=0.15)

    @pytest.mark.slow
    def test_exported_equals_eager_at_another_length(self, name, make_encoder):
        encoder = make_encoder(name)
        if not encoder.exports:
            pytest.skip("no export is promised")
        feats, lens = batch([64, 43])
        rows, frames = torch.export.Dim("rows", min=1, max=16), torch.export.Dim("frames", min=16, max=256)
        with torch.no_grad():
            encoder(*batch([256]))  # tables of positions are grown once
            exported = torch.export.export(
                encoder,
                (feats, lens),
                dynamic_shapes=({0: rows, 1: frames}, {0: rows}),
                # What cannot be shown of (T + 2) // 3 in general is checked when the exported encoder runs.
                prefer_deferred_runtime_asserts_over_guards=True,
            ).module()
            other = batch([97, 50, 80], seed=2)
            torch.testing.assert_close(exported(*other)[0], encoder(*other)[0], rtol=1e-4, atol=1e-5)


def bytes_kept(encoder, n: int) -> int:
    """What a forward pass of two utterances of `n` frames keeps for the backward pass, parameters left out."""
    sizes: dict[int, int] = {}
    alive = []  # so that no storage's address comes twice

    def keep(tensor):
        sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        encoder(torch.zeros(2, n, WIDTH, device="meta"), torch.full((2,), n, device="meta"))
    parameters = {p.untyped_storage()._cdata for p in encoder.parameters()}
    return sum(size for key, size in sizes.items() if key not in parameters)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["encoder=conformer", "encoder.attention.n_heads=5"], "n_heads=5 does not divide d_model=32"),
        (["encoder=conformer", "encoder.kernel_size=4"], "kernel_size must be odd"),
        (["encoder=bilstm", "encoder.subsampling.stride=0"], "stacking factor"),
        (["encoder=bilstm", "encoder.n_layers=0"], "must be positive"),
        (["encoder=conformer", "encoder/subsampling=conv2d4", "encoder.subsampling.padding=same"], "centred, causal"),
        (["encoder=conformer", "encoder/subsampling=conv2d4", "encoder.subsampling.stages=[[4,2]]"], "odd kernels"),
        (["encoder=conformer", "encoder/context=chunk", "encoder.context.chunk_size=0"], "context wants at least 1"),
    ],
)
def test_sizes_that_cannot_be(overrides, says, tones):
    with pytest.raises(ConfigError, match=f"conf/encoder: .*{says}"):
        call(config_of(tones, *overrides), "encoder", in_dim=WIDTH)


def test_a_size_that_is_none_is_named(tones):
    with pytest.raises(ConfigError, match="size: there is no 'huge', choose among tiny, small, medium, large"):
        resolved(composed("data=manifest", f"data.manifest={tones}", "size=huge"))


def test_size_is_no_part_of_the_identity_but_what_it_picks_is(tones):
    from asr_lab.run import fingerprint

    plain = ["data=manifest", f"data.manifest={tones}"]
    small, tiny_, by_hand = (
        fingerprint(resolved(composed(*plain, *more)))
        for more in ([], ["size=tiny"], ["size=tiny", "encoder.d_model=144"])
    )
    assert small != tiny_ != by_hand
    assert fingerprint(resolved(composed(*plain, "encoder.d_model=144"))) == small


@pytest.mark.parametrize("choice", choices("encoder/subsampling"))
@pytest.mark.parametrize("padding", ["centred", "causal", "valid"])
@pytest.mark.quick(8)
def test_subsampling_lengths_field_and_streaming(choice, padding, make_encoder):
    more = [f"encoder/subsampling={choice}"]
    if choice not in ("stack", "none"):
        more.append(f"encoder.subsampling.padding={padding}")
    layer = make_encoder("conformer", *more).subsampling
    lens = torch.arange(20, 80)
    feats, _ = batch([79] * len(lens))
    out, out_lens = layer(feats, lens)
    assert out.shape[1] == int(layer.output_lengths(torch.tensor(79)))
    assert torch.equal(out_lens, layer.output_lengths(lens))
    if layer.streams:
        pieces, state = [], None
        for piece in feats[:1].split(2 * layer.factor, dim=1):
            y, state = layer.stream(piece, state)
            pieces.append(y)
        torch.testing.assert_close(torch.cat(pieces, 1), layer(feats[:1], torch.tensor([79]))[0])
    assert layer.receptive_field.stride == layer.factor
    assert math.isfinite(layer.receptive_field.right)
    if padding == "causal" and choice not in ("stack", "none"):
        assert layer.receptive_field.right == 0
