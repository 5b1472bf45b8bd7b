"""Who is connected: a live table of the connections to one agent instance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jupyter_agents.widgets.about import About
from jupyter_agents.widgets.section import AskError, Section, shortened, user_name
from jupyter_agents.widgets.view import LiveView

if TYPE_CHECKING:
    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.host import HostEvent
    from jupyter_agents.widgets.feed import Feed
    from jupyter_agents.widgets.section import Ask, Parcel

__all__ = ["ConnectionRows", "ConnectionsTable"]

MAX_ROWS = 2_000
"""Connections listed; there may be more, and the total says so."""

STILL_ROWS = 100


class ConnectionRows(Section):
    """Rows by the connection's number: whole where they are new or differ, else counters."""

    key = "connections"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._shown: dict[int, tuple[Any, ...]] = {}
        self._dirty: set[int] = set()
        self._gone: set[int] = set()

    def begin(self) -> None:
        """List who is there."""
        self._shown.clear()
        self._gone.clear()
        self._dirty = set(self._members())

    def hear(self, event: HostEvent) -> None:
        """Mark the connection that something happened to."""
        connection: Connection | None = event.data.get("connection")
        if connection is None:
            return
        if event.kind == "disconnect":
            self._gone.add(connection.number)
            self._dirty.discard(connection.number)
        else:
            self._dirty.add(connection.number)
        self.feed.touch()

    def tick(self) -> None:
        """Find what changes without an event: tags, readonly, missed goodbyes."""
        members = self._members()
        for number, connection in members.items():
            if self._shown.get(number) != _signature(connection):
                self._dirty.add(number)
        self._gone.update(self._shown.keys() - members.keys())
        if self._dirty or self._gone:
            self.feed.touch()

    def whole(self, parcel: Parcel) -> Any:
        """``{"total", "rows"}``, the oldest first; at most the newest `MAX_ROWS`."""
        members = self._members()
        newest = list(members.values())[-(STILL_ROWS if parcel.is_still else MAX_ROWS) :]
        self._shown = {c.number: _signature(c) for c in newest}
        self._dirty.clear()
        self._gone.clear()
        return {"total": len(members), "rows": [_row(c) for c in newest]}

    def changes(self, parcel: Parcel) -> Any:
        """``{"total", "rows", "counts", "gone"}``."""
        members = self._members()
        gone = [number for number in self._gone if self._shown.pop(number, None) is not None]
        rows, counts = [], []
        for number in sorted(self._dirty & members.keys()):
            connection = members[number]
            signature = _signature(connection)
            if self._shown.get(number) == signature:
                counts.append([number, *_counts(connection)])
            elif number in self._shown or len(self._shown) < MAX_ROWS:
                self._shown[number] = signature
                rows.append(_row(connection))
        self._dirty.clear()
        self._gone.clear()
        if not (rows or counts or gone):
            return None
        return {"total": len(members), "rows": rows, "counts": counts, "gone": gone}

    def asked(self, ask: Ask) -> Any:
        """``close``, ``readonly``, or ``connection`` for details; each with its number ``n``."""
        if ask.what not in ("close", "readonly", "connection"):
            return NotImplemented
        connection = self._members().get(ask.given.get("n", -1))
        if connection is None:
            raise AskError("This connection is closed already")
        if ask.what == "close":
            connection.close(int(ask.given.get("code", 1000)), str(ask.given.get("reason", "")))
            return None
        if ask.what == "readonly":
            self.feed.instance.set_flag(connection, "readonly", bool(ask.given.get("readonly")))
            self._dirty.add(connection.number)
            return None
        return _details(connection)

    def _members(self) -> dict[int, Connection]:
        instance = self.feed.instance
        return instance.members if instance is not None else {}


def _signature(connection: Connection) -> tuple[Any, ...]:
    return connection.tags, connection.readonly, connection.accepted


def _counts(connection: Connection) -> list[int]:
    c = connection
    return [c.messages_in, c.messages_out, c.bytes_in, c.bytes_out]


def _row(connection: Connection) -> dict[str, Any]:
    request = connection.ctx.request
    return {
        "n": connection.number,
        "id": connection.id,
        "user": user_name(connection),
        "ip": request.remote_ip,
        "since": connection.opened_at or None,
        "tags": list(connection.tags[1:]),
        "readonly": connection.readonly,
        "accepted": connection.accepted,
        "counts": _counts(connection),
    }


def _details(connection: Connection) -> dict[str, Any]:
    request = connection.ctx.request
    return {
        "uri": connection.uri,
        "agent": str(request.headers.get("User-Agent", "")),
        "ip": request.remote_ip,
        "state": None if connection.state is None else shortened(_json(connection.state), 4_000),
        "protocol": connection.flags["protocol"],
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class ConnectionsTable(LiveView):
    """A live table of who is connected to one instance.

    Parameters
    ----------
    shown : AgentNamespace or AgentHandle
        What `serve` returned, or one instance of it.
    name : str, optional
        Which instance; by default the handle's, or the first that lives.
    """

    part = "connections"
    sections = (About, ConnectionRows)
