"""Agents under Tornado's own testing: real sockets, the same handlers, no Jupyter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application
from tornado.websocket import websocket_connect

from jupyter_agents.host.storage import MemoryStorage
from jupyter_agents.server.sockets import agent_routes
from jupyter_agents.standalone import door_and_host

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
    limit_s: ClassVar[float] = 5.0
    """How long hooks that were cancelled may take to end."""

    def get_app(self) -> Application:
        """An application that serves `agents`, without a token."""
        self._clients: list[WebSocketClientConnection] = []
        self._door, self._host = door_and_host(self.agents, storage=MemoryStorage())
        return Application(agent_routes(self._door))

    def tearDown(self) -> None:
        """Close what is open, on both sides, stop the agents, then the server.

        AssertionError when a hook does not end when it is cancelled: Tornado would wait for it
        for ever.
        """
        for client in self._clients:
            # None once it is closed; with unread messages it would never see the server's close
            stream = client.protocol.stream if client.protocol is not None else None
            client.close()
            if stream is not None:
                stream.close()
        self.io_loop.run_sync(self._end)
        super().tearDown()

    async def _end(self) -> None:
        await self._door.stop()
        await self._host.stop()
        left: set[asyncio.Task[Any]] = set(self._host.tasks)
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=self.limit_s)
        assert not left, f"hooks that do not end when they are cancelled: {left}"

    async def connect(
        self, agent: str, name: str = "default", query: str = "", **options: Any
    ) -> WebSocketClientConnection:
        """A WebSocket to an agent instance."""
        url = self.get_url(f"/agents/{agent}/{name}").replace("http", "ws", 1)
        client = await websocket_connect(url + (f"?{query}" if query else ""), **options)
        self._clients.append(client)
        return client
