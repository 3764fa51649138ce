"""The dashboard in a real browser: pages, filters, keyboard, live updates, hostile texts, a thousand runs.

Pictures of what was seen are written to the test's temporary folder.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from ..outputs import curve, hold_run, write_gradients, write_outputs, write_run, write_unfinished

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here (Debian's package chromium)"),
]
EXPERIMENT = "encoder_x_clipping"
FACTORS = {"encoder": "gru", "clipping": "norm", "clipping.threshold": 1.0, "seed": 1}
HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
# What Chromium says of an answer that is no 200, which some tests want.
EXPECTED = re.compile(r"Failed to load resource|404|status of 40")


class Site(NamedTuple):
    url: str
    outputs: Path


def serve(outputs: Path, *options: str) -> tuple[subprocess.Popen, str]:
    """(process, the address that it prints)"""
    command = [sys.executable, "-m", "asr_lab", "dashboard", "--port", "0", "--outputs", str(outputs), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, "the server did not start"
    return process, found[0].rstrip("/")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        found = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    """A thousand runs in all states, and a small experiment of hostile names."""
    outputs = tmp_path_factory.mktemp("browser") / "outputs"
    home = write_outputs(outputs, 1000, points=30)
    write_gradients(sorted(p.parent for p in home.glob("*/hyps.test.jsonl"))[0])
    for i, name in enumerate(("a", HOSTILE.replace("/", "∕"))):
        rng, folder = random.Random(i), outputs / "hostile" / name
        rows = [{"id": HOSTILE, "ref": "a b", "hyp": HOSTILE + f" {i}", "sub": 2, "words": 2, "speaker": HOSTILE}]
        result = write_run(folder, FACTORS | {"seed": i}, rng, environment={"host": HOSTILE}, reason=HOSTILE)
        factors = {"factors": {"encoder": HOSTILE + str(i), HOSTILE: HOSTILE + str(i)}}
        (folder / "result.json").write_text(json.dumps(result | factors))
        (folder / "hyps.test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (folder / "train.log").write_text(HOSTILE)
        finding = {"kind": HOSTILE, "step": 1, "layer": HOSTILE, "ids": [HOSTILE], "text": HOSTILE}
        (folder / "findings.jsonl").write_text(json.dumps(finding) + "\n")
        write_gradients(folder, 200)
    process, url = serve(outputs)
    yield Site(url, outputs)
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture
def page(browser, tmp_path) -> Iterator[Any]:
    """A fresh page; a mistake in a script or a breach of the policy fails the test."""
    said: list[str] = []
    context = browser.new_context(viewport={"width": 1300, "height": 850}, reduced_motion="reduce")
    found = context.new_page()
    found.on("pageerror", lambda error: said.append(f"{error}\n{error.stack}"))
    found.on("console", lambda m: said.append(m.text) if m.type == "error" and not EXPECTED.search(m.text) else None)
    found.set_default_timeout(15_000)
    found.shot = lambda name: found.screenshot(path=tmp_path / f"{name}.png")
    yield found
    context.close()
    assert said == []


def until(page, expression: str) -> None:
    """Until it holds. Playwright's own way is an `eval` in the page, which the page's policy forbids, as it should."""
    end = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def names_in_sight(page, selector: str = "[data-run]") -> list[str]:
    return page.eval_on_selector_all(selector, "nodes => nodes.map(n => n.dataset.run)")


def test_a_thousand_runs_are_drawn_where_they_are_seen(page, site):
    """How long that takes, benchmarks/report.py measures."""
    page.goto(site.url)
    page.get_by_role("link", name=EXPERIMENT).click()
    page.locator(".matrix .cell").first.wait_for()
    page.shot("matrix")
    assert page.get_by_text("1,000 runs").first.is_visible()
    assert page.locator(".matrix [role=row]").count() < 80


def test_every_tab_of_a_thousand_runs(page, site):
    page.goto(f"{site.url}/#/e/{EXPERIMENT}")
    page.get_by_role("tab", name="Table").click()
    page.locator("[role=row][data-run]").first.wait_for()
    assert page.locator("[role=row][data-run]").count() < 80
    page.get_by_role("button", name="encoder", exact=True).click()  # sorts
    rows = page.locator("[role=row][data-run] [role=gridcell]:nth-child(3)")
    assert rows.first.inner_text() == "bilstm"
    page.get_by_role("button", name="encoder ▲").click()
    assert rows.first.inner_text() == "zipformer"
    page.locator(".scroll").evaluate("node => { node.scrollTop = node.scrollHeight }")
    until(page, "document.querySelectorAll('[aria-rowindex=\"1001\"]').length === 1")
    page.get_by_role("tab", name="Curves").click()
    page.locator(".series button").nth(29).wait_for()
    page.get_by_label("How many runs").select_option("all")
    page.get_by_text(re.compile(r"and 7\d\d more")).wait_for()
    page.shot("curves")
    page.get_by_role("tab", name="Parallel coordinates").click()
    page.locator(".axis").nth(6).wait_for()
    page.shot("parallel")


def test_filters_by_words_states_and_factors(page, site):
    page.goto(f"{site.url}/#/e/{EXPERIMENT}/table")
    status = page.locator(".filters [role=status]")
    page.get_by_label("Filter runs by words").fill("conformer autoclip")
    until(page, "document.querySelector('.filters [role=status]')?.textContent.startsWith('40 of')")
    assert all("conformer" in n and "autoclip" in n for n in names_in_sight(page))
    page.get_by_role("button", name="failed").click()
    until(page, "!document.querySelector('.filters [role=status]')?.textContent.startsWith('40 of')")
    assert all(
        "failed" in s for s in page.eval_on_selector_all("[role=row][data-run] .sign", "n => n.map(x => x.title)")
    )
    page.get_by_role("button", name="Clear").click()
    page.locator("summary[data-factor=encoder]").click()
    page.get_by_label("gru", exact=True).check()
    until(page, "document.querySelector('.filters [role=status]')?.textContent.startsWith('200 of')")
    page.keyboard.press("Escape")
    page.get_by_label("Group by").select_option("clipping")
    assert page.locator(".group").first.inner_text().startswith("clipping agc")
    page.shot("grouped")
    page.get_by_role("tab", name="Matrix").click()  # the filter holds for every view
    assert status.inner_text().startswith("200 of")
    page.get_by_role("link", name="Experiments").click()
    page.get_by_role("link", name=EXPERIMENT).click()
    until(page, "document.querySelector('.filters [role=status]')?.textContent.startsWith('200 of')")


def test_a_brushed_range_filters_the_table(page, site):
    page.goto(f"{site.url}/#/e/{EXPERIMENT}/factors")
    box = page.locator('.axis[data-axis="score"]').bounding_box()
    x, bottom = box["x"] + box["width"] / 2, box["y"] + box["height"]
    page.mouse.move(x, bottom - 2)
    page.mouse.down()
    page.mouse.move(x, bottom - 40, steps=4)
    page.mouse.up()
    page.get_by_role("tab", name="Table").click()
    page.locator("[role=row][data-run]").first.wait_for()
    first, last = page.evaluate(
        "() => { const t = [...document.querySelectorAll('[role=row][data-run] .right')].map(n => n.textContent);"
        "return [document.querySelector('.filters [role=status]').textContent, t[0]]; }"
    )
    assert re.match(r"\d+ of 1,000", first) and int(first.split()[0]) < 300 and last.endswith("%")
    page.get_by_role("tab", name="Parallel coordinates").click()
    axis = page.locator('.axis[data-axis="score"]')
    axis.focus()
    assert axis.get_attribute("aria-valuetext") != "all"
    page.keyboard.press("Escape")
    assert axis.get_attribute("aria-valuetext") == "all"
    page.keyboard.press("ArrowUp")
    assert axis.get_attribute("aria-valuetext") == "50 to 100 % of the axis"


def test_the_matrix_by_keyboard(page, site):
    page.goto(f"{site.url}/#/e/{EXPERIMENT}")
    page.locator(".matrix .cell").first.focus()
    here = "document.activeElement.closest('[data-row]').dataset.row + ',' + document.activeElement.dataset.col"
    assert page.evaluate(here) == "0,0"
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate(here) == "2,1"
    page.keyboard.press("End")
    assert page.evaluate(here) == "2,4"
    for _ in range(6):
        page.keyboard.press("PageDown")
    row = int(page.evaluate(here).split(",")[0])
    assert row > 40
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.locator(".matrix .cell[tabindex='0']").count() == 1  # Tab leaves the grid at once
    name = page.evaluate("document.activeElement.dataset.run")
    page.keyboard.press("Enter")
    until(page, f"decodeURIComponent(location.hash).includes({json.dumps(name)})")
    page.go_back()
    page.locator(".matrix .cell").first.wait_for()
    page.locator(".tabs [role=tab]").first.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.activeElement.textContent === 'Table'")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"


def test_two_chosen_runs_are_compared(page, site):
    page.goto(f"{site.url}/#/e/{EXPERIMENT}/table")
    boxes = page.locator("[role=row][data-run] input")
    boxes.nth(0).check()
    boxes.nth(7).check()
    page.get_by_role("link", name="Compare the two").click()
    page.locator(".verdict").wait_for()
    assert re.search(r"Tied|is better", page.locator(".verdict").inner_text())
    assert page.get_by_role("heading", name=re.compile("differ")).is_visible()
    page.locator(".utts li").first.wait_for()
    assert page.locator(".pair.S, .pair.D").count() > 0
    page.shot("compare")
    before = page.locator(".interval .dot").first.get_attribute("style")
    page.get_by_role("button", name="Swap").click()
    until(page, f"document.querySelector('.interval .dot')?.getAttribute('style') !== {json.dumps(before)}")


def test_a_run_from_overview_to_gradients(page, site):
    run = sorted(p.parent.name for p in (site.outputs / EXPERIMENT).glob("*/gradients.npz"))[0]
    page.goto(f"{site.url}/#/e/{EXPERIMENT}/r/{quote(run, safe='')}")
    page.locator(".multiples canvas").nth(3).wait_for()
    page.get_by_role("tab", name="Gradients").click()
    page.get_by_text("limiter").wait_for()
    page.locator(".heat canvas").hover()
    assert "encoder.layers" in page.locator(".heat .tip").inner_text()
    page.shot("gradients")
    page.get_by_role("tab", name="Utterances").click()
    page.locator(".utts li").nth(20).wait_for()
    page.get_by_role("tab", name="Configuration").click()
    page.get_by_label("Find keys or values").fill("clipping")
    assert page.locator(".facts tr").count() == 2


@pytest.fixture
def live(tmp_path) -> Iterator[Site]:
    """A sweep of 24 cells of which some run: files may be changed."""
    outputs = tmp_path / "outputs"
    write_outputs(outputs, 24, seed=3)
    process, url = serve(outputs)
    yield Site(url, outputs)
    process.terminate()
    process.wait(timeout=20)


def test_the_page_follows_a_sweep(page, live):
    home = live.outputs / EXPERIMENT
    plan = {c["name"]: c["factors"] for c in json.loads((home / "sweep.json").read_text())["cells"]}
    waiting = [n for n in plan if not (home / n).exists()]
    page.goto(f"{live.url}/#/e/{EXPERIMENT}")
    cell = page.locator(f'.cell[data-run="{waiting[0]}"]')
    assert cell.get_attribute("data-state") == "planned"
    other = page.locator(".matrix .cell[data-state=done]").first
    other.evaluate("node => { node.marked = true; node.focus() }")
    write_unfinished(home / waiting[0], plan[waiting[0]], "running", random.Random(0), 60)
    until(page, f"document.querySelector('.cell[data-run=\"{waiting[0]}\"]')?.dataset.state === 'running'")
    assert other.evaluate("node => node.marked === true && document.activeElement === node")  # not drawn anew
    page.shot("running")
    shutil.rmtree(home / waiting[0])
    write_run(home / waiting[0], plan[waiting[0]], random.Random(1))
    until(page, f"document.querySelector('.cell[data-run=\"{waiting[0]}\"]')?.dataset.state === 'done'")
    assert "%" in cell.inner_text()


def test_a_curve_grows_under_the_eyes(page, live):
    home = live.outputs / EXPERIMENT
    name = sorted(p.name for p in home.iterdir() if (p / "hyps.test.jsonl").exists())[0]
    rows = curve(random.Random(0), 0.2, 60)
    (home / name / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[:30]))
    result = {"status": "running", "factors": {}, "metrics": {}, "fingerprint": "0"}
    (home / name / "result.json").write_text(json.dumps(result))
    for ledger in (home / "ledger").iterdir():
        ledger.unlink()
    hold_run(home / name)
    page.goto(f"{live.url}/#/e/{EXPERIMENT}/r/{quote(name, safe='')}")
    page.locator(".multiples canvas").nth(3).wait_for()
    picture = "() => [...document.querySelectorAll('.multiples canvas')].map(c => c.toDataURL().length).join()"
    page.wait_for_timeout(500)
    before = page.evaluate(picture)
    with open(home / name / "metrics.jsonl", "a") as f:
        f.write("".join(json.dumps(r) + "\n" for r in rows[30:]))
        f.write('{"step": 99999, "epo')  # half a line
    until(page, f"({picture})() !== {json.dumps(before)}")


def test_a_server_that_goes_away_is_said_and_found_again(page, tmp_path):
    outputs = tmp_path / "outputs"
    write_outputs(outputs, 12)
    process, url = serve(outputs)
    page.goto(f"{url}/#/e/{EXPERIMENT}")
    page.locator(".cell").first.wait_for()
    process.kill()
    process.wait()
    until(page, "document.getElementById('live').textContent === 'no connection'")
    assert page.locator(".cell").count() >= 12  # what was known stays
    port = url.rpartition(":")[2]
    again, _ = serve(outputs, "--port", port)
    try:
        until(page, "document.getElementById('live').textContent === 'live'")
    finally:
        again.kill()


def test_hostile_texts_stay_texts(page, site):
    runs = sorted(os.listdir(site.outputs / "hostile"))
    one = f"#/e/hostile/r/{quote(runs[0], safe='')}"
    other = f"#/e/hostile/r/{quote(runs[1], safe='')}"
    pair = f"#/compare/hostile/{quote(runs[0], safe='')}/hostile/{quote(runs[1], safe='')}"
    pages = ["#/", "#/e/hostile", "#/e/hostile/table", "#/e/hostile/curves", "#/e/hostile/factors", pair]
    pages += [run + tab for run in (one, other) for tab in ("", "/utterances", "/gradients", "/configuration", "/log")]
    for address in [*pages, f"#/e/{quote(HOSTILE, safe='')}", f"#/{HOSTILE}", "#/e/%zz/r/%"]:
        page.goto(f"{site.url}/{address}")
        page.locator("main [role=tabpanel] > *, main .cards > *, main .verdict, main .empty").first.wait_for()
        page.wait_for_timeout(250)
        assert page.evaluate("window.hacked === undefined"), address
        assert page.locator("main img, main script, main iframe").count() == 0, address
    page.goto(f"{site.url}/{one}/utterances")
    page.locator(".utts .pair").filter(has_text="onerror='window.hacked=1'").first.wait_for()  # shown, as text
    page.shot("hostile")
    page.goto(f"{site.url}/{one}/gradients")
    page.locator(".facts td").filter(has_text="onerror='window.hacked=1'").first.wait_for()
    assert page.evaluate("window.hacked === undefined")


def test_nothing_comes_from_elsewhere(page, site):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/#/e/{EXPERIMENT}/curves")
    page.locator(".series button").first.wait_for()
    assert len(asked) > 20 and all(url.startswith(site.url + "/") for url in asked)


def test_a_token_is_kept_in_a_cookie(page, site):
    process, url = serve(site.outputs, "--token", "correct-horse")
    try:
        page.goto(url.partition("?")[0])
        assert "a token is wanted" in page.content()
        page.goto(url)
        page.get_by_role("link", name=EXPERIMENT).wait_for()
        assert "token" not in page.url
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    finally:
        process.kill()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_on_a_phone_in_light_and_dark(browser, site, tmp_path, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    run = quote(sorted(p.parent.name for p in (site.outputs / EXPERIMENT).glob("*/gradients.npz"))[0], safe="")
    home = f"#/e/{EXPERIMENT}"
    tabs = ["", "/table", "/curves", "/factors", f"/r/{run}", f"/r/{run}/utterances", f"/r/{run}/gradients"]
    for i, address in enumerate(["#/", *(home + tab for tab in tabs)]):
        page.goto(f"{site.url}/{address}")
        page.wait_for_timeout(600)
        page.screenshot(path=tmp_path / f"{i}.png")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, address
    context.close()


def test_an_utterance_is_heard(page, trained, tmp_path):
    """A real run of a real corpus: reference, hypothesis and sound."""
    run, result = trained("encoder=bilstm", "trainer.max_epochs=1")
    assert result["data"]["manifest"].endswith("manifest.jsonl")
    outputs = tmp_path / "outputs"
    (outputs / "x").mkdir(parents=True)
    run.folder.rename(outputs / "x" / "run")
    process, url = serve(outputs)
    try:
        page.goto(f"{url}/#/e/x/r/run/utterances")
        page.get_by_role("button", name="play test0").click()
        until(page, "document.querySelector('audio')?.readyState >= 3")
        row = json.loads((outputs / "x/run/hyps.test.jsonl").read_text().splitlines()[0])
        duration = page.evaluate("document.querySelector('audio').duration")
        assert duration == pytest.approx(row["duration"], abs=0.01)
        page.shot("utterances")
        page.get_by_role("tab", name="Gradients").click()
        page.locator(".chart canvas").first.wait_for()
    finally:
        process.kill()
