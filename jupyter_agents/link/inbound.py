"""What clients sent and their agents have not settled: kept, forwarded, sent again. Pure.

Part of the relay. A message is *settled* once it need not be delivered again: as soon as it was
begun, or once it has ended, as the class's `redelivery` says. What is not settled outlives the
kernel, and so does the news that a client is gone. A host tells by its marks what was begun, by
SETTLED frames what has ended; the other half is `instance/receipts.py`, and the reasons are in
docs/decisions/0004-redelivery.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_agents.link.frames import Kind, unpack_settled
from jupyter_agents.protocol import closing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from jupyter_agents.link.records import ConnectionRecord, HostPort, RelayLimits

__all__ = ["Inbound"]

_ENTRY_BYTES = 64
"""What keeping a message costs beside its payload."""

_AHEAD_BYTES = 4096
"""What is set aside for a connection beyond what is kept of it, so that most messages need no
accounts. When it is used up, or a moment later, what its agent has begun with is forgotten."""


class Inbound:
    """Keeps messages by record.

    Parameters
    ----------
    limits : RelayLimits
        How much may be kept.
    on_event : callable
        See Relay.
    forget : callable
        Told of each record whose client is gone and whose agent has heard of everything.
    may_wait : callable
        Tells whether a record's messages may wait for a host.
    """

    def __init__(
        self,
        limits: RelayLimits,
        on_event: Callable[[str, dict[str, Any]], None],
        forget: Callable[[ConnectionRecord], None],
        may_wait: Callable[[ConnectionRecord], bool],
    ) -> None:
        self._most, self._most_of_all = limits.waiting_bytes, limits.waiting_total_bytes
        self._event = on_event
        self._forget = forget
        self._may_wait = may_wait
        self._bytes = 0  # set aside for all connections together
        self._ahead = 0  # what of that was more than needed at the time; since `_take_back`
        self._holding: dict[int, ConnectionRecord] = {}  # those for whom something is

    # -- from clients --------------------------------------------------------------------------

    def take(self, record: ConnectionRecord, kind: int, payload: bytes) -> None:
        """A message came: it goes to the host if there is one, and is kept until settled."""
        host = record.host
        if host is None:
            self._wait(record, kind, payload)
            return
        if record.session:  # as `_keep`; every message passes here
            room = record.room - len(payload) - _ENTRY_BYTES
            if room < 0:
                self._take_more(record, host, kind, payload)
                return
            record.room = room
            record.last = last = record.last + 1
            record.kept[last] = kind, payload
        host.send(kind, record.number, payload)

    def _wait(self, record: ConnectionRecord, kind: int, payload: bytes) -> None:
        """No host is there: the message waits for one, unless too much does."""
        if not self._may_wait(record):
            return
        if self._is_much(record, len(payload) + _ENTRY_BYTES):
            self._set_aside(record, record.kept_bytes)
            self._give_up(record)
        else:
            self._keep(record, kind, payload)

    def _take_more(
        self, record: ConnectionRecord, host: HostPort, kind: int, payload: bytes
    ) -> None:
        is_much = self._is_much(record, len(payload) + _ENTRY_BYTES)
        self._keep(record, kind, payload)
        host.send(kind, record.number, payload)
        if is_much:
            self._stuff(record, host)

    def end(self, record: ConnectionRecord, payload: bytes) -> None:
        """The client is gone, which its agent has to hear whatever the limits say."""
        self._is_much(record, len(payload) + _ENTRY_BYTES)
        self._keep(record, Kind.CLOSED, payload)
        if record.host is not None:
            record.host.send(Kind.CLOSED, record.number, payload)
            record.host.send(Kind.PROBE, record.number)

    def _keep(self, record: ConnectionRecord, kind: int, payload: bytes) -> None:
        record.room -= len(payload) + _ENTRY_BYTES
        record.last += 1
        record.kept[record.last] = kind, payload

    def _is_much(self, record: ConnectionRecord, cost: int) -> bool:
        """Set aside what is missing to keep so many bytes more; tell whether a limit is passed."""
        if cost <= record.room:
            return False
        self.trim(record)
        kept, others = record.kept_bytes, self._bytes - record.set_aside
        size = kept + cost
        ahead = size + max(_AHEAD_BYTES, size // 8)  # the more is kept, the less often we look
        if others + ahead > self._most_of_all and self._ahead > self._most_of_all // 16:
            self._take_back()  # what others have and do not use is no reason to refuse anything
            others = self._bytes - record.set_aside
        if ahead <= self._most and others + ahead <= self._most_of_all:
            is_much = False
            self._ahead += ahead - size
        else:
            ahead = size
            is_much = size > self._most or others + size > self._most_of_all
        self._set_aside(record, ahead)
        self._holding[record.number] = record
        return is_much

    def _take_back(self) -> None:
        self._ahead = 0
        for record in list(self._holding.values()):
            self.trim(record)
            self._set_aside(record, record.kept_bytes)

    def _set_aside(self, record: ConnectionRecord, size: int) -> None:
        more = size - record.set_aside
        self._bytes += more
        record.set_aside += more
        record.room += more

    def _give_up(self, record: ConnectionRecord) -> None:
        """Too much waits for a kernel that is away."""
        self._event("drop", {**record.facts, "why": "too much waits for the kernel"})
        record.socket.close(closing.TRY_AGAIN_LATER, "The agent is away, too much is waiting")

    def _stuff(self, record: ConnectionRecord, host: HostPort) -> None:
        """Read the client no more until its agent has begun with what it sent."""
        self.trim(record)
        if not (record.stuffed or self._is_relieved(record)):
            record.stuffed = True
            record.socket.pause()
            host.send(Kind.PROBE, record.number)

    # -- from hosts ----------------------------------------------------------------------------

    def hand_over(self, record: ConnectionRecord, host: HostPort) -> None:
        """A host that knows nothing of the connection takes it: it gets all that is kept."""
        entries = list(record.kept.values())
        self.clear(record)
        record.last = 0
        for kind, payload in entries:
            host.send(kind, record.number, payload)
            if record.session:
                self._is_much(record, len(payload) + _ENTRY_BYTES)
                self._keep(record, kind, payload)
        if record.gone is not None and record.session:
            host.send(Kind.PROBE, record.number)

    def go_on(
        self, record: ConnectionRecord, host: HostPort, arrived: int, unsettled: Collection[int]
    ) -> None:
        """A host is back that had got the messages up to `arrived`: it gets the later ones."""
        for ordinal, (kind, payload) in list(record.kept.items()):
            if ordinal > arrived:
                host.send(kind, record.number, payload)
            elif ordinal not in unsettled:
                self._drop(record, ordinal)

    def settle(
        self, records: Mapping[int, ConnectionRecord], host: HostPort, payload: bytes
    ) -> None:
        """A SETTLED frame: messages of the host's own connections have ended."""
        for number, first, count in unpack_settled(payload):
            record = records.get(number)
            if record is not None and record.host is host:
                for ordinal in range(first, min(first + count, record.last + 1)):
                    self._drop(record, ordinal)
                self.look(record)

    # -- now and then --------------------------------------------------------------------------

    def look(self, record: ConnectionRecord) -> None:
        """See how far the agent has come: read its client again, or forget it."""
        self.trim(record)
        if record.stuffed and self._is_relieved(record):
            record.stuffed = False
            record.resume_if_free()
        if not record.kept:
            self.clear(record)
            if record.gone is not None:
                self._forget(record)

    def tick(self) -> None:
        """Look at everyone of whom something is kept; call it every second or so."""
        for record in list(self._holding.values()):
            self.look(record)

    def trim(self, record: ConnectionRecord, *, everything: bool = False) -> None:
        """Forget what was begun, or all that a host has got that lives on without us."""
        begun = record.last if everything else record.marks[record.slot]
        if begun >= record.last:
            self.clear(record)
        elif begun:
            kept, freed = record.kept, 0
            for ordinal in range(next(iter(kept), begun), begun + 1):
                entry = kept.pop(ordinal, None)
                if entry is not None:
                    freed += len(entry[1]) + _ENTRY_BYTES
            record.room += freed

    def clear(self, record: ConnectionRecord) -> None:
        """Forget everything that is kept of a connection."""
        record.kept.clear()
        self._set_aside(record, 0)
        record.room = 0
        self._holding.pop(record.number, None)

    def leave(self, record: ConnectionRecord) -> None:
        """The record is forgotten."""
        self.clear(record)
        record.lose_slot()

    def _drop(self, record: ConnectionRecord, ordinal: int) -> None:
        entry = record.kept.pop(ordinal, None)
        if entry is not None:
            record.room += len(entry[1]) + _ENTRY_BYTES

    def _is_relieved(self, record: ConnectionRecord) -> bool:
        has_little = 2 * record.kept_bytes <= self._most
        return not record.kept or (has_little and self._bytes <= self._most_of_all)
