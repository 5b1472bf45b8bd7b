"""Stateful, multi-client agents defined in a notebook cell, behind Jupyter's own sign-in.

    from jupyter_agents import Agent, serve

    class Echo(Agent):
        def on_message(self, connection, message):
            connection.send(message)

    serve(Echo)            # any WebSocket client: ws://HOST/agents/echo/NAME

Names are fetched on first use, so that ``import jupyter_agents`` stays light.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_agents.client.client import AgentClient, connect
    from jupyter_agents.client.fetch import agent_fetch
    from jupyter_agents.errors import (
        AgentNotFound,
        AgentsError,
        CallAborted,
        CallFailed,
        CallTimeout,
        ConnectionClosed,
        PublicError,
        ServeError,
        ShareError,
        StateRejected,
    )
    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.callables import StreamingResponse, callable_method
    from jupyter_agents.host.connection import Connection, ConnectionContext
    from jupyter_agents.host.handle import AgentHandle
    from jupyter_agents.host.host import HostLimits
    from jupyter_agents.host.namespace import AgentNamespace
    from jupyter_agents.instance.hooks import CurrentAgent, get_current_agent
    from jupyter_agents.protocol.backoff import ReconnectPolicy
    from jupyter_agents.protocol.http import Request, Response
    from jupyter_agents.serving import get_agent_by_name, serve
    from jupyter_agents.sharing import Share
    from jupyter_agents.standalone import agent_handlers

__version__ = "0.1.0"

_HOMES = MappingProxyType(
    {
        "Agent": "host.agent",
        "AgentClient": "client.client",
        "AgentHandle": "host.handle",
        "AgentNamespace": "host.namespace",
        "AgentNotFound": "errors",
        "AgentsError": "errors",
        "CallAborted": "errors",
        "CallFailed": "errors",
        "CallTimeout": "errors",
        "Connection": "host.connection",
        "ConnectionClosed": "errors",
        "ConnectionContext": "host.connection",
        "CurrentAgent": "instance.hooks",
        "HostLimits": "host.host",
        "PublicError": "errors",
        "ReconnectPolicy": "protocol.backoff",
        "Request": "protocol.http",
        "Response": "protocol.http",
        "ServeError": "errors",
        "Share": "sharing",
        "ShareError": "errors",
        "StateRejected": "errors",
        "StreamingResponse": "host.callables",
        "agent_fetch": "client.fetch",
        "agent_handlers": "standalone",
        "callable_method": "host.callables",
        "connect": "client.client",
        "get_agent_by_name": "serving",
        "get_current_agent": "instance.hooks",
        "serve": "serving",
    }
)

# `callable` is reachable as jupyter_agents.callable, but never star-exported: it would shadow the
# builtin
__all__ = [
    "Agent",
    "AgentClient",
    "AgentHandle",
    "AgentNamespace",
    "AgentNotFound",
    "AgentsError",
    "CallAborted",
    "CallFailed",
    "CallTimeout",
    "Connection",
    "ConnectionClosed",
    "ConnectionContext",
    "CurrentAgent",
    "HostLimits",
    "PublicError",
    "ReconnectPolicy",
    "Request",
    "Response",
    "ServeError",
    "Share",
    "ShareError",
    "StateRejected",
    "StreamingResponse",
    "agent_fetch",
    "agent_handlers",
    "callable_method",
    "connect",
    "get_agent_by_name",
    "get_current_agent",
    "serve",
]


def __getattr__(name: str) -> Any:
    source = "callable_method" if name == "callable" else name
    home = _HOMES.get(source)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), source)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "callable"})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from jupyter_agents.server.app import AgentsApp

    return [{"module": "jupyter_agents", "app": AgentsApp}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "jupyter-agents"}]


def load_ipython_extension(ipython: Any) -> None:
    """Add the magics: ``%load_ext jupyter_agents``."""
    from jupyter_agents.magics import load

    load(ipython)
