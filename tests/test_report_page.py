"""report.html for everybody: landmarks, headings, tables, pictures with names and numbers, no script needed."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from asr_lab.report.heat_maps import luminance
from asr_lab.report.render import render

from .test_report import write_cell, write_grid, write_plan

VOID = {"meta", "br"}


class Node:
    def __init__(self, tag, attrs, parent):
        self.tag, self.attrs, self.parent, self.children, self.text = tag, dict(attrs), parent, [], ""

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()

    def all(self, *tags):
        return [n for n in self.walk() if n.tag in tags]

    @property
    def words(self):
        return " ".join(f"{n.text}" for n in self.walk()).strip()

    def inside(self, tag):
        return self.parent is not None and (self.parent.tag == tag or self.parent.inside(tag))


class Tree(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.root = self.at = Node("root", [], None)
        self.feed(page)
        self.close()
        assert self.at is self.root

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs, self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_endtag(self, tag):
        assert self.at.tag == tag
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_grid(tmp_path_factory.mktemp("outputs") / "clipping", n=40)
    cells = {f"{e}-{t}": {"encoder": e, "clipping": "norm", "clipping.threshold": t, "seed": 1}
             for e in ("rnn", "gru") for t in (0.1, 1.0, 10.0)}  # fmt: skip
    for name, factors in cells.items():
        write_cell(folder / name, factors, 0.2, n=40, parameters=10 if "rnn" in name else 99)
    known = {p.name: None for p in folder.iterdir() if p.is_dir()}
    plan = {n: c for n, c in cells.items() if n in known}
    for e in ("bilstm", "conformer"):
        for c in ("none", "norm", "adaptive"):
            plan |= {f"{e}-{c}-{s}": {"encoder": e, "clipping": c, "seed": s} for s in (1, 2)}
    write_plan(folder, plan)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return render(folder)["html"].read_text()


@pytest.fixture(scope="module")
def tree(page):
    return Tree(page).root


def test_landmarks_and_a_way_past_them(tree):
    for tag in ("header", "main", "footer", "h1"):
        assert len(tree.all(tag)) == 1, tag
    [nav] = tree.all("nav")
    assert nav.attrs["aria-label"]
    first = tree.all("a")[0]
    assert "skip" in first.attrs["class"] and first.attrs["href"] == "#rates"
    assert tree.all("html")[0].attrs["lang"] == "en" and tree.all("title")[0].text


def test_headings_never_skip_a_level_and_sections_are_named_by_theirs(tree):
    levels = [int(n.tag[1]) for n in tree.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in pairwise(levels))
    ids = [n.attrs["id"] for n in tree.walk() if "id" in n.attrs]
    assert len(ids) == len(set(ids))
    for section in tree.all("section"):
        assert section.attrs["aria-labelledby"] in {n.attrs.get("id") for n in section.all("h2")}
    targets = [a.attrs["href"][1:] for a in tree.all("a") if a.attrs["href"].startswith("#")]
    assert set(targets) <= set(ids)
    assert {n.attrs["id"] for n in tree.all("h2")} <= set(targets)  # every section is in the contents


def test_tables_have_captions_and_scoped_headers(tree):
    tables = tree.all("table")
    assert len(tables) > 10
    for table in tables:
        assert table.all("caption")[0].words
        assert all(th.attrs.get("scope") in ("col", "row") for th in table.all("th"))
        rows = table.all("tbody")[0].all("tr")
        assert rows and all(row.all("th")[0].attrs["scope"] == "row" for row in rows)
        n = len(table.all("thead")[0].all("th"))
        assert {len([c for c in row.children if c.tag in ("td", "th")]) for row in rows} == {n}
        if "stack" in table.attrs.get("class", ""):  # a narrow screen makes cards of it, which takes its roles away
            assert all("role" in c.attrs for c in table.all("tr", "td", "th", "thead", "tbody"))


def test_pictures_have_names_and_their_numbers_as_tables(tree):
    pictures = [n for n in tree.all("svg") if n.attrs.get("aria-hidden") != "true"]
    assert pictures
    names = [n.attrs["aria-label"] for n in pictures]
    assert len(names) == len(set(names))
    for picture in pictures:
        assert picture.attrs["role"] == "img" and picture.children[0].tag == "title"
    charts = [f for f in tree.all("figure") if f.all("details")]
    assert len(charts) == len(pictures) - 1  # the first one's numbers are the table below it
    for chart in charts:
        cells = [td.words for td in chart.all("td")]
        assert any(re.search(r"\d", c) for c in cells), chart.all("svg")[0].attrs["aria-label"]


def test_what_scrolls_can_be_reached_by_keyboard(tree):
    for node in tree.walk():
        if "scroll" in node.attrs.get("class", "").split():
            assert node.attrs["tabindex"] == "0" and node.attrs["role"] == "group" and node.attrs["aria-label"]
    assert all(t.inside("div") for t in tree.all("table"))


def test_nothing_is_told_by_colour_alone(tree):
    table = tree.all("table")[0]
    keys = [str([(n.tag, n.attrs.get("d")) for n in svg.all("path", "circle")]) for svg in table.all("svg")]
    assert len(set(keys)) == min(len(keys), 7)
    assert all(
        re.search(r"\d|✕|…|·", td.words)
        for t in tree.all("table")
        if t.attrs.get("class") == "heat"
        for td in t.all("td")
    )


def test_the_policy_allows_the_pages_own_script_and_nothing_else(page, tree):
    [script] = tree.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    [policy] = [m.attrs["content"] for m in tree.all("meta") if "http-equiv" in m.attrs]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not any(name.startswith("on") for n in tree.walk() for name in n.attrs)


def test_page_is_complete_without_its_script(page, tree):
    assert "hidden" not in {name for n in tree.walk() for name in n.attrs}
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert "conformer" in body and "<button" not in body


def test_every_response_has_its_bands_and_its_share_of_clipped_steps(tree):
    names = [n.attrs["aria-label"] for n in tree.all("svg") if "aria-label" in n.attrs]
    for encoder in ("rnn", "gru"):
        assert f"Test WER against clipping.threshold ({encoder})" in names
    assert "Test WER against clipping.threshold (all)" in names


def test_colours_of_marks_stand_out_from_the_page(page):
    def light(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        return luminance(tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))) + 0.05

    def contrast(a, b):
        return max(light(a), light(b)) / min(light(a), light(b))

    themes = re.findall(r":root \{([^}]*--c6[^}]*)\}", page)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", theme))
        for name, colour in colours.items():
            if re.fullmatch(r"c\d", name):
                assert contrast(colour, colours["bg"]) >= 3, (name, colour)
        for text in ("fg", "soft", "bad"):
            for ground in ("bg", "tint", "warn"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
