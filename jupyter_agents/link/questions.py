"""Questions to hosts that wait for their answers: HTTP, gates, actions. Pure; part of the relay.

Each is answered exactly once: by the host, or with a status when nobody can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_agents.link.frames import Kind
from jupyter_agents.link.records import PendingRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.link.records import HostPort, RelayLimits, Served

__all__ = ["Questions"]

_AWAY = "The agent is away"


class Questions:
    """What is under way, by number.

    Parameters
    ----------
    limits : RelayLimits
        How many at once, how long one waits, and how many bytes may wait for their hosts.
    """

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._waiting_bytes = 0
        self.pending: dict[int, PendingRequest] = {}

    def put(
        self,
        number: int,
        served: Served,
        kind: int,
        payload: bytes,
        answer: Callable[[dict[str, Any], bytes], None],
        now: float,
    ) -> PendingRequest:
        """Send a question to its host, or let it wait while that is away or behind."""
        deadline = now + self._limits.request_timeout_s
        question = PendingRequest(number, kind, payload, answer, deadline, served)
        host = served.host if served.host is not None and not served.host.full else None
        if len(self.pending) >= self._limits.max_requests or (
            host is None and not self._has_room(len(payload))
        ):
            answer({"status": 503, "error": "Too many requests are under way"}, b"")
            return question
        self.pending[number] = question
        if host is None:
            served.waiting.append(question)
            self._waiting_bytes += len(payload)
        else:
            self._dispatch(question, host)
        return question

    def _has_room(self, more: int) -> bool:
        return self._waiting_bytes + more <= self._limits.waiting_total_bytes

    def resume(self, served: Served, host: HostPort) -> None:
        """The class is served again: what waited goes out, as far as the host takes it."""
        while served.waiting and not host.full:
            question = served.waiting.pop(0)
            self._waiting_bytes -= len(question.payload)
            self._dispatch(question, host)

    def _dispatch(self, question: PendingRequest, host: HostPort) -> None:
        question.sent = True
        host.send(question.kind, question.number, question.payload)
        question.payload = b""

    def answered(self, host: HostPort, number: int, about: dict[str, Any], body: bytes) -> None:
        """A host answered; another host's answer, or a late one, is nobody's."""
        question = self.pending.get(number)
        if question is not None and question.sent and question.served.host is host:
            del self.pending[number]
            question.answer(about, body)

    def abandon(self, question: PendingRequest) -> None:
        """Nobody waits for this answer any more."""
        if self.pending.pop(question.number, None) is None:
            return
        if question in question.served.waiting:
            question.served.waiting.remove(question)
            self._waiting_bytes -= len(question.payload)
        elif question.served.host is not None:
            question.served.host.send(Kind.ABANDON, question.number)

    def parked(self, served: Served) -> None:
        """The host is gone: what it had been asked has no answer."""
        self._give_up([q for q in self.pending.values() if q.served is served and q.sent])

    def dropped(self, served: Served) -> None:
        """The class is gone: nothing about it has an answer."""
        self._give_up([q for q in self.pending.values() if q.served is served])

    def stop(self) -> None:
        """The server stops."""
        self._give_up(list(self.pending.values()))

    def tick(self, now: float) -> None:
        """Give up what has waited too long."""
        for question in [q for q in self.pending.values() if now >= q.deadline]:
            if question.sent:
                self._fail(question, 504, "The agent did not answer in time")
            else:
                self._fail(question, 503, _AWAY)

    def _give_up(self, questions: list[PendingRequest]) -> None:
        for question in questions:
            self._fail(question, 503, _AWAY)

    def _fail(self, question: PendingRequest, status: int, text: str) -> None:
        self.abandon(question)
        question.answer({"status": status, "error": text}, b"")
