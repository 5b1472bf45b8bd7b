"""How fast one client may speak: past it, it is not read for a while. It is never closed for that.

Only where a limit is set; without one, a message takes no step more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jupyter_agents.server.door import ClientSocket

if TYPE_CHECKING:
    from jupyter_agents.server.door import Door

__all__ = ["Pace", "PacedSocket", "client_socket"]


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


class PacedSocket(ClientSocket):
    """A client that is read no faster than its server's limits say."""

    __slots__ = ("_is_paused", "_pace", "_timer")

    def __init__(self, door: Door, messages_per_s: float, bytes_per_s: float) -> None:
        super().__init__(door)
        now = asyncio.get_running_loop().time()
        self._pace = Pace(messages_per_s, bytes_per_s, now)
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False

    def on_text(self, payload: bytes) -> None:
        """See Receiver."""
        super().on_text(payload)
        self._mind(len(payload))

    def on_binary(self, payload: bytes) -> None:
        """See Receiver."""
        super().on_binary(payload)
        self._mind(len(payload))

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        """See Receiver."""
        if self._timer is not None:
            self._timer.cancel()
        super().on_closed(code, reason, was_clean)

    def pause(self) -> None:
        """Stop reading the client, whatever its pace."""
        self._is_paused = True
        super().pause()

    def resume(self) -> None:
        """Read it again, as soon as its pace allows."""
        self._is_paused = False
        if self._timer is None:
            super().resume()

    def _mind(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        wait = self._pace.wait_after(size, loop.time())
        if wait > 0 and self._timer is None:
            self.protocol.pause_reading()
            self._timer = loop.call_later(wait, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        if not self._is_paused:
            self.protocol.resume_reading()


def client_socket(door: Door) -> ClientSocket:
    """A new client's socket, paced where the server's limits want it."""
    if any(door.paces):
        return PacedSocket(door, *door.paces)
    return ClientSocket(door)
