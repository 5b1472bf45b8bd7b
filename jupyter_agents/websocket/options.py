"""The limits and times of WebSockets. Pure data; `server/limits.py` fills it from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_agents.websocket.frames import Deflate

__all__ = ["SocketOptions"]


@dataclass(frozen=True)
class SocketOptions:
    """The limits and times of a socket; one object may serve all of them."""

    max_message_bytes: int = 32 * 1024 * 1024
    """Largest incoming message, inflated; checked on the frame header (1009)."""
    max_queue_bytes: int = 8 * 1024 * 1024
    """A slow client with more than this waiting loses stale replaceable messages, else it is
    closed with 1013. One message more may wait, so that a single big one always gets through."""
    close_timeout_s: float = 5.0
    """How long a peer may take to answer a close frame before the connection is cut (1006)."""
    ping_interval_s: float = 30.0
    """Time between pings; 0 sends none."""
    ping_timeout_s: float | None = None
    """How long a peer may be silent after a ping; None, or anything longer, is the interval."""
    compression: Deflate | None = None
    """How to compress for a client that can inflate; None agrees on no compression."""
    leaves_stream: bool = True
    """Read and write plain sockets without Tornado's stream. TLS stays on it in any case."""
