"""WebSocket frames in and out, as bytes; no socket, no loop, no clock.

What leaves is never fragmented and never masked; what enters is judged by RFC 6455 before it is handed on.
The other half, which owns the socket, is `jupyter_agents.server.websocket`.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "FrameParser", "Message", "encode_frame"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def encode_frame(payload: bytes, opcode: int, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """One unmasked frame, as a server sends it."""
    raise NotImplementedError


class Message:
    """One outgoing message; its frame is built once, whatever the number of sockets it goes to.

    Parameters
    ----------
    payload : bytes
        UTF-8 text, or anything when `binary`.
    binary : bool
        Sent with opcode 2 instead of 1.
    replaceable : bool
        A later replaceable message makes this one pointless (a state): a full queue drops it.
    """

    __slots__ = ("_frame", "binary", "payload", "replaceable")

    def __init__(self, payload: bytes, binary: bool = False, replaceable: bool = False) -> None:
        self.payload = payload
        self.binary = binary
        self.replaceable = replaceable
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The very same bytes object at every call."""
        raise NotImplementedError


class FrameParser:
    """Turns what a client sends into events, many per read."""

    def __init__(self, max_message_bytes: int) -> None:
        self.max_message_bytes = max_message_bytes

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield `(opcode, payload)` of each whole message and control frame in `data` and what came before."""
        raise NotImplementedError
