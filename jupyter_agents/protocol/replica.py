"""A client's copy of an agent's state, and the writes that are still on their way.

Promises that the copy ends equal to the server's, whoever else writes, and that a refused write
leaves no trace. What is shown is the last pending write, and below it what the server confirmed
last. Must not send: `client_side` passes its frames on. Its other half is `host.state`.

What may happen to a write (see `WRITE_MOVES`):

- made while connected, it carries no base: the last writer wins;
- made while away, it carries the version it was made on, and is refused when another holds by
  then;
- made by a function, it is computed from what the server confirmed last, and again when that
  moved on;
- a write with a base waits for the ones before it, so that a chain of them does not refuse itself;
- once sent and not answered when the connection ends, it fails: nobody knows whether it holds;
- once sent and not answered when the kernel was away meanwhile, it is offered again by the same
  id: an agent that lived on acknowledges it, another one applies it if nothing came in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import (
    AgentsError,
    CallAborted,
    ConnectionReadonly,
    LocalProtocolError,
    StateRejected,
)
from jupyter_agents.protocol import patches
from jupyter_agents.protocol.messages import (
    MISSING,
    READONLY,
    StateAcked,
    StateErrorReceived,
    StatePatched,
    StateSent,
    decode,
    encode,
    state_wanted,
    state_write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "MAX_ATTEMPTS",
    "WRITE_MOVES",
    "Replica",
    "ReplicaEvent",
    "Settled",
    "StateChanged",
    "StateErrored",
    "StateFrame",
    "Write",
    "WritePhase",
]

MAX_ATTEMPTS = 10
"""How often a write by a function is computed anew before it is given up."""

StateFrame = StateSent | StateErrorReceived | StateAcked | StatePatched


class WritePhase(Enum):
    """Where a write is: behind messages that wait, ready to be sent, on its way, or over."""

    QUEUED = auto()
    RELEASED = auto()
    SENT = auto()
    DONE = auto()


# "retry": it was refused as stale, and a function makes it; or the kernel was away.
WRITE_MOVES: Mapping[WritePhase, Mapping[str, WritePhase]] = MappingProxyType(
    {
        WritePhase.QUEUED: {"release": WritePhase.RELEASED, "end": WritePhase.DONE},
        WritePhase.RELEASED: {"send": WritePhase.SENT, "end": WritePhase.DONE},
        WritePhase.SENT: {"retry": WritePhase.RELEASED, "end": WritePhase.DONE},
        WritePhase.DONE: {},
    }
)


@dataclass(slots=True, eq=False)
class Write:
    """One change of the state that this client asked for.

    Attributes
    ----------
    json : bytes
        The next state; empty while a function waits for the state it starts from.
    value : Any
        The same, decoded; `MISSING` while `json` is empty.
    update : Callable or None
        Computes the next state from a copy of the confirmed one.
    base : int or None
        The version that must still hold; None overwrites any.
    is_again : bool
        It was offered before the kernel went away; perhaps it was applied then.
    """

    id: str
    update: Callable[[Any], Any] | None = None
    base: int | None = None
    json: bytes = b""
    value: Any = MISSING
    phase: WritePhase = WritePhase.QUEUED
    attempts: int = 0
    is_again: bool = False

    @property
    def waits_for_others(self) -> bool:
        """Whether the writes before it must be answered first."""
        return self.update is not None or self.base is not None

    def take(self, value: object) -> None:
        """Become this value as every other replica will see it; nothing is shared with it."""
        self.json = encode(value)
        self.value = decode(self.json)

    def move(self, event: str) -> None:
        """Go to the next phase; an illegal move is a mistake of ours."""
        try:
            self.phase = WRITE_MOVES[self.phase][event]
        except KeyError:
            raise LocalProtocolError(f"a write that is {self.phase.name} cannot {event}") from None


@dataclass(frozen=True, slots=True)
class Settled:
    """A write is over: it holds, or it failed with `error`."""

    write: Write
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class StateChanged:
    """Another state is shown than before; `source` is ``"server"`` or ``"client"``."""

    source: str


@dataclass(frozen=True, slots=True)
class StateErrored:
    """The server refused a write with this sentence."""

    text: str


ReplicaEvent = Settled | StateChanged | StateErrored


class Replica:
    """The state as one client knows it.

    Parameters
    ----------
    extended : bool
        Whether our extension is negotiated, so that writes are answered. Without it, and with a
        server that does not know it, a write counts as confirmed once it is sent, as in the
        SDK's clients.

    Attributes
    ----------
    version : int or None
        Of the confirmed state; None where the server does not count.
    pending : list of Write
        Not over yet, in the order they were made.
    """

    def __init__(self, *, extended: bool = True) -> None:
        self.version: int | None = None
        self.pending: list[Write] = []
        self._confirmed: Any = MISSING
        self._copied: tuple[Any, Any] = (MISSING, None)
        self._extended = self._acknowledges = extended
        self._asks = self._asked = False

    @property
    def shown(self) -> Any:
        """The state to show, `MISSING` if none is known; never changed, but replaced."""
        for write in reversed(self.pending):
            if write.value is not MISSING:
                return write.value
        return self._confirmed

    @property
    def state(self) -> Any:
        """A copy of the state to show, None when none is known."""
        shown = self.shown
        if self._copied[0] is not shown:
            self._copied = (shown, None if shown is MISSING else _copy(shown))
        return self._copied[1]

    # ── This client writes ──────────────────────────────────────────────────────────────────

    def make(self, write_id: str, value: object, update: Callable[[Any], Any] | None) -> Write:
        """Prepare a write, without showing it yet.

        Raises
        ------
        TypeError
            When JSON cannot carry the value. What the function raises comes out as it is.
        """
        write = Write(write_id, update)
        shown = self.shown
        if update is None:
            write.take(value)
        elif shown is not MISSING:
            write.take(update(_copy(shown)))
        return write

    def add(self, write: Write, *, ready: bool) -> list[ReplicaEvent]:
        """Show the write's value, and keep it until it is over.

        Parameters
        ----------
        ready : bool
            Whether the server has said, on this connection, what holds now. If not, the write
            must not overwrite what this client has never seen.
        """
        if write.update is None and not ready:
            write.base = self.version
        before = self.shown
        self.pending.append(write)
        return self._changed(before, "client")

    def take(self, *, ready: bool) -> tuple[list[str], list[ReplicaEvent]]:
        """Give the frames to be sent now; what they carry counts as sent."""
        frames: list[str] = []
        events: list[ReplicaEvent] = []
        if self._asks:
            self._asks = False
            frames.append(state_wanted().decode())
        before = self.shown
        while (write := self._next(ready)) is not None:
            failed = self._prepare(write)
            events += [failed] if failed else self._sent(write, frames)
        return frames, events + self._changed(before, "server")

    def give_up(self, write: Write) -> list[ReplicaEvent]:
        """Forget a write nobody waits for any more; if it was sent, it may still come to hold."""
        before = self.shown
        if write in self.pending:
            self._end(write)
        return self._changed(before, "server")

    def _next(self, ready: bool) -> Write | None:
        """Give the first write that is not sent, if its turn has come."""
        for position, write in enumerate(self.pending):
            if write.phase is WritePhase.SENT and not write.waits_for_others:
                continue
            if write.phase is not WritePhase.RELEASED or (write.waits_for_others and position > 0):
                return None
            return write if ready or write.update is None else None
        return None

    def _prepare(self, write: Write) -> Settled | None:
        """Compute a function's value on what holds now; the write is over if that fails."""
        if write.update is None:
            return None
        write.base = self.version
        try:
            write.take(
                write.update(None if self._confirmed is MISSING else _copy(self._confirmed))
            )
        except Exception as error:
            # The author's function: whoever waits for the write gets its error.
            return self._end(write, error)
        return None

    def _sent(self, write: Write, frames: list[str]) -> list[ReplicaEvent]:
        write.move("send")
        write.attempts += 1
        if not self._acknowledges:
            frames.append(state_write(write.json).decode())
            return [self._assume(write)]
        frames.append(state_write(write.json, write.id, write.base).decode())
        return []

    def _assume(self, write: Write) -> Settled:
        self._confirmed = write.value
        return self._end(write)

    # ── The connection comes and goes ───────────────────────────────────────────────────────

    def opened(self) -> None:
        """Note that there is a new connection, perhaps to a server of another kind."""
        self._acknowledges = self._extended
        self._asks = self._asked = False

    def lost(self) -> list[ReplicaEvent]:
        """End the writes that were sent and not answered."""
        events = self._abort(
            [write for write in self.pending if write.phase is WritePhase.SENT],
            "Connection closed",
        )
        for write in self.pending:
            if write.base is None and write.update is None:
                # It leaves on a later connection now, where it must not overwrite what was
                # never seen.
                write.base = self.version
        return events

    def resumed(self) -> None:
        """Offer again what was sent and not answered: the kernel was away, and is back."""
        for write in self.pending:
            if write.phase is WritePhase.SENT:
                write.move("retry")
                write.is_again = True
                write.attempts -= 1  # it was not refused
                if write.update is None and write.base is None:
                    write.base = self.version  # it must not overwrite what it never saw

    def ended(self, why: str) -> list[ReplicaEvent]:
        """End all writes: nothing will be sent any more."""
        return self._abort(list(self.pending), why)

    def _abort(self, writes: list[Write], why: str) -> list[ReplicaEvent]:
        before = self.shown
        events: list[ReplicaEvent] = [self._end(each, aborted(each, why)) for each in writes]
        return self._changed(before, "server") + events

    # ── The server speaks ───────────────────────────────────────────────────────────────────

    def received(self, frame: StateFrame) -> list[ReplicaEvent]:
        """Take a frame about the state. Afterwards something may be there to `take`."""
        before = self.shown
        if isinstance(frame, StateSent):
            events = self._replaced(frame)
        elif isinstance(frame, StateAcked):
            events = self._acked(frame)
        elif isinstance(frame, StateErrorReceived):
            events = self._refused(frame)
        else:
            events = self._patched(frame)
        return self._changed(before, "server") + events

    def vanished(self) -> list[ReplicaEvent]:
        """Note that the server has no state."""
        before = self.shown
        self._confirmed, self.version = MISSING, None
        return self._changed(before, "server")

    def _replaced(self, frame: StateSent) -> list[ReplicaEvent]:
        events: list[ReplicaEvent] = []
        if frame.version is None and self._acknowledges:
            # A server that does not count versions (the SDK's own) does not acknowledge either.
            self._acknowledges = False
            sent = [each for each in self.pending if each.phase is WritePhase.SENT]
            events += [self._assume(write) for write in sent]
        # Frames come in the server's order, so a whole state is always the newest.
        self._confirmed, self.version = frame.state, frame.version
        self._asked = False
        return events

    def _patched(self, frame: StatePatched) -> list[ReplicaEvent]:
        if frame.base != self.version or self._confirmed is MISSING:
            return self._ask()
        try:
            self._confirmed = patches.apply(self._confirmed, frame.ops)
        except ValueError:
            return self._ask()
        self.version = frame.version
        return []

    def _acked(self, frame: StateAcked) -> list[ReplicaEvent]:
        write = self._find(frame.write)
        if write is None:
            # It was given up, so its value is not known here any more.
            return self._ask()
        if frame.state is not MISSING:
            write.value = frame.state
        if self.version is None or frame.version >= self.version:
            self._confirmed, self.version = write.value, frame.version
        for other in self.pending:
            # Made on the same version as this one, and after it: this one is not what makes it
            # stale.
            if other is not write and other.base is not None and other.base == write.base:
                other.base = frame.version
        return [self._end(write)]

    def _refused(self, frame: StateErrorReceived) -> list[ReplicaEvent]:
        if frame.state is not MISSING:
            self._confirmed, self.version = frame.state, frame.version
        write = self._find(frame.write)
        if write is None:
            return [StateErrored(frame.error)] if frame.write is None else []
        is_stale = _is_stale(write, frame)
        if is_stale and write.is_again and write.update is None and frame.state == write.value:
            return [self._end(write)]  # what was wanted holds: it had been applied before
        again = write.update is not None and is_stale
        if again and write.attempts < MAX_ATTEMPTS:
            write.move("retry")
            return []
        text = f"{frame.error} ({write.attempts} attempts)" if again else frame.error
        return [StateErrored(frame.error), self._end(write, _refusal(text))]

    def _ask(self) -> list[ReplicaEvent]:
        if not self._asked:
            self._asks = self._asked = True
        return []

    def _changed(self, before: Any, source: str) -> list[ReplicaEvent]:
        return [] if self.shown is before else [StateChanged(source)]

    def _find(self, write_id: object) -> Write | None:
        return next((each for each in self.pending if each.id == write_id), None)

    def _end(self, write: Write, error: Exception | None = None) -> Settled:
        self.pending.remove(write)
        write.move("end")
        return Settled(write, error)


def aborted(write: Write, why: str) -> CallAborted:
    """Say that the connection went before the write was answered."""
    sent = write.phase is WritePhase.SENT
    return CallAborted("set_state", transmitted=sent, call_id=write.id, why=why)


def _is_stale(write: Write, frame: StateErrorReceived) -> bool:
    # Told by the versions, not by the sentence: a validator's refusal leaves the base in force.
    return write.base is not None and frame.version is not None and frame.version != write.base


def _refusal(text: str) -> AgentsError:
    return ConnectionReadonly() if text == READONLY else StateRejected(text)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
