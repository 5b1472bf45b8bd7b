"""What JSON can carry, and what a frame of the wire says once it is read.

Promises one exception each way (TypeError out, ValueError in), whatever an author or a client
comes up with, and that no JSON null is mistaken for "nothing there" (`MISSING`). Must not know
how frames look: `messages` writes and reads them, and offers these names to the other rooms.
"""

from __future__ import annotations

import enum
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

__all__ = [
    "MISSING",
    "AwayTold",
    "CallMalformed",
    "CallReceived",
    "CancelReceived",
    "ClientFrame",
    "IdentityReceived",
    "Missing",
    "RpcReply",
    "ServerFrame",
    "StateAcked",
    "StateErrorReceived",
    "StatePatched",
    "StateReceived",
    "StateSent",
    "StateWanted",
    "WriteId",
    "as_message",
    "decode",
    "encode",
]

# ── JSON ──


def encode(value: object) -> bytes:
    """Return `value` as compact JSON.

    Beyond plain values it carries what msgspec does (dataclasses, datetimes, enums, sets, …),
    any mapping or sequence, and any real number (numpy's too). NaN and infinities become null,
    as in JavaScript.

    Raises
    ------
    TypeError
        When JSON cannot carry it: the sentence names the type; also for a value that contains
        itself and for text that is not Unicode.
    """
    try:
        return _ENCODER.encode(value)
    except RecursionError:
        raise TypeError(
            "JSON cannot carry a value that contains itself or nests too deeply"
        ) from None
    except UnicodeEncodeError:
        raise TypeError("JSON cannot carry text with a lone surrogate") from None


def decode(data: str | bytes) -> Any:
    r"""Return the value of one JSON text.

    A lone surrogate, which JavaScript may send as ``\ud800``, becomes U+FFFD.

    Raises
    ------
    ValueError
        When it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return _DECODER.decode(data)
    except RecursionError:
        raise ValueError("JSON nests too deeply") from None
    except msgspec.DecodeError as error:
        text = data.decode() if isinstance(data, bytes) else data
        paired = _SURROGATE.sub(_without_lone, text)
        if paired == text:
            raise ValueError(str(error)) from None
        return decode(paired)


# Alternatives in this order: an escaped backslash is no escape of ours, a pair is fine, the rest
# is alone.
_SURROGATE = re.compile(
    r"\\\\"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def _without_lone(match: re.Match[str]) -> str:
    return "\\ufffd" if len(match[0]) == 6 else match[0]


# As values msgspec writes these by itself; asked about one, it met it as a key.
_ONLY_AS_KEY = (bool, tuple, list, frozenset)


def _plain(value: Any) -> Any:
    """Turn what msgspec does not know into what it knows."""
    if value is None or isinstance(value, _ONLY_AS_KEY):
        raise TypeError(f"JSON cannot carry a dict with keys of type {type(value).__name__!r}")
    if isinstance(value, str):
        return str.__str__(value)  # msgspec takes str itself, but no subclass
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"JSON cannot carry a value of type {type(value).__name__!r}")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def as_message(message: object) -> str | bytes:
    """What may be sent as it is; TypeError for anything but text and bytes."""
    if isinstance(message, (str, bytes)):
        return message
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    raise TypeError(f"a message is text or bytes, not {type(message).__name__!r}; see send_json")


# ── What a frame says ──


class Missing(enum.Enum):
    """The type of `MISSING`: no value at all, where None would be JSON's null."""

    MISSING = enum.auto()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING

WriteId = int | str


class CallReceived(msgspec.Struct, frozen=True):
    """A client calls `method`; `deadline_ms` counts from the frame's arrival (None: no limit)."""

    id: str
    method: str
    args: list[Any]
    deadline_ms: float | None = None


class StateReceived(msgspec.Struct, frozen=True):
    """A client writes the state; `write` and `base` are our extension's, else None."""

    state: Any
    write: WriteId | None = None
    base: int | None = None


class CancelReceived(msgspec.Struct, frozen=True):
    """A client gives up the call `id`."""

    id: str


class CallMalformed(msgspec.Struct, frozen=True):
    """A call that cannot be made, but has an `id` to answer to; `text` says what is wrong.

    To the SDK this is the user's own message, so the host answers it **and** hands it to
    ``on_message``.
    """

    id: str
    text: str


class StateWanted(msgspec.Struct, frozen=True):
    """A client lost track of the state's versions and asks for the whole."""


ClientFrame = CallReceived | StateReceived | CancelReceived | CallMalformed | StateWanted


class IdentityReceived(msgspec.Struct, frozen=True):
    """Whom a client reached, and whether a state frame follows at once."""

    name: str
    agent: str
    state_follows: bool = False


class StateSent(msgspec.Struct, frozen=True):
    """The whole state; `version` is None where the extension was not negotiated."""

    state: Any
    version: int | None = None


class StateErrorReceived(msgspec.Struct, frozen=True):
    """A write was refused; for our extension with the write's id, and what holds instead."""

    error: str
    write: WriteId | None = None
    state: Any = MISSING
    version: int | None = None


class StateAcked(msgspec.Struct, frozen=True):
    """A write holds as `version`; `state` is `MISSING` when it holds as it was sent."""

    write: WriteId
    version: int
    state: Any = MISSING


class StatePatched(msgspec.Struct, frozen=True):
    """Operations that turn the state of version `base` into that of `version`."""

    ops: list[Any]
    version: int
    base: int


class RpcReply(msgspec.Struct, frozen=True):
    """An answer to the call `id`, or one chunk of it (`done` false)."""

    id: str
    success: bool
    result: Any = MISSING
    done: bool = True
    error: str = ""
    seq: int | None = None
    data: Any = None


class AwayTold(msgspec.Struct, frozen=True):
    """The agent's kernel is away and messages wait, or (`is_away` false) it is back."""

    is_away: bool


ServerFrame = (
    IdentityReceived
    | StateSent
    | StateErrorReceived
    | StateAcked
    | StatePatched
    | RpcReply
    | AwayTold
)
