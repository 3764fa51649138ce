"""Values go through Hydra's grammar of overrides and come back as what they were."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from asr_lab.errors import ConfigError
from asr_lab.sweep.values import read, write

PARSER = OverridesParser.create()


def parsed(text: str):
    return read(PARSER.parse_override(text))


words = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), min_size=0, max_size=12)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: float(f"{x:.6g}")),
    words.filter(lambda w: "\\" not in w and "$" not in w),
)


@given(plain)
def test_there_and_back(value):
    [found] = parsed(f"a={write(value)}")
    assert found == value and type(found) is type(value)


@given(st.lists(st.integers(), max_size=4))
def test_lists_are_values(value):
    assert parsed(f"a={write(value)}") == [value]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,2", [1, 2]),
        ("a=range(1,4)", [1, 2, 3]),
        ("a=choice(x,y)", ["x", "y"]),
        ("a='x,y',z", ["x,y", "z"]),
        ("a=[1,2],[3]", [[1, 2], [3]]),
        ("a=null", [None]),
    ],
)
def test_sweeps(text, expected):
    assert parsed(text) == expected


def test_what_cannot_be_listed_is_said():
    with pytest.raises(ConfigError, match="interval"):
        parsed("a=interval(0,1)")
