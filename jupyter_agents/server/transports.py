"""What carries a WebSocket's bytes once Tornado has shaken hands, and when they go.

A transport reads, tells its owner, and writes what it is given; it knows no frames.
`StreamTransport` stays on Tornado's stream and so works for TLS too. The `Flusher` decides when:
once per socket and turn of the loop.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
from asyncio import Future
from collections import deque
from contextvars import Context
from typing import Protocol

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

__all__ = ["READ_BYTES", "Flusher", "Owner", "StreamTransport", "Transport"]

_log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)
# Windows refuses very large sends instead of taking a part of them; Tornado's stream knows how to
# cut them.
_MAY_SEND_DIRECTLY = sys.platform != "win32"


class Flushable(Protocol):
    """What a `Flusher` writes."""

    def flush_now(self) -> None:
        """Write what is queued."""

    def abort(self) -> None:
        """Give up: writing failed."""


class Flusher:
    """Lets the sockets of one IOLoop write at the end of its turn, each once, in slices per turn.

    Parameters
    ----------
    slice_size : int
        Sockets written per turn; between two slices of a large room the loop serves everybody
        else.
    """

    def __init__(self, slice_size: int = 128) -> None:
        self._slice_size = slice_size
        self._marked: deque[Flushable] = deque()
        self._is_scheduled = False
        # Without a context of its own, each turn would copy the one of whoever sent first.
        self._context = Context()

    def mark(self, socket: Flushable) -> None:
        """See to it that `socket` flushes (called by its `send`, not by you)."""
        self._marked.append(socket)
        if not self._is_scheduled:
            self._schedule()

    def flush(self) -> None:
        """Write the first slice now; at the end of a link read, that saves a turn of the loop."""
        marked = self._marked
        for _ in range(min(self._slice_size, len(marked))):
            socket = marked.popleft()
            try:
                socket.flush_now()
            except Exception:
                # One broken socket must not keep the others from being written.
                _log.exception("A WebSocket could not be written and is cut")
                socket.abort()

    def _schedule(self) -> None:
        self._is_scheduled = True
        # Not add_callback: that is for any thread, and wakes the loop by a system call.
        loop = IOLoop.current().asyncio_loop  # type: ignore[attr-defined]  # it always is asyncio's
        loop.call_soon(self._run, context=self._context)

    def _run(self) -> None:
        self._is_scheduled = False
        self.flush()
        if self._marked:
            self._schedule()


class Owner(Protocol):
    """Who is told; called on the IOLoop, must not raise."""

    def data_received(self, data: bytes) -> None:
        """Some bytes came, at most `READ_BYTES` or so per turn of the loop."""

    def drained(self) -> None:
        """The operating system has taken all that the latest `write` had to keep."""

    def connection_lost(self) -> None:
        """Nothing more will be read; may come more than once."""


class Transport(Protocol):
    """The few things a WebSocket needs; none of them raises. It starts paused."""

    def write(self, data: bytes) -> int:
        """Give how many bytes the operating system took; the rest is kept, `drained` will tell.

        Must not be called between a short count and `drained`.
        """

    def pause(self) -> None:
        """Stop reading; at most one read that is under way still arrives."""

    def resume(self) -> None:
        """Begin to read, or read on."""

    def shut_down_writing(self) -> None:
        """Tell the peer that nothing follows, and read on: unread data would be a reset."""

    def close(self) -> None:
        """Close; everything must have been written."""

    def abort(self) -> None:
        """Reset the connection, so that the kernel drops what the peer did not read, too."""


class StreamTransport:
    """Reads and writes by Tornado's stream; a plain socket directly while nothing is buffered."""

    __slots__ = ("_is_paused", "_is_plain", "_is_reading", "_owner", "_stream")

    def __init__(self, owner: Owner, stream: IOStream) -> None:
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
            data = self._stream.read_bytes(READ_BYTES, partial=True)
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
