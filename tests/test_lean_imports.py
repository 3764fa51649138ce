"""Our processes import Lightning without what its metrics would draw with."""

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def test_lightning_comes_without_pictures_and_all_else_works():
    said = run(
        """
import sys
from asr_lab.lean_imports import import_leanly
import_leanly()
import_leanly()
import pytorch_lightning
print(sorted({"matplotlib", "scipy.signal"} & sys.modules.keys()))
from lightning_utilities.core.imports import RequirementCache, package_available
print(package_available("scipy"), bool(RequirementCache("matplotlib")))
import torch
from torchmetrics import MeanMetric
from torchmetrics.functional.audio import permutation_invariant_training, scale_invariant_signal_noise_ratio
metric = MeanMetric()
metric.update(3.0)
print(float(metric.compute()))
speech = torch.randn(1, 4, 100)  # with four speakers it asks scipy for the best permutation
print(permutation_invariant_training(speech, speech[:, [2, 0, 1, 3]], scale_invariant_signal_noise_ratio)[1].tolist())
try:
    metric.plot()
except ModuleNotFoundError as error:
    print(error)
import matplotlib.pyplot
"""
    ).splitlines()
    assert said[:4] == ["[]", "True True", "3.0", "[[2, 0, 1, 3]]"]
    assert "matplotlib" in said[4]


def test_a_torchmetrics_that_is_there_stays_as_it_is():
    said = run(
        "import torchmetrics, sys; n = len(sys.meta_path)\n"
        "from asr_lab.lean_imports import import_leanly; import_leanly(); print(len(sys.meta_path) - n)"
    )
    assert said == "0\n"
