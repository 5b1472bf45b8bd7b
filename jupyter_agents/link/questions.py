"""Questions to hosts that wait for their answers: HTTP, gates, actions. Pure; part of the relay.

Each is answered exactly once: by the host, or with a status when nobody can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_agents.link.frames import Kind
from jupyter_agents.link.records import PendingRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.link.records import HostPort, Served

__all__ = ["Questions"]

_AWAY = "The agent is away"


class Questions:
    """What is under way, by number.

    Parameters
    ----------
    limit : int
        How many at once; past it 503.
    timeout_s : float
        How long one waits.
    """

    def __init__(self, limit: int, timeout_s: float) -> None:
        self._limit = limit
        self._timeout_s = timeout_s
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
        """Send a question to its host, or let it wait while the class is parked."""
        question = PendingRequest(number, kind, payload, answer, now + self._timeout_s, served)
        if len(self.pending) >= self._limit:
            answer({"status": 503, "error": "Too many requests are under way"}, b"")
            return question
        self.pending[number] = question
        if served.host is None:
            served.waiting.append(question)
        else:
            self._dispatch(question, served.host)
        return question

    def resume(self, served: Served, host: HostPort) -> None:
        """The class is served again: what waited goes out."""
        waiting, served.waiting = served.waiting, []
        for question in waiting:
            self._dispatch(question, host)

    def _dispatch(self, question: PendingRequest, host: HostPort) -> None:
        question.sent = True
        host.send(question.kind, question.number, question.payload)
        question.payload = b""

    def answered(self, host: HostPort, number: int, about: dict[str, Any], body: bytes) -> None:
        """A host answered; another host's answer, or a late one, is nobody's."""
        question = self.pending.get(number)
        if question is not None and question.served.host is host:
            del self.pending[number]
            question.answer(about, body)

    def abandon(self, question: PendingRequest) -> None:
        """Nobody waits for this answer any more."""
        if self.pending.pop(question.number, None) is None:
            return
        if question in question.served.waiting:
            question.served.waiting.remove(question)
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
