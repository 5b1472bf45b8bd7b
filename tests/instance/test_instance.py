"""An instance starts once, before anything else, and goes on under new code."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_agents import Agent, CallFailed, callable_method
from jupyter_agents.testing import AgentHarness


class Journal(Agent):
    """Writes down what happens to it."""

    def __init__(self):
        super().__init__()
        self.lines = [f"init {self.name}"]

    async def on_start(self, props=None):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.lines.append(f"start {props}")

    def on_connect(self, connection, ctx):
        self.lines.append("connect")

    def on_message(self, connection, message):
        self.lines.append(f"message {message}")

    def on_request(self, request):
        self.lines.append("request")
        return {"lines": self.lines}


async def test_on_start_runs_once_before_everything():
    """T001, T002: with a slow `on_start`, a request and two sockets wait, and it runs once."""
    async with AgentHarness(Journal) as harness:
        a, b, answer = await asyncio.gather(
            harness.connect(Journal, "x"),
            harness.connect(Journal, "x"),
            harness.request(Journal, "x"),
        )
        assert a.closed is None
        assert b.closed is None
        lines = harness.agent(Journal, "x").lines
        assert lines[:2] == ["init x", "start None"]
        assert lines.count("start None") == 1
        assert answer.status == 200


class Fussy(Agent):
    fails = 1

    def on_start(self, props=None):
        type(self).fails -= 1
        if type(self).fails >= 0:
            raise RuntimeError("not yet")

    def on_message(self, connection, message):
        connection.send(message)

    def on_request(self, request):
        return "up"


async def test_failed_start_is_a_clean_500_and_is_tried_again():
    """T003, T004: a failing `on_start` answers a bare 500, and the next request retries."""
    Fussy.fails = 1
    async with AgentHarness(Fussy) as harness:
        answer = await harness.request(Fussy, "x")
        assert answer.status == 500
        assert answer.json() == {"error": "Internal error"}
        assert (await harness.request(Fussy, "x")).text == "up"


async def test_failed_start_closes_a_new_connection_with_1011():
    """A visitor of an instance that cannot start is closed with 1011; no ghost stays."""
    Fussy.fails = 1
    async with AgentHarness(Fussy) as harness:
        client = await harness.connect(Fussy, "x")
        closed = await client.until_closed()
        assert (closed.code, closed.reason) == (1011, "Internal error")
        assert len(harness.instance(Fussy, "x").connections()) == 0


async def test_live_socket_survives_a_failed_start():
    """T005: when the instance wakes for a message and cannot start, the next message retries."""
    Fussy.fails = 0
    async with AgentHarness(Fussy) as harness:
        client = await harness.connect(Fussy, "x")
        harness.instance(Fussy, "x").sleep()
        Fussy.fails = 1
        await client.send("lost")
        await harness.idle()
        assert client.closed is None
        await client.send("kept")
        assert await client.receive() == "kept"


async def test_sleep_drops_fields_and_keeps_state_and_sockets():
    """T013: an instance that slept has lost its fields and kept its state."""

    class Sleeper(Agent):
        initial_state = {"n": 0}
        field = "fresh"

        def on_message(self, connection, message):
            self.set_state({"n": self.state["n"] + 1})
            connection.send(f"{self.field} {self.state['n']}")
            self.field = "used"

    async with AgentHarness(Sleeper) as harness:
        client = await harness.connect(Sleeper, "x")
        await client.send("1")
        assert await client.receive() == "fresh 1"
        await client.send("2")
        assert await client.receive() == "used 2"
        harness.instance(Sleeper, "x").sleep()
        await client.send("3")
        assert await client.receive() == "fresh 3"


async def test_two_names_are_two_instances():
    """T154: state and connections of two names never meet."""
    async with AgentHarness(Journal) as harness:
        a = await harness.connect(Journal, "a")
        await harness.connect(Journal, "b")
        await a.send("hi")
        await harness.idle()
        assert "message hi" in harness.agent(Journal, "a").lines
        assert "message hi" not in harness.agent(Journal, "b").lines
        assert len(harness.instance(Journal, "a").connections()) == 1


def version(number, *, broken=False):
    """One edition of a class, as a cell that is run again makes it."""

    class Room(Agent):
        initial_state = {"n": 0}

        def __init__(self):
            super().__init__()
            if broken:
                raise RuntimeError("cannot be made")
            self.seen = []

        def on_message(self, connection, message):
            self.seen.append(message)
            connection.send(f"v{number} {len(self.seen)}")

        @callable_method
        def bump(self):
            self.set_state({"n": self.state["n"] + 1})
            return self.state["n"]

    return Room


async def test_new_code_goes_on_under_live_connections():
    """T198: new calls use the new code; state, fields and connections remain."""
    async with AgentHarness(version(1)) as harness:
        client = await harness.connect("room", "x")
        await client.send("a")
        assert await client.receive() == "v1 1"
        assert await client.call("bump") == 1
        await harness.serve(version(2))
        await client.send("b")
        assert await client.receive() == "v2 2"
        assert await client.call("bump") == 2


async def test_code_that_fails_leaves_the_old_running():
    """T198: a class that cannot be made raises where it is served, and the old one goes on."""
    async with AgentHarness(version(1)) as harness:
        client = await harness.connect("room", "x")
        await client.send("a")
        assert await client.receive() == "v1 1"
        with pytest.raises(RuntimeError, match="cannot be made"):
            await harness.serve(version(2, broken=True))
        await client.send("b")
        assert await client.receive() == "v1 2"


async def test_on_code_changed_sees_the_old_object():
    """A class may take over by itself what it needs of its former self."""

    class First(Agent):
        kept = 7

    class Second(Agent):
        def on_code_changed(self, old):
            self.taken = old.kept

        @callable_method
        def look(self):
            return self.taken

    Second.__name__ = First.__name__
    async with AgentHarness(First) as harness:
        client = await harness.connect(First, "x")
        await harness.serve(Second)
        assert await client.call("look") == 7


async def test_destroy_drops_what_is_stored_and_ends_the_instance():
    """T019, L10: after destroy, the connections are closed and the next arrival starts anew."""

    class Mortal(Agent):
        initial_state = {"n": 0}

        @callable_method
        def bump(self):
            self.set_state({"n": self.state["n"] + 1})

        @callable_method
        async def end(self):
            await self.destroy()

    async with AgentHarness(Mortal) as harness:
        client = await harness.connect(Mortal, "x")
        await client.call("bump")
        assert harness.storage.load("mortal", "x").state_json == b'{"n":1}'
        await client.send_json({"type": "rpc", "id": "1", "method": "end", "args": []})
        assert (await client.until_closed()).code == 1001
        assert harness.storage.load("mortal", "x").state_json is None
        again = await harness.connect(Mortal, "x")
        assert again.state == {"n": 0}


async def test_reset_keeps_the_clients():
    """`reset` drops what is stored; the clients stay and see the initial state."""
    async with AgentHarness(version(1)) as harness:
        client = await harness.connect("room", "x")
        await client.call("bump")
        assert client.state == {"n": 1}
        harness.instance("room", "x").reset()
        await client.until_state({"n": 0})
        assert client.closed is None


async def test_on_stop_runs_when_the_class_is_withdrawn():
    """A class that is stopped closes its clients with 1001, and `on_close` and `on_stop` run."""
    lines = []

    class Ending(Agent):
        def on_close(self, connection, code, reason, was_clean):
            lines.append(("close", code))

        async def on_stop(self):
            await asyncio.sleep(0)
            lines.append("stop")

    async with AgentHarness(Ending) as harness:
        client = await harness.connect(Ending, "x")
        await harness.host.withdraw("ending")
        assert (await client.until_closed()).code == 1001
        assert lines == [("close", 1001), "stop"]


async def test_base_class_without_host_says_what_to_do():
    """An Agent that nobody hosts says so instead of failing obscurely."""
    with pytest.raises(RuntimeError, match="not hosted"):
        Journal.__new__(Journal).broadcast("x")


async def test_get_connections_has_a_length_and_tags():
    """T043, T044: connections by tag; the id is the first tag."""

    class Tagged(Agent):
        async def get_connection_tags(self, connection, ctx):
            return [ctx.query["role"]]

    async with AgentHarness(Tagged) as harness:
        await harness.connect(Tagged, "x", query={"role": "admin"}, connection_id="A")
        await harness.connect(Tagged, "x", query={"role": "guest"}, connection_id="B")
        agent = harness.agent(Tagged, "x")
        assert len(agent.get_connections()) == 2
        assert [c.id for c in agent.get_connections("admin")] == ["A"]
        assert agent.get_connection("B").tags == ("B", "guest")
        assert agent.get_connection("C") is None


async def test_tags_survive_a_restart():
    """T043: after a restart of the kernel the connections still answer to their tags."""

    class Tagged(Agent):
        def get_connection_tags(self, connection, ctx):
            return ["t"]

    async with AgentHarness(Tagged) as harness:
        await harness.connect(Tagged, "x", connection_id="A")
        await harness.restart()
        assert [c.tags for c in harness.agent(Tagged, "x").get_connections("t")] == [("A", "t")]


async def test_broadcast_reaches_all_but_the_listed():
    """T046: everyone, the sender included, but the listed ids; unknown ids are fine."""

    class Room(Agent):
        def on_message(self, connection, message):
            self.broadcast(message, without=["B", "nobody"])

    async with AgentHarness(Room) as harness:
        a, b, c = [await harness.connect(Room, "x", connection_id=i) for i in "ABC"]
        await a.send("hi")
        assert await a.receive() == "hi"
        assert await c.receive() == "hi"
        await b.expect_nothing()


async def test_broadcast_crosses_the_link_once():
    """One broadcast is one frame of the link, whatever the size of the room."""

    class Room(Agent):
        def on_message(self, connection, message):
            self.broadcast(message)

    async with AgentHarness(Room) as harness:
        clients = [await harness.connect(Room, "x") for _ in range(50)]
        sent = []
        forward = harness.link.send_frames
        harness.link.send_frames = lambda frames: (sent.extend(frames), forward(frames))
        await clients[0].send("hi")
        for client in clients:
            assert await client.receive() == "hi"
        assert len(sent) == 1


async def test_broadcast_wants_text_or_bytes_and_a_list_of_ids():
    """A wrong message, or one string for `without`, is a TypeError at once."""
    async with AgentHarness(Journal) as harness:
        await harness.connect(Journal, "x")
        agent = harness.agent(Journal, "x")
        with pytest.raises(TypeError, match="must be str or bytes, not dict"):
            agent.broadcast({"a": 1})
        with pytest.raises(TypeError, match="not one string"):
            agent.broadcast("hi", without="abc")
        with pytest.raises(TypeError, match="object"):
            agent.broadcast_json({"a": object()})


async def test_broadcast_from_another_thread_keeps_its_order():
    """A cell's thread may broadcast; what it sends arrives in its order."""
    async with AgentHarness(Journal) as harness:
        client = await harness.connect(Journal, "x")
        agent = harness.agent(Journal, "x")
        await asyncio.to_thread(lambda: [agent.broadcast(str(n)) for n in range(500)])
        assert [await client.receive() for _ in range(500)] == [str(n) for n in range(500)]


async def test_call_of_unknown_method_does_not_wake_trouble():
    """An unknown method answers with the SDK's sentence."""
    async with AgentHarness(Journal) as harness:
        client = await harness.connect(Journal, "x")
        with pytest.raises(CallFailed, match=r"^Method nothing does not exist$"):
            await client.call("nothing")
