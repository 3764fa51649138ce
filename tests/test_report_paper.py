"""What the report gives to a paper: a table, a methods paragraph, and references that are those it cites."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.paths import conf_dir
from asr_lab.report.collect import collect
from asr_lab.report.paper import bibtex, cited, methods, methods_tex, references
from asr_lab.report.render import render
from asr_lab.report.summary import summarise
from asr_lab.report.tex import escape_tex, table_tex

from .test_report import HOSTILE, write_cell, write_grid, write_plan


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return write_grid(tmp_path_factory.mktemp("outputs") / "clipping", n=40, speakers=12)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "hostile_%&"
    names = {HOSTILE: "a", r"\input{/etc/passwd} & $x^2$ #1 ~ _ % {": "b", "[@owen] \\cite{x}\n\\\\": "c"}
    cells = {cell: {"encoder": name, "clipping": "norm", "seed": 1} for name, cell in names.items()}
    write_plan(folder, cells, question=HOSTILE)
    for cell, factors in cells.items():
        write_cell(folder / cell, factors, 0.3, n=20)
    return folder


def balanced(text):
    text, depth = re.sub(r"\\.", "", text), 0
    for char in text:
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    return depth == 0


@pytest.mark.parametrize("name", ["grid", "hostile"])
def test_table_has_one_row_a_configuration_and_as_many_columns_as_it_says(name, request):
    folder = request.getfixturevalue(name)
    s = summarise(collect(folder))
    text = table_tex(s)
    assert balanced(text) and "\\toprule" in text and "\\bottomrule" in text
    [spec] = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    assert len(body) == len(s.configurations)
    for line in body:
        spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d)\}", line))
        assert len(re.findall(r"(?<!\\)&", line)) + 1 + spanned == len(spec)
        assert line.endswith(" \\\\")
    assert text.count("\\textbf{best}") == 1
    tied = sum(r.tied for r in s.configurations)
    assert body and "".join(body).count("dagger") == tied


def test_a_table_longer_than_a_page_goes_on_on_the_next(tmp_path):
    for i in range(41):
        write_cell(tmp_path / str(i), {"encoder": f"e{i}", "seed": 1}, 0.2, n=5)
    text = table_tex(summarise(collect(tmp_path)))
    assert "\\begin{longtable}{lrcrcrr}" in text and "\\begin{table}" not in text and "{booktabs,longtable}" in text
    assert len(text.partition("\\endhead\n")[2].partition("\\bottomrule")[0].splitlines()) == 41


@settings(max_examples=60, deadline=None, database=None)
@given(st.text(max_size=30))
def test_escaped_text_holds_no_command_of_its_own(text):
    known = r"\\text(backslash|asciicircum|asciitilde|less|greater|bar|quotedbl|periodcentered)\{\}"
    rest = re.sub(r"\\[{}$&#%_]", "", re.sub(known, "", escape_tex(text)))
    rest = re.sub(r"\$(-|\\\|)\$", "", rest)
    assert not re.search(r"[\\{}$&#%_^~\x00-\x1f]", rest)


def test_hostile_names_are_text_in_latex(hostile):
    files = {k: p.read_text() for k, p in render(hostile).items()}
    for kind in ("tex", "methods"):
        assert "\\input" not in files[kind] and balanced(files[kind])
        assert re.findall(r"\\cite\{[^}]*owen[^}]*\}|\\cite\{x\}", files[kind]) == []


def test_references_are_whole_and_each_is_for_a_choice_that_there_is():
    found = references()
    assert len({r.key for r in found}) == len(found) > 30
    for r in found:
        assert balanced(r.entry) and r.entry.count("@") == 1
        needed = {"article": "journal", "inproceedings": "booktitle", "phdthesis": "school", "book": "publisher"}
        kind = r.entry[1 : r.entry.index("{")]
        for field in (needed.get(kind, "url"), "author", "title", *(["year"] if kind != "misc" else [])):
            assert re.search(rf"^  {field} += ", r.entry, re.M), (r.key, field)
        assert "{" not in r.short and "\\" not in r.short and re.search(r"\d", r.short)
        for use in r.uses:
            group, _, choice = use.partition("=")
            assert not choice or (conf_dir() / group / f"{choice}.yaml").exists(), use


def test_what_is_cited_is_in_the_bibliography_and_nothing_else_about_statistics(grid):
    s = summarise(collect(grid))
    tex, plain = methods_tex(s), methods(s)
    keys = {key for group in re.findall(r"\\cite\{([^}]+)\}", tex) for key in group.split(",")}
    entries = set(re.findall(r"^@\w+\{(\w+),", bibtex(s), re.M))
    assert keys <= entries
    assert {r.key for r in cited(s) if not any("=" in use for use in r.uses)} <= keys
    assert "liu2020blockwise" in keys  # twelve speakers
    assert {"gulati2020conformer", "brock2021high"} - entries == {"brock2021high"}
    assert "(Bisani & Ney, 2004; Liu & Peng, 2020; Hesterberg, 2015)" in plain
    assert s.answer in plain and "12 runs, of which 10 have finished so far" in plain


def test_one_seed_without_speakers_cites_neither(tmp_path):
    for e in "ab":
        write_cell(tmp_path / e, {"encoder": e, "seed": 1}, 0.2, n=30)
    s = summarise(collect(tmp_path))
    keys = {r.key for r in cited(s)}
    assert "bisani2004bootstrap" in keys and not keys & {"liu2020blockwise", "searle1992variance"}
    assert "one random seed" in methods(s) or "1 random seed" in methods(s)


def test_files_of_a_paper_are_on_the_page(grid):
    files = {k: p.read_text() for k, p in render(grid).items()}
    from html import unescape

    page = unescape(files["html"])
    assert files["bib"].rstrip() in page
    assert methods(summarise(collect(grid))) in page
    assert "    @misc{asr_lab," in files["md"]
