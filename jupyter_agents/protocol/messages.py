"""The one door between JSON text and what it means: frames of the client ⇄ agent wire.

Promises the Agents SDK's frames byte for byte (key order is free) and our extension for those
who negotiated it (``_ja=1``). Must not decide anything: `agent_side` and `client_side` do.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeGuard

from jupyter_agents.protocol.values import (
    MISSING,
    AwayTold,
    CallMalformed,
    CallReceived,
    CancelReceived,
    ClientFrame,
    IdentityReceived,
    RpcReply,
    ServerFrame,
    StateAcked,
    StateErrorReceived,
    StatePatched,
    StateReceived,
    StateSent,
    StateWanted,
    WriteId,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "METHOD_MISSING",
    "METHOD_NOT_CALLABLE",
    "MISSING",
    "READONLY",
    "STALE",
    "STATE_REJECTED",
    "AwayTold",
    "CallMalformed",
    "CallReceived",
    "CancelReceived",
    "ClientFrame",
    "IdentityReceived",
    "RpcReply",
    "StateAcked",
    "StateErrorReceived",
    "StatePatched",
    "StateReceived",
    "StateSent",
    "StateWanted",
    "WriteId",
    "decode",
    "encode",
    "identity",
    "read_client_frame",
    "read_server_frame",
    "rpc_call",
    "rpc_cancel",
    "rpc_error",
    "rpc_result",
    "state",
    "state_ack",
    "state_error",
    "state_patch",
    "state_wanted",
    "state_write",
]

# The SDK's sentences, letter by letter (recordings 07, 09, 17): clients compare them.
METHOD_MISSING = "Method {} does not exist"
METHOD_NOT_CALLABLE = "Method {} is not callable"
STATE_REJECTED = "State update rejected"
READONLY = "Connection is readonly"
STALE = "State has changed meanwhile"  # ours: a write whose base is not the current version


# ── Frames to a client ───────────────────────────────────────────────────────────────────


def identity(name: str, agent: str, state_follows: bool) -> bytes:
    """Return the frame that tells a client whom it reached.

    Wire
    ----
    ``{"type": "cf_agent_identity", "name": str, "agent": str, "stateFollows": true}``; the last
    key is there exactly when a state frame follows. Recordings 01 and 02.
    """
    return _frame(
        b'"cf_agent_identity"',
        name=encode(name),
        agent=encode(agent),
        stateFollows=b"true" if state_follows else None,
    )


def state(state_json: bytes, version: int | None = None) -> bytes:
    """Return the frame that carries the whole state; `version` for clients of our extension only.

    Wire
    ----
    ``{"type": "cf_agent_state", "state": any}`` and (ours) ``"version": int``.
    """
    return _frame(b'"cf_agent_state"', state=state_json, version=_number(version))


def state_error(
    error: str,
    write: WriteId | None = None,
    state_json: bytes | None = None,
    version: int | None = None,
) -> bytes:
    """Return the frame that refuses a client's write.

    Wire
    ----
    ``{"type": "cf_agent_state_error", "error": str}`` and (ours) ``"write"``, ``"state"``,
    ``"version"``: which write it was, and what holds instead. Recordings 07 and 17.
    """
    return _frame(
        b'"cf_agent_state_error"',
        error=encode(error),
        write=None if write is None else encode(write),
        state=state_json,
        version=_number(version),
    )


def state_ack(write: WriteId, version: int, state_json: bytes | None = None) -> bytes:
    """Return the frame that accepts a client's write; with the state where another holds.

    Wire
    ----
    Ours: ``{"type": "cf_agent_state_ack", "write": id, "version": int, "state": any}``.
    """
    return _frame(
        b'"cf_agent_state_ack"', write=encode(write), version=_number(version), state=state_json
    )


def state_patch(ops_json: bytes, version: int, base: int) -> bytes:
    """Return the frame that turns the state of version `base` into that of `version`.

    Wire
    ----
    Ours: ``{"type": "cf_agent_state_patch", "ops": [RFC 6902 operations], "version": int,
    "base": int}``.
    """
    return _frame(
        b'"cf_agent_state_patch"', ops=ops_json, version=_number(version), base=_number(base)
    )


def rpc_result(
    call_id: str, value: object = MISSING, *, done: bool = True, seq: int | None = None
) -> bytes:
    """Return the frame that answers a call, or is one chunk of a stream.

    Parameters
    ----------
    value : object
        `MISSING` leaves the key ``result`` out; None is JSON's null.
    done : bool
        False for a chunk.
    seq : int or None
        The chunk's number from 0, for clients of our extension only.

    Raises
    ------
    TypeError
        When JSON cannot carry the value.

    Wire
    ----
    ``{"type": "rpc", "id": str, "success": true, "result": any, "done": bool}``; recordings 08
    and 10.
    """
    result = b"" if value is MISSING else b'"result":%b,' % encode(value)
    number = b"" if seq is None else b',"seq":%d' % seq
    return b'{"type":"rpc","id":%b,"success":true,%b"done":%b%b}' % (
        encode(call_id),
        result,
        b"true" if done else b"false",
        number,
    )


def rpc_error(call_id: str, text: str, data: object = None) -> bytes:
    """Return the frame that answers a call with an error.

    Raises
    ------
    TypeError
        When JSON cannot carry the data.

    Wire
    ----
    ``{"type": "rpc", "id": str, "success": false, "error": str}`` without ``done`` (recording
    09), and (ours) ``"data": any`` where the author raised a `PublicError` with some.
    """
    return _frame(
        b'"rpc"',
        id=encode(call_id),
        success=b"false",
        error=encode(text),
        data=None if data is None else encode(data),
    )


# ── Frames to an agent ───────────────────────────────────────────────────────────────────


def rpc_call(
    call_id: str, method: str, args: Sequence[object] = (), deadline_ms: float | None = None
) -> bytes:
    """Return the frame that calls a method; TypeError when JSON cannot carry the arguments.

    Wire
    ----
    ``{"type": "rpc", "id": str, "method": str, "args": list}`` and (ours) ``"deadline_ms":
    number``, counted from the frame's arrival.
    """
    return _frame(
        b'"rpc"',
        id=encode(call_id),
        method=encode(method),
        args=encode(list(args)),
        deadline_ms=None if deadline_ms is None else encode(deadline_ms),
    )


def rpc_cancel(call_id: str) -> bytes:
    """Return the frame that gives up a call. Ours: ``{"type": "rpc_cancel", "id": str}``."""
    return _frame(b'"rpc_cancel"', id=encode(call_id))


def state_write(state_json: bytes, write: WriteId | None = None, base: int | None = None) -> bytes:
    """Return the frame by which a client writes the state.

    Wire
    ----
    ``{"type": "cf_agent_state", "state": any}`` and (ours) ``"write": id`` to be answered by,
    ``"base": int`` to be refused when another version holds by then.
    """
    return _frame(
        b'"cf_agent_state"',
        state=state_json,
        write=None if write is None else encode(write),
        base=_number(base),
    )


def state_wanted() -> bytes:
    """Return the frame that asks for the whole state. Ours: ``{"type": "cf_agent_state_get"}``."""
    return _frame(b'"cf_agent_state_get"')


def _frame(kind: bytes, **fields: bytes | None) -> bytes:
    # Parts are JSON already: a state is encoded once, however many frames carry it.
    parts = [
        b'"%b":%b' % (name.encode(), text) for name, text in fields.items() if text is not None
    ]
    return b"{%b}" % b",".join([b'"type":' + kind, *parts])


def _number(value: int | None) -> bytes | None:
    return None if value is None else b"%d" % value


# ── Frames from a client ─────────────────────────────────────────────────────────────────


def read_client_frame(text: str, *, extended: bool = False) -> ClientFrame | None:
    """Read one text frame from a client.

    Parameters
    ----------
    text : str
        A whole frame.
    extended : bool
        Whether this client negotiated our extension (``_ja=1``); without it `write`, `base`,
        `deadline_ms`, cancel and state requests do not exist.

    Returns
    -------
    ClientFrame or None
        None when the frame is the user's own message: invalid JSON, other types, or a state frame
        without ``state``, a call without a string ``id``. That is not an error.

    Wire
    ----
    ``{"type": "rpc", "id": str, "method": str, "args": list}`` and
    ``{"type": "cf_agent_state", "state": any}``.
    Source: agents 0.32.0, isRPCRequest and isStateUpdateMessage; recordings 09 and 11.
    """
    frame = _our_object(text)
    if frame is None:
        return None
    kind = frame.get("type")
    if kind == "rpc":
        return _read_call(frame, extended)
    if kind == "cf_agent_state":
        return _read_write(frame, extended)
    if not extended:
        return None
    if kind == "rpc_cancel" and isinstance(frame.get("id"), str):
        return CancelReceived(frame["id"])
    return StateWanted() if kind == "cf_agent_state_get" else None


FRAME_STARTS = "{ \t\n\r"
"""A text that begins otherwise is no frame of ours, however long it is."""


def _our_object(text: str) -> dict[str, Any] | None:
    """Return the parsed frame if it can be one of ours; most messages leave at the first line."""
    if text[:1] not in FRAME_STARTS:
        return None
    # A type of ours stands there literally or with letters escaped, and their escapes begin so.
    if '"rpc' not in text and '"cf_agent_' not in text and "\\u00" not in text:
        return None
    try:
        found = decode(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _read_call(frame: dict[str, Any], extended: bool) -> CallReceived | CallMalformed | None:
    call_id, method, args = frame.get("id"), frame.get("method"), frame.get("args")
    if not isinstance(call_id, str):
        return None
    if not isinstance(method, str):
        return CallMalformed(call_id, "Malformed call: 'method' must be a string")
    if not isinstance(args, list):
        return CallMalformed(call_id, "Malformed call: 'args' must be an array")
    return CallReceived(call_id, method, args, _deadline(frame) if extended else None)


def _deadline(frame: dict[str, Any]) -> float | None:
    found = frame.get("deadline_ms")
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        return max(found, 0)
    return None


def _read_write(frame: dict[str, Any], extended: bool) -> StateReceived | None:
    if "state" not in frame:
        return None
    if not extended:
        return StateReceived(frame["state"])
    base = frame.get("base")
    if base is not None and not _is_int(base):
        base = -1  # no version at all, so never the current one: the write is refused as stale
    return StateReceived(frame["state"], _write_id(frame), base)


def _write_id(frame: dict[str, Any]) -> WriteId | None:
    found = frame.get("write")
    return found if isinstance(found, str) or _is_int(found) else None


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


# ── Frames from an agent ─────────────────────────────────────────────────────────────────


def read_server_frame(text: str) -> ServerFrame | None:
    """Read one text frame from an agent.

    Returns
    -------
    ServerFrame or None
        None when the frame is the agent's own message to the client's author, or one of ours
        that misses a field. That is not an error.
    """
    frame = _our_object(text)
    if frame is None:
        return None
    reader = _SERVER_READERS.get(str(frame.get("type")))
    return None if reader is None else reader(frame)


def _read_identity(frame: dict[str, Any]) -> IdentityReceived | None:
    name, agent = frame.get("name"), frame.get("agent")
    if not (isinstance(name, str) and isinstance(agent, str)):
        return None
    return IdentityReceived(name, agent, frame.get("stateFollows") is True)


def _read_state(frame: dict[str, Any]) -> StateSent | None:
    return StateSent(frame["state"], _version(frame)) if "state" in frame else None


def _read_state_error(frame: dict[str, Any]) -> StateErrorReceived | None:
    error = frame.get("error")
    if not isinstance(error, str):
        return None
    return StateErrorReceived(
        error, _write_id(frame), frame.get("state", MISSING), _version(frame)
    )


def _read_ack(frame: dict[str, Any]) -> StateAcked | None:
    write, version = _write_id(frame), _version(frame)
    if write is None or version is None:
        return None
    return StateAcked(write, version, frame.get("state", MISSING))


def _read_patch(frame: dict[str, Any]) -> StatePatched | None:
    ops, version, base = frame.get("ops"), _version(frame), _version(frame, "base")
    if not isinstance(ops, list) or version is None or base is None:
        return None
    return StatePatched(ops, version, base)


def _read_reply(frame: dict[str, Any]) -> RpcReply | None:
    call_id, success = frame.get("id"), frame.get("success")
    if not isinstance(call_id, str) or not isinstance(success, bool):
        return None
    if not success:
        return RpcReply(call_id, False, error=str(frame.get("error")), data=frame.get("data"))
    done = frame.get("done") is not False
    return RpcReply(call_id, True, frame.get("result", MISSING), done, seq=_version(frame, "seq"))


def _version(frame: dict[str, Any], key: str = "version") -> int | None:
    found = frame.get(key)
    return found if _is_int(found) else None


_SERVER_READERS: Mapping[str, Callable[[dict[str, Any]], ServerFrame | None]] = MappingProxyType(
    {
        "cf_agent_identity": _read_identity,
        "cf_agent_state": _read_state,
        "cf_agent_state_error": _read_state_error,
        "cf_agent_state_ack": _read_ack,
        "cf_agent_state_patch": _read_patch,
        "rpc": _read_reply,
        "cf_agent_suspended": lambda frame: AwayTold(True),
        "cf_agent_resumed": lambda frame: AwayTold(False),
    }
)
