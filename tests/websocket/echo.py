"""A bare Tornado application on the fast WebSocket, for these tests and the conformance suite."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from jupyter_agents.websocket.protocol import (
    AgentWebSocketProtocol,
    Flusher,
    Message,
    SocketOptions,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


class Echo:
    """A receiver that sends back what it gets and remembers how it ended."""

    protocol: AgentWebSocketProtocol

    def __init__(self) -> None:
        self.messages = 0
        self.errors: list[Exception] = []
        self.ends: list[tuple[int, str, bool]] = []
        self.ended = asyncio.Event()

    def on_text(self, payload: bytes) -> None:
        self.messages += 1
        self.protocol.send(Message(payload))

    def on_binary(self, payload: bytes) -> None:
        self.messages += 1
        self.protocol.send(Message(payload, binary=True))

    def on_failed(self, error: Exception) -> None:
        self.errors.append(error)

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        self.ends.append((code, reason, was_clean))
        self.ended.set()


class EchoHandler(WebSocketHandler):
    """Opens an `Echo`; ``?open=raise`` and ``?open=close`` misbehave in `open`."""

    def initialize(self, server: EchoServer) -> None:
        self.server = server

    def get_websocket_protocol(self) -> AgentWebSocketProtocol | None:  # type: ignore[override]
        self.echo = Echo()
        protocol = AgentWebSocketProtocol.of(
            self, self.echo, self.server.flusher, self.server.options
        )
        if protocol is not None:
            self.echo.protocol = protocol
        return protocol

    def open(self, *args: str, **kwargs: str) -> None:
        self.server.handlers.add(self)
        self.server.echoes.append(self.echo)
        how = self.get_argument("open", "")
        if how == "raise":
            raise ZeroDivisionError
        if how == "close":
            self.close(4001, "no")


class EchoServer:
    """What runs, for a test to look at."""

    def __init__(self, options: SocketOptions) -> None:
        self.options = options
        self.flusher = Flusher()
        self.echoes: list[Echo] = []
        self.handlers: weakref.WeakSet[EchoHandler] = weakref.WeakSet()
        self.port = 0

    def application(self) -> Application:
        return Application(
            [("/", EchoHandler, {"server": self})], log_function=lambda handler: None
        )


@asynccontextmanager
async def echo_server(
    options: SocketOptions | None = None, tls: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[EchoServer]:
    """Serve on a free port of 127.0.0.1; at the end, cut whoever is still there."""
    server = EchoServer(options or SocketOptions(**settings))
    http = HTTPServer(server.application(), ssl_options=tls)
    socket, server.port = bind_unused_port()
    http.add_socket(socket)
    try:
        yield server
    finally:
        http.stop()
        for echo in server.echoes:
            echo.protocol.abort()
        await http.close_all_connections()
