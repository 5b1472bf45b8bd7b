"""A bare Tornado application on the fast WebSocket, for these tests and the conformance suite."""

from __future__ import annotations

from typing import Any

from tornado.web import Application
from tornado.websocket import WebSocketHandler

from jupyter_agents.server.websocket import (
    AgentWebSocketProtocol,
    Flusher,
    Message,
    SocketOptions,
)


class Echo:
    """A receiver that sends back what it gets and remembers everything."""

    def __init__(self) -> None:
        self.protocol: AgentWebSocketProtocol | None = None
        self.events: list[tuple[Any, ...]] = []

    def on_text(self, payload: bytes) -> None:
        assert self.protocol is not None
        self.protocol.send(Message(payload))

    def on_binary(self, payload: bytes) -> None:
        assert self.protocol is not None
        self.protocol.send(Message(payload, binary=True))

    def on_failed(self, error: Exception) -> None:
        self.events.append(("failed", error))

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        self.events.append(("closed", code, reason, was_clean))


class EchoHandler(WebSocketHandler):
    def initialize(self, flusher: Flusher, options: SocketOptions) -> None:
        self.flusher, self.options = flusher, options

    def get_websocket_protocol(self) -> AgentWebSocketProtocol | None:
        echo = Echo()
        echo.protocol = AgentWebSocketProtocol.of(self, echo, self.flusher, self.options)
        return echo.protocol


def echo_application(options: SocketOptions) -> Application:
    """Give an application that echoes on /."""
    return Application([("/", EchoHandler, {"flusher": Flusher(), "options": options})])
