"""The rules of one WebSocket after the handshake, with a fake transport and a fake clock."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_agents.errors import RemoteProtocolError
from jupyter_agents.websocket.conversation import Conversation
from jupyter_agents.websocket.flusher import Flusher
from jupyter_agents.websocket.frames import CLOSE, PING, PONG, TEXT, close_payload, encode_frame
from jupyter_agents.websocket.options import SocketOptions
from jupyter_agents.websocket.outbox import Message
from tests.websocket.test_frames import client_frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

OPTIONS = SocketOptions(
    max_message_bytes=1000,
    max_queue_bytes=1000,
    close_timeout_s=5,
    ping_interval_s=30,
    ping_timeout_s=10,
)


class FakeLoop:
    """Time that passes when it is told to, with what of an event loop is used."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_later(
        self, delay_s: float, callback: Callable[..., None], *args: Any, context: Context
    ) -> FakeTimer:
        timer = FakeTimer(self, self.now + delay_s, lambda: context.run(callback, *args))
        self.calls.append(timer)
        return timer

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted((t for t in self.calls if t.when <= end), key=lambda t: t.when):
            self.now = due[0].when
            due[0].cancel()
            due[0].act()
        self.now = end

    @property
    def is_idle(self) -> bool:
        return not self.calls


@dataclass(eq=False)
class FakeTimer:
    """What `call_later` gives."""

    loop: FakeLoop
    when: float
    act: Callable[[], None]

    def cancel(self) -> None:
        if self in self.loop.calls:
            self.loop.calls.remove(self)


class FakeTransport:
    """Takes `room` bytes, keeps the rest, and notes what is asked of it."""

    def __init__(self) -> None:
        self.room = 1 << 30
        self.written = bytearray()
        self.writes = 0
        self.is_reading = False
        self.end = ""

    def write(self, data: bytes) -> int:
        self.writes += 1
        taken = min(self.room, len(data))
        self.room -= taken
        self.written += data
        return taken

    def pause(self) -> None:
        self.is_reading = False

    def resume(self) -> None:
        self.is_reading = True

    def shut_down_writing(self) -> None:
        self.end = "half"

    def close(self) -> None:
        self.end = "closed"

    def abort(self) -> None:
        self.end = "aborted"


class LaterFlusher(Flusher):
    """A turn of the loop ends when the test says so."""

    def _schedule(self) -> None:
        pass


class Peer:
    """A conversation with everything around it faked; also its receiver."""

    def __init__(self, options: SocketOptions = OPTIONS, *, starts: bool = True) -> None:
        self.loop, self.transport, self.flusher = FakeLoop(), FakeTransport(), LaterFlusher()
        self.talk = Conversation(self, self.flusher, options)
        self.talk.attach(self.transport, self.loop)  # type: ignore[arg-type]
        self.heard: list[Any] = []
        self.on_message: Callable[[bytes], None] = lambda payload: None
        if starts:
            self.talk.start_reading()

    def on_text(self, payload: bytes) -> None:
        self.heard.append(payload)
        self.on_message(payload)

    def on_binary(self, payload: bytes) -> None:
        self.heard.append(bytearray(payload))

    def on_failed(self, error: Exception) -> None:
        assert isinstance(error, RemoteProtocolError)
        self.heard.append(("failed", error.close_code))

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        self.heard.append((code, reason, was_clean))

    def says(self, *frames: bytes) -> None:
        """The client sends these in one piece, and the turn ends."""
        self.talk.data_received(b"".join(frames))
        self.flusher.flush()

    def drains(self, room: int = 1 << 30) -> None:
        """The client reads on."""
        self.transport.room = room
        self.talk.drained()

    def gets(self) -> bytes:
        """What went out since the last look."""
        self.flusher.flush()
        data = bytes(self.transport.written)
        self.transport.written.clear()
        return data


@pytest.fixture
def peer() -> Peer:
    return Peer()


def close_frame(code: int | None = None, reason: str = "") -> bytes:
    """As the client sends it."""
    return client_frame(close_payload(code, reason), CLOSE)


def closing(code: int | None = None, reason: str = "") -> bytes:
    """As we send it."""
    return encode_frame(close_payload(code, reason), CLOSE)


def text(payload: bytes) -> bytes:
    return encode_frame(payload, TEXT)


class TestSending:
    def test_a_turn_is_one_write(self, peer: Peer):
        """Everything that was sent in a turn leaves in one write, in order."""
        for payload in (b"a", b"b", b"c"):
            peer.talk.send(Message(payload))
        assert peer.transport.writes == 0
        assert peer.gets() == text(b"a") + text(b"b") + text(b"c")
        assert peer.transport.writes == 1
        assert peer.talk.messages_out == 3
        assert peer.talk.bytes_out == 9

    def test_lone_frame_is_the_shared_object(self, peer: Peer, monkeypatch: pytest.MonkeyPatch):
        """A broadcast's frame reaches the transport without a copy."""
        seen = []
        monkeypatch.setattr(peer.transport, "write", lambda data: seen.append(data) or len(data))
        message = Message(b"x")
        peer.talk.send(message)
        peer.flusher.flush()
        assert seen[0] is message.frame

    def test_what_nothing_follows_is_written_at_once(self, peer: Peer):
        """`send_now` waits for no turn where nothing is queued, else it goes behind that."""
        peer.talk.send_now(Message(b"a"))
        assert peer.transport.writes == 1
        peer.talk.send(Message(b"b"))
        peer.talk.send_now(Message(b"c"))
        assert peer.transport.writes == 1
        assert peer.gets() == text(b"a") + text(b"b") + text(b"c")
        assert (peer.talk.messages_out, peer.talk.bytes_out) == (3, 9)

    def test_what_the_socket_did_not_take_at_once_is_in_flight(self, peer: Peer):
        """A short write of `send_now` blocks the socket until it drains."""
        peer.transport.room = 2
        peer.talk.send_now(Message(b"first"))
        assert peer.talk.queued_bytes == 5
        peer.talk.send_now(Message(b"second"))
        assert peer.transport.writes == 1
        peer.drains()
        assert peer.gets() == text(b"first") + text(b"second")

    def test_what_is_sent_before_there_is_a_transport_waits(self):
        """It leaves as soon as the socket is attached."""
        flusher, transport = LaterFlusher(), FakeTransport()
        talk = Conversation(Peer(), flusher, OPTIONS)
        talk.send(Message(b"early"))
        talk.send_now(Message(b"bird"))
        flusher.flush()
        talk.attach(transport, FakeLoop())  # type: ignore[arg-type]
        flusher.flush()
        assert bytes(transport.written) == text(b"early") + text(b"bird")

    def test_nothing_is_written_while_the_socket_is_full(self, peer: Peer):
        """What the socket could not take goes first; the rest follows when there is room."""
        peer.transport.room = 2
        peer.talk.send(Message(b"first"))
        peer.flusher.flush()
        assert peer.talk.queued_bytes == 5
        peer.talk.send(Message(b"second"))
        peer.flusher.flush()
        assert peer.transport.writes == 1
        assert peer.talk.queued_bytes == 5 + 8
        peer.drains()
        assert peer.gets() == text(b"first") + text(b"second")
        assert peer.talk.queued_bytes == 0

    def test_after_the_end_nothing_is_sent(self, peer: Peer):
        """`send` is silent once the socket is closing or lost."""
        peer.talk.close(1000)
        peer.talk.send(Message(b"late"))
        assert peer.gets() == closing(1000)
        peer.talk.connection_lost()
        peer.talk.send(Message(b"later"))
        assert peer.gets() == b""
        assert peer.talk.messages_out == 0

    def test_sending_before_reading(self):
        """While `open` runs, messages go out, but none come in."""
        peer = Peer(starts=False)
        peer.talk.send(Message(b"hello"))
        assert peer.gets() == text(b"hello")
        assert not peer.transport.is_reading
        peer.talk.start_reading()
        assert peer.transport.is_reading


class TestSlowClient:
    def fill(self, peer: Peer, *messages: Message) -> None:
        peer.transport.room = 0
        for message in messages:
            peer.talk.send(message)
            peer.flusher.flush()

    def test_burst_to_a_fast_client_is_no_backlog(self, peer: Peer):
        """A turn may send more than the limit to a socket that takes it."""
        for _ in range(30):
            peer.talk.send(Message(b"x" * 100))
        assert peer.gets() == text(b"x" * 100) * 30
        assert not peer.talk.is_closing()

    def test_one_big_message_always_gets_through(self, peer: Peer):
        """The limit counts what waits already, not the message that comes."""
        peer.talk.send(Message(b"x" * 5000))
        assert len(peer.gets()) == 5004
        assert not peer.talk.is_closing()

    def test_stale_states_go_first(self, peer: Peer):
        """Past the limit only the latest state waits, and the client stays."""
        states = [Message(b"%03d" % i + b"s" * 97, replaceable=True) for i in range(40)]
        self.fill(peer, Message(b"in flight"), Message(b"kept"), *states)
        assert not peer.talk.is_closing()
        assert peer.talk.queued_bytes <= 1000 + 102
        peer.gets()
        peer.drains()
        got = peer.gets()
        assert got.startswith(text(b"kept"))
        assert got.endswith(states[-1].frame)
        assert got.count(b"sss" * 30) < 12

    def test_latest_state_stays_when_a_message_comes(self, peer: Peer):
        """A message past the limit drops the older states, never the newest."""
        states = [Message(b"%03d" % i + b"s" * 297, replaceable=True) for i in range(4)]
        self.fill(peer, Message(b"in flight"), *states, Message(b"message"))
        peer.gets()
        peer.drains()
        assert peer.gets() == states[-1].frame + text(b"message")

    def test_without_states_it_is_closed_with_1013(self, peer: Peer):
        """A client that does not read is told 1013, its queue is let go, and then it is cut.

        Whoever listens hears why, and hears it at once.
        """
        self.fill(peer, *[Message(b"x" * 100) for _ in range(12)])
        assert peer.talk.is_closing()
        assert peer.talk.queued_bytes < 250
        peer.loop.pass_time(5)
        assert peer.transport.end == "aborted"
        assert peer.heard == [(1013, "Client reads too slowly", False)]
        assert peer.talk.queued_bytes == 0

    def test_close_frame_reaches_it_when_it_reads_again(self, peer: Peer):
        """If it reads before the time is up, it sees the code behind what was in flight."""
        self.fill(peer, *[Message(b"x" * 100) for _ in range(12)])
        peer.transport.written.clear()
        peer.drains()
        assert peer.gets() == closing(1013, "Client reads too slowly")

    def test_relief_that_frees_little_is_none(self, peer: Peer):
        """Coalescing small states behind a full queue would be a search per message."""
        self.fill(peer, *[Message(b"x" * 100) for _ in range(9)])
        states = [Message(b"s" * 30, replaceable=True) for _ in range(20)]
        self.fill(peer, *states)
        assert peer.talk.is_closing()


class TestClosing:
    def test_client_closes(self, peer: Peer):
        """The code is answered, the receiver hears it, and TCP is closed (WIRE 8)."""
        peer.says(close_frame(4001, "bye"))
        assert peer.gets() == closing(4001)
        assert peer.heard == [(4001, "bye", True)]
        assert peer.transport.end == "closed"

    def test_empty_close_is_answered(self, peer: Peer):
        """1005 for the receiver, an empty frame for the client."""
        peer.says(close_frame())
        assert peer.gets() == closing()
        assert peer.heard == [(1005, "", True)]

    def test_answer_goes_behind_what_is_queued(self, peer: Peer):
        """TCP is closed when all is written, not before."""
        peer.transport.room = 0
        peer.talk.send(Message(b"last"))
        peer.says(close_frame(1000))
        assert peer.transport.end == ""
        peer.drains()
        assert peer.gets() == text(b"last") + closing(1000)
        assert peer.transport.end == "closed"

    def test_server_closes(self, peer: Peer):
        """The receiver hears what the client answers."""
        peer.talk.close(4000, "go")
        assert peer.gets() == closing(4000, "go")
        assert (peer.heard, peer.transport.end) == ([], "")
        peer.says(close_frame(4000, "ok"))
        assert peer.heard == [(4000, "ok", True)]
        assert (peer.gets(), peer.transport.end) == (b"", "closed")

    def test_first_close_wins(self, peer: Peer):
        """A second close is ignored."""
        peer.talk.close(4000, "first")
        peer.talk.close(1000, "second")
        assert peer.gets() == closing(4000, "first")

    def test_reason_without_code_is_1000(self, peer: Peer):
        """As Tornado has it."""
        peer.talk.close(reason="done")
        assert peer.gets() == closing(1000, "done")

    def test_silence_after_a_close_is_1006(self, peer: Peer):
        """Who does not answer in time is cut."""
        peer.talk.close(1000)
        peer.loop.pass_time(4.9)
        assert peer.heard == []
        peer.loop.pass_time(0.2)
        assert peer.heard == [(1006, "", False)]
        assert peer.transport.end == "aborted"

    def test_eof_instead_of_an_answer_is_1006(self, peer: Peer):
        """A peer that hangs up answered nothing."""
        peer.talk.close(1000)
        peer.talk.connection_lost()
        assert peer.heard == [(1006, "", False)]

    def test_vanished_peer_is_1006(self, peer: Peer):
        """The end comes once, and no timer stays."""
        peer.talk.connection_lost()
        peer.talk.connection_lost()
        peer.talk.abort()
        peer.talk.close(1000)
        assert peer.heard == [(1006, "", False)]
        assert peer.loop.is_idle

    def test_messages_behind_our_close_are_dropped(self, peer: Peer):
        """Only the close frame still counts, as in a browser."""
        peer.talk.close(1000)
        peer.says(client_frame(b"late"), client_frame(b"p", PING), close_frame(1000))
        assert peer.heard == [(1000, "", True)]
        assert peer.gets() == closing(1000)

    def test_close_within_a_message(self, peer: Peer):
        """Messages behind the one whose handler closed are dropped, even in the same read."""
        peer.on_message = lambda payload: peer.talk.close(4000)
        peer.says(client_frame(b"a"), client_frame(b"b"), close_frame(4000))
        assert peer.heard == [b"a", (4000, "", True)]

    def test_no_timer_after_the_end(self, peer: Peer):
        """Neither pings nor the closing time outlive the connection."""
        peer.says(close_frame(1000))
        peer.talk.connection_lost()
        assert peer.loop.is_idle


class TestFailing:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"\x83\x80", 1002),
            (client_frame(b"\xff"), 1007),
            (client_frame(b"x" * 1001)[:8], 1009),
            (client_frame(b"\x03\xed", CLOSE), 1002),
            (client_frame(b"\x03", CLOSE), 1002),
            (client_frame(b"\x03\xe8\xff", CLOSE), 1007),
        ],
    )
    def test_broken_rule(self, peer: Peer, data: bytes, code: int):
        """on_failed, then on_closed with the code the client is told; never clean (WIRE 7)."""
        peer.says(data)
        failed, (closed, reason, was_clean) = peer.heard
        assert failed == ("failed", code)
        assert (closed, was_clean) == (code, False)
        assert peer.gets() == closing(code, reason)

    def test_client_may_read_why(self, peer: Peer):
        """Writing ends, but reading goes on until the client hangs up: no reset eats the code."""
        peer.says(client_frame(b"x" * 1001)[:8])
        assert peer.transport.end == "half"
        peer.says(b"x" * 1000, b"\xff" * 100)
        assert len(peer.heard) == 2
        peer.talk.connection_lost()
        assert len(peer.heard) == 2
        assert peer.loop.is_idle

    def test_client_that_never_hangs_up_is_cut(self, peer: Peer):
        """The closing time bounds that, too."""
        peer.says(b"\x83\x80")
        peer.loop.pass_time(5)
        assert peer.transport.end == "aborted"

    def test_answers_before_the_error_are_sent(self, peer: Peer):
        """What was sent in answer to good frames of the same read goes out before the close."""
        peer.on_message = lambda payload: peer.talk.send(Message(payload))
        peer.says(client_frame(b"good"), b"\x83\x80")
        assert peer.gets().startswith(text(b"good") + b"\x88")

    def test_error_while_closing(self, peer: Peer):
        """A peer that answers a close frame with garbage is cut."""
        peer.talk.close(1000)
        peer.says(b"\x83\x80")
        assert peer.transport.end == "aborted"
        assert peer.heard == [(1006, "", False)]

    def test_receiver_that_fails_closes_its_socket(
        self, peer: Peer, caplog: pytest.LogCaptureFixture
    ):
        """An exception of ours is 1011 for this client and in the log, and nothing more."""
        peer.on_message = lambda payload: 1 // 0  # type: ignore[assignment, return-value]
        with caplog.at_level(logging.ERROR):
            peer.says(client_frame(b"a"), client_frame(b"b"))
        assert peer.heard == [b"a"]
        assert peer.gets() == closing(1011, "Internal error")
        assert "ZeroDivisionError" in caplog.text

    def test_receiver_that_fails_at_the_end(
        self, peer: Peer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ):
        """The socket ends all the same."""
        monkeypatch.setattr(peer, "on_closed", lambda *args: 1 // 0)
        with caplog.at_level(logging.ERROR):
            peer.says(close_frame(1000))
        assert peer.transport.end == "closed"
        assert "ZeroDivisionError" in caplog.text


class TestReading:
    def test_counts(self, peer: Peer):
        """Texts and binaries are handed on and counted."""
        peer.says(client_frame(b"a"), client_frame(b"b", 2))
        assert peer.heard == [b"a", bytearray(b"b")]
        assert peer.talk.messages_in == 2
        assert peer.talk.bytes_in == 14

    def test_pause_holds_back_the_same_read(self, peer: Peer):
        """Not even messages that were read already are handed on while paused."""
        peer.on_message = lambda payload: peer.talk.pause_reading()
        peer.says(client_frame(b"a"), client_frame(b"b"), client_frame(b"c"))
        assert peer.heard == [b"a"]
        assert not peer.transport.is_reading
        peer.talk.resume_reading()
        assert peer.heard == [b"a", b"b"]
        peer.on_message = lambda payload: None
        peer.talk.resume_reading()
        assert peer.heard == [b"a", b"b", b"c"]
        assert peer.transport.is_reading

    def test_resume_within_a_message_keeps_the_order(self, peer: Peer):
        """A handler that pauses and resumes does not let the next message in before it is done."""

        def blink(payload: bytes) -> None:
            peer.talk.pause_reading()
            peer.talk.resume_reading()
            peer.heard.append("done")

        peer.on_message = blink
        peer.says(client_frame(b"a"), client_frame(b"b"))
        assert peer.heard == [b"a", "done", b"b", "done"]

    def test_read_under_way_waits(self, peer: Peer):
        """A read that comes in after the pause is kept."""
        peer.talk.pause_reading()
        peer.says(client_frame(b"a"))
        assert peer.heard == []
        peer.talk.resume_reading()
        assert peer.heard == [b"a"]

    def test_peer_that_vanishes_while_paused(self, peer: Peer):
        """Its last messages are delivered before its end."""
        peer.talk.pause_reading()
        peer.says(client_frame(b"a"))
        peer.talk.connection_lost()
        assert peer.heard == []
        peer.talk.resume_reading()
        assert peer.heard == [b"a"]
        peer.talk.connection_lost()  # as the transport says again when it is read on
        assert peer.heard == [b"a", (1006, "", False)]

    def test_closing_a_lost_socket_while_paused(self, peer: Peer):
        """Whoever gives it up hears its end at once."""
        peer.talk.pause_reading()
        peer.talk.connection_lost()
        peer.talk.close(1012)
        assert peer.heard == [(1006, "", False)]

    def test_closing_while_paused_reads_on(self, peer: Peer):
        """The answer has to be read; the messages before it are dropped."""
        peer.talk.pause_reading()
        peer.says(client_frame(b"a"))
        peer.talk.close(1012)
        assert peer.transport.is_reading
        peer.says(close_frame(1012))
        assert peer.heard == [(1012, "", True)]

    def test_pause_before_reading_begins(self):
        """A pause within `open` holds."""
        peer = Peer(starts=False)
        peer.talk.pause_reading()
        peer.talk.start_reading()
        assert not peer.transport.is_reading
        peer.talk.resume_reading()
        assert peer.transport.is_reading

    def test_resume_before_reading_begins(self):
        """A resume within `open` does not let messages in."""
        peer = Peer(starts=False)
        peer.talk.pause_reading()
        peer.talk.resume_reading()
        assert not peer.transport.is_reading


def pong_for(sent: bytes) -> bytes:
    """What the client answers to our one ping."""
    assert sent[:2] == b"\x89\x08"
    return client_frame(sent[2:], PONG)


class TestPings:
    def test_ping_is_answered_with_its_payload(self, peer: Peer):
        """Every ping gets its pong, in order."""
        peer.says(client_frame(b"1", PING), client_frame(b"2", PING))
        assert peer.gets() == encode_frame(b"1", PONG) + encode_frame(b"2", PONG)

    def test_flood_of_pings_fills_no_memory(self, peer: Peer):
        """While the socket is full only the latest ping will be answered."""
        peer.transport.room = 0
        peer.talk.send(Message(b"x"))
        peer.flusher.flush()
        for i in range(1000):
            peer.says(client_frame(b"%d" % i, PING))
        assert peer.talk.queued_bytes == 3
        peer.drains()
        assert peer.gets() == text(b"x") + encode_frame(b"999", PONG)

    def test_round_trip_is_measured(self, peer: Peer):
        """From our ping to its own pong; a stray pong measures nothing."""
        peer.loop.pass_time(30)
        ping = peer.gets()
        peer.says(client_frame(b"stray", PONG))
        assert peer.talk.round_trip_s is None
        peer.loop.pass_time(0.25)
        peer.says(pong_for(ping))
        assert peer.talk.round_trip_s == pytest.approx(0.25)

    def test_silent_peer_is_found_within_two_intervals(self, peer: Peer):
        """A half-open peer is cut when it lets a ping pass: 1006 (T206)."""
        peer.says(client_frame(b"alive"))
        peer.loop.pass_time(39.9)
        assert peer.heard == [b"alive"]
        peer.loop.pass_time(0.2)
        assert peer.heard == [b"alive", (1006, "", False)]
        assert peer.transport.end == "aborted"

    def test_answering_peer_is_pinged_for_ever(self, peer: Peer):
        """A ping per interval, and nobody is cut."""
        for _ in range(5):
            peer.loop.pass_time(30)
            peer.says(pong_for(peer.gets()))
        assert peer.heard == []

    def test_any_bytes_are_a_sign_of_life(self, peer: Peer):
        """A peer that is busy sending may owe us the pong."""
        peer.loop.pass_time(35)
        peer.says(client_frame(b"busy"))
        peer.loop.pass_time(20)
        assert peer.heard == [b"busy"]

    def test_slow_reader_is_alive_while_it_drains(self, peer: Peer):
        """A full socket that drains proves the peer, though the pong is far away."""
        peer.transport.room = 0
        peer.talk.send(Message(b"x" * 500))
        peer.flusher.flush()
        peer.loop.pass_time(35)
        peer.drains()
        peer.loop.pass_time(10)
        assert peer.heard == []

    def test_paused_peer_is_not_judged(self, peer: Peer):
        """Nobody can be heard while we do not listen."""
        peer.talk.pause_reading()
        peer.loop.pass_time(500)
        assert peer.heard == []
        peer.talk.resume_reading()
        peer.loop.pass_time(71)
        assert peer.heard == [(1006, "", False)]

    def test_timeout_is_never_longer_than_the_interval(self):
        """Without a time-out, or with a longer one, the interval is the patience."""
        peer = Peer(SocketOptions(ping_interval_s=30, ping_timeout_s=100))
        peer.loop.pass_time(59)
        assert peer.heard == []
        peer.loop.pass_time(2)
        assert peer.heard == [(1006, "", False)]

    def test_zero_interval_sends_none(self):
        """Pings can be switched off."""
        peer = Peer(SocketOptions(ping_interval_s=0))
        assert peer.loop.is_idle
