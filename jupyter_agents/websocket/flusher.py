"""When sockets are written: at the end of the loop's turn, each once, in slices.

The last message of a read need not wait for that, and what goes to a large room is spread over
several turns, so that the loop serves everybody else between two slices of it.
"""

from __future__ import annotations

import logging
from collections import deque
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from tornado.ioloop import IOLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jupyter_agents.websocket.outbox import Bundle, Message

__all__ = ["Flusher", "Spread"]

_log = logging.getLogger(__name__)

_MOMENT_S = 50e-6


class Flushable(Protocol):
    """What a `Flusher` writes."""

    def send(self, message: Message | Bundle) -> None:
        """Queue a message."""

    def send_now(self, message: Message | Bundle) -> None:
        """Write it now if nothing is queued."""

    def flush_now(self) -> None:
        """Write what is queued."""

    def abort(self) -> None:
        """Give up: writing failed."""


class Spread:
    """A message on its way to many sockets, a slice per turn.

    Parameters
    ----------
    sockets : mapping
        Its keys; does not change.
    message : Message or Bundle
        What they get.
    """

    __slots__ = ("left", "message", "sockets", "untold")

    def __init__(self, sockets: Mapping[Flushable, None], message: Message | Bundle) -> None:
        self.sockets = sockets
        self.message = message
        self.untold = iter(sockets)
        """Those who have yet to get it."""
        self.left = len(sockets)


class _Recently:
    """True when somebody asked less than a moment ago."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked_at = 0.0

    def __bool__(self) -> bool:
        before, self._asked_at = self._asked_at, self._clock()
        return self._asked_at - before < _MOMENT_S


class Flusher:
    """Lets the sockets of one IOLoop write at the end of its turn, each once, in slices per turn.

    Parameters
    ----------
    slice_size : int
        Sockets written per turn; between two slices of a large room the loop serves everybody
        else.
    """

    def __init__(self, slice_size: int = 128) -> None:
        self._slice_size = slice_size
        self._marked: deque[Flushable] = deque()
        self._crowd: deque[Flushable] = deque()
        self._is_scheduled = self._was_scheduled = False
        self.spreading: Spread | None = None
        """What some have got of those to whom `spread` sends it, and others have not."""
        self._loop: Any = None
        self._others: Any = None
        self.context = Context()
        """Empty, for callbacks: without it each would copy the one of whoever arranged it."""
        self.is_reading = False
        """While a socket hands on what one read of it brought."""
        self.owed: list[Callable[[], None]] = []
        """What waits for the end of that, see `after_read`."""

    def mark(self, socket: Flushable) -> None:
        """See to it that `socket` flushes (called by its `send`, not by you)."""
        self._marked.append(socket)
        if not self._is_scheduled:
            self._schedule()

    def hold(self) -> None:
        """Plan no turn for what is marked from now on: `release` follows, and writes it."""
        self._was_scheduled, self._is_scheduled = self._is_scheduled, True

    def release(self) -> None:
        """Write what was marked since `hold`: a slice now, the rest turn by turn."""
        self._is_scheduled = self._was_scheduled
        self.flush()
        if self.is_behind and not self._is_scheduled:
            self._schedule()

    def spread(
        self, sockets: Mapping[Flushable, None], message: Message | Bundle, is_last: bool = True
    ) -> None:
        """Send a message to many: to a slice of them at once, to the others turn by turn.

        Where nothing can share a write with it, as it is the last of a read, it needs no queue.
        Whoever sends to one of these sockets meanwhile calls `settle` first.
        """
        if len(sockets) > self._slice_size:
            self.settle()
            self._spread_on(Spread(sockets, message))
            if self.spreading is not None and not self._is_scheduled:
                self._schedule()
        elif is_last:
            self._write_to(sockets, message)
        else:
            self._queue_for(sockets, message)

    def settle(self) -> None:
        """Queue what is being spread, for those who have yet to get it: nothing overtakes it.

        They are written behind everybody else: others are not to wait for a large room.
        """
        spreading, self.spreading = self.spreading, None
        if spreading is None:
            return
        self._marked, self._crowd = self._crowd, self._marked
        self._queue_for(spreading.untold, spreading.message)
        self._marked, self._crowd = self._crowd, self._marked

    def _spread_on(self, spreading: Spread) -> None:
        self.spreading = None  # none of those that are written now has to settle
        self._write_to(islice(spreading.untold, self._slice_size), spreading.message)
        spreading.left -= self._slice_size
        if spreading.left > 0:
            self.spreading = spreading

    def _write_to(self, sockets: Iterable[Flushable], message: Message | Bundle) -> None:
        for socket in sockets:
            try:
                socket.send_now(message)
            except Exception:
                self._cut(socket)

    def _queue_for(self, sockets: Iterable[Flushable], message: Message | Bundle) -> None:
        for socket in sockets:
            try:
                socket.send(message)
            except Exception:
                self._cut(socket)

    def flush(self) -> None:
        """Write one slice, and one of a large room."""
        self._flush(self._marked)
        if self._crowd:
            self._flush(self._crowd)

    def _flush(self, marked: deque[Flushable]) -> None:
        for _ in range(min(self._slice_size, len(marked))):
            socket = marked.popleft()
            try:
                socket.flush_now()
            except Exception:
                self._cut(socket)

    def _cut(self, socket: Flushable) -> None:
        # One broken socket must not keep the others from being written.
        _log.exception("A WebSocket could not be written and is cut")
        socket.abort()

    def after_read(self, write: Callable[[], None]) -> None:
        """Call `write` behind the messages that a socket is handing on; with the turn if none."""
        if self.is_reading:
            self.owed.append(write)
        else:
            self._soon(write)

    def end_read(self) -> None:
        """All is handed on: do what is owed, or plan it when others are at work in this turn."""
        owed, self.owed = self.owed, []
        if self._others is None:
            self._find_loop()
        if self._others:
            for write in owed:
                self._soon(write)
        else:
            for write in owed:
                try:
                    write()
                except Exception:
                    _log.exception("What a read brought could not be written")

    def _schedule(self) -> None:
        self._is_scheduled = True
        self._soon(self.turn)

    def _soon(self, work: Callable[[], None]) -> None:
        if self._loop is None:
            self._find_loop()
        # Not add_callback: that is for any thread, and wakes the loop by a system call.
        self._loop.call_soon(work, context=self.context)

    def _find_loop(self) -> None:
        self._loop = IOLoop.current().asyncio_loop  # type: ignore[attr-defined]  # since 5.0
        # What else asyncio found to do in this turn: other sockets are readable, too, and what
        # they bring can share one write. Where that cannot be seen, the clock has to do.
        others = getattr(self._loop, "_ready", None)
        self._others = _Recently(self._loop.time) if others is None else others

    def turn(self) -> None:
        """Write a slice of all that is left, and see to the rest in the loop's next turn."""
        self._is_scheduled = False
        self.flush()
        if self.spreading is not None:
            self._spread_on(self.spreading)
        if self.is_behind and not self._is_scheduled:
            self._schedule()

    @property
    def is_behind(self) -> bool:
        """Whether something is left to be written."""
        return bool(self._marked or self._crowd) or self.spreading is not None
