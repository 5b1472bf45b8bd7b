"""A host's broadcasts, to the sockets they are meant for. Pure; part of the relay.

Who belongs to a list of numbers is looked up once, and remembered until a record comes, goes or
changes hosts. Broadcasts to the same recipients that one read of a link brings, one behind the
other, are handed to each socket as one: that is what makes a burst cheap. The last of a read is
*spread*: it is written at once, as nothing follows that it could share a write with.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.link.records import ConnectionRecord, HostPort, Outlet

    Crowd = Mapping[Outlet, None]
    """In the order in which they are sent to; who is in it is found at once."""

__all__ = ["FanOut"]

_JOINED_BYTES = 64 * 1024
"""Past it the next message is not joined to those before: a full queue refuses a whole one."""

_REMEMBERED = 200_000
"""Recipients of all remembered lists together; some 60 bytes each."""


def _send_to_all(crowd: Crowd, message: Any, is_last: bool) -> None:
    for outlet in crowd:
        outlet.send(message)


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
    spread : callable, optional
        ``(outlets, message, is_last)``: sends a message to many; nothing follows the last.
    """

    def __init__(
        self,
        records: Mapping[int, ConnectionRecord],
        wrap: Callable[[bytes, bool, bool], Any],
        join: Callable[[list[Any]], Any] | None = None,
        spread: Callable[[Crowd, Any, bool], None] | None = None,
    ) -> None:
        self._records = records
        self._wrap = wrap
        self._join = join
        self._spread = spread or _send_to_all
        self._crowds: dict[tuple[HostPort, bytes], Crowd] = {}
        self._remembered = 0
        self._is_held = False
        self._crowd: Crowd = {}
        self._host: HostPort | None = None
        self._numbers = b""
        self._bytes = 0
        self.gathered: list[Any] = []
        """Messages to the same recipients that wait for more of them, or for `deliver`."""

    def hold(self) -> None:
        """Gather what goes to the same recipients from now on: `release` follows."""
        self._is_held = self._join is not None

    def release(self) -> None:
        """Send what was gathered: the read is over."""
        self._is_held = False
        self.deliver(is_last=True)

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
            self.deliver(is_last=not self._is_held)

    def deliver(self, *, is_last: bool = False) -> None:
        """Send what was gathered before anything else is sent."""
        if not self.gathered:
            return
        gathered, self.gathered = self.gathered, []
        join = self._join
        message = gathered[0] if len(gathered) == 1 or join is None else join(gathered)
        crowd, self._crowd = self._crowd, {}  # who leaves now is not held until the next one
        self._spread(crowd, message, is_last)

    def forget(self) -> None:
        """Who belongs to which host has changed: look everybody up again."""
        if self._crowds:
            self._crowds.clear()
            self._remembered = 0

    def _crowd_of(self, host: HostPort, numbers: bytes, recipients: int) -> Crowd:
        crowd = self._crowds.get((host, numbers))
        if crowd is None:
            records = self._records
            crowd = {
                record.socket.outlet: None
                for number in struct.unpack_from(f"<{recipients}I", numbers)
                if (record := records.get(number)) is not None and record.host is host
            }
            self._remember(host, numbers, crowd)
        return crowd

    def _remember(self, host: HostPort, numbers: bytes, crowd: Crowd) -> None:
        size = len(numbers) // 4
        if self._remembered + size > _REMEMBERED:
            self.forget()
        if size <= _REMEMBERED:
            self._crowds[host, numbers] = crowd
            self._remembered += size
