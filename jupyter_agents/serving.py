"""`serve`: what a cell calls.

It starts the agents of this process and joins them to a Jupyter Server, or stands alone.

The only mutable global of the package is here, behind `default_host`, because cells need one place
to find the agents of their process.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import inspect
import logging
import os
import sys
import threading
import traceback
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import ServeError
from jupyter_agents.host.agent import Agent
from jupyter_agents.host.handle import AgentHandle, handle_for
from jupyter_agents.host.host import AgentHost, Hosted, HostLimits
from jupyter_agents.host.namespace import AgentNamespace
from jupyter_agents.host.storage import open_storage
from jupyter_agents.host.thread import AgentThread
from jupyter_agents.host.uplink import KernelUplink, kernel_key
from jupyter_agents.protocol.names import spellings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.host.storage import Storage
    from jupyter_agents.standalone import StandaloneServer

__all__ = ["default_host", "get_agent_by_name", "serve", "stop_default_host"]

SERVE_S = 15.0
MAX_SOURCE_BYTES = 256 * 1024
_log = logging.getLogger("jupyter_agents")


@dataclass
class _DefaultHost:
    thread: AgentThread
    host: AgentHost
    uplink: KernelUplink | None = None
    alone: StandaloneServer | None = None


_default: _DefaultHost | None = None
_default_lock = threading.Lock()


def default_host(*, alone: bool = False) -> AgentHost:
    """The host of this process: made on first use, with its thread and its link.

    With `alone` no Jupyter Server is looked for; ServeError when one has been found already.
    """
    global _default
    with _default_lock:
        if _default is None or not _default.thread.is_alive:
            _default = _start(alone=alone)
            atexit.register(stop_default_host)
        if alone and _default.uplink is not None:
            raise ServeError(
                "A Jupyter Server serves this process already; restart the kernel to serve "
                "with standalone=True"
            )
        return _default.host


def _start(*, alone: bool) -> _DefaultHost:
    stalled = _Stalled()
    thread = AgentThread(on_stall=stalled)
    try:
        started: Any = _on(thread, _make_host, thread, alone)
    except BaseException:
        thread.stop()
        raise
    stalled.host, stalled.thread = started.host, thread
    return _DefaultHost(thread, started.host, started.uplink)


def _on(thread: AgentThread, function: Callable[..., Any], *args: Any) -> Any:
    future = asyncio.run_coroutine_threadsafe(_outcome(function, *args), thread.loop)
    return future.result(SERVE_S)


async def _outcome(function: Callable[..., Any], *args: Any) -> Any:
    result = function(*args)
    return await result if inspect.isawaitable(result) else result


async def _make_host(thread: AgentThread, alone: bool) -> _DefaultHost:
    host = AgentHost(thread.loop, thread.ident, _limits())
    host.viewer = _Viewer()
    _set_switch_interval(host.limits)
    return _DefaultHost(thread, host, None if alone else await _link(host))


def _limits(environment: Mapping[str, str] = os.environ) -> HostLimits:
    """The defaults, but for what variables like ``JUPYTER_AGENTS_IDLE_S`` say."""
    found: dict[str, Any] = {}
    for each in fields(HostLimits):
        name = f"JUPYTER_AGENTS_{each.name.upper()}"
        said = environment.get(name)
        try:
            if said:
                found[each.name] = int(said) if isinstance(each.default, int) else float(said)
        except ValueError:
            raise ServeError(f"{name} must be a number, not {said!r}") from None
    try:
        return HostLimits(**found)
    except ValueError as error:
        raise ServeError(f"JUPYTER_AGENTS_…: {error}") from None


def _set_switch_interval(limits: HostLimits) -> None:
    # It is the whole process's, and costs computing cells a little: never without being asked.
    if limits.switch_interval_s:
        sys.setswitchinterval(limits.switch_interval_s)


async def _link(host: AgentHost) -> KernelUplink | None:
    key = kernel_key()
    if key is None:
        return None
    uplink = KernelUplink(host, key)
    return uplink if await uplink.connect() else None


def stop_default_host() -> None:
    """End the agents of this process.

    `on_stop` runs within its time limit, what is stored is safe.
    """
    global _default
    with _default_lock:
        ending, _default = _default, None
    atexit.unregister(stop_default_host)
    if ending is None or not ending.thread.is_alive:
        return
    try:
        limit = ending.host.limits.stop_s + 1
        asyncio.run_coroutine_threadsafe(_stop(ending), ending.thread.loop).result(limit)
    except Exception as error:  # a hook that never returns must not keep the kernel from going
        _log.warning("The agents did not stop in good order: %r", error)
    ending.thread.stop(timeout_s=1.0)


async def _stop(ending: _DefaultHost) -> None:
    if ending.alone is not None:
        await ending.alone.stop()
    await ending.host.stop()
    if ending.uplink is not None:
        ending.uplink.stop()


class _Viewer:
    """Shows agents by the widgets, which are loaded on first use."""

    def mimebundle(self, shown: Any) -> Any:
        """The live panel in a notebook, one line elsewhere."""
        if not _is_in_notebook():
            return {"text/plain": repr(shown)}
        from jupyter_agents.widgets.panel import AgentPanel

        return AgentPanel(shown)._repr_mimebundle_()

    def controls(self, handle: Any, fields: tuple[str, ...]) -> Any:
        """Widgets bound to the state's fields."""
        from jupyter_agents.widgets.controls import controls

        return controls(handle, *fields)

    def control(self, handle: Any, field: str) -> Any:
        """One of them."""
        from jupyter_agents.widgets.controls import control

        return control(handle, field)


def _is_in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class _Stalled:
    """Names the hook that keeps the agents' thread from turning."""

    host: AgentHost | None = None
    thread: AgentThread | None = None

    def __call__(self, seconds: float) -> None:
        if self.host is None or self.thread is None:
            return
        running = self.host.running
        name = getattr(running, "__qualname__", repr(running))
        frame = sys._current_frames().get(self.thread.ident)
        where = "".join(traceback.format_stack(frame)[-2:]) if frame is not None else ""
        _log.warning(
            "%s has kept all agents waiting for more than %g s; "
            "make it async, or use asyncio.to_thread\n%s",
            name,
            seconds,
            where,
        )


def serve(
    agent_class: type[Agent],
    *,
    slug: str | None = None,
    storage: str | os.PathLike[str] | Storage | None = None,
    takeover: bool = False,
    standalone: bool = False,
    limits: HostLimits | None = None,
    autostart: bool = False,
) -> AgentNamespace:
    """Serve a class of agents from this cell.

    Run the cell again to replace its code under the live connections.

    Parameters
    ----------
    agent_class : type
        A subclass of Agent.
    slug : str, optional
        Another spelling for the address than the class's name in kebab case.
    storage : str or path, optional
        ``"memory"``, or an SQLite file; by default one file in Jupyter's data directory keeps
        every agent.
    takeover : bool
        Take the class, with its connections, from another kernel that serves it.
    standalone : bool
        Serve from this process on a loopback port, even where there is a Jupyter Server. By
        default only where none is found.
    limits : HostLimits, optional
        What all agents of this process may use from now on; see docs/limits.md.
    autostart : bool
        Have Jupyter Server run this cell again, and no other, when the kernel is back after a
        restart or a crash. So the cell has to import and define all that it needs.

    Returns
    -------
    AgentNamespace
        Shows itself as the live panel; ``ns["lobby"]`` is a handle on the instance of that name.

    Raises
    ------
    ServeError
        When the class cannot be served; the sentence says what to do. What was served before goes
        on.

    Thread
    ------
    Any but the agents' own.
    """
    _check_servable(agent_class)
    if _default is not None and _default.host.is_here():
        raise ServeError("Agents cannot serve classes: call serve(…) in a cell, or on a thread")
    host = default_host(alone=standalone)
    hosted = Hosted(
        cls=agent_class,
        agent=spellings(agent_class.__name__, slug)[0],
        spellings=spellings(agent_class.__name__, slug),
        storage=open_storage(storage),
        context=contextvars.copy_context(),
        takeover=takeover,
        autostart=_cell_source() if autostart else "",
    )
    if limits is not None:
        _have_done(host, hosted, host.set_limits, limits)
        _set_switch_interval(limits)
    _stand_alone_if_unlinked(host)
    _have_done(host, hosted, host.serve, hosted)
    return AgentNamespace(host, host.classes[hosted.agent])


def _cell_source() -> str:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    request: dict[str, Any] = getattr(shell, "get_parent", dict)()
    source = str(request.get("content", {}).get("code", ""))
    if not source:
        raise ServeError(
            "autostart=True has this cell run again when the kernel is back, but serve(…) was not "
            "called in a notebook cell"
        )
    if len(source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
        raise ServeError(
            f"A cell for autostart=True may have {MAX_SOURCE_BYTES} bytes; move what is long into "
            "a module"
        )
    return source


def _have_done(host: AgentHost, hosted: Hosted, work: Callable[..., Any], *args: Any) -> None:
    """Have a step of serving done on the agents' thread, or say what keeps that."""
    future = host.submit(work, *args)
    try:
        future.result(SERVE_S)
    except concurrent.futures.TimeoutError:  # before 3.11 not the built-in one
        future.cancel()
        busy = getattr(host.running, "__qualname__", "a hook")
        raise ServeError(
            f"{hosted.cls.__name__} could not be served within {SERVE_S:g} s; if {busy} keeps the "
            "agents' thread, make it async, or restart the kernel"
        ) from None


def _check_servable(agent_class: Any) -> None:
    if not (isinstance(agent_class, type) and issubclass(agent_class, Agent)):
        is_class = isinstance(agent_class, type)
        what = agent_class.__name__ if is_class else repr(agent_class)
        name = what if is_class else "Room"
        raise ServeError(
            f"serve(…) takes a class that derives from Agent, not {what}; "
            f"write class {name}(Agent): …"
        )
    if agent_class is Agent:
        raise ServeError(
            "Agent itself has nothing to serve; derive a class from it: class Room(Agent): …"
        )
    if sys.platform == "emscripten":
        raise ServeError("Agents need a Jupyter Server with real kernels; JupyterLite has neither")


def _stand_alone_if_unlinked(host: AgentHost) -> None:
    with _default_lock:
        if _default is None or _default.host is not host:
            return
        if _default.uplink is None and host.uplink is None:  # a link that is down comes back
            from jupyter_agents.standalone import start

            _default.alone = start(host)


async def get_agent_by_name(
    agent: type[Agent] | str, name: str = "default", props: Any = None
) -> AgentHandle:
    """A handle on a started instance, for cells and for other agents.

    `on_start(props)` has ended when it returns.

    Raises
    ------
    LookupError
        When this process does not serve the class.
    """
    host = default_host()
    hosted = host.find(agent)

    def started(agent: Agent) -> None:
        return None

    async def first() -> None:  # awaited where the instance is fetched: it is in use at once
        await host.instance(hosted, name, props).outside(started)

    if host.is_here():
        await first()
    else:
        await asyncio.wrap_future(host.submit(first))
    return handle_for(host, hosted, name)
