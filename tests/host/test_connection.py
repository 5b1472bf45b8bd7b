"""A connection as the agent sees it: what it sends, keeps and refuses."""

from __future__ import annotations

import array

import pytest

from jupyter_agents import Agent
from jupyter_agents.host.connection import Connections, to_payload
from jupyter_agents.testing import AgentHarness


class Room(Agent):
    pass


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ("é", ("é".encode(), False)),
        ("", (b"", False)),
        (b"\x00", (b"\x00", True)),
        (bytearray(b"ab"), (b"ab", True)),
        (memoryview(b"abc")[1:], (b"bc", True)),
        (array.array("h", [1]), (array.array("h", [1]).tobytes(), True)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_text_and_buffers_may_be_sent(message, payload):
    """Str is text; bytes and every buffer, numpy's included, are binary."""
    assert to_payload(message) == payload


@pytest.mark.parametrize(
    "message", [None, 1, {"a": 1}, ["a"], object()], ids=lambda value: type(value).__name__
)
def test_anything_else_is_a_type_error(message):
    """WIRE 6: what is neither text nor bytes raises at once and names its type."""
    with pytest.raises(TypeError, match=type(message).__name__):
        to_payload(message)


async def connected(harness, **options):
    """The agent's side of a fresh client, and the client."""
    client = await harness.connect(Room, "x", connection_id="A", **options)
    return harness.agent(Room, "x").get_connection("A"), client


async def test_state_by_value_and_by_function():
    """T036: set, read back; a function gets the previous value; the new one is returned."""
    async with AgentHarness(Room) as harness:
        connection, _ = await connected(harness)
        assert connection.state is None
        assert connection.set_state({"n": 1}) == {"n": 1}
        assert connection.set_state(lambda old: {"n": old["n"] + 1}) == {"n": 2}
        assert connection.set_state(None) is None


async def test_refused_state_leaves_the_old_value():
    """WIRE 9: too large, or not JSON, raises and changes nothing."""
    async with AgentHarness(Room) as harness:
        connection, _ = await connected(harness)
        connection.set_state("old")
        with pytest.raises(ValueError, match="16384 bytes"):
            connection.set_state("x" * 16_384)
        with pytest.raises(TypeError, match="object"):
            connection.set_state(object())
        assert connection.state == "old"
        assert connection.set_state("x" * 16_382)


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
async def test_illegal_close_codes_are_value_errors(code):
    """WIRE 8: an author may send 1000–1003, 1007–1014 and 3000–4999."""
    async with AgentHarness(Room) as harness:
        connection, client = await connected(harness)
        with pytest.raises(ValueError, match=str(code)):
            connection.close(code)
        assert client.closed is None


async def test_long_close_reason_is_a_value_error():
    """A reason of more than 123 UTF-8 bytes is refused, and the connection lives."""
    async with AgentHarness(Room) as harness:
        connection, client = await connected(harness)
        with pytest.raises(ValueError, match="123"):
            connection.close(4000, "é" * 62)
        assert client.closed is None
        connection.close(4000, "é" * 61)
        assert (await client.until_closed()).reason == "é" * 61


async def test_send_after_close_is_false():
    """WIRE 6: sending on a closed connection returns False and never raises."""
    async with AgentHarness(Room) as harness:
        connection, client = await connected(harness)
        assert connection.send("one") is True
        connection.close()
        assert connection.send("two") is False
        assert connection.send_json({"n": 2}) is False
        assert connection.ready_state in ("closing", "closed")
        assert await client.receive() == "one"


async def test_facts_of_a_connection():
    """id, uri, user, agent, tags, query, headers and cookies are there."""
    async with AgentHarness(Room) as harness:
        connection, _ = await connected(
            harness,
            query={"a": "1"},
            headers={"X-Thing": "y"},
            cookies={"c": "d"},
            user={"username": "ann"},
        )
        assert connection.uri.endswith("/agents/room/x?a=1")
        assert connection.user == {"username": "ann"}
        assert connection.agent.name == "x"
        assert connection.tags == ("A",)
        assert connection.ctx.query["a"] == "1"
        assert connection.ctx.headers["x-thing"] == "y"
        assert connection.ctx.cookies == {"c": "d"}
        assert connection.ctx.user == {"username": "ann"}
        assert connection.ctx.url == connection.uri


def test_snapshot_of_connections_is_a_sequence():
    """It has a length, an order and a short repr."""
    snapshot = Connections([])
    assert len(snapshot) == 0
    assert list(snapshot) == []
    assert repr(snapshot) == "<0 connections: >"


class Name(str):
    """Text of a class of its own."""

    __slots__ = ()


@pytest.mark.parametrize("message", [Name("é"), "\ud800", b"x", bytearray(b"x")])
async def test_send_and_broadcast_take_the_same(message):
    """What goes to one and what goes to all is encoded alike, in fewer steps or more."""
    async with AgentHarness(Room) as harness:
        connection, client = await connected(harness)
        payload, binary = to_payload(message)
        assert connection.send(message)
        harness.agent(Room, "x").broadcast(message)
        expected = payload if binary else payload.decode()
        assert [await client.receive(), await client.receive()] == [expected] * 2
        with pytest.raises(TypeError, match="int"):
            connection.send(1)


async def test_takes_frames_exactly_while_accepted_and_open():
    """The one flag that a send looks at: not before `on_connect` has ended, not after a close."""
    seen = []

    class Visited(Room):
        def on_connect(self, connection, ctx):
            seen.append(connection.takes_frames)
            connection.send("held")

        def on_close(self, connection, *how):
            seen.append(connection.takes_frames)

    async with AgentHarness(Visited) as harness:
        client = await harness.connect(Visited, "x", connection_id="A")
        seen.append(harness.agent(Visited, "x").get_connection("A").takes_frames)
        assert await client.receive() == "held"
        await harness.restart(Visited)
        connection = harness.agent(Visited, "x").get_connection("A")
        seen.append(connection.takes_frames)
        connection.close()
        seen.append(connection.takes_frames)
        await harness.idle()
    assert seen == [False, True, True, False, False]
