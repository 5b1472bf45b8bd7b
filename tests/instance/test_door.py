"""Connections come, talk and go in order, whatever the hooks do."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from contextvars import ContextVar

import pytest

from jupyter_agents import Agent, callable_method
from jupyter_agents.host.host import HostLimits
from jupyter_agents.testing import AgentHarness


class Echo(Agent):
    def on_message(self, connection, message):
        connection.send(message)


async def test_state_set_in_on_connect_is_there_at_the_first_message():
    """T021: of 25 messages sent at once on open, the first sees the connection's state."""

    class Careful(Agent):
        async def on_connect(self, connection, ctx):
            await asyncio.sleep(0)
            connection.set_state({"ready": True})

        def on_message(self, connection, message):
            connection.send_json([message, connection.state])

    async with AgentHarness(Careful) as harness:
        client = await harness.connect(Careful, "x", wait=False)
        for n in range(25):
            await client.send(str(n))
        got = [await client.receive_json() for _ in range(25)]
        assert got == [[str(n), {"ready": True}] for n in range(25)]


async def test_plain_hooks_greet_at_once():
    """Who comes is greeted without a task, unless a hook leaves something to await."""

    class Plain(Agent):
        def on_connect(self, connection, ctx):
            connection.send("own")

    class Patient(Agent):
        def get_connection_tags(self, connection, ctx):
            return asyncio.sleep(0, ["late"])  # plain, and yet to be awaited

        def on_connect(self, connection, ctx):
            connection.send(",".join(connection.tags[1:]))

    async with AgentHarness(Plain, Patient) as harness:
        spawned = harness.host.under_way.spawned
        plain = await harness.connect(Plain, "x")
        assert plain.frames[-1] == "own"
        assert harness.host.under_way.spawned == spawned
        patient = await harness.connect(Patient, "x")
        assert patient.frames[-1] == "late"
        assert harness.host.under_way.spawned == spawned + 1


async def test_what_a_greeting_sets_is_its_own():
    """A context variable that `on_connect` sets is not seen by the messages, sync hook or not."""
    mine = ContextVar("mine", default="unset")

    class Setter(Agent):
        def on_connect(self, connection, ctx):
            mine.set("set")

        def on_message(self, connection, message):
            connection.send(mine.get())

    async with AgentHarness(Setter) as harness:
        client = await harness.connect(Setter, "x")
        await client.send("?")
        assert await client.receive() == "unset"


async def test_protocol_frames_come_before_the_agents_own():
    """T022, T023: identity, then state, then what `on_connect` sent and a broadcast."""

    class Greeter(Agent):
        initial_state = {"n": 1}

        async def on_connect(self, connection, ctx):
            connection.send("own")
            self.broadcast("all")
            await asyncio.sleep(0)

    async with AgentHarness(Greeter) as harness:
        client = await harness.connect(Greeter, "x")
        identity, state, own, everyone = client.frames
        assert json.loads(identity) == {
            "type": "cf_agent_identity",
            "name": "x",
            "agent": "greeter",
            "stateFollows": True,
        }
        assert json.loads(state) == {"type": "cf_agent_state", "state": {"n": 1}}
        assert (own, everyone) == ("own", "all")


async def test_identity_can_be_switched_off():
    """T024: without identity the state frame still comes."""

    class Quiet(Agent):
        initial_state = 0
        send_identity_on_connect = False

    async with AgentHarness(Quiet) as harness:
        client = await harness.connect(Quiet, "x")
        assert [json.loads(f)["type"] for f in client.frames] == ["cf_agent_state"]
        assert client.state == 0


async def test_refused_visitor_sees_neither_identity_nor_state():
    """T009 of the seed: closing with 4001 in `on_connect` shows the visitor the close only."""

    class Guarded(Agent):
        initial_state = {"secret": 1}

        def on_connect(self, connection, ctx):
            if ctx.query.get("token") != "right":
                connection.close(4001, "Unauthorized")

    async with AgentHarness(Guarded) as harness:
        refused = await harness.connect(Guarded, "x")
        closed = await refused.until_closed()
        assert (closed.code, closed.reason, closed.final) == (4001, "Unauthorized", True)
        assert refused.frames == []
        welcome = await harness.connect(Guarded, "x", query={"token": "right"})
        assert welcome.state == {"secret": 1}


async def test_close_frame_of_the_client_reaches_on_close():
    """T028: code and reason of the client reach `on_close`, where the state is still readable."""
    seen = []

    class Watcher(Agent):
        def on_connect(self, connection, ctx):
            connection.set_state("mine")

        def on_close(self, connection, code, reason, was_clean):
            listed = len(self.get_connections())
            seen.append((code, reason, was_clean, connection.state, listed))
            connection.close()  # T030: harmless
            assert connection.send("late") is False

    async with AgentHarness(Watcher) as harness:
        client = await harness.connect(Watcher, "x")
        await client.close(4100, "bye")
        assert seen == [(4100, "bye", True, "mine", 0)]
        assert type(seen[0][2]) is bool


async def test_vanished_peer_is_1006():
    """WIRE 7: a peer that vanished closes with 1006, not clean."""
    seen = []

    class Watcher(Agent):
        def on_close(self, connection, code, reason, was_clean):
            seen.append((code, was_clean))

    async with AgentHarness(Watcher) as harness:
        client = await harness.connect(Watcher, "x")
        await client.vanish()
        assert seen == [(1006, False)]


async def test_on_close_runs_though_a_handler_still_awaits():
    """WIRE 8: `on_close` does not wait for another handler of its connection."""
    gate = asyncio.Event()
    seen = []

    class Slow(Agent):
        async def on_message(self, connection, message):
            await gate.wait()
            seen.append("message")

        def on_close(self, connection, code, reason, was_clean):
            seen.append("close")

    async with AgentHarness(Slow) as harness:
        client = await harness.connect(Slow, "x")
        await client.send("hi")
        await client.close()
        assert seen == ["close"]
        gate.set()
        await harness.idle()
        assert seen == ["close", "message"]


async def test_on_close_runs_once_after_the_agent_closed():
    """WIRE 8: a close by the agent runs `on_close` once; a second close changes nothing."""
    seen = []

    class Closer(Agent):
        def on_message(self, connection, message):
            connection.close(4000, "first")
            connection.close(4001, "second")

        def on_close(self, connection, code, reason, was_clean):
            seen.append((code, reason))

    async with AgentHarness(Closer) as harness:
        client = await harness.connect(Closer, "x")
        await client.send("go")
        await client.until_closed()
        await harness.idle()
        assert seen == [(4000, "first")]


async def test_no_hook_runs_for_a_client_that_left_before_on_start_ended():
    """A client that leaves while the instance starts has neither `on_connect` nor `on_close`."""
    gate = asyncio.Event()
    seen = []

    class Late(Agent):
        async def on_start(self, props=None):
            await gate.wait()

        def on_connect(self, connection, ctx):
            seen.append("connect")

        def on_close(self, connection, code, reason, was_clean):
            seen.append("close")

    async with AgentHarness(Late) as harness:
        client = await harness.connect(Late, "x", wait=False)
        await harness.idle()
        await client.vanish()
        gate.set()
        await harness.idle()
        assert seen == []


async def test_failing_on_connect_closes_1011_and_leaves_no_ghost():
    """T037, WIRE 7: 1011 without a stack, `on_error` has the connection, nothing stays listed."""
    seen = []

    class Broken(Agent):
        async def on_connect(self, connection, ctx):
            connection.send("never mind")
            raise RuntimeError("secret detail")

        def on_error(self, connection, error):
            seen.append((connection.id, str(error)))

        def on_close(self, connection, code, reason, was_clean):
            seen.append(code)

    async with AgentHarness(Broken) as harness:
        client = await harness.connect(Broken, "x", connection_id="A")
        closed = await client.until_closed()
        await harness.idle()
        assert (closed.code, closed.reason) == (1011, "Internal error")
        assert not any("secret" in frame for frame in client.frames)
        assert len(harness.instance(Broken, "x").connections()) == 0
        assert seen == [("A", "secret detail"), 1011]


@pytest.mark.parametrize(
    "tags", [["t"] * 9 + ["u"], [""], ["x" * 257], [7], "one string"], ids=repr
)
async def test_unusable_tags_close_with_1011(tags):
    """T045: too many, empty, long or wrong tags are an error that names the rule."""
    errors = []

    class Tagged(Agent):
        def get_connection_tags(self, connection, ctx):
            return tags

        def on_error(self, connection, error):
            errors.append(error)

    async with AgentHarness(Tagged) as harness:
        client = await harness.connect(Tagged, "x")
        assert (await client.until_closed()).code == 1011
        assert isinstance(errors[0], (TypeError, ValueError))


@pytest.mark.parametrize(
    "text",
    ["{bad", "null", "", "{}", "[]", '{"type":5}', '{"type":null}', ' ["rpc"]', '\n"cf_agent_"'],
)
async def test_odd_text_goes_to_on_message(text):
    """T039, T040: whatever is not ours goes to `on_message`, and the connection lives."""
    async with AgentHarness(Echo) as harness:
        client = await harness.connect(Echo, "x")
        await client.send(text)
        assert await client.receive() == text
        assert client.closed is None


async def test_binary_arrives_as_bytes():
    """T041: binary is bytes, an empty one too.

    RPC in a binary frame is the agent's own message.
    """
    async with AgentHarness(Echo) as harness:
        client = await harness.connect(Echo, "x")
        for message in (b"", b"\x00\xff", b'{"type":"rpc","id":"1","method":"x","args":[]}'):
            await client.send(message)
            assert await client.receive() == message


async def test_raising_on_message_keeps_the_connection():
    """WIRE 7: the client sees nothing, `on_error` gets both arguments, the next works."""
    seen = []

    class Touchy(Agent):
        def on_message(self, connection, message):
            if message == "bad":
                raise ValueError("no")
            connection.send(message)

        def on_error(self, connection, error):
            seen.append((connection.id, type(error)))

    async with AgentHarness(Touchy) as harness:
        client = await harness.connect(Touchy, "x", connection_id="A")
        await client.send("bad")
        await client.send("good")
        assert await client.receive() == "good"
        assert seen == [("A", ValueError)]


async def test_raising_on_close_is_reported():
    """T029: an error in `on_close` reaches `on_error` and nothing hangs."""
    seen = []

    class Touchy(Agent):
        def on_close(self, connection, code, reason, was_clean):
            raise ValueError("no")

        def on_error(self, connection, error):
            seen.append(type(error))

    async with AgentHarness(Touchy) as harness:
        client = await harness.connect(Touchy, "x")
        await client.close()
        assert seen == [ValueError]


async def test_two_sockets_may_share_an_id():
    """T049, WIRE 2: both are served, the newest answers to the id."""
    async with AgentHarness(Echo) as harness:
        old = await harness.connect(Echo, "x", connection_id="A")
        new = await harness.connect(Echo, "x", connection_id="A")
        agent = harness.agent(Echo, "x")
        assert len(agent.get_connections()) == 2
        agent.get_connection("A").send("newest")
        assert await new.receive() == "newest"
        await new.close()
        agent.get_connection("A").send("the other")
        assert await old.receive() == "the other"


async def test_handlers_interleave_at_awaits_and_start_in_order():
    """WIRE 10: messages of one connection start in order; a later one may end first."""
    gate = asyncio.Event()

    class Slow(Agent):
        async def on_message(self, connection, message):
            connection.send(f"start {message}")
            if message == "1":
                await gate.wait()
            connection.send(f"end {message}")

    async with AgentHarness(Slow) as harness:
        client = await harness.connect(Slow, "x")
        await client.send("1")
        await client.send("2")
        got = [await client.receive() for _ in range(3)]
        assert got.index("start 1") < got.index("start 2") < got.index("end 2")
        gate.set()
        assert await client.receive() == "end 1"


async def test_busy_agent_holds_back_its_sender_only():
    """A connection whose handlers pile up is read no more until they end; another one goes on."""
    gate = asyncio.Event()

    class Slow(Agent):
        async def on_message(self, connection, message):
            if message != "quick":
                await gate.wait()
            connection.send(message)

    async with AgentHarness(Slow, limits=HostLimits(max_running=3, settle_s=0.01)) as harness:
        flood = await harness.connect(Slow, "x")
        calm = await harness.connect(Slow, "x")
        for n in range(10):
            await flood.send(str(n))
        await harness.idle()
        assert flood.is_paused
        assert not calm.is_paused
        await calm.send("quick")
        assert await calm.receive() == "quick"
        gate.set()
        assert [await flood.receive() for _ in range(10)] == [str(n) for n in range(10)]
        await harness.idle()
        assert not flood.is_paused


async def test_connection_state_tags_and_uri_survive_a_restart():
    """T035: after a restart uri, tags and state are back, and `on_connect` did not run."""
    ran = []

    class Room(Agent):
        def on_connect(self, connection, ctx):
            ran.append(connection.id)
            connection.set_state({"name": "ann"})

        def on_message(self, connection, message):
            connection.send_json([connection.uri, connection.tags, connection.state])

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x", query={"a": "1"}, connection_id="A")
        await client.send("?")
        before = await client.receive_json()
        assert before == ["http://test/agents/room/x?a=1", ["A"], {"name": "ann"}]
        await harness.restart()
        await client.send("?")
        assert await client.receive_json() == before
        assert ran == ["A"]


async def test_client_that_left_while_the_kernel_was_away_gets_its_on_close():
    """WIRE 8: `on_close` runs once, when the class is served again."""
    seen = []

    class Room(Agent):
        def on_close(self, connection, code, reason, was_clean):
            seen.append((connection.id, code))

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x", connection_id="A")
        await harness.stop_host()
        await client.close(4100)
        assert seen == []
        await harness.restart(Room)
        assert seen == [("A", 4100)]


async def test_messages_sent_while_the_kernel_was_away_arrive_in_order():
    """What clients sent meanwhile waits in the server and is delivered in order."""
    async with AgentHarness(Echo) as harness:
        client = await harness.connect(Echo, "x")
        await harness.stop_host()
        for n in range(5):
            await client.send(str(n))
        await harness.restart(Echo)
        assert [await client.receive() for _ in range(5)] == list("01234")


async def test_broken_rule_of_the_wire_reaches_on_error_then_on_close():
    """T033, WIRE 7: an oversize frame is told to `on_error`, then `on_close` runs."""
    seen = []

    class Room(Agent):
        def on_error(self, connection, error):
            seen.append(str(error))

        def on_close(self, connection, code, reason, was_clean):
            seen.append(code)

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        harness.relay.failed(client.record, "too big")
        harness.relay.closed(client.record, 1009, "", False)
        await harness.idle()
        assert seen == ["too big", 1009]


async def test_connection_that_is_over_holds_no_agent():
    """A closed connection and the agent are no ring that waits for the collector."""

    class Room(Agent):
        def on_message(self, connection, message):
            self.set_state(message)

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        await client.send("hello")
        [connection] = harness.instance(Room, "x").connections()
        gone = weakref.ref(connection)
        del connection
        gc.disable()
        try:
            await client.close()
            assert gone() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("last", ["close", "call", "message", "write"])
async def test_plain_code_does_not_overtake_what_came_before(last):
    """WIRE 10: start order is arrival order, also where a coroutine is followed by a function."""
    lines = []

    class Mixed(Agent):
        initial_state = 0

        @callable_method
        async def first(self):
            lines.append("first")

        @callable_method
        def plain(self):
            lines.append("call")

        def on_message(self, connection, message):
            lines.append(message)

        def validate_state_change(self, next_state, source):
            if source != "server":
                lines.append("write")

        def on_close(self, connection, code, reason, was_clean):
            lines.append("close")

    frames = {
        "call": {"type": "rpc", "id": "2", "method": "plain", "args": []},
        "write": {"type": "cf_agent_state", "state": 1},
    }
    async with AgentHarness(Mixed) as harness:
        client = await harness.connect(Mixed, "x")
        call = {"type": "rpc", "id": "1", "method": "first", "args": []}
        # what one read of the link brings
        await client.send_json(call)
        await client.send_json(call)
        if last in frames:
            await client.send_json(frames[last])
        elif last == "message":
            await client.send("message")
        await client.close()
        before = [] if last == "close" else [last]
        assert lines == ["first", "first", *before, "close"]
        assert client.record.number not in harness.host.connections


async def test_many_coroutines_of_one_read_begin_together():
    """Coroutines need not wait for each other: they begin in order anyway."""
    begun, go_on = [], asyncio.Event()

    class Patient(Agent):
        async def on_message(self, connection, message):
            begun.append(message)
            await go_on.wait()

    async with AgentHarness(Patient) as harness:
        client = await harness.connect(Patient, "x")
        for number in range(50):
            await client.send(f'{{"n": {number}}}')
        [connection] = harness.host.connections.values()
        await asyncio.sleep(0)  # what the link delivers with the loop's next turn
        assert connection.running == 50
        assert not connection.inbox
        await harness.idle()
        assert begun == [f'{{"n": {number}}}' for number in range(50)]
        go_on.set()
