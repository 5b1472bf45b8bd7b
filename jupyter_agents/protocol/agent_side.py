"""One agent instance's end of the wire: which of its connections is sent what about the state.

Promises that every replica ends equal to the agent's state, that a state is encoded once
however many look on, and that nobody sees our extension who did not negotiate it. Must not know
sockets, clocks or agents: the host says what happened, sends what is returned, in order, and
calls `settle` once things are quiet. Frames are read by `messages.read_client_frame`; the other
half is `replica`.

How replicas converge. Frames to one connection arrive in the order in which they were sent.

- A client of our extension keeps its own writes apart until they are answered (`ack`,
  `refuse`), so whatever was sent last is what it shows in the end.
- An SDK client shows its own write at once and is never answered. If a state frame crosses the
  write on its way, the client ends with the frame's state and the agent with the write's.
  Nobody can tell whether they crossed, so a connection that was ever sent a state and then
  writes is sent the settled state; so is one whose write was refused. Any state frame after the
  write does it, else `settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from jupyter_agents.protocol import messages, patches
from jupyter_agents.protocol.messages import MISSING, WriteId

__all__ = ["AgentSide", "Outgoing", "Snapshot", "Views", "is_stale"]


class Snapshot:
    """A state as it was after one change. Equal to another of the same version and JSON.

    Parameters
    ----------
    value : Any
        What JSON can carry. It must not change before `json` is read for the first time.
    version : int
        Grows with every change, over all kernels.
    json : bytes or None
        The value as JSON where that is there already; the value may then be left out.
    """

    __slots__ = ("_json", "value", "version")

    def __init__(self, value: Any = MISSING, version: int = 0, json: bytes | None = None) -> None:
        self.value = value
        self.version = version
        self._json = json

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return self.version == other.version and self.json == other.json

    def __hash__(self) -> int:
        return hash((self.version, self.json))

    @property
    def json(self) -> bytes:
        """The state as JSON, encoded once; TypeError when JSON cannot carry it."""
        if self._json is None:
            self._json = messages.encode(self.value)
        return self._json


Views = Callable[[int], Snapshot]
"""Gives a connection, by its key, its own projection of the state, of the same version."""


class Outgoing(NamedTuple):
    """One frame for some connections. `is_state`: a whole state, which any later one replaces."""

    keys: tuple[int, ...]
    payload: bytes
    is_state: bool


@dataclass(slots=True, eq=False)
class _Connection:
    """What is known of one connection. `told` is what an extended one holds, None when unknown."""

    extended: bool
    protocol: bool
    identity: bool
    greeted: bool = False
    told: Snapshot | None = None


class AgentSide:
    """The instance's connections, by the host's own integer keys.

    Parameters
    ----------
    agent, name : str
        The class's canonical spelling and the instance's name, for the identity frame.
    patch_over_bytes : int
        Larger states travel as patches where a patch is smaller and the client can apply it.
    """

    def __init__(self, agent: str, name: str, *, patch_over_bytes: int = 1024) -> None:
        self._agent = agent
        self._name = name
        self._patch_over_bytes = patch_over_bytes
        self._connections: dict[int, _Connection] = {}
        # Whom changes are told to, so that a broadcast costs set operations and no loop of ours.
        self._sdk: dict[int, _Connection] = {}
        self._extended: dict[int, _Connection] = {}
        self._was_sent_state: set[int] = set()
        self._unsettled: set[int] = set()

    # ── Connections come and go ──

    def join(self, key: int, *, extended: bool, protocol: bool, identity: bool = True) -> None:
        """Take a connection in. Nothing is told to it before `greet` or `resume`.

        Parameters
        ----------
        extended : bool
            It negotiated our extension (``_ja=1``).
        protocol : bool
            It gets identity and state frames.
        identity : bool
            It gets the identity frame (``send_identity_on_connect``).
        """
        self._connections[key] = _Connection(extended, protocol, identity)

    def leave(self, key: int) -> None:
        """Forget a connection; an unknown key is fine."""
        self._connections.pop(key, None)
        self._silence(key)
        self._was_sent_state.discard(key)

    def greet(self, key: int, snapshot: Snapshot | None) -> list[bytes]:
        """Return what a new connection sees first, and tell it changes from now on.

        Parameters
        ----------
        snapshot : Snapshot or None
            The state as this connection may see it; None when there is none.

        Wire
        ----
        ``cf_agent_identity``, then ``cf_agent_state``; recordings 01 to 05.
        """
        connection = self._connections[key]
        connection.greeted = True
        if not connection.protocol:
            return []
        self._tell_from_now(key, connection)
        frames = []
        if connection.identity:
            follows = snapshot is not None
            frames.append(messages.identity(self._name, self._agent, follows))
        if snapshot is not None:
            frames.append(self._whole(key, connection, snapshot))
        return frames

    def resume(self, key: int) -> None:
        """Take over a connection that an earlier host greeted: it is told changes from now on.

        What that host told it last is not known, so the next `settle` sends it the state.
        """
        connection = self._connections[key]
        connection.greeted = True
        if connection.protocol:
            self._tell_from_now(key, connection)
            self._unsettled.add(key)

    def set_protocol(self, key: int, on: bool) -> None:
        """Start or stop telling a connection; what it missed comes with the next `settle`."""
        connection = self._connections[key]
        if connection.protocol == on:
            return
        connection.protocol = on
        connection.told = None
        if not on:
            self._silence(key)
        elif connection.greeted:
            self._tell_from_now(key, connection)
            self._unsettled.add(key)

    def _tell_from_now(self, key: int, connection: _Connection) -> None:
        (self._extended if connection.extended else self._sdk)[key] = connection

    def _silence(self, key: int) -> None:
        self._sdk.pop(key, None)
        self._extended.pop(key, None)
        self._unsettled.discard(key)

    # ── The state changes ──

    def tell(
        self, snapshot: Snapshot, *, writer: int | None = None, views: Views | None = None
    ) -> list[Outgoing]:
        """Return the frames that tell a change.

        Parameters
        ----------
        snapshot : Snapshot
            The state that holds now; changes between it and the one told before need no telling.
        writer : int or None
            The connection whose write this is; it is left out, and answered by `ack`.
        views : Callable or None
            Gives each connection its own projection.

        Wire
        ----
        ``cf_agent_state``, and ``cf_agent_state_patch`` for our extension.
        """
        out = self._tell_sdk([key for key in self._sdk if key != writer], snapshot, views)
        for (told, shown), found in self._grouped_by_base(snapshot, writer, views).items():
            payload, is_state = self._update(told, shown)
            for _, connection in found:
                connection.told = shown
            keys = tuple(key for key, _ in found)
            self._unsettled.difference_update(keys)
            out.append(Outgoing(keys, payload, is_state))
        return out

    def ack(
        self, key: int, write: WriteId | None, snapshot: Snapshot, sent: object = MISSING
    ) -> list[Outgoing]:
        """Return what the writer is sent after its write was accepted; nothing when it has left.

        Parameters
        ----------
        write : int or str or None
            The write's id; None for an SDK client.
        snapshot : Snapshot
            The state that holds now, as this connection may see it.
        sent : Any
            The value as it arrived, or (better) its JSON as bytes; not an object that a validator
            may have changed since. Left out: unknown, so the writer is sent what holds.

        Wire
        ----
        ``cf_agent_state_ack`` for our extension; nothing for an SDK client whose value holds as
        it was sent.
        """
        connection = self._connections.get(key)
        if connection is None:
            return []
        differs = sent is MISSING or _as_json(sent) != snapshot.json
        if connection.extended and write is not None:
            connection.told = snapshot
            self._unsettled.discard(key)
            state_json = snapshot.json if differs else None
            frame = messages.state_ack(write, snapshot.version, state_json)
            return [Outgoing((key,), frame, is_state=False)]
        if differs or connection.extended:
            return self.whole(key, snapshot)
        if key in self._was_sent_state and connection.protocol:
            self._unsettled.add(key)
        return []

    def refuse(
        self,
        key: int,
        write: WriteId | None,
        snapshot: Snapshot | None,
        *,
        reason: str | None = None,
        readonly: bool = False,
    ) -> list[Outgoing]:
        """Return what the writer is sent after its write was refused; nothing when it has left.

        Parameters
        ----------
        snapshot : Snapshot or None
            The state that holds, as this connection may see it.
        reason : str or None
            What the author made public; told to our extension only. `messages.STALE` for a
            stale write.
        readonly : bool
            The connection may not write at all.

        Wire
        ----
        ``cf_agent_state_error``; recordings 07 and 17.
        """
        connection = self._connections.get(key)
        if connection is None:
            return []
        text = messages.READONLY if readonly else messages.STATE_REJECTED
        if not connection.extended:
            if connection.protocol:
                self._unsettled.add(key)
            return [Outgoing((key,), messages.state_error(text), is_state=False)]
        if not readonly and reason:
            text = reason
        if snapshot is None:
            frame = messages.state_error(text, write)
        else:
            connection.told = snapshot
            self._unsettled.discard(key)
            frame = messages.state_error(text, write, snapshot.json, snapshot.version)
        return [Outgoing((key,), frame, is_state=False)]

    def whole(self, key: int, snapshot: Snapshot | None) -> list[Outgoing]:
        """Return the whole state for one connection: the answer to `messages.StateWanted`."""
        connection = self._connections.get(key)
        if connection is None or not connection.protocol or snapshot is None:
            return []
        return [Outgoing((key,), self._whole(key, connection, snapshot), is_state=True)]

    # ── Things are quiet ──

    @property
    def needs_settling(self) -> bool:
        """Whether a replica may differ from the agent's state: `settle` is to be called."""
        return bool(self._unsettled)

    def settle(self, snapshot: Snapshot | None, *, views: Views | None = None) -> list[Outgoing]:
        """Return the frames after which all replicas are equal to the agent's state.

        To be called a moment after the last change (100 ms, say). Too early is harmless: a
        write that crosses these frames makes settling needed again.
        """
        keys, self._unsettled = sorted(self._unsettled), set()
        if snapshot is None:
            return []
        out = self._tell_sdk([key for key in keys if key in self._sdk], snapshot, views)
        for key in keys:
            if key in self._extended:
                out += self.whole(key, views(key) if views else snapshot)
        return out

    # ── Frames ──

    def _tell_sdk(
        self, keys: list[int], snapshot: Snapshot, views: Views | None
    ) -> list[Outgoing]:
        self._was_sent_state.update(keys)
        self._unsettled.difference_update(keys)
        return [
            Outgoing(tuple(group), messages.state(json), is_state=True)
            for json, group in _grouped_by_json(keys, snapshot, views)
        ]

    def _grouped_by_base(
        self, snapshot: Snapshot, writer: int | None, views: Views | None
    ) -> dict[tuple[Snapshot | None, Snapshot], list[tuple[int, _Connection]]]:
        """Group our extension's connections by what they hold and what they are to hold."""
        groups: dict[tuple[Snapshot | None, Snapshot], list[tuple[int, _Connection]]] = {}
        known: dict[Snapshot, Snapshot] = {}
        for key, connection in self._extended.items():
            if key != writer:
                shown = known.setdefault(view := views(key), view) if views else snapshot
                groups.setdefault((connection.told, shown), []).append((key, connection))
        return groups

    def _update(self, told: Snapshot | None, shown: Snapshot) -> tuple[bytes, bool]:
        """Return the cheaper of patch and whole, and whether it is the whole."""
        if told is not None and len(shown.json) > self._patch_over_bytes:
            ops = patches.diff(told.json, shown.json)
            if ops is not None:
                patch = messages.state_patch(messages.encode(ops), shown.version, told.version)
                if len(patch) < len(shown.json):
                    return patch, False
        return messages.state(shown.json, shown.version), True

    def _whole(self, key: int, connection: _Connection, snapshot: Snapshot) -> bytes:
        self._unsettled.discard(key)
        if connection.extended:
            connection.told = snapshot
            return messages.state(snapshot.json, snapshot.version)
        self._was_sent_state.add(key)
        return messages.state(snapshot.json)


def is_stale(base: int | None, snapshot: Snapshot | None) -> bool:
    """Tell whether a write was made on another version than holds; never without a base."""
    return base is not None and base != (snapshot.version if snapshot else 0)


def _as_json(value: object) -> bytes:
    return value if isinstance(value, bytes) else messages.encode(value)


def _grouped_by_json(
    keys: Iterable[int], snapshot: Snapshot, views: Views | None
) -> Iterator[tuple[bytes, list[int]]]:
    groups: dict[bytes, list[int]] = {}
    if views is None:
        groups[snapshot.json] = list(keys)
    else:
        for key in keys:
            groups.setdefault(views(key).json, []).append(key)
    return ((json, group) for json, group in groups.items() if group)
