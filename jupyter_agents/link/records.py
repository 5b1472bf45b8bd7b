"""What the server keeps of connections and served classes, so that a kernel may come and go.

`ConnectionRecord` outlives the kernel: it is *parked* while no host serves its class, and
*resumed* when one does. Plain data; `relay.py` moves it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ConnectionRecord", "HostPort", "PendingRequest", "RelayLimits", "Served", "Socket"]


class Socket(Protocol):
    """What the relay needs of a socket. Every method returns at once and never raises."""

    def send(self, message: Any) -> None:
        """Queue one message, as made by the relay's `wrap`."""

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""


class HostPort(Protocol):
    """What the relay needs of the link to one host."""

    id: str
    """The kernel's id; unique among the living hosts."""

    about: dict[str, Any]
    """For people: ``kernel_id``, ``notebook``, ``pid``."""

    full: bool
    """True while the link is over its limit; the relay then has the sockets wait."""

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Queue one frame; what is queued in one turn of the loop leaves in one write."""


@dataclass(frozen=True)
class RelayLimits:
    """What the relay bounds; the server's settings fill it."""

    grace_s: float = 600.0
    """How long connections wait for a host to come back before they are closed with 1012."""

    waiting_bytes: int = 4 * 1024 * 1024
    """Inbound bytes kept for one connection while no host is there; past it 1013."""

    waiting_total_bytes: int = 64 * 1024 * 1024
    """The same for all connections together, and once more for all requests; past it 503."""

    max_parked_gone: int = 10_000
    """Connections that closed while parked and whose `on_close` is still owed."""

    request_timeout_s: float = 60.0
    """How long HTTP, or the question whether a socket may open, waits for its answer."""

    max_requests: int = 1_000
    """HTTP requests under way at once; past it 503."""

    max_connections: int = 100_000
    """Connections at once; past it 1013."""


@dataclass(slots=True, eq=False)
class ConnectionRecord:
    """One client's connection, as the server remembers it."""

    number: int
    id: str
    served: Served
    name: str
    socket: Socket
    info: Mapping[str, Any]
    """What the host is told when it opens: ``uri``, ``request``, ``user``, ``extended`` ….

    JSON-safe.
    """
    opened_at: float = 0.0
    host: HostPort | None = None
    attached: dict[str, Any] = field(default_factory=dict)
    """What the host asked to remember: connection state (JSON text), tags, flags, ``accepted``."""
    waiting: deque[tuple[int, bytes]] = field(default_factory=deque)
    waiting_bytes: int = 0
    held: bool = False
    gone: tuple[int, str, bool] | None = None
    """``(code, reason, was_clean)`` once the socket is closed."""

    @property
    def agent(self) -> str:
        """The agent's canonical spelling."""
        return self.served.agent

    @property
    def facts(self) -> dict[str, Any]:
        """Which connection it is, for an event."""
        return {"agent": self.agent, "name": self.name, "id": self.id}

    def opening(self, *, resumed: bool) -> dict[str, Any]:
        """The object of an OPEN frame."""
        return {
            "id": self.id,
            "agent": self.agent,
            "name": self.name,
            "resumed": resumed,
            "opened_at": self.opened_at,
            **self.info,
            "attached": self.attached,
        }


@dataclass(slots=True, eq=False)
class Served:
    """A class that some host serves, or served until its kernel went away."""

    agent: str
    class_name: str
    spellings: tuple[str, ...]
    host: HostPort | None
    about: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    """``gate``: the class has its own on_before_connect; ``cors``; ``access``."""
    parked_at: float | None = None
    records: dict[int, ConnectionRecord] = field(default_factory=dict)
    waiting: list[PendingRequest] = field(default_factory=list)
    instances: dict[str, str] = field(default_factory=dict)
    """Instance name → ``awake`` or ``asleep``, as the host last said."""

    @property
    def where(self) -> str:
        """The notebook or kernel, for a sentence."""
        return str(self.about.get("notebook") or self.about.get("kernel_id") or "another kernel")


@dataclass(slots=True, eq=False)
class PendingRequest:
    """Something that waits for a host's answer."""

    number: int
    kind: int
    payload: bytes
    answer: Callable[[dict[str, Any], bytes], None]
    deadline: float
    served: Served
    sent: bool = False
