"""Which GPUs a cell gets: pretended ones, for there need be none here."""

from asr_lab.sweep.gpus import Gpus, visible

LISTING = "0, GPU-aa, 80000\n1, GPU-bb, 40000\n2, GPU-cc, 40000\n"


def test_visible_ones():
    assert visible(LISTING, None) == {"0": 80000, "1": 40000, "2": 40000}
    assert visible(LISTING, "2,GPU-aa") == {"2": 40000, "GPU-aa": 80000}
    assert visible(LISTING, "") == {} and visible("", None) == {}


def test_one_cell_each_and_several_devices_for_one():
    gpus = Gpus({"0": 10.0, "1": 10.0}, 1)
    assert gpus.take(1) == ["0"] and gpus.take(1) == ["1"] and gpus.take(1) is None
    gpus.give(["0"], None)
    assert gpus.take(2) is None
    gpus.give(["1"], None)
    assert gpus.take(2) == ["0", "1"]


def test_auto_fills_the_memory_once_it_is_known():
    gpus = Gpus({"0": 1000.0, "1": 500.0}, "auto")
    first = gpus.take(1)
    assert first == ["0"] and gpus.take(1) == ["1"] and gpus.take(1) is None
    gpus.give(["0"], 220.0)
    assert (gpus.capacity("0"), gpus.capacity("1")) == (4, 2)  # of 90 % of each
    taken = [gpus.take(1) for _ in range(5)]
    assert sorted(t[0] for t in taken if t) == ["0", "0", "0", "0", "1"] and gpus.take(1) is None
    gpus.give(["1"], 600.0)  # one that needs more than there is still runs alone
    assert gpus.capacity("1") == 1


def test_the_least_laden_first():
    gpus = Gpus({"0": 10.0, "1": 10.0}, 3)
    assert [gpus.take(1) for _ in range(4)] == [["0"], ["1"], ["0"], ["1"]]
