"""What the server remembers: the words in which it is told again."""

from __future__ import annotations

import dataclasses
import json

import pytest

from jupyter_agents.link.records import ConnectionRecord, RelayLimits, Served
from tests.link.fakes import FakeSocket


def record(**more):
    """A record of a connection to ChatRoom's lobby."""
    served = Served("chat-room", "ChatRoom", ("chat-room",), None, {"kernel_id": "k1"})
    info = {"extended": True, "request": '{"url":"http://h/x"}'}
    return ConnectionRecord(7, "me", served, "lobby", FakeSocket(), info, 12.5, **more)


@pytest.mark.parametrize("resumed", [True, False])
def test_opening_tells_everything(resumed):
    """The host learns who connected, where, when, and what it asked to remember."""
    word = record(attached={"accepted": True, "state": "1"}).opening(resumed=resumed)
    assert word == {
        "id": "me",
        "agent": "chat-room",
        "name": "lobby",
        "resumed": resumed,
        "opened_at": 12.5,
        "extended": True,
        "request": '{"url":"http://h/x"}',
        "attached": {"accepted": True, "state": "1"},
    }
    json.dumps(word)


def test_facts_name_the_connection():
    """An event says which connection it is about."""
    assert record().facts == {"agent": "chat-room", "name": "lobby", "id": "me"}


@pytest.mark.parametrize(
    ("about", "where"),
    [
        ({"kernel_id": "k1", "notebook": "a/b.ipynb"}, "a/b.ipynb"),
        ({"kernel_id": "k1", "notebook": None}, "k1"),
        ({}, "another kernel"),
    ],
)
def test_where_is_for_people(about, where):
    """The notebook's path where it is known, else the kernel, else a word."""
    assert Served("a", "A", ("a",), None, about).where == where


def test_records_are_themselves():
    """Two records are equal only when they are the same one, whatever they hold."""
    assert record() != record()
    assert len({record(), record()}) == 2


def test_limits_are_bounded():
    """Every limit is a positive number: nothing is unbounded."""
    limits = dataclasses.asdict(RelayLimits())
    assert limits.pop("allow_public") is False
    assert all(value > 0 for value in limits.values())
