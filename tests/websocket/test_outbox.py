"""What waits for a socket, and the turn in which it goes."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

from jupyter_agents.websocket.frames import BINARY, TEXT, Deflate, encode_frame
from jupyter_agents.websocket.outbox import Bundle, Flusher, Message, Outbox, _Recently

if TYPE_CHECKING:
    import pytest


class TestMessage:
    def test_frame_is_built_once(self):
        """Every socket gets the very same bytes object."""
        message = Message(b"hello")
        assert message.frame == encode_frame(b"hello", TEXT)
        assert message.frame is message.frame

    def test_binary_has_its_opcode(self):
        """A binary message says so."""
        assert Message(b"\xff", binary=True).frame == encode_frame(b"\xff", BINARY)

    def test_compressed_once_per_agreement(self):
        """Sockets that agreed on the same share one compressed frame, others have their own."""
        message = Message(b"x" * 5000)
        frame = message.frame_for(Deflate())
        assert frame is message.frame_for(Deflate())
        assert frame[0] == 0xC1
        assert len(frame) < 100
        assert message.frame_for(Deflate(window_bits=9)) is not frame
        assert message.frame_for(None) is message.frame

    def test_small_message_stays_plain(self):
        """Below `min_bytes` nothing is compressed."""
        message = Message(b"x" * 99)
        assert message.frame_for(Deflate(min_bytes=100)) is message.frame


class TestBundle:
    def test_frames_lie_behind_each_other(self):
        """Messages keep their frames and their order; each is counted."""
        payloads = [b"one", b"x" * 200, b"three"]
        for binary in (False, True):
            bundle = Bundle(payloads, binary)
            parts = [Message(payload, binary) for payload in payloads]
            assert bundle.frame == b"".join(part.frame for part in parts)
            assert (bundle.count, bundle.replaceable) == (3, False)

    def test_each_is_compressed_by_itself(self):
        """A socket that agreed on compression gets the same frames as without a bundle."""
        parts = [Message(b"small"), Message(b"x" * 5000)]
        bundle, deflate = Bundle([part.payload for part in parts]), Deflate()
        assert bundle.frame_for(deflate) == b"".join(part.frame_for(deflate) for part in parts)
        assert bundle.frame_for(deflate) is bundle.frame_for(Deflate())
        assert bundle.frame_for(None) is bundle.frame


def state(text: bytes) -> bytes:
    return Message(text, replaceable=True).frame


class TestOutbox:
    def test_frames_are_joined_in_order(self):
        """What fits is taken at once, first in first out."""
        outbox = Outbox()
        for frame in (b"a", b"bc", b"def"):
            outbox.append(frame)
        assert outbox.size_bytes == 6
        assert outbox.take(100) == b"abcdef"
        assert (outbox.size_bytes, outbox.take(100)) == (0, b"")

    def test_lone_frame_is_not_copied(self):
        """A broadcast's frame goes to the socket as the object it is."""
        outbox, frame = Outbox(), b"x" * 50
        outbox.append(frame)
        assert outbox.take(10) is frame

    def test_batches_keep_to_their_size(self):
        """A batch ends before the frame that would make it too long; a longer frame goes alone."""
        outbox = Outbox()
        for frame in (b"aaaa", b"bbbb", b"cccccccccccc", b"d"):
            outbox.append(frame)
        assert [outbox.take(9) for _ in range(3)] == [b"aaaabbbb", b"cccccccccccc", b"d"]
        assert outbox.size_bytes == 0

    def test_control_frame_overtakes(self):
        """A ping goes before messages that wait."""
        outbox = Outbox()
        outbox.append(b"data")
        outbox.push_front(b"ping")
        assert outbox.take(100) == b"pingdata"

    def test_only_the_newest_state_stays(self):
        """Older states go, messages keep their order around the newest state."""
        outbox = Outbox()
        for frame in (state(b"1"), b"m1", state(b"2"), b"m2", state(b"3"), b"m3"):
            outbox.append(frame)
        outbox.drop_stale(all_of_them=False)
        assert outbox.size_bytes == len(b"m1m2m3") + 3
        assert outbox.take(100) == b"m1m2" + state(b"3") + b"m3"

    def test_every_state_goes_when_a_newer_comes(self):
        """The state that is about to be added makes all the others stale."""
        outbox = Outbox()
        for frame in (state(b"1"), b"m1", state(b"2")):
            outbox.append(frame)
        outbox.drop_stale(all_of_them=True)
        assert outbox.take(100) == b"m1"


class FakeSocket:
    """Notes when it is written."""

    def __init__(self, log: list[object], *, breaks: bool = False) -> None:
        self.log, self.breaks, self.is_aborted = log, breaks, False

    def flush_now(self) -> None:
        self.log.append(self)
        if self.breaks:
            raise ZeroDivisionError

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
