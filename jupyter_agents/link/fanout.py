"""A host's broadcasts, to the sockets they are meant for. Pure; part of the relay.

Who belongs to a list of numbers is looked up once, and remembered until a record comes, goes or
changes hosts. Broadcasts to the same recipients that one read of a link brings, one behind the
other, are handed to each socket as one: that is what makes a burst cheap.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.link.records import ConnectionRecord, HostPort

__all__ = ["FanOut"]

_JOINED_BYTES = 64 * 1024
"""Past it the next message is not joined to those before: a full queue refuses a whole one."""

_REMEMBERED = 200_000
"""Recipients of all remembered lists together; 16 bytes each."""


class FanOut:
    """Sends what goes to many.

    Parameters
    ----------
    records : mapping
        The relay's, by number.
    wrap : callable
        See Relay.
    join : callable, optional
        Makes one thing to send of several wrapped messages; None sends each by itself.
    """

    def __init__(
        self,
        records: Mapping[int, ConnectionRecord],
        wrap: Callable[[bytes, bool, bool], Any],
        join: Callable[[list[Any]], Any] | None,
    ) -> None:
        self._records = records
        self._wrap = wrap
        self._join = join
        self._crowds: dict[tuple[HostPort, bytes], list[Callable[[Any], None]]] = {}
        self._remembered = 0
        self._is_held = False
        self._crowd: list[Callable[[Any], None]] = []
        self._host: HostPort | None = None
        self._numbers = b""
        self._bytes = 0
        self.gathered: list[Any] = []
        """Messages to the same recipients that wait for more of them, or for `deliver`."""

    def hold(self) -> None:
        """Gather what goes to the same recipients from now on: `release` follows."""
        self._is_held = self._join is not None

    def release(self) -> None:
        """Send what was gathered."""
        self._is_held = False
        self.deliver()

    def take(
        self, host: HostPort, recipients: int, payload: bytes, *, binary: bool, replaceable: bool
    ) -> None:
        """Send one message to many; struct.error when the list of them is cut off."""
        end = 4 * recipients
        numbers, body = payload[:end], payload[end:]
        is_more = numbers == self._numbers and host is self._host and not replaceable
        if not (self.gathered and is_more and self._bytes < _JOINED_BYTES):
            self.deliver()
            self._crowd = self._crowd_of(host, numbers, recipients)
            self._host, self._numbers, self._bytes = host, numbers, 0
        message = self._wrap(body, binary, replaceable)
        self._bytes += len(body)
        self.gathered.append(message)
        if replaceable or not self._is_held:
            self.deliver()

    def deliver(self) -> None:
        """Send what was gathered before anything else is sent."""
        if not self.gathered:
            return
        gathered, self.gathered = self.gathered, []
        join = self._join
        message = gathered[0] if len(gathered) == 1 or join is None else join(gathered)
        crowd, self._crowd = self._crowd, []  # who leaves now is not held until the next one
        for send in crowd:
            send(message)

    def forget(self) -> None:
        """Who belongs to which host has changed: look everybody up again."""
        if self._crowds:
            self._crowds.clear()
            self._remembered = 0

    def _crowd_of(
        self, host: HostPort, numbers: bytes, recipients: int
    ) -> list[Callable[[Any], None]]:
        crowd = self._crowds.get((host, numbers))
        if crowd is None:
            records = self._records
            crowd = [
                record.socket.send
                for number in struct.unpack_from(f"<{recipients}I", numbers)
                if (record := records.get(number)) is not None and record.host is host
            ]
            self._remember(host, numbers, crowd)
        return crowd

    def _remember(
        self, host: HostPort, numbers: bytes, crowd: list[Callable[[Any], None]]
    ) -> None:
        size = len(numbers) // 4
        if self._remembered + size > _REMEMBERED:
            self.forget()
        if size <= _REMEMBERED:
            self._crowds[host, numbers] = crowd
            self._remembered += size
