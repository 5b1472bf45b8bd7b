"""The host keeps what it serves through bad frames, clashes and a lost link."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_agents import Agent, ServeError
from jupyter_agents.host.host import AgentHost, Hosted, HostLimits
from jupyter_agents.link.frames import Kind
from jupyter_agents.link.records import RelayLimits
from jupyter_agents.standalone import LocalLink
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


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("why", ["nothing is owed", "the grace is over"])
async def test_connection_that_the_server_forgot_meanwhile_is_over(accepted, why):
    """After a broken link the server says whom it knows; `on_close` runs for all others, once."""
    seen, greeted = [], asyncio.Event()

    class Slow(Agent):
        async def on_connect(self, connection, ctx):
            if not accepted:
                await greeted.wait()

        def on_close(self, connection, code, reason, was_clean):
            seen.append((connection.id, code))

    async with AgentHarness(Slow, relay_limits=RelayLimits(max_parked_gone=0)) as harness:
        going = await harness.connect(Slow, "x", connection_id="going", wait=False)
        staying = await harness.connect(Slow, "x", connection_id="staying", wait=False)
        await harness.idle()
        harness.link.break_off(0)
        if why == "nothing is owed":
            await going.vanish()
        else:
            harness.advance(601)
            assert (await going.until_closed()).code == 1012
        harness.link.connect()
        await harness.idle()
        greeted.set()
        await harness.idle()
        left = [] if why == "the grace is over" else ["staying"]
        assert [c.id for c in harness.host.connections.values()] == left
        assert [c.id for c in harness.instance(Slow, "x").connections()] == left
        assert dict(seen) == {"going": 1006, "staying": 1006} if not left else {"going": 1006}
        assert len(seen) == 2 - len(left)
        assert (staying.closed is None) is bool(left)


async def test_class_that_another_kernel_took_while_the_link_was_down_ends_here():
    """A host that comes back to a class of another one has lost it: it saves and tells no more."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "x")
        old, instance = harness.host, harness.instance(Room, "x")
        harness.link.break_off(0)
        other = AgentHost(asyncio.get_running_loop())
        link = LocalLink(harness.relay, other, {"kernel_id": "other", "notebook": "b.ipynb"})
        link.id = "other"
        link.connect()
        await other.serve(Hosted(Room, "room", ("room", "Room"), harness.storage, takeover=True))
        harness.link.connect()
        await harness.idle()
        assert old.classes == {}
        assert old.connections == {}
        assert instance.sync._is_over
        assert len(other.connections) == 1
        await other.stop()


async def test_second_host_is_refused_unless_it_takes_over():
    """A class that another kernel serves is refused with its name; takeover moves the clients."""
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

    async with AgentHarness(Hanging, limits=HostLimits(stop_s=0.01)) as harness:
        await harness.connect(Hanging, "x")
        await harness.host.stop()
        assert seen == ["x"]


async def test_what_was_lost_while_the_link_was_down_is_counted(caplog):
    """One line says how many messages clients missed; a state is not among them: it is told."""

    class Talker(Agent):
        initial_state = {"n": 0}

    async with AgentHarness(Talker) as harness:
        clients = [await harness.connect(Talker, "x") for _ in range(3)]
        agent, handle = harness.agent(Talker, "x"), harness.handle(Talker, "x")
        harness.link.break_off(0)
        agent.broadcast("lost")
        agent.get_connections()[0].send("lost, too")
        handle.set_state({"n": 1})
        await harness.idle()
        harness.link.connect()
        await harness.idle()
        lines = [r.getMessage() for r in caplog.records if "were lost" in r.getMessage()]
        assert lines == [
            "While there was no link to Jupyter Server, 4 messages to clients and 0 answers to "
            "requests were lost"
        ]
        for client in clients:
            await client.until_state({"n": 1})
        harness.link.break_off(0)
        harness.link.connect()
        assert len([r for r in caplog.records if "were lost" in r.getMessage()]) == 1


async def test_close_while_the_link_was_down_is_made_up_for():
    """A client that its agent closed meanwhile is closed when the link is back."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        [connection] = harness.agent(Room, "x").get_connections()
        harness.link.break_off(0)
        connection.close(4001, "enough")
        await harness.idle()
        assert client.closed is None
        harness.link.connect()
        closed = await client.until_closed()
        assert (closed.code, closed.reason) == (4001, "enough")
        await harness.idle()
        assert harness.host.connections == {}


async def test_server_hears_again_who_is_awake():
    """After a broken link the server knows which instances are awake, and which sleep."""
    async with AgentHarness(Room) as harness:
        for name in ("a", "b"):
            await harness.connect(Room, name)
        harness.instance(Room, "b").sleep()
        harness.link.break_off(0)
        harness.link.connect()
        await harness.idle()
        assert harness.relay.served["room"].instances == {"a": "awake", "b": "asleep"}


async def test_client_that_is_held_back_stays_so_over_a_broken_link():
    """The sender of an agent that is behind is made to wait again."""

    class Slow(Agent):
        async def on_message(self, connection, message):
            await asyncio.Event().wait()

    async with AgentHarness(Slow, limits=HostLimits(max_running=1, stop_s=0.01)) as harness:
        client = await harness.connect(Slow, "x")
        await client.send("1")
        await harness.idle()
        assert client.is_paused
        harness.link.break_off(0)
        assert not client.is_paused
        harness.link.connect()
        await harness.idle()
        assert client.is_paused
