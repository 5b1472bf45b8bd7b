"""What a cell holds: writes from any thread, observers at home, links both ways, methods."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import gc
import inspect
import logging
import random
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import traitlets
from traitlets import Bool, Float, HasTraits, Int, TraitError, dlink, link

from jupyter_agents import Agent, StateRejected, callable_method
from jupyter_agents.errors import AgentNotFound, HostStopped
from jupyter_agents.host import handle as handle_module
from jupyter_agents.host.handle import AgentHandle, handle_for
from jupyter_agents.host.host import Hosted, HostLimits
from jupyter_agents.instance import hosted as hosted_module
from jupyter_agents.instance.hooks import get_current_agent
from jupyter_agents.testing import AgentHarness, SyncHarness

LIMIT_S = 10.0
LIMITS = HostLimits(settle_s=0.01, stop_s=0.05)


class Slider(HasTraits):
    """As much of a FloatSlider as a link sees."""

    value = Float()


class Thermostat(Agent):
    target = Float(20.0, min=5, max=30).tag(sync=True)
    heating = Bool(False).tag(sync=True)

    @callable_method
    def warmer(self, by: float = 1.0) -> float:
        """Turn it up."""
        self.target += by
        return self.target

    async def slowly(self, value):
        await asyncio.sleep(0)
        self.target = value
        return threading.get_ident()

    def where(self):
        return threading.get_ident()


class Notes(Agent):
    initial_state = {"n": 0}

    def validate_state_change(self, next_state, source):
        if next_state["n"] < 0:
            raise StateRejected("negative")


@pytest.fixture
def kernel():
    """Agents on a thread of their own, for a test that stands where a cell stands."""
    with SyncHarness(Thermostat, Notes, limits=LIMITS) as harness:
        yield harness


def on_a_thread(function, *args):
    """What a function returns or raises on another thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="other") as pool:
        return pool.submit(function, *args).result(LIMIT_S)


def cell_handle(kernel, cls=Thermostat, name="kitchen"):
    """A handle made on the calling thread, as in a cell; the harness would make it on its own."""
    host = kernel.host
    return handle_for(host, host.find(cls), name)


async def quiet(condition):
    """Let the loop turn until it is so."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, inspect.getsource(condition)
        await asyncio.sleep(0.001)


# -- reading and writing -----------------------------------------------------------------------


def test_write_is_visible_when_it_returns(kernel):
    """`room.target = 21` and `set_state` are applied on the agents' thread when they return."""
    room = cell_handle(kernel)
    room.target = 21
    assert kernel.agent(Thermostat, "kitchen").target == 21.0
    assert (room.target, room.state) == (21.0, {"target": 21.0, "heating": False})
    room.set_state({"target": 22.5, "heating": True})
    assert (room.target, room.heating) == (22.5, True)
    room.update_state(target=6)
    assert room.state == {"target": 6.0, "heating": True}
    notes = cell_handle(kernel, Notes)
    notes.state = {"n": 3}
    assert kernel.agent(Notes, "kitchen").state == {"n": 3}
    assert notes.state == {"n": 3}


def test_refused_write_raises_in_the_caller_and_changes_nothing(kernel):
    """The validation error of the agent is the cell's, and both sides stay as they were."""
    room, notes = cell_handle(kernel), cell_handle(kernel, Notes)
    with pytest.raises(TraitError, match="not be greater than 30"):
        room.target = 31
    with pytest.raises(StateRejected, match="Unknown field"):
        room.set_state({"colour": 1})
    with pytest.raises(StateRejected, match="negative"):
        notes.set_state({"n": -1})
    assert (room.target, notes.state) == (20.0, {"n": 0})


def test_writes_of_one_thread_are_applied_in_order(kernel):
    """What one thread assigns one after the other, the agent sees one after the other."""
    notes = cell_handle(kernel, Notes)
    seen = []
    agent = kernel.agent(Notes, "kitchen")
    agent.on_state_changed = lambda state, source: seen.append(state["n"])
    on_a_thread(lambda: [notes.set_state({"n": n}) for n in range(1, 50)])
    assert seen == list(range(1, 50))


def test_writes_tell_clients_before_they_return(kernel):
    """T210: one write, one frame to each client."""
    client = kernel.connect(Thermostat, "kitchen")
    room = cell_handle(kernel)
    before = len(client.frames)
    room.target = 25
    client.until_state({"target": 25.0, "heating": False})
    kernel.idle()
    assert len(client.frames) == before + 1


def test_change_by_a_client_is_read_at_once(kernel):
    """What a client wrote is there to be read, also while a cell keeps the main thread."""
    client, room = kernel.connect(Thermostat, "kitchen"), cell_handle(kernel)
    client.set_state({"target": 7.0, "heating": True})
    assert (room.target, room.heating) == (7.0, True)


def test_values_are_the_traits_own():
    """A date, a set or a member of an enum is read from a handle as it was assigned."""

    class Colour(enum.Enum):
        RED = "red"
        BLUE = "blue"

    class Typed(Agent):
        colour = traitlets.UseEnum(Colour, default_value=Colour.RED).tag(sync=True)
        since = traitlets.Instance(datetime.date, allow_none=True).tag(sync=True)
        names = traitlets.Set(traitlets.Unicode()).tag(sync=True)
        blob = traitlets.Bytes(b"\x00").tag(sync=True)

    with SyncHarness(Typed) as kernel:
        typed = cell_handle(kernel, Typed)
        typed.colour, typed.since = Colour.BLUE, datetime.date(2026, 11, 22)
        typed.names, typed.blob = {"a"}, b"\xff\x00"
        assert (typed.colour, typed.since) == (Colour.BLUE, datetime.date(2026, 11, 22))
        assert (typed.names, typed.blob) == ({"a"}, b"\xff\x00")
        assert typed.state["colour"] == "blue"


def test_other_attributes_are_the_agents(kernel):
    """Attributes and properties are the agent's; the handle's own name cannot be changed."""
    room = cell_handle(kernel)
    room.label = "north"
    assert kernel.agent(Thermostat, "kitchen").label == room.label == "north"
    assert room.name == "kitchen"
    with pytest.raises(AttributeError):
        room.name = "bath"
    with pytest.raises(AttributeError):
        room.nothing_of_the_kind  # noqa: B018
    with pytest.raises(AttributeError):
        room._secret  # noqa: B018


def test_handle_shows_itself(kernel):
    """Its repr names class, instance and state; tab completion has the agent's names."""
    room = cell_handle(kernel)
    assert repr(room) == "<Thermostat 'kitchen', state {'target': 20.0, 'heating': False}>"
    assert {"warmer", "target", "set_state", "state"} <= set(dir(room))
    assert str(inspect.signature(room.warmer)) == "(by: 'float' = 1.0) -> 'float'"
    assert room.warmer.__doc__ == "Turn it up."


# -- observers ---------------------------------------------------------------------------------


async def in_kernel(test, *classes):
    """Run a test where a cell stands: a loop on this thread, the agents on another."""
    with contextlib.ExitStack() as stack:
        harness = SyncHarness(*classes or (Thermostat,), limits=LIMITS)
        kernel = await asyncio.to_thread(stack.enter_context, harness)
        try:
            await test(kernel)
        finally:
            await asyncio.to_thread(stack.close)


async def test_client_write_changes_the_trait_once_at_home():
    """T210: observers hear of a client's write once, on the main thread, outside of agent code."""

    async def test(kernel):
        client = await asyncio.to_thread(kernel.connect, Thermostat, "kitchen")
        other = await asyncio.to_thread(kernel.connect, Thermostat, "kitchen")
        room, seen = cell_handle(kernel), []

        def note(c):
            where = threading.get_ident(), get_current_agent().agent
            seen.append((c.name, c.old, c.new, *where))

        room.observe(note, ["target", "heating"])
        frames = len(other.frames)
        await asyncio.to_thread(client.set_state, {"target": 7.0, "heating": False})
        await quiet(lambda: seen)
        await asyncio.sleep(0.05)
        assert seen == [("target", 20.0, 7.0, threading.get_ident(), None)]
        assert len(other.frames) == frames + 1

    await in_kernel(test)


async def test_observers_catch_up_after_a_blocking_cell():
    """While the main thread blocks nothing is told; afterwards what holds, not every step."""

    async def test(kernel):
        client = await asyncio.to_thread(kernel.connect, Thermostat, "kitchen")
        room, seen = cell_handle(kernel), []
        room.observe(lambda c: seen.append(c.new), "target")
        on_a_thread(lambda: [client.set_state({"target": t}) for t in (6.0, 7.0, 8.0)])
        assert seen == []
        assert room.target == 8.0
        await quiet(lambda: seen)
        assert seen == [8.0]

    await in_kernel(test)


async def test_own_write_is_told_before_it_returns():
    """As with any HasTraits: observers have run when the assignment returns."""

    async def test(kernel):
        room, seen = cell_handle(kernel), []
        room.observe(lambda c: seen.append((c.name, c.old, c.new)))
        room.target = 21
        assert seen == [
            ("target", 20.0, 21.0),
            ("state", {"target": 20.0, "heating": False}, {"target": 21.0, "heating": False}),
        ]

    await in_kernel(test)


async def test_write_of_another_thread_is_told_at_home():
    """T208: an observer that runs for another thread's write runs at home all the same."""

    async def test(kernel):
        room, seen = cell_handle(kernel), []
        room.observe(lambda c: seen.append((c.new, threading.get_ident())), "target")
        await asyncio.to_thread(setattr, room, "target", 9.0)
        await quiet(lambda: seen)
        assert seen == [(9.0, threading.get_ident())]

    await in_kernel(test)


async def test_observer_may_write():
    """An observer's own write is visible to it and to the observers after it, once each."""

    async def test(kernel):
        room, seen = cell_handle(kernel), []

        def heat(change):
            room.heating = change.new > 21
            seen.append(("heating is", room.heating))

        room.observe(heat, "target")
        room.observe(lambda c: seen.append((c.name, c.new)), ["target", "heating"])
        room.target = 25
        assert seen == [("heating", True), ("heating is", True), ("target", 25.0)]
        assert room.state == {"target": 25.0, "heating": True}

    await in_kernel(test)


async def test_failing_observer_harms_no_other(caplog):
    """A client's write reaches every observer; the error of one is logged."""

    async def test(kernel):
        client = await asyncio.to_thread(kernel.connect, Thermostat, "kitchen")
        room, seen = cell_handle(kernel), []
        room.observe(lambda c: 1 / 0, "target")
        room.observe(lambda c: seen.append(c.new), "heating")
        await asyncio.to_thread(client.set_state, {"target": 7.0, "heating": True})
        await quiet(lambda: seen)
        assert "ZeroDivisionError" in caplog.text
        with pytest.raises(ZeroDivisionError):
            room.target = 8.0
        assert room.target == 8.0

    await in_kernel(test)


def test_without_a_loop_reading_brings_the_news(kernel):
    """In a plain script observers hear when the main thread reads or writes the handle."""
    client, room, seen = kernel.connect(Thermostat, "kitchen"), cell_handle(kernel), []
    room.observe(lambda c: seen.append(c.new), "target")
    client.set_state({"target": 7.0})
    assert seen == []
    assert room.target == 7.0
    assert seen == [7.0]


def test_assigning_in_a_hold_block_is_done_at_once(kernel):
    """The handle holds nothing back, and writes nothing of its own when the block ends."""
    room = cell_handle(kernel)
    with room.hold_trait_notifications():
        room.target = 9
        assert kernel.agent(Thermostat, "kitchen").target == 9.0
        kernel.agent(Thermostat, "kitchen")  # a client may write meanwhile
        on_a_thread(lambda: cell_handle(kernel).set_state({"target": 11.0}))
    assert room.target == 11.0
    room.set_trait("target", 12.0)
    assert kernel.agent(Thermostat, "kitchen").target == 12.0


# -- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("handle_first", [True, False])
async def test_link_carries_both_ways_without_an_echo(handle_first):
    """A linked slider follows the agent and moves it; nothing comes back."""

    async def test(kernel):
        client = await asyncio.to_thread(kernel.connect, Thermostat, "kitchen")
        room, slider = cell_handle(kernel), Slider(value=12.0)
        pairs = [(room, "target"), (slider, "value")]
        made = link(*(pairs if handle_first else pairs[::-1]))
        assert slider.value == room.target == (20.0 if handle_first else 12.0)
        moves = []
        slider.observe(lambda c: moves.append(c.new), "value")
        other = await asyncio.to_thread(kernel.connect, Thermostat, "kitchen")
        frames = len(other.frames)
        await asyncio.to_thread(client.set_state, {"target": 7.0})
        await quiet(lambda: slider.value == 7.0)
        slider.value = 8.0
        assert kernel.agent(Thermostat, "kitchen").target == 8.0
        await asyncio.to_thread(client.until_state, {"target": 8.0, "heating": False})
        room.target = 9.0
        assert slider.value == 9.0
        await asyncio.sleep(3 * handle_module.ALIGN_S)
        assert moves == [7.0, 8.0, 9.0]
        assert len(other.frames) == frames + 3
        made.unlink()
        room.target = 10.0
        slider.value = 11.0
        assert (room.target, slider.value) == (10.0, 11.0)

    await in_kernel(test)


async def test_link_from_a_subshells_thread():
    """T208: a widget's callback on a thread of its own moves the agent, without race or echo."""

    async def test(kernel):
        room, slider = cell_handle(kernel), Slider()
        link((room, "target"), (slider, "value"))

        def drag():
            for step in range(60, 300):
                slider.value = step / 10

        await asyncio.to_thread(drag)
        assert kernel.agent(Thermostat, "kitchen").target == 29.9
        await asyncio.sleep(3 * handle_module.ALIGN_S)
        assert slider.value == room.target == 29.9

    await in_kernel(test)


async def test_link_to_a_blocked_main_thread_catches_up():
    """The slider follows when the cell ends."""

    async def test(kernel):
        client = await asyncio.to_thread(kernel.connect, Thermostat, "kitchen")
        room, slider = cell_handle(kernel), Slider()
        link((room, "target"), (slider, "value"))
        on_a_thread(client.set_state, {"target": 7.0})
        assert slider.value == 20.0
        await quiet(lambda: slider.value == 7.0)

    await in_kernel(test)


async def test_change_that_a_link_dropped_is_made_good():
    """A traitlets link drops what comes while it is busy: the two sides end equal nevertheless."""

    async def test(kernel):
        room, slider = cell_handle(kernel), Slider()
        made = link((room, "target"), (slider, "value"))
        await asyncio.sleep(0)
        with made._busy_updating():
            slider.value = 15.0
            await asyncio.to_thread(setattr, room, "target", 25.0)
            await asyncio.sleep(0.005)
        assert slider.value == 15.0
        await quiet(lambda: slider.value == 25.0 == room.target)

    await in_kernel(test)


async def test_refused_move_of_a_linked_slider():
    """What the agent refuses raises where the slider was moved, as with any link."""

    async def test(kernel):
        room, slider = cell_handle(kernel), Slider()
        link((room, "target"), (slider, "value"))
        with pytest.raises(TraitError, match="not be greater than 30"):
            slider.value = 99.0
        assert room.target == 20.0

    await in_kernel(test)


async def test_two_handles_and_one_way_links():
    """Handles link with each other, and one way into anything."""

    class Label(HasTraits):
        value = traitlets.Unicode()

    async def test(kernel):
        kitchen, bath = cell_handle(kernel), cell_handle(kernel, name="bath")
        label = Label()
        link((kitchen, "target"), (bath, "target"))
        dlink((bath, "target"), (label, "value"), "{:.1f}".format)
        kitchen.target = 11
        await quiet(lambda: bath.target == 11.0 and label.value == "11.0")
        bath.target = 12
        await quiet(lambda: kitchen.target == 12.0 and label.value == "12.0")

    await in_kernel(test)


# -- methods -----------------------------------------------------------------------------------


async def test_methods_run_on_the_agents_thread():
    """Sync ones return their result, async ones an awaitable; errors are the caller's."""

    async def test(kernel):
        room, there = cell_handle(kernel), kernel.host.thread_id
        assert room.warmer(by=2.0) == 22.0
        assert room.where() == there
        assert await room.slowly(9.0) == there
        assert room.target == 9.0
        with pytest.raises(TypeError, match="wrong"):
            room.warmer(wrong=1)
        with pytest.raises(TraitError):
            await room.slowly(99.0)

    await in_kernel(test)


async def test_generators_run_on_the_agents_thread():
    """A generator's steps run on the agents' thread, whoever asks for them; it is closed there."""
    closed = []

    class Counter(Agent):
        async def count(self, n):
            try:
                for i in range(n):
                    await asyncio.sleep(0)
                    yield i, threading.get_ident()
            finally:
                closed.append(threading.get_ident())

        def steps(self, n):
            try:
                for i in range(n):
                    yield i, threading.get_ident()
            finally:
                closed.append(threading.get_ident())

    async def test(kernel):
        counter, there = cell_handle(kernel, Counter), kernel.host.thread_id
        assert [item async for item in counter.count(3)] == [(i, there) for i in range(3)]
        assert list(counter.steps(3)) == [(i, there) for i in range(3)]
        started = counter.steps(3)
        next(started)
        started.close()
        async with contextlib.aclosing(counter.count(3)) as items:
            async for _ in items:
                break
        assert closed == [there] * 4

    await in_kernel(test, Counter)


async def test_cancelled_await_cancels_the_method(caplog):
    """Giving up on a method cancels it, and nothing is reported as broken."""
    cancelled = threading.Event()

    class Slow(Agent):
        async def forever(self):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    async def test(kernel):
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(cell_handle(kernel, Slow).forever(), 0.05)
        assert await asyncio.to_thread(cancelled.wait, LIMIT_S)

    await in_kernel(test, Slow)
    assert "ERROR" not in caplog.text


def test_method_that_exits_raises_in_the_cell_and_agents_live(kernel):
    """`sys.exit` in a method is the caller's SystemExit, not the end of the agents' thread."""
    kernel.agent(Thermostat, "kitchen").leave = lambda: None

    class Leaver(Agent):
        def leave(self):
            raise SystemExit(3)

        async def leave_later(self):
            await asyncio.sleep(0)
            raise SystemExit(4)

    kernel.serve(Leaver)
    leaver = cell_handle(kernel, Leaver)
    with pytest.raises(SystemExit):
        leaver.leave()
    with pytest.raises(SystemExit):
        asyncio.run(leaver.leave_later())
    assert cell_handle(kernel).warmer() == 21.0


# -- from agents -------------------------------------------------------------------------------


async def test_handles_work_inside_of_agents():
    """On the agents' thread a handle acts at once, and its writes are visible when they return."""

    class Boiler(Agent):
        temperature = Float(40.0).tag(sync=True)

        @callable_method
        async def follow(self) -> list:
            room = handle_for(self._instance.host, self._instance.host.find(Thermostat), "k")
            room.target = 10.0
            seen = [room.target, room.warmer(), await room.slowly(12.0) == threading.get_ident()]
            self.temperature = room.target
            return seen

    async with AgentHarness(Boiler, Thermostat) as harness:
        client = await harness.connect(Boiler, "b")
        watcher = await harness.connect(Thermostat, "k")
        assert await client.call("follow") == [10.0, 11.0, True]
        await watcher.until_state({"target": 12.0, "heating": False})
        await client.until_state({"temperature": 12.0})


async def test_agent_may_hold_itself_while_it_starts():
    """In `on_start` a handle on oneself neither hangs nor starts anew."""

    class Own(Agent):
        n = Int(0).tag(sync=True)

        async def on_start(self, props=None):
            me = handle_for(self._instance.host, self._instance.hosted, self.name)
            me.n = me.n + 1
            await me.more()

        async def more(self):
            self.n += 10

    async with AgentHarness(Own) as harness:
        client = await asyncio.wait_for(harness.connect(Own, "x"), LIMIT_S)
        assert client.state == {"n": 11}


async def test_agent_that_still_starts_cannot_be_used_at_once():
    """A caller that cannot wait is told so, instead of being let in half-way."""
    go = asyncio.Event()

    class Late(Agent):
        async def on_start(self, props=None):
            await go.wait()

        def ready(self):
            return True

    async with AgentHarness(Late) as harness:
        late = harness.handle(Late, "x")
        with pytest.raises(RuntimeError, match="get_agent_by_name"):
            late.ready()
        go.set()
        await harness.idle()
        assert late.ready()


# -- what else may happen ----------------------------------------------------------------------


async def test_handle_survives_new_code():
    """The class is served anew with other fields: the old handle has them, and observers go on."""

    async def test(kernel):
        def serve_more():
            class Thermostat(Agent):
                target = Float(20.0).tag(sync=True)
                humidity = Int(50).tag(sync=True)

                def drier(self):
                    self.humidity -= 1
                    return self.humidity

            kernel.serve(Thermostat)

        room, seen = cell_handle(kernel), []
        room.observe(lambda c: seen.append(c.new), "target")
        room.target = 8
        await asyncio.to_thread(serve_more)
        assert room.humidity == 50
        room.humidity = 60
        assert (room.drier(), room.state) == (59, {"target": 8.0, "humidity": 59})
        slider = Slider()
        dlink((room, "humidity"), (slider, "value"))
        await asyncio.to_thread(setattr, room, "humidity", 40)
        await quiet(lambda: slider.value == 40)
        room.target = 31  # the new code has no limit
        assert seen == [8.0, 31.0]
        with pytest.raises(AttributeError, match="has no field 'heating' any more"):
            room.heating = True

    await in_kernel(test)


async def test_handle_survives_reset_destroy_sleep_and_restart_of_the_class():
    """Whatever happens to the instance, the handle goes on with what is there then."""

    async def test(kernel):
        notes, seen = cell_handle(kernel, Notes, "x"), []
        notes.observe(lambda c: seen.append(c.new), "state")
        for n in (5, 6, 7):
            notes.set_state({"n": n})
        instance = kernel.instance(Notes, "x")
        await asyncio.to_thread(lambda: kernel.host.submit(instance.reset).result(LIMIT_S))
        await quiet(lambda: notes.state == {"n": 0} and seen[-1] == {"n": 0})
        notes.set_state({"n": 1})
        await asyncio.to_thread(lambda: kernel.host.submit(instance.sleep).result(LIMIT_S))
        assert notes.state == {"n": 1}
        await notes.destroy()
        await quiet(lambda: seen[-1] is None)
        notes.set_state({"n": 2})
        await asyncio.to_thread(
            lambda: kernel.host.submit(kernel.host.withdraw, "notes").result(LIMIT_S)
        )
        await asyncio.to_thread(kernel.serve, Notes)
        client = await asyncio.to_thread(kernel.connect, Notes, "x")
        await asyncio.to_thread(client.set_state, {"n": 9})
        await quiet(lambda: seen[-1] == {"n": 9} == notes.state)

    await in_kernel(test, Notes)


def test_handle_of_a_stopped_class_says_so(kernel):
    """After the class was stopped, a handle raises LookupError that says what is served."""
    room = cell_handle(kernel)
    kernel.host.submit(kernel.host.withdraw, "thermostat").result(LIMIT_S)
    with pytest.raises(AgentNotFound, match=r"thermostat/kitchen.*served now: notes"):
        room.target = 21
    with pytest.raises(LookupError):
        room.warmer()


def test_handle_of_a_stopped_host_says_so(kernel):
    """After the host stopped, a handle raises HostStopped at once, sync and async."""
    room = cell_handle(kernel)
    asyncio.run_coroutine_threadsafe(kernel.host.stop(), kernel.host.loop).result(LIMIT_S)
    with pytest.raises(HostStopped, match="serve"):
        room.target = 21
    with pytest.raises(HostStopped):
        asyncio.run(room.slowly(21))
    assert room.target == 20.0


async def test_host_that_stops_meanwhile_ends_the_wait():
    """Who waits for an agent when its host stops hears HostStopped, sync and async."""
    began = threading.Event()

    class Never(Agent):
        async def on_start(self, props=None):
            if self.name == "late":
                began.set()
                await asyncio.Event().wait()

        async def hang(self):
            began.set()
            await asyncio.Event().wait()

    async def stopped(kernel, waiting):
        assert await asyncio.to_thread(began.wait, LIMIT_S)
        stop = asyncio.run_coroutine_threadsafe(kernel.host.stop(), kernel.host.loop)
        with pytest.raises(HostStopped):
            await waiting
        await asyncio.wrap_future(stop)

    async def test_async(kernel):
        await stopped(kernel, asyncio.ensure_future(cell_handle(kernel, Never).hang()))

    async def test_sync(kernel):
        began.clear()
        making = asyncio.to_thread(cell_handle, kernel, Never, "late")
        await stopped(kernel, asyncio.ensure_future(making))

    await in_kernel(test_async, Never)
    await in_kernel(test_sync, Never)


def test_error_of_on_start_is_the_callers(kernel):
    """An agent that cannot start raises where its handle is made."""

    class Broken(Agent):
        def on_start(self, props=None):
            raise ValueError("no boiler")

    kernel.serve(Broken)
    with pytest.raises(ValueError, match="no boiler"):
        cell_handle(kernel, Broken)


def test_stuck_thread_is_named_after_a_limit(kernel, monkeypatch):
    """A hook that blocks the agents' thread is named to who waits, who does not wait for ever."""
    release, blocked = threading.Event(), threading.Event()

    class Blocker(Agent):
        def on_message(self, connection, message):
            blocked.set()
            release.wait(LIMIT_S)

    client, room = kernel.connect(Blocker, "x"), cell_handle(kernel)
    monkeypatch.setattr(hosted_module, "STUCK_S", 0.2)
    asyncio.run_coroutine_threadsafe(client._wrapped.send("go"), kernel.host.loop)
    assert blocked.wait(LIMIT_S)
    try:
        with pytest.raises(TimeoutError, match=r"Blocker\.on_message keeps the agents' thread"):
            room.target = 21
    finally:
        release.set()
    kernel.idle()
    assert room.target == 20.0, "what was given up is not done later"


def test_start_that_never_ends_is_named(kernel, monkeypatch):
    """An `on_start` that hangs is named as what it is."""

    class Hanging(Agent):
        async def on_start(self, props=None):
            await asyncio.Event().wait()

    kernel.serve(Hanging)
    monkeypatch.setattr(hosted_module, "STUCK_S", 0.1)
    with pytest.raises(TimeoutError, match="on_start of Hanging 'kitchen' has not ended"):
        cell_handle(kernel, Hanging)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads here")
def test_waiting_cell_can_be_interrupted(kernel):
    """KeyboardInterrupt ends the wait of a cell; the agent goes on (F3)."""
    release, blocked = threading.Event(), threading.Event()

    class Slow(Agent):
        def work(self):
            blocked.set()
            return release.wait(LIMIT_S)

    kernel.serve(Slow)
    slow, main = cell_handle(kernel, Slow), threading.main_thread().ident

    def interrupt():
        blocked.wait(LIMIT_S)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            slow.work()
    finally:
        signal.signal(signal.SIGINT, before)
        release.set()
        thread.join(LIMIT_S)
    assert slow.work() is True


async def test_handles_leave_nothing_behind():
    """A cell that runs 200 times leaves no handle, no class and no mirror."""

    async def test(kernel):
        def cell():
            room, slider = cell_handle(kernel), Slider()
            link((room, "target"), (slider, "value"))
            room.observe(lambda c: None)
            room.target = random.uniform(5, 30)
            return weakref.ref(room), type(room)

        refs, classes = zip(*(cell() for _ in range(200)), strict=True)
        await asyncio.sleep(3 * handle_module.ALIGN_S)
        gc.collect()
        assert [ref for ref in refs if ref() is not None] == []
        assert len(set(classes)) == 1
        kernel.agent(Thermostat, "kitchen")
        room = cell_handle(kernel)
        assert len(kernel.host.mirrors) == 1
        del room

    await in_kernel(test)


def test_handle_is_a_handle_of_its_class():
    """Handles of one class share theirs; new code gets another."""
    with SyncHarness(Thermostat) as kernel:
        one, two = cell_handle(kernel), cell_handle(kernel, name="b")
        assert type(one) is type(two)
        assert isinstance(one, AgentHandle)
        assert type(one).__name__ == "ThermostatHandle"
        hosted = kernel.host.find(Thermostat)
        assert isinstance(hosted, Hosted)


@pytest.mark.parametrize("is_source", [True, False])
async def test_two_threads_drag_one_widget(is_source, caplog):
    """Threads that move one linked widget raise nothing, and what one of them set last holds."""

    class Room(Agent):
        target = Float(20.0).tag(sync=True)

    async def test(kernel):
        room, slider, errors = cell_handle(kernel, Room, "x"), Slider(), []
        sides = [(room, "target"), (slider, "value")]
        made = link(*sides) if is_source else link(*sides[::-1])

        def drag(first):
            try:
                for n in range(200):
                    slider.value = float(first + n)
            except Exception as error:
                errors.append(error)

        await asyncio.gather(*(asyncio.to_thread(drag, first) for first in (1000, 5000, 9000)))
        assert errors == []
        last = slider.value
        assert last in (1199.0, 5199.0, 9199.0)
        agent = kernel.agent(Room, "x")
        assert agent.target == last
        await quiet(lambda: slider.value == room.target == agent.target)
        assert slider.value == last
        room.target = 3.0
        await quiet(lambda: slider.value == 3.0)
        made.unlink()
        slider.value = 7.0
        room.target = 8.0
        await asyncio.sleep(5 * handle_module.ALIGN_S)
        assert (slider.value, agent.target) == (7.0, 8.0)
        made.link()
        slider.value = 9.0
        assert agent.target == 9.0

    await in_kernel(test, Room)
    assert "Broken link" not in caplog.text


# -- all at once -------------------------------------------------------------------------------


async def test_everybody_writes_and_all_end_equal(caplog):
    """Three threads, a slider and a client write at random: all hold the same in the end."""
    caplog.set_level(logging.WARNING)

    class Room(Agent):
        target = Float(20.0).tag(sync=True)

    async def test(kernel):
        client = await asyncio.to_thread(kernel.connect, Room, "x")
        room, slider, dice = cell_handle(kernel, Room, "x"), Slider(), random.Random()
        heard = []
        room.observe(lambda c: heard.append((c.new, threading.get_ident())), "target")
        link((room, "target"), (slider, "value"))

        def write(set_value, count):
            for _ in range(count):
                set_value(dice.random())
                if dice.random() < 0.05:
                    time.sleep(0.001)

        def set_by_client(value):
            client.send_json({"type": "cf_agent_state", "state": {"target": value}})

        def set_room(value):
            room.target = value

        def drag(value):
            slider.value = value

        setters = set_room, drag, set_by_client
        running = asyncio.gather(*(asyncio.to_thread(write, setter, 500) for setter in setters))
        for n in range(500):
            set_room(dice.random())
            if n % 5 == 0:
                await asyncio.sleep(0)
        await running
        agent = kernel.agent(Room, "x")
        await asyncio.to_thread(kernel.idle)
        await quiet(lambda: slider.value == room.target == agent.target)
        await asyncio.sleep(5 * handle_module.ALIGN_S)
        assert slider.value == room.target == agent.target == heard[-1][0]
        assert {ident for _, ident in heard} == {threading.get_ident()}
        await asyncio.to_thread(client.until_state, {"target": agent.target})

    await in_kernel(test, Room)
