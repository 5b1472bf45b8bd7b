"""Frames of the client ⇄ agent wire."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agents.protocol import messages
from jupyter_agents.protocol.messages import (
    MISSING,
    CallMalformed,
    CallReceived,
    CancelReceived,
    IdentityReceived,
    RpcReply,
    StateAcked,
    StateErrorReceived,
    StatePatched,
    StateReceived,
    StateSent,
    StateWanted,
    read_client_frame,
    read_server_frame,
)

CALL = {"type": "rpc", "id": "1", "method": "add", "args": [1]}
WRITE = {"type": "cf_agent_state", "state": {"n": 1}}


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            messages.identity("n", "a", True),
            {"type": "cf_agent_identity", "name": "n", "agent": "a", "stateFollows": True},
        ),
        (
            messages.identity("n", "a", state_follows=False),
            {"type": "cf_agent_identity", "name": "n", "agent": "a"},
        ),
        (messages.state(b"null"), {"type": "cf_agent_state", "state": None}),
        (messages.state(b"0", 0), {"type": "cf_agent_state", "state": 0, "version": 0}),
        (messages.state_error("no"), {"type": "cf_agent_state_error", "error": "no"}),
        (
            messages.state_error("no", "w", b"false", 3),
            {
                "type": "cf_agent_state_error",
                "error": "no",
                "write": "w",
                "state": False,
                "version": 3,
            },
        ),
        (
            messages.state_ack(0, 2),
            {"type": "cf_agent_state_ack", "write": 0, "version": 2},
        ),
        (
            messages.state_ack("w", 2, b"null"),
            {"type": "cf_agent_state_ack", "write": "w", "version": 2, "state": None},
        ),
        (
            messages.state_patch(b"[]", 2, 1),
            {"type": "cf_agent_state_patch", "ops": [], "version": 2, "base": 1},
        ),
        (
            messages.rpc_result("1"),
            {"type": "rpc", "id": "1", "success": True, "done": True},
        ),
        (
            messages.rpc_result("", None, done=False, seq=0),
            {"type": "rpc", "id": "", "success": True, "result": None, "done": False, "seq": 0},
        ),
        (
            messages.rpc_error("1", "kaput"),
            {"type": "rpc", "id": "1", "success": False, "error": "kaput"},
        ),
        (
            messages.rpc_error("1", "kaput", 0),
            {"type": "rpc", "id": "1", "success": False, "error": "kaput", "data": 0},
        ),
        (
            messages.rpc_call("1", "add", (1, 2)),
            {"type": "rpc", "id": "1", "method": "add", "args": [1, 2]},
        ),
        (
            messages.rpc_call("1", "add", deadline_ms=0.5),
            {"type": "rpc", "id": "1", "method": "add", "args": [], "deadline_ms": 0.5},
        ),
        (messages.rpc_cancel("1"), {"type": "rpc_cancel", "id": "1"}),
        (messages.state_write(b"{}"), {"type": "cf_agent_state", "state": {}}),
        (
            messages.state_write(b"{}", 1, 0),
            {"type": "cf_agent_state", "state": {}, "write": 1, "base": 0},
        ),
        (messages.state_wanted(), {"type": "cf_agent_state_get"}),
    ],
)
def test_frame_has_exactly_its_keys(frame, expected):
    """A built frame has the wire's keys, and no key for what was left out."""
    assert json.loads(frame) == expected


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}])
def test_falsy_result_is_a_result(value):
    """Only `MISSING` leaves the result out."""
    assert json.loads(messages.rpc_result("1", value))["result"] == value


def test_result_that_json_cannot_carry_is_refused():
    """A result is refused with the sentence that names its type."""
    with pytest.raises(TypeError, match="'object'"):
        messages.rpc_result("1", object())


# ── What a client sends ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(CALL), CallReceived("1", "add", [1])),
        (json.dumps(CALL | {"id": "", "args": []}), CallReceived("", "add", [])),
        (json.dumps(CALL | {"extra": 1, "deadline_ms": 5}), CallReceived("1", "add", [1])),
        (" \r\n\t" + json.dumps(CALL) + " ", CallReceived("1", "add", [1])),
        (
            r'{"t\u0079pe":"\u0072pc","id":"1","method":"add","args":[1]}',
            CallReceived("1", "add", [1]),
        ),
        ('{"type":"x",' + json.dumps(CALL)[1:], CallReceived("1", "add", [1])),
        (json.dumps(WRITE), StateReceived({"n": 1})),
        (json.dumps(WRITE | {"state": None}), StateReceived(None)),
        (json.dumps(WRITE | {"write": 1, "base": 2}), StateReceived({"n": 1})),
        (
            json.dumps(CALL | {"method": 5}),
            CallMalformed("1", "Malformed call: 'method' must be a string"),
        ),
        (
            json.dumps(CALL | {"args": None}),
            CallMalformed("1", "Malformed call: 'args' must be an array"),
        ),
        (
            '{"type":"rpc","id":"1","method":"add"}',
            CallMalformed("1", "Malformed call: 'args' must be an array"),
        ),
    ],
)
def test_client_frame_is_read(text, expected):
    """Calls and writes are recognised however spelled; malformed calls where they have an id."""
    assert read_client_frame(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "42",
        '"rpc"',
        '["rpc"]',
        "{}",
        "{rpc",
        '{"type":"rpc"',
        '{"type":"\\u0000"}',
        '{"type":"unknown","x":"rpc_x"}',
        '{"type":["rpc"]}',
        '{"type":{"rpc":1}}',
        '{"kind":"rpc","id":"1","method":"add","args":[]}',
        json.dumps(CALL | {"id": 1}),
        '{"type":"rpc","method":"add","args":[]}',
        '{"type":"cf_agent_state"}',
        '{"type":"cf_agent_identity","name":"n","agent":"a"}',
        '{"type":"cf_agent_state_get"}',
        '{"type":"rpc_cancel","id":"1"}',
        '{"type":"rpc","id":"1","method":"add","args":' + "[" * 10**5,
    ],
)
def test_other_text_is_the_users_own(text):
    """What is not one of our frames, whole and valid, goes to the agent's author."""
    assert read_client_frame(text) is None


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (WRITE | {"write": "w", "base": 3}, StateReceived({"n": 1}, "w", 3)),
        (WRITE | {"write": 0, "base": 0}, StateReceived({"n": 1}, 0, 0)),
        (WRITE | {"write": True, "base": None}, StateReceived({"n": 1})),
        (WRITE | {"write": "w", "base": "3"}, StateReceived({"n": 1}, "w", -1)),
        (WRITE | {"write": "w", "base": True}, StateReceived({"n": 1}, "w", -1)),
        (CALL | {"deadline_ms": 1.5}, CallReceived("1", "add", [1], 1.5)),
        (CALL | {"deadline_ms": -1}, CallReceived("1", "add", [1], 0)),
        (CALL | {"deadline_ms": True}, CallReceived("1", "add", [1])),
        (CALL | {"deadline_ms": "1"}, CallReceived("1", "add", [1])),
        ({"type": "rpc_cancel", "id": "1"}, CancelReceived("1")),
        ({"type": "rpc_cancel", "id": 1}, None),
        ({"type": "cf_agent_state_get"}, StateWanted()),
        ({"type": "cf_agent_state_ack"}, None),
    ],
)
def test_extension_is_read_when_negotiated(frame, expected):
    """Write ids, bases, deadlines and cancels exist once negotiated."""
    assert read_client_frame(json.dumps(frame), extended=True) == expected


def test_plain_message_is_not_parsed(monkeypatch):
    """A message that cannot be ours is passed on without reading its JSON."""
    monkeypatch.setattr(messages, "decode", lambda text: pytest.fail(f"parsed {text}"))
    assert read_client_frame('{"type":"chat","text":"caf\\u1e00 and \\n more"}') is None
    assert read_client_frame('["rpc", 1]') is None


@given(st.text() | st.recursive(st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_no_message_breaks_the_reader(value):
    """Whatever text comes, reading it raises nothing."""
    text = value if isinstance(value, str) else json.dumps(value)
    assert read_client_frame(text, extended=True) is None
    assert read_server_frame(text) is None


NAMES = "type id method args state write base version ops success done error name agent seq"
TYPES = ["rpc", "rpc_cancel", "cf_agent_identity", "cf_agent_state"] + [
    f"cf_agent_state_{kind}" for kind in ("error", "ack", "patch", "get")
]
KEYS = st.sampled_from(NAMES.split())
VALUES = st.sampled_from([*TYPES, "x", 1, True, None, [], {}, 0.5])


@given(st.dictionaries(KEYS, VALUES))
def test_no_mixture_of_our_words_breaks_the_readers(frame):
    """Frames made of our words in the wrong places are read or passed on, and raise nothing."""
    text = json.dumps(frame)
    for found in (read_client_frame(text, extended=True), read_server_frame(text)):
        assert found is None or frame["type"].startswith(("rpc", "cf_agent_"))


# ── What an agent sends ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (messages.identity("n", "a", True), IdentityReceived("n", "a", True)),
        (messages.identity("n", "a", False), IdentityReceived("n", "a", False)),
        (messages.state(b"null"), StateSent(None)),
        (messages.state(b"0", 4), StateSent(0, 4)),
        (messages.state_error("no"), StateErrorReceived("no")),
        (messages.state_error("no", 1, b"null", 4), StateErrorReceived("no", 1, None, 4)),
        (messages.state_ack(1, 4), StateAcked(1, 4)),
        (messages.state_ack(1, 4, b"null"), StateAcked(1, 4, None)),
        (messages.state_patch(b"[]", 5, 4), StatePatched([], 5, 4)),
        (messages.rpc_result("1"), RpcReply("1", True)),
        (
            messages.rpc_result("1", None, done=False, seq=3),
            RpcReply("1", True, None, done=False, seq=3),
        ),
        (messages.rpc_error("1", "no"), RpcReply("1", False, error="no")),
        (messages.rpc_error("1", "no", [1]), RpcReply("1", False, error="no", data=[1])),
        (b'{"type":"rpc","id":"1","success":true,"result":1}', RpcReply("1", True, 1)),
    ],
)
def test_server_frame_is_read_as_it_was_built(frame, expected):
    """Each frame an agent builds is read back; without ``done`` a reply is the last one."""
    assert read_server_frame(frame.decode()) == expected


def test_reply_without_result_is_told_apart_from_null():
    """A reply without ``result`` has `MISSING`, one with null has None."""
    assert read_server_frame(messages.rpc_result("1").decode()).result is MISSING
    assert read_server_frame(messages.rpc_result("1", None).decode()).result is None


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"cf_agent_identity","name":"n"}',
        '{"type":"cf_agent_state"}',
        '{"type":"cf_agent_state_error"}',
        '{"type":"cf_agent_state_ack","write":1}',
        '{"type":"cf_agent_state_ack","version":1}',
        '{"type":"cf_agent_state_patch","ops":{},"version":1,"base":0}',
        '{"type":"cf_agent_state_patch","ops":[],"base":0}',
        '{"type":"cf_agent_state_patch","ops":[],"version":1,"base":true}',
        '{"type":"rpc","id":"1","method":"add","args":[]}',
        '{"type":"rpc","id":1,"success":true}',
        '{"type":"cf_agent_mcp_servers","mcp":{}}',
        '{"type":["rpc"]}',
    ],
)
def test_incomplete_server_frame_is_the_users_own(text):
    """A frame that misses what it must have is passed to the client's author."""
    assert read_server_frame(text) is None
