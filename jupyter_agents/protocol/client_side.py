"""A client's end of the talk with one agent: what may happen when, what waits, what is over.

Promises that every call and every write ends exactly once, that nothing overtakes anything, and
that what was sent before a loss is never sent twice. Must not wait, send or know the time:
`client.client` feeds it what happened, sends what `take` gives, and acts on the events. Its
other half is `agent_side`.

Two rules: a move that `MOVES` or `CALL_MOVES` does not list is a mistake of ours and raises
`LocalProtocolError`; and only `take` turns what waits into what was transmitted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import CallAborted, CallError, CallFailed, LocalProtocolError
from jupyter_agents.protocol.messages import (
    MISSING,
    AwayTold,
    IdentityReceived,
    RpcReply,
    StateSent,
    read_server_frame,
    rpc_call,
    rpc_cancel,
)
from jupyter_agents.protocol.names import Address
from jupyter_agents.protocol.replica import Replica, ReplicaEvent, Write, WritePhase, aborted
from jupyter_agents.protocol.values import as_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "CALL_MOVES",
    "MOVES",
    "Call",
    "CallDone",
    "CallPhase",
    "ChunkCame",
    "ClientEvent",
    "ClientSide",
    "Identified",
    "MessageCame",
    "Phase",
    "Ready",
    "StrayReply",
]

Message = str | bytes


class Phase(Enum):
    """Where the connection is. WAITING: it comes back by itself; CLOSED: it does not."""

    IDLE = auto()
    CONNECTING = auto()
    OPEN = auto()
    WAITING = auto()
    CLOSED = auto()


MOVES: Mapping[Phase, Mapping[str, Phase]] = MappingProxyType(
    {
        Phase.IDLE: {"connect": Phase.CONNECTING, "end": Phase.CLOSED},
        Phase.CONNECTING: {"open": Phase.OPEN, "lose": Phase.WAITING, "end": Phase.CLOSED},
        Phase.OPEN: {"lose": Phase.WAITING, "end": Phase.CLOSED},
        Phase.WAITING: {"connect": Phase.CONNECTING, "end": Phase.CLOSED},
        Phase.CLOSED: {"connect": Phase.CONNECTING},
    }
)


class CallPhase(Enum):
    """Where a call is: not sent, on its way, or over."""

    QUEUED = auto()
    SENT = auto()
    DONE = auto()


# A loss alone does not end a queued call: it goes out later.
CALL_MOVES: Mapping[CallPhase, Mapping[str, CallPhase]] = MappingProxyType(
    {
        CallPhase.QUEUED: {"send": CallPhase.SENT, "end": CallPhase.DONE},
        CallPhase.SENT: {"chunk": CallPhase.SENT, "end": CallPhase.DONE},
        CallPhase.DONE: {},
    }
)


@dataclass(slots=True, eq=False)
class Call:
    """One call of a method. `next_seq` is the number that its next chunk must have."""

    id: str
    method: str
    frame: str
    phase: CallPhase = CallPhase.QUEUED
    next_seq: int = 0

    def move(self, event: str) -> None:
        """Go to the next phase; an illegal move is a mistake of ours."""
        try:
            self.phase = CALL_MOVES[self.phase][event]
        except KeyError:
            raise LocalProtocolError(f"a call that is {self.phase.name} cannot {event}") from None


# ── What may come of it ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Identified:
    """The server said whom this client reached; `previous` when it was someone else before."""

    address: Address
    previous: Address | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The identity is known, and the state if there is one."""


@dataclass(frozen=True, slots=True)
class ChunkCame:
    """A streaming call has one more value."""

    call: Call
    value: Any


@dataclass(frozen=True, slots=True)
class CallDone:
    """A call is over, with a value or an error."""

    call: Call
    value: Any = None
    error: CallError | None = None


@dataclass(frozen=True, slots=True)
class StrayReply:
    """An answer came to a call that nobody waits for any more, because it had timed out."""

    call_id: str
    method: str


@dataclass(frozen=True, slots=True)
class MessageCame:
    """The agent's own message."""

    data: Message


Answered = ChunkCame | CallDone | StrayReply
ClientEvent = Identified | Ready | ReplicaEvent | Answered | MessageCame | AwayTold

_REMEMBERED_CALLS = 1000


class ClientSide:
    """The machine.

    Parameters
    ----------
    extended : bool
        Whether our extension is negotiated: acknowledged writes, cancelling, deadlines.
    max_queued, max_queued_bytes : int
        What may wait while there is no connection.

    Attributes
    ----------
    phase : Phase
    replica : Replica
    identity : Address or None
        Whom the server says this client reaches; kept through a loss.
    is_ready, is_identified : bool
        Of the present connection.
    queued_bytes : int
        What waits to be taken.
    """

    def __init__(
        self, *, extended: bool = True, max_queued: int = 1000, max_queued_bytes: int = 1 << 24
    ) -> None:
        self.phase = Phase.IDLE
        self.replica = Replica(extended=extended)
        self.identity: Address | None = None
        self.is_ready = self.is_identified = False
        self.queued_bytes = 0
        self._extended = extended
        self._limits = (max_queued, max_queued_bytes)
        self._queue: deque[Message | Call | Write] = deque()
        self._calls: dict[str, Call] = {}
        self._timed_out: dict[str, str] = {}
        self._count = 0

    # ── The connection comes and goes ───────────────────────────────────────────────────────

    def connecting(self) -> None:
        """Note that an attempt starts."""
        self._move("connect")

    def opened(self) -> None:
        """Note that the connection is there; what waited leaves with the next `take`."""
        self._move("open")
        self.replica.opened()

    def lost(self) -> list[ClientEvent]:
        """Note that the connection ended and will be made again: what was sent fails, no more."""
        self._move("lose")
        self.is_ready = self.is_identified = False
        return [*self._abort(CallPhase.SENT), *self.replica.lost()]

    def ended(self, why: str = "Connection closed") -> list[ClientEvent]:
        """Note that no connection will be made by itself any more: everything that waits fails."""
        self._move("end")
        return self._end_all(why)

    def readdressed(self) -> list[ClientEvent]:
        """Forget what concerned one agent instance, because the next connection goes to another.

        What waits was meant for the old one and fails.
        """
        events = self._end_all("The address changed")
        self.identity = None
        return [*events, *self.replica.vanished()]

    def _move(self, event: str) -> None:
        try:
            self.phase = MOVES[self.phase][event]
        except KeyError:
            raise LocalProtocolError(f"cannot {event} while {self.phase.name}") from None

    def _end_all(self, why: str) -> list[ClientEvent]:
        self.is_ready = self.is_identified = False
        self._queue.clear()
        self.queued_bytes = 0
        return [*self._abort(None, why), *self.replica.ended(why)]

    def _abort(self, phase: CallPhase | None, why: str = "Connection closed") -> list[ClientEvent]:
        """End the calls in this phase, or all."""
        found = [call for call in self._calls.values() if phase in (None, call.phase)]
        return [self._end_call(call, error=_aborted_call(call, why)) for call in found]

    # ── This client acts ────────────────────────────────────────────────────────────────────

    def send(self, message: object) -> bool:
        """Take a message; False when it cannot be: the client is closed, or the queue is full."""
        data = as_message(message)
        if self._refusal(len(data)):
            return False
        self._enqueue(data, len(data))
        return True

    def call(
        self, method: str, args: Iterable[object] = (), *, timeout: float | None = None
    ) -> Call:
        """Take a call; with our extension the agent learns the timeout (seconds), too.

        Raises
        ------
        TypeError
            When JSON cannot carry the arguments.
        CallAborted
            When it cannot be taken: the client is closed, or the queue is full.
        """
        call_id = self._next_id()
        deadline_ms = timeout * 1000 if timeout and self._extended else None
        frame = rpc_call(call_id, method, list(args), deadline_ms).decode()
        why = self._refusal(len(frame))
        if why:
            raise CallAborted(method, transmitted=False, call_id=call_id, why=why)
        call = self._calls[call_id] = Call(call_id, method, frame)
        self._enqueue(call, len(frame))
        return call

    def give_up(self, call: Call, *, timed_out: bool = False) -> None:
        """Forget a call nobody waits for any more; an agent that knows how cancels it."""
        if call.phase is CallPhase.DONE:
            return
        if call.phase is CallPhase.SENT and self._extended:
            self._enqueue(rpc_cancel(call.id).decode())
        if call.phase is CallPhase.SENT and timed_out:
            self._remember(call)
        self._end_call(call)

    def write(
        self, value: object = MISSING, update: Callable[[Any], Any] | None = None
    ) -> tuple[Write, list[ClientEvent]]:
        """Take a new state, or a function that computes it; it is shown at once.

        Raises
        ------
        TypeError
            When JSON cannot carry the value. What the function raises comes out as it is.
        CallAborted
            When it cannot be taken: the client is closed, or the queue is full.
        """
        write = self.replica.make(self._next_id(), value, update)
        why = self._refusal(len(write.json))
        if why:
            raise aborted(write, why)
        events = self.replica.add(write, ready=self.is_ready)
        self._enqueue(write, len(write.json))
        return write, [*events]

    def drain_messages(self) -> list[Message]:
        """Take back the messages that wait; calls and writes stay."""
        drained = [item for item in self._queue if isinstance(item, (str, bytes))]
        self._queue = deque(item for item in self._queue if not isinstance(item, (str, bytes)))
        self.queued_bytes -= sum(len(item) for item in drained)
        return drained

    def take(self) -> tuple[list[Message], list[ClientEvent]]:
        """Give what is to be sent now, in order. It counts as transmitted from here on."""
        frames: list[Message] = []
        events: list[ClientEvent] = []
        if self.phase is not Phase.OPEN:
            return frames, events
        while self._queue:
            self._release(self._queue.popleft(), frames, events)
        self._take_state(frames, events)
        self.queued_bytes = 0
        return frames, events

    def _release(
        self, item: Message | Call | Write, frames: list[Message], events: list[ClientEvent]
    ) -> None:
        if isinstance(item, (str, bytes)):
            frames.append(item)
        elif isinstance(item, Call) and item.phase is CallPhase.QUEUED:
            item.move("send")
            frames.append(item.frame)
        elif isinstance(item, Write) and item.phase is WritePhase.QUEUED:
            item.move("release")
            self._take_state(frames, events)

    def _take_state(self, frames: list[Message], events: list[ClientEvent]) -> None:
        state_frames, state_events = self.replica.take(ready=self.is_ready)
        frames += state_frames
        events += state_events

    def _enqueue(self, item: Message | Call | Write, size: int = 0) -> None:
        self._queue.append(item)
        self.queued_bytes += size

    def _refusal(self, size: int) -> str:
        """Say why nothing more of this size can be taken, or nothing."""
        if self.phase is Phase.CLOSED:
            return "The client is closed"
        if self.phase is Phase.OPEN:
            return ""
        most, most_bytes = self._limits
        fits = len(self._queue) < most and self.queued_bytes + size <= most_bytes
        return "" if fits else "The queue is full"

    def _next_id(self) -> str:
        self._count += 1
        return str(self._count)

    # ── The server speaks ───────────────────────────────────────────────────────────────────

    def received(self, data: Message) -> list[ClientEvent]:
        """Take one frame. Afterwards something may be there to `take`."""
        frame = read_server_frame(data) if isinstance(data, str) else None
        if isinstance(frame, IdentityReceived):
            return self._identified(frame)
        if isinstance(frame, StateSent):
            return [*self.replica.received(frame), *self._become_ready()]
        if isinstance(frame, AwayTold):
            if not frame.is_away:
                self.replica.resumed()
            return [frame]
        # Identity and state come before anything else: what is not them says that none will come.
        ready = self._become_ready()
        if frame is None:
            return [*ready, MessageCame(data)]
        if isinstance(frame, RpcReply):
            return ready + self._replied(frame)
        return [*ready, *self.replica.received(frame)]

    def _identified(self, frame: IdentityReceived) -> list[ClientEvent]:
        address = Address(frame.agent, frame.name)
        previous = None if self.identity == address else self.identity
        self.identity, self.is_identified = address, True
        events: list[ClientEvent] = [Identified(address, previous)]
        if not frame.state_follows:
            events += [*self.replica.vanished(), *self._become_ready()]
        return events

    def _become_ready(self) -> list[ClientEvent]:
        if self.is_ready:
            return []
        self.is_ready = True
        return [Ready()]

    def _replied(self, frame: RpcReply) -> list[ClientEvent]:
        call = self._calls.get(frame.id)
        if call is None or call.phase is not CallPhase.SENT:
            return self._stray(frame)
        if not frame.success:
            error = CallFailed(call.method, frame.error, call.id, frame.data)
            return [self._end_call(call, error=error)]
        value = None if frame.result is MISSING else frame.result
        if frame.done:
            return [self._end_call(call, value)]
        return [self._chunk(call, frame.seq, value)]

    def _chunk(self, call: Call, seq: int | None, value: Any) -> ClientEvent:
        if seq is not None and seq != call.next_seq:
            error = _aborted_call(call, f"chunk {call.next_seq} was expected, {seq} came")
            self.give_up(call)
            return CallDone(call, error=error)
        call.next_seq += 1
        call.move("chunk")
        return ChunkCame(call, value)

    def _stray(self, frame: RpcReply) -> list[ClientEvent]:
        method = self._timed_out.get(frame.id)
        if method is None:
            # Cancelled on purpose, or never ours: nobody needs to hear of it.
            return []
        if frame.done:
            del self._timed_out[frame.id]
        # An error only says that the cancel was heeded which left when the time was up.
        return [StrayReply(frame.id, method)] if frame.success or not self._extended else []

    def _remember(self, call: Call) -> None:
        while len(self._timed_out) >= _REMEMBERED_CALLS:
            del self._timed_out[next(iter(self._timed_out))]
        self._timed_out[call.id] = call.method

    def _end_call(self, call: Call, value: Any = None, error: CallError | None = None) -> CallDone:
        call.move("end")
        del self._calls[call.id]
        return CallDone(call, value, error)


def _aborted_call(call: Call, why: str) -> CallAborted:
    sent = call.phase is CallPhase.SENT
    return CallAborted(call.method, transmitted=sent, call_id=call.id, why=why)
