"""Which messages need not come again: what the server keeps outlives this kernel.

By the class's `redelivery` (docs/decisions/0004-redelivery.md):

- ``at_most_once``: the ordinal of a message is marked, in memory shared with the server, just
  before it is begun. What was begun when the kernel died is not sent again, all else is.
- ``at_least_once``: a SETTLED frame follows when its handler has ended, with the turn's frames.

A connection's messages count from 1 in each life of a host, and its CLOSED is the last of them.
The other half is `link/inbound.py`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from jupyter_agents.link.frames import Kind, pack_settled
from jupyter_agents.protocol import closing, messages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.host import AgentHost, Hosted

__all__ = ["Receipts"]

_EVERYTHING = (1 << 53) - 1


class Receipts:
    """What one host has told of its connections' messages, and has yet to tell."""

    def __init__(self, host: AgentHost) -> None:
        self._host = host
        self._session = secrets.token_hex(8)
        self._ended: list[tuple[int, int, int]] = []
        self._running: dict[int, set[int]] = {}

    def word(self, cls: type[Agent]) -> dict[str, Any]:
        """What the server must know of a class to keep its messages: for a SERVE frame.

        ``session`` tells that this host is the one that was away. What is settled by a mark is
        not kept where there can be none.
        """
        return {"session": self._session, "marks": cls.redelivery == "at_most_once"}

    def mark_for(self, connection: Connection, about: Mapping[str, Any]) -> None:
        """From now on the server sees in this slot how far the connection's agent is."""
        uplink, slot = self._host.uplink, about.get("slot")
        if uplink is not None and uplink.marks is not None and isinstance(slot, int):
            connection.marks, connection.slot = uplink.marks, slot

    # -- what has ended ------------------------------------------------------------------------

    def postpone(self, connection: Connection | None) -> int:
        """The message under way has become a task; returns what `end` wants to know of it."""
        if connection is None or not connection.current:
            return 0
        ordinal, connection.current = connection.current, 0
        self._running.setdefault(connection.number, set()).add(ordinal)
        return ordinal

    def end(self, connection: Connection | None, first: int, count: int = 1) -> None:
        """These messages have ended: the server hears of it with the turn's frames."""
        if connection is None or not first or connection.is_disowned:
            return
        running = self._running.get(connection.number)
        if running is not None:
            running.discard(first)
            if not running:
                del self._running[connection.number]
        if not self._ended:
            self._host.later(self._tell)
        self._ended.append((connection.number, first, count))

    def drop(self, connection: Connection) -> None:
        """What waits of a connection is not handled, on purpose."""
        left = len(connection.inbox) + (connection.ending is not None)
        if not left or self._host.is_stopping:
            return  # a host that stops cuts off, it does not refuse
        first = connection.taken + 1
        connection.taken += left
        connection.forget_kept()
        connection.ending = None
        if connection._instance.redelivers:
            self.end(connection, first, left)
        else:
            connection.marks[connection.slot] = connection.taken

    def _tell(self) -> None:
        runs: list[tuple[int, int, int]] = []
        for number, first, count in sorted(self._ended):
            if runs and runs[-1][0] == number and sum(runs[-1][1:]) == first:
                runs[-1] = number, runs[-1][1], runs[-1][2] + count
            else:
                runs.append((number, first, count))
        self._ended = []
        self._host.send(Kind.SETTLED, len(runs), pack_settled(runs))

    # -- a link that broke while this process lived on -----------------------------------------

    def disown(self, connection: Connection) -> None:
        """The server that knew the connection is gone; another one may give its number anew."""
        connection.is_disowned = True
        self._running.pop(connection.number, None)

    def disown_all(self, but: Collection[int] = (), of: Hosted | None = None) -> None:
        """The server knows none but these, whose clients left while the link was down."""
        for number, connection in list(self._host.connections.items()):
            if number not in but and of in (None, connection._instance.hosted):
                del self._host.connections[number]
                self.disown(connection)
                connection._instance.door.closed(connection, closing.ABNORMAL, "", False)

    def answer_returning(self, number: int, about: Mapping[str, Any]) -> bool:
        """Say how much of a connection is here, where the server asks; whether it did."""
        known = self._host.connections.get(number)
        if known is None and not about.get("returning"):
            return False
        if known is not None:
            word = self._standing(known)
        else:  # its end was heard, or it has to be opened anew
            word = {"arrived": _EVERYTHING if about.get("gone") else -1}
        self._host.send_object(Kind.ATTACH, number, word)
        if known is not None:
            known._instance.door.returned(known)
        return True

    def _standing(self, connection: Connection) -> dict[str, Any]:
        arrived = connection.taken + len(connection.inbox)
        waiting = range(connection.taken + 1, arrived + 1)
        running = self._running.get(connection.number, ())
        word: dict[str, Any] = {"arrived": arrived, "unsettled": [*running, *waiting]}
        if connection.accepted:
            word.update(connection.attachment())
            if connection.state is not None:
                word["state"] = messages.encode(connection.state).decode()
        return word
