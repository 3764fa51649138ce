"""Many configurations at once: what is laid over a base is what Hydra composes in full."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from asr_lab.paths import conf_dir
from asr_lab.run import fingerprint, flatten
from asr_lab.sweep.algebra import cells
from asr_lab.sweep.cell import resolved
from asr_lab.sweep.identity import Identity
from asr_lab.sweep.planning import Change, Planner, compose_with, overrides
from asr_lab.sweep.references import ANY, references

GROUPS = {str(p.parent.relative_to(conf_dir())) for p in conf_dir().rglob("*.yaml")}


class TestReferences:
    def test_absolute_relative_and_resolvers(self):
        cfg = OmegaConf.create(
            {
                "a": {"b": "${c.d}", "e": {"f": "${..g}", "h": "${.f}"}, "g": 1},
                "s": "${by_size:1,2,3,4}",
                "x": "${unknown_to_us:1}",
                "l": [{"m": "${a.g}"}],
                "text": "${c.d} and ${a.g}",
                "plain": "no",
            }
        )
        assert references(cfg) == {
            "a.b": {"c.d"},
            "a.e.f": {"a.g"},
            "a.e.h": {"a.e.f"},
            "s": {"size"},
            "x": {ANY},
            "l.0.m": {"a.g"},
            "text": {"c.d", "a.g"},
        }


class TestIdentity:
    def test_is_the_fingerprint_of_the_whole(self):
        config = {"a": {"b": 1, "c": [1, {"d": None}]}, "logger": {"x": 1}, "e": {}, "seed": 1}
        change = Change(frozenset({"a.b"}), {"a.z": "ü", "seed": 2, "logger.x": 3}, {})
        changed = {"a": {"z": "ü", "c": [1, {"d": None}]}, "logger": {"x": 3}, "e": {}, "seed": 2}
        identity = Identity(flatten(config))
        assert identity.of([]) == fingerprint(config) and identity.of([change]) == fingerprint(changed)


@pytest.fixture(scope="module")
def load():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield lambda overrides: compose("config", overrides=["augment=none", *overrides], return_hydra_config=True)


def planner(load, grid) -> Planner:
    return Planner(compose_with(load, resolved), cells(grid), GROUPS)


class TestPlanner:
    @pytest.mark.parametrize(
        ("grid", "together"),
        [
            ({"encoder": ["rnn", "conformer"], "optimizer.lr": [0.1, 0.2], "repeat": 3}, []),
            ({"encoder": ["rnn", "conformer"], "size": ["tiny", "small"]}, [{"encoder", "size"}]),
            ({"frontend": ["logmel", "mfcc"], "data.sample_rate": [8000, 16000]}, [{"frontend", "data.sample_rate"}]),
            (
                {
                    "clipping": ["none", "agc"],
                    "when": [{"if": {"clipping": "agc"}, "grid": {"clipping.eps": [0.1, 0.2]}}],
                },
                [{"clipping", "clipping.eps"}],
            ),
            ({"clipping": ["norm", "value"], "clipping.threshold": [0.5, 2.0], "encoder.n_layers": [1, 2]}, []),
            ({"decoder": ["ctc", "joint"], "decoding": ["ctc", "joint"]}, [{"decoder", "decoding"}]),
        ],
    )
    @pytest.mark.quick(1)
    def test_as_composed_in_full(self, load, grid, together):
        plan = planner(load, grid)
        assert [set(c) for c in plan.classes if len(c) > 1] == together
        for cell, found in zip(plan.cells, plan.fingerprints(), strict=True):
            full = load(overrides(cell))
            config = resolved(full)
            assert plan.flat(cell) == flatten(config) and found == fingerprint(config)
            assert plan.choices(cell) == {k: v for k, v in full.hydra.runtime.choices.items() if v is not None}
        assert plan.wrong() is None

    def test_numbers_that_nobody_refers_to_cost_no_composition(self, load):
        loads = []

        def counting(overrides):
            loads.append(overrides)
            return load(overrides)

        plan = planner(counting, {"encoder": ["rnn", "lstm"], "optimizer.lr": [i / 1000 for i in range(1, 101)]})
        assert len(set(plan.fingerprints())) == 200 and len(loads) == 3

    def test_a_plan_that_is_wrong_is_seen(self, load):
        plan = planner(load, {"optimizer.lr": [0.1, 0.2]})
        plan.base.flat["optimizer.eps"] = 7
        assert plan.wrong() is not None
