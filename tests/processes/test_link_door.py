"""The link's door with real processes: who may serve, and what a dead server leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.live import connected

LIMIT_S = 20.0

CELL = """
from jupyter_agents import Agent, callable_method, serve

class ChatRoom(Agent):
    @callable_method
    def who(self):
        return WHO

ns = serve(ChatRoom, storage="memory"%s)
"""

STRANGER = """
import asyncio, os
from jupyter_agents.host.agent import Agent
from jupyter_agents.host.host import AgentHost
from jupyter_agents.host.uplink import KernelUplink, link_candidates

async def main():
    host = AgentHost(asyncio.get_running_loop())
    print(len(link_candidates()), await KernelUplink(host, b"some other key").connect())

asyncio.run(main())
"""


def cell(who, options=""):
    """A cell that serves ChatRoom, which says who it is."""
    return f"WHO = {who!r}" + CELL % options


def who(client):
    """Which kernel answers this client."""
    client.send(json.dumps({"type": "rpc", "id": "1", "method": "who", "args": []}))
    while (frame := json.loads(client.recv(LIMIT_S))).get("type") != "rpc":
        pass
    return frame["result"]


@pytest.mark.processes
def test_a_second_kernel_steals_no_class(start_server):
    """Its cell fails and says where the class is served; clients stay until it says takeover."""
    server = start_server()
    first, second = server.kernel("first.ipynb"), server.kernel("second.ipynb")
    first.run(cell("first"))
    with connected(server, "agents/chat-room/lobby") as client:
        assert who(client) == "first"
        failed = second.run(cell("second"), check=False)
        assert "first.ipynb" in failed.error
        assert "takeover=True" in failed.error
        assert who(client) == "first"
        second.run(cell("second", ", takeover=True"))
        assert who(client) == "second"
    first.shutdown()
    second.shutdown()


@pytest.mark.processes
def test_a_process_without_a_kernels_key_serves_nothing(start_server):
    """A process of the same user that finds the socket is refused, and no kernel notices."""
    server = start_server()
    kernel = server.kernel()
    kernel.run(cell("kernel"))
    link = kernel.run("import os; print(os.environ['JUPYTER_AGENTS_LINK'])").text.strip()
    done = subprocess.run(
        [sys.executable, "-c", STRANGER],
        env={**os.environ, "JUPYTER_AGENTS_LINK": link},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    candidates, entered = done.stdout.split()
    assert int(candidates) >= 1, done.stderr
    assert entered == "False"
    assert "A kernel's link was refused" in server.log()
    with connected(server, "agents/chat-room/lobby") as client:
        assert who(client) == "kernel"
    kernel.shutdown()


@pytest.mark.processes
def test_a_dead_servers_socket_is_swept(start_server, tmp_path):
    """What a server that was killed left in the runtime directory, the next one removes."""
    runtime = {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    first = start_server(env=runtime)
    [left] = (tmp_path / "runtime").glob("jpagents-*.sock")
    assert left.stat().st_mode & 0o777 == 0o600
    first.kill()
    assert left.exists()
    start_server(env=runtime)
    [there] = (tmp_path / "runtime").glob("jpagents-*.sock")
    assert there != left
