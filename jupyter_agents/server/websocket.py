"""One client's WebSocket under a Tornado handler: frames in at once, frames out together.

How to use it (see also `Receiver`)::

    flusher = Flusher()                       # one for all sockets of an IOLoop

    class Handler(WebSocketHandler):
        def get_websocket_protocol(self):     # None: not version 13, Tornado answers 426
            return AgentWebSocketProtocol.of(self, receiver, flusher, SocketOptions(...))

        def open(self): ...                   # 101 is out; may already send; nothing is read until it returned

The handler is let go once `open` has returned: its `on_message`, `on_close` and `on_pong` are never called, all news
goes to the receiver. Keep the protocol object (`handler.ws_connection` in `open`), not the handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from .frames import Message

__all__ = ["AgentWebSocketProtocol", "Flusher", "Message", "Receiver", "SocketOptions"]


@dataclass(frozen=True)
class SocketOptions:
    """The limits and times of a socket; one object may serve all of them."""

    max_message_bytes: int = 32 * 1024 * 1024
    """Largest incoming message, inflated; checked on the frame header (1009)."""
    max_queue_bytes: int = 8 * 1024 * 1024
    """Backlog at which a slow client loses stale replaceable messages, or else is closed with 1013."""
    close_timeout_s: float = 5.0
    """How long a peer may take to answer a close frame before the connection is cut (1006)."""
    ping_interval_s: float = 30.0
    """Time between pings; 0 sends none."""
    ping_timeout_s: float | None = None
    """How long a peer may stay silent after a ping; None, or anything longer, is the interval."""
    compression: Mapping[str, Any] | None = None
    """None: permessage-deflate is not offered. Else ``{"level": 0-9, "mem_level": 1-9, "min_bytes": int}``, all optional."""


class Receiver(Protocol):
    """Who is told what a client does. Called on the IOLoop; an exception closes this socket only (1011)."""

    def on_text(self, payload: bytes) -> None:
        """A text message: valid UTF-8, still encoded."""

    def on_binary(self, payload: bytes) -> None:
        """A binary message."""

    def on_failed(self, error: Exception) -> None:
        """The peer broke the protocol or sent too much (`errors.RemoteProtocolError`); `on_closed` follows at once."""

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        """The end, exactly once for every socket whose handshake succeeded.

        The peer's code and reason when it sent a close frame (1005 if that was empty), was_clean True; 1006 when it
        vanished, did not pong, or did not answer a close frame in time; 1002, 1007, 1009 when it broke a rule.
        """


class Flusher:
    """Lets the sockets of one IOLoop write at the end of its turn, each once, in slices of 128 per turn."""

    def __init__(self, slice_size: int = 128) -> None:
        raise NotImplementedError

    def mark(self, protocol: AgentWebSocketProtocol) -> None:
        """See to it that `protocol` flushes before the next turn's reads (called by `send`, not by you)."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write the first slice now; call it at the end of a link read to save a turn of the loop."""
        raise NotImplementedError


class AgentWebSocketProtocol(WebSocketProtocol13):
    """One accepted WebSocket. All methods: on the IOLoop's thread, at any time, never raise."""

    receiver: Receiver
    """May be exchanged until `open` returns."""
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    queued_bytes: int
    """Outbound bytes that the operating system has not yet accepted."""
    round_trip_s: float | None
    """Of the latest answered ping."""

    @classmethod
    def of(
        cls,
        handler: WebSocketHandler,
        receiver: Receiver,
        flusher: Flusher,
        options: SocketOptions | None = None,
    ) -> AgentWebSocketProtocol | None:
        """What `get_websocket_protocol` returns: None when the client does not speak version 13."""
        raise NotImplementedError

    def send(self, message: Message) -> None:
        """Queue a message; silently nothing once the socket is closing."""
        raise NotImplementedError

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Send a close frame after what is queued and wait for the answer; only the first call counts."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the connection now (1006)."""
        raise NotImplementedError

    def is_closing(self) -> bool:
        """Whether `send` has become pointless."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Read no more from the socket: the peer's sends will block. No message is delivered until resumed."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Go on reading, with what was held back first."""
        raise NotImplementedError
