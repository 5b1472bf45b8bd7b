"""Instances that nobody uses fall asleep, are woken by whoever comes, and lose no state."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref

import pytest
from traitlets import Int

from jupyter_agents import Agent, callable_method
from jupyter_agents.host.host import HostLimits
from jupyter_agents.host.storage import SqliteStorage
from jupyter_agents.testing import AgentHarness

IDLE_S = 600.0


class Room(Agent):
    """Counts how often it started; `field` is what sleep forgets."""

    initial_state = {"n": 0}

    def on_start(self, props=None):
        self.field = []

    def on_message(self, connection, message):
        self.field.append(message)

    def on_request(self, request):
        return {"field": self.field, "n": self.state["n"]}

    @callable_method
    def bump(self):
        self.field.append("bump")
        self.set_state({"n": self.state["n"] + 1})
        return self.state["n"]


def limited(**limits):
    """Limits under which nothing falls asleep by the real clock while a test runs."""
    return HostLimits(**{"settle_s": 0.01, "idle_s": IDLE_S, **limits})


async def later(harness, seconds=IDLE_S + 1):
    """Look the instances over as if that much time had passed."""
    harness.host.rest.look(harness.host.loop.time() + seconds)
    await harness.idle()


def is_awake(harness, name, agent="room"):
    """Whether an instance is; looking does not wake it."""
    instance = harness.host.find(agent).instances.get(name)
    return instance is not None and instance.started


async def test_unused_instance_falls_asleep_and_wakes_with_its_state():
    """Law 9: after `idle_s` without use it leaves memory; the next request finds its state."""
    async with AgentHarness(Room, limits=limited()) as harness:
        client = await harness.connect(Room, "x")
        await client.call("bump")
        await client.close()
        kept = weakref.ref(harness.agent(Room, "x"))
        await later(harness, IDLE_S - 1)
        assert is_awake(harness, "x")
        await later(harness)
        gc.collect()
        assert not is_awake(harness, "x")
        assert kept() is None
        assert harness.relay.served["room"].instances == {"x": "asleep"}
        assert (await harness.request(Room, "x")).json() == {"field": [], "n": 1}
        assert harness.relay.served["room"].instances == {"x": "awake"}


async def test_clock_alone_sends_to_sleep(eventually):
    """Nobody has to call anything: the host looks over its instances by itself."""
    async with AgentHarness(Room, limits=limited(idle_s=0.02)) as harness:
        assert (await harness.request(Room, "x")).json()["n"] == 0
        await eventually(lambda: not is_awake(harness, "x"))
        assert not harness.host.rest.awake


async def test_connection_keeps_awake():
    """An instance with a client does not fall asleep, however quiet the client is."""
    async with AgentHarness(Room, limits=limited(max_awake=1)) as harness:
        for name in "ab":
            await harness.connect(Room, name)
        await later(harness)
        assert is_awake(harness, "a")
        assert is_awake(harness, "b")


@pytest.mark.parametrize("what", ["task", "timer", "request", "call", "message", "from a cell"])
async def test_what_is_under_way_keeps_awake(what):
    """A task, a timer, a request, a call of somebody who left, a hook, work for a cell."""
    go_on = asyncio.Event()

    class Busy(Agent):
        def on_start(self, props=None):
            loop = asyncio.get_running_loop()
            if what == "task":
                self.task = asyncio.ensure_future(go_on.wait())
            elif what == "timer":
                self.timer = loop.call_later(3600, print)

        async def on_request(self, request):
            await go_on.wait()

        async def on_message(self, connection, message):
            await go_on.wait()

        @callable_method
        async def call(self):
            await go_on.wait()

    async with AgentHarness(Busy, limits=limited()) as harness:
        client = await harness.connect(Busy, "x")
        waiting = None
        if what == "request":
            waiting = asyncio.ensure_future(harness.request(Busy, "x"))
        elif what == "from a cell":
            instance = harness.instance(Busy, "x")
            waiting = asyncio.ensure_future(instance.outside(lambda agent: agent.call()))
        elif what in ("call", "message"):
            frame = {"type": "rpc", "id": "1", "method": "call", "args": []}
            await client.send_json(frame if what == "call" else {})
        await harness.idle()
        await client.close()
        await later(harness)
        assert is_awake(harness, "x", "busy")
        go_on.set()
        if what == "timer":
            harness.agent(Busy, "x").timer.cancel()
        if waiting is not None:
            await waiting
        await harness.idle()
        await later(harness, 2 * (IDLE_S + 1))
        assert not is_awake(harness, "x", "busy")


async def test_hibernate_false_keeps_awake():
    """A class can say that its instances stay."""

    class Wakeful(Agent):
        hibernate = False

    async with AgentHarness(Wakeful, limits=limited(max_awake=1)) as harness:
        for name in "ab":
            await harness.request(Wakeful, name)
        await later(harness)
        assert is_awake(harness, "a", "wakeful")
        assert is_awake(harness, "b", "wakeful")


async def test_idle_s_zero_keeps_awake():
    """With `idle_s=0` time sends nobody to sleep, and no timer runs."""
    async with AgentHarness(Room, limits=limited(idle_s=0)) as harness:
        await harness.request(Room, "x")
        assert harness.host.rest._timer is None
        await later(harness, 1e9)
        assert is_awake(harness, "x")


async def test_past_the_limit_those_unused_for_longest_fall_asleep():
    """`max_awake`: the least recently used ones go first, and none that is in use."""
    async with AgentHarness(Room, limits=limited(max_awake=20)) as harness:
        await harness.connect(Room, "first")
        for number in range(20):
            await harness.request(Room, f"n{number}")
        await harness.idle()
        assert len(harness.host.rest.awake) == 18  # down by a tenth more: not at each arrival
        asleep = [
            name for name in harness.host.find(Room).instances if not is_awake(harness, name)
        ]
        assert asleep == ["n0", "n1", "n2"]


async def test_too_many_that_are_in_use_are_looked_over_only_now_and_then():
    """Where nobody may sleep, each further arrival costs no look at everybody."""
    async with AgentHarness(Room, limits=limited(max_awake=2)) as harness:
        for number in range(3):
            await harness.connect(Room, f"n{number}")
        await harness.idle()
        looks = []
        harness.host.rest.look = looks.append
        for number in range(10):
            await harness.connect(Room, f"m{number}")
        assert looks == []
        assert harness.host.rest._timer is not None


async def test_those_that_slept_longest_are_forgotten():
    """`max_asleep`: their names are no longer listed, what is stored of them stays."""
    async with AgentHarness(Room, limits=limited(max_asleep=3)) as harness:
        for number in range(10):
            client = await harness.connect(Room, f"n{number}")
            await client.call("bump")
            await client.close()
        await later(harness)
        await later(harness)
        listed = ["n7", "n8", "n9"]
        assert list(harness.host.find(Room).instances) == listed
        assert sorted(harness.relay.served["room"].instances) == listed
        assert (await harness.request(Room, "n0")).json()["n"] == 1


async def test_names_that_never_start_are_forgotten_too():
    """A class that refuses most names does not remember them all."""

    class Picky(Agent):
        def on_start(self, props=None):
            raise RuntimeError("not you")

    async with AgentHarness(Picky, limits=limited(max_asleep=3)) as harness:
        for number in range(10):
            assert (await harness.request(Picky, f"n{number}")).status == 500
        await later(harness)
        assert len(harness.host.find(Picky).instances) <= 3


async def test_memory_keeps_the_state_of_a_sleeping_instance_when_its_cell_runs_again():
    """`storage="memory"` of the cell's second run is the first one's, or states would be lost."""

    def version(number):
        class Room(Agent):
            initial_state = {"n": 0}

            def on_request(self, request):
                return [number, self.state["n"]]

        return Room

    async with AgentHarness(version(1), limits=limited()) as harness:
        await (client := await harness.connect("room", "x")).set_state({"n": 7})
        await client.close()
        await later(harness)
        harness.storage = type(harness.storage)()
        await harness.serve(version(2))
        assert (await harness.request("room", "x")).json() == [2, 7]


@pytest.mark.parametrize("is_async", [False, True])
async def test_on_stop_runs_before_sleep(is_async):
    """An instance that falls asleep leaves in good order; who comes meanwhile wakes it anew."""
    lines, go_on = [], asyncio.Event()

    class Orderly(Agent):
        initial_state = {"n": 0}

        def on_start(self, props=None):
            lines.append("start")

        def on_request(self, request):
            return {"n": self.state["n"]}

        if is_async:

            async def on_stop(self):
                lines.append("stop")
                await go_on.wait()
                self.set_state({"n": 1})

        else:

            def on_stop(self):
                lines.append("stop")
                self.set_state({"n": 1})

    async with AgentHarness(Orderly, limits=limited()) as harness:
        await harness.request(Orderly, "x")
        await later(harness)
        assert lines == ["start", "stop"]
        coming = asyncio.ensure_future(harness.request(Orderly, "x"))
        await harness.idle()
        assert coming.done() is not is_async
        go_on.set()
        assert (await coming).json() == {"n": 1}
        assert lines == ["start", "stop", "start"]


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_bad_on_stop_hinders_nobody(how, caplog):
    """One that fails or hangs is logged, and the instance sleeps all the same."""

    class Stubborn(Agent):
        async def on_stop(self):
            if how == "raises":
                raise RuntimeError("no")
            await asyncio.Event().wait()

    async with AgentHarness(Stubborn, limits=limited(stop_s=0.01)) as harness:
        await harness.request(Stubborn, "x")
        instance = harness.instance(Stubborn, "x")
        await later(harness)
        await harness.host.rest.lull(instance)
        assert not instance.started
        assert "on_stop" in caplog.text
        assert (await harness.request(Stubborn, "x")).status == 404


@pytest.mark.parametrize("what", ["end", "destroy", "reset", "sleep"])
async def test_end_while_it_falls_asleep(what):
    """Whatever ends, resets or lulls it while `on_stop` runs, it happens once."""
    stopping, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Agent):
        initial_state = {"n": 0}

        async def on_stop(self):
            stopping.set()
            await go_on.wait()

        def on_request(self, request):
            return {"n": self.state["n"]}

    async with AgentHarness(Slow, limits=limited()) as harness:
        await (client := await harness.connect(Slow, "x")).set_state({"n": 5})
        await client.close()
        instance = harness.instance(Slow, "x")
        leaving = harness.host.rest.lull(instance)
        await stopping.wait()
        assert harness.host.rest.lull(instance) is leaving
        getattr(instance, what)()
        go_on.set()
        await leaving
        await harness.idle()
        stored = {"end": 5, "sleep": 5, "destroy": 0, "reset": 0}[what]
        if what != "end":
            assert (await harness.request(Slow, "x")).json() == {"n": stored}


async def test_handle_keeps_awake_and_works_on_a_sleeper():
    """A held handle is a use, but not past `max_awake`; its next access wakes the instance."""

    class Dial(Agent):
        target = Int(1).tag(sync=True)

    async with AgentHarness(Dial, limits=limited(max_awake=10)) as harness:
        handle = harness.handle(Dial, "x")
        seen = []
        handle.observe(lambda change: seen.append(change["new"]), "target")
        handle.target = 2
        await later(harness)
        assert is_awake(harness, "x", "dial")
        for number in range(10):
            await harness.request(Dial, f"n{number}")
        await harness.idle()
        assert not is_awake(harness, "x", "dial")
        assert handle.target == 2
        handle.target = 3
        await harness.idle()
        assert is_awake(harness, "x", "dial")
        assert seen == [2, 3]
        client = await harness.connect(Dial, "x")
        assert client.state == {"target": 3}
        del handle
        await client.close()
        gc.collect()
        await later(harness)
        await later(harness, 2 * (IDLE_S + 1))
        assert not is_awake(harness, "x", "dial")


async def test_sleep_waits_for_the_storage(tmp_path, monkeypatch, caplog):
    """A state that could not be saved yet is not lost by sleeping."""
    storage = SqliteStorage(tmp_path / "agents.sqlite3", retry_s=0.0)
    async with AgentHarness(Room, storage=storage, limits=limited()) as harness:
        client = await harness.connect(Room, "x")
        with monkeypatch.context() as patched:
            patched.setattr(storage, "_write", lambda: (_ for _ in ()).throw(OSError("full")))
            await client.call("bump")
            await client.close()
            await later(harness)
            assert not is_awake(harness, "x")
        assert (await harness.request(Room, "x")).json()["n"] == 1
    assert storage.load("room", "x").state_json == b'{"n":1}'
    storage.close()


async def test_sleeping_instance_is_small():
    """Asleep, a simple instance takes less than 3.5 KB, what is stored of it included."""
    count = 300
    async with AgentHarness(Room, limits=limited()) as harness:
        await harness.request(Room, "first")
        tracemalloc.start()
        try:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for number in range(count):
                await harness.host.instance(harness.host.find(Room), f"n{number}").until_started()
            while harness.host.rest.awake:
                await later(harness)
            gc.collect()
            each = (tracemalloc.get_traced_memory()[0] - before) / count
        finally:
            tracemalloc.stop()
        assert len(harness.host.find(Room).instances) == count + 1
        assert each < 3500
