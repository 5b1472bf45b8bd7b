"""What a cell holds instead of the instance: an `AgentHandle`, safe on any thread.

It mirrors the state on the main thread. A write goes to the agents' thread, waits until it is
applied (or raises its validation error), and is visible when the call returns; what clients change
arrives by itself. Observers, and with them ``link``, fire on the main thread. Methods run the
agent's methods on the agents' thread.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any

from traitlets import Any as AnyTrait
from traitlets import HasTraits

from jupyter_agents.host.state import field_names
from jupyter_agents.protocol import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.host.host import AgentHost, Hosted, Viewer

__all__ = ["AgentHandle", "handle_for"]

CALM_S = 0.005
"""After a write from another thread, observers wait this long.

A ``link`` that is in the middle of it drops news.
"""


class _Mirrored(AnyTrait):
    """Reads what holds, also before the observers have been told."""

    def get(self, obj: Any, cls: Any = None) -> Any:
        obj._refresh()
        return obj._value(self.name)


class AgentHandle(HasTraits):
    """One agent instance, by name, for cells and other threads.

    Every field of a typed state is a trait of the handle, and `state` is the whole state.
    Everything else is the agent's: ``room.shout("x")`` returns a sync method's result, and an
    awaitable for an async one.

    Thread
    ------
    Any. Observers are called on the main thread.
    """

    state = _Mirrored(allow_none=True)

    _fields: tuple[str, ...] = ()

    def __init__(self, host: AgentHost, hosted: Hosted, name: str) -> None:
        own = self.__dict__
        own.update(_host=host, _hosted=hosted, _name=name, _lock=threading.RLock())
        own.update(_latest=(-1, None), _shown=(-1, None), _applying=False, _planned=False)
        own.update(_foreign=0, _calm_at=0.0, _loop=_running_loop())
        super().__init__()
        hosted.mirrors.setdefault(name, []).append(self._news)
        self._ask(self._subscribe)

    @property
    def name(self) -> str:
        """The instance's name."""
        return str(self.__dict__["_name"])

    # -- the mirror ----------------------------------------------------------------------------

    def _subscribe(self, agent: Any) -> None:
        self._news(*agent._instance.sync.mirrored())

    def _news(self, version: int, packed: bytes | None) -> None:
        """On the agents' thread: the state changed."""
        own = self.__dict__
        if version < own["_latest"][0] and packed is not None and version != 0:
            return
        own["_latest"] = (version, packed)
        loop = own["_loop"]
        if loop is not None and not own["_planned"] and not loop.is_closed():
            own["_planned"] = True
            loop.call_soon_threadsafe(self._catch_up)

    def _value(self, field: str | None) -> Any:
        packed = self.__dict__["_latest"][1]
        state = None if packed is None else messages.decode(packed)
        if field == "state" or state is None:
            return state
        return state.get(field)

    def _refresh(self) -> None:
        # in a plain script there is no main loop to bring the news: reading does
        own = self.__dict__
        is_news = own["_latest"] is not own["_shown"] and not own["_applying"]
        if own["_loop"] is None and is_news and _on_main_thread():
            self._catch_up()

    def _catch_up(self) -> None:
        """On the main thread: tell the observers what changed since they were told last."""
        own = self.__dict__
        own["_planned"] = False
        wait = CALM_S if own["_foreign"] else own["_calm_at"] - time.monotonic()
        if wait > 0 and own["_loop"] is not None:
            own["_planned"] = True
            own["_loop"].call_later(wait, self._catch_up)
            return
        with own["_lock"]:
            if own["_applying"]:
                return
            own["_applying"] = True
            try:
                while own["_shown"] is not own["_latest"]:
                    self._show(own["_latest"])
            finally:
                own["_applying"] = False

    def _show(self, latest: tuple[int, bytes | None]) -> None:
        before, self.__dict__["_shown"] = self.__dict__["_shown"][1], latest
        old = None if before is None else messages.decode(before)
        new = None if latest[1] is None else messages.decode(latest[1])
        for field in self._fields:
            was, value = (old or {}).get(field), (new or {}).get(field)
            if was != value or type(was) is not type(value):
                self._notify_trait(field, was, value)
        if before != latest[1]:
            self._notify_trait("state", old, new)

    # -- writing -------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "state":
            self.set_state(value)
        elif name in self._fields:
            self._write(lambda agent: setattr(agent, name, value))
        elif name in self.__dict__ or name.startswith("_") or self.has_trait(name):
            super().__setattr__(name, value)
        else:
            self._ask(lambda agent: setattr(agent, name, value))

    def set_state(self, next_state: Any) -> None:
        """Replace the state; raises what refuses it, and is visible when it returns."""
        self._write(lambda agent: agent.set_state(next_state))

    def update_state(self, **fields: Any) -> None:
        """Replace some fields of the state."""
        self._write(lambda agent: agent.update_state(**fields))

    def _write(self, change: Callable[[Any], None]) -> None:
        own = self.__dict__
        at_home = own["_loop"] is None or _on_main_thread()
        if not at_home:
            own["_foreign"] += 1
        try:
            self._ask(change)
        finally:
            if not at_home:
                own["_foreign"] -= 1
                own["_calm_at"] = time.monotonic() + CALM_S
        if at_home and not own["_host"].is_here():
            self._catch_up()

    # -- the agent's own -----------------------------------------------------------------------

    def _ask(self, work: Callable[[Any], Any]) -> Any:
        """Have `work` done with the agent on its thread.

        Returns the result or raises the error.
        """
        host = self.__dict__["_host"]
        instance = host.instance(self.__dict__["_hosted"], self.name)
        if host.is_here():
            return instance.perform(work)
        return host.submit(instance.outside, work).result()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        cls = self.__dict__["_hosted"].cls
        found = inspect.getattr_static(cls, name, None)
        if isinstance(found, (staticmethod, classmethod)):
            return getattr(cls, name)
        if inspect.isroutine(found):
            return self._method(name, found)
        return self._ask(lambda agent: getattr(agent, name))

    def _method(self, name: str, function: Any) -> Callable[..., Any]:
        def work(args: Any, kwargs: Any) -> Callable[[Any], Any]:
            return lambda agent: getattr(agent, name)(*args, **kwargs)

        def sync_call(*args: Any, **kwargs: Any) -> Any:
            return self._ask(work(args, kwargs))

        async def async_call(*args: Any, **kwargs: Any) -> Any:
            host = self.__dict__["_host"]
            instance = host.instance(self.__dict__["_hosted"], self.name)
            if host.is_here():
                return await instance.outside(work(args, kwargs))
            return await asyncio.wrap_future(host.submit(instance.outside, work(args, kwargs)))

        call = async_call if inspect.iscoroutinefunction(function) else sync_call
        call.__name__, call.__doc__ = name, function.__doc__
        return call

    # -- showing -------------------------------------------------------------------------------

    def controls(self, *fields: str) -> Any:
        """Ordinary ipywidgets bound both ways to these fields of a typed state, by default to all."""
        return self._viewer().controls(self, fields)

    def control(self, field: str) -> Any:
        """One ipywidget bound both ways to a field of a typed state."""
        return self._viewer().control(self, field)

    def _viewer(self) -> Viewer:
        viewer: Viewer | None = self.__dict__["_host"].viewer
        if viewer is None:
            raise RuntimeError("Controls are widgets: they need a class that serve(…) serves")
        return viewer

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        viewer = self.__dict__["_host"].viewer
        return {"text/plain": repr(self)} if viewer is None else viewer.mimebundle(self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.__dict__["_hosted"].cls)})

    def __repr__(self) -> str:
        cls = self.__dict__["_hosted"].cls.__name__
        state = messages.decode(p) if (p := self.__dict__["_latest"][1]) is not None else None
        text = repr(state)
        return f"<{cls} {self.name!r}, state {text if len(text) < 60 else text[:59] + '…'}>"


def handle_for(host: AgentHost, hosted: Hosted, name: str) -> AgentHandle:
    """A handle whose traits are the fields of the class's typed state."""
    fields = field_names(hosted.cls)
    traits: dict[str, Any] = {field: _Mirrored(allow_none=True) for field in fields}
    cls = type(f"{hosted.cls.__name__}Handle", (AgentHandle,), {**traits, "_fields": fields})
    handle: AgentHandle = cls(host, hosted, name)
    return handle


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
