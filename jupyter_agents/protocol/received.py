"""What a frame says once it is read: plain, immutable values.

Promises that no JSON null is mistaken for "nothing there" (`MISSING`). Must not read or write
anything: `messages` does, and offers these names.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

__all__ = [
    "MISSING",
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
]


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


ServerFrame = (
    IdentityReceived | StateSent | StateErrorReceived | StateAcked | StatePatched | RpcReply
)
