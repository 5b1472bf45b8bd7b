"""What one message costs us without the operating system: both processes' code in one, by hand.

    python -m benchmarks.hot_path

The product's own objects, joined by transports that keep what is written: a client's socket, the
link, the host with an agent. Shown is the least of many short stretches of CPU time, which a busy
machine changes little. `tests/test_instructions.py` counts the calls on the same paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from contextvars import Context
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.peers import CALL, ROWS, TEXT
from benchmarks.subjects import masked
from jupyter_agents import Agent, callable_method
from jupyter_agents.host.host import AgentHost, Hosted
from jupyter_agents.host.storage import MemoryStorage
from jupyter_agents.host.uplink import _LinkEnd
from jupyter_agents.link.frames import FrameReader
from jupyter_agents.link.marks import MARK_BYTES, SLOTS, Marks
from jupyter_agents.server.door import ClientSocket, Door
from jupyter_agents.server.downlink import HostLink
from jupyter_agents.server.limits import Limits
from jupyter_agents.websocket.conversation import Conversation
from jupyter_agents.websocket.protocol import AgentWebSocketProtocol, SocketTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ECHO, ALL, STATE, RPC = (
    masked(TEXT.encode()), masked(b"1", 2), masked(b"12", 2), masked(CALL.encode())
)  # fmt: skip


class HotAgent(Agent):
    """What the agent of the benchmarks does."""

    initial_state = {"count": 100_000_000, "rows": ROWS}  # noqa: RUF012  # as authors write it

    def on_message(self, connection: Any, message: str | bytes) -> None:
        if isinstance(message, str):
            connection.send(message)
        elif len(message) == 1:
            self.broadcast(TEXT)
        else:
            self.set_state({**self.state, "count": self.state["count"] + 1})

    @callable_method
    def add(self, a: int, b: int) -> int:
        return a + b


class Plug:
    """A client's plain socket: what it sends is there to be read, what it is sent is counted."""

    def __init__(self) -> None:
        self.incoming = b""
        self.sent = self.sends = 0

    def fileno(self) -> int:
        return 0

    def recv(self, size: int) -> bytes:
        return self.incoming

    def send(self, data: bytes) -> int:
        self.sent += len(data)
        self.sends += 1
        return len(data)


class Wire(asyncio.Transport):
    """One direction of the link: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.writes = 0

    def write(self, data: Any) -> None:
        self.data += data
        self.writes += 1

    def is_closing(self) -> bool:
        return False

    def take(self) -> bytes:
        data, self.data = self.data, b""
        return data


class HotPath:
    """A server and a kernel with one room; see `opened`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.door = Door(Limits())
        memory = bytearray(SLOTS * MARK_BYTES)
        self.link = HostLink(SimpleNamespace(door=self.door, new_handshake=lambda: None))  # type: ignore[arg-type]
        self.link.id, self.link.ledger = "kernel", Marks(memory)
        self.link._reader = FrameReader(1 << 25)
        self.down = self.link._transport = Wire()
        self.host = AgentHost(loop)
        self.end = _LinkEnd(self.host, None, {})  # type: ignore[arg-type]
        self.end._frames, self.end.marks = self.host.frames, memoryview(memory).cast("Q")
        self.up = self.end._transport = Wire()
        self.host.uplink = self.end
        self.conversations: list[Conversation] = []

    @property
    def plugs(self) -> list[Plug]:
        """The clients' sockets."""
        return [talk._transport._socket for talk in self.conversations]  # type: ignore[union-attr]

    async def settle(self) -> None:
        """Let everything under way arrive."""
        for _ in range(10):
            await asyncio.sleep(0)
            self.to_server(self.up.take())
            self.to_kernel(self.down.take())

    async def grow(self, members: int) -> None:
        """Have so many members in the room, each greeted."""
        served = self.door.relay.find("hot-agent")
        while len(self.conversations) < members:
            client = ClientSocket(self.door)
            talk = AgentWebSocketProtocol.__new__(AgentWebSocketProtocol)
            Conversation.__init__(talk, client, self.door.flusher, self.door.socket_options)
            client.connect(talk)
            transport = SocketTransport(talk, Plug())  # type: ignore[arg-type]
            transport._is_reading = True
            talk.attach(transport, self.loop)
            talk._is_started = True
            number = len(self.conversations)
            client.open(served, "room", f"c{number}", {"request": "{}", "extended": False})
            self.conversations.append(talk)
            await self.settle()

    # -- the three stretches of a message's way ------------------------------------------------

    def from_client(self, frames: bytes) -> bytes:
        """One read of the first member's socket; returns what crosses the link."""
        transport: Any = self.conversations[0]._transport
        self.plugs[0].incoming = frames
        transport._on_readable()
        return self.down.take()

    def to_kernel(self, data: bytes) -> bytes:
        """One read of the link in the kernel; returns what the agent's turn sends."""
        _pour(data, self.end)
        return self.up.take()

    def to_server(self, data: bytes) -> None:
        """One read of the link in the server, until all of it is written to the sockets."""
        _pour(data, self.link)
        while self.door.flusher.is_behind:
            self.door.flusher.turn()

    def stretches(self, frames: bytes) -> dict[str, Callable[[], object]]:
        """The way of these frames in three pieces that can each be repeated."""
        crossing = self.from_client(frames)
        answers = self.to_kernel(crossing)
        self.to_server(answers)
        record: Any = self.conversations[0].receiver.record  # type: ignore[attr-defined]

        def begin() -> None:
            self.from_client(frames)
            record.marks[record.slot] = record.last  # the kernel would have begun with it

        return {
            "server, in": begin,
            "kernel": lambda: self.to_kernel(crossing),
            "server, out": lambda: self.to_server(answers),
        }


def _pour(data: bytes, end: Any) -> None:
    rest = memoryview(data)
    while rest:
        space = end.get_buffer(-1)
        count = min(len(space), len(rest))
        space[:count] = rest[:count]
        end.buffer_updated(count)
        rest = rest[count:]


@contextlib.asynccontextmanager
async def opened(members: int = 1) -> AsyncIterator[HotPath]:
    """A served agent with so many clients."""
    path = HotPath(asyncio.get_running_loop())
    path.host.take(Hosted(HotAgent, "hot-agent", ("hot-agent",), MemoryStorage(), Context()))
    await path.settle()
    await path.grow(members)
    try:
        yield path
    finally:
        for talk in path.conversations:
            talk._disarm()


def least_us(work: Callable[[], object], times: int, rounds: int = 200) -> float:
    """CPU µs of one call: the least of many short stretches."""
    gc.collect()
    gc.disable()
    try:
        return min(_stretch_ns(work, times) for _ in range(rounds)) / times / 1000
    finally:
        gc.enable()


def _stretch_ns(work: Callable[[], object], times: int) -> int:
    start = time.thread_time_ns()
    for _ in range(times):
        work()
    return time.thread_time_ns() - start


PATHS = (
    ("echo", 1, ECHO, 1, 50),
    ("echo, 16 in a read, each", 1, ECHO * 16, 16, 10),
    ("call and result", 1, RPC, 1, 50),
    ("broadcast to 100, each delivery", 100, ALL, 100, 10),
    ("8 broadcasts to 100, each delivery", 100, ALL * 8, 800, 4),
    ("state of 10 KB to 100, each delivery", 100, STATE, 100, 4),
)


async def measured() -> dict[str, list[float]]:
    """CPU µs of the three stretches, by path: the least of two passes, the first to warm up."""
    found: dict[str, list[float]] = {}
    for name, members, frames, per, times in PATHS * 2:
        async with opened(members) as path:
            us = [least_us(work, times) / per for work in path.stretches(frames).values()]
        found[name] = [min(pair) for pair in zip(us, found.get(name, us), strict=True)]
    return found


def table(found: dict[str, list[float]]) -> str:
    """As Markdown."""
    head = "| | server, in, µs | kernel, µs | server, out, µs |\n|---|--:|--:|--:|"
    rows = [f"| {name} | {' | '.join(f'{one:.2f}' for one in us)} |" for name, us in found.items()]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    print(table(asyncio.run(measured())))
