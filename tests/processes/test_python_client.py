"""Our Python clients and the command line against a real Jupyter Server and kernel."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from jupyter_agents import connect
from jupyter_agents.client.fetch import agent_fetch
from jupyter_agents.client.transport import HandshakeRefused
from jupyter_agents.errors import AgentNotFound
from jupyter_agents.protocol.backoff import ReconnectPolicy

CELL = """
from jupyter_agents import Agent, callable_method, connect, serve

class Counter(Agent):
    initial_state = {"n": 0}

    def on_message(self, connection, message):
        connection.send(message)

    def on_request(self, request):
        return {"n": self.state["n"], "path": request.path}

    @callable_method
    def add(self, by: int) -> int:
        self.set_state({"n": self.state["n"] + by})
        return self.state["n"]

serve(Counter, storage="memory", takeover=True)
"""
HASTY = ReconnectPolicy(min_delay=0.05, max_delay=0.2, min_uptime=0)


@pytest.fixture
def counter(kernel):
    """A kernel that serves the agent."""
    kernel.run(CELL)
    return kernel


def test_cell_reaches_its_own_agents_without_an_address(counter):
    """Inside a notebook neither host, base_url nor token is needed, async or not (T201)."""
    counter.run(
        "async with connect(Counter, 'cell') as client:\n"
        "    print(await client.call('add', [2]), client.state, client.identity)\n"
    )
    outputs = counter.run(
        "from jupyter_agents.client.sync import connect as connect_sync\n"
        "with connect_sync(Counter, 'cell') as client:\n"
        "    print(client.call('add', [2]), client.state, client.identity)\n"
    )
    assert outputs.text == "4 {'n': 4} counter/cell\n"


async def test_script_reaches_the_agents_with_the_token(counter, jupyter_server_process):
    """From outside, base_url and token lead to the same instance, over WebSocket and HTTP."""
    server = jupyter_server_process
    async with connect("Counter", "out", host=server.url, token=server.token) as client:
        assert await client.call("add", [3]) == 3
        assert client.state == {"n": 3}
        assert await client.set_state(lambda state: {"n": state["n"] * 2}) == {"n": 6}
        client.send(b"\x00\xff")
        assert await client.recv(10) == b"\x00\xff"
        answer = await agent_fetch("Counter", "out", "x", host=server.url, token=server.token)
        assert answer.json() == {"n": 6, "path": "/x"}


async def test_door_is_closed_without_the_token(counter, jupyter_server_process):
    """A wrong token, and an agent that nobody serves, end the first attempt with their reason."""
    server = jupyter_server_process
    with pytest.raises(HandshakeRefused, match="403"):
        await connect("Counter", host=server.url, token="wrong")
    with pytest.raises(AgentNotFound, match="counter"):
        await connect("Nobody", host=server.url, token=server.token)


async def test_client_lives_through_a_kernel_restart(counter, jupyter_server_process):
    """The kernel restarts and serves again: the client works on, without a new object."""
    server = jupyter_server_process
    async with connect(
        "Counter", "r", host=server.url, token=server.token, reconnect=HASTY
    ) as client:
        assert await client.call("add", [1]) == 1
        await asyncio.to_thread(counter.restart)
        await asyncio.to_thread(counter.run, CELL)
        assert await client.call("add", [1]) == 1
        assert client.connection_error is None


def test_terminal_shows_and_calls(counter, jupyter_server_process):
    """``jupyter agents`` finds the server by its runtime directory, lists, and calls."""
    server = jupyter_server_process
    counter.run("room = connect(Counter, 'shell'); await room")

    def run(*words):
        program = "import sys; from jupyter_agents.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            text=True,
            env=server._environment(),
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    (listed,) = [json.loads(line) for line in run("list", "--json").splitlines()]
    assert listed["url"].rstrip("/") == server.url.rstrip("/")
    (agent,) = [a for host in listed["hosts"] for a in host["agents"] if a["agent"] == "counter"]
    assert {"name": "shell", "connections": 1}.items() <= agent["instances"][0].items()
    assert run("call", "counter/shell", "add", "5") == "5\n"
    assert "    shell: " in run("list")
    counter.run("await room.wait_closed() if room.close() else None")
