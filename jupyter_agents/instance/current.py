"""Whom the running code serves: `get_current_agent`, carried by a context variable.

Follows into tasks that a hook starts and into ``asyncio.to_thread``. Set by `hooks.py`.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.connection import Connection
    from jupyter_agents.protocol.http import Request

__all__ = ["CurrentAgent", "Serving", "current", "get_current_agent"]


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
