"""The pictures of the documentation: small, all shown, and rendered from the runs in the repository."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gallery  # noqa: E402


def test_the_pictures_are_small_and_all_shown():
    pictures = sorted(gallery.PICTURES.glob("*.png"))
    assert pictures and all(p.stat().st_size <= gallery.MOST_BYTES for p in pictures)
    shown = re.findall(r"\]\(pictures/([^)]+)\)", (ROOT / "docs" / "gallery.md").read_text())
    assert sorted(shown) == [p.name for p in pictures]


def test_the_archive_is_a_finished_experiment(tmp_path):
    assert gallery.ARCHIVE.stat().st_size < 1_000_000
    folder = gallery.unpack(tmp_path)
    planned = {cell["name"] for cell in json.loads((folder / "sweep.json").read_text())["cells"]}
    results = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/result.json")}
    assert set(results) == planned and {r["status"] for r in results.values()} == {"done"}
    assert {r["git"]["dirty"] for r in results.values()} == {False}
    assert len({r["code"] for r in results.values()}) == 1
    assert all((folder / name / "hyps.test.jsonl").exists() for name in results)


def test_packing_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    folder = gallery.unpack(tmp_path)
    made = []
    for name in ("one", "two"):
        monkeypatch.setattr(gallery, "ARCHIVE", tmp_path / name / "runs.tar.xz")
        made.append(gallery.pack(folder).read_bytes())
    assert made[0] == made[1]


def test_pictures_get_small(tmp_path):
    import io

    import numpy as np
    from PIL import Image

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8))
    png = io.BytesIO()
    noise.save(png, "PNG")
    path = gallery.optimised(png.getvalue(), tmp_path / "noise.png")
    assert path.stat().st_size <= gallery.MOST_BYTES < len(png.getvalue())


@pytest.mark.slow
def test_every_picture_is_made(tmp_path):
    pytest.importorskip("playwright")
    if shutil.which("chromium") is None:
        pytest.skip("no chromium here")
    from PIL import Image

    made = list(gallery.gallery(gallery.unpack(tmp_path), tmp_path / "pictures"))
    assert {p.name for p in made} == {p.name for p in gallery.PICTURES.glob("*.png")}
    for path in made:
        colours = Image.open(path).convert("L").getextrema()
        assert colours[1] - colours[0] > 100, f"{path.name}: nothing on it"


def test_without_chromium_a_clear_line(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit) as stop, gallery.browser():
        pass
    assert str(stop.value).startswith("gallery: ")
