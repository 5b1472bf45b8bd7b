"""Input and output of commands: `jupyter_agents.cli.terminal`."""

from __future__ import annotations

import os
from typing import Any

import pytest

from jupyter_agents.cli import terminal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ('{"a": [1]}', {"a": [1]}),
        ("hi", "hi"),
    ],
)
def test_arguments_are_json_where_they_are(text: str, value: Any) -> None:
    """What is no JSON is text, so that plain words need no quotes."""
    assert terminal.value_of(text) == value


@pytest.mark.parametrize(
    ("value", "plain", "as_json"),
    [
        ("hü", "hü", '"hü"'),
        (5, "5", "5"),
        (None, "null", "null"),
        ({"a": "ü"}, '{"a": "ü"}', '{"a": "ü"}'),
    ],
)
def test_values_are_shown(value: Any, plain: str, as_json: str) -> None:
    """Text is shown bare, unless JSON is asked for; letters stay letters."""
    assert terminal.shown(value) == plain
    assert terminal.shown(value, as_json=True) == as_json


async def test_lines_come_whole() -> None:
    """Lines are given when they are complete, the last one also without its end."""
    reading, writing = os.pipe()
    lines = terminal.lines_of(reading)
    for piece in (b"a\nb", b"c\r\n\n", "ü\xff".encode("latin-1")):
        os.write(writing, piece)
    os.close(writing)
    assert [line async for line in lines] == ["a", "bc", "", "\ufffd\ufffd"]
    os.close(reading)


async def test_lines_of_a_closed_input_end() -> None:
    """An input that ends at once has no lines."""
    with open(os.devnull) as nothing:  # noqa: ASYNC230, PTH123
        assert [line async for line in terminal.lines_of(nothing.fileno())] == []
