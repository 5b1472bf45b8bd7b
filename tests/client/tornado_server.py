"""A small agent server on a real socket: Tornado, a few methods, and ways to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence


class AgentSocket(tornado.websocket.WebSocketHandler):
    """One connection to the only agent; it understands the wire as far as the tests go."""

    def check_origin(self, origin: str) -> bool:
        return True

    def prepare(self) -> None:
        self.agents.requests.append(self.request)
        if self.agents.refusal:
            self.set_status(self.agents.refusal)
            self.finish({"error": "refused", "agents": ["clock"]})

    @property
    def agents(self) -> Agents:
        return self.settings["agents"]

    def open(self, *args: str) -> None:
        self.agents.sockets.append(self)
        self.say({"type": "cf_agent_identity", "name": "x", "agent": "room", "stateFollows": True})
        self.say({"type": "cf_agent_state", "state": self.agents.state, "version": 1})
        for message in self.agents.greeting:
            self.say(message)
        if self.agents.close_at_once:
            self.close(*self.agents.close_at_once)

    def say(self, message: Any) -> None:
        text = message if isinstance(message, (str, bytes)) else json.dumps(message)
        self.write_message(text, binary=isinstance(text, bytes))

    def on_message(self, message: str | bytes) -> None:
        frame = None
        if isinstance(message, str):
            with contextlib.suppress(ValueError):
                frame = json.loads(message)
        if isinstance(frame, dict) and frame.get("type") == "rpc":
            self.called(frame)
        elif isinstance(frame, dict) and frame.get("type") == "cf_agent_state":
            self.agents.state = frame["state"]
            ack = {"type": "cf_agent_state_ack", "write": frame["write"], "version": 2}
            self.say(ack)
        elif isinstance(frame, dict) and frame.get("type") == "rpc_cancel":
            self.agents.cancelled.append(frame["id"])
        else:
            self.say(message)

    def called(self, frame: dict[str, Any]) -> None:
        answer = {"type": "rpc", "id": frame["id"], "success": True, "done": True}
        method, args = frame["method"], frame["args"]
        if method == "add":
            self.say({**answer, "result": sum(args)})
        elif method == "count":
            for n in range(*args):
                self.say({**answer, "result": n, "done": False, "seq": n})
            self.say({**answer, "result": "end"})
        elif method == "fail":
            self.say({"type": "rpc", "id": frame["id"], "success": False, "error": "failed"})
        elif method == "drop":
            self.close(*args)

    def on_close(self) -> None:
        self.agents.closes.append((self.close_code, self.close_reason))


class Echo(tornado.web.RequestHandler):
    """HTTP to the agent: tells what it was asked."""

    def prepare(self) -> None:
        if "status" in self.request.arguments:
            self.set_status(int(self.get_argument("status")))

    async def answer(self, *args: str) -> None:
        if self.get_argument("slow", ""):
            await self.settings["agents"].stopping.wait()
        self.add_header("X-Many", "a")
        self.add_header("X-Many", "b")
        self.finish(
            {
                "method": self.request.method,
                "uri": self.request.uri,
                "body": self.request.body.decode(),
                "type": self.request.headers.get("Content-Type"),
                "authorization": self.request.headers.get("Authorization"),
            }
        )

    get = post = put = patch = delete = answer


class Agents:
    """The server, and what a test may set or look at.

    Attributes
    ----------
    greeting : list
        Said behind the state.
    refusal : int
        HTTP status instead of a WebSocket.
    close_at_once : tuple or None
        Code and reason.
    """

    def __init__(self, routes: Sequence[Any] = ()) -> None:
        self.routes = [*routes]
        self.state: Any = {"n": 0}
        self.greeting: list[Any] = []
        self.refusal = 0
        self.close_at_once: tuple[int, str] | None = None
        self.sockets: list[AgentSocket] = []
        self.requests: list[Any] = []
        self.closes: list[Any] = []
        self.cancelled: list[str] = []
        self.port = 0
        self.stopping = asyncio.Event()
        self._server: tornado.httpserver.HTTPServer | None = None

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}/base/"

    def start(self, port: int = 0) -> None:
        """Listen; on the same port as before when it is given."""
        routes = [*self.routes, (r"/base/http/(.*)", Echo), (r"/base/agents/(.*)", _Either)]
        application = tornado.web.Application(routes, agents=self, log_function=lambda _: None)
        (socket,) = tornado.netutil.bind_sockets(port, "127.0.0.1")
        self.port = socket.getsockname()[1]
        self._server = tornado.httpserver.HTTPServer(application)
        self._server.add_socket(socket)

    async def stop(self) -> None:
        """Stop listening, and end every connection."""
        assert self._server is not None
        self.stopping.set()
        self._server.stop()
        for socket in self.sockets:
            socket.close(1001)
        await self._server.close_all_connections()
        self.sockets.clear()


class _Either(AgentSocket):
    """WebSocket or HTTP, as asked."""

    async def get(self, *args: str) -> None:
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            await super().get(*args)
        else:
            await Echo.answer(self, *args)

    async def post(self, *args: str) -> None:
        await Echo.answer(self, *args)

    put = patch = delete = post


@contextlib.asynccontextmanager
async def running(routes: Sequence[Any] = ()) -> AsyncIterator[Agents]:
    """A server on this loop, with more routes if some are given."""
    agents = Agents(routes)
    agents.start()
    try:
        yield agents
    finally:
        await agents.stop()


@contextlib.contextmanager
def running_in_a_thread(routes: Sequence[Any] = ()) -> Iterator[Agents]:
    """A server on a loop of its own, for clients that block."""
    started: Future[tuple[Agents, asyncio.AbstractEventLoop]] = Future()
    stop = asyncio.Event()

    async def live() -> None:
        async with running(routes) as agents:
            started.set_result((agents, asyncio.get_running_loop()))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    agents, loop = started.result(10)
    try:
        yield agents
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
