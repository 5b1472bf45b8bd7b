"""One WebSocket after the handshake: what RFC 6455 wants said, when, and what it ends in.

Frames come from a `FrameParser`, bytes go through a `Transport`, time is the loop's; whoever
listens is a `Receiver`. How a conversation begins is `jupyter_agents.websocket.protocol`'s
business.
"""

from __future__ import annotations

import logging
from contextvars import Context
from typing import TYPE_CHECKING, Protocol

from jupyter_agents.errors import ProtocolError, RemoteProtocolError
from jupyter_agents.protocol.closing import ABNORMAL, INTERNAL_ERROR, NORMAL, TRY_AGAIN_LATER
from jupyter_agents.websocket.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameParser,
    close_payload,
    encode_frame,
    read_close,
)
from jupyter_agents.websocket.outbox import Outbox

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable, Iterator

    from jupyter_agents.websocket.flusher import Flusher
    from jupyter_agents.websocket.frames import Deflate
    from jupyter_agents.websocket.options import SocketOptions
    from jupyter_agents.websocket.outbox import Bundle, Message, Transport

__all__ = ["Conversation", "Receiver"]

_log = logging.getLogger(__name__)

# What is joined into one write at most. Past it, joining costs more than a second system call, and
# what a blocked socket has in flight cannot be replaced by newer state any more.
_BATCH_BYTES = 256 * 1024
# Stale messages must free an eighth of the limit, or else each send would search the whole queue.
_MIN_RELIEF = 8
_TOO_SLOW = "Client reads too slowly"


class Receiver(Protocol):
    """Who is told what a client does, on the IOLoop; an exception closes its socket (1011)."""

    def on_text(self, payload: bytes) -> None:
        """Take a text message: valid UTF-8, still encoded."""

    def on_binary(self, payload: bytes) -> None:
        """Take a binary message."""

    def on_failed(self, error: Exception) -> None:
        """Hear of a `RemoteProtocolError`: a rule was broken; `on_closed` follows at once."""

    def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
        """Hear of the end, exactly once for every socket whose handshake succeeded.

        The peer's code and reason when it sent a close frame (1005 if that was empty), was_clean
        True; 1006 when it vanished, fell silent, or did not answer a close frame in time; 1002,
        1007 or 1009 when it broke a rule, 1013 when it read too slowly.
        """


class Conversation:
    """One open WebSocket. All methods: on the IOLoop's thread, at any time, never raise.

    Parameters
    ----------
    receiver : Receiver
        Who is told.
    flusher : Flusher
        Shared by all sockets of the loop.
    options : SocketOptions
        Limits and times.

    Attributes
    ----------
    receiver : Receiver
        May be exchanged until reading begins.
    messages_in, messages_out : int
        Whole messages handed on, and sent.
    bytes_in, bytes_out : int
        On the wire, control frames included.
    round_trip_s : float or None
        Of the latest answered ping.
    """

    # Side by side in memory: a broadcast to a large room finds none of its sockets in the cache.
    __slots__ = (
        "_deflate", "_events", "_flusher", "_has_failed", "_in_flight", "_is_blocked",
        "_is_closing", "_is_delivering", "_is_lost", "_is_marked", "_is_paused", "_is_started",
        "_is_told", "_late_pong", "_loop", "_may_end", "_options", "_outbox", "_parser",
        "_ping_count", "_pinged_at", "_timer", "_transport", "_was_heard", "bytes_in", "bytes_out",
        "messages_in", "messages_out", "receiver", "round_trip_s",
    )  # fmt: skip

    def __init__(self, receiver: Receiver, flusher: Flusher, options: SocketOptions) -> None:
        self.receiver = receiver
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self.round_trip_s: float | None = None
        self._flusher = flusher
        self._options = options
        self._deflate: Deflate | None = None
        self._parser = FrameParser(options.max_message_bytes)
        self._events: Iterator[tuple[int, bytes]] | None = None
        self._outbox = Outbox()
        self._in_flight = 0  # bytes that the transport keeps because the operating system was full
        self._transport: Transport | None = None
        self._loop: AbstractEventLoop | None = None
        self._is_marked = False
        self._is_blocked = True  # the operating system takes nothing more; no transport yet
        self._is_started = self._is_paused = self._is_delivering = False
        self._is_closing = False  # nothing more is sent, no message is handed on
        self._has_failed = False  # nothing more is parsed either
        self._may_end = False  # the closing handshake is through: close once all is written
        self._is_lost = self._is_told = False
        self._late_pong: bytes | None = None
        self._timer: TimerHandle | None = None
        self._ping_count = 0
        self._pinged_at = 0.0
        self._was_heard = True

    @property
    def queued_bytes(self) -> int:
        """Outbound bytes that the operating system has not yet accepted."""
        return self._outbox.size_bytes + self._in_flight

    # The beginning, for whoever shook hands

    def agree(self, deflate: Deflate) -> None:
        """Compress and inflate from now on."""
        self._deflate = deflate
        self._parser = FrameParser(self._options.max_message_bytes, deflate)

    def attach(self, transport: Transport, loop: AbstractEventLoop) -> None:
        """Begin to send."""
        self._transport, self._loop = transport, loop
        self._is_blocked = False
        if self._outbox.size_bytes:
            self._mark()
        if self._options.ping_interval_s > 0:
            self._arm(self._options.ping_interval_s, self._ping)

    def start_reading(self) -> None:
        """Begin to hand on what the client sends."""
        self._is_started = True
        self._listen()

    # Sending

    def send(self, message: Message | Bundle) -> None:
        """Queue a message; silently nothing once the socket is closing."""
        # Every message comes here: hence no calls of `_queue` and the like.
        if self._is_closing:
            return
        if (spreading := self._flusher.spreading) is not None and self in spreading.sockets:
            self._flusher.settle()
        outbox = self._outbox
        backlog = outbox.size_bytes + self._in_flight
        if backlog > self._options.max_queue_bytes and not self._make_room(message.replaceable):
            return
        self.messages_out += message.count
        frame = message.frame if self._deflate is None else message.frame_for(self._deflate)
        outbox.frames.append(frame)
        outbox.size_bytes += len(frame)
        if not (self._is_marked or self._is_blocked):
            self._is_marked = True
            self._flusher.mark(self)

    def send_now(self, message: Message | Bundle) -> None:
        """As `send`, and write it at once if nothing is queued (marked, or blocked) before it."""
        is_behind = self._is_marked or self._is_blocked or self._is_closing
        if is_behind or self._deflate is not None or self._flusher.spreading is not None:
            self.send(message)
            return
        frame = message.frame
        self.messages_out += message.count
        self.bytes_out += len(frame)  # as `_write`: this is done for each of a large room
        if rest := len(frame) - self._transport.write(frame):  # type: ignore[union-attr]
            self._in_flight, self._is_blocked = rest, True

    def flush_now(self) -> None:
        """Write what is queued, as far as the socket takes it (the `Flusher` calls it)."""
        self._is_marked = False
        outbox = self._outbox
        while outbox.size_bytes and not self._is_blocked:
            self._write(outbox.take(_BATCH_BYTES))
        if self._may_end and not self._is_blocked:
            self._end()

    def _write(self, data: bytes) -> None:
        self.bytes_out += len(data)  # there is a transport, else it is blocked
        if rest := len(data) - self._transport.write(data):  # type: ignore[union-attr]
            self._in_flight, self._is_blocked = rest, True

    def drained(self) -> None:
        """Go on writing: the operating system has room again."""
        self._in_flight = 0
        self._is_blocked = False
        self._was_heard = True  # a full socket drains only when the peer acknowledges
        if self._late_pong is not None and not self._is_closing:
            self._outbox.push_front(self._late_pong)
        self._late_pong = None
        self._guarded(self.flush_now)

    def _queue(self, frame: bytes) -> None:
        self._outbox.append(frame)
        self._mark()

    def _mark(self) -> None:
        if not (self._is_marked or self._is_blocked):
            self._is_marked = True
            self._flusher.mark(self)

    def _make_room(self, is_replaceable: bool) -> bool:
        """Bring the queue below its limit or give the client up; tell whether to go on."""
        limit = self._options.max_queue_bytes
        self._guarded(self.flush_now)
        if self.queued_bytes > limit:
            self._outbox.drop_stale(all_of_them=is_replaceable)
            if self.queued_bytes > limit - limit // _MIN_RELIEF:
                self._outbox.clear()
                self.close(TRY_AGAIN_LATER, _TOO_SLOW)
                self._tell_closed(TRY_AGAIN_LATER, _TOO_SLOW, False)
        return not self._is_closing

    # Closing

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Send a close frame behind what is queued and await the answer; the first call counts."""
        if self._is_closing:
            return
        code = NORMAL if code is None and reason else code
        self._begin_close(close_payload(code, reason or ""))
        if self._is_lost:
            self._lose()
        elif self._is_paused:
            # The answer has to be read, whoever wanted no messages meanwhile.
            self.resume_reading()

    def abort(self) -> None:
        """Cut the connection now (1006)."""
        if self._transport is not None:
            self._transport.abort()
            self._lose()

    def is_closing(self) -> bool:
        """Tell whether `send` has become pointless."""
        return self._is_closing or self._is_lost

    def connection_lost(self) -> None:
        """Tell the receiver that the peer is gone, after the messages that it sent before."""
        self._is_lost = True
        if self._is_listening or self._is_closing:
            self._lose()

    def _begin_close(self, payload: bytes) -> None:
        self._flusher.settle()
        self._is_closing = True
        self._late_pong = None
        self._queue(encode_frame(payload, CLOSE))
        self._arm(self._options.close_timeout_s, self.abort)

    def _on_close_frame(self, payload: bytes) -> None:
        code, reason = read_close(payload)
        if not self._is_closing:
            self._begin_close(close_payload(code))
        self._may_end = True
        self._tell_closed(code, reason, True)
        self._mark()

    def _fail(self, error: ProtocolError) -> None:
        """Close because of what the peer did: say so, then read nothing more but its end."""
        self._has_failed = self._may_end = True
        if self._is_closing:
            self.abort()
            return
        self._begin_close(close_payload(error.close_code, str(error)))
        self._told(self.receiver.on_failed, error)
        self._tell_closed(error.close_code, str(error), False)

    def _end(self) -> None:
        assert self._transport is not None
        self._may_end = False
        if self._has_failed:
            # Closing with unread data resets the connection, and the peer never sees why.
            self._transport.shut_down_writing()
        else:
            self._transport.close()

    def _lose(self) -> None:
        self._is_lost = self._is_closing = True
        self._may_end = False
        self._events = None
        self._outbox.clear()
        self._in_flight = 0
        self._disarm()
        self._tell_closed(ABNORMAL, "", False)

    def _tell_closed(self, code: int, reason: str, was_clean: bool) -> None:
        if not self._is_told:
            self._is_told = True
            self._told(self.receiver.on_closed, code, reason, was_clean)

    def _told(self, tell: Callable[..., None], *args: object) -> None:
        try:
            tell(*args)
        except Exception:
            _log.exception("A receiver failed to hear of the end of its WebSocket")

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            _log.exception("A WebSocket failed and is cut")
            self.abort()

    # Reading

    def pause_reading(self) -> None:
        """Hand on no message and read no more until resumed: the peer's sends will block."""
        if not (self._is_paused or self._is_closing):
            self._is_paused = True
            if self._transport is not None:
                self._transport.pause()

    def resume_reading(self) -> None:
        """Go on reading, with what was held back first."""
        if self._is_paused:
            self._is_paused = False
            self._was_heard = True  # it could not be
            if not self._is_delivering:
                self._deliver()
            self._listen()

    def data_received(self, data: bytes) -> None:
        """Take what the transport read."""
        self.bytes_in += len(data)
        self._was_heard = True
        if not (self._has_failed or self._is_told):
            self._events = self._parser.feed(data)
            self._deliver()

    @property
    def _is_listening(self) -> bool:
        return self._is_started and not self._is_paused

    def _listen(self) -> None:
        if self._is_listening and self._transport is not None:
            # In an empty context: jupyter_server's holds the handler, and would keep it alive.
            Context().run(self._transport.resume)

    def _deliver(self) -> None:
        if self._events is None or self._is_paused or not self._is_started:
            return
        flusher = self._flusher
        self._is_delivering = flusher.is_reading = True
        try:
            for opcode, payload in self._events:
                if opcode == TEXT and not self._is_closing:
                    self.messages_in += 1
                    self.receiver.on_text(payload)
                else:
                    self._handle(opcode, payload)
                if self._is_paused:
                    break  # type: ignore[unreachable]  # who was told of it may pause
            else:
                self._events = None  # an idle connection keeps no generator
        except RemoteProtocolError as error:
            self._fail(error)
        except Exception:
            _log.exception("A message could not be handed on; its WebSocket is closed")
            self.close(INTERNAL_ERROR, "Internal error")
            self._deliver()  # the peer's close frame may be behind it
        finally:
            self._is_delivering = flusher.is_reading = False
            if flusher.owed:
                flusher.end_read()

    def _handle(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._on_close_frame(payload)
        elif self._is_closing:
            pass  # only the peer's close frame still matters
        elif opcode == PING:
            self._on_ping(payload)
        elif opcode == PONG:
            self._on_pong(payload)
        else:
            self.messages_in += 1
            self.receiver.on_binary(payload)

    # Pings

    def _on_ping(self, payload: bytes) -> None:
        frame = encode_frame(payload, PONG)
        if self._is_blocked:
            # RFC 6455 5.5.3: answering the latest is enough. So a peer that pings and does not
            # read fills no memory.
            self._late_pong = frame
        else:
            self._queue(frame)

    def _on_pong(self, payload: bytes) -> None:
        if self._loop is not None and payload == self._ping_payload():
            self.round_trip_s = self._loop.time() - self._pinged_at

    def _ping_payload(self) -> bytes:
        return self._ping_count.to_bytes(8, "big")

    def _ping(self) -> None:
        assert self._loop is not None
        self._ping_count += 1
        self._pinged_at = self._loop.time()
        self._was_heard = False
        if not self._is_blocked:  # else whether it drains is the question, and pings would pile up
            self._outbox.push_front(encode_frame(self._ping_payload(), PING))
            self._mark()
        self._arm(self._patience_s, self._judge)

    def _judge(self) -> None:
        """Cut a peer that let a ping pass in silence; not while we do not listen."""
        if self._is_listening and not self._was_heard:
            self.abort()
        else:
            self._arm(self._options.ping_interval_s - self._patience_s, self._ping)

    @property
    def _patience_s(self) -> float:
        interval, timeout = self._options.ping_interval_s, self._options.ping_timeout_s
        return interval if timeout is None else min(timeout, interval)

    # The one timer: a closing socket pings no more

    def _arm(self, delay_s: float, act: Callable[[], None]) -> None:
        self._disarm()
        if self._loop is not None:
            context = self._flusher.context  # an empty one, as in _listen
            self._timer = self._loop.call_later(delay_s, self._guarded, act, context=context)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
