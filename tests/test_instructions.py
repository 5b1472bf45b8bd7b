"""A guard against slow decay: how many functions run for a message, on any machine, busy or not.

Counted are calls of Python and C functions, in the product's own objects and without the operating
system (`benchmarks/hot_path.py`). A budget is what it was when it was last looked at, on Python
3.10 to 3.13, which differ by three calls; a third more is tolerated.

If a test fails: run ``python -m benchmarks.hot_path`` and ``python -m benchmarks.bytecodes``
before and after your change. Where the message does nothing new, find what it does twice; where it
does, and what it costs is worth it, raise the budget here in the same commit and say why.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.hot_path import ALL, ECHO, RPC, STATE, opened
from jupyter_agents.link.frames import FrameReader, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERATED = 1.33
STRETCHES = ("server, in", "kernel", "server, out")


def calls(work: Callable[[], object]) -> int:
    """Functions called by `work`, those in C included; the second time, when all is warm."""
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    work()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


async def counted(members: int, frames: bytes) -> list[int]:
    """Calls on each stretch of these frames' way, with so many clients in the room."""
    async with opened(members) as path:
        found = path.stretches(frames)
        return [calls(found[stretch]) for stretch in STRETCHES]


def hold(found: list[float], budget: tuple[float, ...]) -> None:
    """Compare, and say where it went wrong."""
    for stretch, number, allowed in zip(STRETCHES, found, budget, strict=True):
        assert number <= allowed * TOLERATED, (
            f"{stretch}: {number:.1f} calls, the budget is {allowed:g}; this module's docstring "
            "says what to do"
        )


@pytest.mark.parametrize(
    ("frames", "budget"),
    [(ECHO, (33, 37, 32)), (RPC, (33, 77, 32))],
    ids=["echo", "call"],
)
async def test_round_trip(frames, budget):
    """One message and its answer."""
    found = await counted(1, frames)
    hold(found, budget)


async def test_each_more_message_of_a_read():
    """What a message costs among others: without the turn, the reads and the writes."""
    few, many = await counted(1, ECHO), await counted(1, ECHO * 11)
    found = [(b - a) / 10 for a, b in zip(few, many, strict=True)]
    hold(found, (15, 20, 10))


@pytest.mark.parametrize(
    ("frames", "budget"),
    [(ALL, (0, 0, 9)), (ALL * 8, (0, 0, 9)), (STATE, (0, 0, 9))],
    ids=["broadcast", "8 broadcasts", "state"],
)
async def test_each_more_recipient(frames, budget):
    """What goes to everybody is encoded once, crosses the link once, and is sent once to each."""
    few, many = await counted(10, frames), await counted(110, frames)
    found = [(b - a) / 100 for a, b in zip(few, many, strict=True)]
    hold(found, budget)


@pytest.mark.parametrize("count", [1, 16], ids=["one", "16 in a read"])
async def test_writes_of_an_echo(count):
    """However many messages a read brings: one write on the link, one back, one to the client."""
    async with opened(1) as path:
        before = path.down.writes, path.up.writes, path.plugs[0].sends
        path.to_server(path.to_kernel(path.from_client(ECHO * count)))
        after = path.down.writes, path.up.writes, path.plugs[0].sends
        assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]


@pytest.mark.parametrize("members", [1, 50, 300])
async def test_a_broadcast_crosses_once(members):
    """One frame on the link whatever the size of the room, one write to each client."""
    async with opened(members) as path:
        before = [plug.sends for plug in path.plugs]
        answers = path.to_kernel(path.from_client(ALL))
        assert [(kind, number) for kind, number, _ in FrameReader(1 << 20).feed(answers)] == [
            (Kind.TEXT_MANY, members)
        ]
        path.to_server(answers)
        assert [plug.sends - a for plug, a in zip(path.plugs, before, strict=True)] == [
            1
        ] * members


async def test_a_hundred_changes_are_one_frame():
    """What changes in one turn is told once, and serialised once."""
    async with opened(100) as path:
        [instance] = path.host.find("hot-agent").instances.values()
        agent = instance.agent

        def work() -> None:
            for number in range(100):
                agent.set_state({"count": number})

        path.host.begin_turn()
        work()
        path.host.end_turn()
        [(kind, recipients, payload)] = FrameReader(1 << 20).feed(path.up.take())
        assert (kind, recipients) == (Kind.STATE_MANY, 100)
        assert payload[400:] == b'{"type":"cf_agent_state","state":{"count":99}}'


async def test_no_task_for_a_message():
    """Neither a message nor its delivery to many makes a task or a future."""
    async with opened(100) as path:
        made = []
        path.loop.set_task_factory(lambda loop, coro, **more: made.append(coro))
        path.loop.create_future = made.append
        try:
            for frames in (ECHO, ALL, STATE, RPC):
                path.to_server(path.to_kernel(path.from_client(frames)))
        finally:
            path.loop.set_task_factory(None)
            del path.loop.create_future
        assert made == []
