"""``list``: `jupyter_agents.cli.listing`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import tornado.web

from tests.client.tornado_server import Agents, running_in_a_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTS = [
    {
        "id": "k1",
        "kernel_id": "k1",
        "notebook": "/home/ann/chat.ipynb",
        "agents": [
            {
                "agent": "chat-room",
                "class": "ChatRoom",
                "state": "live",
                "instances": [{"name": "lobby", "state": "awake", "connections": 2}],
            },
            {"agent": "clock", "class": "Clock", "state": "parked", "instances": []},
        ],
    },
    {"id": "k2", "kernel_id": "k2", "notebook": None, "agents": []},
]


class Api(tornado.web.RequestHandler):
    """What Jupyter Server's extension answers."""

    def get(self) -> None:
        if self.request.headers.get("Authorization") != "token t0k":
            self.set_status(403)
            self.finish({"message": "Forbidden"})
        else:
            self.finish({"hosts": self.settings["agents"].state})


class Alone(tornado.web.RequestHandler):
    """What agents without a Jupyter Server answer."""

    def get(self) -> None:
        self.set_status(404)
        self.finish({"error": "no", "agents": ["alone"]})


@pytest.fixture
def api() -> Iterator[Agents]:
    """A server with the API below /base/, and one without below /alone/."""
    routes = [("/base/api/agents", Api), ("/alone/agents/~/~", Alone)]
    with running_in_a_thread(routes) as agents:
        agents.state = HOSTS
        yield agents


def test_list_shows_what_a_server_serves(api: Any, typed: Any) -> None:
    """Agents with their notebook, instances with their connections, and who is away."""
    code, out, err = typed("list", "--host", api.host, "--token", "t0k")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        api.host,
        "  chat-room  from /home/ann/chat.ipynb",
        "    lobby: awake, 2 connected",
        "  clock (its kernel is away)  from /home/ann/chat.ipynb",
    ]


def test_list_says_that_nothing_is_served(api: Any, typed: Any) -> None:
    """An idle server is named all the same."""
    api.state = []
    code, out, _ = typed("list", "--host", api.host, "--token", "t0k")
    assert (code, out.splitlines()[1:]) == (0, ["  nothing is served"])


def test_list_gives_json(api: Any, typed: Any) -> None:
    """With --json one object per server, as the API tells it."""
    _, out, _ = typed("list", "--host", api.host, "--token", "t0k", "--json")
    assert json.loads(out) == {"url": api.host, "hosts": HOSTS}


def test_list_finds_all_servers(api: Any, typed: Any, runtime_dir: Path) -> None:
    """Without --host all that run are asked, those without a Jupyter Server, too."""
    root = api.host.removesuffix("base/")
    for name, url, token in (("jpserver-1", api.host, "t0k"), ("jpagents-1", f"{root}alone/", "")):
        info = {"url": url, "token": token, "pid": os.getpid()}
        (runtime_dir / f"{name}.json").write_text(json.dumps(info))
    code, out, err = typed("list")
    assert (code, err) == (0, "")
    assert "  chat-room  from /home/ann/chat.ipynb" in out
    assert "  alone" in out.splitlines()


def test_list_goes_on_without_a_server_that_is_silent(
    api: Any, typed: Any, runtime_dir: Path
) -> None:
    """One that does not answer is named on stderr; the code is 3 only when none does."""
    for name, url in (("jpserver-1", api.host), ("jpserver-2", "http://localhost:1/")):
        info = {"url": url, "token": "t0k", "pid": os.getpid()}
        (runtime_dir / f"{name}.json").write_text(json.dumps(info))
    code, out, err = typed("list")
    assert (code, "chat-room" in out, "localhost:1" in err) == (0, True, True)
    (runtime_dir / "jpserver-1.json").unlink()
    assert typed("list")[0] == 3


def test_list_with_a_wrong_token_is_3(api: Any, typed: Any) -> None:
    """Who may not look is told so."""
    code, _, err = typed("list", "--host", api.host, "--token", "wrong")
    assert code == 3
    assert "does not tell" in err


def test_list_without_any_server_is_3(typed: Any) -> None:
    """Where nothing runs, the error says what to do."""
    code, out, err = typed("list")
    assert (code, out) == (3, "")
    assert "start one" in err
