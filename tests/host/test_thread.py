"""Turns of the loop, work from other threads, and the watchdog."""

from __future__ import annotations

import asyncio
import threading

import pytest

from jupyter_agents.errors import HostStopped, LinkError
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
