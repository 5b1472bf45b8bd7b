"""Which host serves which agent: opens, parks, resumes, fans out.

Pure; sockets and links are given to it.

Life of a record::

    open ──▶ attached to a host ──host lost──▶ parked ──served again──▶ attached (``resumed``)
      │                                          │
      └─ no host ─▶ parked                       └─ grace over ─▶ closed 1012

Rules: a frame from a host reaches only connections of that host; one socket's failure is that
socket's; whatever waits, waits in a bounded queue and is closed 1013 past it. Its other half, in
the kernel, is `host/host.py`.
"""

from __future__ import annotations

import struct
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import LinkError
from jupyter_agents.link.fanout import FanOut
from jupyter_agents.link.frames import (
    Kind,
    pack_object,
    pack_with_object,
    unpack_object,
    unpack_with_object,
)
from jupyter_agents.link.inbound import Inbound
from jupyter_agents.link.notices import Notices
from jupyter_agents.link.questions import Questions
from jupyter_agents.link.records import (
    ConnectionRecord,
    HostPort,
    PendingRequest,
    RelayLimits,
    Served,
    Socket,
)
from jupyter_agents.link.registry import Registry
from jupyter_agents.protocol import closing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.link.frames import Frame

__all__ = ["Relay"]

_BINARY = int(Kind.BINARY)
_SINGLE = frozenset((int(Kind.TEXT), _BINARY))
_LAST_MESSAGE = int(Kind.STATE_MANY)
_CLOSED = struct.Struct(">HB")


class Relay:
    """The server's memory of who talks to whom.

    Parameters
    ----------
    wrap : callable
        ``(payload, binary, replaceable)`` → what `Socket.send` takes. Called once per frame from a
        host, so that a broadcast is encoded once whatever the number of its recipients.
    limits : RelayLimits
        What is bounded.
    join, spread : callable, optional
        See FanOut.
    on_event : callable, optional
        ``(kind, facts)`` after each change that an observer may show: ``serve``, ``withdraw``,
        ``park``, ``resume``, ``open``, ``close``, ``instance``, ``drop``, ``tally``.
    """

    def __init__(
        self,
        wrap: Callable[[bytes, bool, bool], Any],
        limits: RelayLimits | None = None,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
        join: Callable[[list[bytes], bool], Any] | None = None,
        spread: Callable[[Any, Any, bool], None] | None = None,
    ) -> None:
        self._wrap = wrap
        self.limits = limits or RelayLimits()
        self._event = on_event or (lambda kind, facts: None)
        self._registry = Registry(self.limits.allow_public)
        self.records: dict[int, ConnectionRecord] = {}
        self.fan_out = FanOut(self.records, wrap, join, spread)
        self._questions = Questions(self.limits)
        self._inbound = Inbound(self.limits, self._event, self._forget, self._may_wait)
        self.take = self._inbound.take
        """``(record, kind, payload)``: a client sent a TEXT, checked for UTF-8, or a BINARY."""
        self._notices = Notices(wrap)
        self._owed: set[int] = set()
        self._numbers = count(1)
        self.handlers: dict[int, Callable[[HostPort, int, bytes], None]] = {
            Kind.TEXT_MANY: partial(self.fan_out.many, Kind.TEXT_MANY),
            Kind.BINARY_MANY: partial(self.fan_out.many, Kind.BINARY_MANY),
            Kind.STATE_MANY: partial(self.fan_out.many, Kind.STATE_MANY),
            Kind.CLOSE: self._close,
            Kind.ATTACH: self._attach,
            Kind.HOLD: self._hold,
            Kind.RELEASE: self._release,
            Kind.SETTLED: self._settled,
            Kind.PROBE: self._probed,
            Kind.RESPONSE: self._response,
            Kind.ANSWER: self._answer,
            Kind.SERVE: self._serve,
            Kind.WITHDRAW: self._withdraw,
            Kind.INSTANCE: self._instance,
            Kind.TALLY: partial(self._registry.tallied, self._event),
        }

    # -- asked by handlers ---------------------------------------------------------------------

    @property
    def served(self) -> Mapping[str, Served]:
        """What is served or parked, by canonical address."""
        return self._registry.served

    @property
    def requests(self) -> Mapping[int, PendingRequest]:
        """Questions under way, by number."""
        return self._questions.pending

    def find(self, spelling: str) -> Served:
        """Return what is served under this part of a URL; AgentNotFound otherwise."""
        return self._registry.find(spelling)

    def request(
        self,
        served: Served,
        about: Mapping[str, Any],
        body: bytes,
        answer: Callable[[dict[str, Any], bytes], None],
        now: float,
    ) -> PendingRequest:
        """Put an HTTP request, or the question whether a socket may open, to the host.

        `answer` is called once, with the response's object and body; a failure is an object with
        ``status`` 503 or 504 and ``error``. While the class is parked the request waits.
        """
        return self._questions.put(
            self._number(), served, Kind.REQUEST, pack_with_object(about, body), answer, now
        )

    def ask(
        self,
        served: Served,
        question: Mapping[str, Any],
        answer: Callable[[dict[str, Any], bytes], None],
        now: float,
    ) -> PendingRequest:
        """Have the host do something with an agent (``{"do": "reset", "name": …}``).

        Like `request`.
        """
        return self._questions.put(
            self._number(), served, Kind.ASK, pack_object(question), answer, now
        )

    def abandon(self, pending: PendingRequest) -> None:
        """Nobody waits for this answer any more."""
        self._questions.abandon(pending)

    # -- told by sockets -----------------------------------------------------------------------

    def open(
        self,
        served: Served,
        name: str,
        connection_id: str,
        socket: Socket,
        info: Mapping[str, Any],
        now: float,
    ) -> ConnectionRecord:
        """Take in a socket that has just opened; returns its record, attached or parked."""
        record = ConnectionRecord(self._number(), connection_id, served, name, socket, info, now)
        if not self._registry.holds(served) or len(self.records) >= self.limits.max_connections:
            socket.close(closing.TRY_AGAIN_LATER, "Try again later")
            return record
        self.records[record.number] = record
        served.records[record.number] = record
        if served.host is not None:
            self._hand_over(record, served.host)
        else:
            self._notices.away(record)
        self._event("open", record.facts)
        return record

    def _number(self) -> int:
        return next(self._numbers) & 0xFFFFFFFF

    def _may_wait(self, record: ConnectionRecord) -> bool:
        return record.number in self.records and record.gone is None

    def failed(self, record: ConnectionRecord, text: str) -> None:
        """The client broke a rule of the wire; `closed` follows."""
        if record.host is not None:
            record.host.send(Kind.FAILED, record.number, text.encode("utf-8", "replace"))

    def closed(self, record: ConnectionRecord, code: int, reason: str, was_clean: bool) -> None:
        """The socket is gone. It is remembered until its agent has heard of it."""
        if self.records.get(record.number) is not record or record.gone is not None:
            return
        record.gone = (code, reason, was_clean)
        self._event("close", {**record.facts, "code": code, "reason": reason})
        payload = _CLOSED.pack(code, was_clean) + reason.encode("utf-8", "replace")
        if self._may_owe(record):
            self._owed.add(record.number)
            self._inbound.end(record, payload)
            return
        if record.host is not None:
            record.host.send(Kind.CLOSED, record.number, payload)
        self._forget(record)

    def _may_owe(self, record: ConnectionRecord) -> bool:
        is_owed = record.session or (record.host is None and record.attached.get("accepted"))
        may_be = len(self._owed) < self.limits.max_parked_gone
        return bool(is_owed) and may_be and self._registry.holds(record.served)

    def _forget(self, record: ConnectionRecord) -> None:
        self.records.pop(record.number, None)
        self.fan_out.forget()
        self._owed.discard(record.number)
        self._inbound.leave(record)
        record.served.records.pop(record.number, None)

    # -- told by links -------------------------------------------------------------------------

    def host_frame(self, host: HostPort, frame: Frame) -> None:
        """One frame came from a host.

        Raises
        ------
        LinkError
            When the frame makes no sense; the link's end closes that link. Never for what one
            socket does.
        """
        kind, number, payload = frame
        if kind in _SINGLE:  # nearly all: no step more
            if self.fan_out.is_held:
                self.fan_out.one(host, kind, number, payload)
            elif (record := self.records.get(number)) is not None and record.host is host:
                record.socket.outlet.send_now(self._wrap(payload, kind == _BINARY, False))
            return
        if kind > _LAST_MESSAGE:
            self.fan_out.deliver()  # nothing overtakes a message
        handler = self.handlers.get(kind)
        if handler is None:
            raise LinkError(f"A frame of unknown kind {kind} came from {host.id}")
        try:
            handler(host, number, payload)
        except (struct.error, KeyError, TypeError, ValueError) as error:
            raise LinkError(f"A {Kind(kind).name} frame from {host.id} is malformed") from error

    def host_full(self, host: HostPort, full: bool) -> None:
        """The link to a host is over its limit, or free again: its sockets wait, or go on."""
        for record in self._registry.records_of(host):
            if full:
                record.socket.pause()
            else:
                record.resume_if_free()
        for served in self._registry:
            if served.host is host:
                self._questions.resume(served, host)

    def host_left(self, host: HostPort, now: float) -> None:
        """The link is gone: what this host served is parked."""
        for served in self._registry:
            if served.host is host:
                self._park(served, now)

    def forget_host(self, host_id: str) -> None:
        """This kernel will not come back: what it left parked is closed now."""
        for served in self._registry:
            if served.host is None and served.about.get("kernel_id") == host_id:
                self._expire(served)

    def tick(self, now: float) -> None:
        """Let time pass: close what has waited too long. Call it every second or so."""
        for served in self._registry:
            if served.parked_at is not None and now - served.parked_at >= self.limits.grace_s:
                self._expire(served)
        self._inbound.tick()
        self._questions.tick(now)

    def stop(self) -> None:
        """The server stops: every client is told to go, and may come back."""
        for record in list(self.records.values()):
            if record.gone is None:
                record.socket.close(closing.GOING_AWAY, "Server is shutting down")
        self._questions.stop()

    # -- serving, parking, resuming ------------------------------------------------------------

    def _serve(self, host: HostPort, number: int, payload: bytes) -> None:
        wish = unpack_object(payload)
        refusal = self._registry.refusal(host, wish)
        if refusal is not None:
            host.send(Kind.SERVED, number, pack_object({"agent": wish["agent"], "error": refusal}))
            return
        served = self._registry.put(host, wish)
        if served.host not in (None, host):
            served.host.send(Kind.TAKEN, 0, pack_object({"agent": served.agent}))
            self._detach(served, was_read=True)
            self._questions.parked(served)
        host.send(Kind.SERVED, number, pack_object(served.agreed(wish)))
        self._event("serve", served.facts)
        self._resume(served, host)

    def _resume(self, served: Served, host: HostPort) -> None:
        if served.host is host:
            return
        served.host, served.parked_at = host, None
        served.instances.clear()
        for record in list(served.records.values()):
            self._hand_over(record, host)
        self._questions.resume(served, host)
        if served.records:
            self._event("resume", {"agent": served.agent, "connections": len(served.records)})

    def _hand_over(self, record: ConnectionRecord, host: HostPort) -> None:
        resumed, session = bool(record.attached.get("accepted")), record.served.session
        self._inbound.trim(record)
        if record.session == session != "":
            record.returning = host  # it says first how much it has: see _attach
        elif record.gone is not None and not resumed:
            self._forget(record)  # nobody ever greeted it
            return
        else:
            has_slot = record.borrow_slot(host.ledger)
            record.session = session if has_slot or not record.served.wants_marks else ""
        host.send(Kind.OPEN, record.number, pack_object(record.opening(resumed=resumed)))
        if record.returning is None:
            self._inbound.hand_over(record, host)
            self._attached_to(record, host)

    def _attached_to(self, record: ConnectionRecord, host: HostPort) -> None:
        record.host, record.returning = host, None
        self.fan_out.forget()
        self._notices.back(record)
        if record.gone is not None and not record.kept:
            self._forget(record)
        elif host.full:
            record.socket.pause()

    def _park(self, served: Served, now: float) -> None:
        self._detach(served)
        served.parked_at = now
        self._questions.parked(served)
        for record in served.records.values():
            self._notices.away(record)
        self._event("park", {"agent": served.agent, "connections": len(served.records)})

    def _detach(self, served: Served, *, was_read: bool = False) -> None:
        served.host = None
        self.fan_out.forget()
        for record in list(served.records.values()):
            self._inbound.trim(record, everything=was_read)
            record.host = record.returning = None
            record.held = record.stuffed = False
            if not record.attached.get("accepted"):
                record.attached = {}
            if record.gone is None:
                record.socket.resume()
            elif not record.kept:
                self._forget(record)

    def _expire(self, served: Served) -> None:
        self._drop(served, closing.SERVICE_RESTART, "The agent's kernel is gone")

    def _withdraw(self, host: HostPort, number: int, payload: bytes) -> None:
        wish = unpack_object(payload)
        served = self.served.get(str(wish["agent"]))
        if served is not None and served.host is host:
            self._drop(
                served, closing.GOING_AWAY, str(wish.get("reason", "The agent was stopped"))
            )

    def _drop(self, served: Served, code: int, reason: str) -> None:
        self._registry.drop(served)
        for record in list(served.records.values()):
            if record.gone is None:
                record.session = ""  # nobody will ask for it again
                self._inbound.clear(record)
                record.socket.close(code, reason)
            else:
                self._forget(record)
        self._questions.dropped(served)
        self._event("withdraw", {"agent": served.agent, "code": code})

    def _instance(self, host: HostPort, number: int, payload: bytes) -> None:
        facts = self._registry.note_instance(host, unpack_object(payload))
        if facts is not None:
            self._event("instance", facts)

    # -- from a host to its sockets ------------------------------------------------------------

    def _own(self, host: HostPort, number: int) -> ConnectionRecord | None:
        record = self.records.get(number)
        return record if record is not None and record.host is host else None

    def _close(self, host: HostPort, number: int, payload: bytes) -> None:
        if (record := self._own(host, number)) is not None:
            code = int.from_bytes(payload[:2], "big")
            if not closing.may_be_received(code):
                raise ValueError(f"close code {code} is illegal on the wire")
            record.socket.close(code, payload[2:].decode("utf-8", "replace"))

    def _attach(self, host: HostPort, number: int, payload: bytes) -> None:
        record, word = self.records.get(number), unpack_object(payload)
        if record is None or host not in (record.host, record.returning):
            return
        arrived, unsettled = word.pop("arrived", None), word.pop("unsettled", ())
        record.attached.update(word)
        if record.returning is host and arrived is not None:
            if arrived < 0:
                record.returning, record.session = None, ""
                self._hand_over(record, host)
                return
            self._inbound.go_on(record, host, arrived, set(unsettled))
            self._attached_to(record, host)

    def _hold(self, host: HostPort, number: int, payload: bytes) -> None:
        if (record := self._own(host, number)) is not None:
            record.held = True
            record.socket.pause()

    def _release(self, host: HostPort, number: int, payload: bytes) -> None:
        if (record := self._own(host, number)) is not None:
            record.held = False
            record.resume_if_free()

    def _settled(self, host: HostPort, number: int, payload: bytes) -> None:
        self._inbound.settle(self.records, host, payload)

    def _probed(self, host: HostPort, number: int, payload: bytes) -> None:
        if (record := self._own(host, number)) is not None:
            self._inbound.look(record)

    def _response(self, host: HostPort, number: int, payload: bytes) -> None:
        self._questions.answered(host, number, *unpack_with_object(payload))

    def _answer(self, host: HostPort, number: int, payload: bytes) -> None:
        self._questions.answered(host, number, unpack_object(payload), b"")
