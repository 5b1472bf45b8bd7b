"""Agents under Tornado's own testing, over real sockets."""

from __future__ import annotations

import json

from tornado.testing import gen_test

from jupyter_agents import Agent
from jupyter_agents.testing import AgentTestCase


class Echo(Agent):
    def on_message(self, connection, message):
        connection.send(message)

    def on_request(self, request):
        return {"path": request.path}


class TestEcho(AgentTestCase):
    """A user's test case."""

    agents = (Echo,)

    @gen_test
    async def test_echo(self):
        """A WebSocket client of Tornado talks to the agent."""
        client = await self.connect("echo", "lobby")
        assert json.loads(await client.read_message())["type"] == "cf_agent_identity"
        await client.write_message("hi")
        assert await client.read_message() == "hi"
        client.close()
        assert await client.read_message() is None

    @gen_test
    async def test_what_is_left_open_is_closed(self):
        """A test may leave clients and their messages lying about; no warning follows."""
        for name in ("a", "b"):
            client = await self.connect("echo", name)
            await client.write_message("never read")

    def test_http(self):
        """HTTP to the same address."""
        assert json.loads(self.fetch("/agents/echo/lobby/status").body) == {"path": "/status"}
