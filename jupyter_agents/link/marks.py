"""How far each connection's agent has come, in memory that server and kernel share. Pure.

The kernel writes the ordinal of a message here just before it begins with it: one store, no system
call, and there to be read by the server when the kernel is dead. Whoever makes or finds the memory
is at the two ends of the link; docs/decisions/0004-redelivery.md says why it is not a frame.
"""

from __future__ import annotations

from collections import deque

__all__ = ["MARK_BYTES", "SLOTS", "Marks"]

MARK_BYTES = 8
SLOTS = 32_768
"""Connections of one kernel that can have a mark; messages of more are not sent again."""


class Marks:
    """One number for each slot; the server gives slots to connections.

    Parameters
    ----------
    memory : buffer
        Zeros at first; `MARK_BYTES` for each slot.
    """

    def __init__(self, memory: bytearray | memoryview) -> None:
        self.numbers = memoryview(memory).cast("B").cast("Q")
        """By slot; written by the kernel only."""
        self._unused = 0
        self._free: deque[int] = deque()

    def give(self) -> int | None:
        """Return a slot whose number is 0; None when all are in use.

        The one that was given back longest ago comes first: its last user has long stopped.
        """
        if self._unused < len(self.numbers):
            self._unused += 1
            return self._unused - 1
        if not self._free:
            return None
        slot = self._free.popleft()
        self.numbers[slot] = 0
        return slot

    def take_back(self, slot: int) -> None:
        """Nobody uses this slot any more."""
        self._free.append(slot)
