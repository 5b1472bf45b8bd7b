"""``serve`` and ``demo``: `jupyter_agents.cli.hosting`."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_agents.client.sync import connect

if TYPE_CHECKING:
    from pathlib import Path

ROOM = """\
from __future__ import annotations
from jupyter_agents import Agent, callable_method

class Room(Agent):
    initial_state = {"n": 0}

    def on_message(self, connection, message):
        connection.send(message)

    @callable_method
    def add(self, a: int, b: int) -> int:
        return a + b + HELPER
"""
HELPER = "HELPER = 100\n"
BASE = "class _Base(Room):\n    pass\n"


def notebook(path: Path, *cells: str) -> Path:
    """Write a notebook with a text cell and these code cells."""
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    text = {"cell_type": "markdown", "source": "# not code: ("}
    path.write_text(json.dumps({"cells": [text, *code], "nbformat": 4, "metadata": {}}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".py", ".ipynb"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_hosts_what_a_file_defines(
    started: Any, tmp_path: Path, kind: str, number: int, runtime_dir: Path
) -> None:
    """The agents of a file or notebook are served until a signal, and found without an address."""
    if kind == ".py":
        path = tmp_path / "rooms.py"
        path.write_text(ROOM + HELPER + BASE)
    else:
        sleep = "import asyncio\nawait asyncio.sleep(0)\n"
        path = notebook(tmp_path / "rooms.ipynb", ROOM, sleep, HELPER + BASE)
    process = started("serve", str(path), "--token", "t0k")
    url = process.line()
    assert url.endswith("/agents/room/NAME")
    assert process.line() == "token t0k"
    with connect("room", "x") as client:
        assert client.call("add", [1, 2]) == 103
        client.send("hi")
        assert client.recv(5) == "hi"
    code, out, err = process.end(number)
    assert (code, out) == (0, "")
    assert "Ctrl-C stops it" in err
    assert ("cell 3/3" in err) == (kind == ".ipynb")
    assert list(runtime_dir.glob("jpagents-*")) == []


@pytest.mark.slow
def test_serve_leaves_the_choice_to_a_file_that_serves(started: Any, tmp_path: Path) -> None:
    """What a file serves itself, by whatever address, is all that is served."""
    path = tmp_path / "rooms.py"
    choice = "class Other(Room):\n    pass\n\nfrom jupyter_agents import serve\n"
    path.write_text(f"{ROOM}{HELPER}{choice}serve(Other, slug='hall', storage='memory')\n")
    process = started("serve", str(path), "--token", "t0k")
    assert process.line().endswith("/agents/hall/NAME")
    assert process.line() == "token t0k"
    assert process.end(signal.SIGINT)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "code", "told"),
    [
        ("missing.py", None, 2, "no file"),
        ("rooms.txt", "x", 2, "neither"),
        ("empty.py", "x = 1", 1, "no class there derives from Agent"),
        ("broken.py", "def f():\n    return 1 / 0\nf()", 1, "ZeroDivisionError"),
        ("syntax.py", "def", 1, "SyntaxError"),
        ("broken.ipynb", "{", 1, "no notebook"),
        ("strange.ipynb", '{"cells": [5]}', 1, "no notebook"),
        ("failing.ipynb", ["x = 1", "1 / 0", "never = 1"], 1, "cell 2 of failing.ipynb failed"),
    ],
)
def test_serve_that_cannot_says_why(
    started: Any, tmp_path: Path, name: str, content: Any, code: int, told: str
) -> None:
    """A file that cannot be served ends the command with its reason, and nothing is left."""
    path = tmp_path / name
    if isinstance(content, list):
        notebook(path, *content)
    elif content is not None:
        path.write_text(content)
    found, out, err = started("serve", str(path)).end()
    assert found == code
    assert told in err + out
    assert "cell 3" not in err


def test_demo_is_a_room_to_play_with(started: Any) -> None:
    """The demo says where it is; two clients meet there, and its methods work."""
    process = started("demo", "--token", "t0k")
    lines = [process.line() for _ in range(4)]
    assert lines[2].startswith("in a browser:  http://127.0.0.1:")
    assert lines[2].endswith("/agents/room/lobby?token=t0k")
    assert lines[3] == "in a terminal: jupyter agents connect room/lobby"
    with connect("room", "lobby") as one, connect("room", "lobby") as two:
        assert two.recv(5) == "someone joined, 2 are here"
        two.send("hi")
        assert [one.recv(5) for _ in range(3)][-1] == "hi"
        assert one.call("shout", ["x"]) == "X"
        assert list(one.stream("count", [3, 0])) == [1, 2, 3]
        assert one.state == {"messages": 1, "last": "hi"}
    assert process.end(signal.SIGINT)[0] == 0


@pytest.mark.slow
def test_port_that_is_taken_is_3(started: Any, tmp_path: Path) -> None:
    """A port in use is an error of one line."""
    first = started("demo")
    port = first.line().split(":")[2].partition("/")[0]
    code, _, err = started("demo", "--port", port).end()
    assert (code, "error: " in err, "Traceback" in err) == (3, True, False)
    assert first.end(signal.SIGTERM)[0] == 0
