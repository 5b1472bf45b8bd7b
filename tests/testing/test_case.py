"""Agents under Tornado's own testing, over real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest
from tornado.testing import gen_test

from jupyter_agents import Agent
from jupyter_agents.host.host import HostLimits
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


class Endless(Agent):
    """Its handlers end when somebody lets them, and at no other time."""

    begun: asyncio.Event
    gate: asyncio.Event

    async def on_message(self, connection, message):
        self.begun.set()
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                continue

    def on_stop(self):
        stopped.append(self.name)


stopped = []


class Stubborn(AgentTestCase):
    """Run by the test below: what it leaves behind does not end."""

    agents = (Endless,)
    limit_s = 0.01

    async def leave(self):
        """Have a handler begin that will not end."""
        Endless.begun, Endless.gate = asyncio.Event(), asyncio.Event()
        self._host.limits = HostLimits(stop_s=0.01)
        client = await self.connect("endless", "x")
        await client.read_message()
        await client.write_message("hi")
        await Endless.begun.wait()

    def runTest(self):
        """Nothing; unittest wants it."""


def test_hook_that_does_not_end_fails_instead_of_hanging():
    """A handler that swallows its cancellation is named; agents hear `on_stop`."""
    case = Stubborn()
    case.setUp()
    case.io_loop.run_sync(case.leave)
    with pytest.raises(AssertionError, match="do not end"):
        case.tearDown()
    assert stopped == ["x"]
    Endless.gate.set()
    case.tearDown()
