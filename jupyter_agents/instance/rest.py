"""Which instances may sleep: those that nobody uses, and past a limit those unused for longest.

An instance is in use while a connection is there, a request or a call is under way, or anything
that its hooks began: a task, a timer. A handle that somebody holds keeps it awake, too, but not
past `max_awake`. Nothing is counted per message: what is awake is looked over now and then.
The reasons are in docs/decisions/0006-idle-instances.md.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_agents.instance.hooks import Serving, current, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.instance.instance import AgentInstance

__all__ = ["Rest"]

SLICE = 20
"""How many fall asleep, or are forgotten, before others have their turn."""

CROWDED_S = 1.0
"""Where too many are awake and all of them in use, how soon they are looked over again."""


class Rest:
    """The instances of a host, by whether they are awake.

    Thread
    ------
    The agents' thread only.
    """

    def __init__(self, host: AgentHost) -> None:
        self._host = host
        self.awake: dict[AgentInstance, None] = {}
        self.asleep: dict[AgentInstance, None] = {}
        """In the order in which they fell asleep."""
        self._tired: deque[tuple[AgentInstance, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0

    # -- told by the instances -----------------------------------------------------------------

    def wakes(self, instance: AgentInstance) -> None:
        """It has started."""
        self.asleep.pop(instance, None)
        self.awake[instance] = None
        self.plan()

    def sleeps(self, instance: AgentInstance) -> None:
        """It fell asleep, or has yet to wake for the first time."""
        self.awake.pop(instance, None)
        self.asleep.pop(instance, None)
        self.asleep[instance] = None
        self.plan()

    def ends(self, instance: AgentInstance) -> None:
        """It is gone."""
        self.awake.pop(instance, None)
        self.asleep.pop(instance, None)

    # -- falling asleep ------------------------------------------------------------------------

    def lull(self, instance: AgentInstance) -> asyncio.Future[None]:
        """Run `on_stop`, then let it sleep; done when it does.

        Who comes meanwhile wakes it anew.
        """
        if instance.leaving is not None:
            return instance.leaving
        leaving, agent = self._host.loop.create_future(), instance.object
        if agent is None or not instance.started or _is_plain(agent.on_stop):
            instance.sleep()
            leaving.set_result(None)
            return leaving
        instance.sync.hear()
        instance.started, instance.leaving = False, leaving
        left = partial(self._left, instance, leaving)
        self._host.spawn(self._take_leave(agent), instance.hooks.context(), left)
        return leaving

    async def _take_leave(self, agent: Agent) -> None:
        self._host.running = agent.on_stop
        await asyncio.wait_for(outcome(agent.on_stop()), self._host.limits.stop_s)

    def _left(
        self,
        instance: AgentInstance,
        leaving: asyncio.Future[None],
        value: Any,
        error: BaseException | None,
    ) -> None:
        if error is not None:
            instance.hooks.report(None, "on_stop", error)
        if instance.leaving is leaving:  # and nothing ended it meanwhile
            instance.sleep()
        if not leaving.done():
            leaving.set_result(None)

    def _lull(self, instance: AgentInstance) -> None:
        _ = self.lull(instance)

    # -- looking them over ---------------------------------------------------------------------

    def plan(self) -> None:
        """Make sure that they are looked over when the limits say so."""
        limits, now = self._host.limits, self._host.loop.time()
        is_crowded = len(self.awake) > limits.max_awake or len(self.asleep) > limits.max_asleep
        if is_crowded:
            due = max(now, self._not_before)
        elif limits.idle_s > 0 and self.awake:
            due = now + limits.idle_s / 4
        else:
            return
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        # in an empty context: the timer must keep neither a cell's things nor an agent
        self._timer = self._host.loop.call_at(due, self._look, context=contextvars.Context())

    def _look(self) -> None:
        self._timer, now = None, self._host.loop.time()
        self._not_before = now + CROWDED_S
        self._host.safely(self.look, now)
        self.plan()

    def look(self, now: float) -> None:
        """Send those to sleep that nobody uses at this time of the loop, a few in each turn."""
        used = self._used()
        self._tired.extend((each, each.used_at) for each in self._find_tired(now, used))
        self._forget(used)
        self._go_on()

    def _go_on(self) -> None:
        for _ in range(min(SLICE, len(self._tired))):
            instance, used_at = self._tired.popleft()
            is_unused = instance.used_at == used_at and not instance.is_wanted
            if instance in self.awake and is_unused and not instance.is_in_use:
                self._host.safely(self._lull, instance)
        if self._tired:
            self._host.loop.call_soon(self._go_on, context=contextvars.Context())

    def _find_tired(self, now: float, used: set[AgentInstance]) -> list[AgentInstance]:
        """Those that shall sleep, the ones unused for longest first."""
        limits, idle = self._host.limits, []
        for instance in self.awake:
            if instance.is_wanted or instance.is_in_use or instance in used:
                instance.is_wanted, instance.used_at = False, now
            elif instance.hosted.cls.hibernate:
                idle.append(instance)
        idle.sort(key=lambda instance: instance.used_at)
        surplus = len(self.awake) - limits.max_awake
        if surplus > 0:
            surplus += limits.max_awake // 10  # so that the next one need not bring us back here
        since = now - limits.idle_s if limits.idle_s > 0 else float("-inf")
        return [
            instance
            for position, instance in enumerate(idle)
            if position < surplus or (instance.used_at <= since and not self._is_held(instance))
        ]

    def _is_held(self, instance: AgentInstance) -> bool:
        return self._host.mirrors.has(instance.hosted.agent, instance.name)

    def _forget(self, used: set[AgentInstance]) -> None:
        """Drop those that sleep longest where too many do."""
        surplus = min(len(self.asleep) - self._host.limits.max_asleep, SLICE)
        if surplus == SLICE:
            self._not_before = 0.0  # there are more
        found: list[AgentInstance] = []
        for instance in self.asleep:
            if len(found) >= surplus:
                break
            if instance.may_be_forgotten and instance not in used:
                found.append(instance)
        for instance in found:
            self._is_held(instance)  # a handle that is gone leaves nothing
            instance.end()
            self._host.remove(instance)

    def _used(self) -> set[AgentInstance]:
        """The instances that have a connection, or something that one of their hooks began."""
        used = {connection._instance for connection in self._host.connections.values()}
        for context in _contexts(self._host.loop):
            agent = context.get(current, _NOBODY).agent
            if agent is not None and agent._instance is not None:
                used.add(agent._instance)
        return used


_NOBODY = Serving()


def _is_plain(hook: Any) -> bool:
    """Whether a hook is the base class's own, which does nothing."""
    return getattr(hook, "__module__", "") == "jupyter_agents.host.agent"


def _contexts(loop: asyncio.AbstractEventLoop) -> Iterator[contextvars.Context]:
    """The contexts of all tasks and timers."""
    for task in asyncio.all_tasks(loop):
        if hasattr(task, "get_context"):
            yield task.get_context()
        else:  # before Python 3.12
            referents = gc.get_referents(task)
            yield from (found for found in referents if isinstance(found, contextvars.Context))
    for timer in list(getattr(loop, "_scheduled", ())):  # loops of other makes have none to show
        if not timer.cancelled():
            yield timer._context
