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

from typing import TYPE_CHECKING, Any

from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from jupyter_agents.server.conversation import Conversation, Receiver, SocketOptions
from jupyter_agents.server.deflate import Deflate, negotiate
from jupyter_agents.server.frames import Message
from jupyter_agents.server.transports import Flusher, StreamTransport

if TYPE_CHECKING:
    from asyncio import Future

__all__ = [
    "AgentWebSocketProtocol",
    "Deflate",
    "Flusher",
    "Message",
    "Receiver",
    "SocketOptions",
]


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
