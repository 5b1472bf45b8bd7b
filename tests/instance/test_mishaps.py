"""What comes in the middle of something else: exits, ends, new code, sleep, another kernel."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from traitlets import Int, validate

from jupyter_agents import Agent, callable_method, get_current_agent
from jupyter_agents.host.host import AgentHost, Hosted, HostLimits
from jupyter_agents.link.frames import Kind, pack_object
from jupyter_agents.standalone import LocalLink
from jupyter_agents.testing import AgentHarness


def call(method, *args):
    """A call as a client sends it."""
    return {"type": "rpc", "id": method, "method": method, "args": list(args)}


# -- exits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("hook", ["on_message", "on_connect", "on_close", "on_state_changed"])
@pytest.mark.parametrize("later", [False, True])
async def test_hook_that_exits_is_an_error_like_any_other(hook, error, later, caplog):
    """`sys.exit()` in a hook is reported, and neither ends the loop nor harms anybody else."""
    errors = []

    def now(self, *args):
        raise error("out")

    async def soon(self, *args):
        await asyncio.sleep(0)
        raise error("out")

    class Room(Agent):
        initial_state = {"n": 0}

        def on_error(self, connection, error):
            errors.append(type(error))

        @callable_method
        def still(self):
            return "here"

    broken = type("Broken", (Room,), {hook: soon if later else now})
    async with AgentHarness(Room, broken) as harness:
        client = await harness.connect(broken, "x")
        if client.closed is None:
            await client.send("x")
            await client.set_state({"n": 1})
            await client.close()
        await harness.idle()
        assert errors == [error]
        assert await (await harness.connect(Room, "y")).call("still") == "here"


async def test_exit_in_on_start_and_on_error_is_reported(caplog):
    """An agent that exits while it starts is tried again by the next arrival."""
    starts = []

    class Room(Agent):
        def on_start(self, props=None):
            starts.append(1)
            if len(starts) == 1:
                raise SystemExit

        def on_error(self, connection, error):
            raise SystemExit

    async with AgentHarness(Room) as harness:
        assert (await harness.connect(Room, "x")).closed.code == 1011
        assert (await harness.connect(Room, "x")).closed is None
    assert caplog.text.count("SystemExit") >= 2


async def test_exit_in_a_validator_refuses_the_write():
    """A validator that exits refuses, and its writer is told."""

    class Room(Agent):
        initial_state = {"n": 0}

        def validate_state_change(self, next_state, source):
            if next_state["n"] == 1:
                raise SystemExit

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        await client.set_state({"n": 1})
        assert client.state_errors == ["State update rejected"]
        await client.set_state({"n": 2})
        assert harness.agent(Room, "x").state == {"n": 2}


# -- clients that come and go ------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0, 1])
async def test_client_that_speaks_and_goes_at_once_is_heard(wait):
    """A message sent before the close is handled before `on_close`, also while it connects."""
    seen = []

    class Room(Agent):
        async def on_connect(self, connection, ctx):
            for _ in range(wait * 5):
                await asyncio.sleep(0)
            seen.append("connect")

        def on_message(self, connection, message):
            seen.append(message)
            assert connection.send("too late") is False

        def on_close(self, connection, code, reason, was_clean):
            seen.append(code)

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x", wait=False)
        await client.send("one")
        await client.send("two")
        await client.close(1000)
        for _ in range(20):
            await harness.idle()
        assert seen == ["connect", "one", "two", 1000]
        assert client.frames == []
        assert not harness.agent(Room, "x").get_connections()


async def test_refused_visitor_is_not_heard():
    """What a visitor sent that `on_connect` turned away, or failed for, reaches no hook."""
    seen = []

    class Room(Agent):
        async def on_connect(self, connection, ctx):
            await asyncio.sleep(0)
            if ctx.query["how"] == "close":
                connection.close(4001, "no")
                await asyncio.sleep(0)
            else:
                raise ValueError

        def on_message(self, connection, message):
            seen.append(message)

        def on_close(self, connection, code, reason, was_clean):
            seen.append(code)

    async with AgentHarness(Room) as harness:
        for how in ("close", "raise"):
            client = await harness.connect(Room, "x", query={"how": how}, wait=False)
            await client.send("early")
            await client.until_closed()
            await harness.idle()
        assert seen == [4001, 1011]


async def test_every_connection_is_heard_after_waking():
    """Messages of several connections wait while the agent wakes; so does a close."""
    seen, go = [], asyncio.Event()
    go.set()

    class Room(Agent):
        async def on_start(self, props=None):
            await go.wait()

        def on_message(self, connection, message):
            seen.append(message)

        def on_close(self, connection, code, reason, was_clean):
            seen.append(code)

    async with AgentHarness(Room) as harness:
        clients = [await harness.connect(Room, "x") for _ in range(3)]
        go.clear()
        harness.instance(Room, "x").sleep()
        for n, client in enumerate(clients):
            await client.send(f"{n}")
            await client.send(f"{n} again")
        await clients[2].close(1001)
        await harness.idle()
        assert seen == []
        go.set()
        for _ in range(10):
            await harness.idle()
        assert sorted(map(str, seen)) == ["0", "0 again", "1", "1 again", "1001", "2", "2 again"]
        assert seen.index("2 again") < seen.index(1001)


async def test_failing_arrival_harms_no_other(caplog):
    """What one arrival cannot do is logged; those after it are done."""
    seen, go = [], asyncio.Event()

    class Room(Agent):
        async def on_start(self, props=None):
            await go.wait()

    async with AgentHarness(Room) as harness:
        instance = harness.instance(Room, "x")
        instance.arrive(lambda: 1 / 0, seen.append)
        instance.arrive(lambda: seen.append("second"), seen.append)
        go.set()
        await harness.idle()
        assert seen == ["second"]
        assert "ZeroDivisionError" in caplog.text


async def test_request_given_up_while_the_agent_starts_leaves_nothing():
    """Who waits for a start no longer is forgotten."""

    class Room(Agent):
        async def on_start(self, props=None):
            await asyncio.Event().wait()

    async with AgentHarness(Room, limits=HostLimits(stop_s=0.01)) as harness:
        instance = harness.instance(Room, "x")
        for _ in range(20):
            waiting = asyncio.ensure_future(instance.until_started())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert instance._arrivals == []


# -- while on_start runs -----------------------------------------------------------------------


def starting(go, seen, version=1):
    """A class whose `on_start` waits, and notes what happens."""

    class Room(Agent):
        async def on_start(self, props=None):
            seen.append(f"start {version}")
            try:
                await go.wait()
            except asyncio.CancelledError:
                seen.append(f"cancelled {version}")
                raise
            self.ready = version

        def on_message(self, connection, message):
            seen.append((message, self.ready))

    return Room


async def test_new_code_while_the_old_starts_starts_itself():
    """The new object gets its own `on_start` before anything else; the old one is cancelled."""
    seen, go = [], asyncio.Event()
    async with AgentHarness(starting(go, seen)) as harness:
        client = await harness.connect("room", "x", wait=False)
        await client.send("hello")
        await harness.idle()
        await harness.serve(starting(go, seen, 2))
        go.set()
        for _ in range(10):
            await harness.idle()
        assert sorted(seen[:3]) == ["cancelled 1", "start 1", "start 2"]
        assert seen[3:] == [("hello", 2)]


@pytest.mark.parametrize("what", ["sleep", "reset"])
async def test_sleep_or_reset_while_it_starts_starts_anew(what):
    """Whatever waits is served by an object whose own `on_start` has ended."""
    seen, go = [], asyncio.Event()
    async with AgentHarness(starting(go, seen)) as harness:
        client = await harness.connect("room", "x", wait=False)
        await client.send("hello")
        await harness.idle()
        getattr(harness.instance("room", "x"), what)()
        go.set()
        for _ in range(10):
            await harness.idle()
        assert seen.count("start 1") == 2
        assert seen[-1] == ("hello", 1)


async def test_instance_destroyed_while_it_starts_lets_nobody_wait():
    """Those who wait for it are turned away, and the next arrival gets another instance."""
    seen, go = [], asyncio.Event()
    async with AgentHarness(starting(go, seen)) as harness:
        client = await harness.connect("room", "x", wait=False)
        asked = asyncio.ensure_future(harness.request("room", "x"))
        await harness.idle()
        harness.instance("room", "x").destroy()
        assert (await client.until_closed()).code == 1011
        assert (await asked).status == 500
        go.set()
        again = await harness.connect("room", "x")
        assert again.closed is None
        await again.send("hello")
        await harness.idle()
        assert seen[-1] == ("hello", 1)


# -- what is over ------------------------------------------------------------------------------


async def test_destroyed_instance_stores_nothing_more():
    """What `on_close`, or a task, sets after the end is kept nowhere."""
    go = asyncio.Event()

    class Room(Agent):
        initial_state = {"n": 0}

        def on_close(self, connection, code, reason, was_clean):
            self.set_state({"n": 99})
            self.private_state = 99

        @callable_method
        async def end(self):
            await self.destroy()
            await go.wait()
            self.set_state({"n": 98})

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        await client.set_state({"n": 1})
        await client.send_json(call("end"))
        await client.until_closed()
        go.set()
        for _ in range(5):
            await harness.idle()
        assert harness.storage.names("room") == []


async def test_class_that_was_stopped_stores_nothing_more():
    """A task that outlives its class does not overwrite what the next one stores."""
    go = asyncio.Event()

    class Room(Agent):
        initial_state = {"n": 0}

        def on_stop(self):
            self.set_state({"n": 5})

        @callable_method
        async def linger(self):
            await go.wait()
            self.set_state({"n": 98})

    async with AgentHarness(Room) as harness:
        harness.host.limits = harness._limits.__class__(stop_s=0.01)
        client = await harness.connect(Room, "x")
        await client.send_json(call("linger"))
        await harness.idle()
        await harness.host.withdraw("room")
        await harness.serve(Room)
        again = await harness.connect(Room, "x")
        assert again.state == {"n": 5}
        await again.set_state({"n": 6})
        go.set()
        for _ in range(5):
            await harness.idle()
        assert harness.storage.load("room", "x").state_json == b'{"n":6}'
        assert again.state != {"n": 98}


async def test_kernel_that_lost_its_class_stores_nothing_more():
    """After a takeover, what the old kernel's `on_stop` sets does not undo the new one's."""

    class Room(Agent):
        initial_state = {"n": 0}

        def on_stop(self):
            self.set_state({"n": -1})

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        await client.set_state({"n": 1})
        other = AgentHost(asyncio.get_running_loop())
        link = LocalLink(harness.relay, other, {"kernel_id": "other"})
        link.id = "other"
        link.connect()
        await other.serve(Hosted(Room, "room", ("room", "Room"), harness.storage, takeover=True))
        await client.set_state({"n": 2})
        for _ in range(5):
            await harness.idle()
        assert harness.storage.load("room", "x").state_json == b'{"n":2}'
        assert harness.host.classes == {}
        # and back again
        await harness.host.serve(
            Hosted(Room, "room", ("room", "Room"), harness.storage, takeover=True)
        )
        await client.send_json(call("none"))
        await harness.idle()
        assert harness.agent(Room, "x").state == {"n": 2}
        await other.stop()


async def test_socket_of_a_class_that_was_just_stopped_is_no_error(caplog):
    """An OPEN that crosses the withdrawal is left to the server, which closes it."""

    class Room(Agent):
        pass

    async with AgentHarness(Room) as harness:
        harness.host.frames([(Kind.OPEN, 7, pack_object({"agent": "gone", "name": "x"}))])
        assert "could not be handled" not in caplog.text


async def test_versions_go_on_after_a_reset():
    """A client that was away during a reset cannot overwrite what it has never seen."""

    class Room(Agent):
        initial_state = {"n": 0}

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x", extended=True)
        for n in (1, 2, 3):
            harness.agent(Room, "x").set_state({"n": n})
        harness.host.end_turn()
        version = harness.agent(Room, "x")._kept.version
        harness.instance(Room, "x").reset()
        await harness.idle()
        assert harness.agent(Room, "x")._kept.version > version
        stale = {"type": "cf_agent_state", "state": {"n": 9}, "write": "w", "base": 1}
        await client.send_json(stale)
        await harness.idle()
        assert harness.agent(Room, "x").state == {"n": 0}


# -- handlers that outlive their object --------------------------------------------------------


def writers(go):
    """A free-form and a typed class with a method that writes after a while."""

    class Free(Agent):
        initial_state = {"n": 0}

        @callable_method
        async def later(self):
            await go.wait()
            self.set_state({"n": self.state["n"] + 5})

    class Typed(Agent):
        n = Int(0).tag(sync=True)
        old = Int(0).tag(sync=True)

        @callable_method
        async def later(self):
            await go.wait()
            self.old = 4
            self.n += 5

    return {"free": Free, "typed": Typed}


def newer(kind):
    """Their new code: the typed one has other fields and a limit."""

    class Free(Agent):
        initial_state = {"n": 0}

    class Typed(Agent):
        n = Int(0).tag(sync=True)
        new = Int(7).tag(sync=True)

        @validate("n")
        def _limited(self, proposal):
            return min(proposal["value"], 3)

    found = Free if kind == "free" else Typed
    found.__name__ = "Room"
    return found


@pytest.mark.parametrize("kind", ["free", "typed"])
async def test_handler_of_old_code_still_writes(kind):
    """T198: what a handler sets after the cell ran again is not lost, as far as it still fits."""
    go = asyncio.Event()
    cls = writers(go)[kind]
    cls.__name__ = "Room"
    async with AgentHarness(cls) as harness:
        client = await harness.connect("room", "x")
        await client.send_json(call("later"))
        await harness.idle()
        await harness.serve(newer(kind))
        go.set()
        for _ in range(5):
            await harness.idle()
        expected = {"n": 5} if kind == "free" else {"n": 3, "new": 7}
        agent = harness.agent("room", "x")
        assert agent.state == client.state == expected
        assert getattr(agent, "n", 3) == 3
        agent.set_state({**expected, "n": 1})
        await client.until_state({**expected, "n": 1})


@pytest.mark.parametrize("kind", ["free", "typed"])
@pytest.mark.parametrize("wakes", [False, True])
async def test_handler_that_outlives_a_sleep_still_writes(kind, wakes):
    """A write of a handler that was under way when its agent fell asleep is kept and told."""
    go = asyncio.Event()
    cls = writers(go)[kind]
    cls.__name__ = "Room"
    async with AgentHarness(cls) as harness:
        client = await harness.connect("room", "x")
        await client.send_json(call("later"))
        await harness.idle()
        harness.instance("room", "x").sleep()
        assert harness.instance("room", "x").object is None
        if wakes:
            await client.send("wake up")
            await harness.idle()
        go.set()
        for _ in range(5):
            await harness.idle()
        expected = {"n": 5} if kind == "free" else {"n": 5, "old": 4}
        assert client.state == expected
        assert harness.agent("room", "x").state == expected
        await client.set_state({**expected, "n": 6})
        assert harness.agent("room", "x").state == {**expected, "n": 6}


async def test_change_before_sleep_is_heard_by_the_object_that_made_it():
    """`on_state_changed` of the last change runs before the object is let go."""
    seen = []

    class Room(Agent):
        initial_state = {"n": 0}

        def on_start(self, props=None):
            self.mark = len(seen)

        def on_state_changed(self, state, source):
            seen.append((state["n"], hasattr(self, "mark")))

    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "x")
        seen.clear()
        harness.agent(Room, "x").set_state({"n": 1})
        harness.instance(Room, "x").sleep()
        await harness.idle()
        assert seen == [(1, True)]
        assert harness.instance(Room, "x").object is None


async def test_new_code_takes_over_attributes_and_traits():
    """Attributes, and traits that are no state, go on where the new code has them."""

    class First(Agent):
        n = Int(0).tag(sync=True)
        count = Int(0)
        gone = Int(0)

    class Second(Agent):
        n = Int(0).tag(sync=True)
        count = Int(0)
        label = Int(1)

    Second.__name__ = First.__name__
    async with AgentHarness(First) as harness:
        await harness.connect("first", "x")
        old = harness.agent("first", "x")
        old.n, old.count, old.gone, old.plain = 1, 2, 3, [4]
        await harness.serve(Second)
        new = harness.agent("first", "x")
        assert type(new) is Second
        assert (new.n, new.count, new.label, new.plain) == (1, 2, 1, [4])
        assert new.state == {"n": 1}


# -- views -------------------------------------------------------------------------------------


async def test_view_that_fails_hides_the_state_from_that_client_only(caplog):
    """A `view_state` that raises, or gives what is no JSON, shows nothing, and is reported."""
    errors = []

    class Room(Agent):
        initial_state = {"n": 0}

        def view_state(self, state, connection):
            how = connection.ctx.query.get("how")
            if how == "raise":
                raise ValueError("no view")
            return object() if how == "object" else state

        def on_error(self, connection, error):
            errors.append((connection.id, type(error)))

    async with AgentHarness(Room) as harness:
        fine = await harness.connect(Room, "x")
        raises = await harness.connect(Room, "x", connection_id="r", query={"how": "raise"})
        gives = await harness.connect(Room, "x", connection_id="o", query={"how": "object"})
        assert set(errors) == {("r", ValueError), ("o", TypeError)}
        harness.agent(Room, "x").set_state({"n": 1})
        await fine.until_state({"n": 1})
        assert (raises.state, gives.state) == (None, None)
        assert raises.closed is None


async def test_views_of_clients_that_all_go_at_once():
    """Where a server's clients all end, and `on_close` changes the state, nobody is missed."""
    seen = []

    class Room(Agent):
        initial_state = {"n": 0}

        def view_state(self, state, connection):
            return {"id": connection.id}

        def on_close(self, connection, code, reason, was_clean):
            self.set_state({"n": self.state["n"] + 1})
            seen.append(connection.id)

    async with AgentHarness(Room) as harness:
        for name in "abc":
            await harness.connect(Room, "x", connection_id=name)
        harness.host.link_down()
        harness.host.link_up(harness.link, {"server_id": "another"})
        await harness.idle()
        assert seen == ["a", "b", "c"]
        assert harness.agent(Room, "x").state == {"n": 3}


async def test_agent_that_sleeps_leaves_memory():
    """Nothing holds the object of an agent that fell asleep and has nothing under way."""

    class Room(Agent):
        initial_state = {"n": 0}

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        found = weakref.ref(harness.agent(Room, "x"))
        harness.instance(Room, "x").sleep()
        await harness.idle()
        gc.collect()
        assert found() is None
        assert client.closed is None


@pytest.mark.parametrize("what", ["sleep", "reset"])
async def test_handlers_know_the_object_that_runs_them(what):
    """After waking or a reset, `get_current_agent` gives the object of now, in every hook."""
    seen = []

    class Room(Agent):
        def on_message(self, connection, message):
            seen.append(get_current_agent().agent is self)

        def on_close(self, connection, code, reason, was_clean):
            seen.append(get_current_agent().agent is self)

    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        getattr(harness.instance(Room, "x"), what)()
        await client.send("hello")
        await harness.idle()
        harness.instance(Room, "x").sleep()
        await client.close()
        await harness.idle()
        assert seen == [True, True]
