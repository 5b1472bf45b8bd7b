"""The harness is the real thing without sockets."""

from __future__ import annotations

from jupyter_agents import Agent, callable_method
from jupyter_agents.testing import AgentHarness


class Room(Agent):
    initial_state = {"messages": 0}

    def on_connect(self, connection, ctx):
        connection.send(f"hello {connection.id}")

    async def on_message(self, connection, message):
        self.set_state({"messages": self.state["messages"] + 1})
        self.broadcast(message)

    @callable_method
    def shout(self, text: str) -> str:
        return text.upper()


def test_users_test_is_five_lines(agent_harness):
    """A user's test needs no server, no await and five lines."""
    client = agent_harness.connect(Room, "lobby")
    assert client.receive() == f"hello {client.id}"
    client.send("hi")
    assert client.receive() == "hi"
    assert client.call("shout", "hey") == "HEY"
    assert client.state == {"messages": 1}


async def test_restart_keeps_clients_and_state():
    """Clients stay connected while the host is replaced, and find the stored state."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        assert await client.receive() == f"hello {client.id}"
        await client.send("one")
        assert await client.receive() == "one"
        await harness.stop_host()
        await client.send("two")
        await harness.restart(Room)
        assert await client.receive() == "two"
        assert client.state == {"messages": 2}
        assert client.closed is None
