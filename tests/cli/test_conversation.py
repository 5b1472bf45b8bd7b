"""``connect`` and ``call``: `jupyter_agents.cli.conversation`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.client.tornado_server import Agents


def lines(text: str) -> list[Any]:
    """The JSON values of an output, one a line."""
    return [json.loads(line) for line in text.splitlines()]


# ── call ─────────────────────────────────────────────────────────────────────────────────────


def test_call_prints_the_result(agents: Agents, typed: Any) -> None:
    """Arguments are JSON where they are, and the result is printed alone."""
    assert typed("call", "room/x", "add", "1", "2.5", "--host", agents.host) == (0, "3.5\n", "")


def test_call_prints_a_stream_as_it_comes(agents: Agents, typed: Any) -> None:
    """A stream is one value a line, the final one included; text is bare unless JSON is asked."""
    code, out, _ = typed("call", "room", "count", "3", "--host", agents.host)
    assert (code, out) == (0, "0\n1\n2\nend\n")
    _, out, _ = typed("call", "room", "count", "3", "--host", agents.host, "--json")
    assert lines(out) == [0, 1, 2, "end"]


def test_call_that_fails_is_1(agents: Agents, typed: Any) -> None:
    """The agent's own error is printed as it is."""
    assert typed("call", "room", "fail", "--host", agents.host) == (1, "", "error: failed\n")


def test_call_without_an_answer_is_4(agents: Agents, typed: Any) -> None:
    """A time limit that is reached has a code of its own, and the agent is told."""
    code, _, err = typed("call", "room", "nothing", "--timeout", "0.05", "--host", agents.host)
    assert (code, err) == (4, "error: nothing did not answer within 0.05 s\n")
    assert len(agents.cancelled) == 1


def test_call_to_nobody_is_3(agents: Agents, typed: Any) -> None:
    """An unknown agent, a closed door and no server at all are told apart by their sentence."""
    agents.refusal = 404
    code, _, err = typed("call", "room", "add", "--host", agents.host)
    assert (code, "served now: clock" in err) == (3, True)
    agents.refusal = 403
    code, _, err = typed("call", "room", "add", "--host", agents.host)
    assert (code, "token" in err) == (3, True)
    code, _, err = typed("call", "room", "add", "--host", "localhost:1")
    assert (code, "refused" in err, err.count("\n")) == (3, True, 1)
    code, _, err = typed("call", "room", "add")
    assert (code, "jupyter lab" in err) == (3, True)


# ── connect ──────────────────────────────────────────────────────────────────────────────────


def test_connect_sends_lines_and_prints_messages(agents: Agents, typed: Any) -> None:
    """Lines go out and messages come in, in order; the rest is on stderr."""
    text = "hi\n\n//x\nlast"
    code, out, err = typed("connect", "room/x", "--host", agents.host, "--wait", "0.3", stdin=text)
    assert (code, out) == (0, "hi\n\n/x\nlast\n")
    assert err.splitlines() == ["connected to room/x", 'state: {"n": 0}']


def test_connect_understands_commands(agents: Agents, typed: Any) -> None:
    """State can be read and set, methods called, and mistakes do not end the conversation."""
    text = '/set {"n": 5}\n/state\n/call add 1 2\n/call fail\n/set {\n/call "\n/quit\nnever\n'
    code, out, err = typed("connect", "room/x", "--host", agents.host, stdin=text)
    assert (code, out) == (0, "3\n")
    told = err.splitlines()
    assert told[:4] == [
        "connected to room/x",
        'state: {"n": 0}',
        'state: {"n": 5}',
        "error: failed",
    ]
    assert [line.startswith("error: ") for line in told[4:]] == [True, True]
    assert agents.state == {"n": 5}


def test_connect_prints_json(agents: Agents, typed: Any) -> None:
    """With --json every line is an object, binary in base64."""
    agents.greeting = [b"\x00\xff"]
    code, out, err = typed(
        "connect", "room/x", "--host", agents.host, "--json", "--wait", "0.3", stdin="a\n"
    )
    assert code == 0
    assert lines(out) == [{"state": {"n": 0}}, {"base64": "AP8="}, {"message": "a"}]
    assert err == "connected to room/x\n"


def test_connect_once_leaves_after_one_message(agents: Agents, typed: Any) -> None:
    """--once prints one message, even when more come at once, and needs no end of input."""
    agents.greeting = ["first", "second"]
    code, out, _ = typed("connect", "room/x", "--host", agents.host, "--once", stdin=None)
    assert (code, out) == (0, "first\n")
    agents.greeting = [b"\x01"]
    assert typed("connect", "room/x", "--host", agents.host, "--once")[1] == "<1 bytes> b'\\x01'\n"


@pytest.mark.parametrize("code", [4001, 1008])
def test_connect_ends_when_sent_away(agents: Agents, typed: Any, code: int) -> None:
    """A final close ends the conversation, with its reason."""
    text = f"/call drop {code} Unauthorized\n"
    exit_code, _, err = typed("connect", "room/x", "--host", agents.host, stdin=text)
    assert exit_code == 3
    assert err.splitlines()[-1] == f"error: Connection closed with {code}: Unauthorized"


def test_connect_comes_back(agents: Agents, typed: Any) -> None:
    """After another close the conversation goes on, and what was typed meanwhile is sent."""
    text = "/call drop 1012 restarting\nstill here\n"
    code, out, err = typed("connect", "room/x", "--host", agents.host, "--once", stdin=text)
    assert (code, out) == (0, "still here\n")
    assert "restarting; coming back" in err
    assert err.count("connected to room/x") == 2
