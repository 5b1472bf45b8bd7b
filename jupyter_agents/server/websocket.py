"""The fast WebSocket under a Tornado handler: Tornado shakes hands, a `Conversation` follows.

How to use it (see also `Receiver`)::

    flusher = Flusher()                       # one for all sockets of an IOLoop

    class Handler(WebSocketHandler):
        def get_websocket_protocol(self):     # None: not version 13, Tornado answers 426
            return AgentWebSocketProtocol.of(self, receiver, flusher, SocketOptions(...))

        def open(self): ...                   # the 101 is out, `send` works; reads begin after it

The handler is let go once `open` has returned: its `on_message`, `on_close` and `on_pong` are
never called, all news goes to the receiver. Keep the protocol object, not the handler.
"""

from __future__ import annotations

import socket
import struct
import sys
from asyncio import Future
from typing import Any

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from jupyter_agents.server.conversation import Conversation, Receiver, SocketOptions
from jupyter_agents.server.frames import Deflate, negotiate
from jupyter_agents.server.outbox import Flusher, Message

__all__ = [
    "AgentWebSocketProtocol",
    "Deflate",
    "Flusher",
    "Message",
    "Receiver",
    "SocketOptions",
]

_READ_BYTES = 64 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)
# Windows refuses very large sends instead of taking a part of them; Tornado's stream cuts them.
_MAY_SEND_DIRECTLY = sys.platform != "win32"


class AgentWebSocketProtocol(Conversation, WebSocketProtocol13):
    """What `WebSocketHandler.get_websocket_protocol` returns, and the open socket ever after.

    Tornado's class brings the handshake; frames, writes, pings and the end are `Conversation`'s.
    """

    def __init__(
        self,
        handler: WebSocketHandler,
        receiver: Receiver,
        flusher: Flusher,
        options: SocketOptions,
    ) -> None:
        WebSocketProtocol13.__init__(self, handler, mask_outgoing=False, params=_WebSocketParams())
        Conversation.__init__(self, receiver, flusher, options)

    @classmethod
    def of(
        cls,
        handler: WebSocketHandler,
        receiver: Receiver,
        flusher: Flusher,
        options: SocketOptions | None = None,
    ) -> AgentWebSocketProtocol | None:
        """Give the protocol for a request; None when its client does not speak version 13."""
        if handler.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        return cls(handler, receiver, flusher, options or SocketOptions())

    async def _accept_connection(self, handler: WebSocketHandler) -> None:
        wanted = self._options.compression
        if wanted is not None:
            offers = ",".join(handler.request.headers.get_list("Sec-WebSocket-Extensions"))
            if (agreed := negotiate(offers, wanted)) is not None:
                self.agree(agreed[0])
                handler.set_header("Sec-WebSocket-Extensions", agreed[1])
        await super()._accept_connection(handler)

    def start_pinging(self) -> None:
        """Take the stream over; Tornado calls it between the 101 and `open`."""
        self.stream.set_nodelay(True)
        self.attach(StreamTransport(self, self.stream), self.stream.io_loop)

    async def _receive_frame_loop(self) -> None:
        """Begin to read and let the handler go; Tornado calls it when `open` has returned."""
        self.handler = None  # type: ignore[assignment]  # the request is over, the socket is not
        self.start_reading()

    def _abort(self) -> None:
        self.abort()

    def write_message(
        self, message: str | bytes | dict[str, Any], binary: bool = False
    ) -> Future[None]:
        """Refuse: it would build the frame again for each socket; `send` takes a `Message`."""
        raise NotImplementedError("send a Message")

    def write_ping(self, data: bytes) -> None:
        """Refuse: the socket pings by itself."""
        raise NotImplementedError("a socket pings by itself")


class StreamTransport:
    """Reads and writes by Tornado's stream; a plain socket directly while nothing is buffered."""

    __slots__ = ("_is_paused", "_is_plain", "_is_reading", "_owner", "_stream")

    def __init__(self, owner: Conversation, stream: IOStream) -> None:
        self._owner = owner
        self._stream = stream
        self._is_plain = _MAY_SEND_DIRECTLY and not isinstance(stream, SSLIOStream)
        self._is_reading = False
        self._is_paused = True
        stream.set_close_callback(self._on_stream_closed)

    def write(self, data: bytes) -> int:
        """Hand bytes to the socket if it takes them, the rest to the stream's buffer."""
        rest: bytes | memoryview = data
        sent = 0
        if self._is_plain and not self._stream.writing():
            sent = self._send_directly(data)
            if sent == len(data):
                return sent
            rest = memoryview(data)[sent:]
        try:
            written = self._stream.write(rest)
        except StreamClosedError:
            return len(data)  # the end of the stream is told on its own way
        if not self._stream.writing():
            return len(data)
        written.add_done_callback(self._on_written)
        return sent

    def pause(self) -> None:
        """Arm no further read."""
        self._is_paused = True

    def resume(self) -> None:
        """Read on."""
        self._is_paused = False
        self._read()

    def shut_down_writing(self) -> None:
        """Send a FIN and read on."""
        if self._stream.socket is not None:
            try:
                self._stream.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.abort()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def abort(self) -> None:
        """Close the stream with a reset."""
        if self._stream.socket is not None:
            try:
                self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            except OSError:
                pass  # not a TCP socket, or gone already
        self._stream.close()

    def _send_directly(self, data: bytes) -> int:
        try:
            return self._stream.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except (OSError, AttributeError):
            # AttributeError: the stream closed itself and has no socket any more.
            self._stream.close()
            return len(data)

    def _on_written(self, _written: Future[None]) -> None:
        if not self._stream.closed():
            self._owner.drained()

    def _read(self) -> None:
        if self._is_reading or self._is_paused:
            return
        try:
            data = self._stream.read_bytes(_READ_BYTES, partial=True)
        except StreamClosedError:
            self._owner.connection_lost()
            return
        self._is_reading = True
        # Also when it is done already: one read per turn, so that no peer keeps the loop for
        # itself.
        assert isinstance(data, Future)
        data.add_done_callback(self._on_read)

    def _on_read(self, data: Future[bytes]) -> None:
        self._is_reading = False
        if data.cancelled() or data.exception() is not None:
            self._owner.connection_lost()
            return
        self._owner.data_received(data.result())
        self._read()

    def _on_stream_closed(self) -> None:
        # While reads are armed they find the end themselves, behind the data that came before it.
        if not self._is_reading:
            self._owner.connection_lost()
