"""When sockets are written, and what a large room may keep waiting."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

from jupyter_agents.websocket.conversation import Conversation
from jupyter_agents.websocket.flusher import Flusher, _Recently
from jupyter_agents.websocket.outbox import Message
from tests.websocket.test_conversation import OPTIONS, FakeLoop, FakeTransport

if TYPE_CHECKING:
    import pytest


class FakeSocket:
    """Notes when it is written."""

    def __init__(self, log: list[object], *, breaks: bool = False) -> None:
        self.log, self.breaks, self.is_aborted = log, breaks, False

    def flush_now(self) -> None:
        self.log.append(self)
        if self.breaks:
            raise ZeroDivisionError

    def send(self, message: Message) -> None:
        self.log.append(("queued", self, message))

    def send_now(self, message: Message) -> None:
        self.flush_now()

    def abort(self) -> None:
        self.is_aborted = True


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class TestFlusher:
    async def test_writes_at_the_end_of_the_turn(self):
        """Nothing is written before the caller is done, all of it in the next turn."""
        log: list[object] = []
        flusher, sockets = Flusher(), [FakeSocket(log), FakeSocket(log)]
        for socket in sockets:
            flusher.mark(socket)
        assert log == []
        await turns(1)
        assert log == sockets

    async def test_flush_writes_at_once(self):
        """At the end of a link read nobody needs to wait for the next turn."""
        log: list[object] = []
        flusher, socket = Flusher(), FakeSocket(log)
        flusher.mark(socket)
        flusher.flush()
        assert log == [socket]
        await turns(2)
        assert log == [socket]

    async def test_large_rooms_are_sliced(self):
        """Between two slices the loop serves others."""
        log: list[object] = []
        flusher = Flusher(slice_size=128)
        for _ in range(300):
            flusher.mark(FakeSocket(log))
        seen = []
        for _ in range(4):
            await turns(1)
            seen.append(len(log))
        assert seen == [128, 256, 300, 300]

    async def test_broken_socket_hurts_nobody(self, caplog: pytest.LogCaptureFixture):
        """An exception for one socket cuts that one; the others are written (pitfall 1)."""
        log: list[object] = []
        flusher = Flusher()
        sockets = [FakeSocket(log), FakeSocket(log, breaks=True), FakeSocket(log)]
        for socket in sockets:
            flusher.mark(socket)
        with caplog.at_level(logging.ERROR):
            await turns(1)
        assert log == sockets
        assert [socket.is_aborted for socket in sockets] == [False, True, False]
        assert "ZeroDivisionError" in caplog.text

    async def test_no_context_is_kept(self):
        """Who sends first does not lend its context to the writes (pitfall 5)."""
        variable = contextvars.ContextVar("variable", default="empty")
        seen = []
        flusher, socket = Flusher(), FakeSocket([])
        socket.flush_now = lambda: seen.append(variable.get())  # type: ignore[method-assign]
        variable.set("the handler's")
        flusher.mark(socket)
        await turns(1)
        assert seen == ["empty"]

    async def test_after_read_waits_for_its_end(self):
        """What one read brings is written once, behind the last of its messages."""
        log: list[object] = []
        flusher = Flusher()
        flusher.is_reading = True
        flusher.after_read(lambda: log.append("written"))
        assert log == []
        flusher.end_read()
        assert log == ["written"]

    async def test_what_cannot_be_written_keeps_nobody_back(
        self, caplog: pytest.LogCaptureFixture
    ):
        """One link's trouble at the end of a read is logged, the other links are written."""
        log: list[object] = []
        flusher = Flusher()
        flusher.is_reading = True
        flusher.after_read(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        flusher.after_read(lambda: log.append("written"))
        flusher.end_read()
        assert log == ["written"]
        assert "ZeroDivisionError" in caplog.text

    async def test_after_read_waits_for_other_sockets(self):
        """Where other callbacks are due in this turn, one write serves them all."""
        log: list[object] = []
        flusher = Flusher()
        asyncio.get_running_loop().call_soon(log.append, "another socket was read")
        flusher.is_reading = True
        flusher.after_read(lambda: log.append("written"))
        flusher.end_read()
        assert log == []
        await turns(2)
        assert log == ["another socket was read", "written"]

    async def test_without_a_read_it_goes_with_the_turn(self):
        """Nobody announces an end: the turn's is soon enough."""
        log: list[object] = []
        flusher = Flusher()
        flusher.after_read(lambda: log.append("written"))
        assert log == []
        await turns(1)
        assert log == ["written"]

    async def test_loop_that_hides_its_callbacks(self):
        """On such a loop writes that follow each other closely are joined by the clock."""
        log: list[object] = []
        now = [100.0]
        flusher = Flusher()
        flusher._find_loop()
        flusher._others = _Recently(lambda: now[0])
        for later in (1.0, 10e-6):
            now[0] += later
            flusher.is_reading = True
            flusher.after_read(lambda: log.append(now[0]))
            flusher.end_read()
        assert log == [101.0]
        await turns(1)
        assert len(log) == 2


class Room:
    """Open sockets that share a flusher, and what each was sent."""

    def __init__(self, size: int, slice_size: int = 4) -> None:
        self.flusher = Flusher(slice_size)
        self.transports = [FakeTransport() for _ in range(size)]
        self.talks = [Conversation(self, self.flusher, OPTIONS) for _ in range(size)]
        for talk, transport in zip(self.talks, self.transports, strict=True):
            talk.attach(transport, FakeLoop())  # type: ignore[arg-type]
            talk.start_reading()
        self.crowd = dict.fromkeys(self.talks)

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        pass

    def spread(self, payload: bytes, *, is_last: bool = True) -> None:
        self.flusher.spread(self.crowd, Message(payload), is_last)

    @property
    def got(self) -> list[bytes]:
        """The payloads' letters, without heads."""
        return [
            bytes(transport.written).translate(None, b"\x81\x01") for transport in self.transports
        ]


class TestSpread:
    async def test_last_message_is_written_at_once(self):
        """What nothing follows waits for no turn: in a large room that goes for a slice."""
        small, large = Room(4), Room(6)
        small.spread(b"a")
        large.spread(b"a")
        assert small.got == [b"a"] * 4
        assert large.got == [b"a"] * 4 + [b""] * 2
        await turns(1)
        assert large.got == [b"a"] * 6

    async def test_message_that_is_followed_shares_a_write(self):
        """In a small room it waits for what comes behind it in the same read."""
        room = Room(4)
        room.spread(b"a", is_last=False)
        assert room.got == [b""] * 4
        room.spread(b"b")
        await turns(1)
        assert room.got == [b"ab"] * 4
        assert [transport.writes for transport in room.transports] == [1] * 4

    async def test_slices_leave_room_for_others(self):
        """A turn writes one slice of a large room, whether its message is the last or not."""
        for is_last in (True, False):
            room, seen = Room(10), []
            room.spread(b"a", is_last=is_last)
            while room.flusher.is_behind:
                seen.append(sum(map(len, room.got)))
                await turns(1)
            assert seen == [4, 8]
            assert room.got == [b"a"] * 10

    async def test_nothing_overtakes_a_spread(self):
        """Who is sent more before the spread has come to them gets it first, and a close last."""
        room = Room(10)
        room.spread(b"a")
        room.talks[9].send(Message(b"b"))
        room.talks[8].send_now(Message(b"c"))
        room.talks[0].send_now(Message(b"d"))
        room.talks[7].close(1000)
        await turns(4)
        assert room.got[1:7] == [b"a"] * 6
        assert (room.got[0], room.got[8], room.got[9]) == (b"ad", b"ac", b"ab")
        assert room.got[7][:1] == b"a"
        assert len(room.got[7]) > 1

    async def test_one_spread_follows_the_other(self):
        """The next message to a large room waits for the one before, for everybody in it."""
        room = Room(10)
        for payload in (b"a", b"b", b"c"):
            room.spread(payload)
        await turns(5)
        assert room.got == [b"abc"] * 10

    async def test_others_go_before_the_backlog_of_a_room(self):
        """Another socket is written in its turn, however much a large room has left."""
        room, other = Room(100), FakeTransport()
        talk = Conversation(room, room.flusher, OPTIONS)
        talk.attach(other, FakeLoop())  # type: ignore[arg-type]
        room.spread(b"a")
        room.talks[99].send(Message(b"b"))  # all of the room is queued now
        talk.send(Message(b"x"))
        await turns(1)
        assert other.writes == 1
        assert room.got.count(b"") > 50
        while room.flusher.is_behind:
            await turns(1)
        assert room.got == [b"a"] * 99 + [b"ab"]

    async def test_slow_member_does_not_hold_up_the_spread(self):
        """Who has more waiting gets it with that; the others are written without a queue."""
        room = Room(10)
        room.transports[1].room = 1
        room.spread(b"a")
        assert room.talks[1].queued_bytes == 2
        room.spread(b"b")
        while room.flusher.is_behind:
            await turns(1)
        assert [talk.queued_bytes for talk in room.talks] == [0, 5, *[0] * 8]
        room.transports[1].room = 100
        room.talks[1].drained()
        assert room.got == [b"ab"] * 10

    async def test_broken_socket_hurts_nobody(self, caplog: pytest.LogCaptureFixture):
        """An exception for one socket cuts that one; the others get the message (pitfall 1)."""
        log: list[object] = []
        sockets = [FakeSocket(log), FakeSocket(log, breaks=True), FakeSocket(log)]
        with caplog.at_level(logging.ERROR):
            Flusher().spread(dict.fromkeys(sockets), Message(b"x"))
        assert log == sockets
        assert [socket.is_aborted for socket in sockets] == [False, True, False]
        assert "ZeroDivisionError" in caplog.text

    async def test_members_who_left_are_left_out(self):
        """Who is closing or gone when the spread comes to them gets nothing, and harms nothing."""
        room = Room(10)
        room.spread(b"a")
        room.talks[5].abort()
        room.talks[6].connection_lost()
        await turns(4)
        assert room.got == [b"a" if number not in (5, 6) else b"" for number in range(10)]
