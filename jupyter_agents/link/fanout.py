"""A host's messages, to the sockets they are meant for. Pure; part of the relay.

Who belongs to a list of numbers is looked up once, and remembered until a record comes, goes or
changes hosts. Messages to the same recipients that one read of a link brings, one behind the
other, are handed to each socket as one: that is what makes a burst cheap. The last of a read is
written at once, as nothing follows that it could share a write with.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from jupyter_agents.link.frames import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.link.records import ConnectionRecord, HostPort, Outlet

    Crowd = Mapping[Outlet, None]
    """In the order in which they are sent to; who is in it is found at once."""

__all__ = ["FanOut"]

_JOINED_BYTES = 64 * 1024
"""Past it the next message is not joined to those before: a full queue refuses a whole one."""

_STATE = int(Kind.STATE_MANY)
_BINARIES = (int(Kind.BINARY), int(Kind.BINARY_MANY))

_REMEMBERED = 200_000
"""Recipients of all remembered lists together; some 60 bytes each."""


def _send_to_all(crowd: Crowd, message: Any, is_last: bool) -> None:
    for outlet in crowd:
        outlet.send(message)


class FanOut:
    """Sends what a host says to its clients.

    Parameters
    ----------
    records : mapping
        The relay's, by number.
    wrap : callable
        See Relay.
    join : callable, optional
        ``(payloads, binary)`` → one thing to send of several messages; None sends each by itself.
    spread : callable, optional
        ``(outlets, message, is_last)``: sends a message to many; nothing follows the last.
    """

    def __init__(
        self,
        records: Mapping[int, ConnectionRecord],
        wrap: Callable[[bytes, bool, bool], Any],
        join: Callable[[list[bytes], bool], Any] | None = None,
        spread: Callable[[Crowd, Any, bool], None] | None = None,
    ) -> None:
        self._records = records
        self._wrap = wrap
        self._join = join
        self._spread = spread or _send_to_all
        self._crowds: dict[tuple[HostPort, bytes], Crowd] = {}
        self._remembered = 0
        self.is_held = False
        """Whether messages to the same recipients are gathered."""
        self.gathered: list[bytes] = []
        """Those that wait for more of them, or for `deliver`."""
        self._host: HostPort | None = None
        self._to: int | bytes | None = None
        self._kind = 0
        self._crowd: Crowd = {}
        self._bytes = 0

    def hold(self) -> None:
        """Gather what goes to the same recipients from now on: `release` follows."""
        self.is_held = self._join is not None

    def release(self) -> None:
        """Send what was gathered: the read is over."""
        self.is_held = False
        self.deliver(is_last=True)

    def one(self, host: HostPort, kind: int, number: int, payload: bytes) -> None:
        """Send one message to one connection."""
        if number == self._to and kind == self._kind and host is self._host:
            self.gathered.append(payload)  # as `_add`; most of what is sent in bursts comes here
            self._bytes += len(payload)
            if self._bytes >= _JOINED_BYTES:
                self.deliver()
            return
        self.deliver()
        record = self._records.get(number)
        if record is not None and record.host is host:
            self._crowd = {record.socket.outlet: None}
            self._host, self._to, self._kind = host, number, kind
            self._add(payload)

    def many(self, kind: int, host: HostPort, recipients: int, payload: bytes) -> None:
        """Send one message to many; struct.error when the list of them is cut off."""
        end = 4 * recipients
        numbers, body = payload[:end], payload[end:]
        if not (numbers == self._to and kind == self._kind and host is self._host):
            self.deliver()
            self._crowd = self._crowd_of(host, numbers, recipients)
            self._host, self._to, self._kind = host, numbers, kind
        self._add(body)

    def _add(self, payload: bytes) -> None:
        self.gathered.append(payload)
        self._bytes += len(payload)
        if self._bytes >= _JOINED_BYTES or self._kind == _STATE or not self.is_held:
            self.deliver(is_last=not self.is_held)

    def deliver(self, *, is_last: bool = False) -> None:
        """Send what was gathered before anything else is sent."""
        if not self.gathered:
            return
        gathered, self.gathered = self.gathered, []
        self._to, self._bytes = None, 0
        crowd, self._crowd = self._crowd, {}  # who leaves now is not held until the next one
        binary = self._kind in _BINARIES
        if len(gathered) == 1 or self._join is None:
            message = self._wrap(gathered[0], binary, self._kind == _STATE)
        else:
            message = self._join(gathered, binary)
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
