"""Every YAML of conf/optimizer: its published update by hand, the optimum of a bowl, groups, state, what it refuses."""

import copy
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from asr_lab.build import call, check, make, make_optimisation
from asr_lab.errors import ConfigError
from asr_lab.optim.groups import parameter_groups
from asr_lab.optim.tally import leaves_out
from asr_lab.paths import conf_dir

from .conftest import choices

NAMES = choices("optimizer")
CLOSURE = {"sam", "spsa"}  # need one
# Choices within a YAML that have code or state of their own.
MORE = {
    "subgradient uniform": ["average=uniform"],
    "subgradient polynomial": ["average=polynomial"],
    "subgradient length": ["rule=length"],
    "subgradient polyak": ["rule=polyak"],
    "muon original": ["adjust_lr_fn=original", "nesterov=false"],
    "sam adaptive": ["adaptive=true"],
    "schedule_free_adamw warm": ["warmup_steps=3", "r=1.0", "ams_bound=true"],
    "prodigy corrected": ["bias_correction=true", "safeguard_warmup=true", "beta3=0.9"],
}
ALL = [*NAMES, *MORE]


def config(name: str, *changes: str) -> dict:
    """{"optimizer": resolved YAML}; changes as `key=value`."""
    node = OmegaConf.load(conf_dir() / "optimizer" / f"{name.partition(' ')[0]}.yaml")
    node = OmegaConf.merge(node, OmegaConf.from_dotlist([*MORE.get(name, []), *changes]))
    return OmegaConf.to_container(OmegaConf.create({"optimizer": node}), resolve=True)  # pyright: ignore


def made(name: str, params, *changes: str) -> torch.optim.Optimizer:
    return make(config(name, *changes), "optimizer")(params)


def weight(*shape: int, value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, value, dtype=torch.double))


def take(optimizer, loss: Callable[[], Tensor]) -> Tensor:
    """One step."""

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return optimizer.step(closure)


class TestPublishedUpdates:
    """f(w) = (w - 3)^2 from w = 1 with decay 0.1: the iterates in plain numbers, from the papers' formulas.

    Each formula is a generator: it gets the keys `k` of the YAML and the first weight, and yields weights.
    """

    START, DECAY, N_STEPS = 1.0, 0.1, 8

    @staticmethod
    def slope(w: float) -> float:
        return 2 * (w - 3)

    @pytest.mark.parametrize("name", ALL)
    def test_by_hand(self, name):
        w = weight(1, 1) if name.startswith("muon") else weight(1)
        # One element of a gradient is its own scale: with this many bits the read-out is the gradient.
        changes = ["bits=10", "success=0.99"] if name == "quantum" else []
        changes += ["best_loss=0.5"] if name == "subgradient polyak" else []
        k = config(name, f"weight_decay={self.DECAY}", *changes)["optimizer"]
        formula = getattr(self, name.split()[0])
        optimizer = made(name, [w], f"weight_decay={self.DECAY}", *changes)
        found, expected = [], []
        iterates = formula(k, self.START)
        for _ in range(self.N_STEPS):
            take(optimizer, lambda: torch.sum((w - 3) ** 2))
            if hasattr(optimizer, "eval"):  # what would be scored
                optimizer.eval()
                found.append(w.item())
                optimizer.train()
            else:
                found.append(w.item())
            expected.append(next(iterates))
        loose = {"quantum": 5e-3, "muon": 1e-4, "spsa": 1e-6}.get(name.split()[0], 1e-9)
        assert found == pytest.approx(expected, rel=loose)
        assert found[-1] != self.START

    def sgd(self, k, w) -> Iterator[float]:
        """Sutskever et al. 2013, as torch writes it."""
        buffer = 0.0
        while True:
            g = self.slope(w) + k["weight_decay"] * w
            buffer = k["momentum"] * buffer + g
            w -= k["lr"] * (g + k["momentum"] * buffer)
            yield w

    def adam(self, k, w) -> Iterator[float]:
        m, v, t, (b1, b2) = 0.0, 0.0, 0, k["betas"]
        while True:
            g, t = self.slope(w) + k["weight_decay"] * w, t + 1
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            w -= k["lr"] * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + k["eps"])
            yield w

    def adamw(self, k, w, slope=None) -> Iterator[float]:
        """Loshchilov & Hutter 2019."""
        m, v, t, (b1, b2) = 0.0, 0.0, 0, k["betas"]
        while True:
            g, t = (slope or self.slope)(w), t + 1
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            step = (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + k["eps"])
            w -= k["lr"] * (step + k["weight_decay"] * w)
            yield w

    def nadam(self, k, w) -> Iterator[float]:
        """Dozat 2016, with the momentum schedule b1 (1 - 0.96^(t psi) / 2)."""
        m, v, t, product, (b1, b2) = 0.0, 0.0, 0, 1.0, k["betas"]
        while True:
            g, t = self.slope(w), t + 1
            mu, after = (b1 * (1 - 0.5 * 0.96 ** (s * k["momentum_decay"])) for s in (t, t + 1))
            product *= mu
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            ahead = after * m / (1 - product * after) + (1 - mu) * g / (1 - product)
            w -= k["lr"] * (ahead / (math.sqrt(v / (1 - b2**t)) + k["eps"]) + k["weight_decay"] * w)
            yield w

    def radam(self, k, w) -> Iterator[float]:
        """Liu et al. 2020, algorithm 2; the rectified step where its variance can be told (length above 5)."""
        m, v, t, (b1, b2) = 0.0, 0.0, 0, k["betas"]
        most = 2 / (1 - b2) - 1
        while True:
            g, t = self.slope(w), t + 1
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            step = m / (1 - b1**t)
            length = most - 2 * t * b2**t / (1 - b2**t)
            if length > 5:
                r = math.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))
                step *= r * math.sqrt(1 - b2**t) / (math.sqrt(v) + k["eps"])
            w -= k["lr"] * (step + k["weight_decay"] * w)
            yield w

    def adagrad(self, k, w) -> Iterator[float]:
        total, t = k["initial_accumulator_value"], 0
        while True:
            g = self.slope(w) + k["weight_decay"] * w
            total += g * g
            w -= k["lr"] / (1 + t * k["lr_decay"]) * g / (math.sqrt(total) + k["eps"])
            t += 1
            yield w

    def adadelta(self, k, w) -> Iterator[float]:
        """Zeiler 2012, algorithm 1."""
        of_g, of_step, rho = 0.0, 0.0, k["rho"]
        while True:
            g = self.slope(w) + k["weight_decay"] * w
            of_g = rho * of_g + (1 - rho) * g * g
            step = math.sqrt(of_step + k["eps"]) / math.sqrt(of_g + k["eps"]) * g
            of_step = rho * of_step + (1 - rho) * step * step
            w -= k["lr"] * step
            yield w

    def rmsprop(self, k, w) -> Iterator[float]:
        v = 0.0
        while True:
            g = self.slope(w) + k["weight_decay"] * w
            v = k["alpha"] * v + (1 - k["alpha"]) * g * g
            w -= k["lr"] * g / (math.sqrt(v) + k["eps"])
            yield w

    def adafactor(self, k, w) -> Iterator[float]:
        """Shazeer & Stern 2018, algorithms 4 and 5: steps relative to the weight, decay of moments 1 - t^-0.8."""
        v, t = 0.0, 0
        while True:
            g, t = self.slope(w), t + 1
            rate = max(k["eps"][1], abs(w)) * min(k["lr"], 1 / math.sqrt(t))
            v += t ** k["beta2_decay"] * (g * g - v)
            u = g / math.sqrt(v)
            u /= max(1, abs(u) / k["d"])
            w = w * (1 - k["lr"] * k["weight_decay"]) - rate * u
            yield w

    def lion(self, k, w) -> Iterator[float]:
        """Chen et al. 2023, algorithm 2."""
        m, (b1, b2) = 0.0, k["betas"]
        while True:
            g = self.slope(w)
            w -= k["lr"] * (math.copysign(1, b1 * m + (1 - b1) * g) + k["weight_decay"] * w)
            m = b2 * m + (1 - b2) * g
            yield w

    def lamb(self, k, w) -> Iterator[float]:
        """You et al. 2020, algorithm 2."""
        m, v, t, (b1, b2) = 0.0, 0.0, 0, k["betas"]
        while True:
            g, t = self.slope(w), t + 1
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            u = (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + k["eps"]) + k["weight_decay"] * w
            lowest, highest = k["norm_bounds"]
            w -= k["lr"] * min(max(abs(w), lowest), highest) / abs(u) * u
            yield w

    def prodigy(self, k, w) -> Iterator[float]:
        """Mishchenko & Defazio 2024, algorithm 4."""
        m, v, r, s, d, t, first, (b1, b2) = 0.0, 0.0, 0.0, 0.0, k["d0"], 0, w, k["betas"]
        b3 = k["beta3"] or math.sqrt(b2)
        while True:
            g, t = self.slope(w), t + 1
            rate = k["lr"] * (math.sqrt(1 - b2**t) / (1 - b1**t) if k["bias_correction"] else 1)
            m, v = b1 * m + (1 - b1) * d * g, b2 * v + (1 - b2) * d * d * g * g
            r = b3 * r + rate * d * d / k["d0"] * g * (first - w)
            s = b3 * s + (1 if k["safeguard_warmup"] else rate) * d * d / k["d0"] * g
            now, d = d, max(d, k["d_coef"] * r / abs(s))
            w -= rate * now * (m / (math.sqrt(v) + d * k["eps"]) + k["weight_decay"] * w)
            yield w

    def schedule_free_sgd(self, k, w) -> Iterator[float]:
        """Defazio et al. 2024, equations 3 to 5."""
        yield from self.schedule_free(k, w, k["momentum"], lambda g, t: g)

    def schedule_free_adamw(self, k, w) -> Iterator[float]:
        v, most, b2 = 0.0, 0.0, k["betas"][1]

        def scaled(g, t):
            nonlocal v, most
            v = b2 * v + (1 - b2) * g * g
            most = max(most, v / (1 - b2**t))
            return g / (math.sqrt(most if k["ams_bound"] else v / (1 - b2**t)) + k["eps"])

        yield from self.schedule_free(k, w, k["betas"][0], scaled)

    def schedule_free(self, k, w, beta, scaled) -> Iterator[float]:
        x, z, weights, t = w, w, 0.0, 0
        while True:
            t += 1
            rate = k["lr"] * min(1, t / k["warmup_steps"] if k["warmup_steps"] else 1)
            y = (1 - beta) * z + beta * x
            z -= rate * (scaled(self.slope(y), t) + k["weight_decay"] * y)
            share = t ** k["r"] * rate ** k["weight_lr_power"]
            weights += share
            x += share / weights * (z - x)
            yield x

    def muon(self, k, w) -> Iterator[float]:
        """Jordan 2024: of a single number only the sign is left, times the quintic's value."""
        a, b, c = k["ns_coefficients"]
        x = 1.0
        for _ in range(k["ns_steps"]):
            x = (a * torch.tensor(x).bfloat16() + (b * x * x + c * x**4) * torch.tensor(x).bfloat16()).item()
        buffer, mu = 0.0, k["momentum"]
        scale = 1.0 if k["adjust_lr_fn"] == "original" else 0.2
        while True:
            g = self.slope(w)
            buffer = mu * buffer + g
            u = g + mu * buffer if k["nesterov"] else buffer
            w -= k["lr"] * (scale * math.copysign(x, u) + k["weight_decay"] * w)
            yield w

    def sam(self, k, w) -> Iterator[float]:
        """Foret et al. 2021, equation 2, and Kwon et al. 2021, equation 10, around AdamW."""

        def worst(w: float) -> float:
            by = abs(w) if k["adaptive"] else 1.0  # of one number, w^2 g / |w g| is |w| and a sign
            return self.slope(w + k["rho"] * by * math.copysign(1, self.slope(w)))

        yield from self.adamw(k | k["base"], w, worst)

    def subgradient(self, k, w) -> Iterator[float]:
        mean, t = 0.0, 0
        while True:
            g = self.slope(w) + k["weight_decay"] * w
            polyak = ((w - 3) ** 2 - k["best_loss"]) / (g * g)
            t += 1
            w -= g * k["lr"] * {"diminishing": 1 / math.sqrt(t), "length": 1 / abs(g), "polyak": polyak}[k["rule"]]
            eta = k["eta"] if k["average"] == "polynomial" else 0
            mean = (1 - (eta + 1) / (t + eta)) * mean + (eta + 1) / (t + eta) * w
            yield w if k["average"] == "none" else mean

    def spsa(self, k, w) -> Iterator[float]:
        """Spall 1992: of a parabola of one variable, the two losses give the slope exactly."""
        t = 0
        while True:
            w -= k["lr"] / (t + 1 + k["stability"]) ** k["alpha"] * (self.slope(w) + k["weight_decay"] * w)
            t += 1
            yield w

    def quantum(self, k, w) -> Iterator[float]:
        while True:
            w -= k["lr"] * (self.slope(w) + k["weight_decay"] * w)
            yield w


# Rates for a bowl of width about 1; those of the YAMLs are for networks.
BOWL = {
    "adadelta": ["eps=1e-3"],
    "adagrad": ["lr=0.5"],
    "adafactor": ["lr=0.1"],
    "prodigy": ["d0=1e-3"],
    "spsa": ["lr=0.3", "stability=10"],
    "sgd": ["lr=0.01"],
    "schedule_free_sgd": ["lr=0.05"],
    "schedule_free_adamw": ["lr=0.2"],
    "subgradient": ["lr=0.15"],
    "subgradient length": ["lr=0.3"],
    "subgradient polyak": ["lr=1.0"],
    "subgradient polynomial": ["lr=0.3"],
    "quantum": ["lr=0.1"],
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.quick(9)
def test_reaches_the_optimum_of_a_bowl(name):
    """f = sum of a (w - target)^2 / 2 with a from 1 to 8, in a matrix and a vector; the rate falls to 0."""
    matrix, vector = weight(2, 3, value=0.5), weight(3, value=-0.5)
    curve = torch.tensor([1.0, 3.0, 8.0], dtype=torch.double)
    target = torch.tensor([1.0, 0.2, -0.6], dtype=torch.double)

    def loss():
        return sum((curve * (w - target) ** 2).sum() / 2 for w in (matrix, vector))

    start = loss().item()
    optimizer = made(name, [matrix, vector], "weight_decay=0", *BOWL.get(name, BOWL.get(name.split()[0], ["lr=0.05"])))
    n = 500 if name in ("muon", "spsa", "subgradient uniform") else 250
    falls = not name.startswith("schedule_free")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - falls * t / n)
    for _ in range(n):
        take(optimizer, loss)
        schedule.step()
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    assert loss().item() < 1e-3 * start


@pytest.mark.parametrize("average", ["none", "uniform", "polynomial"])
def test_the_subgradient_method_finds_sparse_regression(average):
    """|w - 2| + |w| / 2 per coordinate: kinks at the minimum, 2; a constant rate circles, its mean comes closer."""
    w = weight(4, value=1.0)
    slope = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.double)
    optimizer = made("subgradient", [w], "rule=constant", "lr=0.07", f"average={average}")
    for _ in range(800):
        take(optimizer, lambda: (slope * (w - 2).abs()).sum() + 0.25 * w.abs().sum())
    optimizer.eval()
    gap = (w - 2).abs().max().item()
    if average == "none":
        assert 0.01 < gap < 0.3
    else:
        assert gap < {"uniform": 0.12, "polynomial": 0.06}[average]


@pytest.mark.parametrize("name", ALL)
def test_each_group_has_its_own_decay_and_rate(name):
    def after(decay: float, rate: float | None = None) -> list[Tensor]:
        a, b = (nn.Parameter(torch.arange(1.0, 5.0, dtype=torch.double).view(2, 2)) for _ in range(2))
        groups = [{"params": [a], "weight_decay": decay}, {"params": [b], "weight_decay": 0.0}]
        if rate:
            groups[0]["lr"] = rate
        optimizer = made(name, groups, "lr=0.01")
        slopes = torch.tensor([[-0.1, -0.2], [-0.3, -0.1]], dtype=torch.double)
        take(optimizer, lambda: 9 + torch.sum(slopes * a) + torch.sum(slopes * b))
        return [a.detach(), b.detach()]

    together = name in ("subgradient length", "subgradient polyak")  # one norm for all groups
    plain, decayed = after(0.0), after(0.5)
    assert not torch.equal(decayed[0], plain[0])
    assert decayed[0].norm() < plain[0].norm()
    assert together or torch.equal(decayed[1], plain[1])
    if not name.startswith("prodigy"):  # has one rate for all groups
        faster = after(0.0, rate=0.02)
        assert not torch.equal(faster[0], plain[0])
        assert torch.equal(faster[1], plain[1])


def network() -> tuple[nn.Module, Callable[[], Tensor]]:
    """A small net with a kernel, matrices, vectors and an embedding; its loss on one batch."""
    torch.manual_seed(3)
    net = nn.ModuleDict(
        {
            "embedding": nn.Embedding(5, 6),
            "conv": nn.Conv1d(6, 8, 3),
            "inside": nn.Linear(8, 8),
            "output": nn.Linear(8, 5),
        }
    )
    ids, wanted = torch.randint(5, (4, 7)), torch.randint(5, (4, 5))

    def loss():
        x = net["conv"](net["embedding"](ids).mT).mT
        return nn.functional.cross_entropy(net["output"](torch.tanh(net["inside"](x))).mT, wanted)

    return net, loss


@pytest.mark.parametrize("scored", [False, True], ids=["between steps", "after scoring"])
@pytest.mark.parametrize("name", ALL)
def test_going_on_from_a_checkpoint_is_bit_equal(name, scored):
    def start():
        net, loss = network()
        optimizer = made(name, parameter_groups(net, 0.1))
        return net, loss, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (t + 1))

    def steps(loss, optimizer, schedule):
        for _ in range(3):
            take(optimizer, loss)
            schedule.step()

    net, loss, optimizer, schedule = start()
    steps(loss, optimizer, schedule)
    if scored and hasattr(optimizer, "eval"):
        optimizer.eval()
    saved = copy.deepcopy([net.state_dict(), optimizer.state_dict(), schedule.state_dict()])
    if scored and hasattr(optimizer, "train"):
        optimizer.train()
    steps(loss, optimizer, schedule)

    again, loss_again, other, its_schedule = start()
    for part, state in zip((again, other, its_schedule), saved, strict=True):
        part.load_state_dict(state)
    if hasattr(other, "train"):
        other.train()
    steps(loss_again, other, its_schedule)
    for (key, a), b in zip(net.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("name", ALL)
def test_a_step_that_is_left_out_leaves_no_trace(name):
    """As the training task leaves it out: `found_inf` where the optimizer knows it, else no gradients."""

    def trained(leave_out: bool) -> list[Tensor]:
        net, loss = network()
        optimizer = made(name, parameter_groups(net, 0.1))
        take(optimizer, loss)
        if leave_out:
            before = [p.detach().clone() for p in net.parameters()]

            def closure():
                optimizer.zero_grad()
                value = loss()
                value.backward()
                if leaves_out(optimizer):
                    optimizer.found_inf = torch.ones(())
                else:
                    optimizer.zero_grad()
                return value

            optimizer.step(closure)
            assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
            if leaves_out(optimizer):
                optimizer.found_inf = torch.zeros(())
        if name != "spsa":  # its next signs are other ones
            take(optimizer, loss)
        return [p.detach() for p in net.parameters()]

    for a, b in zip(trained(True), trained(False), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_sparse_gradients_work_or_are_refused_in_one_line(name):
    def moved(sparse: bool) -> Tensor:
        torch.manual_seed(0)
        table = nn.Embedding(6, 3, sparse=sparse)
        optimizer = made(name, table.parameters(), "weight_decay=0")
        take(optimizer, lambda: torch.sum(table(torch.tensor([1, 4, 4])) ** 2))
        return table.weight.detach()

    if name in {"adagrad", "quantum", "spsa", "subgradient"}:
        torch.testing.assert_close(moved(sparse=True), moved(sparse=False))
    else:
        with pytest.raises((ValueError, RuntimeError), match=r"^[^\n]*sparse[^\n]*\s*$"):
            moved(sparse=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_keyword_that_does_not_exist_is_named_with_its_neighbours(name):
    wrong = config(name)
    wrong["optimizer"]["weight_deacy"] = 0.1
    with pytest.raises(ConfigError, match="unexpected 'weight_deacy'; did you mean 'weight_decay'"):
        check(wrong)


@pytest.mark.parametrize(("name", "node"), [("sam", "base"), ("muon", "rest")])
def test_a_keyword_of_the_optimizer_inside(name, node):
    wrong = config(name)
    wrong["optimizer"][node]["amsgard"] = True
    with pytest.raises(ConfigError, match=f"conf/optimizer.{node}: AdamW got an unexpected 'amsgard'; .*'amsgrad'"):
        check(wrong)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, "lr=-1.0") for name in NAMES),
        ("lion", "betas=[0.9,1.5]"),
        ("lamb", "norm_bounds=[3.0,1.0]"),
        ("lamb", "betas=[0.9,1.5]"),
        ("prodigy", "d0=0.0"),
        ("prodigy", "growth_rate=1.0"),
        ("schedule_free_adamw", "betas=[0.0,0.9]"),
        ("schedule_free_sgd", "momentum=1.0"),
        ("muon", "adjust_lr_fn=best"),
        ("muon", "ns_coefficients=[1.0,2.0]"),
        ("muon", "rest._target_=asr_lab.optim.packaged.ScheduleFreeAdamW"),
        ("sam", "rho=0.0"),
        ("subgradient", "average=tail"),
        ("subgradient", "eta=-1.0"),
        ("spsa", "c=0.0"),
        ("quantum", "success=1.0"),
    ],
)
def test_values_that_cannot_be_are_found_without_a_corpus(name, change):
    wrong = config(name, change)
    wrong |= {
        "schedule": {"_target_": "asr_lab.optim.schedules.Constant"},
        "clipping": {"_target_": "asr_lab.clipping.none.NoClipping"},
    }
    with pytest.raises(ConfigError, match=r"^conf/optimizer: [^\n]+$"):
        make_optimisation(wrong)


@pytest.mark.parametrize("name", sorted(CLOSURE))
def test_a_closure_is_asked_for(name):
    with pytest.raises(ValueError, match="needs a closure"):
        made(name, [weight(1)]).step()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("kind", [{"foreach": True}, {"foreach": False}])
def test_fused_kernels_give_what_the_others_do(name, kind):
    nets = []
    for extra in ({}, {"fused": False, **kind}):
        net, loss = network()
        optimizer = make(config(name), "optimizer")(parameter_groups(net, 0.1), **extra)
        for _ in range(4):
            take(optimizer, loss)
        nets.append(net)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["lion", "prodigy", "schedule_free_adamw", "schedule_free_sgd"])
def test_many_weights_at_once_give_what_one_at_a_time_does(name):
    nets = []
    for foreach in (True, False):
        net, loss = network()
        optimizer = made(name, parameter_groups(net, 0.1))
        for group in optimizer.param_groups:
            group["foreach"] = foreach
        for _ in range(4):
            take(optimizer, loss)
        nets.append(net)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


class TestMuon:
    @pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
    def test_is_torchs_on_matrices(self, adjust):
        torch.manual_seed(1)
        shapes = [(6, 6), (12, 5), (5, 12), (6, 6)]
        ours, theirs = ([nn.Parameter(torch.randn(s)) for s in shapes] for _ in range(2))
        for a, b in zip(ours, theirs, strict=True):
            b.data.copy_(a)
        one = made("muon", ours, f"adjust_lr_fn={adjust}", "weight_decay=0.1")
        two = torch.optim.Muon(theirs, lr=1e-3, weight_decay=0.1, momentum=0.95, adjust_lr_fn=adjust)
        for _ in range(3):
            for a, b in zip(ours, theirs, strict=True):
                a.grad = torch.randn_like(a)
                b.grad = a.grad.clone()
            one.step()
            two.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)

    def test_singular_values_become_alike(self):
        from asr_lab.optim.muon import orthogonal

        torch.manual_seed(0)
        k = config("muon")["optimizer"]
        for shape in [(2, 8, 8), (1, 20, 5), (3, 5, 20)]:
            found = orthogonal(torch.randn(shape), k["ns_coefficients"], k["ns_steps"], k["eps"]).float()
            values = torch.linalg.svdvals(found)
            assert found.shape == shape and values.max() < 1.3 and values.median() > 0.6

    def test_only_matrices_inside_the_network_are_orthogonalised(self):
        net, _ = network()
        optimizer = made("muon", parameter_groups(net, 0.1))
        names = {id(p): n for n, p in net.named_parameters()}
        own = [names[id(p)] for group in optimizer.param_groups[: optimizer.n_own] for p in group["params"]]
        assert own == ["inside.weight"]
        assert sorted(names[id(p)] for g in optimizer.param_groups for p in g["params"]) == sorted(names.values())
        decays = {names[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        assert decays["conv.weight"] == decays["output.weight"] == decays["inside.weight"] == 0.1
        assert decays["inside.bias"] == 0.0

    def test_a_schedule_moves_both_rates(self):
        net, loss = network()
        optimizer = made("muon", parameter_groups(net, 0.1), "rest.lr=0.3")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
        take(optimizer, loss)
        schedule.step()
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([5e-4, 0.15, 0.15])
        assert optimizer.rest.param_groups[0]["lr"] == pytest.approx(0.15)


class TestSam:
    def test_a_first_gradient_that_is_not_finite_does_not_move_the_weights_it_is_taken_at(self):
        w = weight(2)
        places, optimizer = [], made("sam", [w])

        def loss():
            places.append(w.detach().clone())
            return (w * (math.nan if len(places) == 1 else 1.0)).sum()

        take(optimizer, loss)
        assert torch.equal(places[0], places[1])
        assert torch.isfinite(w).all()

    def test_weights_come_back_bit_by_bit_when_a_closure_fails(self):
        net, loss = network()
        optimizer = made("sam", parameter_groups(net, 0.1))
        before, calls = [p.detach().clone() for p in net.parameters()], []

        def fails():
            calls.append(optimizer.probing)
            if len(calls) == 2:
                raise ArithmeticError
            return loss()

        with pytest.raises(ArithmeticError):
            take(optimizer, fails)
        assert calls == [True, False]
        assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))

    def test_a_base_with_averaged_weights_is_told_which_are_wanted(self):
        w, wanted = weight(1), config("sam")["optimizer"]
        base = {k: v for k, v in config("schedule_free_sgd")["optimizer"].items() if k not in ("lr", "weight_decay")}
        optimizer = make({"optimizer": wanted | {"base": base}}, "optimizer")([w])
        for _ in range(3):
            take(optimizer, lambda: torch.sum(w**2))
        at_training = w.item()
        optimizer.eval()
        assert w.item() != at_training
        optimizer.train()
        assert w.item() == pytest.approx(at_training)

    def test_a_base_that_needs_a_closure_is_refused(self):
        wrong = config("sam")
        wrong["optimizer"]["base"] = {k: v for k, v in config("subgradient polyak")["optimizer"].items() if k != "lr"}
        with pytest.raises(ConfigError, match=r"optimizer.base: Subgradient needs a closure"):
            call(wrong, "optimizer", params=[weight(1)])


class TestSpsa:
    @pytest.mark.parametrize("broken", [1, 2])
    def test_a_loss_that_is_not_finite_moves_nothing(self, broken):
        w, calls = weight(3), []
        optimizer = made("spsa", [w], "weight_decay=0.5")

        def loss():
            calls.append(optimizer.probing)
            return (w * (math.inf if len(calls) == broken else 1.0)).sum()

        take(optimizer, loss)
        assert calls == [True, False]
        assert torch.equal(w, weight(3))


def test_averaged_weights_refuse_a_step():
    w = weight(1)
    optimizer = made("schedule_free_adamw", [w])
    take(optimizer, lambda: torch.sum(w**2))
    optimizer.eval()
    with pytest.raises(ValueError, match=r"call train\(\) before"):
        take(optimizer, lambda: torch.sum(w**2))
