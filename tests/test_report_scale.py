"""The report of many cells stays one page that can be mailed: `benchmarks/report.py` measures how long it takes."""

import subprocess
import sys

import pytest

from asr_lab.report.svg_lines import Line, thin

from .test_report import write_cell, write_plan

MEASURED = """
import sys
from pathlib import Path
from asr_lab.report.render import render
page = render(Path(sys.argv[1]))["html"]
# getrusage would give the test's own memory, from before the exec.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(page.stat().st_size, int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
def test_five_hundred_configurations_are_under_two_megabytes_and_one_gigabyte(tmp_path):
    cells = {}
    for encoder in ("rnn", "lstm", "bilstm", "gru", "conformer"):
        for optimizer in ("adam", "adamw", "sgd", "lion"):
            for i in range(25):
                factors = {"encoder": encoder, "optimizer": optimizer, "optimizer.lr": float(f"{1e-4 * 1.3**i:.3g}")}
                name = f"encoder={encoder},optimizer={optimizer},optimizer.lr={i},{'trainer.max_epochs=30,' * 2}{i:08x}"
                cells[name] = {**factors, "seed": 1}
    for i, (name, factors) in enumerate(cells.items()):
        write_cell(tmp_path / name, factors, 0.1 + 0.0005 * i, n=6, speakers=6)
    write_plan(tmp_path, cells)
    done = subprocess.run([sys.executable, "-c", MEASURED, tmp_path], capture_output=True, text=True, check=True)
    size, memory = map(int, done.stdout.split())
    assert size < 2e6 and memory < 1e9
    page = (tmp_path / "report.html").read_text()
    assert page.count('scope="row" data-label="encoder"') == 500  # every configuration has its row


def test_thinned_curves_keep_their_ends_and_every_peak():
    n = 1000
    high = [1.0] * n
    high[777], low = 9.0, [0.5] * n
    low[123] = 0.1
    line = Line("a", list(range(n)), [0.7] * n, low, high)
    found = thin(line, 80)
    assert len(found.xs) <= 81 and found.xs[0] == 0 and found.xs[-1] == n - 1
    assert max(found.high) == 9.0 and min(found.low) == 0.1
    assert list(found.xs) == sorted(found.xs) and len({*map(len, found[1:])}) == 1
    short = Line("b", [1, 2], [1, 1], [1, 1], [1, 1])
    assert thin(short, 80) is short
