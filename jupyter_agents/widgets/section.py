"""What a live view shows, section by section, and how it is packed: the parts that `feed` moves.

A section looks at one kind of facts about an instance, such as its connections, on the agents'
thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.host import HostEvent
    from jupyter_agents.widgets.feed import Feed

__all__ = [
    "Ask",
    "AskError",
    "Parcel",
    "Ring",
    "Section",
    "ask_from",
    "shortened",
    "user_name",
    "who",
]


class AskError(Exception):
    """What a view asked for cannot be done; the text is for the person before it."""


class Parcel:
    """One message to the views: JSON, and large values beside it as they are.

    Parameters
    ----------
    is_still : bool
        It is a picture to be stored: smaller, and everything in the JSON.
    """

    def __init__(self, *, is_still: bool = False) -> None:
        self.content: dict[str, Any] = {}
        self.buffers: list[bytes] = []
        self.is_still = is_still

    def attach(self, packed: bytes) -> dict[str, Any]:
        """A reference to a JSON text."""
        if self.is_still:
            return {"json": json.loads(packed)}
        self.buffers.append(packed)
        return {"buffer": len(self.buffers) - 1}


@dataclass(frozen=True)
class Ask:
    """What a view asks for; `number` names the answer, `buffers` came along."""

    view: str
    number: int
    what: str
    given: Mapping[str, Any]
    buffers: list[Any]


class Section:
    """One kind of facts about the chosen instance, such as its connections."""

    key: ClassVar[str] = ""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def begin(self) -> None:
        """Forget everything, and look at what is there now."""

    def hear(self, event: HostEvent) -> None:
        """Take in what happened to the instance; `feed.touch` when it is to be shown."""

    def tick(self) -> None:
        """Look, once a second, at what nobody tells."""

    def whole(self, parcel: Parcel) -> Any:
        """Everything there is."""

    def changes(self, parcel: Parcel) -> Any:
        """What is new since the last time, None for nothing."""

    def asked(self, ask: Ask) -> Any:
        """Do what a view asks for; NotImplemented when it is not this section's."""
        return NotImplemented

    def end(self) -> None:
        """Nobody looks any more."""


def ask_from(view: str, content: Mapping[str, Any], buffers: list[Any]) -> Ask:
    """A view's question as it came, with nonsense made harmless."""
    number, given = content.get("ask"), content.get("given")
    return Ask(
        view,
        number if isinstance(number, int) else 0,
        str(content.get("what", "")),
        given if isinstance(given, dict) else {},
        buffers,
    )


@dataclass
class Ring:
    """The newest entries of something endless, numbered, and which of them nobody has seen yet."""

    limit: int
    entries: dict[int, Any] = field(default_factory=dict)
    last: int = 0
    unseen: int = 0

    def add(self, entry: Any) -> int:
        """Keep one more; the oldest leaves. Returns its number."""
        self.last += 1
        self.unseen += 1
        self.entries[self.last] = entry
        if len(self.entries) > self.limit:
            del self.entries[next(iter(self.entries))]
        return self.last

    def take(self, at_most: int) -> tuple[list[tuple[int, Any]], int]:
        """The unseen ones, the newest `at_most` of them, and how many were left out."""
        count = min(self.unseen, at_most, len(self.entries))
        skipped, self.unseen = self.unseen - count, 0
        keys = list(self.entries)[len(self.entries) - count :]
        return [(key, self.entries[key]) for key in keys], skipped

    def clear(self) -> None:
        """Forget them; numbers go on."""
        self.entries.clear()
        self.unseen = 0


def who(connection: Connection | None) -> dict[str, Any] | None:
    """Whose doing something was, for people: the connection's id and its user's name."""
    if connection is None:
        return None
    return {"id": connection.id, "n": connection.number, "user": user_name(connection)}


def user_name(connection: Connection) -> str:
    """What to call the person behind a connection; empty when nobody knows."""
    user = connection.user or {}
    return str(user.get("display_name") or user.get("name") or user.get("username") or "")


def shortened(text: str, limit: int) -> str:
    """The text, or its start; what UTF-8 cannot carry is replaced: errors may hold it."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
