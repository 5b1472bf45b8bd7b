"""A connection that comes back: attempts, their time limits, the waits, and when to stop.

Promises at most one live connection, and that nothing of an earlier one is heard once another
is made. Must not know what is said: that is `client`'s, its owner. Clock and dice are given, so
that tests need no real time.

Thread
------
The loop it was started on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from jupyter_agents.client.discovery import ServerNotFound
from jupyter_agents.client.transport import HandshakeRefused, Opener, Transport
from jupyter_agents.errors import ConnectionClosed
from jupyter_agents.protocol.backoff import Backoff, ReconnectPolicy
from jupyter_agents.protocol.closing import ABNORMAL, NORMAL, is_final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.protocol.client_side import Message

__all__ = ["Channel", "Clock", "Owner", "Timer"]

log = logging.getLogger("jupyter_agents.client")


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None:
        """Let it not happen."""


class Clock(Protocol):
    """Time, as an asyncio loop gives it; a test gives its own."""

    def time(self) -> float:
        """Give seconds that only grow."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call back after `delay` seconds."""


class Owner(Protocol):
    """Whose connection it is."""

    async def where(self) -> tuple[str, Mapping[str, str]]:
        """Give URL and headers for the next attempt; asked anew for each."""

    def on_connecting(self) -> None:
        """Note that an attempt starts."""

    def on_opened(self) -> None:
        """Note that the connection is there; `Channel.transport` may be used."""

    def on_data(self, data: Message) -> None:
        """Take one message."""

    def on_failed(self, error: Exception) -> None:
        """Note that an attempt failed; `on_lost` or `on_ended` follows."""

    def on_lost(self, closed: ConnectionClosed) -> None:
        """Note that the connection, or the attempt, ended and will be made again."""

    def on_ended(self, closed: ConnectionClosed) -> None:
        """Note that it ended and will not be made again by itself."""

    def may_return(self, closed: ConnectionClosed) -> bool:
        """Decide whether to come back after an end that is not final."""


class _Line:
    """One attempt and the connection that may come of it; deaf and mute once it is dropped."""

    def __init__(self, channel: Channel) -> None:
        self.channel: Channel | None = channel
        self.transport: Transport | None = None
        self.is_open = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held: list[Callable[[], None]] = []

    def on_message(self, data: Message) -> None:
        if not self.is_open:
            self._held.append(lambda: self.on_message(data))
        elif self.channel is not None:
            self.channel.owner.on_data(data)

    def on_closed(self, code: int, reason: str) -> None:
        self._is_gone()
        if not self.is_open:
            self._held.append(lambda: self.on_closed(code, reason))
        elif self.channel is not None:
            self.channel.line_closed(code, reason)

    def open(self) -> None:
        """Tell what came while the transport was not there yet."""
        self.is_open = True
        for tell in self._held:
            tell()

    def drop(self, code: int, reason: str) -> None:
        """Hear nothing any more, and close."""
        self.channel = None
        if self.transport is not None and not self.gone.done():
            self.transport.close(code, reason)
        else:
            self._is_gone()

    def _is_gone(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class Channel:
    """Keeps one connection up.

    Parameters
    ----------
    owner : Owner
    policy : ReconnectPolicy
    opener : Opener
        What opens a connection.
    clock : Clock
    dice : Callable
        Gives a number from 0 to less than 1.
    """

    def __init__(
        self,
        owner: Owner,
        policy: ReconnectPolicy,
        opener: Opener,
        clock: Clock,
        dice: Callable[[], float],
    ) -> None:
        self.owner = owner
        self.was_open = False
        self.backoff = Backoff(policy)
        self._opener = opener
        self._clock = clock
        self._dice = dice
        self._line: _Line | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._leaving: set[asyncio.Future[None]] = set()

    @property
    def transport(self) -> Transport | None:
        """The open connection, if there is one."""
        return self._line.transport if self._line is not None and self._line.is_open else None

    def start(self) -> None:
        """Make an attempt, with all retries before it."""
        self.backoff.reset()
        self._try()

    def stop(self, code: int = NORMAL, reason: str = "") -> None:
        """Make no attempt any more, and close what is there; nothing is told of it."""
        self._forget_timer()
        if self._attempt is not None:
            self._attempt.cancel()
            self._leave(self._attempt)
            self._attempt = None
        line, self._line = self._line, None
        if line is not None:
            line.drop(code, reason)
            self._leave(line.gone)

    async def wait_stopped(self) -> None:
        """Return when every connection that was closed is gone."""
        while self._leaving:
            await asyncio.wait(self._leaving)

    def line_closed(self, code: int, reason: str) -> None:
        """Take note of the end of the present connection."""
        self._line = None
        final = is_final(code)
        self._ended(ConnectionClosed(code, reason, was_clean=code != ABNORMAL, final=final))

    def _try(self) -> None:
        self._timer = self._clock.call_later(
            self.backoff.policy.connect_timeout, self._attempt_timed_out
        )
        self._line = _Line(self)
        self.owner.on_connecting()
        self._attempt = asyncio.get_running_loop().create_task(self._open(self._line))

    async def _open(self, line: _Line) -> None:
        try:
            url, headers = await self.owner.where()
            line.transport = await self._opener(url, headers, line)
        except Exception as error:
            if line.channel is not None:
                self._failed(error)
            return
        if line.channel is None:
            # Dropped in the very turn in which the connection came.
            line.transport.close(NORMAL, "")
            return
        self._attempt = None
        self._forget_timer()
        self.was_open = True
        self.backoff.opened(self._clock.time())
        line.is_open = True
        self.owner.on_opened()
        line.open()

    def _attempt_timed_out(self) -> None:
        timeout = self.backoff.policy.connect_timeout
        if self._attempt is not None:
            self._attempt.cancel()
            self._leave(self._attempt)
        self._failed(TimeoutError(f"no connection within {timeout:g} s"))

    def _failed(self, error: Exception) -> None:
        line, self._line, self._attempt = self._line, None, None
        if line is not None:
            line.drop(NORMAL, "")
        self._forget_timer()
        final = not self.was_open and _is_hopeless(error)
        if not final:
            self._log_failure(error)
        self.owner.on_failed(error)
        closed = ConnectionClosed(ABNORMAL, str(error), final=final)
        closed.__cause__ = error
        self._ended(closed)

    def _ended(self, closed: ConnectionClosed) -> None:
        """Come back after a while, or not at all."""
        self.backoff.lost(self._clock.time(), closed.code)
        may_return = not closed.final and self.owner.may_return(closed)
        delay = self.backoff.delay(self._dice()) if may_return else None
        if delay is None:
            closed.final = True
            self.owner.on_ended(closed)
            return
        self._timer = self._clock.call_later(delay, self._try)
        self.owner.on_lost(closed)

    def _log_failure(self, error: Exception) -> None:
        # Said aloud once, so that a wrong port is not a silent wait; then it is no news.
        level = logging.WARNING if self.backoff.retries == 0 else logging.DEBUG
        log.log(level, "Could not connect: %s", str(error) or type(error).__name__)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave(self, leaving: asyncio.Future[None]) -> None:
        if not leaving.done():
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)


def _is_hopeless(error: Exception) -> bool:
    """Tell whether the first attempt failed in a way that waiting does not mend.

    Later on it may: a server that restarts has no agents, and perhaps another token, for a while.
    """
    if isinstance(error, HandshakeRefused):
        return 300 <= error.status < 500 and error.status not in (408, 425, 429)
    return isinstance(error, ServerNotFound)
