"""The host keeps what it serves through bad frames, clashes and a lost link."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_agents import Agent, ServeError
from jupyter_agents.link.frames import Kind
from jupyter_agents.testing import AgentHarness


class Room(Agent):
    def on_message(self, connection, message):
        connection.send(message)


class RoomA(Agent):
    pass


async def test_two_classes_at_one_address_are_refused():
    """WIRE 1: two classes that meet on one URL are refused with what to do about it."""
    async with AgentHarness(Room) as harness:
        with pytest.raises(ServeError, match="slug="):
            await harness.serve(RoomA, slug="room")
        assert (await harness.connect(Room, "x")).closed is None


async def test_slug_gives_another_address():
    """A slug of its own is the class's address."""
    async with AgentHarness() as harness:
        await harness.serve(RoomA, slug="elsewhere")
        client = await harness.connect("elsewhere", "x")
        assert client.identity.agent == "elsewhere"


@pytest.mark.parametrize("spelling", ["a-i-thing", "ai-thing", "AIThing"])
async def test_every_spelling_reaches_the_class(spelling):
    """T150: the SDK's spelling, the readable one and the class's own."""

    class AIThing(Agent):
        pass

    async with AgentHarness(AIThing) as harness:
        client = await harness.connect(spelling, "x")
        assert client.identity.agent == "a-i-thing"


async def test_bad_frame_is_that_frames(caplog):
    """Pitfall 1: one frame that makes no sense is logged, the rest of the batch is handled."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        number = client.record.number
        harness.host.frames(
            [(Kind.OPEN, 99, b"not json"), (200, 1, b""), (Kind.TEXT, number, b"after")]
        )
        assert await client.receive() == "after"
        assert "could not be handled" in caplog.text


async def test_message_of_an_unknown_connection_is_dropped_and_counted():
    """DESIGN 5, step 6."""
    async with AgentHarness(Room) as harness:
        harness.host.frames([(Kind.TEXT, 12345, b"x")])
        assert harness.host.dropped == 1


async def test_watchers_hear_and_can_leave():
    """What happens is told to watchers, and one that fails is heard no more."""
    events = []
    async with AgentHarness(Room) as harness:
        unwatch = harness.host.watch(events.append)
        harness.host.watch(lambda event: 1 / 0)
        client = await harness.connect(Room, "x")
        await client.send("hi")
        await client.receive()
        assert {"connect", "instance", "message", "sent"} <= {event.kind for event in events}
        unwatch()
        assert harness.host.watched is False


async def test_other_server_ends_the_connections_of_the_old_one():
    """A link to another server than before: its clients are gone, `on_close` runs with 1006."""
    seen = []

    class Watcher(Agent):
        def on_close(self, connection, code, reason, was_clean):
            seen.append(code)

    async with AgentHarness(Watcher) as harness:
        await harness.connect(Watcher, "x")
        harness.host.link_down()
        harness.host.link_up(harness.link, {"server_id": "another"})
        await harness.idle()
        assert seen == [1006]


async def test_link_that_broke_for_a_moment_keeps_the_connections():
    """The same server again.

    Connections go on with their state, `on_connect` does not run again.
    """
    seen = []

    class Watcher(Agent):
        def on_connect(self, connection, ctx):
            seen.append("connect")

        def on_message(self, connection, message):
            connection.send(message)

    async with AgentHarness(Watcher) as harness:
        client = await harness.connect(Watcher, "x")
        harness.link.break_off(0)
        harness.link.connect()
        await harness.idle()
        await client.send("still here")
        assert await client.receive() == "still here"
        assert seen == ["connect"]


async def test_second_host_is_refused_unless_it_takes_over():
    """A class that another kernel serves is refused with its name; takeover moves the clients."""
    from jupyter_agents.host.host import AgentHost, Hosted
    from jupyter_agents.standalone import LocalLink

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        other = AgentHost(asyncio.get_running_loop())
        link = LocalLink(harness.relay, other, {"kernel_id": "other", "notebook": "b.ipynb"})
        link.id = "other"
        link.connect()
        hosted = Hosted(Room, "room", ("room", "Room"), harness.storage)
        with pytest.raises(ServeError, match="takeover=True"):
            await other.serve(hosted)
        await other.serve(Hosted(Room, "room", ("room", "Room"), harness.storage, takeover=True))
        await client.send("moved")
        assert await client.receive() == "moved"
        assert len(other.connections) == 1
        assert harness.host.classes == {}
        await other.stop()


async def test_stop_runs_on_stop_within_its_limit():
    """A kernel that goes runs `on_stop` everywhere, and one that hangs does not keep it."""
    seen = []

    class Hanging(Agent):
        async def on_stop(self):
            seen.append(self.name)
            await asyncio.Event().wait()

    from jupyter_agents.host.host import HostLimits

    async with AgentHarness(Hanging, limits=HostLimits(stop_s=0.01)) as harness:
        await harness.connect(Hanging, "x")
        await harness.host.stop()
        assert seen == ["x"]
