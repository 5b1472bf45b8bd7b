"""WebSocket frames in and out, as bytes; no socket, no loop, no clock.

What leaves is never fragmented and never masked; what enters is judged by RFC 6455 before it is
handed on. When a frame is sent, and what an error leads to, is `conversation`'s business.

permessage-deflate (RFC 7692) is always without context takeover, in both directions. So a
broadcast is compressed once for all its receivers, and no zlib object lives between two messages
(Tornado's own way keeps about 200 KB per connection). Both are ours to ask for: a server may
answer with `server_no_context_takeover` and `client_no_context_takeover` whatever the client
offered. The price is a worse ratio for many small, similar messages; those are below
`Deflate.min_bytes` anyway.
"""

from __future__ import annotations

import codecs
import zlib
from dataclasses import dataclass, replace
from itertools import chain
from struct import Struct
from typing import TYPE_CHECKING

# Tornado's own unmasking, in C where Tornado was built with it: 0.1 µs for 100 bytes, 80 µs for 1
# MB. The best pure-Python trick (one big integer xor) takes 0.5 µs and 3.5 ms.
from tornado.util import _websocket_mask as unmask

from jupyter_agents.errors import RemoteProtocolError
from jupyter_agents.protocol.closing import (
    INVALID_TEXT,
    MAX_REASON_BYTES,
    NO_STATUS,
    TOO_BIG,
    may_be_received,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "Deflate",
    "FrameParser",
    "close_payload",
    "encode_frame",
    "encode_frames",
    "negotiate",
    "read_close",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_FIN, _RSV1, _RSV2_RSV3, _OPCODE, _CONTROL = 0x80, 0x40, 0x30, 0x0F, 0x08
_WHOLE_TEXT, _WHOLE_BINARY = _FIN | TEXT, _FIN | BINARY
_SMALL_TEXT = tuple(bytes((_WHOLE_TEXT, size)) for size in range(126))
_MASKED = 0x80
_MASK_BYTES = 4
_SHORT_HEAD = 2 + _MASK_BYTES
_AT_ONCE_BYTES = 16 * 1024
_MAX_CONTROL_BYTES = 125
_LENGTH_16, _LENGTH_64 = 126, 127
_EMPTY_BLOCK = b"\x00\x00\xff\xff"
_DEFLATE = "permessage-deflate"
_MIN_WINDOW_BITS = 9  # zlib cannot write a raw stream with a window of 256 bytes
_MAX_WINDOW_BITS = 15
_read_u16 = Struct("!H").unpack_from
_read_u64 = Struct("!Q").unpack_from
_head_u16 = Struct("!BBH").pack
_head_u64 = Struct("!BBQ").pack


def encode_frame(payload: bytes, opcode: int, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """Give one unmasked frame, as a server sends it.

    Parameters
    ----------
    payload : bytes
        At most 125 bytes for a control frame; a text must be UTF-8. Neither is checked here.
    opcode : int
        RFC 6455 section 5.2.
    fin, rsv1 : bool
        The last fragment of its message; compressed.
    """
    size = len(payload)
    if size < _LENGTH_16 and opcode == TEXT and fin and not rsv1:
        return _SMALL_TEXT[size] + payload  # most messages: a look is faster than a format
    first = (_FIN if fin else 0) | (_RSV1 if rsv1 else 0) | opcode
    if size < _LENGTH_16:
        return b"%c%c%b" % (first, size, payload)
    if size < 1 << 16:
        return _head_u16(first, _LENGTH_16, size) + payload
    return _head_u64(first, _LENGTH_64, size) + payload


def encode_frames(payloads: Iterable[bytes], opcode: int) -> bytes:
    """Give the frames of several messages, one behind the other; see `encode_frame`."""
    frames = [
        _SMALL_TEXT[size] + payload
        if (size := len(payload)) < _LENGTH_16 and opcode == TEXT
        else encode_frame(payload, opcode)
        for payload in payloads
    ]
    return b"".join(frames)


def close_payload(code: int | None, reason: str = "") -> bytes:
    """Give the body of a close frame; a reason over 123 bytes is cut between two characters."""
    if code is None or code == NO_STATUS:
        return b""
    text = reason.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")
    return code.to_bytes(2, "big") + text.encode()


def read_close(payload: bytes) -> tuple[int, str]:
    """Read the body of a close frame.

    Returns
    -------
    tuple of int and str
        Code and reason; 1005 and "" when the frame was empty.

    Raises
    ------
    RemoteProtocolError
        When it has one byte or a code that is illegal on the wire (1002), or a reason that is not
        UTF-8 (1007).
    """
    if not payload:
        return NO_STATUS, ""
    if len(payload) == 1:
        raise RemoteProtocolError("close frame with half a code")
    code = int.from_bytes(payload[:2], "big")
    if not may_be_received(code):
        raise RemoteProtocolError(f"close code {code} is illegal on the wire")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("close reason is not UTF-8", INVALID_TEXT) from None


class FrameParser:
    """Turns what a client sends into whole messages and control frames, many per read.

    Parameters
    ----------
    max_message_bytes : int
        Limit of one message over all its fragments, on the wire and inflated. It is held against
        the length in the frame header, before the body arrives.
    deflate : Deflate, optional
        What was agreed in the handshake; without it RSV1 is an error.
    """

    __slots__ = (
        "_deflate",
        "_fragments",
        "_is_compressed",
        "_limit",
        "_longest",
        "_needed",
        "_opcode",
        "_tail",
        "_validate",
    )

    def __init__(self, max_message_bytes: int, deflate: Deflate | None = None) -> None:
        self._limit = max_message_bytes
        self._longest = min(max_message_bytes, _LENGTH_16 - 1)  # of the short texts
        self._deflate = deflate
        self._tail = bytearray()
        self._needed = 0  # how long the tail must be before it is worth a look
        self._opcode = 0  # of the message whose fragments are being collected; 0 between messages
        self._fragments = bytearray()
        self._is_compressed = False
        self._validate: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield what became complete with `data`.

        The iterator must be exhausted before the next call; it may be left alone meanwhile, which
        is how a reader is paused between two messages of one read. After a close frame it ends,
        whatever follows.

        Yields
        ------
        tuple of int and bytes
            `TEXT` (valid UTF-8, still encoded), `BINARY`, `CLOSE` (see `read_close`), `PING` or
            `PONG`, and the payload, unmasked, inflated, joined from its fragments.

        Raises
        ------
        RemoteProtocolError
            When the client broke a rule, with the close code that answers it: 1002, 1007 or 1009.
            Everything before it has been yielded; the parser must not be used any more.
        """
        if self._tail or self._opcode:
            return self._frames(data)
        # Short texts, one behind the other: nearly all that clients send, and no step more. Of a
        # long read only the first: what is parsed takes a dozen times the room, and may wait.
        found: list[tuple[int, bytes]] = []
        at, size = 0, len(data)
        last = (size if size < _AT_ONCE_BYTES else _AT_ONCE_BYTES) - _SHORT_HEAD
        while at <= last and data[at] == _WHOLE_TEXT:
            start = at + _SHORT_HEAD
            end = start + data[at + 1] - _MASKED
            if not start <= end <= size or end - start > self._longest:
                break
            payload = unmask(data[at + 2 : start], data[start:end])
            if not payload.isascii():
                break
            found.append((TEXT, payload))
            at = end
        if at == size:
            return iter(found)
        return chain(found, self._frames(data[at:] if at else data))

    def _frames(self, data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
        if self._tail:
            self._tail += data
            if len(self._tail) < self._needed:
                return
            data = memoryview(self._tail)  # long ones come here: copy them once, as they are taken
            self._tail = bytearray()
        at, size = 0, len(data)
        while size - at >= 2:
            first, length = data[at], data[at + 1] - _MASKED
            if self._opcode or (first != _WHOLE_TEXT and first != _WHOLE_BINARY) or length < 0:
                self._check_head(first, length)
            start = at + 2 + _MASK_BYTES
            if length >= _LENGTH_16:
                start += 2 if length == _LENGTH_16 else 8
                if start > size:
                    self._needed = start - at
                    break
                length = _long_length(data, at, length)
            if length > self._limit - len(self._fragments) and not first & _CONTROL:
                raise RemoteProtocolError("message too big", TOO_BIG)
            end = start + length
            if end > size:
                self._needed = end - at
                break
            mask, masked = data[start - _MASK_BYTES : start], data[start:end]
            payload = unmask(bytes(mask), bytes(masked))
            at = end
            if first == _WHOLE_TEXT:
                yield TEXT, _checked_text(payload)
            elif first == _WHOLE_BINARY:
                yield BINARY, payload
            elif first & _CONTROL:
                yield first & _OPCODE, payload
                if first & _OPCODE == CLOSE:
                    return
            elif (message := self._collect(first, payload)) is not None:
                yield message
        else:
            self._needed = 2
        self._tail += memoryview(data)[at:]

    def _check_head(self, first: int, length: int) -> None:
        """Raise unless a frame may begin so; `length` is the second byte less 128."""
        opcode = first & _OPCODE
        if length < 0:
            raise RemoteProtocolError("client frame is not masked")
        if first & _RSV2_RSV3 or (first & _RSV1 and not self._may_compress(opcode)):
            raise RemoteProtocolError("reserved bits are set")
        if opcode & _CONTROL:
            self._check_control(first, opcode, length)
        elif opcode > BINARY:
            raise RemoteProtocolError(f"unknown opcode {opcode}")
        elif bool(self._opcode) != (opcode == CONTINUATION):
            raise RemoteProtocolError("fragments out of order")

    def _check_control(self, first: int, opcode: int, length: int) -> None:
        if opcode > PONG:
            raise RemoteProtocolError(f"unknown opcode {opcode}")
        if length > _MAX_CONTROL_BYTES:
            raise RemoteProtocolError("control frame too long")
        if not first & _FIN:
            raise RemoteProtocolError("fragmented control frame")

    def _may_compress(self, opcode: int) -> bool:
        """Tell whether RSV1 may stand here: on a message's first frame, if agreed (RFC 7692)."""
        return self._deflate is not None and opcode in (TEXT, BINARY)

    def _collect(self, first: int, payload: bytes) -> tuple[int, bytes] | None:
        """Add a fragment, or take a whole compressed message; give what is complete."""
        if opcode := first & _OPCODE:
            self._opcode = opcode
            self._is_compressed = bool(first & _RSV1)
            if opcode == TEXT and not self._is_compressed:
                self._validate = codecs.getincrementaldecoder("utf-8")()
        is_last = bool(first & _FIN)
        if self._validate is not None:
            # Fragment by fragment, so that a bad one ends a long message early.
            self._check_fragment(payload, is_last)
        self._fragments += payload
        return self._complete() if is_last else None

    def _check_fragment(self, payload: bytes, is_last: bool) -> None:
        assert self._validate is not None
        try:
            self._validate.decode(payload, is_last)
        except UnicodeDecodeError:
            raise RemoteProtocolError("text is not UTF-8", INVALID_TEXT) from None

    def _complete(self) -> tuple[int, bytes]:
        opcode, payload = self._opcode, bytes(self._fragments)
        self._opcode, self._fragments, self._validate = 0, bytearray(), None
        if self._is_compressed:
            assert self._deflate is not None
            payload = self._deflate.decompress(payload, self._limit)
            if opcode == TEXT:
                _checked_text(payload)
        return opcode, payload


def _long_length(data: bytes | memoryview, at: int, length: int) -> int:
    read = _read_u16 if length == _LENGTH_16 else _read_u64
    size: int = read(data, at + 2)[0]
    return size


def _checked_text(payload: bytes) -> bytes:
    # isascii looks at eight bytes at a time and allocates nothing; most texts end here.
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("text is not UTF-8", INVALID_TEXT) from None
    return payload


@dataclass(frozen=True)
class Deflate:
    """How messages to one socket are compressed, and messages from it inflated."""

    level: int = 1
    """zlib's 1-9; 1 is four times as fast as 6 and nearly as good on JSON."""
    mem_level: int = 8
    """zlib's 1-9, memory while a message is being compressed."""
    min_bytes: int = 1024
    """Messages below this length travel uncompressed."""
    window_bits: int = _MAX_WINDOW_BITS
    """Of what we send: 9-15."""

    def compress(self, payload: bytes) -> bytes:
        """Give the body of a frame that has RSV1 set."""
        squeeze = zlib.compressobj(self.level, zlib.DEFLATED, -self.window_bits, self.mem_level)
        body = squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        return body[: -len(_EMPTY_BLOCK)]

    def decompress(self, body: bytes, max_bytes: int) -> bytes:
        """Give the message that a client compressed.

        Raises
        ------
        RemoteProtocolError
            When it inflates to more than `max_bytes` (1009; never more than that is held), or is
            not deflate data (1002).
        """
        inflate = zlib.decompressobj(-_MAX_WINDOW_BITS)
        try:
            # One byte past the limit: a message that just fits leaves nothing behind.
            payload = inflate.decompress(body + _EMPTY_BLOCK, max_bytes + 1)
        except zlib.error:
            raise RemoteProtocolError("message cannot be inflated") from None
        if len(payload) > max_bytes:
            raise RemoteProtocolError("message too big after inflating", TOO_BIG)
        return payload


def negotiate(header: str, wanted: Deflate) -> tuple[Deflate, str] | None:
    """Answer a client's ``Sec-WebSocket-Extensions``.

    Parameters
    ----------
    header : str
        All values of the header, joined by commas; offers in the client's order of preference.
    wanted : Deflate
        What we would like; the client may ask for a smaller window.

    Returns
    -------
    tuple of Deflate and str, or None
        What was agreed and the header that says so; None when no offer can be met.
    """
    for offer in header.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() == _DEFLATE:
            window_bits = _window_bits(parameters)
            if window_bits is not None:
                deflate = replace(wanted, window_bits=min(window_bits, wanted.window_bits))
                return deflate, _answer(parameters, deflate.window_bits)
    return None


def _window_bits(parameters: list[str]) -> int | None:
    """Give the window we may use, or None when the offer has something that we cannot meet."""
    seen: dict[str, str] = {}
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name in seen or not _is_legal(name, value.strip('"')):
            return None
        seen[name] = value.strip('"')
    return int(seen.get("server_max_window_bits", _MAX_WINDOW_BITS))


def _is_legal(name: str, value: str) -> bool:
    if name in ("server_no_context_takeover", "client_no_context_takeover"):
        return not value
    if name == "server_max_window_bits":
        return value.isdecimal() and _MIN_WINDOW_BITS <= int(value) <= _MAX_WINDOW_BITS
    if name == "client_max_window_bits":
        return not value or (value.isdecimal() and 8 <= int(value) <= _MAX_WINDOW_BITS)
    return False


def _answer(parameters: list[str], window_bits: int) -> str:
    answer = f"{_DEFLATE}; server_no_context_takeover; client_no_context_takeover"
    if any(p.startswith("server_max_window_bits") for p in parameters):
        answer += f"; server_max_window_bits={window_bits}"
    return answer
