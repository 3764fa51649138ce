"""What every decoder and every search promises, for each YAML of conf/decoder and conf/decoding."""

import importlib.util
import inspect
from functools import partial

import pytest
import torch
from torch import Tensor

from asr_lab.build import build_search, call
from asr_lab.lm import Fusion
from asr_lab.sweep.cell import resolved
from asr_lab.text.tokenizer import CharTokenizer

from .conftest import choices, composed

D, ALPHABET = 12, "ab c"  # V = 4, with a word boundary in it
TEXTS = ["a", "ab", "a b", "ba c", "cab", "c a", "b"]
SMALL = {
    "decoder": {
        "d_model": 16, "d_embedding": 8, "d_hidden": 16, "d_joint": 16, "d_attention": 8, "d_ff": 32, "n_heads": 2,
        "n_layers": 1, "attention.d_attention": 8, "attention.n_filters": 2, "attention.kernel_size": 3,
        "attention.n_heads": 2, "rule.d_attention": 8, "rule.n_filters": 2, "rule.kernel_size": 3,
        "attention.d_model": 16, "attention.n_layers": 1, "attention.d_hidden": 16, "attention.rule.d_attention": 8,
        "attention.rule.n_filters": 2, "attention.rule.kernel_size": 3,
        "predictor.d_embedding": 8, "predictor.d_hidden": 16,
    },
}  # fmt: skip
# One label an utterance, whatever its length.
ONE_LABEL = ("keyword",)
# Searches beside the one that a decoder brings.
MORE_SEARCHES: dict[str, tuple[str, ...]] = {
    "ctc": ("ctc_lexicon",) if importlib.util.find_spec("flashlight") else (),
    "joint": ("ctc", "attention", "attention_rescoring"),
    "joint_lstm": ("attention_rescoring",),
}


# Of each kind of model one; the others are for the slow tests.
QUICK = ("attention", "ctc", "hmm", "joint", "transducer")


def slow_unless(quick: bool) -> list:
    return [] if quick else [pytest.mark.slow]


def decoders() -> list:
    return [pytest.param(name, marks=slow_unless(name in QUICK)) for name in choices("decoder")]


def searches(*, wants: str = "") -> list:
    """(decoder, decoding) pairs whose decoding has the key `wants`."""
    pairs = []
    for decoder in choices("decoder"):
        own = composed(f"decoder={decoder}").hydra.runtime.choices["decoding"]
        for name in (own, *MORE_SEARCHES.get(decoder, ())):
            if not wants or wants in composed(f"decoder={decoder}", f"decoding={name}").decoding:
                quick = slow_unless(decoder in QUICK and name in (own, "attention_rescoring"))
                pairs.append(pytest.param(decoder, name, id=f"{decoder}-{name}", marks=quick))
    return pairs


def config_of(decoder: str, *overrides: str) -> dict:
    cfg = composed(f"decoder={decoder}", *overrides)
    from omegaconf import OmegaConf

    for group, values in SMALL.items():
        for key, value in values.items():
            if OmegaConf.select(cfg[group], key) is not None:
                OmegaConf.update(cfg, f"{group}.{key}", value)
    return resolved(cfg)


def built(config: dict, seed: int = 0):
    """A decoder with random weights that differ from label to label, in evaluation mode."""
    torch.manual_seed(seed)
    decoder = call(config, "decoder", in_dim=D, n_labels=len(ALPHABET))
    with torch.no_grad():
        for p in decoder.parameters():
            if p.dim() > 1:
                p.mul_(2.0)
    return decoder.eval()


def search_of(config: dict, decoder):
    return build_search(config, decoder, CharTokenizer(ALPHABET), TEXTS)[0]


def examples(decoder: str, n: int = 3, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden (n,U,D) with zeros in the padding, lens, labels, label_lens"""
    g = torch.Generator().manual_seed(seed)
    lens = torch.tensor([24, 17, 20][:n])
    hidden = torch.randn(n, int(lens.max()), D, generator=g)
    for i, length in enumerate(lens.tolist()):
        hidden[i, length:] = 0
    label_lens = torch.ones(n, dtype=torch.long) if decoder in ONE_LABEL else torch.tensor([4, 2, 3][:n])
    labels = torch.randint(len(ALPHABET), (n, int(label_lens.max())), generator=g)
    labels[:, 0] = labels[:, 0] % 2  # no utterance begins with a boundary
    return hidden, lens, labels, label_lens


@pytest.mark.parametrize("decoder", decoders())
class TestDecoder:
    def test_loss_is_finite_and_reaches_everything(self, decoder):
        model = built(config_of(decoder)).train()
        for layer in model.modules():
            if hasattr(layer, "p"):
                layer.p = 0.0
        hidden, lens, labels, label_lens = examples(decoder)
        hidden.requires_grad_()
        loss = model.loss(hidden, lens, labels, label_lens)
        assert loss.shape == (3,) and torch.isfinite(loss).all()
        loss.sum().backward()
        assert hidden.grad is not None and hidden.grad.abs().sum() > 0
        for i, length in enumerate(lens.tolist()):
            assert not hidden.grad[i, length:].any()
        unreached = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not unreached

    def test_padding_never_matters(self, decoder):
        model = built(config_of(decoder))
        hidden, lens, labels, label_lens = examples(decoder)
        before = model.loss(hidden, lens, labels, label_lens)
        dirty, other = torch.nn.functional.pad(hidden, (0, 0, 0, 5)), torch.nn.functional.pad(labels, (0, 2))
        for i in range(3):
            dirty[i, lens[i] :] = 50.0 * torch.randn(dirty.shape[1] - int(lens[i]), D)
            other[i, label_lens[i] :] = 3
        torch.testing.assert_close(model.loss(dirty, lens, other, label_lens), before, rtol=1e-4, atol=1e-4)

    def test_loss_of_a_batch_is_the_loss_of_each(self, decoder):
        model = built(config_of(decoder))
        hidden, lens, labels, label_lens = examples(decoder)
        together = model.loss(hidden, lens, labels, label_lens)
        for i in range(3):
            row = slice(i, i + 1)
            alone = model.loss(hidden[row, : lens[i]], lens[row], labels[row, : label_lens[i]], label_lens[row])
            torch.testing.assert_close(alone, together[row], rtol=1e-4, atol=1e-4)

    def test_loss_is_a_probability_of_the_labels(self, decoder):
        """Other labels have another loss: nothing but the labels given is scored."""
        model = built(config_of(decoder))
        hidden, lens, labels, label_lens = examples(decoder)
        other = labels.clone()
        other[:, 0] = 1 - other[:, 0]
        assert not torch.isclose(
            model.loss(hidden, lens, labels, label_lens), model.loss(hidden, lens, other, label_lens)
        ).any()

    def test_the_least_frames_are_enough(self, decoder):
        model = built(config_of(decoder))
        _, _, labels, label_lens = examples(decoder)
        needed = model.min_frames(labels, label_lens)
        assert needed.shape == (3,) and (needed >= 1).all()
        hidden = torch.randn(3, int(needed.max()), D)
        assert torch.isfinite(model.loss(hidden, needed, labels, label_lens)).all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_finite_under_autocast(self, decoder, dtype):
        model = built(config_of(decoder)).train()
        hidden, lens, labels, label_lens = examples(decoder)
        with torch.autocast("cpu", dtype=dtype):
            loss = model.loss(hidden.to(dtype), lens, labels, label_lens)
        assert loss.dtype == torch.float32 and torch.isfinite(loss).all()
        loss.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    def test_state_dict_round_trip(self, decoder):
        config = config_of(decoder)
        first, second = built(config), built(config, seed=5)
        second.load_state_dict(first.state_dict())
        batch = examples(decoder)
        assert torch.equal(first.loss(*batch), second.loss(*batch))


def small_beam(beam: int) -> str:
    return f"decoding.beam={beam}"


@pytest.mark.parametrize(("decoder", "decoding"), searches())
class TestSearch:
    def test_batched_equals_one_by_one(self, decoder, decoding):
        config = config_of(decoder, f"decoding={decoding}")
        model = built(config)
        search = search_of(config, model)
        hidden, lens, *_ = examples(decoder)
        together = search(hidden, lens)
        dirty = torch.nn.functional.pad(hidden, (0, 0, 0, 4))
        for i in range(3):
            dirty[i, lens[i] :] = 50.0
        for i, (found, also) in enumerate(zip(together, search(dirty, lens), strict=True)):
            [alone] = search(hidden[i : i + 1, : lens[i]], lens[i : i + 1])
            assert found[0].labels == alone[0].labels == also[0].labels
            assert found[0].frames == alone[0].frames
            assert found[0].score == pytest.approx(alone[0].score, abs=1e-3)

    def test_labels_are_the_tokenizers(self, decoder, decoding):
        config = config_of(decoder, f"decoding={decoding}")
        for seed in range(3):
            for found in search_of(config, built(config, seed))(*examples(decoder, seed=seed)[:2]):
                assert found and all(0 <= label < len(ALPHABET) for h in found for label in h.labels)
                assert all(h.frames is None or len(h.frames) == len(h.labels) for h in found)


@pytest.mark.parametrize(("decoder", "decoding"), searches(wants="beam"))
class TestBeam:
    def wide(self, decoder, decoding, seed, *overrides):
        config = config_of(decoder, f"decoding={decoding}", small_beam(6), *overrides)
        model = built(config, seed)
        return search_of(config, model), model

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.quick(8)
    def test_never_worse_than_greedy_under_its_own_score(self, decoder, decoding, seed):
        search, model = self.wide(decoder, decoding, seed)
        narrow = search_of(config_of(decoder, f"decoding={decoding}", small_beam(1)), model)
        hidden, lens, *_ = examples(decoder, seed=seed)
        greedy = [found[0].labels for found in narrow(hidden, lens)]
        for found, score in zip(search(hidden, lens), search.force(hidden, lens, greedy), strict=True):
            assert found[0].score >= score - 1e-4

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.quick(6)
    def test_scores_are_those_of_force_scoring(self, decoder, decoding, seed):
        search, _ = self.wide(decoder, decoding, seed)
        hidden, lens, *_ = examples(decoder, seed=seed)
        n_best = search(hidden, lens)
        for rank in range(min(map(len, n_best))):
            forced = search.force(hidden, lens, [found[rank].labels for found in n_best])
            assert [found[rank].score for found in n_best] == pytest.approx(forced, abs=1e-3)
        for found in n_best:
            assert len({tuple(h.labels) for h in found}) == len(found), "the same labels twice"
            assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)

    def test_batched_equals_one_by_one(self, decoder, decoding):
        search, _ = self.wide(decoder, decoding, 0)
        hidden, lens, *_ = examples(decoder)
        for i, found in enumerate(search(hidden, lens)):
            [alone] = search(hidden[i : i + 1, : lens[i]], lens[i : i + 1])
            assert [h.labels for h in found[:2]] == [h.labels for h in alone[:2]]
            assert found[0].score == pytest.approx(alone[0].score, abs=1e-3)

    def test_a_beam_of_nothing_is_one_line(self, decoder, decoding):
        config = config_of(decoder, f"decoding={decoding}", small_beam(0))
        with pytest.raises(ValueError, match="beam"):
            search_of(config, built(config))


class Bigram:
    """A language model with known numbers."""

    def __init__(self, tokenizer):
        table = torch.randn(len(tokenizer) + 1, len(tokenizer) + 1, generator=torch.Generator().manual_seed(3))
        self.table = (2 * table).log_softmax(dim=-1)  # row V: at the beginning

    def begin(self, n, device):
        return torch.full((n,), self.table.shape[0] - 1, device=device)

    def scores(self, state):
        return self.table[state]

    def advance(self, state, labels):
        return labels

    def select(self, state, rows):
        return state[rows]


def with_lm(config: dict, decoder, weight: float, use: str = "fusion"):
    """The search of a configuration with a bigram beside it."""
    from asr_lab.build import make

    tokenizer = CharTokenizer(ALPHABET)
    lm = Fusion(tokenizer, TEXTS, partial(Bigram), weight=weight, bonus=0.0, use=use)
    search = make(config, "decoding")
    given = {"decoder": decoder, "lm": lm, "tokenizer": tokenizer, "train_texts": TEXTS}
    wanted = inspect.signature(search).parameters
    return search(**{k: v for k, v in given.items() if k in wanted}), lm


def takes_lm(param) -> bool:
    from asr_lab.build import make

    return (
        "lm"
        in inspect.signature(make(config_of(param.values[0], f"decoding={param.values[1]}"), "decoding")).parameters
    )


@pytest.mark.parametrize(("decoder", "decoding"), [p for p in searches(wants="beam") if takes_lm(p)])
class TestFusion:
    def test_weight_zero_changes_nothing(self, decoder, decoding):
        config = config_of(decoder, f"decoding={decoding}", small_beam(4))
        model = built(config)
        hidden, lens, *_ = examples(decoder)
        assert with_lm(config, model, 0.0)[0](hidden, lens) == search_of(config, model)(hidden, lens)

    def test_the_models_share_is_in_the_score(self, decoder, decoding):
        config = config_of(decoder, f"decoding={decoding}", small_beam(6))
        model = built(config)
        hidden, lens, *_ = examples(decoder)
        plain = search_of(config, model)
        search, lm = with_lm(config, model, 0.7)
        n_best = search(hidden, lens)
        best = [found[0].labels for found in n_best]
        own = plain.force(hidden, lens, best)
        total = [a + b for a, b in zip(own, lm.total(best, torch.device("cpu")).tolist(), strict=True)]
        assert [found[0].score for found in n_best] == pytest.approx(total, abs=1e-3)
        assert search.force(hidden, lens, best) == pytest.approx(total, abs=1e-3)

    @pytest.mark.quick(2)
    def test_it_changes_what_is_found(self, decoder, decoding):
        config = config_of(decoder, f"decoding={decoding}", small_beam(6))
        hidden, lens, *_ = examples(decoder)
        changed = 0
        for seed in range(5):
            model = built(config, seed)
            with_it, without = with_lm(config, model, 3.0)[0], search_of(config, model)
            found = [[[h.labels for h in n_best] for n_best in s(hidden, lens)] for s in (with_it, without)]
            changed += found[0] != found[1]
        assert changed

    def test_rescoring_gives_the_n_best_another_order(self, decoder, decoding):
        config = config_of(decoder, f"decoding={decoding}", small_beam(6))
        model = built(config)
        hidden, lens, *_ = examples(decoder)
        search, lm = with_lm(config, model, 1.0, use="rescoring")
        n_best = search(hidden, lens)
        alone = search_of(config, model)(hidden, lens)
        assert [[h[:2] for h in found] for found in n_best] == [[h[:2] for h in found] for found in alone]
        for found in n_best:
            assert len({h.frames is None for h in found}) == 1  # whichever will be the best has times, or none has
            again = lm.rescored(found)
            assert sorted(h.labels for h in again) == sorted(h.labels for h in found)
            share = lm.total([h.labels for h in again], torch.device("cpu")).tolist()
            before = {tuple(h.labels): h.score for h in found}
            assert [h.score for h in again] == pytest.approx(
                [before[tuple(h.labels)] + s for h, s in zip(again, share, strict=True)]
            )
