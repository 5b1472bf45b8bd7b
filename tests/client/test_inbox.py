"""Who waits for what: `jupyter_agents.client.inbox`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from jupyter_agents.client.inbox import Asked, Ended, Inbox, Waiting
from jupyter_agents.errors import CallAborted, CallTimeout
from jupyter_agents.protocol.client_side import Call
from jupyter_agents.protocol.replica import Write
from tests.client.fakes import FakeClock, settle


async def test_inbox_gives_items_in_order() -> None:
    """What came first is read first; a reader that came first waits."""
    inbox: Inbox[int] = Inbox(9)
    reader = asyncio.ensure_future(inbox.get())
    await settle()
    assert not reader.done()
    assert inbox.put(1)
    assert inbox.put(2)
    assert [await reader, await inbox.get()] == [1, 2]


async def test_inbox_is_bounded() -> None:
    """Beyond the limit nothing is taken, unless room is made."""
    inbox: Inbox[int] = Inbox(2)
    assert [inbox.put(n) for n in range(3)] == [True, True, False]
    inbox.drop_oldest()
    assert inbox.put(3)
    assert [await inbox.get(), await inbox.get(), len(inbox)] == [1, 3, 0]


async def test_inbox_ends_after_its_items() -> None:
    """An end, with its reason, is told to every reader once all is read; it can be taken back."""
    inbox: Inbox[int] = Inbox(9)
    readers = [asyncio.ensure_future(inbox.get()) for _ in range(3)]
    await settle()
    inbox.put(1)
    why = ValueError()
    inbox.end(why)
    found = await asyncio.gather(*readers, return_exceptions=True)
    assert sorted(map(type, found), key=str) == [int, Ended, Ended]
    with pytest.raises(Ended) as caught:
        await inbox.get()
    assert caught.value.error is why
    inbox.reopen()
    inbox.put(2)
    assert await inbox.get() == 2


async def test_inbox_survives_a_reader_that_left() -> None:
    """A cancelled reader takes nothing with it."""
    inbox: Inbox[int] = Inbox(9)
    gone, patient = asyncio.ensure_future(inbox.get()), asyncio.ensure_future(inbox.get())
    await settle()
    gone.cancel()
    await settle()
    inbox.put(1)
    assert await patient == 1


class Asking:
    """A `Waiting` that writes down what was given up."""

    def __init__(self, max_chunks: int = 9) -> None:
        self.clock = FakeClock()
        self.given_up: list[tuple[Asked, bool]] = []
        self.waiting = Waiting(lambda *what: self.given_up.append(what), max_chunks)

    def future(self, asked: Asked, timeout: float | None = None) -> asyncio.Future[Any]:
        return self.waiting.future(asked, timeout, self.clock)


@pytest.fixture
def asking() -> Asking:
    """Someone who asks."""
    return Asking()


CALL = Call("1", "add", "")


async def test_answer_ends_the_waiting(asking: Asking) -> None:
    """A value or an error reaches the future, and its timer is gone."""
    write = Write("2")
    good, bad = asking.future(CALL, 5), asking.future(write, 5)
    asking.waiting.settle(CALL, 3)
    asking.waiting.settle(write, error=ValueError("no"))
    assert await good == 3
    with pytest.raises(ValueError, match="no"):
        await bad
    assert (asking.clock.pending(), asking.given_up) == ([], [])


@pytest.mark.parametrize(("asked", "named"), [(CALL, "add"), (Write("2"), "set_state")])
async def test_time_limit_gives_up(asking: Asking, asked: Asked, named: str) -> None:
    """At the limit the future fails, naming what was asked; a late answer meets nobody."""
    future = asking.future(asked, 5)
    await asking.clock.advance(5)
    with pytest.raises(CallTimeout, match=f"{named} did not answer within 5 s"):
        await future
    asking.waiting.settle(asked, 1)
    assert asking.given_up == [(asked, True)]


async def test_cancel_gives_up_once(asking: Asking) -> None:
    """Cancelling gives up; after an answer there is nothing to give up."""
    early, late = asking.future(CALL, 5), asking.future(other := Call("2", "b", ""), 5)
    early.cancel()
    await settle()
    asking.waiting.settle(other, 1)
    late.cancel()
    await settle()
    assert asking.given_up == [(CALL, False)]
    assert asking.clock.pending() == []


async def test_stream_gives_up_when_left(asking: Asking) -> None:
    """A stream nobody holds any more is given up; one that has ended is not."""
    stream = asking.waiting.stream(CALL)
    over = asking.waiting.stream(other := Call("2", "b", ""))
    asking.waiting.settle(other, "end")
    del stream, over
    gc.collect()
    await settle()
    assert asking.given_up == [(CALL, False)]


async def test_stream_can_be_cancelled_twice(asking: Asking) -> None:
    """Cancelling ends the iteration; doing so again does nothing."""
    stream = asking.waiting.stream(CALL)
    asking.waiting.chunk(CALL, 1)
    stream.cancel()
    stream.cancel()
    asking.waiting.chunk(CALL, 2)
    assert [chunk async for chunk in stream] == [1]
    assert asking.given_up == [(CALL, False)]


async def test_chunk_for_a_plain_call_is_passed_over(asking: Asking) -> None:
    """Who calls a streaming method plainly gets its final value."""
    future = asking.future(CALL)
    asking.waiting.chunk(CALL, 1)
    asking.waiting.settle(CALL, "end")
    assert await future == "end"


async def test_stream_too_far_behind_fails() -> None:
    """The limit on unread chunks ends the stream with a reason."""
    asking = Asking(max_chunks=1)
    stream = asking.waiting.stream(CALL)
    for n in range(3):
        asking.waiting.chunk(CALL, n)
    assert await anext(stream) == 0
    with pytest.raises(CallAborted, match="1 chunks behind"):
        await anext(stream)
    assert asking.given_up == [(CALL, False)]
