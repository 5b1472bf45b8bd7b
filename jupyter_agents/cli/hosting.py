"""``jupyter agents serve`` and ``demo``: agents in this process, without a Jupyter Server."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import types
import webbrowser
from collections.abc import AsyncIterator  # noqa: TC003  # callables' annotations are read
from typing import TYPE_CHECKING, Any

from jupyter_agents.cli.terminal import OK, SAID_NO, USAGE, note, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.standalone import StandaloneServer

__all__ = ["demo", "serve_file"]

Names = dict[str, Any]


def serve_file(options: argparse.Namespace) -> int:
    """Run a file or notebook, and serve its agents until a signal comes."""
    path: Path = options.file
    if not path.is_file():
        note(f"error: there is no file {path}")
        return USAGE
    if path.suffix not in (".py", ".ipynb"):
        note(f"error: {path.name} is neither a .py file nor an .ipynb notebook")
        return USAGE
    return _host(options, lambda: (_run_notebook if path.suffix == ".ipynb" else _run_file)(path))


def demo(options: argparse.Namespace) -> int:
    """Serve a chat room until a signal comes."""
    return _host(options, lambda: {"Room": _demo_room()}, storage="memory", shows="room/lobby")


class _FailedError(Exception):
    """What was to be served did not run; the sentence says where."""


def _host(
    options: argparse.Namespace,
    define: Callable[[], Names],
    *,
    storage: str | None = None,
    shows: str = "",
) -> int:
    """Serve what `define` serves, or else the classes it makes."""
    from jupyter_agents.serving import default_host, serve, stop_default_host
    from jupyter_agents.standalone import StandaloneServer

    host = default_host()
    server = StandaloneServer(host, options.token)
    try:
        host.submit(server.listen, options.port, options.ip).result(10)
        made = define()
        for cls in [] if host.classes else _agents_in(made):
            serve(cls, storage=storage)
        if not host.classes:
            raise _FailedError("no class there derives from Agent")
        stopped = _stopped_by_signal()  # first: who reads that it serves may stop it
        _announce(server, sorted(host.classes), shows)
        if getattr(options, "open", False):
            webbrowser.open(_page(server, shows))
        _wait_for(stopped)
    except _FailedError as error:
        note(f"error: {error}")
        return SAID_NO
    finally:
        if server.url:
            host.submit(server.stop).result(10)
        stop_default_host()
    return OK


def _stopped_by_signal() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _wait_for(stopped: threading.Event) -> None:
    note("Ctrl-C stops it")
    # Windows notices Ctrl-C only between waits.
    while not stopped.wait(1.0):
        pass
    note("stopping")


def _announce(server: StandaloneServer, agents: list[str], shows: str) -> None:
    for agent in agents:
        say(f"{server.url}agents/{agent}/NAME")
    say(f"token {server.token}")
    if shows:
        say(f"in a browser:  {_page(server, shows)}")
        say(f"in a terminal: jupyter agents connect {shows}")


def _page(server: StandaloneServer, shows: str) -> str:
    return f"{server.url}agents/{shows}?token={server.token}"


# ── What is served ───────────────────────────────────────────────────────────────────────────


def _run_file(path: Path) -> Names:
    """Run a file as ``python FILE`` would, and give its names."""
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    sys.modules["__main__"] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        raise _FailedError(f"{path.name} failed") from None
    return module.__dict__


def _run_notebook(path: Path) -> Names:
    """Run a notebook's cells in this process, and give its names."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        codes = [code for cell in cells if (code := _source(cell)).strip()]
    except (ValueError, TypeError, KeyError):
        raise _FailedError(f"{path.name} is no notebook") from None
    # The history of a person's own sessions is no place for these cells.
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    sys.path.insert(0, str(path.resolve().parent))
    for number, code in enumerate(codes, 1):
        note(f"cell {number}/{len(codes)}")
        result: Any = shell.run_cell(code)  # type: ignore[no-untyped-call]
        if not result.success:
            raise _FailedError(f"cell {number} of {path.name} failed")
    names: Names = shell.user_ns
    return names


def _source(cell: dict[str, Any]) -> str:
    source = cell["source"] if cell["cell_type"] == "code" else ""
    return source if isinstance(source, str) else "".join(source)


def _agents_in(names: Names) -> list[type[Agent]]:
    """Give the classes of agents that are defined there, not the imported ones."""
    from jupyter_agents.host.agent import Agent

    found = [
        value
        for name, value in list(names.items())
        if isinstance(value, type) and issubclass(value, Agent) and not name.startswith("_")
    ]
    return [cls for cls in dict.fromkeys(found) if cls.__module__ in ("__main__", __name__)]


def _demo_room() -> type[Agent]:
    from jupyter_agents import Agent, callable_method

    class Room(Agent):
        """A chat room that counts what was said."""

        initial_state: Any = {"messages": 0, "last": None}  # noqa: RUF012  # as users write it

        def on_connect(self, connection: Any, ctx: Any) -> None:
            self.broadcast(f"someone joined, {len(self.get_connections())} are here")

        def on_message(self, connection: Any, message: Any) -> None:
            last = message if isinstance(message, str) else f"{len(message)} bytes"
            self.set_state({"messages": self.state["messages"] + 1, "last": last})
            self.broadcast(message)

        @callable_method
        def shout(self, text: str) -> str:
            """Say the text in capitals, to everyone."""
            self.broadcast(text.upper())
            return text.upper()

        @callable_method
        async def count(self, to: int, pause: float = 0.5) -> AsyncIterator[int]:
            """Count slowly, as a stream."""
            for number in range(1, to + 1):
                yield number
                await asyncio.sleep(pause)

    return Room
