"""Agents under Tornado's own testing: real sockets, the same handlers, no Jupyter."""

from __future__ import annotations

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

    What a test left open is closed after it.

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
        self._clients: list[WebSocketClientConnection] = []
        routes = agent_handlers(*self.agents, storage=MemoryStorage())
        self._door = routes[0][2]["door"]
        return Application(routes)

    def tearDown(self) -> None:
        """Close what is open, on both sides, then the server."""
        for client in self._clients:
            # None once it is closed; with unread messages it would never see the server's close
            stream = client.protocol.stream if client.protocol is not None else None
            client.close()
            if stream is not None:
                stream.close()
        self.io_loop.run_sync(self._door.stop)
        super().tearDown()

    async def connect(
        self, agent: str, name: str = "default", query: str = "", **options: Any
    ) -> WebSocketClientConnection:
        """A WebSocket to an agent instance."""
        url = self.get_url(f"/agents/{agent}/{name}").replace("http", "ws", 1)
        client = await websocket_connect(url + (f"?{query}" if query else ""), **options)
        self._clients.append(client)
        return client
