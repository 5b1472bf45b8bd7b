"""``%agents`` in a kernel."""

from __future__ import annotations

import pytest

from jupyter_agents import Agent, serving
from jupyter_agents.magics import agents, load
from jupyter_agents.testing import SyncHarness


class Room(Agent):
    initial_state = {"n": 0}


class FakeIPython:
    """Takes the magics."""

    def register_magic_function(self, function, kind, name):
        self.taken = (function, kind, name)


def test_load_registers_the_magic():
    """``%load_ext jupyter_agents`` adds ``%agents``."""
    ipython = FakeIPython()
    load(ipython)
    assert ipython.taken == (agents, "line", "agents")


@pytest.fixture
def harness(monkeypatch):
    """A harness whose host is this process's."""
    with SyncHarness(Room) as harness:
        monkeypatch.setattr(serving, "default_host", lambda: harness._wrapped.host)
        yield harness


def test_agents_lists_stops_and_resets(harness):
    """What is served, by class and instance; a wrong word gets the usage."""
    client = harness.connect(Room, "lobby")
    assert agents("") == "Room at agents/room/…\n  lobby: 1 connections, awake"
    client.set_state({"n": 5})
    assert agents("reset room lobby") is None
    client.until_state({"n": 0})
    assert "No agent 'nobody' is served here" in agents("stop nobody")
    assert "%agents stop AGENT" in agents("dance")
    assert agents("stop room") is None
    assert client.until_closed().code == 1001
    assert "No agents are served" in agents("")
