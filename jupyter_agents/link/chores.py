"""What the server asks of a kernel for itself: to answer a probe, and to count what agents do.

Pure, as all of the link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_agents.link.frames import Frame, Kind, pack_object

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["Chores"]

_ANSWER: Frame = (int(Kind.PROBE), 0, b"")
"""Connections are numbered from 1."""


class Chores:
    """One link's.

    Parameters
    ----------
    send : callable
        Queues a frame: kind, number, payload.
    """

    def __init__(self, send: Callable[[int, int, bytes], None]) -> None:
        self._send = send
        self._every_s = 0.0
        self._probed_at: float | None = None
        self._round_trip_s: float | None = None
        self.frames = 0
        """How many of the link's frames were ours, both ways."""

    @property
    def is_probing(self) -> bool:
        """Whether a probe is under way: then show what comes to `heard`."""
        return self._probed_at is not None

    def probe(self, now: float) -> None:
        """Ask for an answer, unless one is owed already."""
        if self._probed_at is None:
            self._probed_at = now
            self._do(Kind.PROBE)

    def heard(self, frames: Collection[Frame], now: float) -> None:
        """These frames came: one may be the answer."""
        if self._probed_at is not None and _ANSWER in frames:
            self._round_trip_s, self._probed_at = now - self._probed_at, None
            self.frames += 1

    def round_trip_s(self, now: float) -> float | None:
        """How long the latest answer took, or is awaited if that is longer; None before any."""
        if self._probed_at is None:
            return self._round_trip_s
        return max(self._round_trip_s or 0.0, now - self._probed_at)

    def tally(self, every_s: float) -> None:
        """Have the kernel tell what its agents do, at most this often; 0 for not at all."""
        if every_s != self._every_s:
            self._every_s = every_s
            self._do(Kind.TALLY, pack_object({"every_s": every_s}))

    def _do(self, kind: int, payload: bytes = b"") -> None:
        self.frames += 1
        self._send(kind, 0, payload)
