"""A server, a clock and connections that do what a test says, and nothing by themselves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jupyter_agents.client.client import AgentClient


class FakeClock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Any, *args: Any) -> FakeTimer:
        timer = FakeTimer(self.now + delay, lambda: callback(*args))
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def pending(self) -> list[float]:
        """Seconds until each timer that is set, soonest first."""
        return sorted(round(t.when - self.now, 3) for _, _, t in self._timers if not t.cancelled)

    async def advance(self, seconds: float) -> None:
        """Let time pass, and what is due then happen, each in its own turn of the loop."""
        until = self.now + seconds
        await settle()
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not timer.cancelled:
                timer.callback()
            await settle()
        self.now = until


class FakeTimer:
    """What `FakeClock.call_later` gives."""

    def __init__(self, when: float, callback: Any) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(20):
        await asyncio.sleep(0)


class FakeTransport:
    """One connection: what was sent lies in `sent`; the test plays the server."""

    def __init__(self, url: str, headers: Any, receiver: Any) -> None:
        self.url = url
        self.headers = dict(headers)
        self.query = dict(parse_qsl(urlsplit(url).query))
        self.receiver = receiver
        self.sent: list[Any] = []
        self.buffered = 0
        self.closed: tuple[int, str] | None = None

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def close(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = (code, reason)
            asyncio.get_running_loop().call_soon(self.receiver.on_closed, code, reason)

    # ── The server's side ───────────────────────────────────────────────────────────────────

    def frames(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The JSON objects that were sent, of one type or all."""
        found = [json.loads(m) for m in self.sent if isinstance(m, str) and m.startswith("{")]
        return [frame for frame in found if kind in (None, frame.get("type"))]

    def say(self, message: str | bytes | dict[str, Any]) -> None:
        """Send one message to the client; a dict as JSON."""
        data = json.dumps(message) if isinstance(message, dict) else message
        self.receiver.on_message(data)

    def greet(self, name: str = "lobby", agent: str = "room", **state: Any) -> None:
        """Send identity, and a state if one is given."""
        follows = {"stateFollows": True} if state else {}
        self.say({"type": "cf_agent_identity", "name": name, "agent": agent, **follows})
        if state:
            self.say({"type": "cf_agent_state", "version": 1, **state})

    def answer(self, number: int = -1, **fields: Any) -> None:
        """Answer one of the calls that were sent."""
        call = self.frames("rpc")[number]
        self.say({"type": "rpc", "id": call["id"], "success": True, "done": True, **fields})

    def drop(self, code: int = 1006, reason: str = "") -> None:
        """End the connection from the server's side."""
        self.closed = (code, reason)
        self.receiver.on_closed(code, reason)


class FakeServer:
    """What a client reaches: it opens connections once `gate` is open, or `refusal` is raised."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.connections: list[FakeTransport] = []
        self.attempts = 0
        self.refusal: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self, url: str, headers: Any, receiver: Any) -> FakeTransport:
        self.attempts += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        transport = FakeTransport(url, headers, receiver)
        self.connections.append(transport)
        return transport

    @property
    def line(self) -> FakeTransport:
        """The newest connection."""
        return self.connections[-1]

    @property
    def open_lines(self) -> list[FakeTransport]:
        """The connections that nobody closed."""
        return [line for line in self.connections if line.closed is None]

    def client(self, agent: Any = "room", name: str = "lobby", **options: Any) -> AgentClient:
        """A client of this server, on its clock, with dice that always show their most."""
        given = {
            "host": "localhost:8888",
            "opener": self,
            "clock": self.clock,
            "random": lambda: 0.999999,
        }
        return AgentClient(agent, name, **{**given, **options})

    async def opened(self, client: AgentClient, **state: Any) -> FakeTransport:
        """Start the client and greet it."""
        client.start()
        await settle()
        self.line.greet(**state)
        return self.line
