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
from asyncio import Future, get_running_loop
from typing import Any

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from jupyter_agents.websocket.conversation import Conversation, Receiver
from jupyter_agents.websocket.flusher import Flusher
from jupyter_agents.websocket.frames import Deflate, negotiate
from jupyter_agents.websocket.options import SocketOptions
from jupyter_agents.websocket.outbox import Bundle, Message

__all__ = [
    "AgentWebSocketProtocol",
    "Bundle",
    "Deflate",
    "Flusher",
    "Message",
    "Receiver",
    "SocketOptions",
]

_PARAMS = _WebSocketParams()  # Tornado's defaults: what they say of messages and pings is ours
_READ_BYTES = 64 * 1024
_LONG_READ_BYTES = 256 * 1024
"""After a read that was full: much is on its way, and each read costs a turn."""
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
        WebSocketProtocol13.__init__(self, handler, mask_outgoing=False, params=_PARAMS)
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
        self.attach(StreamTransport(self, self.stream), get_running_loop())

    async def _receive_frame_loop(self) -> None:
        """Begin to read and let the handler go; Tornado calls it when `open` has returned."""
        self._let_go()
        early = self._leave_stream()
        self.start_reading()
        if early:
            self.data_received(early)

    def _let_go(self) -> None:
        """The request is over, the socket is not: nothing of it waits for the collector."""
        handler, self.handler = self.handler, None  # type: ignore[assignment]
        handler.ui = None  # type: ignore[attr-defined]  # what it has made names it

    def _leave_stream(self) -> bytes:
        """Take a plain socket away from Tornado's stream; give what the stream had read already.

        Nothing happens to the stream when it encrypts, still has to write, or has ended.
        """
        stream = self.stream
        is_plain = _MAY_SEND_DIRECTLY and not isinstance(stream, SSLIOStream)
        may_leave = is_plain and self._options.leaves_stream
        if not may_leave or stream.closed() or stream.writing() or self._is_blocked:
            return b""
        own = stream.socket
        stream.set_close_callback(None)
        stream.socket = _Lent(own)  # type: ignore[assignment]  # it has what a stream asks for
        # All that is buffered, or else what one read brings: either leaves the buffer empty.
        read = stream.read_bytes(stream.max_buffer_size, partial=True)
        assert isinstance(read, Future)
        early = read.result() if read.done() and read.exception() is None else b""
        stream.close()
        self.stream = None  # type: ignore[assignment]  # nobody may use it any more
        self._transport = SocketTransport(self, own)
        return early

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


class _Lent:
    """What a stream has of a socket that is no longer its own: it may read, and closes nothing."""

    def __init__(self, own: socket.socket) -> None:
        self.recv_into = own.recv_into
        self.getsockopt = own.getsockopt
        self.fileno = own.fileno

    def close(self) -> None:
        """The socket lives on."""


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
            _shut(self._stream.socket, socket.SHUT_WR)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def abort(self) -> None:
        """Close the stream with a reset."""
        if self._stream.socket is not None:
            _reset_on_close(self._stream.socket)
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


class SocketTransport:
    """Reads and writes a plain socket by the loop's own callbacks.

    Per message it saves the futures and buffers of a stream, and per idle connection the stream.
    """

    __slots__ = ("_is_reading", "_loop", "_number", "_owner", "_read_bytes", "_rest", "_socket")

    def __init__(self, owner: Conversation, own: socket.socket) -> None:
        self._owner = owner
        self._socket = own
        # What the loop is told: for a socket it does not know yet, it would ask for its addresses.
        self._number = own.fileno()
        self._loop = get_running_loop()
        self._is_reading = False
        self._read_bytes = _READ_BYTES
        self._rest: bytes | memoryview = b""

    def write(self, data: bytes) -> int:
        """Hand bytes to the socket if it takes them, the rest when it can."""
        try:
            sent = self._socket.send(data)
        except OSError as error:
            sent = self._unsent(error, data)
        if sent < len(data):
            self._rest = memoryview(data)[sent:]
            self._loop.add_writer(self._number, self._on_writable)
        return sent

    def pause(self) -> None:
        """Let the kernel's buffer fill; not even the end is noticed meanwhile."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._number)

    def resume(self) -> None:
        """Read on."""
        if not self._is_reading and self._socket.fileno() >= 0:
            self._is_reading = True
            self._loop.add_reader(self._number, self._on_readable)

    def shut_down_writing(self) -> None:
        """Send a FIN and read on."""
        _shut(self._socket, socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            self.pause()
            self._loop.remove_writer(self._number)
            self._rest = b""
            self._socket.close()
        self._owner.connection_lost()

    def abort(self) -> None:
        """Close the socket with a reset."""
        _reset_on_close(self._socket)
        self.close()

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(self._read_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._read_bytes = _READ_BYTES if len(data) < _READ_BYTES else _LONG_READ_BYTES
            self._owner.data_received(data)
        else:
            self.close()

    def _on_writable(self) -> None:
        try:
            sent = self._socket.send(self._rest)
        except OSError as error:
            sent = self._unsent(error, self._rest)
        self._rest = self._rest[sent:]
        if not self._rest:
            self._loop.remove_writer(self._number)
            self._owner.drained()

    def _unsent(self, error: OSError, data: bytes | memoryview) -> int:
        if isinstance(error, (BlockingIOError, InterruptedError)):
            return 0
        # Let go of it: reading finds the end, behind what the peer said before it.
        _shut(self._socket, socket.SHUT_RDWR)
        return len(data)


def _shut(own: socket.socket, how: int) -> None:
    try:
        own.shutdown(how)
    except OSError:
        pass  # reset by the peer, or closed: reading finds that, too


def _reset_on_close(own: socket.socket) -> None:
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except OSError:
        pass  # no TCP socket, or closed
