"""permessage-deflate (RFC 7692), always without context takeover, in both directions.

So a broadcast is compressed once for all its receivers, and no zlib object lives between two
messages (Tornado's own way keeps about 200 KB per connection). Both are ours to ask for: a server
may answer with `server_no_context_takeover` and `client_no_context_takeover` whatever the client
offered. The price is a worse ratio for many small, similar messages; those are below `min_bytes`
and travel uncompressed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from jupyter_agents.errors import RemoteProtocolError
from jupyter_agents.protocol.closing import TOO_BIG

__all__ = ["Deflate", "negotiate"]

_EMPTY_BLOCK = b"\x00\x00\xff\xff"
_MIN_WINDOW_BITS = 9  # zlib cannot write a raw stream with a window of 256 bytes
_MAX_WINDOW_BITS = 15
_NAME = "permessage-deflate"


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
        if name.lower() == _NAME:
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
    answer = f"{_NAME}; server_no_context_takeover; client_no_context_takeover"
    if any(p.startswith("server_max_window_bits") for p in parameters):
        answer += f"; server_max_window_bits={window_bits}"
    return answer
