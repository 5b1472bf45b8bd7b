"""Agents under Tornado's own testing: real sockets, the same handlers, no Jupyter."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, ClassVar

from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application
from tornado.websocket import websocket_connect

from jupyter_agents.host.storage import MemoryStorage
from jupyter_agents.standalone import agent_handlers

if TYPE_CHECKING:
    from tornado.websocket import WebSocketClientConnection

    from jupyter_agents.host.agent import Agent

__all__ = ["AgentTestCase"]


class AgentTestCase(AsyncHTTPTestCase):
    """Serves `agents` over loopback; `connect` opens a WebSocket to one of them.

    Example
    -------
    ::

        class TestEcho(AgentTestCase):
            agents = (Echo,)

            @gen_test
            async def test_echo(self):
                client = await self.connect("echo", "lobby")
                await client.write_message("hi")
                self.assertEqual(await client.read_message(), "hi")
    """

    agents: ClassVar[tuple[type[Agent], ...]] = ()

    def get_app(self) -> Application:
        """An application that serves `agents`, without a token."""
        self._context = contextvars.copy_context()
        return Application(agent_handlers(*self.agents, storage=MemoryStorage()))

    async def connect(
        self, agent: str, name: str = "default", query: str = "", **options: Any
    ) -> WebSocketClientConnection:
        """A WebSocket to an agent instance."""
        url = self.get_url(f"/agents/{agent}/{name}").replace("http", "ws", 1)
        return await websocket_connect(url + (f"?{query}" if query else ""), **options)
