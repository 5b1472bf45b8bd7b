"""What the server keeps of connections and served classes, so that a kernel may come and go.

`ConnectionRecord` outlives the kernel: it is *parked* while no host serves its class, and
*resumed* when one does. Plain data; `relay.py` moves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jupyter_agents.link.marks import Marks

__all__ = [
    "ConnectionRecord",
    "HostPort",
    "Outlet",
    "PendingRequest",
    "RelayLimits",
    "Served",
    "Socket",
]


class Outlet(Protocol):
    """What takes the messages for one socket. Neither method waits or raises."""

    def send(self, message: Any) -> None:
        """Queue one message, as made by the relay's `wrap`: it leaves with the turn."""

    def send_now(self, message: Any) -> None:
        """The same when nothing follows: what need not wait behind others is written at once."""


class Socket(Protocol):
    """What the relay needs of a socket. Every method returns at once and never raises."""

    @property
    def outlet(self) -> Outlet:
        """Where its messages go; the same for as long as it lives."""

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
    """``kernel_id``, and where they are known ``notebook`` and ``pid``."""

    full: bool
    """True while the link is over its limit; the relay then has the sockets wait."""

    ledger: Marks | None
    """Memory shared with the host; None where there is none."""

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Queue one frame; what is queued in one turn of the loop leaves in one write."""


@dataclass(frozen=True)
class RelayLimits:
    """What the relay bounds; the server's settings fill it."""

    grace_s: float = 600.0
    """How long connections wait for a host to come back before they are closed with 1012."""

    waiting_bytes: int = 4 * 1024 * 1024
    """Inbound bytes kept for one connection.

    While no host is there 1013 past it; while one is, the client is read no more.
    """

    waiting_total_bytes: int = 64 * 1024 * 1024
    """The same for all connections together, and once more for all requests; past it 503."""

    max_parked_gone: int = 10_000
    """Connections that are gone and whose `on_close` is still owed; past it none is."""

    request_timeout_s: float = 60.0
    """How long HTTP, or the question whether a socket may open, waits for its answer."""

    max_requests: int = 1_000
    """HTTP requests under way at once; past it 503."""

    max_connections: int = 100_000
    """Connections at once; past it 1013."""

    allow_public: bool = False
    """Whether a class may let in everyone who reaches the server."""


@dataclass(slots=True, eq=False)
class ConnectionRecord:
    """One client's connection, as the server remembers it."""

    number: int
    id: str
    served: Served
    name: str
    socket: Socket
    info: Mapping[str, Any]
    """What the host is told when it opens: ``request``, as JSON text, and ``extended``."""
    opened_at: float = 0.0
    host: HostPort | None = None
    attached: dict[str, Any] = field(default_factory=dict)
    """What the host asked to remember: connection state (JSON text), tags, flags, ``accepted``."""
    kept: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """What came from the client and is not settled yet: ordinal → frame kind and payload."""
    set_aside: int = 0
    """Bytes that may be kept before the limits are looked at again."""
    room: int = 0
    """How many of these are still free."""
    last: int = 0
    """The ordinal of the latest message kept."""
    session: str = ""
    """The `Served.session` that it was handed to; empty when that host settles nothing."""
    returning: HostPort | None = None
    """A host that knew the connection before its link broke, until it says how much it has."""
    held: bool = False
    """Its agent is behind: the client is not read."""
    stuffed: bool = False
    """Too much is kept: the same."""
    ledger: Marks | None = None
    marks: Sequence[int] = (0,)
    slot: int = 0
    """``marks[slot]`` is the ordinal of the latest message that the agent has begun with."""
    knows_away: bool = False
    """The client was told that its agent is away."""
    gone: tuple[int, str, bool] | None = None
    """``(code, reason, was_clean)`` once the socket is closed."""

    @property
    def agent(self) -> str:
        """The agent's canonical spelling."""
        return self.served.agent

    @property
    def kept_bytes(self) -> int:
        """What is kept, and what keeping it costs."""
        return self.set_aside - self.room

    @property
    def facts(self) -> dict[str, Any]:
        """Which connection it is, for an event."""
        return {"agent": self.agent, "name": self.name, "id": self.id}

    def borrow_slot(self, ledger: Marks | None) -> bool:
        """Take a mark from the host's; False when all are in use."""
        self.lose_slot()
        slot = ledger.give() if ledger is not None else None
        if ledger is not None and slot is not None:
            self.ledger, self.marks, self.slot = ledger, ledger.numbers, slot
        return slot is not None

    def lose_slot(self) -> None:
        """Give the mark back."""
        if self.ledger is not None:
            self.ledger.take_back(self.slot)
        self.ledger, self.marks, self.slot = None, (0,), 0

    def resume_if_free(self) -> None:
        """Read the client again, unless something else keeps it waiting."""
        if not (self.held or self.stuffed or (self.host is not None and self.host.full)):
            self.socket.resume()

    def opening(self, *, resumed: bool) -> dict[str, Any]:
        """The object of an OPEN frame."""
        asked: dict[str, Any] = {}
        if self.returning is not None:  # it goes on with the slot that it has
            asked.update(returning=True, gone=self.gone is not None)
        elif self.ledger is not None:
            asked["slot"] = self.slot
        return {
            "id": self.id,
            "agent": self.agent,
            "name": self.name,
            "resumed": resumed,
            "opened_at": self.opened_at,
            **self.info,
            "attached": self.attached,
            **asked,
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
    autostart: str = ""
    """Source that serves the class again in a new process of its kernel; empty for none."""
    session: str = ""
    """One life of a host that says which messages are settled; empty for one that does not."""
    wants_marks: bool = True
    """Whether it says so by marks."""
    parked_at: float | None = None
    records: dict[int, ConnectionRecord] = field(default_factory=dict)
    waiting: list[PendingRequest] = field(default_factory=list)
    instances: dict[str, str] = field(default_factory=dict)
    """Instance name → ``awake`` or ``asleep``, as the host last said."""

    @property
    def facts(self) -> dict[str, Any]:
        """Which class it is, for an event."""
        return {"agent": self.agent, "where": self.where, "class": self.class_name}

    def agreed(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        """The object of a SERVED frame: a host that was away hears who is still connected."""
        known = {"known": list(self.records)} if wish.get("returning") else {}
        return {"agent": self.agent, **known}

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
