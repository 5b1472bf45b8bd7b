"""Agents without a Jupyter Server: found by clients of this machine, and gone without a trace."""

from __future__ import annotations

import asyncio
import os
import stat
import sys

import pytest

from jupyter_agents.client.client import connect
from jupyter_agents.client.discovery import ServerNotFound, find_server
from jupyter_agents.errors import ConnectionClosed
from jupyter_agents.host.agent import Agent
from jupyter_agents.host.host import AgentHost, Hosted
from jupyter_agents.host.storage import MemoryStorage
from jupyter_agents.standalone import StandaloneServer


class Echo(Agent):
    def on_message(self, connection, message):
        connection.send(message)


@pytest.fixture
def runtime_dir(tmp_path, monkeypatch):
    """A runtime directory of the test's own, not yet made."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    for name in ("JUPYTER_SERVER_URL", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runtime"


async def serve_echo():
    """A server that stands alone and serves Echo."""
    host = AgentHost(asyncio.get_running_loop())
    server = StandaloneServer(host)
    server.listen()
    await host.serve(Hosted(Echo, "echo", ("echo",), MemoryStorage()))
    return server


async def test_client_without_a_host_finds_it(runtime_dir):
    """A client that names no host talks to the agents of its own process."""
    server = await serve_echo()
    assert find_server().url == server.url
    async with connect(Echo, "lobby") as client:
        client.send("hi")
        assert await client.recv(5) == "hi"
    await server.stop()


async def test_stop_sends_clients_away_and_leaves_nothing(runtime_dir):
    """A stopping server closes its clients with 1001, and nobody is led to it afterwards."""
    server = await serve_echo()
    async with connect(Echo, "lobby", should_reconnect=lambda closed: False) as client:
        await server.stop()
        with pytest.raises(ConnectionClosed) as end:
            await client.recv(5)
    assert end.value.code == 1001
    assert list(runtime_dir.iterdir()) == []
    with pytest.raises(ServerNotFound):
        find_server()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
async def test_its_token_is_for_its_owner_only(runtime_dir):
    """The note that holds the token, and its folder, are readable by their owner only."""
    server = await serve_echo()
    [note] = runtime_dir.glob(f"jpagents-{os.getpid()}-*.json")
    assert server.token in note.read_text("utf-8")
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(runtime_dir.stat().st_mode) == 0o700
    await server.stop()


async def test_runtime_directory_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    """Where no note can be left, agents are served all the same."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(blocked / "runtime"))
    server = await serve_echo()
    async with connect(Echo, host=server.url, token=server.token) as client:
        client.send("hi")
        assert await client.recv(5) == "hi"
    await server.stop()
