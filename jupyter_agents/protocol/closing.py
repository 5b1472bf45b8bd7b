"""How an error or an end looks from outside: close codes, HTTP status, text of a failed call.

Promises that no traceback and nothing private leaves through it, and that the final codes
(1008 and 4000-4999, after which SDK clients never come back) are recognised in one place.
Must not send anything: `messages` builds the frames, the sockets close.
"""

from __future__ import annotations

from typing import Any

from jupyter_agents.errors import (
    AddressError,
    AgentNotFound,
    CallTimeout,
    ConnectionClosed,
    ConnectionReadonly,
    HostStopped,
    LinkError,
    ProtocolError,
    PublicError,
    StateRejected,
)
from jupyter_agents.protocol.names import TOO_FEW_SEGMENTS

__all__ = [
    "ABNORMAL",
    "GOING_AWAY",
    "INTERNAL_ERROR",
    "INVALID_TEXT",
    "MAX_REASON_BYTES",
    "NORMAL",
    "NO_STATUS",
    "POLICY",
    "PROTOCOL_ERROR",
    "SERVICE_RESTART",
    "TOO_BIG",
    "TRY_AGAIN_LATER",
    "check_close",
    "close_code",
    "http_status",
    "is_final",
    "may_be_received",
    "rpc_text",
]

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NO_STATUS = 1005
ABNORMAL = 1006
INVALID_TEXT = 1007
POLICY = 1008
TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

MAX_REASON_BYTES = 123

# First match wins, so a subclass stands above its base.
_HTTP_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (AgentNotFound, 404),
    (AddressError, 400),
    (ConnectionReadonly, 403),
    (StateRejected, 400),
    (PublicError, 400),
    (LinkError, 503),
    (HostStopped, 503),
    (CallTimeout, 504),
)
_CLOSE_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (AgentNotFound, TRY_AGAIN_LATER),
    (AddressError, POLICY),
    (LinkError, SERVICE_RESTART),
    (HostStopped, SERVICE_RESTART),
)


def is_final(code: int) -> bool:
    """Tell whether a client that was closed with `code` must not come back by itself.

    Wire
    ----
    agents 0.32.0, ``client.ts``: 1008 and 4000-4999; every other code, 1000 too, means reconnect.
    """
    return code == POLICY or 4000 <= code <= 4999


def may_be_received(code: int) -> bool:
    """Tell whether `code` may stand in a close frame (RFC 6455 section 7.4, IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_close(code: int, reason: str = "") -> None:
    """Return when an author may close a connection with this code and reason.

    Raises
    ------
    ValueError
        When the code is reserved, or the reason is longer than 123 UTF-8 bytes.
    TypeError
        When they are not an integer and a string.
    """
    _check_type(code, int, "a close code is an integer")
    _check_type(reason, str, "a close reason is a string")
    if not may_be_received(code):
        raise ValueError(f"close code {code} is not 1000-1003, 1007-1014 or 3000-4999")
    size = len(reason.encode())
    if size > MAX_REASON_BYTES:
        raise ValueError(f"a close reason has at most {MAX_REASON_BYTES} bytes, this has {size}")


def rpc_text(error: BaseException) -> tuple[str, Any]:
    """Give the text that a failed call's caller sees, and the data its author made public.

    Returns
    -------
    str
        The exception's message, never a traceback; the class name where there is no message.
    Any
        `PublicError.data`, else None.

    Wire
    ----
    ``error`` and (ours) ``data`` of ``{"type": "rpc", "success": false}``; recording 09.
    """
    if isinstance(error, PublicError):
        return _clean(error.message), error.data
    return _message(error), None


def http_status(error: BaseException) -> int:
    """Give the HTTP status for a request that failed with this error; 500 if it is not ours."""
    if isinstance(error, AddressError) and error.why == TOO_FEW_SEGMENTS:
        return 404
    return _first(_HTTP_STATUS, error, 500)


def close_code(error: BaseException) -> int:
    """Give the close code for a connection that failed so; 1011 if the error is not ours."""
    if isinstance(error, ProtocolError):
        return error.close_code
    if isinstance(error, ConnectionClosed) and may_be_received(error.code):
        return error.code
    return _first(_CLOSE_CODES, error, INTERNAL_ERROR)


def _check_type(value: object, kind: type, sentence: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{sentence}, not {type(value).__name__}")


def _first(
    table: tuple[tuple[type[BaseException], int], ...], error: BaseException, other: int
) -> int:
    return next((code for kind, code in table if isinstance(error, kind)), other)


def _message(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        # An author's broken __str__ must not cost the caller its answer.
        return kind
    if isinstance(error, KeyError):
        # Its text is the bare key, which tells a caller nothing.
        return _clean(f"{kind}: {text}")
    return _clean(text) or kind


def _clean(text: str) -> str:
    # A lone surrogate (from a file name, say) cannot be encoded and would swallow the answer.
    return text.encode("utf-8", "replace").decode()
