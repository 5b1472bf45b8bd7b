"""A class that is served again: its code, its storage, and what two hundred runs leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from jupyter_agents import Agent, ServeError, callable_method
from jupyter_agents.errors import AgentNotFound, HostStopped
from jupyter_agents.host.host import HostLimits
from jupyter_agents.host.storage import MemoryStorage, SqliteStorage, is_same_place
from jupyter_agents.instance.hosted import QUEUED_SIZE, Hosted
from jupyter_agents.testing import AgentHarness, SyncHarness

NAMES = ("room", "Room")


def version(number, *, fails=False):
    """The cell's class, as its run of this number defines it; one that fails does so late."""

    class Room(Agent):
        initial_state = {"n": 0}

        def on_start(self, props=None):
            self.seen = []

        def on_code_changed(self, old):
            self.former = number - old.number
            if fails:
                raise RuntimeError("incompatible")

        def on_message(self, connection, message):
            self.seen.append(message)
            connection.send(f"{number} {len(self.seen)}")

        def on_request(self, request):
            return {"n": self.state["n"], "private": self.private_state}

        @callable_method
        async def bump(self, by: int = 1) -> int:
            await asyncio.sleep(0)
            self.set_state({"n": self.state["n"] + by})
            self.private_state = self.state["n"]
            return self.state["n"]

    Room.number = number
    return Room


def hosted(cls, storage):
    """What `serve` makes of a cell's run: each with a context and a storage of its own."""
    context = contextvars.copy_context()
    context.run(contextvars.ContextVar("cell").set, object())
    return Hosted(cls, "room", NAMES, storage, context)


def open_files():
    """What this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # the directory itself is one of them


def test_unknown_redelivery_is_refused():
    """A class that promises what nobody keeps is not served."""

    class Wrong(Agent):
        redelivery = "exactly_once"

    with pytest.raises(ServeError, match="exactly_once"):
        Hosted(Wrong, "wrong", ("wrong",), MemoryStorage())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (MemoryStorage(), MemoryStorage(), True),
        (SqliteStorage("a"), SqliteStorage("./a"), True),
        (SqliteStorage("a"), SqliteStorage(Path("a").absolute()), True),
        (SqliteStorage("a"), SqliteStorage("b"), False),
        (SqliteStorage("a"), MemoryStorage(), False),
    ],
    ids=["memory", "path", "absolute", "files", "kinds"],
)
def test_same_place(one, other, same):
    """Two storages keep the same things when they are one file, or both this process's memory."""
    assert is_same_place(one, other) is same


async def test_same_file_is_opened_once(tmp_path):
    """A cell that runs again goes on with the file that is open."""
    first, second = (SqliteStorage(tmp_path / "a.sqlite3") for _ in "12")
    async with AgentHarness() as harness:
        await harness.host.serve(hosted(version(1), first))
        client = await harness.connect("room", "x")
        await client.call("bump")
        await harness.host.serve(hosted(version(2), second))
        assert await client.call("bump") == 2
        assert harness.host.find("room").storage is first
        assert second._connection is None


async def test_instances_move_to_another_storage(tmp_path):
    """Another ``storage=``: awake and sleeping instances take along what is kept of them."""
    memory, file = MemoryStorage(), SqliteStorage(tmp_path / "a.sqlite3")
    async with AgentHarness() as harness:
        await harness.host.serve(hosted(version(1), memory))
        for name in ("awake", "asleep"):
            client = await harness.connect("room", name)
            await client.call("bump", 3)
        harness.instance("room", "asleep").sleep()
        await harness.host.serve(hosted(version(2), file))
        await harness.idle()
        for name in ("awake", "asleep"):
            kept = file.load("room", name)
            assert kept == (b'{"n":3}', 2, b"3")
            assert (await harness.request("room", name)).json() == {"n": 3, "private": 3}


async def test_storage_that_is_left_is_closed(tmp_path):
    """The file that nobody uses any more is let go of: by another storage, and by withdrawal."""
    first, second = (SqliteStorage(tmp_path / name) for name in "12")
    async with AgentHarness() as harness:
        await harness.host.serve(hosted(version(1), first))
        await (await harness.connect("room", "x")).call("bump")
        assert first._connection is not None
        await harness.host.serve(hosted(version(2), second))
        await harness.idle()
        assert first._connection is None
        assert second._connection is not None
        await harness.host.withdraw("room")
        assert second._connection is None


async def test_broken_storage_can_be_left(tmp_path, caplog):
    """A file that cannot be read hinders nobody from choosing another one."""
    (tmp_path / "broken").write_bytes(b"no database" * 100)
    async with AgentHarness() as harness:
        await harness.host.serve(hosted(version(1), SqliteStorage(tmp_path / "broken")))
        assert (await harness.request("room", "x")).status == 500
        await harness.host.serve(hosted(version(2), MemoryStorage()))
        assert (await harness.request("room", "x")).json() == {"n": 0, "private": None}
        assert "stays where it was stored" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
async def test_code_that_fails_late_replaces_nothing(error):
    """T198: `on_code_changed` that raises leaves code, context and storage as they were."""

    class Room(version(2)):
        def on_code_changed(self, old):
            if self.name == "b":
                raise error("incompatible")

    async with AgentHarness() as harness:
        await harness.host.serve(hosted(version(1), harness.storage))
        clients = {name: await harness.connect("room", name) for name in "ab"}
        was = harness.host.find("room")
        before = was.cls, was.context, was.storage
        with pytest.raises(error):
            harness.host.take(hosted(Room, SqliteStorage("elsewhere")))
        assert (was.cls, was.context, was.storage) == before
        for client in clients.values():
            await client.send("hello")
            assert await client.receive() == "1 1"


async def test_two_hundred_runs_leave_nothing_behind(tmp_path):
    """T198: neither good nor failed runs of a cell leave classes, files, tasks or threads."""
    async with AgentHarness() as harness:

        async def run(number):
            cls = version(number, fails=number % 4 == 3)
            new = hosted(cls, SqliteStorage(tmp_path / "a.sqlite3"))
            if number % 4 != 3:
                await harness.host.serve(new)
                return
            with pytest.raises(RuntimeError, match="incompatible"):
                await harness.host.serve(new)

        async def use(number):
            await client.send("hello")
            assert await client.receive() == f"{number} {number // 4 * 3 + number % 4 + 1}"
            handle = harness.handle("room", "x")
            handle.observe(lambda change: seen.append(change["new"]), "state")
            await client.call("bump")

        seen = []
        await run(0)
        client = await harness.connect("room", "x")
        await use(0)
        before = None
        for number in range(1, 201):
            await run(number)
            if number % 4 != 3:
                await use(number)
            if number == 8:
                before = open_files()
        await harness.idle()
        harness.host.running = None
        gc.collect()
        alive = [cls.number for cls in Agent.__subclasses__() if hasattr(cls, "number")]
        assert sorted(alive) == [200]
        assert open_files() <= before
        assert not harness.host._agreements
        assert not harness.host.tasks
        assert not harness.host.mirrors.has("room", "x")
        assert len(harness.host.mirrors) == 0
        assert not [t for t in threading.enumerate() if "agents" in t.name]
        assert client.state == {"n": 151}


# -- a handle's broadcasts -----------------------------------------------------------------------


class Hall(Agent):
    """Sends some of its listeners messages only."""

    initial_state = {"n": 0}

    def should_send_protocol_messages(self, connection, ctx):
        return "quiet" not in ctx.query

    def on_state_changed(self, state, source):
        self.broadcast(f"state {state['n']}")


@pytest.fixture
def hall():
    """A hall on the agents' thread, one listener, and the handle of a cell."""
    with SyncHarness(Hall, limits=HostLimits(settle_s=0.01, stop_s=0.05)) as kernel:
        listener = kernel.connect(Hall, "x", query={"quiet": "yes"})
        yield kernel, listener, kernel._wrapped.handle(Hall, "x")


@contextlib.contextmanager
def standing_still(kernel):
    """The agents' thread does nothing meanwhile."""
    begun, go_on = threading.Event(), threading.Event()
    kernel.host.loop.call_soon_threadsafe(lambda: (begun.set(), go_on.wait(10)))
    assert begun.wait(10)
    try:
        yield
    finally:
        go_on.set()


def test_broadcast_of_a_handle_is_queued_in_order(hall):
    """It does not wait for the agents' thread, and comes before what its thread does next."""
    kernel, listener, room = hall
    with standing_still(kernel):
        for n in range(100):
            room.broadcast(f"{n}")
        room.broadcast_json({"n": 100})
        room.broadcast(b"101")
    room.set_state({"n": 1})
    room.broadcast("after")
    expected = [*map(str, range(100)), '{"n":100}', b"101", "state 1", "after"]
    assert [listener.receive() for _ in expected] == expected


def test_broadcast_of_a_handle_chooses_as_the_agents_own(hall):
    """`without` and `tag` leave out the same connections."""
    kernel, listener, room = hall
    other = kernel.connect(Hall, "x", query={"quiet": "yes"})
    first, _ = kernel._wrapped.agent(Hall, "x").get_connections()
    room.broadcast("not you", without=[first.id])
    room.broadcast("only you", tag=first.id)
    assert other.receive() == "not you"
    assert listener.receive() == "only you"


@pytest.mark.parametrize(
    ("args", "text"),
    [((1,), "str or bytes"), (("x", "id"), "list of connection ids"), (("x", 1), "iterable")],
)
def test_broadcast_with_wrong_arguments_raises_at_once(hall, args, text):
    """A cell hears of its own mistakes, though nobody waits for the rest."""
    _, _, room = hall
    with pytest.raises(TypeError, match=text):
        room.broadcast(*args)
    with pytest.raises(TypeError):
        room.broadcast_json(object())


def test_large_broadcast_of_a_handle_waits(hall):
    """What is queued is bounded in bytes, too."""
    kernel, listener, room = hall
    pool = ThreadPoolExecutor(1, thread_name_prefix="cell")
    with pool, standing_still(kernel):
        large = pool.submit(room.broadcast, "x" * (QUEUED_SIZE + 1))
        small = pool.submit(room.broadcast, "x" * QUEUED_SIZE)
        assert not wait([large, small], 0.05).done
    assert wait([large, small], 10).not_done == set()
    assert len(listener.receive()) == QUEUED_SIZE + 1


def test_broadcast_to_an_agent_that_has_yet_to_start_starts_it(hall):
    """As every other call, it wakes an instance that sleeps."""
    kernel, listener, room = hall
    kernel.host.submit(lambda: kernel.host.rest.lull(room._reach.instance())).result(10)
    assert not kernel.host.find(Hall).instances["x"].started
    room.broadcast("good morning")
    assert kernel.host.find(Hall).instances["x"].started
    assert listener.receive() == "good morning"


def test_own_broadcast_of_an_agent_is_called(hall):
    """A class that overrides it gets the call on its thread, and the caller what it returns."""
    kernel, _, _ = hall

    class Loud(Hall):
        def broadcast(self, message):
            """Shout."""
            super().broadcast(message.upper())
            return threading.get_ident()

    listener = kernel.connect(Loud, "x", query={"quiet": "yes"})
    room = kernel._wrapped.handle(Loud, "x")
    assert room.broadcast("hey") == kernel._thread.ident
    assert room.broadcast.__doc__ == "Shout."
    assert listener.receive() == "HEY"


def test_broadcast_to_what_is_served_no_more_says_so(hall):
    """AgentNotFound after the class was stopped, HostStopped after the host was."""
    kernel, _, room = hall
    kernel.host.submit(kernel.host.withdraw, "hall").result(10)
    with pytest.raises(AgentNotFound):
        room.broadcast("x")
    kernel.serve(Hall)
    room.set_state({"n": 2})
    asyncio.run_coroutine_threadsafe(kernel.host.stop(), kernel.host.loop).result(10)
    with pytest.raises(HostStopped):
        room.broadcast("x")


def test_instance_that_a_cell_broadcasts_to_is_not_put_to_sleep(hall):
    """A queued broadcast counts as use, also where too many are awake."""
    kernel, listener, room = hall
    listener.close()
    kernel.idle()
    rest, loop = kernel.host.rest, kernel.host.loop
    instance = kernel.host.find(Hall).instances["x"]

    def look():
        kernel.host.set_limits(HostLimits(max_awake=1, idle_s=1))
        return rest._find_tired(loop.time() + 10, set())

    kernel.request(Hall, "another")
    with standing_still(kernel):
        room.broadcast("x")
        assert instance.is_wanted
        looked = kernel.host.submit(look)
    assert instance not in looked.result(10)
    assert not instance.is_wanted
