"""Tests of agents without a server, a kernel or a socket.

    def test_room(agent_harness):
        client = agent_harness.connect(ChatRoom, "lobby")
        client.send("hello")
        assert client.receive() == "hello"

`AgentHarness` is the same for coroutines; `AgentTestCase` is for Tornado's own testing, over real
sockets.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_agents.testing.case import AgentTestCase
    from jupyter_agents.testing.harness import AgentHarness, HarnessClient
    from jupyter_agents.testing.sync import SyncClient, SyncHarness

__all__ = ["AgentHarness", "AgentTestCase", "HarnessClient", "SyncClient", "SyncHarness"]

_HOMES = MappingProxyType(
    {
        "AgentHarness": "harness",
        "AgentTestCase": "case",
        "HarnessClient": "harness",
        "SyncClient": "sync",
        "SyncHarness": "sync",
    }
)


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
