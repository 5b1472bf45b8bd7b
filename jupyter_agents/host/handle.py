"""What a cell holds instead of the instance: an `AgentHandle`, safe on any thread.

It mirrors the state. A write goes to the agents' thread, waits until it is applied (or raises its
validation error), and is visible when the call returns; what clients change arrives by itself.
Observers, and with them ``link``, are called on one thread, where the handle is at home. Methods
run the agent's methods on the agents' thread.
"""

from __future__ import annotations

import inspect
import logging
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import traitlets
from traitlets import HasTraits

from jupyter_agents.host.agent import Agent
from jupyter_agents.host.mirror import Home, Linked, link_of
from jupyter_agents.host.state import field_names
from jupyter_agents.instance.fields import from_plain
from jupyter_agents.instance.hosted import Reach
from jupyter_agents.protocol import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from jupyter_agents.host.host import AgentHost, Hosted
    from jupyter_agents.host.namespace import Viewer

__all__ = ["AgentHandle", "handle_for"]

ALIGN_S = 0.02
"""After links were busy, how soon they are looked at again."""

_log = logging.getLogger("jupyter_agents")


class _Mirrored(traitlets.Any):
    """A trait whose value is the agent's: reading asks the mirror, assigning the agent."""

    def get(self, obj: Any, cls: Any = None) -> Any:
        return obj._read(self.name)

    def set(self, obj: Any, value: Any) -> None:
        obj._assign(self.name, value)


class AgentHandle(HasTraits):
    """One agent instance, by name, for cells and other threads.

    Every field of a typed state is a trait of the handle, and `state` is the whole state.
    Everything else is the agent's: ``room.shout("x")`` returns a sync method's result, an
    awaitable for an async one, and an iterator for a generator. A call waits for the agents'
    thread; only `broadcast` and `broadcast_json` return at once.

    A handle stays valid while cells run again, instances sleep, and the class is stopped and
    served anew. Nobody keeps it alive but who holds it.

    Thread
    ------
    Any. Observers are called at home: on the thread on which the handle was made if an event loop
    runs there (a notebook's main thread, or the agents' own), else on the main thread when it
    reads or writes the handle.
    """

    state = _Mirrored(allow_none=True)

    def __init__(self, host: AgentHost, hosted: Hosted, name: str) -> None:
        own = self.__dict__
        own.update(_reach=Reach(host, hosted, name), _home=Home.of_caller())
        own.update(_fields=field_names(hosted.cls), _latest=None, _shown=None, _packed={})
        own.update(_told={}, _telling=0, _links=[], _is_planned=False, _is_aligned=True)
        super().__init__()
        reach: Reach = own["_reach"]
        if host.is_here():
            self._subscribe(reach.instance().agent)
        else:
            reach.ask(self._subscribe)
        self._show()
        own["_told"] = dict(own["_packed"])

    @property
    def name(self) -> str:
        """The instance's name."""
        return str(self.__dict__["_reach"].name)

    # -- the mirror ----------------------------------------------------------------------------

    def _subscribe(self, agent: Agent) -> None:
        reach: Reach = self.__dict__["_reach"]
        reach.host.mirrors.add(reach.agent, reach.name, self)
        self.__dict__["_latest"] = agent._seat().sync.mirrored()

    def _news(self, packed: bytes | None) -> None:
        """On the agents' thread: the state changed."""
        self.__dict__["_latest"] = packed
        self._plan()

    def _plan(self) -> None:
        own = self.__dict__
        if not own["_is_planned"]:
            own["_is_planned"] = True
            if not own["_home"].soon(self._planned):
                own["_is_planned"] = False

    def _planned(self) -> None:
        self.__dict__["_is_planned"] = False  # first: what comes from now on plans anew
        try:
            self._catch_up()
        except Exception:
            _log.exception("An observer of %r failed", self)

    def _catch_up(self) -> None:
        """At home: tell the observers what changed since they were told last."""
        own = self.__dict__
        before, own["_telling"] = own["_telling"], threading.get_ident()
        errors: list[Exception] = []
        try:
            if own["_shown"] is not own["_latest"]:
                self._show()
                self._tell(errors)
            self._align()
        finally:
            own["_telling"] = before
        if own["_shown"] is not own["_latest"]:
            self._plan()
        if errors:
            raise errors[0]

    def _show(self) -> None:
        """From now on, observers see the state as it is now."""
        own = self.__dict__
        self._adapt()
        packed = own["_shown"] = own["_latest"]
        plain = None if packed is None else messages.decode(packed)
        fields = plain if isinstance(plain, dict) else {}
        own["_packed"] = {f: messages.encode(fields[f]) for f in own["_fields"] if f in fields}
        own["_packed"]["state"] = packed

    def _tell(self, errors: list[Exception]) -> None:
        own = self.__dict__
        for trait in (*own["_fields"], "state"):
            # read now: an observer that writes has the rest told before this goes on
            was, now = own["_told"].get(trait), own["_packed"].get(trait)
            if was == now:
                continue
            own["_told"][trait] = now
            try:
                self._notify_trait(trait, self._value(trait, was), self._value(trait, now))
            except Exception as error:
                errors.append(error)

    def _read(self, trait: str) -> Any:
        own = self.__dict__
        if own["_telling"] == threading.get_ident():
            return self._value(trait, own["_packed"].get(trait))
        if not own["_home"].has_loop and own["_home"].is_here():
            self._planned()  # nothing else brings the news there
        packed = own["_latest"]
        state = None if packed is None else messages.decode(packed)
        if trait == "state" or not isinstance(state, dict):
            return state
        return self._converted(trait, state.get(trait))

    def _value(self, trait: str, packed: bytes | None) -> Any:
        return self._converted(trait, None if packed is None else messages.decode(packed))

    def _converted(self, trait: str, plain: Any) -> Any:
        """What the agent's trait holds for a JSON value: a date, a set, a member of an enum."""
        own_trait = getattr(self._cls, trait, None)
        if trait == "state" or not isinstance(own_trait, traitlets.TraitType):
            return plain
        try:
            return own_trait._validate(self, from_plain(self, own_trait, plain))
        except Exception:  # a validator that needs the agent; the value was validated there
            return plain

    def _adapt(self) -> None:
        """Have the fields of the class as it is served now."""
        own = self.__dict__
        fields = field_names(self._cls)
        if fields == own["_fields"]:
            return
        new = {name: _Mirrored(allow_none=True) for name in fields if name not in own["_fields"]}
        own["_fields"] = fields
        self.add_traits(**{name: trait for name, trait in new.items() if name not in self._traits})

    # -- links ---------------------------------------------------------------------------------

    def observe(self, handler: Any, names: Any = traitlets.All, type: Any = "change") -> None:
        """Call `handler` at home with each change; see `traitlets.HasTraits.observe`."""
        if link_of(handler) is None or not isinstance(names, str):
            super().observe(handler, names, type)
            return
        self.__dict__["_links"].append(Linked(handler, names).listening())
        self._plan()

    def unobserve(self, handler: Any, names: Any = traitlets.All, type: Any = "change") -> None:
        """Undo `observe`."""
        links = self.__dict__["_links"]
        found = [one for one in links if one.handler == handler and one.trait == names]
        for one in found:
            links.remove(one)
        if not found:
            super().unobserve(handler, names, type)

    def has_trait(self, name: str) -> bool:
        """Whether `name` is ``"state"`` or a field of the class as it is served now."""
        self._adapt()
        return bool(super().has_trait(name))

    @contextmanager
    def hold_trait_notifications(self) -> Iterator[None]:
        """Hold nothing: each assignment is applied when it is made.

        `update_state` makes one change of several.
        """
        yield

    def _align(self) -> None:
        own = self.__dict__
        again = [
            one.align(self, self._value(one.trait, own["_packed"].get(one.trait)))
            for one in list(own["_links"])
        ]
        if not any(again):
            return
        if own["_is_aligned"] and own["_home"].has_loop:
            own["_is_aligned"] = False
            own["_home"].later(ALIGN_S, self._realign)

    def _realign(self) -> None:
        self.__dict__["_is_aligned"] = True
        self._planned()

    # -- writing -------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._adapt()
        if name.startswith("_") or hasattr(type(self), name) or name in self.__dict__:
            super().__setattr__(name, value)
        else:
            self._ask(lambda agent: setattr(agent, name, value))

    def _assign(self, trait: str, value: Any) -> None:
        if trait == "state":
            self.set_state(value)
        elif trait in field_names(self._cls):
            self._write(self._named(trait, lambda agent: setattr(agent, trait, value)))
        else:
            raise AttributeError(f"{self._cls.__name__} has no field {trait!r} any more")

    def set_state(self, next_state: Any) -> None:
        """Replace the state; raises what refuses it, and is visible when it returns."""
        self._write(self._named("set_state", lambda agent: agent.set_state(next_state)))

    def update_state(self, **fields: Any) -> None:
        """Replace some fields of the state."""
        self._write(self._named("update_state", lambda agent: agent.update_state(**fields)))

    def _write(self, change: Callable[[Agent], None]) -> None:
        self._ask(change)
        if self.__dict__["_home"].is_here():
            self._catch_up()

    # -- the agent's own -----------------------------------------------------------------------

    @property
    def _cls(self) -> type[Agent]:
        cls: type[Agent] = self.__dict__["_reach"].cls
        return cls

    def _ask(self, work: Callable[[Agent], Any]) -> Any:
        return self.__dict__["_reach"].ask(work)

    def _named(self, name: str, work: Callable[[Agent], Any]) -> Callable[[Agent], Any]:
        work.__qualname__ = f"{self._cls.__name__}.{name}"  # what the watchdog says is running
        return work

    @property
    def broadcast(self) -> Callable[..., Any]:
        """`Agent.broadcast`, queued: it returns before the message is sent.

        What is broadcast comes before what the same thread does with the handle afterwards, and
        the caller waits while too much is queued. An agent's own `broadcast` is called as any
        other method.
        """
        reach: Reach = self.__dict__["_reach"]
        if reach.cls.broadcast is Agent.broadcast:
            return reach.broadcast
        return cast("Callable[..., Any]", self.__getattr__("broadcast"))

    @property
    def broadcast_json(self) -> Callable[..., Any]:
        """`Agent.broadcast_json`, queued likewise."""
        reach: Reach = self.__dict__["_reach"]
        if reach.cls.broadcast_json is Agent.broadcast_json:
            return reach.broadcast_json
        return cast("Callable[..., Any]", self.__getattr__("broadcast_json"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        found = inspect.getattr_static(self._cls, name, None)
        if isinstance(found, (staticmethod, classmethod)):
            return getattr(self._cls, name)
        if inspect.isroutine(found):
            return self._method(name, found)
        if name in field_names(self._cls):
            return self._read(name)
        if name == "share" and found is None:  # the agent's own goes first
            from jupyter_agents.host.namespace import AgentNamespace as Namespace

            reach: Reach = self.__dict__["_reach"]
            return partial(Namespace(reach.host, reach.hosted).share, self.name)
        return self._ask(lambda agent: getattr(agent, name))

    def _method(self, name: str, function: Any) -> Callable[..., Any]:
        def work(args: Any, kwargs: Any) -> Callable[[Agent], Any]:
            return self._named(name, lambda agent: getattr(agent, name)(*args, **kwargs))

        def sync_call(*args: Any, **kwargs: Any) -> Any:
            return self._ask(work(args, kwargs))

        async def async_call(*args: Any, **kwargs: Any) -> Any:
            return await self._there(work(args, kwargs))

        async def async_generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            items = await async_call(*args, **kwargs)
            try:
                while found := await self._there(lambda agent: _async_next(items)):
                    yield found[0]
            finally:
                await self._there(lambda agent: items.aclose())

        def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = sync_call(*args, **kwargs)
            try:
                while found := self._ask(lambda agent: _next(items)):
                    yield found[0]
            finally:
                self._ask(lambda agent: items.close())

        call: Callable[..., Any] = sync_call
        if inspect.isasyncgenfunction(function):
            call = async_generator
        elif inspect.isgeneratorfunction(function):
            call = generator
        elif inspect.iscoroutinefunction(function):
            call = async_call
        return _dressed(call, name, function)

    async def _there(self, work: Callable[[Agent], Any]) -> Any:
        return await self.__dict__["_reach"].there(work)

    # -- showing -------------------------------------------------------------------------------

    def controls(self, *fields: str) -> Any:
        """Ordinary ipywidgets bound both ways to these fields of a typed state, or to all."""
        return self._viewer().controls(self, fields)

    def control(self, field: str) -> Any:
        """One ipywidget bound both ways to a field of a typed state."""
        return self._viewer().control(self, field)

    def _viewer(self) -> Viewer:
        viewer: Viewer | None = self.__dict__["_reach"].host.viewer
        if viewer is None:
            raise RuntimeError("Controls are widgets: they need a class that serve(…) serves")
        return viewer

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        viewer = self.__dict__["_reach"].host.viewer
        return {"text/plain": repr(self)} if viewer is None else viewer.mimebundle(self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._cls)})

    def __repr__(self) -> str:
        packed = self.__dict__["_latest"]
        text = repr(None if packed is None else messages.decode(packed))
        text = text if len(text) < 60 else f"{text[:59]}…"
        return f"<{self._cls.__name__} {self.name!r}, state {text}>"


def handle_for(host: AgentHost, hosted: Hosted, name: str) -> AgentHandle:
    """A handle whose traits are the fields of the class's typed state."""
    made = hosted.handle_class
    fields = field_names(hosted.cls)
    if made is None or made._made_for is not hosted.cls:
        traits: dict[str, Any] = {field: _Mirrored(allow_none=True) for field in fields}
        traits["_made_for"] = hosted.cls
        made = type(f"{hosted.cls.__name__}Handle", (AgentHandle,), traits)
        hosted.handle_class = made  # one for all handles: a class is dear
    handle: AgentHandle = made(host, hosted, name)
    return handle


def _next(items: Iterator[Any]) -> tuple[Any, ...]:
    for item in items:
        return (item,)
    return ()


async def _async_next(items: AsyncIterator[Any]) -> tuple[Any, ...]:
    async for item in items:
        return (item,)
    return ()


def _dressed(call: Callable[..., Any], name: str, function: Any) -> Callable[..., Any]:
    """Give a call the method's name, text and signature, as a notebook shows them."""
    call.__name__, call.__qualname__, call.__doc__ = name, function.__qualname__, function.__doc__
    with suppress(TypeError, ValueError):
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1:]
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call
