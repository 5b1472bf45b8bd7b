"""What a host tells of its messages, end to end with the relay: `instance/receipts.py`."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_agents import Agent, ServeError, callable_method
from jupyter_agents.host.host import HostLimits
from jupyter_agents.link.frames import Kind
from jupyter_agents.link.relay import Relay
from jupyter_agents.standalone import LocalLink
from jupyter_agents.testing import AgentHarness


def recorder(redelivery: str) -> tuple[type[Agent], list[str], list[str], asyncio.Event]:
    """An agent that notes what it begins and what it ends; "slow…" waits for the event."""
    begun, ended, gate = [], [], asyncio.Event()
    choice = redelivery

    class Recorder(Agent):
        redelivery = choice

        async def on_message(self, connection, message):
            begun.append(message)
            if message.startswith("slow"):
                await gate.wait()
            ended.append(message)
            connection.send(message)

        def on_close(self, connection, code, reason, was_clean):
            begun.append(f"closed {code}")

    return Recorder, begun, ended, gate


async def test_cut_off_message_is_not_run_again():
    """At most once: a handler that the crash cut off is over."""
    cls, begun, ended, _ = recorder("at_most_once")
    async with AgentHarness(cls) as harness:
        client = await harness.connect(cls, "x")
        for text in ("a", "slow", "b"):
            await client.send(text)
        await harness.idle()
        await harness.restart()
        assert begun == ["a", "slow", "b"]
        assert ended == ["a", "b"]
        assert next(iter(harness.relay.records.values())).attached["accepted"]


async def test_cut_off_message_is_run_again_where_that_is_chosen():
    """At least once: only what had not ended runs again, in its order, and then ends."""
    cls, begun, ended, gate = recorder("at_least_once")
    async with AgentHarness(cls) as harness:
        client = await harness.connect(cls, "x")
        for text in ("slow 1", "b", "slow 2", "c"):
            await client.send(text)
        await harness.idle()
        await harness.restart()
        assert begun == ["slow 1", "b", "slow 2", "c", "slow 1", "slow 2"]
        gate.set()
        await harness.idle()
        assert ended == ["b", "c", "slow 1", "slow 2"]
        await harness.restart()
        assert len(begun) == 6
        harness.advance(1)
        assert client.record.kept == {}


@pytest.mark.parametrize("redelivery", ["at_most_once", "at_least_once"])
async def test_message_on_its_way_is_delivered_to_the_next_kernel(redelivery):
    """What the dead kernel had not begun is handled once, whatever the class chose."""
    cls, begun, _, _ = recorder(redelivery)
    async with AgentHarness(cls) as harness:
        client = await harness.connect(cls, "x")
        await client.send("1")
        await client.send("2")
        await harness.restart()  # before the loop turned: the frames are lost
        assert begun == ["1", "2"]


@pytest.mark.parametrize("redelivery", ["at_most_once", "at_least_once"])
async def test_message_that_waited_for_on_start_is_delivered(redelivery):
    """What lies in the inbox because `on_start` has not ended was not begun."""
    seen, starts, choice = [], [], redelivery

    class Slow(Agent):
        redelivery = choice

        async def on_start(self, props=None):
            starts.append(1)
            if len(starts) == 2:
                await asyncio.Event().wait()

        def on_message(self, connection, message):
            seen.append(message)

    async with AgentHarness(Slow) as harness:
        client = await harness.connect(Slow, "x")
        await harness.restart()
        await client.send("1")
        await harness.idle()
        assert (len(starts), seen) == (2, [])
        await harness.restart()
        assert seen == ["1"]


@pytest.mark.parametrize("redelivery", ["at_most_once", "at_least_once"])
async def test_message_that_waited_for_others_is_delivered(redelivery):
    """What waited behind the limit of running handlers was not begun."""
    cls, begun, _, _ = recorder(redelivery)
    limits = HostLimits(max_running=1, settle_s=0.01, stop_s=0.01)
    async with AgentHarness(cls, limits=limits) as harness:
        client = await harness.connect(cls, "x")
        for text in ("slow", "a", "b"):
            await client.send(text)
        await harness.idle()
        assert begun == ["slow"]
        await harness.restart()
        at_most_once = redelivery == "at_most_once"
        assert begun == (["slow", "a", "b"] if at_most_once else ["slow", "slow"])


@pytest.mark.parametrize("redelivery", ["at_most_once", "at_least_once"])
async def test_call_is_a_message_like_any_other(redelivery):
    """A call that was cut off is made again, or not; one that was answered is not."""
    calls, gate, choice = [], asyncio.Event(), redelivery

    class Room(Agent):
        redelivery = choice

        @callable_method
        async def work(self, name: str) -> str:
            calls.append(name)
            if name == "slow":
                await gate.wait()
            return name

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        assert await client.call("work", "quick") == "quick"
        asked = asyncio.ensure_future(client.call("work", "slow"))
        await harness.idle()
        await harness.restart()
        gate.set()
        if redelivery == "at_least_once":
            assert await asked == "slow"
            assert calls == ["quick", "slow", "slow"]
        else:
            await harness.idle()
            assert calls == ["quick", "slow"]
            asked.cancel()


@pytest.mark.parametrize("redelivery", ["at_most_once", "at_least_once"])
async def test_client_that_sends_and_goes_is_heard_by_the_next_kernel(redelivery):
    """Message and end were on their way when the kernel died: both are delivered, once."""
    cls, begun, _, _ = recorder(redelivery)
    async with AgentHarness(cls) as harness:
        client = await harness.connect(cls, "x")
        await client.send("last")
        harness.relay.closed(client.record, 4100, "", True)
        client.closed = RuntimeError("gone")
        await harness.restart()
        assert sorted(begun) == ["closed 4100", "last"]
        await harness.restart()
        harness.advance(1)
        assert sorted(begun) == ["closed 4100", "last"]
        assert harness.relay.records == {}


@pytest.mark.parametrize("redelivery", ["at_most_once", "at_least_once"])
async def test_gone_clients_are_forgotten(redelivery):
    """When a client is gone and its agent has heard of it, the server holds nothing of it."""
    cls, begun, _, _ = recorder(redelivery)
    async with AgentHarness(cls) as harness:
        for _ in range(20):
            client = await harness.connect(cls, "x")
            await client.send("a")
            await client.close()
        assert harness.relay.records == {}
        assert harness.relay._inbound._bytes == 0
        assert begun.count("closed 1000") == 20


async def test_client_that_goes_while_on_connect_runs_is_forgotten():
    """Nothing is owed to a visitor whose `on_connect` did not run, and one that was refused."""

    class Door(Agent):
        async def on_start(self, props=None):
            raise RuntimeError("not today")

    async with AgentHarness(Door) as harness:
        client = await harness.connect(Door, "x", wait=False)
        await client.send("hello")
        await client.until_closed()
        await harness.idle()
        harness.advance(1)
        assert harness.relay.records == {}


async def test_dropped_messages_are_not_sent_again():
    """A message that `on_start` refused is over: the next kernel does not get it."""
    seen, starts = [], []

    class Moody(Agent):
        def on_start(self, props=None):
            starts.append(1)
            if len(starts) == 2:
                raise RuntimeError("once")

        def on_message(self, connection, message):
            seen.append(message)

    async with AgentHarness(Moody) as harness:
        client = await harness.connect(Moody, "x")
        harness.instance(Moody, "x").sleep()
        await client.send("refused")
        await harness.idle()
        await client.send("taken")
        await harness.idle()
        await harness.restart()
        assert seen == ["taken"]


async def test_choice_may_change_under_live_connections():
    """A cell run again with another `redelivery` is heeded from the next message on."""
    cls, begun, _, _ = recorder("at_most_once")
    async with AgentHarness(cls, limits=HostLimits(stop_s=0.01)) as harness:
        client = await harness.connect(cls, "x")
        await client.send("slow 1")
        await harness.idle()
        later, again, _, _ = recorder("at_least_once")
        await harness.serve(later)
        await client.send("slow 2")
        await harness.idle()
        await harness.restart(later)
        assert (begun, again) == (["slow 1"], ["slow 2", "slow 2"])


async def test_broken_link_loses_and_doubles_nothing():
    """The link breaks for a moment, the kernel lives on: each message is handled once."""
    cls, begun, ended, gate = recorder("at_least_once")
    async with AgentHarness(cls) as harness:
        client = await harness.connect(cls, "x")
        client.record.attached.pop("state", None)
        await client.send("slow 1")
        await harness.idle()
        await client.send("2")
        harness.link.break_off(harness.now)
        await client.send("3")
        gate.set()
        await asyncio.sleep(0)
        harness.agent(cls, "x").get_connections()[0].set_state({"kept": True})
        harness.link.connect()
        await harness.idle()
        assert begun == ["slow 1", "2", "3"]
        assert ended == ["slow 1", "2", "3"]
        assert client.record.attached["state"] == '{"kept":true}'
        harness.advance(1)
        assert client.record.kept == {}


async def test_another_server_is_told_nothing_of_the_old_ones_messages():
    """Connection numbers of a server that is gone mean nothing to the next one."""
    cls, begun, _, gate = recorder("at_least_once")
    async with AgentHarness(cls) as harness:
        client = await harness.connect(cls, "x")
        await client.send("slow")
        await harness.idle()
        harness.link.break_off(harness.now)
        another = LocalLink(Relay(lambda *message: message), harness.host)
        sent = []
        another.send_frames = sent.extend
        another.connect({"server_id": "another"})
        gate.set()
        await harness.idle()
        assert begun[-1] == "closed 1006"
        assert Kind.SERVE in [kind for kind, _, _ in sent]
        assert Kind.SETTLED not in [kind for kind, _, _ in sent]


def test_wrong_choice_is_refused():
    """Another word than the two is an error when the class is served."""

    class Odd(Agent):
        redelivery = "exactly_once"

    async def serve() -> None:
        async with AgentHarness(Odd):
            pass

    with pytest.raises(ServeError, match=r"Odd\.redelivery .* not 'exactly_once'"):
        asyncio.run(serve())
