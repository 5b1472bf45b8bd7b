"""The seam between a client and its socket: how one is opened, and what both tell each other.

A client opens a connection by ``await opener(url, headers, receiver)`` and gets a `Transport`.
The one here is Tornado's WebSocket; a test puts its own in the place (``connect(...,
opener=...)``), for instance one that hands frames to a relay in the same loop. Its other half
is `server.sockets`.

Thread
------
Everything runs on the loop that opened the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, websocket_connect

from jupyter_agents.protocol.closing import ABNORMAL
from jupyter_agents.protocol.messages import decode

if TYPE_CHECKING:
    from tornado.iostream import IOStream

    from jupyter_agents.protocol.client_side import Message

__all__ = ["HandshakeRefused", "Opener", "Receiver", "TornadoOpener", "Transport"]


class Transport(Protocol):
    """An open connection, as its client uses it."""

    @property
    def buffered(self) -> int:
        """Bytes handed to `send` that have not left yet."""

    def send(self, message: Message) -> None:
        """Send one message. After the end it is dropped; never raises."""

    def close(self, code: int, reason: str) -> None:
        """Start to close. `Receiver.on_closed` follows, unless the end was told already."""


class Receiver(Protocol):
    """A client, as its transport uses it."""

    def on_message(self, data: Message) -> None:
        """Take one message."""

    def on_closed(self, code: int, reason: str) -> None:
        """Take note of the end: once, and nothing follows. 1006 when the server did not close."""


Opener = Callable[[str, Mapping[str, str], Receiver], Awaitable[Transport]]
"""Opens a connection to a ``ws://`` URL with these headers.

Raises `HandshakeRefused` when a server answers otherwise, and OSError when none does. The
receiver may be told things as soon as the opener is called; it keeps them until the transport
is there.
"""


_SIGN_IN = "it does not let this client in; pass token=…, or headers=… with a cookie"
_HINTS = MappingProxyType(
    {
        301: "it sends elsewhere; is its base_url missing in host=…?",
        302: "it sends elsewhere, perhaps to a login page; pass token=…",
        401: _SIGN_IN,
        403: _SIGN_IN,
        404: "nothing is at this URL; is its jupyter_agents extension enabled?",
    }
)


class HandshakeRefused(ConnectionError):  # named as its cousins in errors
    """The server answered with an HTTP `status` instead of a WebSocket; `body` says why."""

    def __init__(self, status: int, body: bytes = b"") -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body

    def __str__(self) -> str:
        told, hint = _told(self.body), _HINTS.get(self.status, "")
        # Our own 404 says what is served, which tells more than the hint.
        reasons = [told] if told and self.status == 404 else [told, hint]
        answer = f"The server answered {self.status} instead of opening a WebSocket"
        return ": ".join([answer, *filter(None, reasons)])


class TornadoOpener:
    """Opens WebSockets with Tornado.

    Parameters
    ----------
    timeout : float
        Seconds for connecting, TLS and handshake together.
    heartbeat : float
        Seconds between pings. A server from which nothing came for one to two intervals is lost;
        0 sends none.
    max_message_bytes : int
        A longer message closes the connection.
    close_timeout : float
        Seconds that a server may take to answer a close.
    """

    def __init__(
        self,
        *,
        timeout: float = 20.0,
        heartbeat: float = 20.0,
        max_message_bytes: int = 32 << 20,
        close_timeout: float = 2.0,
    ) -> None:
        self._timeout = timeout
        self._close_timeout = close_timeout
        self._heartbeat = heartbeat
        self._max_message_bytes = max_message_bytes

    async def __call__(
        self, url: str, headers: Mapping[str, str], receiver: Receiver
    ) -> _TornadoTransport:
        """Open one connection."""
        transport = _TornadoTransport(receiver, self._close_timeout)
        request = HTTPRequest(
            url,
            headers=dict(headers),
            connect_timeout=self._timeout,
            request_timeout=self._timeout,
        )
        opening = asyncio.ensure_future(
            websocket_connect(
                request,
                on_message_callback=transport.took,
                max_message_size=self._max_message_bytes,
            )
        )
        try:
            connection = await asyncio.shield(opening)
        except HTTPClientError as error:
            body = error.response.body if error.response is not None else b""
            raise HandshakeRefused(error.code, body) from error
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise
        transport.start(connection, self._heartbeat)
        return transport


def _told(body: bytes) -> str:
    """Give the reason in an answer of our own server; others answer with a page."""
    try:
        return str(decode(body)["error"])
    except (ValueError, TypeError, KeyError):
        return ""


def _cut(stream: IOStream | None) -> None:
    if stream is not None:
        stream.close()


def _close_late(opening: asyncio.Future[WebSocketClientConnection]) -> None:
    """Close a connection that came after nobody waited for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class _TornadoTransport:
    """One Tornado connection, with a heartbeat of our own.

    Tornado's pings wait five more seconds after the time is up, and count only pongs as signs
    of life.
    """

    def __init__(self, receiver: Receiver, close_timeout: float) -> None:
        self._receiver: Receiver | None = receiver
        self._close_timeout = close_timeout
        self._connection: WebSocketClientConnection | None = None
        self._heard = True
        self._buffered = 0
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self, connection: WebSocketClientConnection, heartbeat: float) -> None:
        """Take the connection that was made."""
        self._connection = connection
        if self._ended or connection.protocol is None:
            self._took_end()
            return
        connection.protocol.set_nodelay(True)
        connection.on_pong = self._took_pong  # type: ignore[method-assign]
        if heartbeat > 0:
            self._beat(asyncio.get_running_loop(), heartbeat)

    @property
    def buffered(self) -> int:
        """Bytes that the stream has not written yet."""
        return self._buffered

    def send(self, message: Message) -> None:
        """Send one message."""
        if self._connection is None:
            return
        try:
            sent = self._connection.write_message(message, binary=isinstance(message, bytes))
        except WebSocketClosedError:
            # on_closed tells it.
            return
        size = len(message)
        self._buffered += size
        sent.add_done_callback(lambda done: self._sent(done, size))

    def close(self, code: int, reason: str) -> None:
        """Start to close."""
        self._stop_beating()
        if self._connection is not None and self._connection.protocol is not None:
            stream = self._connection.protocol.stream
            self._connection.close(code, reason)
            # Tornado would wait five seconds, and a client that leaves waits for this.
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._close_timeout, _cut, stream)

    def took(self, data: Message | None) -> None:
        """Take what Tornado received; None is the end."""
        self._heard = True
        if data is None:
            self._ended = True
            self._took_end()
        elif self._receiver is not None:
            self._receiver.on_message(data)

    def _took_end(self) -> None:
        # Before `start` the close code is not at hand; then this is called again.
        if self._connection is not None:
            code = self._connection.close_code or ABNORMAL
            self._end(code, self._connection.close_reason or "")

    def _sent(self, sent: asyncio.Future[None], size: int) -> None:
        self._buffered -= size
        if not sent.cancelled():
            # A failed write is looked at, so that asyncio does not complain; on_closed tells it.
            sent.exception()

    def _took_pong(self, data: bytes) -> None:
        self._heard = True

    def _beat(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        if not self._heard:
            self._end(ABNORMAL, "The server is silent")
            return
        self._heard = False
        try:
            if self._connection is not None:
                self._connection.ping()
        except WebSocketClosedError:
            return
        self._timer = loop.call_later(interval, self._beat, loop, interval)

    def _end(self, code: int, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        self._stop_beating()
        if self._connection is not None:
            self._drop(self._connection)
        if receiver is not None:
            receiver.on_closed(code, reason)

    def _drop(self, connection: WebSocketClientConnection) -> None:
        # A dead server will not answer a close frame, so that there is nothing to wait for.
        if connection.protocol is not None:
            stream = connection.protocol.stream
            connection.close()
            _cut(stream)

    def _stop_beating(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
