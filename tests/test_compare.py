"""`asr-lab compare`: runs found, refused, matched and told apart; text that nobody should trust."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from asr_lab.errors import RunError
from asr_lab.report import stats
from asr_lab.report.compare import compare
from asr_lab.report.differences import ABSENT, belongs, confounds, differences, guessed_factor
from asr_lab.report.side_by_side import side_by_side
from asr_lab.report.sides import sides_of
from asr_lab.report.terminal import stacked, visible
from asr_lab.report.words import align
from asr_lab.run import Run

from .conftest import Done, only_line
from .test_report import jsonl, recognise, references, row

ENCODERS = {
    "gru": {"_target_": "asr_lab.encoders.recurrent.RecurrentEncoder", "d_hidden": 64},
    "conformer": {"_target_": "asr_lab.encoders.conformer.Conformer", "d_model": 96, "attention": {"n_heads": 4}},
}
CLIPPINGS = {"none": {"_target_": "a.NoClipping"}, "norm": {"_target_": "a.NormClipping", "threshold": 1.0}}


def config(encoder: str = "gru", clipping: str = "none", seed: int = 1, **over) -> dict:
    made = {
        "experiment": "many",
        "seed": seed,
        "data": {"score": "wer", "normalizer": {"_target_": "asr_lab.text.normalize.basic"}},
        "encoder": ENCODERS[encoder],
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.002},
        "clipping": CLIPPINGS[clipping],
        "runtime": {"n_threads": 1},
    }
    for key, value in over.items():
        group, name = key.split("__")
        made[group] = made[group] | {name: value}
    return made


def write_run(
    folder: Path,
    encoder: str = "gru",
    clipping: str = "none",
    seed: int = 1,
    rate: float = 0.2,
    rows: list[dict] | None = None,
    result: dict | None = None,
    **over,
) -> Path:
    """A finished run as training leaves it; `over` replaces keys of its configuration: optimizer__lr=1."""
    factors = {"encoder": encoder, "clipping": clipping, "seed": seed}
    run = Run(folder, config(encoder, clipping, seed, **over), factors)
    run.folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(run.config))
    if rows is None:
        rng = random.Random(str(folder.name))
        rows = [row(i, ref, recognise(rng, ref, rate), f"spk{i % 12}") for i, ref in enumerate(references(60))]
    jsonl(folder / "hyps.test.jsonl", rows)
    jsonl(folder / "hyps.val.jsonl", rows[:20])
    found = {
        "status": "done",
        "reason": None,
        "fingerprint": run.fingerprint,
        "factors": factors,
        "metrics": {"test/wer": rate},
        "score": "wer",
        "parameters": 1_000_000,
        "encoder": {"macs_per_audio_second": 30_000_000},
        "seconds": {"train": 100.0},
        "audio_seconds_per_second": 50.0,
        "peak_memory_mb": 800.0,
        "environment": {"torch": "2.11.0", "host": "lab"},
        "git": {"commit": "0" * 40, "dirty": False},
        "code": "abc",
        "data": {"digest": {"train": "t", "val": "v", "test": "d"}},
    }
    (folder / "result.json").write_text(json.dumps(found | (result or {})))
    return folder


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """outputs/ with one experiment: 2 encoders x 2 clippings x 3 seeds; conformer is better, clipping does nothing."""
    outputs = tmp_path_factory.mktemp("grid") / "outputs"
    for encoder, rate in (("gru", 0.3), ("conformer", 0.15)):
        for clipping in CLIPPINGS:
            for seed in (1, 2, 3):
                name = f"encoder={encoder},clipping={clipping},seed={seed}-{encoder[:1]}{clipping[:3]}{seed}"
                write_run(outputs / "many" / name, encoder, clipping, seed, rate)
    return outputs


def found(outputs: Path, *arguments: str, split: str = "test", experiment=None, seeds=False, **options):
    return compare(sides_of(arguments, outputs, split, experiment, seeds), split, **options)


class TestDifferences:
    def test_only_numbered_keys_the_seed_apart(self):
        a, b = config(seed=1), config("conformer", seed=2) | {"runtime": {"n_threads": 2}, "experiment": "other"}
        assert differences({"a": a, "b": b}) == {
            "encoder._target_": (ENCODERS["gru"]["_target_"], ENCODERS["conformer"]["_target_"]),
            "encoder.d_hidden": (64, ABSENT),
            "encoder.d_model": (ABSENT, 96),
            "encoder.attention.n_heads": (ABSENT, 4),
        }

    def test_values_keep_the_order_of_the_runs_and_their_types(self):
        flat = {"a": {"x": 1, "y": True}, "b": {"x": 1.0, "y": 1}, "c": {"x": 1, "y": True}}
        assert differences(flat) == {"y": (True, 1, True)}
        assert differences({"only": {"x": 1}}) == {} == differences({})

    @pytest.mark.parametrize(
        ("key", "factor", "mine"),
        [
            ("encoder.d_model", "encoder", True),
            ("encoder/cell", "encoder", True),
            ("encoder.subsampling.stride", "encoder/subsampling", True),
            ("encoder.d_model", "encoder/subsampling", False),
            ("encoders.d_model", "encoder", False),
            ("clipping.threshold", "clipping.threshold", True),
            ("clipping.p", "clipping.threshold", False),
            ("decoding.beam", "decoder", True),
            ("decoder.dropout", "decoding", False),
            ("encoder.d_model", "size", True),
            ("encoder._target_", "size", False),
            ("encoder.n_layers", "match.target", True),
            ("optimizer.lr", "size", False),
        ],
    )
    def test_belongs(self, key, factor, mine):
        assert belongs(key, factor) is mine

    def test_guess_is_the_most_specific_choice_that_explains_all(self):
        keys = ["encoder.subsampling.stride", "encoder.subsampling.stages"]
        assert guessed_factor(keys, ["encoder", "encoder/subsampling"]) == "encoder/subsampling"
        assert guessed_factor([*keys, "encoder.d_model"], ["encoder", "encoder/subsampling"]) == "encoder"
        assert guessed_factor(["clipping.threshold"]) == "clipping.threshold"
        assert guessed_factor(["clipping.threshold", "clipping.p"]) == "clipping"
        assert guessed_factor(["clipping.p", "encoder.d_model"], ["encoder", "clipping"]) is None
        assert guessed_factor([]) is None

    def test_confounds(self):
        keys = ["encoder.d_model", "optimizer.lr"]
        assert confounds(keys, "encoder") == ["optimizer.lr"]
        assert confounds(keys, None) == keys


class TestSideBySide:
    def test_by_hand(self):
        columns = side_by_side("the cat sat", ["the bat sat", "oh the cat uh"])
        assert [c.ref for c in columns] == ["", "the", "cat", "sat"]
        assert [c.hyps for c in columns] == [("", "oh"), ("the", "the"), ("bat", "cat"), ("sat", "uh")]
        assert [c.marks for c in columns] == [("", "I"), ("", ""), ("S", ""), ("", "S")]

    def test_characters(self):
        assert [c.hyps[0] for c in side_by_side("ab c", ["abd"], "cer")] == ["a", "b", "d"]

    words = st.lists(st.sampled_from("abc"), max_size=6).map(" ".join)

    @given(words, st.lists(words, min_size=1, max_size=3))
    def test_nothing_is_lost_and_counts_are_those_of_each_alignment(self, ref, hyps):
        columns = side_by_side(ref, hyps)
        assert [c.ref for c in columns if c.ref] == ref.split()
        for k, hyp in enumerate(hyps):
            assert [c.hyps[k] for c in columns if c.hyps[k]] == hyp.split()
            alone = sum(p.mark != "" for p in align(ref, hyp))
            assert sum(c.marks[k] != "" for c in columns) == alone


class TestTerminal:
    def test_visible(self):
        assert visible("\x1b[31mred\x07\n\u202eevil\ud800\x9b") == "\\x1b[31mred\\x07\\x0a\\u202eevil\\ud800\\x9b"
        assert visible("[bold]zwölf 十二 می‌خواهم") == "[bold]zwölf 十二 می‌خواهم"

    @given(
        st.lists(st.tuples(st.text("ab十", max_size=30), st.text("ab十", max_size=30)).filter(any), max_size=8),
        st.integers(12, 60),
    )
    def test_blocks_fit_and_hold_everything(self, columns, width):
        blocks = list(stacked(["REF", "A"], [[(w, "") for w in column] for column in columns], width))
        for block in blocks:
            assert all(cell_len(line.plain) <= width for line in block)
        for k in range(2):
            said = "".join(block[k].plain[4:] for block in blocks).replace(" ", "").replace("*", "")
            assert said == "".join(column[k] for column in columns)


class TestRates:
    def test_of_two_runs_are_those_of_the_statistics(self, grid):
        out = found(grid, "gnon1", "cnon1")
        a, b = (e.members[0].scores for e in out.entries)
        assert out.entries[0].rates["wer"].value == pytest.approx(a.errors.sum() / a.words.sum())
        assert out.entries[1].kinds == pytest.approx(b.edits.sum(0) / b.words.sum())
        assert out.entries[1].rates["cer"].value == pytest.approx(b.char_errors.sum() / b.chars.sum())
        [pair] = out.pairs
        delta = stats.delta_interval(b.errors, a.errors, a.words, blocks=a.speakers)
        assert pair.delta == pytest.approx(delta)
        assert pair.p == stats.paired_bootstrap(b.errors, a.errors, a.words, blocks=a.speakers).p == pair.p_holm
        assert pair.fewer == (b.errors < a.errors).sum() and pair.more == (b.errors > a.errors).sum()
        assert out.resampled == "12 speakers"

    def test_a_real_difference_is_told_and_none_is_not_made_up(self, grid):
        encoders = found(grid, "encoder=gru", "encoder=conformer").pairs[0]
        assert encoders.p_holm < 0.01 and encoders.delta.high < 0
        clippings = found(grid, "clipping=none", "clipping=norm").pairs[0]
        assert clippings.p_holm > 0.05 and clippings.delta.includes(0)

    def test_corrected_over_all_pairs(self, grid):
        out = found(grid, "gnon1", "gnon2", "cnon1")
        assert [(p.a, p.b) for p in out.pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
        assert [p.p_holm for p in out.pairs] == pytest.approx(stats.holm([p.p for p in out.pairs]))

    def test_all_tests_of_two_runs(self, grid):
        [pair] = found(grid, "gnon1", "cnon1", tests=True).pairs
        names = ["paired bootstrap", "permutation", "MAPSSWE", "McNemar", "sign", "Wilcoxon"]
        assert list(pair.tests) == names and not pair.skipped
        assert all(0 <= t.p <= 1 for t in pair.tests.values())

    def test_tests_of_words_are_not_made_of_seeds(self, grid):
        [pair] = found(grid, "encoder=gru", "encoder=conformer", tests=True).pairs
        assert list(pair.tests) == ["paired bootstrap", "permutation", "sign", "Wilcoxon"]
        assert set(pair.skipped) == {"MAPSSWE", "McNemar"}

    def test_cost_is_a_mean_of_what_was_recorded(self, tmp_path):
        for seed, train in ((1, 100.0), (2, 300.0)):
            write_run(tmp_path / "x" / f"a{seed}", seed=seed, result={"seconds": {"train": train}})
        write_run(tmp_path / "x" / "b", "conformer", result={"seconds": None, "peak_memory_mb": None})
        out = found(tmp_path, "encoder=gru", "encoder=conformer")
        assert out.entries[0].cost["seconds/train"] == (200.0, 100.0, 300.0)
        assert np.isnan(out.entries[1].cost["peak_memory_mb"].mean)

    def test_val(self, grid):
        assert found(grid, "gnon1", "cnon1", split="val").n_utterances == 20


class TestMatching:
    def test_levels_are_means_over_the_same_cells(self, grid):
        out = found(grid, "clipping=none", "clipping=norm")
        assert out.factor == "clipping" and not out.confounds
        assert out.over["encoder.d_model"] == [ABSENT, "96"] or out.over["encoder.d_model"] == ["96", ABSENT]
        entry = out.entries[0]
        assert (len(entry.members), entry.n_seeds) == (6, 3)
        by_hand = np.mean([m.scores.errors.sum() / m.scores.words.sum() for m in entry.members])
        assert entry.rates["wer"].value == pytest.approx(by_hand)

    def test_a_run_without_counterpart_is_left_out_and_named(self, tmp_path):
        for encoder in ENCODERS:
            for clipping in CLIPPINGS:
                write_run(tmp_path / "x" / f"{encoder}-{clipping}", encoder, clipping)
        (tmp_path / "x" / "conformer-norm" / "result.json").write_text(
            json.dumps({"status": "failed", "reason": "out of memory", "factors": {"encoder": "x", "clipping": "norm"}})
        )
        write_run(tmp_path / "x" / "gru-norm2", "gru", "norm", 2)
        out = found(tmp_path, "clipping=none,encoder=gru", "clipping=norm")
        assert [len(e.members) for e in out.entries] == [1, 2]
        assert any("left out, for not finished: conformer-norm (failed: out of memory)" in n for n in out.notes)

    def test_unequal_seeds_of_several_cells(self, tmp_path):
        for encoder in ENCODERS:
            for clipping in CLIPPINGS:
                for seed in (1, 2, 3):
                    if (encoder, clipping, seed) != ("gru", "norm", 2):
                        write_run(tmp_path / "x" / f"{encoder}-{clipping}-{seed}", encoder, clipping, seed)
        out = found(tmp_path, "clipping=none", "clipping=norm")
        assert [e.n_seeds for e in out.entries] == [3, 2]
        assert {m.seed for m in out.entries[1].members} == {"1", "3"}
        assert any("left out" in n and "conformer-norm-2" in n for n in out.notes)

    def test_seeds_of_a_run(self, grid):
        out = found(grid, "gnon1", "cnon2", seeds=True)
        assert [e.n_seeds for e in out.entries] == [3, 3]
        assert out.factor == "encoder" and not any("one seed" in n for n in out.notes)

    def test_one_seed_is_said(self, grid):
        assert any(n.startswith("one seed only (A, B): no seed interval") for n in found(grid, "gnon1", "cnon1").notes)


class TestConfounds:
    def test_another_key(self, tmp_path):
        write_run(tmp_path / "x" / "a")
        write_run(tmp_path / "x" / "b", "conformer", optimizer__lr=0.1)
        out = found(tmp_path, "a", "b")
        assert out.factor is None and out.factor_guessed and "optimizer.lr" in out.confounds
        out = found(tmp_path, "a", "b", factor="encoder")
        assert out.confounds == ("optimizer.lr",) and not out.factor_guessed
        with pytest.raises(RunError, match="did you mean 'encoder'"):
            found(tmp_path, "a", "b", factor="encodr")

    def test_a_factor_that_does_not_differ(self, tmp_path, asr_lab):
        write_run(tmp_path / "outputs" / "x" / "a")
        write_run(tmp_path / "outputs" / "x" / "b", optimizer__lr=0.1)
        done = compared(asr_lab, tmp_path / "outputs", "a", "b", "--factor", "encoder")
        assert "encoder does not differ; what does is optimizer.lr" in done.stdout

    @pytest.mark.parametrize(
        ("result", "said"),
        [
            ({"code": "def", "git": {"commit": "1" * 40, "dirty": False}}, "different code"),
            ({"git": {"commit": "0" * 40, "dirty": True}}, "uncommitted changes: B"),
            ({"data": {"digest": {"train": "other", "test": "d"}}}, "different data"),
            ({"environment": {"torch": "2.12.0", "host": "lab"}}, "version of torch: A 2.11.0, B 2.12.0"),
            ({"environment": {"torch": "2.11.0", "host": "cluster"}}, "different machines"),
            ({"fingerprint": "f" * 16}, "is not the one that it ran with"),
        ],
    )
    def test_circumstances(self, tmp_path, result, said):
        write_run(tmp_path / "x" / "a")
        write_run(tmp_path / "x" / "b", "conformer", result=result)
        [warning] = found(tmp_path, "a", "b").warnings
        assert said in warning

    def test_a_commit_that_changed_nothing_which_counts_is_none(self, tmp_path):
        write_run(tmp_path / "x" / "a")
        write_run(tmp_path / "x" / "b", "conformer", result={"git": {"commit": "1" * 40, "dirty": False}})
        assert found(tmp_path, "a", "b").warnings == ()

    def test_nothing_differs(self, tmp_path):
        rows = [row(i, "yes no", "yes", "s") for i in range(5)]
        write_run(tmp_path / "x" / "a", rows=rows)
        write_run(tmp_path / "x" / "b", seed=2, rows=rows)
        out = found(tmp_path, "a", "b")
        assert not out.differing and out.factor is None and not out.confounds
        assert "A and B are identical: every word of every hypothesis is the same" in out.notes
        assert out.pairs[0].p_holm == 1 and out.pairs[0].delta == (0, 0, 0) and not out.changes


class TestChanges:
    def test_the_largest_change_first_in_either_direction(self, tmp_path):
        refs = ["one two three four", "five six", "yes", "no"]
        a = [row(i, r, h, "s") for i, (r, h) in enumerate(zip(refs, ["one", "five six", "yes", "go"], strict=True))]
        b = [row(i, r, h, "s") for i, (r, h) in enumerate(zip(refs, [refs[0], "five", "yes", "no"], strict=True))]
        write_run(tmp_path / "x" / "a", rows=a)
        write_run(tmp_path / "x" / "b", rows=b, seed=2)
        out = found(tmp_path, "a", "b")
        assert [(c.id, c.change) for c in out.changes] == [("utt0000", -3), ("utt0001", 1), ("utt0003", -1)]
        assert out.changes[0].hyps == ("one", "one two three four")

    def test_of_several_runs_the_one_nearest_to_the_mean(self, tmp_path):
        for seed, hyp in enumerate(["yes", "yes no", "a b c d e f g"]):
            write_run(
                tmp_path / "x" / f"a{seed}", seed=seed, rows=[row(0, "yes no", hyp, "s"), row(1, "up", "up", "s")]
            )
        write_run(tmp_path / "x" / "b", "conformer", rows=[row(0, "yes no", "yes no", "s"), row(1, "up", "up", "s")])
        [change] = found(tmp_path, "encoder=gru", "encoder=conformer").changes
        assert change.errors == (pytest.approx(8 / 3), 0) and change.hyps == ("yes", "yes no")


def compared(asr_lab, outputs: Path, *arguments: str, **env: str) -> Done:
    return asr_lab("compare", *arguments, "--outputs", str(outputs), cwd=outputs.parent, **env)


class TestCommand:
    def test_shows_it_all(self, grid, asr_lab):
        done = compared(asr_lab, grid, "gnon1", "cnon1", "--tests")
        assert done.returncode == 0, done.stderr
        for text in (
            "Factor: encoder",
            "encoder.d_hidden",
            "WER %",
            "p, corrected",
            "substitutions %",
            "MACs",
            "MAPSSWE",
        ):
            assert text in done.stdout
        assert "B is better than A" in done.stdout and "REF " in done.stdout and "one seed only" in done.stdout

    def test_json_has_stable_keys_and_no_nan(self, grid, asr_lab):
        done = compared(asr_lab, grid, "encoder=gru", "encoder=conformer", "--json", "--top", "2")
        out = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        keys = "split score utterances units resampled level sides pairs factor differences choices mean_over"
        assert list(out) == [*keys.split(), "confounds", "warnings", "notes", "changed"]
        assert out["pairs"][0]["delta"]["value"] < 0 and out["factor"] == {"name": "encoder", "guessed": True}
        assert set(out["sides"]) == {"A", "B"} and len(out["sides"]["A"]["runs"]) == 6 and len(out["changed"]) == 2
        assert out["differences"]["encoder.d_hidden"] == {"A": "64", "B": ABSENT}

    @pytest.mark.parametrize("columns", ["30", "50", "200"])
    def test_fits_the_terminal(self, grid, asr_lab, columns):
        done = compared(asr_lab, grid, "gnon1", "cnon1", "gnon2", "--top", "4", COLUMNS=columns)
        assert done.returncode == 0, done.stderr
        assert max(map(cell_len, done.stdout.splitlines())) <= int(columns)

    def test_hostile_text_is_neutralised(self, tmp_path, asr_lab):
        evil = "\x1b]0;owned\x07 [red]x[/red] [/] \u202etxt \x9b2J " + "w" * 300
        rows = [row(0, "yes no", "yes", "s"), row(1, "up", "up", "s")]
        bad = [rows[0] | {"hyp": evil, "sub": 2, "speaker": "\x1b[2J"}, rows[1]]
        outputs = tmp_path / "outputs"
        write_run(outputs / "x" / "a", rows=rows)
        write_run(
            outputs / "x" / "b\x1b[31m", "conformer", rows=bad, result={"git": {"commit": "\x1b[5m", "dirty": False}}
        )
        for more in ([], ["--json"]):
            done = compared(asr_lab, outputs, "a", "b", *more, COLUMNS="60")
            assert done.returncode == 0, done.stderr
            assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(done.stdout)
        done = compared(asr_lab, outputs, "a", "b", "--split", "\x1b[31m")
        assert "\x1b" not in only_line(done)


class TestBadInput:
    @pytest.fixture
    def outputs(self, tmp_path) -> Path:
        write_run(tmp_path / "outputs" / "x" / "good")
        return tmp_path / "outputs"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["good"], "two runs or configurations are wanted"),
            (["good", "god"], "did you mean 'good'?"),
            (["good", "good"], "is both A and B, so nothing can differ"),
            (["encoder=gru", "clipping=none"], "is both A and B"),
            (["good", "encoder=gur"], "no run for 'encoder=gur', as none has encoder=gur; did you mean 'gru'?"),
            (["good", "encodr=gru"], "no run has a factor 'encodr'; did you mean 'encoder'?"),
            (["good", "encoder="], "'encoder' is none"),
            (["good", "encoder=gru", "--experiment", "y"], "no experiment 'y'"),
            (["good", "good", "--split", "tets"], "no hypotheses of 'tets'; did you mean 'test'?"),
        ],
    )
    def test_arguments(self, outputs, asr_lab, arguments, said):
        assert said in only_line(compared(asr_lab, outputs, *arguments))

    def test_of_many_runs_not_all_are_listed(self, outputs, asr_lab):
        for i in range(12):
            (outputs / "y" / f"cell{i}").mkdir(parents=True)
            (outputs / "y" / f"cell{i}" / "result.json").write_text("{}")
        line = only_line(compared(asr_lab, outputs, "good", "el"))
        assert "no run 'el'; there are 12, such as cell0" in line

    def test_overlapping_configurations(self, outputs, asr_lab):
        write_run(outputs / "x" / "more", seed=2)
        line = only_line(compared(asr_lab, outputs, "good", "encoder=gru"))
        assert "is in both A (good) and B (encoder=gru)" in line

    def test_which_experiment(self, outputs, asr_lab):
        write_run(outputs / "y" / "other")
        assert "--experiment is wanted" in only_line(compared(asr_lab, outputs, "good", "encoder=gru"))
        assert compared(asr_lab, outputs, "good", "encoder=gru", "--experiment", "y").returncode == 0

    def test_unfinished(self, outputs, asr_lab):
        write_run(outputs / "x" / "late", "conformer", result={"status": "running"})
        assert "late: is not finished (running)" in only_line(compared(asr_lab, outputs, "good", "late"))
        line = only_line(compared(asr_lab, outputs, "good", "encoder=conformer"))
        assert "none of its 1 runs is finished, the first is late (running)" in line

    def test_other_test_sets(self, outputs, asr_lab):
        rows = [row(i, "yes no", "yes", "s") for i in range(60)]
        write_run(outputs / "x" / "words", "conformer", rows=rows)
        line = only_line(compared(asr_lab, outputs, "good", "words"))
        assert "scored on different test sets: 60 references differ, as that of 'utt0000'" in line
        write_run(outputs / "x" / "fewer", "conformer", rows=rows[:50])
        assert "60 and 50 utterances, 50 of them in both" in only_line(compared(asr_lab, outputs, "good", "fewer"))
        write_run(outputs / "x" / "digest", "conformer", result={"data": {"digest": {"test": "other"}}})
        assert "digests d and other" in only_line(compared(asr_lab, outputs, "good", "digest"))

    def test_other_normalisers(self, outputs, asr_lab):
        english = {"_target_": "asr_lab.text.normalize.english", "years": True}
        write_run(outputs / "x" / "english", "conformer", data__normalizer=english)
        line = only_line(compared(asr_lab, outputs, "good", "english"))
        assert "scored with different normalisers (basic and english, years=true)" in line

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "empty"),
            ('{"id": "a", "ref": "x", "hyp": "y", "sub": 1, "del": 0, "ins": 0, "words": 1}\n{"id": "b', "torn"),
            ('{"id": "a", "ref": "x", "hyp": "y", "sub": -1, "del": 0, "ins": 0, "words": 1}\n', "-1 is not a count"),
            ("\x00\n{}\n", "not a JSON object"),
        ],
    )
    def test_damaged_hypotheses_are_named(self, outputs, asr_lab, text, said):
        write_run(outputs / "x" / "bad", "conformer")
        (outputs / "x" / "bad" / "hyps.test.jsonl").write_text(text)
        line = only_line(compared(asr_lab, outputs, "good", "bad"))
        assert "bad/hyps.test.jsonl" in line and said in line

    def test_a_score_that_is_absent(self, outputs, asr_lab):
        rows = [{k: v for k, v in row(i, "yes no", "yes", "s").items() if "char" not in k} for i in range(5)]
        write_run(outputs / "x" / "older", rows=rows)
        write_run(outputs / "x" / "old", "conformer", rows=rows)
        assert "no CER" in only_line(compared(asr_lab, outputs, "older", "old", "--score", "cer"))
        done = compared(asr_lab, outputs, "older", "old")
        assert done.returncode == 0 and "CER" not in done.stdout
        assert "there is no score 'wre'; did you mean 'wer'?" in only_line(
            compared(asr_lab, outputs, "older", "old", "--score", "wre")
        )

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"factors": 1}'])
    def test_damaged_result(self, outputs, asr_lab, text):
        write_run(outputs / "x" / "bad", "conformer")
        (outputs / "x" / "bad" / "result.json").write_text(text)
        assert "bad" in only_line(compared(asr_lab, outputs, "good", "bad"))

    @pytest.mark.parametrize("text", ["", "- 1", "a: [", "\0"])
    def test_damaged_configuration(self, outputs, asr_lab, text):
        write_run(outputs / "x" / "bad", "conformer")
        (outputs / "x" / "bad" / "config.yaml").write_text(text)
        assert "bad" in only_line(compared(asr_lab, outputs, "good", "bad"))

    @pytest.mark.parametrize("rows", [[row(0, "yes no", "yes", "s")], [row(i, "", "uh", "s") for i in range(9)]])
    def test_too_little_for_an_interval(self, tmp_path, asr_lab, rows):
        for name, encoder in (("a", "gru"), ("b", "conformer")):
            write_run(tmp_path / "outputs" / "x" / name, encoder, rows=rows)
        for more in ([], ["--json"]):
            done = compared(asr_lab, tmp_path / "outputs", "a", "b", *more)
            assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pairs"][0]["p_holm"] is None
