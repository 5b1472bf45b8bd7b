"""What keeps handles equal to their agents: who is told, on which thread, and the links.

Promises that a handle nobody holds is told no more and freed, and that a linked trait ends equal
to the agent's whichever threads write. Must not know agents or states: the copy itself is
`handle.py`'s.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from traitlets import Bunch, directional_link, link

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Home", "Linked", "Mirror", "Mirrors", "link_of"]

_log = logging.getLogger("jupyter_agents")

REST_S = 0.1
"""How long a side that moved by itself must stand still before it is overwritten.

A thread may take that long from a widget's change to its link, when all of them are busy.
"""

TRIES = 3
"""How often a value is carried over that the other side does not keep: a slider past its end."""


class Mirror(Protocol):
    """A copy of one instance's state."""

    def _news(self, packed: bytes | None) -> None:
        """Take the state as it is now, as JSON; on the agents' thread."""


class Mirrors:
    """Whom to tell of a changed state, by address; holds nobody.

    Thread
    ------
    The agents' thread only.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], list[weakref.ref[Mirror]]] = {}

    def add(self, agent: str, name: str, mirror: Mirror) -> None:
        """Tell this one, too, as long as somebody else holds it."""
        alive = [ref for ref in self._of.get((agent, name), ()) if ref() is not None]
        self._of[agent, name] = [*alive, weakref.ref(mirror)]

    def tell(self, agent: str, name: str, packed: bytes | None) -> None:
        """The state of this instance is another one now."""
        found = self._of.get((agent, name))
        if found is None:
            return
        mirrors = [mirror for ref in found if (mirror := ref()) is not None]
        if len(mirrors) < len(found):
            self._of[agent, name] = [weakref.ref(mirror) for mirror in mirrors]
        if not mirrors:
            del self._of[agent, name]
        for mirror in mirrors:
            mirror._news(packed)

    def has(self, agent: str, name: str) -> bool:
        """Whether somebody holds one of this instance; if not, nothing is kept of it either."""
        if any(ref() is not None for ref in self._of.get((agent, name), ())):
            return True
        self._of.pop((agent, name), None)
        return False

    def __len__(self) -> int:
        return sum(ref() is not None for refs in self._of.values() for ref in refs)


@dataclass(frozen=True)
class Home:
    """Where observers are called: the thread, its loop if it has one, and the cell's context."""

    thread_id: int
    loop: asyncio.AbstractEventLoop | None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    @classmethod
    def of_caller(cls) -> Home:
        """The calling thread where it runs a loop; else the main thread, whose loop is unknown."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return cls(threading.main_thread().ident or 0, None)
        return cls(threading.get_ident(), loop)

    def is_here(self) -> bool:
        """Whether the caller is at home."""
        return threading.get_ident() == self.thread_id

    @property
    def has_loop(self) -> bool:
        """Whether something can be done at home without being asked for there."""
        return self.loop is not None and self.loop.is_running()

    def soon(self, function: Callable[[], object]) -> bool:
        """Have it done at home, from any thread; False when nothing runs there."""
        if self.loop is None:
            return False
        try:
            # a copy: a context cannot be entered twice; ours, so that no agent's goes along
            self.loop.call_soon_threadsafe(function, context=self.context.copy())
        except RuntimeError:  # closed
            return False
        return True

    def later(self, delay_s: float, function: Callable[[], object]) -> None:
        """Have it done at home after a while; only from there."""
        if self.loop is not None:
            self.loop.call_later(delay_s, function, context=self.context.copy())


def link_of(handler: Any) -> link | directional_link | None:
    """The link that an observer belongs to."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, (link, directional_link)) else None


class Linked:
    """One end of a traitlets ``link``, kept equal instead of being told.

    traitlets' links are made for one thread: what changes while `link.updating` is set is dropped,
    and whoever finds a side changed under its hands raises "Broken link". A widget's callbacks may
    come on threads of their own (Jupyter's subshells). So the other side's changes come to us one
    by one (`forward`), and the two sides are compared, and compared again, until they are equal or
    stand still.

    Parameters
    ----------
    handler : callable
        The link's own observer, which carries a change to the other side.
    trait : str
        Our side.
    """

    def __init__(self, handler: Any, trait: str) -> None:
        self.handler = handler
        self.trait = trait
        self.link = handler.__self__
        self._is_target = handler.__name__ == "_update_source"
        there: Callable[[Any], Any] = self.link._transform
        back: Callable[[Any], Any] = getattr(self.link, "_transform_inv", there)
        ours, other = self.link.source, self.link.target
        self.ours, self.other = (other, ours) if self._is_target else (ours, other)
        self._transform, self._back = (back, there) if self._is_target else (there, back)
        self._is_one_way = isinstance(self.link, directional_link)
        self._lock = threading.RLock()
        self._forwarding = 0
        self._carrier = 0
        self._seen = getattr(*self.other)
        self._moved_at = 0.0
        self._value: Any = None
        self._tries = 0

    def listening(self) -> Linked:
        """The same, and the other side's changes come by `forward` instead of the link itself.

        Another handle is no such side: it is kept equal in the same way as this one.
        """
        if self._is_one_way or hasattr(type(self.other[0]), "_news"):
            return self
        name = "_update_target" if self._is_target else "_update_source"
        if self._is_target:  # as the source, it is observed already
            self.other[0].unobserve(getattr(self.link, name), names=self.other[1])
            self.other[0].observe(self.forward, names=self.other[1])
        setattr(self.link, name, self.forward)
        return self

    def forward(self, change: Bunch) -> None:
        """Carry the other side's value to us, on whichever thread it changed."""
        if self._carrier == threading.get_ident():
            return  # it is ours, which has just been carried there
        with self._lock:
            self._forwarding += 1
            try:
                # what it is now: another thread may have moved it on, and waits for us
                owner, trait = self.ours
                setattr(owner, trait, self._back(getattr(*self.other)))
            finally:
                self._forwarding -= 1

    def align(self, owner: Any, value: Any) -> bool:
        """Carry our value over where the other side differs; True when to look again.

        It waits while the other side is on the move: that change is on its way to us.
        """
        # the other side's value is on its way to us, or ours to it
        if self.link.updating or self._forwarding:
            self._seen, self._moved_at = getattr(*self.other), 0.0
            return True
        seen, self._seen = self._seen, getattr(*self.other)
        now = time.monotonic()
        if not self._is_one_way and not _is_same(seen, self._seen):
            self._tries, self._moved_at = 0, now
        if not _is_same(value, self._value):
            self._value, self._tries = value, 0
        if self._is_one_way and self._tries:
            return False
        if _is_same(self._seen, self._wanted(value)):
            self._tries = 1
            return False
        if not self._is_one_way and now - self._moved_at < REST_S:
            return True
        if self._tries >= TRIES:
            return False
        self._carry(owner, value)
        return not self._is_one_way

    def _wanted(self, value: Any) -> Any:
        try:
            return self._transform(value)
        except Exception:  # the link's own attempt raises it again, and is logged
            return object()

    def _carry(self, owner: Any, value: Any) -> None:
        change = Bunch(name=self.trait, old=value, new=value, owner=owner, type="change")
        self._tries += 1
        self._carrier = threading.get_ident()
        try:
            self.handler(change)
        except Exception:  # the other side refuses the value, or moved meanwhile
            if self._tries == 1:
                _log.warning("%s of %r could not be linked", self.trait, owner, exc_info=True)
        finally:
            self._carrier = 0
        self._seen, self._moved_at = getattr(*self.other), 0.0


def _is_same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # an array, or anything else that has its own idea of ==
        return one is other
