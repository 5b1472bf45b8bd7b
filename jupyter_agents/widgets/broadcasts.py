"""What is said: a live, bounded log of messages and broadcasts, and a box to say something."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

from jupyter_agents.widgets.about import About
from jupyter_agents.widgets.section import AskError, Ring, Section, who
from jupyter_agents.widgets.view import LiveView

if TYPE_CHECKING:
    from jupyter_agents.host.host import HostEvent
    from jupyter_agents.widgets.feed import Feed
    from jupyter_agents.widgets.section import Ask, Parcel

__all__ = ["BroadcastLog", "MessageRing"]

KEPT = 500
A_FLUSH = 100
TEXT_LENGTH = 2_000
BINARY_BYTES = 512
"""What of a message is shown; its size is always told."""


class MessageRing(Section):
    """The newest messages, in both directions, cut to what a person reads.

    An entry is ``{"n", "at", "do", "who"?, "kind", "data", "size", "count"?}``: `do` is ``in``,
    ``out``, ``all`` (a broadcast to `count` connections), ``came`` or ``left``; `kind` is ``text``
    (`cut`: its start) or ``binary``, in base64.
    """

    key = "messages"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._ring = Ring(KEPT)

    def begin(self) -> None:
        """Start with nothing."""
        self._ring.clear()

    def end(self) -> None:
        """Let the messages go."""
        self._ring.clear()

    def hear(self, event: HostEvent) -> None:
        """Keep what was said."""
        make = getattr(self, f"_{event.kind}", None)
        if make is not None:
            self._ring.add({"at": time.time(), **make(event.data)})
            self.feed.touch()

    @staticmethod
    def _message(data: dict[str, Any]) -> dict[str, Any]:
        message = data["message"]
        return {"do": "in", "who": who(data["connection"]), **_cut(message)}

    @staticmethod
    def _sent(data: dict[str, Any]) -> dict[str, Any]:
        return {"do": "out", "who": who(data["connection"]), **_payload(data)}

    @staticmethod
    def _broadcast(data: dict[str, Any]) -> dict[str, Any]:
        return {"do": "all", "count": data["recipients"], **_payload(data)}

    @staticmethod
    def _connect(data: dict[str, Any]) -> dict[str, Any]:
        return {"do": "came", "who": who(data["connection"])}

    @staticmethod
    def _disconnect(data: dict[str, Any]) -> dict[str, Any]:
        return {"do": "left", "who": who(data["connection"])}

    def whole(self, parcel: Parcel) -> Any:
        """``{"entries", "skipped", "limit"}``."""
        self._ring.unseen = 0
        entries = [{"n": n, **entry} for n, entry in self._ring.entries.items()]
        return {"entries": entries, "skipped": 0, "limit": KEPT}

    def changes(self, parcel: Parcel) -> Any:
        """The newest; `skipped` says how many more there were in between."""
        taken, skipped = self._ring.take(A_FLUSH)
        if not taken:
            return None
        return {"entries": [{"n": n, **entry} for n, entry in taken], "skipped": skipped}

    def asked(self, ask: Ask) -> Any:
        """``send`` a ``text``, or the first buffer, to all or to the connections of ``to``."""
        if ask.what != "send":
            return NotImplemented
        instance = self.feed.instance
        if instance is None or not instance.members:
            raise AskError("Nobody is connected, so nobody would hear it")
        text = ask.given.get("text")
        message: Any = bytes(ask.buffers[0]) if ask.buffers else str(text)
        to = ask.given.get("to")
        if to is None:
            instance.broadcast(message, (), None)
            return len(instance.members)
        connection = instance.members.get(to)
        if connection is None or not connection.send(message):
            raise AskError("This connection is closed already")
        return 1


def _payload(data: dict[str, Any]) -> dict[str, Any]:
    payload: bytes = data["payload"]
    if data["binary"]:
        return _cut(payload)
    return _text(payload[: TEXT_LENGTH * 4].decode("utf-8", "replace"), len(payload))


def _cut(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, str):
        return _text(message, len(message.encode("utf-8", "replace")))
    data = base64.b64encode(message[:BINARY_BYTES]).decode()
    return {"kind": "binary", "data": data, "size": len(message)}


def _text(text: str, size: int) -> dict[str, Any]:
    is_cut = len(text) > TEXT_LENGTH
    return {"kind": "text", "data": text[:TEXT_LENGTH], "size": size, "cut": is_cut}


class BroadcastLog(LiveView):
    """A live log of what one instance and its connections say, and a box to send.

    Parameters
    ----------
    shown : AgentNamespace or AgentHandle
        What `serve` returned, or one instance of it.
    name : str, optional
        Which instance; by default the handle's, or the first that lives.
    """

    part = "messages"
    sections = (About, MessageRing)
