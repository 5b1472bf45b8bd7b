"""Which server is meant when none is named: `jupyter_agents.client.discovery`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_agents.client import discovery
from jupyter_agents.client.client import AgentClient
from jupyter_agents.client.discovery import RunningServer, ServerNotFound, find_server
from tests.client.fakes import FakeServer, settle

if TYPE_CHECKING:
    from pathlib import Path


def leave(folder: Path, name: str, age: float = 0, **info: Any) -> None:
    """Write a server's file, as old as told."""
    path = folder / name
    path.write_text(json.dumps(info), "utf-8")
    os.utime(path, (1e9 - age, 1e9 - age))


def jupyter(folder: Path, pid: int, age: float = 0, **info: Any) -> None:
    """Write what a Jupyter Server writes."""
    url = f"http://localhost:{8000 + pid}/"
    leave(
        folder, f"jpserver-{pid}.json", age, **{"url": url, "pid": pid, "token": f"t{pid}", **info}
    )


def found(folder: Path, dead: tuple[int, ...] = (), **environ: str) -> RunningServer:
    """The server that is meant with these files and this environment."""
    return find_server(environ, folder, lambda pid: pid not in dead)


def test_newest_living_server_is_meant(tmp_path: Path) -> None:
    """From a terminal: the newest whose process lives."""
    jupyter(tmp_path, 1, age=50)
    jupyter(tmp_path, 2, age=10)
    jupyter(tmp_path, 3, age=0)
    assert found(tmp_path, dead=(3,)) == RunningServer("http://localhost:8002/", "t2", 2)


def test_kernel_means_the_server_that_started_it(tmp_path: Path) -> None:
    """Inside a notebook: the server of this kernel, however many newer ones run (T201)."""
    jupyter(tmp_path, 1, age=50, base_url="/user/alice/", url="http://h:1/user/alice/")
    jupyter(tmp_path, 2)
    assert found(tmp_path, JPY_PARENT_PID="1").url == "http://h:1/user/alice/"
    assert found(tmp_path, JPY_PARENT_PID="77").pid == 2
    assert found(tmp_path, JPY_PARENT_PID="x").pid == 2


def test_agents_of_this_very_process_come_first(tmp_path: Path) -> None:
    """Where this process serves agents without Jupyter, they are meant."""
    jupyter(tmp_path, 1)
    leave(tmp_path, "jpagents-x.json", 99, url="http://127.0.0.1:5/", token="own", pid=os.getpid())
    assert found(tmp_path, JPY_PARENT_PID="1") == RunningServer(
        "http://127.0.0.1:5/", "own", os.getpid()
    )


def test_terminal_of_a_server_means_that_server(tmp_path: Path) -> None:
    """Jupyter tells its terminals its URL; the token is in the file, or in the environment."""
    jupyter(tmp_path, 1, age=50)
    jupyter(tmp_path, 2)
    assert found(tmp_path, JUPYTER_SERVER_URL="http://localhost:8001").token == "t1"
    elsewhere = found(tmp_path, JUPYTER_SERVER_URL="http://h:9/", JUPYTER_TOKEN="e")
    assert elsewhere == RunningServer("http://h:9/", "e")


def test_base_url_is_part_of_the_url(tmp_path: Path) -> None:
    """A file that names its base_url apart is understood as well."""
    leave(tmp_path, "jpagents-1.json", url="http://127.0.0.1:5", base_url="/a/b/", pid=1)
    assert found(tmp_path).url == "http://127.0.0.1:5/a/b/"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"url": "http://x/"}', '{"url": 1, "pid": 2}', "\0"]
)
def test_unreadable_files_are_passed_over(tmp_path: Path, text: str) -> None:
    """A half-written or foreign file harms nobody."""
    (tmp_path / "jpserver-9.json").write_text(text, "utf-8")
    jupyter(tmp_path, 1)
    assert found(tmp_path).pid == 1


def test_server_on_a_unix_socket_is_passed_over(tmp_path: Path) -> None:
    """A server without a TCP address cannot be reached by a WebSocket client."""
    jupyter(tmp_path, 1, url="http+unix://%2Ftmp%2Fx.sock/")
    with pytest.raises(ServerNotFound):
        found(tmp_path)


@pytest.mark.parametrize("folder", ["", "missing"])
def test_no_server_says_what_to_do(tmp_path: Path, folder: str) -> None:
    """Without any server the error tells how to start one, or to name one."""
    with pytest.raises(ServerNotFound, match=r"jupyter lab.*host="):
        found(tmp_path / folder)


def test_dead_processes_are_recognised() -> None:
    """This process lives; one that has ended does not, nor does none at all."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert discovery._is_alive(os.getpid())
    assert not discovery._is_alive(ended.pid)
    assert not discovery._is_alive(0)
    assert not discovery._is_alive(2**70)


def test_the_runtime_folder_is_jupyters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked for where Jupyter writes them."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    leave(tmp_path, "jpserver-1.json", url="http://h:1/", pid=os.getpid())
    assert [server.url for server in discovery.running_servers()] == ["http://h:1/"]


def test_jupyter_server_is_not_loaded() -> None:
    """Looking for a server does not cost the second that importing Jupyter Server takes."""
    program = (
        "import sys\n"
        "from jupyter_agents.client.discovery import running_servers\n"
        "running_servers()\n"
        "print('jupyter_server' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


async def test_client_without_a_host_asks_at_every_connection(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that came back on another port with another token is found (T201)."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    leave(tmp_path, "jpserver-1.json", url="http://h:1/user/a/", token="one", pid=os.getpid())
    client = server.client(host=None)
    client.start()
    await settle()
    assert server.line.url.startswith("ws://h:1/user/a/agents/room/lobby?")
    assert server.line.headers == {"Authorization": "token one"}
    leave(tmp_path, "jpserver-1.json", url="http://h:2/", token="two", pid=os.getpid())
    client.reconnect()
    await settle()
    assert server.line.url.startswith("ws://h:2/agents/room/lobby?")
    assert server.line.headers == {"Authorization": "token two"}
    client.close()
    own = AgentClient("room", opener=server, clock=server.clock, token="mine")
    own.start()
    await settle()
    assert server.line.headers == {"Authorization": "token mine"}
    own.close()
