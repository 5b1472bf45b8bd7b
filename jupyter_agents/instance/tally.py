"""What agents do, counted for the server's events: state changes, calls, errors.

Promises that all of it costs one look at `is_on` while nobody listens, that the server hears at
most once per interval whatever happens, and that no state, argument or error's text is told. Its
other half is `server/observe.py`.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import LinkError
from jupyter_agents.host.callables import get_callable_methods
from jupyter_agents.link.frames import Kind, unpack_object

if TYPE_CHECKING:
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.instance.instance import AgentInstance

__all__ = ["Tallies"]


class Tallies:
    """Counts per class and kind since the last report, with who was the last.

    Parameters
    ----------
    host : AgentHost
        Whose agents are counted.

    Wire
    ----
    TALLY → ``{"every_s": s}``: report at most this often; 0 ends it.
    TALLY ← ``{"tallies": [{"agent", "action", "count", "name", …}]}``: one for each class and
    action that happened; ``name`` and what follows are the last one's.

    Thread
    ------
    The agents' thread only.
    """

    def __init__(self, host: AgentHost) -> None:
        self._host = host
        self._every_s = 0.0
        self._since: dict[tuple[str, str], dict[str, Any]] = {}
        self.is_on = False
        """Whether somebody listens; look here before you call anything else."""

    def heed(self, number: int, payload: bytes) -> None:
        """The server begins to listen, or has had enough."""
        self._every_s = float(unpack_object(payload)["every_s"])
        self.is_on = self._every_s > 0
        if not self.is_on:
            self._since.clear()

    def state(self, instance: AgentInstance, version: int, source: Any) -> None:
        """A state changed."""
        by = "server" if source == "server" else "client"
        self._count(instance, "state").update(version=version, source=by)

    def call(self, instance: AgentInstance, method: str, error: BaseException | None) -> None:
        """A client's call ended, well or not."""
        tally = self._count(instance, "call")
        tally["method"] = method
        tally["failed"] = tally.get("failed", 0) + (error is not None)

    def error(self, instance: AgentInstance, where: str, error: BaseException) -> None:
        """A hook or a method raised."""
        self._count(instance, "error").update(where=where, type=type(error).__name__)

    def _count(self, instance: AgentInstance, action: str) -> dict[str, Any]:
        agent = instance.hosted.agent
        if not self._since:
            self._plan()
        tally = self._since.get((agent, action))
        if tally is None:
            tally = self._since[agent, action] = {"agent": agent, "action": action, "count": 0}
        tally["count"] += 1
        tally["name"] = instance.name
        return tally

    def _plan(self) -> None:
        self._host.loop.call_later(self._every_s, self._report, context=contextvars.Context())

    def _report(self) -> None:
        if self._host.uplink is None:
            self.is_on = False  # the next server says anew whether anybody listens there
            self._since.clear()
        if not self._since:
            return
        tallies = [self._told(tally) for tally in self._since.values()]
        try:
            self._host.send_object(Kind.TALLY, 0, {"tallies": tallies})
        except LinkError:
            self._plan()  # the link is full; the counts wait for room
        else:
            self._since.clear()

    def _told(self, tally: dict[str, Any]) -> dict[str, Any]:
        hosted = self._host.classes.get(tally["agent"])
        method = tally.get("method")
        if method is None or (hosted is not None and method in get_callable_methods(hosted.cls)):
            return tally
        return {key: value for key, value in tally.items() if key != "method"}  # a client's text
