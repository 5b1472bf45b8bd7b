"""The harness without ``await``."""

from __future__ import annotations

import pytest

from jupyter_agents import Agent, CallFailed, callable_method
from jupyter_agents.testing import SyncHarness


class Room(Agent):
    def on_message(self, connection, message):
        self.broadcast(message)

    @callable_method
    def fail(self):
        raise ValueError("no")


def test_sync_clients_send_receive_and_raise():
    """Each coroutine method is a plain one; errors are raised here."""
    with SyncHarness(Room) as harness:
        a, b = harness.connect(Room, "x"), harness.connect(Room, "x")
        a.send("hi")
        assert a.receive() == "hi"
        assert b.receive() == "hi"
        with pytest.raises(CallFailed, match="no"):
            a.call("fail")
        with pytest.raises(TimeoutError, match="a message"):
            b.receive(timeout_s=0.01)
        assert "AgentHarness" in repr(harness)


def test_handles_work_from_the_tests_thread():
    """A handle of the harness is used as in a cell."""

    class Counter(Agent):
        initial_state = {"n": 0}

    with SyncHarness(Counter) as harness:
        client = harness.connect(Counter, "x")
        harness.agent(Counter, "x")
        handle = harness.handle(Counter, "x")
        handle.set_state({"n": 2})
        client.until_state({"n": 2})
        assert handle.state == {"n": 2}
