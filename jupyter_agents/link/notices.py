"""The two notices of our own that a server says by itself: the kernel is away, it is back. Pure.

Part of the relay. Fixed bytes, so that no envelope is opened here, and only for clients that
negotiated them (``_ja=1``); docs/wire.md has them. Read by `protocol/messages.py`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.link.records import ConnectionRecord

__all__ = ["RESUMED", "SUSPENDED", "Notices"]

SUSPENDED = b'{"type":"cf_agent_suspended"}'
RESUMED = b'{"type":"cf_agent_resumed"}'


class Notices:
    """Tells each client once that its agent is away, and once that it is back."""

    def __init__(self, wrap: Callable[[bytes, bool, bool], Any]) -> None:
        self._wrap = wrap

    @cached_property
    def _suspended(self) -> Any:
        return self._wrap(SUSPENDED, False, False)

    @cached_property
    def _resumed(self) -> Any:
        return self._wrap(RESUMED, False, False)

    def away(self, record: ConnectionRecord) -> None:
        """The kernel is gone, or was not there when the client came."""
        flags = record.attached.get("flags") or {}
        wants = record.info.get("extended") and flags.get("protocol", True)
        if wants and record.gone is None and not record.knows_away:
            record.knows_away = True
            record.socket.outlet.send(self._suspended)

    def back(self, record: ConnectionRecord) -> None:
        """A kernel has the connection."""
        if record.knows_away and record.gone is None:
            record.knows_away = False
            record.socket.outlet.send(self._resumed)
