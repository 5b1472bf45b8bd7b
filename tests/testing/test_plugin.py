"""The fixtures that come with the package are there without any import."""

from __future__ import annotations

from jupyter_agents import Agent


class Echo(Agent):
    def on_message(self, connection, message):
        connection.send(message)


def test_agent_harness_is_a_fixture(agent_harness):
    """T211: plain pytest, no Jupyter Server."""
    client = agent_harness.connect(Echo, "x")
    client.send(b"\x00")
    assert client.receive() == b"\x00"
