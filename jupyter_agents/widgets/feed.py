"""What feeds a live view: events become rows, rings and values, and leave in small batches.

All of it runs on the agents' thread; only `send` crosses over, and it touches no trait. A view
says hello and gets everything, then changes at most ten times a second while it answers. When none
answers, the feed stops listening.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupyter_agents.widgets.section import AskError, Parcel, ask_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.host.host import AgentHost, Hosted, HostEvent
    from jupyter_agents.widgets.section import Ask, Section

__all__ = ["Feed"]

_log = logging.getLogger("jupyter_agents.widgets")

FLUSH_S = 0.1
HIDDEN_FLUSH_S = 2.0
SETTLE_S = 0.02
"""How long a first change waits for others of its burst."""

TICK_S = 1.0
VIEW_S = 13.0
"""A view speaks every 5 s; one that was silent for so long is gone."""

HIDDEN_VIEW_S = 150.0
"""Browsers let a hidden page speak once a minute."""

BUSY_VIEW_S = 900.0
"""While a cell keeps the main thread, the view's words may not come through."""

FIRST_VIEW_S = 30.0
MAX_VIEWS = 16
BUSY_S = 0.7


@dataclass
class _View:
    heard: float
    hidden: bool = False

    def is_gone(self, now: float, *, busy: bool) -> bool:
        limit = HIDDEN_VIEW_S if self.hidden else VIEW_S
        return now - self.heard > (BUSY_VIEW_S if busy else limit)


@dataclass
class _Probe:
    """Finds out whether a cell keeps the main thread."""

    loop: asyncio.AbstractEventLoop | None
    sent: float | None = None
    answered: bool = True

    def is_busy(self, now: float) -> bool:
        return not self.answered and self.sent is not None and now - self.sent > BUSY_S

    def send(self, now: float) -> None:
        if self.loop is None or not self.answered or self.loop.is_closed():
            return
        self.sent, self.answered = now, False
        self.loop.call_soon_threadsafe(self._turned)

    def _turned(self) -> None:
        self.answered = True


class Feed:
    """The facts behind one widget, for all its views.

    Parameters
    ----------
    host : AgentHost
        Whose events it hears.
    agent : str
        The class's part of the address.
    name : str or None
        The instance to show; None follows the first that lives.
    sections : sequence of type
        What to show of it.
    send : callable
        Takes a JSON object and a list of buffers to all views.
    main_loop : asyncio.AbstractEventLoop, optional
        The loop that cells run on.

    Thread
    ------
    The agents' thread, for everything but `close` and the constructor.
    """

    def __init__(
        self,
        host: AgentHost,
        agent: str,
        name: str | None,
        sections: tuple[type[Section], ...],
        send: Callable[[dict[str, Any], list[bytes]], None],
        main_loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.host = host
        self.agent = agent
        self.name = name or "default"
        self.is_following = name is None
        self.sections = {make.key: make(self) for make in sections}
        self.sequence = 0
        self._send = send
        self._views: dict[str, _View] = {}
        self._probe = _Probe(main_loop)
        self._unwatch: Callable[[], None] | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._flushed = 0.0
        self._first_view_by = 0.0
        self._all_anew = False
        self._is_closed = False

    # -- what is shown -------------------------------------------------------------------------

    @property
    def hosted(self) -> Hosted | None:
        """The class as it is served now, None when it is not."""
        return self.host.classes.get(self.agent)

    @property
    def instance(self) -> Any:
        """The chosen instance where it is in memory, else None; looking does not wake it."""
        hosted = self.hosted
        return hosted.instances.get(self.name) if hosted is not None else None

    @property
    def is_seen(self) -> bool:
        """Whether a view answers."""
        return bool(self._views)

    @property
    def is_busy(self) -> bool:
        """Whether a cell keeps the main thread."""
        return self._probe.is_busy(self.host.loop.time())

    def select(self, name: str) -> None:
        """Show another instance from now on."""
        self.is_following = False
        self._turn_to(name)

    def _turn_to(self, name: str) -> None:
        self.name = name
        self._begin()
        self._all_anew = True
        self.touch()

    # -- watching ------------------------------------------------------------------------------

    def open(self) -> dict[str, Any]:
        """Begin to watch; returns a picture of what is there, as plain JSON."""
        self._first_view_by = self.host.loop.time() + FIRST_VIEW_S
        self._watch()
        return self.picture()

    def picture(self) -> dict[str, Any]:
        """All that is known now, as plain JSON."""
        parcel = Parcel(is_still=True)
        return {**self._whole(parcel), "kind": "snapshot", "taken": time.time()}

    def _follow_first(self) -> None:
        hosted = self.hosted
        if self.is_following and hosted is not None and hosted.instances:
            known = hosted.instances
            if self.name not in known:
                self.name = max(known, key=lambda name: len(known[name].members))

    def _watch(self) -> None:
        if self._unwatch is None and not self._is_closed:
            self._follow_first()
            self._unwatch = self.host.watch(self._hear)
            self._begin()
            self._tick()

    def _begin(self) -> None:
        for section in self.sections.values():
            section.begin()

    def close(self) -> None:
        """Stop for good."""
        self._is_closed = True
        self._views.clear()
        self._rest()

    def _rest(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        for timer in (self._flush_timer, self._tick_timer):
            if timer is not None:
                timer.cancel()
        self._flush_timer = self._tick_timer = None
        for section in self.sections.values():
            section.end()

    def _hear(self, event: HostEvent) -> None:
        if event.agent != self.agent:
            return
        if self.is_following and event.kind in ("connect", "instance") and self.instance is None:
            self._follow_first()
            self._turn_to(self.name)
        for section in self.sections.values():
            if event.name == self.name or section.key == "about":
                section.hear(event)

    def _tick(self) -> None:
        now = self.host.loop.time()
        self._tick_timer = self.host.loop.call_later(TICK_S, self._tick)
        was_busy = self._probe.is_busy(now)
        self._forget_views(now, busy=was_busy)
        if not self._views and now > self._first_view_by:
            self._rest()
            return
        for section in self.sections.values():
            section.tick()
        if self._views:
            self._probe.send(now)

    def _forget_views(self, now: float, *, busy: bool) -> None:
        for key, view in list(self._views.items()):
            if view.is_gone(now, busy=busy):
                del self._views[key]

    # -- sending -------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something is to be shown: make sure that it leaves soon."""
        if self._flush_timer is not None or not self._views:
            return
        slow = all(view.hidden for view in self._views.values())
        due = self._flushed + (HIDDEN_FLUSH_S if slow else FLUSH_S)
        wait = max(SETTLE_S, due - self.host.loop.time())
        self._flush_timer = self.host.loop.call_later(wait, self.flush)

    def flush(self) -> None:
        """Send what changed."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if not self._views:
            return
        self._flushed = self.host.loop.time()
        if self._all_anew:
            self._all_anew = False
            self._snapshot(None)
            return
        parcel = Parcel()
        for key, section in self.sections.items():
            part = section.changes(parcel)
            if part is not None:
                parcel.content[key] = part
        if parcel.content:
            self.sequence += 1
            self.say({"kind": "batch", "seq": self.sequence, **parcel.content}, parcel.buffers)

    def _snapshot(self, view: str | None) -> None:
        if view is not None and len(self._views) > 1:
            self.flush()  # the others have everything up to here
        else:
            self._all_anew = False
            for section in self.sections.values():
                section.changes(Parcel())
        self._flushed = self.host.loop.time()
        parcel = Parcel()
        self.say({"kind": "snapshot", "to": view, **self._whole(parcel)}, parcel.buffers)

    def _whole(self, parcel: Parcel) -> dict[str, Any]:
        facts = {key: section.whole(parcel) for key, section in self.sections.items()}
        return {"seq": self.sequence, "agent": self.agent, "name": self.name, **facts}

    def say(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        """Send a message now; a dead comm is not our business."""
        try:
            self._send(content, buffers or [])
        except Exception:
            _log.debug("A view could not be told", exc_info=True)

    # -- hearing the views ---------------------------------------------------------------------

    def heard(self, content: Any, buffers: list[Any]) -> None:
        """Take a message from a view; nonsense is dropped."""
        if self._is_closed or not isinstance(content, dict):
            return
        view, do = content.get("view"), content.get("do")
        if not isinstance(view, str) or len(view) > 64:
            return
        if do == "bye":
            self._views.pop(view, None)
            return
        is_new = self._meet(view, hidden=bool(content.get("hidden")))
        if do == "hello" or is_new:
            self._snapshot(view)
        elif do == "alive":
            self.say({"kind": "beat", "to": view})
        if do == "ask":
            self._asked(ask_from(view, content, buffers))

    def _meet(self, key: str, *, hidden: bool) -> bool:
        now = self.host.loop.time()
        known = self._views.get(key)
        if known is None and len(self._views) >= MAX_VIEWS:
            del self._views[min(self._views, key=lambda one: self._views[one].heard)]
        self._views[key] = _View(now, hidden)
        self._watch()
        if known is not None and known.hidden and not hidden:
            self.flush()
        return known is None

    def _asked(self, ask: Ask) -> None:
        try:
            result = self._do(ask)
        except Exception as error:
            self.answer(ask, error=error)
            return
        if inspect.isawaitable(result):
            context = contextvars.Context()
            self.host.spawn(result, context, lambda value, error: self.answer(ask, value, error))
        else:
            self.answer(ask, result)

    def _do(self, ask: Ask) -> Any:
        if ask.what == "picture":
            return self.picture()
        for section in self.sections.values():
            result = section.asked(ask)
            if result is not NotImplemented:
                return result
        raise AskError(f"Nothing here can {ask.what!r}")

    def answer(self, ask: Ask, value: Any = None, error: BaseException | None = None) -> None:
        """Answer a view, after it has seen what its question did."""
        self.flush()
        about: dict[str, Any] = {"kind": "answer", "to": ask.view, "ask": ask.number}
        if error is None:
            self.say({**about, "value": value})
        else:
            self.say({**about, "error": _text(error)})

    async def awake(self, work: Callable[[Any], Any]) -> Any:
        """Do `work` with the chosen agent's object, woken for it if it sleeps."""
        hosted = self.hosted
        if hosted is None:
            raise AskError(f"{self.agent} is not served any more; run its cell again")
        return await self.host.instance(hosted, self.name).outside(work)


def _text(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "Cancelled"
    return str(error) or type(error).__name__
