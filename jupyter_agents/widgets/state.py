"""What an instance's state is, was, and shall be: a live tree with a history, edited in place."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupyter_agents.host.state import field_names, snapshot_json, state_version
from jupyter_agents.widgets.about import About
from jupyter_agents.widgets.section import AskError, Section, who
from jupyter_agents.widgets.view import LiveView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jupyter_agents.host.host import HostEvent
    from jupyter_agents.widgets.feed import Feed
    from jupyter_agents.widgets.section import Ask, Parcel

__all__ = ["StateHistory", "StateView", "changed_at", "removed_at"]

HISTORY = 50
HISTORY_BYTES = 4 * 1024 * 1024
SNAPSHOT_BYTES = 512 * 1024
"""What of the history a new view gets."""

SHOWN_BYTES = 2 * 1024 * 1024
"""A larger state is named, not shown."""

STILL_BYTES = 64 * 1024
BYTES_PER_S = 512 * 1024
"""A large state is sent less often than ten times a second."""


@dataclass
class Moment:
    """The state as it was at one time; `changes` led to it since the moment before."""

    version: int
    packed: bytes
    at: float
    by: Any = None
    changes: int = 1

    def told(self, parcel: Parcel) -> dict[str, Any]:
        """This moment in a parcel; a state that is too large without its value."""
        facts = {
            "version": self.version,
            "size": len(self.packed),
            "at": self.at,
            "by": self.by,
            "changes": self.changes,
        }
        if len(self.packed) <= (STILL_BYTES if parcel.is_still else SHOWN_BYTES):
            facts["value"] = parcel.attach(self.packed)
        return facts


class StateHistory(Section):
    """The state now, and as it was at the last moments that were shown."""

    key = "state"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._now: Moment | None = None
        self._pending = False
        self._not_before = 0.0
        self._past: deque[Moment] = deque(maxlen=HISTORY)
        self._editor: Any = None

    def begin(self) -> None:
        """Look at the state as it is; a sleeping instance's is in its storage."""
        self._past.clear()
        self._pending = False
        self._now = self._look()

    def end(self) -> None:
        """Let go of what may be large."""
        self._past.clear()
        self._now = None

    def _look(self) -> Moment | None:
        hosted, instance = self.feed.hosted, self.feed.instance
        if hosted is None:
            return None
        if instance is not None and instance.object is not None:
            packed = snapshot_json(instance.object)
            version = state_version(instance.object)
        else:
            stored = hosted.storage.load(hosted.agent, self.feed.name)
            packed, version = stored.state_json, stored.version
        return None if packed is None else Moment(version, packed, time.time(), None, 0)

    def hear(self, event: HostEvent) -> None:
        """Take the new state; what is not shown yet joins with it."""
        if event.kind == "state":
            self._take(self._look(), self._author(event))

    def tick(self) -> None:
        """Find what came without an event: an instance woke with its stored state, or lost it."""
        now = self._look()
        is_same = (now and now.packed) == (self._now and self._now.packed)
        if not is_same:
            self._take(now, None)

    def _take(self, now: Moment | None, by: Any) -> None:
        is_news = now is None or self._now is None or now.version != self._now.version
        if is_news and not self._pending:
            self._remember()
        if now is not None:
            before = self._now.changes if self._now is not None and self._pending else 0
            now.by, now.changes = by, before + 1
        self._now, self._pending = now, True
        self.feed.touch()

    def _author(self, event: HostEvent) -> Any:
        if self._editor is not None:
            return {"panel": True}
        source = event.data.get("source", "server")
        return None if source == "server" else who(source)

    def _remember(self) -> None:
        if self._now is None:
            return
        self._past.append(self._now)
        size = sum(len(moment.packed) for moment in self._past)
        while size > HISTORY_BYTES and self._past:
            size -= len(self._past.popleft().packed)

    def whole(self, parcel: Parcel) -> Any:
        """The state, its kind, and its past as far as that is not large."""
        hosted = self.feed.hosted
        past, room = [], SNAPSHOT_BYTES
        for moment in reversed(self._past):
            room -= len(moment.packed)
            if room < 0:
                break
            past.append(moment.told(parcel))
        return {
            "fields": _fields(hosted.cls) if hosted is not None else {},
            "past": past[::-1],
            "now": None if self._now is None else self._now.told(parcel),
        }

    def changes(self, parcel: Parcel) -> Any:
        """``{"now"}`` when there is a new one, large ones less often."""
        if not self._pending:
            return None
        clock = self.feed.host.loop.time()
        if clock < self._not_before:
            self.feed.host.loop.call_soon(self.feed.touch)
            return None
        self._pending = False
        if self._now is None:
            return {"now": None}
        self._not_before = clock + len(self._now.packed) / BYTES_PER_S
        return {"now": self._now.told(parcel)}

    # -- editing -------------------------------------------------------------------------------

    def asked(self, ask: Ask) -> Any:
        """``edit`` what is at a ``path`` to a ``value``, or ``remove`` it; [] is all of it."""
        if ask.what not in ("edit", "remove"):
            return NotImplemented
        path = ask.given.get("path")
        if not isinstance(path, list) or not all(isinstance(k, (str, int)) for k in path):
            raise AskError("A path is a list of keys")
        return self.feed.awake(lambda agent: self._edit(agent, ask.what, path, ask.given))

    def _edit(self, agent: Any, what: str, path: list[str | int], given: Any) -> None:
        packed = snapshot_json(agent)
        state = None if packed is None else json.loads(packed)
        if what == "remove":
            state = removed_at(state, path)
        else:
            state = changed_at(state, path, given.get("value"))
        if path and field_names(type(agent)):
            state = {path[0]: state[path[0]]} if path[0] in state else state
        self._editor = agent
        try:
            agent.set_state(state)
            self.feed.instance.sync.flush()
        finally:
            self._editor = None


def _fields(cls: type) -> dict[str, Any]:
    """What a typed state's fields take, in traitlets' own words; empty for a free-form state."""
    found = {}
    for name in field_names(cls):
        trait = getattr(cls, name)
        help_text = str(trait.metadata.get("help") or getattr(trait, "help", "") or "")
        found[name] = {
            "takes": str(trait.info()),
            "readonly": bool(trait.read_only),
            "help": help_text,
        }
    return found


def changed_at(value: Any, path: Sequence[str | int], next_value: Any) -> Any:
    """A value with another one at `path`; AskError when there is no such place any more."""
    if not path:
        return next_value
    key, rest = path[0], path[1:]
    if isinstance(value, dict) and isinstance(key, str):
        if rest and key not in value:
            raise _gone(path)
        return {**value, key: changed_at(value.get(key), rest, next_value)}
    if isinstance(value, list) and isinstance(key, int) and 0 <= key <= len(value) - bool(rest):
        here = value[key] if key < len(value) else None
        return [*value[:key], changed_at(here, rest, next_value), *value[key + 1 :]]
    raise _gone(path)


def removed_at(value: Any, path: Sequence[str | int]) -> Any:
    """A value without what is at `path`."""
    if not path:
        return None
    *way, key = path
    parent = value
    for step in way:
        parent = _child(parent, step)
    _child(parent, key)
    if isinstance(parent, dict):
        return changed_at(value, way, {k: v for k, v in parent.items() if k != key})
    return changed_at(value, way, [v for i, v in enumerate(parent) if i != key])


def _child(value: Any, key: str | int) -> Any:
    if isinstance(value, dict) and key in value:
        return value[key]
    if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        return value[key]
    raise _gone([key])


def _gone(path: Sequence[str | int]) -> AskError:
    where = " > ".join(map(str, path))
    return AskError(f"The state has changed meanwhile: there is no {where} any more")


class StateView(LiveView):
    """The state of one instance as a live tree, to be looked at and edited.

    Parameters
    ----------
    shown : AgentNamespace or AgentHandle
        What `serve` returned, or one instance of it.
    name : str, optional
        Which instance; by default the handle's, or the first that lives.
    """

    part = "state"
    sections = (About, StateHistory)
