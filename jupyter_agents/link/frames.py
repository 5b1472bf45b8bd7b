"""The unit of the link: length, kind, number, payload.

A frame is ``>I`` length of what follows, ``>B`` kind, ``>I`` number, then the payload. The number
is a connection's, a request's, or the count of recipients. The codec knows nothing of the
transport; its two users are `server/downlink.py` and `host/uplink.py`.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import LinkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "APART_BYTES",
    "HEAD_BYTES",
    "SEND_BYTES",
    "VERSION",
    "Frame",
    "FrameReader",
    "Kind",
    "pack_numbers",
    "pack_object",
    "pack_settled",
    "pack_with_object",
    "packed",
    "unpack_object",
    "unpack_settled",
    "unpack_with_object",
]

VERSION = "1"
"""Both sides must say the same; raised whenever a frame changes its meaning."""

Frame = tuple[int, int, bytes]
"""``(kind, number, payload)``."""


class Kind(IntEnum):
    """What a frame says. ``→`` server to host, ``←`` host to server."""

    TEXT = 1  # ↔ one message of, or to, the connection `number`; UTF-8
    BINARY = 2  # ↔
    TEXT_MANY = 3  # ← to `number` connections: their numbers as <I each, then the message
    BINARY_MANY = 4  # ←
    STATE_MANY = (
        5  # ← text that a later STATE_MANY makes worthless: a slow client may get the last only
    )
    OPEN = 10  # → a connection was made, or is handed over again (``resumed``): object
    CLOSE = 11  # ← close the connection: <H code, reason
    CLOSED = 12  # → the connection is gone: <H code, <B was clean, reason
    FAILED = 13  # → the connection broke a rule of the wire; CLOSED follows: text
    ATTACH = 14  # ← what the record must remember while the kernel is away: object
    HOLD = 15  # ← stop reading this connection: its agent is behind
    RELEASE = 16  # ← read it again
    SETTLED = 17  # ← these messages have ended: `number` runs, see `pack_settled`
    PROBE = 18  # ↔ say when what came before for connection `number` is read; it is
    REQUEST = 20  # → HTTP, or the question whether a socket may open: object and body
    RESPONSE = 21  # ← object and body
    ABANDON = 22  # → nobody waits for this response any more
    ASK = 23  # → an action on an agent (stop, reset, describe, …): object
    ANSWER = 24  # ← object
    SERVE = 30  # ← this host serves a class: object
    SERVED = 31  # → and may, or may not: object
    WITHDRAW = 32  # ← no longer: object
    TAKEN = 33  # → another host took the class over: object
    INSTANCE = 34  # ← an instance woke or went to sleep: object
    TALLY = 35  # ↔ count what the agents do, and how often to say it; ← what it was: object
    SHARE = 36  # ← make, list or revoke links to what this host serves: object
    SHARED = 37  # → what came of it: object
    HELLO = 40  # ↔ the handshake, see handshake.py: object


_HEAD = struct.Struct(">IBI")
HEAD_BYTES = _HEAD.size
_AFTER_LENGTH = HEAD_BYTES - 4
_read_head = _HEAD.unpack_from
_pack_head = _HEAD.pack
_LENGTH = struct.Struct(">I")
_SMALL_BYTES = 64 * 1024
APART_BYTES = 64 * 1024
"""A payload from here on is written by itself, see `packed`."""
SEND_BYTES = 1024 * 1024
"""The buffer of each end's socket: a message of a megabyte leaves in one system call."""
# json.dumps would make an encoder for each call, which takes as long as the encoding.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_SETTLED = struct.Struct(">IQI")


def packed(frames: Sequence[Frame]) -> Iterable[bytes]:
    """What to write for these frames, in order: small ones joined, large payloads as they are.

    Joining a large one would copy it once more.
    """
    # Every message passes here, on both ends; mostly by itself, or with many.
    if len(frames) == 1:
        kind, number, payload = frames[0]
        start = _pack_head(len(payload) + _AFTER_LENGTH, kind, number)
        return (start, payload) if len(payload) >= APART_BYTES else (start + payload,)
    pieces: list[bytes] = []
    has_large = False
    for kind, number, payload in frames:
        size = len(payload)
        pieces += _pack_head(size + _AFTER_LENGTH, kind, number), payload
        if size >= APART_BYTES:
            has_large = True
    return _apart(pieces) if has_large else (b"".join(pieces),)


def _apart(pieces: list[bytes]) -> Iterator[bytes]:
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < APART_BYTES:
            small.append(piece)
            continue
        if small:
            yield b"".join(small)
            small.clear()
        yield piece
    if small:
        yield b"".join(small)


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Connection numbers as the front of a ``*_MANY`` payload."""
    return struct.pack(f"<{len(numbers)}I", *numbers)


def pack_object(value: Any) -> bytes:
    """Our own control data (never a client's message) as a payload."""
    return _encode(value).encode("utf-8", "surrogatepass")


def unpack_object(payload: bytes) -> dict[str, Any]:
    """Read back what `pack_object` made.

    Raises
    ------
    LinkError
        When the payload is not one JSON object.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise LinkError(f"A frame of the link is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise LinkError("A frame of the link is not a JSON object")
    return value


def pack_with_object(value: Any, body: bytes) -> bytes:
    """An object and bytes after it: ``>I`` length of the object, the object, the bytes."""
    packed = pack_object(value)
    return _LENGTH.pack(len(packed)) + packed + body


def unpack_with_object(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Read back what `pack_with_object` made; LinkError when it was not."""
    if len(payload) < 4:
        raise LinkError("A frame of the link is too short")
    end = 4 + _LENGTH.unpack_from(payload)[0]
    if end > len(payload):
        raise LinkError("A frame of the link is cut off")
    return unpack_object(payload[4:end]), payload[end:]


def pack_settled(runs: Iterable[tuple[int, int, int]]) -> bytes:
    """Runs of messages as a SETTLED payload: connection, ordinal of the first, how many."""
    return b"".join(_SETTLED.pack(*run) for run in runs)


def unpack_settled(payload: bytes) -> Iterable[tuple[int, int, int]]:
    """Read back what `pack_settled` made; struct.error when it was not."""
    return _SETTLED.iter_unpack(payload)


class FrameReader:
    """Turns chunks of any size into whole frames, without quadratic joins.

    Made for ``asyncio.BufferedProtocol``: ask for `space`, fill it, say how much with `filled`. A
    frame larger than the standing buffer is read straight into a buffer of its own.

    Parameters
    ----------
    max_bytes : int
        The longest payload accepted; a longer one is a LinkError before it is read.
    buffer_bytes : int
        Size of the standing buffer.
    """

    def __init__(self, max_bytes: int, buffer_bytes: int = 256 * 1024) -> None:
        self._max_length = max_bytes + _AFTER_LENGTH
        self._standing = memoryview(bytearray(buffer_bytes))
        self._view = (
            self._standing
        )  # where bytes go now: the standing buffer or a large frame's own
        self._end = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return self._end

    def space(self) -> memoryview:
        """Where the next bytes are to be written; never empty."""
        return self._view[self._end :] if self._end else self._view

    def filled(self, count: int) -> list[Frame]:
        """Take note of `count` new bytes; returns the frames that are whole now, in order."""
        view, end, start = self._view, self._end + count, 0
        if end == count and HEAD_BYTES <= end <= _SMALL_BYTES:
            length, kind, number = _read_head(view)
            if length + 4 == end and length <= self._max_length:
                return [(kind, number, bytes(view[HEAD_BYTES:end]))]  # a whole one by itself
        frames: list[Frame] = []
        longest = self._max_length
        # One copy of many small frames, and slices of that, is faster than a copy of each.
        is_copied = end <= _SMALL_BYTES
        source: Any = bytes(view[:end]) if is_copied else view
        while end - start >= HEAD_BYTES:
            length, kind, number = _read_head(source, start)
            if length > longest or length < _AFTER_LENGTH:
                raise LinkError(
                    f"A frame of {length} bytes came over the link, the limit is {longest}"
                )
            stop = start + 4 + length
            if stop > end:
                break
            payload = source[start + HEAD_BYTES : stop]
            frames.append((kind, number, payload if is_copied else bytes(payload)))
            start = stop
        self._end = end
        if start != end or view is not self._standing:
            self._keep_rest(start)
        else:
            self._end = 0
        return frames

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take a chunk that lies elsewhere; the same as writing it into `space` piece by piece."""
        frames: list[Frame] = []
        rest = memoryview(chunk)
        while rest:
            space = self.space()
            count = min(len(space), len(rest))
            space[:count] = rest[:count]
            frames += self.filled(count)
            rest = rest[count:]
        return frames

    def _keep_rest(self, start: int) -> None:
        rest = self._end - start
        if rest == 0:
            self._view, self._end = self._standing, 0
            return
        needed = self._needed(start)
        target = self._view
        if needed > len(self._view):
            target = memoryview(bytearray(needed))
        elif len(self._view) != len(self._standing) or start == 0:
            if start == 0:
                return
            target = self._standing
        # bytes() first: source and target may be the same memory
        target[:rest] = bytes(self._view[start : self._end])
        self._view, self._end = target, rest

    def _needed(self, start: int) -> int:
        # Before its head is whole, a length is only a claim: nothing is allocated for it.
        if self._end - start < HEAD_BYTES:
            return HEAD_BYTES
        return 4 + int(_LENGTH.unpack_from(self._view, start)[0])
