"""What JSON can carry, and what it cannot."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import fractions
import json
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agents.protocol.values import MISSING, StateErrorReceived, decode, encode


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "not me"


class Whole(int):
    pass


class Part(float):
    pass


class Raw(bytes):
    pass


CYCLE: list[object] = []
CYCLE.append(CYCLE)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(JSON)
def test_json_survives(value):
    """What is encoded and decoded is the same JSON, type by type."""
    assert json.dumps(decode(encode(value))) == json.dumps(decode(json.dumps(value)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"null"),
        ("", b'""'),
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'.encode()),
        (float("nan"), b"null"),
        (10**30, b"1" + b"0" * 30),
        ({1: 2, 1.5: 3}, b'{"1":2,"1.5":3}'),
        (Point(1), b'{"x":1}'),
        (Colour.RED, b'"red"'),
        (datetime.date(2026, 1, 2), b'"2026-01-02"'),
        (range(2), b"[0,1]"),
        (collections.deque([1]), b"[1]"),
        (collections.UserDict(a=1), b'{"a":1}'),
        (types.MappingProxyType({"a": 1}), b'{"a":1}'),
        (fractions.Fraction(1, 2), b"0.5"),
        ({Text("k"): Text("v")}, b'{"k":"v"}'),
        ([Whole(1), Part(0.5)], b"[1,0.5]"),
        ({Whole(1): 1}, b'{"1":1}'),
    ],
)
def test_encode_carries_more_than_plain_values(value, text):
    """Dataclasses, enums, dates, mappings, sequences, numbers and subclasses all travel."""
    assert encode(value) == text


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (object(), "type 'object'"),
        ([{"deep": 1j}], "type 'complex'"),
        (Raw(b"x"), "type 'Raw'"),
        ({(1,): 1}, "keys of type 'tuple'"),
        ([{True: 1}], "keys of type 'bool'"),
        ({None: 1}, "keys of type 'NoneType'"),
        ({range(2): 1}, "keys of type 'list'"),
        (CYCLE, "contains itself"),
        ("\ud800", "surrogate"),
    ],
)
def test_encode_names_what_it_cannot_carry(value, sentence):
    """There is one exception for all of it, and its sentence names the type."""
    with pytest.raises(TypeError, match=sentence):
        encode(value)


@pytest.mark.parametrize(
    "data",
    ["", "{", "nul", "NaN", "1 2", "'a'", "\ufeff1", b"\xff", b'"\xff"', b'"\xff\\ud800"',
     "[" * 10**5, "1e999", "\ud800", '{"a":1,}'],
)  # fmt: skip
def test_decode_has_one_exception(data):
    """Whatever is wrong with a text, it is a ValueError."""
    with pytest.raises(ValueError, match=r".") as caught:
        decode(data)
    assert not isinstance(caught.value, RecursionError)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\ud800b"', "a\ufffdb"),
        (r'"\udc00\ud83d\ude00"', "\ufffd😀"),
        (r'"\\ud800\ud800"', "\\ud800\ufffd"),
        (r'"\uD800\uD800\uDC00"', "\ufffd\U00010000"),
        (rb'{"\ud800":1}', {"\ufffd": 1}),
        ('{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_decode_reads_what_javascript_writes(text, value):
    """Lone surrogates become U+FFFD, pairs stay, and the last of equal keys wins."""
    assert decode(text) == value


def test_missing_is_not_null():
    """No value and JSON's null are told apart, and the former says its name."""
    assert StateErrorReceived("no").state is MISSING
    assert StateErrorReceived("no", state=None).state is None
    assert repr(MISSING) == "MISSING"
