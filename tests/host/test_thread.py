"""Turns of the loop, work from other threads, and the watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jupyter_agents.errors import HostStopped, LinkError
from jupyter_agents.host import thread as module
from jupyter_agents.host.thread import AgentLoop, AgentThread


class FakeUplink:
    """Keeps the batches that it is given."""

    def __init__(self):
        self.batches = []
        self.is_full = False

    def send_frames(self, frames):
        self.batches.append(frames)

    async def drained(self):
        pass


class FakeStorage:
    """Notes its commits in the uplink's list."""

    def __init__(self, uplink):
        self.uplink = uplink

    def commit(self):
        self.uplink.batches.append("commit")


def looped():
    """An AgentLoop on the running loop, and its uplink."""
    loop = AgentLoop(asyncio.get_running_loop(), None, 1000)
    loop.uplink = FakeUplink()
    return loop, loop.uplink


async def test_frames_of_one_turn_leave_in_one_batch():
    """One write a turn, in order."""
    loop, uplink = looped()
    loop.send(1, 1, b"a")
    loop.send(1, 2, b"b")
    assert uplink.batches == []
    await asyncio.sleep(0)
    assert uplink.batches == [[(1, 1, b"a"), (1, 2, b"b")]]


async def test_turn_does_what_was_put_off_then_commits_then_sends():
    """Law 8."""
    loop, uplink = looped()
    loop.touched(FakeStorage(uplink))
    loop.send(1, 1)
    loop.later(loop.send, 1, 2)
    loop.end_turn()
    assert uplink.batches == ["commit", [(1, 1, b""), (1, 2, b"")]]


async def test_full_link_keeps_frames_until_it_has_room_and_refuses_past_the_limit():
    """Law 9: what the link does not take is bounded, and the sender hears of it."""
    loop, uplink = looped()
    uplink.is_full = True
    loop.send(1, 1, b"x" * 1001)
    loop.end_turn()
    assert uplink.batches == []
    with pytest.raises(LinkError, match="does not keep up"):
        loop.send(1, 2)
    uplink.is_full = False
    loop.link_has_room()
    assert len(uplink.batches) == 1


async def test_submit_returns_results_and_errors_of_sync_and_async():
    """A caller on another thread gets the value, or the error."""
    loop, _ = looped()

    async def later(value):
        await asyncio.sleep(0)
        return value

    def elsewhere():
        with pytest.raises(ZeroDivisionError):
            loop.submit(lambda: 1 / 0).result(5)
        return loop.submit(lambda: 1).result(5), loop.submit(later, 2).result(5)

    assert await asyncio.to_thread(elsewhere) == (1, 2)


async def test_work_knows_the_context_of_who_submitted_it():
    """Work of several threads, done with one wake-up, runs in each one's own context."""
    loop, _ = looped()
    whose = contextvars.ContextVar("whose", default="nobody")

    def submit(name):
        whose.set(name)
        return loop.submit(whose.get), loop.submit(later)

    async def later():
        await asyncio.sleep(0)
        return whose.get()

    with ThreadPoolExecutor(3, thread_name_prefix="asyncio_") as pool:
        names = ["a", "b", "c"]
        found = [pool.submit(submit, name).result(5) for name in names]  # no turn in between
        for name, futures in zip(names, found, strict=True):
            assert [await asyncio.wrap_future(f) for f in futures] == [name, name]


async def test_caller_that_gave_up_is_not_answered(caplog):
    """A future that was cancelled has its work cancelled, or not begun, and nothing fails."""
    loop, _ = looped()
    seen = []

    async def forever():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    begun = await asyncio.to_thread(loop.submit, forever)
    while not loop.tasks:  # noqa: ASYNC110 - the loop has no event for it
        await asyncio.sleep(0)
    with ThreadPoolExecutor(1, thread_name_prefix="asyncio_") as pool:
        waiting = pool.submit(loop.submit, seen.append, 1).result(5)  # no turn in between
    assert waiting.cancel()
    begun.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen == ["cancelled"]
    assert waiting.cancelled()
    assert not loop._awaited
    assert "ERROR" not in caplog.text


async def test_exit_in_work_ends_neither_turn_nor_thread(caplog):
    """`sys.exit()` in posted work, in what was put off, or in a task is logged or handed on."""
    loop, uplink = looped()

    def leave():
        raise SystemExit(1)

    async def leave_later():
        await asyncio.sleep(0)
        raise SystemExit(2)

    loop.post(leave)
    loop.later(leave)
    loop.later(loop.send, 1, 1)
    await asyncio.sleep(0.01)
    assert uplink.batches == [[(1, 1, b"")]]
    with pytest.raises(SystemExit):
        await asyncio.to_thread(lambda: loop.submit(leave_later).result(5))
    assert len([r for r in caplog.records if "SystemExit(1)" in r.getMessage()]) == 2


async def test_thread_that_posts_on_and_on_leaves_room_for_others():
    """What arrives while posts are done waits for the next turn of the loop."""
    loop, _ = looped()
    seen = []

    def again():
        seen.append("post")
        if seen.count("post") < 1000:
            loop.post(again)

    loop.post(again)
    loop.loop.call_soon(loop.loop.call_soon, seen.append, "client")
    for _ in range(1100):
        await asyncio.sleep(0)
    assert seen.count("post") == 1000
    assert seen.index("client") < 10


async def test_task_cancelled_before_it_began_leaves_no_coroutine():
    """A coroutine whose task never ran is closed; warnings are errors here."""
    loop, _ = looped()
    ended = []
    cancel = loop.spawn(
        asyncio.sleep(1), contextvars.copy_context(), lambda *how: ended.append(how)
    )
    cancel()
    await asyncio.sleep(0.01)
    assert isinstance(ended[0][1], asyncio.CancelledError)


async def test_refused_work_ends_every_wait():
    """When the loop refuses work, who waits hears HostStopped, and so does who comes later."""
    loop, _ = looped()
    waiting = await asyncio.to_thread(loop.submit, asyncio.Event().wait)
    loop.refuse_work()
    assert isinstance(waiting.exception(0), HostStopped)
    for task in loop.tasks:
        task.cancel()
    with pytest.raises(HostStopped):
        await asyncio.to_thread(loop.submit, print)


async def test_posts_of_one_thread_keep_their_order():
    """Pitfall 2: nothing is lost, nothing overtakes."""
    loop, _ = looped()
    seen = []

    def elsewhere():
        for n in range(20_000):
            loop.post(seen.append, n)
        loop.submit(lambda: None).result(10)

    await asyncio.to_thread(elsewhere)
    assert seen == list(range(20_000))


@contextlib.contextmanager
def standing():
    """An AgentLoop on a thread whose loop turns only when a test says so."""
    thread = AgentThread("standing-agents")
    gate = threading.Event()
    loop = AgentLoop(thread.loop, thread.ident, 1 << 30)
    loop.uplink = FakeUplink()
    thread.call(gate.wait)
    try:
        yield loop, gate
    finally:
        gate.set()
        loop.refuse_work()
        thread.stop()


def test_who_posts_too_much_waits_for_room(monkeypatch):
    """Law 9: no more is queued than the limit, and nothing is lost."""
    monkeypatch.setattr(module, "MAX_POSTED", 10)
    seen = []
    with standing() as (loop, gate), ThreadPoolExecutor(1) as pool:

        def post_all():
            for n in range(1000):
                loop.post(seen.append, n)
            return loop.submit(lambda: list(seen)).result(5)

        posting = pool.submit(post_all)
        while not loop._has_room.is_set() and len(loop.posted) < 10:
            time.sleep(0.001)
        assert len(loop.posted) == 10
        assert not posting.done()
        gate.set()
        assert posting.result(5) == list(range(1000))


def test_who_waits_for_room_hears_of_the_stop(monkeypatch):
    """A loop that refuses work lets nobody wait."""
    monkeypatch.setattr(module, "MAX_POSTED", 1)
    with standing() as (loop, _), ThreadPoolExecutor(1) as pool:
        loop.post(print)
        waiting = pool.submit(loop.post, print)
        loop.refuse_work()
        with pytest.raises(HostStopped):
            waiting.result(5)


@pytest.mark.skipif(sys.platform == "win32", reason="no signal for one thread")
def test_cell_that_waits_for_room_can_be_interrupted(monkeypatch):
    """Stop works on a cell that broadcasts faster than it can, and leaves the queue in order."""
    monkeypatch.setattr(module, "MAX_POSTED", 3)
    seen = []
    with standing() as (loop, gate):
        timer = threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
        for n in range(3):
            loop.post(seen.append, n)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            loop.post(seen.append, 3)
        gate.set()
        assert loop.submit(lambda: list(seen)).result(5) == [0, 1, 2]


def test_interrupt_between_queue_and_wake_up_leaves_nothing_behind(monkeypatch):
    """What was posted when the interrupt came is done, though nobody posts after it."""
    seen = threading.Event()
    with standing() as (loop, gate):
        gate.set()
        wake = loop.loop.call_soon_threadsafe
        interrupts = [KeyboardInterrupt]

        def call_soon_threadsafe(*args):
            if interrupts:
                raise interrupts.pop()
            return wake(*args)

        monkeypatch.setattr(loop.loop, "call_soon_threadsafe", call_soon_threadsafe)
        with pytest.raises(KeyboardInterrupt):
            loop.post(seen.set)
        assert seen.wait(5)


async def test_posts_wait_while_the_link_is_full():
    """What other threads send stays in their queue: they are slowed down, and no send fails."""
    loop, uplink = looped()
    uplink.is_full = True
    loop.post(loop.send, 1, 1, b"x")
    await asyncio.sleep(0)
    assert len(loop.posted) == 1
    uplink.is_full = False
    loop.link_has_room()
    await asyncio.sleep(0)
    assert uplink.batches == [[(1, 1, b"x")]]


async def test_large_posts_look_at_the_link_in_between():
    """Posts of many megabytes fill no outbox: once the link is full, the rest waits."""
    loop, uplink = looped()
    loop._outbox_limit = 4 << 20

    def send_frames(frames):
        uplink.batches.append(frames)
        uplink.is_full = True

    uplink.send_frames = send_frames
    for _ in range(10):
        loop.post(loop.send, 1, 1, b"x" * (1 << 20))
    await asyncio.sleep(0)
    assert len(uplink.batches) == 1
    assert len(loop.posted) == 9


async def test_failed_work_does_not_stop_the_rest(caplog):
    """An exception in posted work is logged, what follows is done."""
    loop, _ = looped()
    seen = []
    await asyncio.to_thread(lambda: (loop.post(lambda: 1 / 0), loop.post(seen.append, 1)))
    await asyncio.sleep(0)
    assert seen == [1]
    assert "failed" in caplog.text


async def test_stopped_loop_refuses_work():
    """After the stop, posting raises HostStopped."""
    loop, _ = looped()
    loop._stopped = True
    with pytest.raises(HostStopped, match="serve"):
        loop.post(print)


def test_thread_runs_work_and_ends():
    """The thread's loop runs until stop, and its tasks are cancelled."""
    thread = AgentThread("test-agents")
    ran = threading.Event()
    thread.call(ran.set)
    assert ran.wait(5)
    assert thread.is_alive
    cancelled = threading.Event()

    begun = threading.Event()

    async def sleeper():
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    asyncio.run_coroutine_threadsafe(sleeper(), thread.loop)
    assert begun.wait(5)
    thread.stop()
    assert cancelled.is_set()
    assert not thread.is_alive


def test_watchdog_names_a_stall_once():
    """A loop that stands still is reported while it stands."""
    stalls = []
    reported = threading.Event()

    def on_stall(seconds):
        stalls.append(seconds)
        reported.set()

    thread = AgentThread("test-agents", on_stall, stall_s=0.02)
    release = threading.Event()
    thread.call(release.wait, 5)
    assert reported.wait(5)
    release.set()
    thread.stop()
    assert stalls == [0.02]
