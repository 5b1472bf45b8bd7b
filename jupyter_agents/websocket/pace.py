"""How fast one client may speak: past it, it is not read for a while. It is never closed for that.

Only where a limit is set; without one, a message takes no step more. Used by `server/door.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_agents.websocket.protocol import AgentWebSocketProtocol

__all__ = ["Pace", "PacedReading"]


class Pace:
    """How long to wait after each message so that a rate is kept.

    A second's worth may come at once.

    Parameters
    ----------
    messages_per_s, bytes_per_s : float
        0 sets no limit.
    now : float
        Seconds, of any clock.
    """

    __slots__ = ("_at", "_rates", "_used")

    def __init__(self, messages_per_s: float, bytes_per_s: float, now: float) -> None:
        self._rates = (messages_per_s, bytes_per_s)
        self._used = [0.0, 0.0]
        self._at = now

    def wait_after(self, size: int, now: float) -> float:
        """A message of `size` bytes came; returns the seconds until the next is welcome."""
        passed, self._at = now - self._at, now
        wait = 0.0
        for index, (rate, amount) in enumerate(zip(self._rates, (1, size), strict=True)):
            if rate > 0:
                self._used[index] = max(self._used[index] - passed * rate, 0.0) + amount
                wait = max(wait, self._used[index] / rate - 1.0)
        return wait


class PacedReading:
    """Reads a client while both its pace and whoever else may pause it agree.

    Parameters
    ----------
    protocol : AgentWebSocketProtocol
        The client's.
    messages_per_s, bytes_per_s : float
        See Pace.
    """

    __slots__ = ("_is_paused", "_pace", "_protocol", "_timer")

    def __init__(
        self, protocol: AgentWebSocketProtocol, messages_per_s: float, bytes_per_s: float
    ) -> None:
        self._protocol = protocol
        self._pace = Pace(messages_per_s, bytes_per_s, asyncio.get_running_loop().time())
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False

    def took(self, size: int) -> None:
        """A message of `size` bytes came."""
        loop = asyncio.get_running_loop()
        wait = self._pace.wait_after(size, loop.time())
        if wait > 0 and self._timer is None:
            self._protocol.pause_reading()
            self._timer = loop.call_later(wait, self._go_on)

    def pause(self) -> None:
        """Stop reading the client, whatever its pace."""
        self._is_paused = True
        self._protocol.pause_reading()

    def resume(self) -> None:
        """Read it again, as soon as its pace allows."""
        self._is_paused = False
        if self._timer is None:
            self._protocol.resume_reading()

    def end(self) -> None:
        """The client is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self) -> None:
        self._timer = None
        if not self._is_paused:
            self._protocol.resume_reading()
