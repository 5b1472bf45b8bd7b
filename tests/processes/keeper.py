"""An agent that writes down what happens to it where no kill -9 can reach: into a file."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect as ws_connect

from jupyter_agents import connect
from jupyter_agents.protocol.backoff import ReconnectPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from scripts.jupyter_kernel import Kernel
    from scripts.jupyter_process import JupyterProcess

LIMIT_S = 30.0
HASTY = ReconnectPolicy(min_delay=0.05, max_delay=0.3, min_uptime=0)

CELL = '''
import asyncio, atexit, os, time
from pathlib import Path
from jupyter_agents import Agent, callable_method, serve

JOURNAL = Path({journal!r})

def note(*words):
    with JOURNAL.open("a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def first(what):
    """Whether this happens for the first time, whatever became of the kernel since."""
    mark = JOURNAL.with_suffix("." + what)
    is_first = not mark.exists()
    mark.touch()
    return is_first

class Keeper(Agent):
    redelivery = {redelivery!r}
    initial_state = {{"n": 0}}
    said = 0

    def on_start(self, props=None):
        note("start", self.state["n"])

    def get_connection_tags(self, connection, ctx):
        return [ctx.query["tag"]]

    def should_connection_be_readonly(self, connection, ctx):
        return "look" in ctx.query

    def on_connect(self, connection, ctx):
        connection.set_state({{"secret": ctx.query.get("secret")}})
        note("connect", connection.id)

    def on_message(self, connection, message):
        self.said += 1
        note("message", connection.id, message)
        if message == "block" and first("block"):
            time.sleep(3600)
        elif message == "die" and first("die"):
            os.kill(os.getpid(), 9)
        elif message == "wait" and first("wait"):
            return asyncio.sleep(3600)
        connection.send(message)
        note("done", connection.id, message)

    def on_close(self, connection, code, reason, was_clean):
        note("close", connection.id, code)

    async def on_request(self, request):
        note("request", request.path)
        if request.path == "/hang" and first("hang"):
            await asyncio.sleep(3600)
        return {{"n": self.state["n"]}}

    def on_stop(self):
        note("stop")

    @callable_method
    def add(self, by: int) -> int:
        self.set_state({{"n": self.state["n"] + by}})
        return self.state["n"]

    @callable_method
    def spoken(self) -> int:
        return self.said

    @callable_method
    async def wait(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "waited"

    @callable_method
    def about(self) -> list:
        return sorted(
            [c.id, c.tags, c.state, self.is_connection_readonly(c)] for c in self.get_connections()
        )

room = serve(Keeper, takeover=True{more})
'''


class Keeper:
    """The agent in a kernel, with its journal; every test has an instance of its own.

    Parameters
    ----------
    kernel : Kernel
        Where `serve` runs its cell.
    journal : Path
        An empty file's place.
    """

    def __init__(self, kernel: Kernel, journal: Path) -> None:
        self.kernel = kernel
        self.journal = journal
        self.name = journal.parent.name
        self.server: JupyterProcess = kernel.server

    def cell(self, redelivery: str = "at_most_once", more: str = "") -> str:
        """The cell's source."""
        return CELL.format(journal=str(self.journal), redelivery=redelivery, more=more)

    def serve(self, redelivery: str = "at_most_once", more: str = "") -> None:
        """Run the cell."""
        self.kernel.run(self.cell(redelivery, more))

    async def serve_again(self, redelivery: str = "at_most_once") -> None:
        """Run the cell in the kernel that the server, or the restarter, has started anew."""
        await asyncio.to_thread(self.serve, redelivery)

    def notes(self, *kinds: str) -> list[str]:
        """What was written down, of these kinds only if any are named."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line for line in lines if not kinds or line.split()[0] in kinds]

    async def noted(self, line: str, times: int = 1) -> None:
        """Wait until a line is in the journal."""
        await until(lambda: self.notes().count(line) >= times)

    def client(self, **query: str) -> Any:
        """Our own client of this instance; `events` has what it was told beside messages."""
        name = query.pop("name", "a")
        events: asyncio.Queue[Any] = asyncio.Queue()
        client = connect(
            "Keeper",
            self.name,
            host=self.server.url,
            token=self.server.token,
            id=name,
            query={"tag": "x", **query},
            reconnect=HASTY,
            on_suspended=lambda: events.put_nowait("suspended"),
            on_resumed=lambda: events.put_nowait("resumed"),
            on_open=lambda: events.put_nowait("open"),
            on_close=lambda end: events.put_nowait(end.code),
        )
        client.events = events  # type: ignore[attr-defined]
        return client

    @asynccontextmanager
    async def socket(self, name: str = "raw") -> AsyncIterator[Any]:
        """A plain WebSocket, which never comes back by itself, past its identity and state."""
        url = f"{self.server.ws_url}agents/keeper/{self.name}?_pk={name}&tag=x"
        header = {"Authorization": f"token {self.server.token}"}
        async with ws_connect(url, additional_headers=header, proxy=None) as socket:
            await asyncio.wait_for(socket.recv(), LIMIT_S)
            await asyncio.wait_for(socket.recv(), LIMIT_S)
            yield socket


async def told(client: Any, *events: Any) -> None:
    """Wait until a client was told of exactly these events, in this order."""
    for wanted in events:
        found = await asyncio.wait_for(client.events.get(), LIMIT_S)
        assert found == wanted, (found, wanted)


async def received(socket: Any, *messages: Any) -> None:
    """Wait until these messages came, and nothing between them."""
    for wanted in messages:
        found = await asyncio.wait_for(socket.recv(), LIMIT_S)
        assert found == wanted, (found, wanted)


async def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Wait for what nothing announces."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, inspect.getsource(condition).strip()
        await asyncio.sleep(0.01)
