"""What all handlers of one server share: the relay, the limits, the open sockets.

A `ClientSocket` stands between one WebSocket and the relay and adds nothing of its own: bytes in,
bytes out. The handlers that make them are in `sockets.py`.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_agents.access.credentials import Secrets
from jupyter_agents.access.desk import Desk
from jupyter_agents.access.gate import Gate
from jupyter_agents.link.frames import Kind
from jupyter_agents.link.relay import Relay
from jupyter_agents.websocket.pace import PacedReading
from jupyter_agents.websocket.protocol import AgentWebSocketProtocol, Bundle, Flusher, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from jupyter_agents.link.records import ConnectionRecord, Served
    from jupyter_agents.server.limits import Limits

__all__ = ["ClientSocket", "Door", "PacedSocket"]

_TEXT, _BINARY = int(Kind.TEXT), int(Kind.BINARY)


class Door:
    """What all handlers of one server share: the relay, the limits, the address.

    Parameters
    ----------
    limits : Limits
        Read once; later changes of its traits have no effect on what is open.
    base_url : str
        Where the server's URLs begin, with a slash at both ends, percent-encoded.
    prefix : str
        What comes before ``{agent}/{name}``; it may have several segments.
    token : str
        Without Jupyter: what a client must show, as ``?token=`` or in its Authorization header.
        Empty lets everyone in.
    folder : Path or None
        Where the keys and the register of shared links are kept; None keeps them in memory.
    on_event : callable, optional
        See Relay.
    clock : callable
        Seconds since the epoch.
    """

    def __init__(
        self,
        limits: Limits,
        base_url: str = "/",
        *,
        prefix: str = "agents",
        token: str = "",
        folder: Path | None = None,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.base_url = base_url
        self.prefix = prefix.strip("/")
        self.token = token
        self.clock = clock
        self.max_body_bytes = limits.max_http_body_bytes
        self.stop_timeout_s = limits.stop_timeout_s
        self.socket_options = limits.socket_options()
        self.paces = (limits.max_messages_per_s, limits.max_bytes_per_s)
        self.flusher = Flusher()
        self.relay = Relay(Message, limits.relay_limits(), on_event, Bundle, self.flusher.spread)
        self.gate = Gate(limits.gate_limits(), folder, clock)
        self.relay.handlers[Kind.SHARE] = Desk(self.gate, self.relay.find).asked
        self.sockets: set[ClientSocket] = set()
        self.on_left: Callable[[ClientSocket], None] = _nothing
        """Told of each socket that is gone, while its record still says whose it was."""
        self.is_stopping = False
        self._all_gone = asyncio.Event()
        self._secrets: tuple[tuple[str, str], Secrets] = (("", ""), Secrets())
        self._path = re.compile(re.escape(base_url) + f"/*{re.escape(self.prefix)}/")

    def behind_prefix(self, path: str) -> str:
        """What follows the prefix in a request's path, still percent-encoded."""
        match = self._path.match(path)
        return path[match.end() :] if match else path

    def secrets(self, token: str, cookie: str = "") -> Secrets:
        """What a sign-in by a token or a login cookie takes; made anew once either has changed."""
        if self._secrets[0] != (token, cookie):
            cookies = (cookie,) if cookie else ()
            self._secrets = (token, cookie), Secrets((token,), cookies)
        return self._secrets[1]

    def tick(self) -> None:
        """Let time pass in the relay and at the gate; call it every second."""
        self.relay.tick(self.clock())
        self.gate.tick(self._access_of)

    def new_socket(self) -> ClientSocket:
        """A new client's socket, paced where the limits want it."""
        return PacedSocket(self) if any(self.paces) else ClientSocket(self)

    def left(self, socket: ClientSocket) -> None:
        """A socket is gone."""
        self.sockets.discard(socket)
        self.gate.left(socket)
        self.on_left(socket)
        if not self.sockets:
            self._all_gone.set()

    def _access_of(self, agent: str) -> str:
        served = self.relay.served.get(agent)
        return str(served.options.get("access", "jupyter")) if served else "jupyter"

    async def stop(self) -> None:
        """Send every client away (1001), give them time to answer, then cut those that did not."""
        self.is_stopping = True
        self.relay.stop()
        self._all_gone.clear()
        if self.sockets:
            try:
                await asyncio.wait_for(self._all_gone.wait(), self.stop_timeout_s)
            except asyncio.TimeoutError:
                for socket in list(self.sockets):
                    socket.abort()
        self.gate.close()


class ClientSocket:
    """One client: the Receiver of its WebSocket, and the Socket that the relay knows."""

    __slots__ = ("_door", "_end", "_relay", "on_binary", "on_text", "outlet", "record")

    record: ConnectionRecord
    outlet: AgentWebSocketProtocol
    """The protocol under which the socket opened: messages go there without a step between."""
    on_text: Callable[[bytes], None]
    """See Receiver; the relay's own, once the socket is open."""
    on_binary: Callable[[bytes], None]
    """See Receiver."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._relay = door.relay
        self._end: tuple[int, str, bool] | None = None

    def connect(self, protocol: AgentWebSocketProtocol) -> None:
        """Take the protocol under which the socket will open."""
        self.outlet = protocol

    def open(self, served: Served, name: str, connection_id: str, info: Mapping[str, Any]) -> None:
        """Enter the relay; from here on the client's messages go there."""
        self._door.sockets.add(self)
        now = self._door.clock()
        relay = self._relay
        self.record = record = relay.open(served, name, connection_id, self, info, now)
        self.on_text = partial(relay.take, record, _TEXT)
        self.on_binary = partial(relay.take, record, _BINARY)
        if self._end is not None:
            self._leave(*self._end)

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake."""
        self.outlet.close(code, reason)

    def pause(self) -> None:
        """Stop reading the client."""
        self.outlet.pause_reading()

    def resume(self) -> None:
        """Read it again."""
        self.outlet.resume_reading()

    def abort(self) -> None:
        """Cut the connection."""
        self.outlet.abort()

    def on_failed(self, error: Exception) -> None:
        """See Receiver."""
        if hasattr(self, "record"):
            self._relay.failed(self.record, str(error))

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        """See Receiver."""
        self._end = (code, reason, was_clean)
        if hasattr(self, "record"):
            self._leave(code, reason, was_clean)

    def _leave(self, code: int, reason: str, was_clean: bool) -> None:
        self._door.left(self)
        self._relay.closed(self.record, code, reason, was_clean)


class PacedSocket(ClientSocket):
    """A client that is read no faster than its server's limits say."""

    __slots__ = ("_reading",)

    def connect(self, protocol: AgentWebSocketProtocol) -> None:
        """See ClientSocket."""
        super().connect(protocol)
        self._reading = PacedReading(protocol, *self._door.paces)

    def open(self, served: Served, name: str, connection_id: str, info: Mapping[str, Any]) -> None:
        """See ClientSocket."""
        super().open(served, name, connection_id, info)
        self.on_text = partial(self._take, self.on_text)
        self.on_binary = partial(self._take, self.on_binary)

    def _take(self, take: Callable[[bytes], None], payload: bytes) -> None:
        take(payload)
        self._reading.took(len(payload))

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        """See Receiver."""
        self._reading.end()
        super().on_closed(code, reason, was_clean)

    def pause(self) -> None:
        """Stop reading the client, whatever its pace."""
        self._reading.pause()

    def resume(self) -> None:
        """Read it again, as soon as its pace allows."""
        self._reading.resume()


def _nothing(socket: ClientSocket) -> None:
    return None
