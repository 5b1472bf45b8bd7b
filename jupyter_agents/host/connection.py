"""A client's socket as the agent sees it.

The socket itself is in the server process; this is its stand-in on the agents' thread. What must
survive a kernel restart (state, tags, flags) is attached to the server's record.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextvars import Context
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, overload

from jupyter_agents.link.frames import Kind
from jupyter_agents.protocol import closing, messages
from jupyter_agents.protocol.http import Request

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.instance.instance import AgentInstance

__all__ = ["MAX_STATE_BYTES", "Connection", "ConnectionContext", "Connections", "to_payload"]

MAX_STATE_BYTES = 16_384
"""How long a connection's state may be as JSON, in bytes."""

_TEXT, _BINARY = int(Kind.TEXT), int(Kind.BINARY)  # a member of an enum is slow to find

ReadyState = Literal["connecting", "open", "closing", "closed"]


def to_payload(message: object) -> tuple[bytes, bool]:
    """Bytes for the wire, and whether they are binary.

    TypeError for what is neither text nor bytes.
    """
    if isinstance(message, str):
        return message.encode("utf-8", "replace"), False
    if isinstance(message, bytes):
        return message, True
    try:
        return memoryview(message).tobytes(), True  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"A message must be str or bytes, not {type(message).__name__}; "
            "send_json and broadcast_json take anything that JSON can carry"
        ) from None


class ConnectionContext:
    """How a connection came about: the upgrade request, and its parts by name.

    Parameters
    ----------
    request : Request or str
        A str is the JSON of its ``to_dict``, and is read when it is asked for: few agents look at
        it, and as an object it would be most of an idle connection's memory.
    """

    __slots__ = ("_request",)

    def __init__(self, request: Request | str) -> None:
        self._request = request

    @property
    def request(self) -> Request:
        """The upgrade request."""
        if isinstance(self._request, str):
            self._request = Request.from_dict(json.loads(self._request))
        return self._request

    @property
    def url(self) -> str:
        """The whole URL, without Jupyter's credential."""
        return self.request.url

    @property
    def query(self) -> Mapping[str, str]:
        """The first value of each query name."""
        return self.request.query

    @property
    def headers(self) -> Mapping[str, str]:
        """By name in any case."""
        return self.request.headers

    @property
    def cookies(self) -> Mapping[str, str]:
        """Without Jupyter's own."""
        return self.request.cookies

    @property
    def user(self) -> Mapping[str, Any] | None:
        """Jupyter's identity of the client."""
        return self.request.user


class Connections(Sequence["Connection"]):
    """A snapshot of connections, in the order they came."""

    def __init__(self, items: Sequence[Connection]) -> None:
        self._items = items

    @overload
    def __getitem__(self, index: int) -> Connection: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Connection]: ...
    def __getitem__(self, index: int | slice) -> Connection | Sequence[Connection]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._items)

    def __repr__(self) -> str:
        ids = ", ".join(connection.id for connection in self._items[:5])
        return f"<{len(self)} connections: {ids}{' …' * (len(self) > 5)}>"


class Connection:
    """One client's connection to one agent instance.

    Thread
    ------
    Read from anywhere; `send`, `close` and `set_state` may be called from anywhere and are queued
    in order.
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_instance",
        "_state",
        "accepted",
        "bytes_in",
        "bytes_out",
        "connect_ran",
        "ctx",
        "current",
        "ending",
        "extended",
        "flags",
        "greeted",
        "held",
        "held_back",
        "id",
        "inbox",
        "inbox_bytes",
        "is_disowned",
        "is_drained_soon",
        "latest",
        "marks",
        "messages_in",
        "messages_out",
        "number",
        "opened_at",
        "ready_state",
        "running",
        "shut_with",
        "slot",
        "tags",
        "taken",
        "takes_frames",
        "writes",
    )

    def __init__(
        self,
        instance: AgentInstance,
        number: int,
        connection_id: str,
        request: Request | str,
        *,
        extended: bool = False,
        opened_at: float = 0.0,
        readonly: bool = False,
    ) -> None:
        self._instance = instance
        self.number = number
        self.id = connection_id
        self.ctx = ConnectionContext(request)
        self.extended = extended
        self.opened_at = opened_at
        self.ready_state: ReadyState = "connecting"
        self.tags: tuple[str, ...] = (connection_id,)
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self._state: Any = None
        self._context = Context()
        # what follows is the door's: see instance/door.py
        self.flags: dict[str, bool] = {"readonly": readonly, "protocol": True}
        self.accepted = self.connect_ran = self.greeted = False
        self.takes_frames = False  # accepted and open: what is sent to it now leaves
        self.ending: tuple[int, str, bool] | None = None
        self.running = 0
        self.is_drained_soon = False
        self.latest = 0  # the number of the task that was spawned for it last
        self.shut_with = b""  # the payload of our CLOSE
        self.inbox: deque[tuple[bytes, bool]] | tuple[()] = ()  # a deque is made when needed
        self.inbox_bytes = 0
        self.held_back = False
        self.held: list[tuple[int, bytes, bool]] = []
        self.writes: tuple[int | str, ...] = ()  # ids of those that were applied last
        # ordinals of its messages: see instance/receipts.py
        self.taken = 0  # the latest that was begun
        self.current = 0  # the one under way, where it is settled at its end
        self.marks: MutableSequence[int] | memoryview = [0]  # where the server sees `taken`
        self.slot = 0
        self.is_disowned = False

    @property
    def agent(self) -> Agent:
        """The instance this connection belongs to."""
        return self._instance.agent

    @property
    def uri(self) -> str:
        """The URL the client opened, without Jupyter's credential."""
        return self.ctx.request.url

    @property
    def user(self) -> Mapping[str, Any] | None:
        """Jupyter's identity of the client, or None.

        A guest's has ``"kind"``: ``"share"`` for who came by a link, ``"public"`` for anyone.
        """
        return self.ctx.request.user

    @property
    def readonly(self) -> bool:
        """Whether this connection may not change the agent's state."""
        return self.flags["readonly"]

    @property
    def state(self) -> Any:
        """This connection's own value, None at first.

        Never sent to the client, kept over a kernel restart.
        """
        return self._state

    def set_state(self, value: Any | Callable[[Any], Any]) -> Any:
        """Replace this connection's state, or compute it from the old one; returns the new value.

        Raises
        ------
        TypeError
            When JSON cannot carry it.
        ValueError
            When it is longer than 16 384 bytes as JSON. The old value stays.
        """
        new = value(self._state) if callable(value) else value
        packed = messages.encode(new)
        if len(packed) > MAX_STATE_BYTES:
            raise ValueError(
                f"A connection's state may have {MAX_STATE_BYTES} bytes as JSON, "
                f"this one has {len(packed)}"
            )
        self._state = new
        self._instance.attach(self, state=packed.decode())
        return new

    def send(self, message: str | bytes | bytearray | memoryview) -> bool:
        """Send one message; False when the connection is closed already.

        TypeError for anything but text or bytes.
        """
        if type(message) is str:  # as `to_payload`, in fewer steps
            payload, kind = message.encode("utf-8", "replace"), _TEXT
        else:
            payload, binary = to_payload(message)
            kind = _BINARY if binary else _TEXT
        instance = self._instance
        host = instance.host
        if get_ident() == host.thread_id and not host.posted:  # as `AgentLoop.do`
            return instance.send(self, payload, kind)
        return instance.post_send(self, payload, kind)

    def send_json(self, value: Any) -> bool:
        """Send a value as JSON text."""
        return self._instance.post_send(self, messages.encode(value), _TEXT)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection; the first close wins.

        Parameters
        ----------
        code : int
            1000–1003, 1007–1014 or 3000–4999. Clients of the SDK do not come back after 1008 and
            4000–4999.
        reason : str
            At most 123 bytes as UTF-8.

        Raises
        ------
        ValueError
            For any other code, or a longer reason.
        """
        closing.check_close(code, reason)
        self._instance.close(self, code, reason)

    # -- for the door --------------------------------------------------------------------------

    def attachment(self) -> dict[str, Any]:
        """What the server's record remembers of a connection that was accepted."""
        return {"accepted": True, "tags": self.tags, "flags": self.flags}

    def recall(self, attached: Mapping[str, Any]) -> None:
        """Take back what the server's record remembered."""
        self.flags.update(attached.get("flags") or {})
        self.tags = tuple(attached.get("tags") or (self.id,))
        packed = attached.get("state")
        self._state = messages.decode(packed) if packed else None

    def keep(self, payload: bytes, binary: bool) -> None:
        """Let a message wait its turn."""
        if not isinstance(self.inbox, deque):
            self.inbox = deque()
        self.inbox.append((payload, binary))
        self.inbox_bytes += len(payload) + 64

    def next_kept(self) -> tuple[bytes, bool]:
        """The message that waits longest."""
        assert isinstance(self.inbox, deque)
        payload, binary = self.inbox.popleft()
        self.inbox_bytes -= len(payload) + 64
        return payload, binary

    def forget_kept(self) -> None:
        """What waits is not wanted any more."""
        self.inbox, self.inbox_bytes = (), 0

    def let_go(self) -> None:
        """It is over: hold the agent's object no longer, not even until the collector comes."""
        self._context = Context()

    def take_held(self) -> list[tuple[int, bytes, bool]]:
        """What was sent before the connection was accepted.

        Frame kind, payload, whether to it alone.
        """
        held, self.held = self.held, []
        return held

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.ready_state}>"
