"""The calling of the author's code: in the right context, sync or async, with every error heard.

Hooks are called, never wrapped. Output of a hook goes to the cell that last served the class,
because the hook runs in a copy of that cell's context. Whom code serves is carried by that
context, too: it follows into tasks that a hook starts and into ``asyncio.to_thread``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from jupyter_agents.errors import PublicError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextvars import Context

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.host.thread import AgentLoop
    from jupyter_agents.instance.instance import AgentInstance
    from jupyter_agents.protocol.http import Request

__all__ = [
    "CurrentAgent",
    "Hooks",
    "Serving",
    "Tasks",
    "current",
    "get_current_agent",
    "outcome",
]


class CurrentAgent(NamedTuple):
    """Who is being served right now; all None outside of agent code."""

    agent: Agent | None = None
    connection: Connection | None = None
    request: Request | None = None
    user: Mapping[str, Any] | None = None


class Serving(NamedTuple):
    """The same as it is carried: the request of a connection is read when it is asked for."""

    agent: Agent | None = None
    connection: Connection | None = None
    request: Request | None = None


current: ContextVar[Serving] = ContextVar("jupyter_agents_current")


def get_current_agent() -> CurrentAgent:
    """Whom this code runs for, anywhere below a hook or a callable method."""
    agent, connection, request = current.get(Serving())
    if request is None and connection is not None:
        request = connection.ctx.request
    return CurrentAgent(agent, connection, request, request.user if request is not None else None)


async def outcome(result: Any) -> Any:
    """The value of what a hook returned, awaited if it must be."""
    return await result if inspect.isawaitable(result) else result


async def _contained(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Its value or its error: asyncio lets ``sys.exit()`` in a task end the whole loop."""
    try:
        return await awaitable, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return None, error


class Tasks:
    """What hooks left to await.

    Parameters
    ----------
    host : AgentLoop
        On whose loop it runs, and whose turns it makes.
    """

    def __init__(self, host: AgentLoop) -> None:
        self._host = host
        self.tasks: set[asyncio.Task[Any]] = set()
        self.spawned = 0
        """How many were made."""
        self.begun = 0
        """How many of these have begun for certain; a task begins a turn of the loop later."""
        self._is_counting = False

    def spawn(
        self,
        awaitable: Awaitable[Any],
        context: Context,
        done: Callable[[Any, BaseException | None], None],
    ) -> Callable[[], object]:
        """Make a task of it; `done` gets its value or its error."""
        host = self._host
        task: asyncio.Task[Any] = context.run(host.loop.create_task, _contained(awaitable))
        self.tasks.add(task)

        def ended(task: asyncio.Task[Any]) -> None:
            self.tasks.discard(task)
            if task.cancelled():
                value, error = None, asyncio.CancelledError()
                if inspect.iscoroutine(awaitable):
                    awaitable.close()  # it may never have begun
            else:
                value, error = task.result()
            host.begin_turn()
            host.safely(done, value, error)
            host.end_turn()

        task.add_done_callback(ended)
        self.spawned += 1
        if not self._is_counting:
            self._is_counting = True
            host.loop.call_soon(self._have_begun, self.spawned)
        return task.cancel

    def _have_begun(self, count: int) -> None:
        self.begun = count  # the loop begins tasks in order, and these were there before us
        if self.spawned > count:
            self._host.loop.call_soon(self._have_begun, self.spawned)
        else:
            self._is_counting = False


class Hooks:
    """Calls the hooks of one instance."""

    def __init__(self, instance: AgentInstance, host: AgentHost) -> None:
        self._instance = instance
        self._host = host

    def context(
        self,
        connection: Connection | None = None,
        request: Request | None = None,
        agent: Agent | None = None,
    ) -> Context:
        """A fresh context in which code knows whom it serves and prints under the serving cell."""
        context = self._instance.hosted.context.copy()
        who = Serving(agent or self._instance.object, connection, request)
        context.run(current.set, who)
        return context

    def call(self, connection: Connection | None, name: str, *args: Any) -> None:
        """Call a hook by name."""
        context = connection._context if connection is not None else self.context()
        self.run(connection, context, getattr(self._instance.agent, name), *args)

    def run(
        self,
        connection: Connection | None,
        context: Context,
        function: Callable[..., Any],
        *args: Any,
    ) -> None:
        """Call the author's function now; what it left to await becomes a task."""
        self._host.running = function
        try:
            result = context.run(function, *args)
        except BaseException as error:  # sys.exit() in a hook must not end every agent
            self.report(connection, function.__name__, error)
            return
        if result is not None:
            self.go_on(connection, context, function.__name__, result)

    def go_on(
        self, connection: Connection | None, context: Context, name: str, result: Any
    ) -> None:
        """Make a task of what a hook returned, where it is something to await."""
        if not inspect.isawaitable(result):
            return
        self._begin(connection)
        ordinal = self._host.receipts.postpone(connection)

        def ended(value: Any, error: BaseException | None) -> None:
            self._end(connection)
            if error is not None:
                self.report(connection, name, error)
            self._host.receipts.end(connection, ordinal)

        self._host.spawn(result, context, ended)
        if connection is not None:
            connection.latest = self._host.under_way.spawned

    def _begin(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.running += 1
            if connection.running >= self._host.limits.max_running:
                self._instance.door.mind(connection)

    def _end(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.running -= 1
            if connection.held_back:
                self._instance.door.mind(connection)

    def report(self, connection: Connection | None, where: str, error: BaseException) -> None:
        """Log an error under the serving cell, and tell the author's `on_error`."""
        instance = self._instance
        context = self.context(connection)
        context.run(self._log, where, error)
        facts = {"where": where, "error": error, "connection": connection}
        self._host.event("error", instance, facts)
        if self._host.tallies.is_on:
            self._host.tallies.error(instance, where, error)
        if where == "on_error" or instance.object is None:
            return
        try:
            result = context.run(instance.object.on_error, connection, error)
        except BaseException as worse:
            self.report(connection, "on_error", worse)
            return
        if inspect.isawaitable(result):
            self._host.spawn(result, context, partial(self._on_error_ended, connection))

    def _on_error_ended(
        self, connection: Connection | None, value: Any, error: BaseException | None
    ) -> None:
        if error is not None:
            self.report(connection, "on_error", error)

    def _log(self, where: str, error: BaseException) -> None:
        instance = self._instance
        is_answer = isinstance(error, PublicError)  # meant for its caller, nothing went wrong
        instance.log.log(
            logging.INFO if is_answer else logging.ERROR,
            "%s %r: %s: %s: %s",
            instance.hosted.cls.__name__,
            instance.name,
            where,
            type(error).__name__,
            error,
            exc_info=None if is_answer else (type(error), error, error.__traceback__),
        )
