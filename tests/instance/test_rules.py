"""Rules of the SDK's own suites that no other test here has by its number."""

from __future__ import annotations

import asyncio
import json

import pytest

from jupyter_agents import Agent, callable_method, get_agent_by_name, serving
from jupyter_agents.testing import AgentHarness


class Plain(Agent):
    initial_state = {"n": 0}

    def on_start(self, props=None):
        self.props = props

    def on_message(self, connection, message):
        connection.send(message)

    def on_request(self, request):
        return {"props": self.props, "headers": sorted(request.headers)}

    def should_connection_be_readonly(self, connection, ctx):
        return ctx.query.get("mode") == "view"

    def should_send_protocol_messages(self, connection, ctx):
        return ctx.query.get("protocol") != "off"

    @callable_method
    def bump(self):
        self.set_state({"n": self.state["n"] + 1})

    @callable_method
    def read(self, *anything):
        return self.state


@pytest.fixture
def here(monkeypatch):
    """Let `get_agent_by_name` find a harness's host."""

    def find(harness):
        monkeypatch.setattr(serving, "default_host", lambda: harness.host)

    return find


async def test_props_reach_on_start_and_nothing_else(here):
    """T007–T010: props, non-ASCII too, arrive in `on_start` and show in no request."""
    async with AgentHarness(Plain) as harness:
        here(harness)
        await get_agent_by_name(Plain, "x", props={"who": "Zoë 漢字"})
        answer = (await harness.request(Plain, "x", headers={"X-A": "1"})).json()
        assert answer == {"props": {"who": "Zoë 漢字"}, "headers": ["X-A"]}
        client = await harness.connect(Plain, "x")
        await client.send("hi")
        assert await client.receive() == "hi"


async def test_agent_by_name_is_started(here):
    """T020, T163: the name resolves while cold, and `on_start` has ended when it returns."""
    gate = asyncio.Event()

    class Slow(Agent):
        async def on_start(self, props=None):
            await gate.wait()
            self.ready = True

    async with AgentHarness(Slow) as harness:
        here(harness)
        asked = asyncio.ensure_future(get_agent_by_name(Slow, "cold"))
        await harness.idle()
        assert not asked.done()
        gate.set()
        handle = await asked
        assert handle.name == "cold"
        assert harness.agent(Slow, "cold").ready


async def test_unknown_agent_by_name_is_a_lookup_error(here):
    """A class that this process does not serve is named."""
    async with AgentHarness() as harness:
        here(harness)
        with pytest.raises(LookupError, match="nobody"):
            await get_agent_by_name("nobody", "x")


async def test_error_on_a_closing_connection_is_not_reported():
    """T031, T032: a peer that vanished is sent no close frame, and its going is no error."""
    errors = []

    class Quiet(Agent):
        def on_close(self, connection, code, reason, was_clean):
            connection.close(4000, "too late")

        def on_error(self, connection, error):
            errors.append(error)

    async with AgentHarness(Quiet) as harness:
        client = await harness.connect(Quiet, "x")
        await client.vanish()
        assert errors == []
        assert client.closed.code == 1006


async def test_application_error_on_a_closed_connection_is_reported():
    """T034: a handler that goes on after its connection closed, and raises, is heard."""
    errors, gate = [], asyncio.Event()

    class Late(Agent):
        async def on_message(self, connection, message):
            await gate.wait()
            raise ValueError("after the close")

        def on_error(self, connection, error):
            errors.append(str(error))

    async with AgentHarness(Late) as harness:
        client = await harness.connect(Late, "x")
        await client.send("go")
        await client.close()
        gate.set()
        await harness.idle()
        assert errors == ["after the close"]


async def test_broadcast_reaches_this_instances_connections_only():
    """T042, T050: connections of other instances and classes are not touched."""

    class Other(Agent):
        pass

    async with AgentHarness(Plain, Other) as harness:
        mine = await harness.connect(Plain, "x")
        others = [await harness.connect(Plain, "y"), await harness.connect(Other, "x")]
        harness.agent(Plain, "x").broadcast("hello")
        assert await mine.receive() == "hello"
        for client in others:
            await client.expect_nothing()


async def test_one_broken_socket_is_that_sockets():
    """T047: a recipient that is gone in the middle of a broadcast harms no other."""
    async with AgentHarness(Plain) as harness:
        clients = [await harness.connect(Plain, "x") for _ in range(3)]
        agent = harness.agent(Plain, "x")
        clients[1]._end(1006, "", was_clean=False)
        agent.broadcast("hello")
        assert await clients[0].receive() == "hello"
        assert await clients[2].receive() == "hello"
        await harness.idle()
        assert len(agent.get_connections()) == 2


async def test_lazy_initial_state_is_told_once_to_each():
    """T073: an older connection and a new one each get the initial state once."""
    async with AgentHarness(Plain) as harness:
        old = await harness.connect(Plain, "x")
        new = await harness.connect(Plain, "x")
        for client in (old, new):
            kinds = [json.loads(frame)["type"] for frame in client.frames]
            assert kinds == ["cf_agent_identity", "cf_agent_state"]


async def test_protocol_flag_is_asked_anew_on_each_connect():
    """T077: a client that comes back with another query is asked about again, both ways."""
    async with AgentHarness(Plain) as harness:
        for query, count in (({"protocol": "off"}, 0), ({}, 2), ({"protocol": "off"}, 0)):
            client = await harness.connect(Plain, "x", connection_id="A", query=query)
            assert len(client.frames) == count
            await client.close()


async def test_each_connection_is_treated_by_its_own_flag():
    """T084: several connections with different rights."""
    async with AgentHarness(Plain) as harness:
        rights = [{"mode": "view"}, {}, {"mode": "view"}, {}]
        clients = [await harness.connect(Plain, "x", query=query) for query in rights]
        for client in clients:
            await client.set_state({"n": 5})
        assert [bool(client.state_errors) for client in clients] == [True, False, True, False]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "rpc", "id": "1", "method": "read", "args": None},
        {"type": "rpc", "id": "1", "method": "read"},
        {"type": "rpc", "method": "read", "args": []},
        {"type": "rpc", "id": "1", "args": []},
    ],
    ids=json.dumps,
)
async def test_malformed_call_is_the_agents_message(frame):
    """T104, T105: no valid call goes to `on_message`, and the connection lives."""
    async with AgentHarness(Plain) as harness:
        client = await harness.connect(Plain, "x")
        await client.send_json(frame)
        assert await client.receive_json() == frame
        assert await client.call("read") == {"n": 0}


async def test_extra_fields_of_a_call_are_ignored():
    """T103, T106: no arguments are none, and fields that we do not know do no harm."""
    async with AgentHarness(Plain) as harness:
        client = await harness.connect(Plain, "x")
        frame = {"type": "rpc", "id": "9", "method": "read", "args": [], "extra": {"a": 1}}
        await client.send_json(frame)
        await client._until(lambda: "9" in client._replies, 5, "the answer")
        assert client._replies["9"][0].result == {"n": 0}
