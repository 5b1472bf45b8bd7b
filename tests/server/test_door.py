"""What all handlers of one server share: where its addresses begin, its clock, its sockets."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_agents.server.door import ClientSocket, Door
from jupyter_agents.server.limits import Limits
from jupyter_agents.server.sockets import agent_routes
from tests.server.fake_host import LocalHost


class FakeProtocol:
    """A WebSocket that only remembers what it was told."""

    def __init__(self):
        self.calls = []

    def send(self, message):
        self.calls.append(("send", message.payload, message.binary))

    send_now = send

    def close(self, code, reason):
        self.calls.append(("close", code, reason))

    def abort(self):
        self.calls.append("abort")

    def pause_reading(self):
        self.calls.append("pause")

    def resume_reading(self):
        self.calls.append("resume")


@pytest.fixture
def door():
    """A door whose clock stands still."""
    return Door(Limits(stop_timeout_s=0.05, max_connections=2), clock=lambda: 1000.0)


def entered(door, host, name="lobby", connection_id="me"):
    """A socket that is open, and the protocol under it."""
    protocol = FakeProtocol()
    socket = ClientSocket(door)
    socket.connect(protocol)
    socket.open(door.relay.find("chat-room"), name, connection_id, {"request": "{}"})
    return socket, protocol


@pytest.mark.parametrize(
    ("base_url", "prefix", "path", "rest"),
    [
        ("/", "agents", "/agents/a/b", "a/b"),
        ("/", "agents", "//agents//a/b", "/a/b"),
        ("/a%40b/", "agents", "/a%40b/agents/a/agents/b", "a/agents/b"),
        ("/agents/", "agents", "/agents/agents/a/b", "a/b"),
        ("/u.x/", "/v1/live/", "/u.x/v1/live/a/b", "a/b"),
    ],
)
def test_behind_prefix(base_url, prefix, path, rest):
    """What follows the prefix is found wherever the server's URLs begin."""
    assert Door(Limits(), base_url, prefix=prefix).behind_prefix(path) == rest


def test_routes_say_where_they_are():
    """Routes carry the whole path, or none of the base where somebody else adds it."""
    door = Door(Limits(), "/u.x/", prefix="v1/live")
    patterns = [route[0] for route in agent_routes(door)]
    assert patterns == [
        r"/u\.x/(?:/*)v1/live/(?:.*)",
        r"/u\.x/agents-static/(.*)",
        r"/u\.x/api/agents/([^/]+)/([^/]+)/ticket",
    ]
    assert agent_routes(door, base_url="/")[1][0] == "/agents-static/(.*)"


async def test_socket_joins_protocol_and_relay(door):
    """Messages go through unchanged both ways; pause, resume and close reach the protocol."""
    host = LocalHost(door.relay)
    await host.serve()
    socket, protocol = entered(door, host)
    number, opened = await host.expect_open()
    assert opened["opened_at"] == 1000.0
    socket.on_text("π".encode())
    socket.on_binary(b"\xff")
    assert [await host.frame() for _ in range(2)] == [
        (1, number, "π".encode()),
        (2, number, b"\xff"),
    ]
    host.text(number, "out")
    host.send(15, number)
    host.send(16, number)
    host.shut(number, 4000, "why")
    assert protocol.calls == [
        ("send", b"out", False),
        "pause",
        "resume",
        ("close", 4000, "why"),
    ]
    socket.on_failed(ValueError("text is not UTF-8"))
    socket.on_closed(1007, "x", False)
    assert await host.expect(13) == (number, b"text is not UTF-8")
    assert await host.expect_closed() == (number, 1007, False, "x")
    assert not door.sockets


async def test_end_before_the_record(door):
    """A socket that ends while it opens leaves no record behind."""
    host = LocalHost(door.relay)
    await host.serve()
    socket = ClientSocket(door)
    socket.connect(FakeProtocol())
    socket.on_failed(ValueError("x"))
    socket.on_closed(1006, "", False)
    socket.open(door.relay.find("chat-room"), "lobby", "me", {"request": "{}"})
    number, _ = await host.expect_open()
    assert await host.expect_closed() == (number, 1006, False, "")
    assert not door.relay.records
    assert not door.sockets


async def test_events_are_told():
    """What happens in the relay reaches who asked for it, with facts that JSON can carry."""
    told = []
    door = Door(Limits(), on_event=lambda kind, facts: told.append((kind, facts)))
    host = LocalHost(door.relay)
    await host.serve()
    socket, _ = entered(door, host)
    socket.on_closed(1000, "bye", True)
    assert [kind for kind, _ in told] == ["serve", "open", "close"]
    assert told[1][1] == {"agent": "chat-room", "name": "lobby", "id": "me"}
    assert told[2][1]["code"] == 1000


async def test_tick_is_the_relays(door):
    """Time passes by the door's clock."""
    host = LocalHost(door.relay)
    await host.serve()
    _, protocol = entered(door, host)
    door.relay.host_left(host.port, 1000.0)
    door.clock = lambda: 1000.0 + 600.0
    door.tick()
    assert protocol.calls[-1] == ("close", 1012, "The agent's kernel is gone")


async def test_stop_waits_for_the_last_socket(door):
    """Stopping ends when every client has answered, and not before."""
    host = LocalHost(door.relay)
    await host.serve()
    door.stop_timeout_s = 60.0
    sockets = [entered(door, host)[0] for _ in range(2)]
    stopping = asyncio.ensure_future(door.stop())
    await asyncio.sleep(0)
    sockets[0].on_closed(1001, "", True)
    await asyncio.sleep(0)
    assert not stopping.done()
    sockets[1].on_closed(1001, "", True)
    await asyncio.wait_for(stopping, 1.0)


async def test_stop_cuts_who_does_not_answer(door):
    """When the time is up, sockets that did not answer are cut."""
    host = LocalHost(door.relay)
    await host.serve()
    _, protocol = entered(door, host)
    await door.stop()
    assert protocol.calls == [("close", 1001, "Server is shutting down"), "abort"]


async def test_stop_with_nobody_there(door):
    """An idle server stops at once."""
    door.stop_timeout_s = 60.0
    await asyncio.wait_for(door.stop(), 1.0)
    assert door.is_stopping
