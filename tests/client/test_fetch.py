"""HTTP to an agent: `jupyter_agents.client.fetch`."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_agents.client.fetch import FetchResponse, agent_fetch
from jupyter_agents.errors import AddressError
from tests.client.tornado_server import running


class ChatRoom:
    """A class as users write it."""


async def test_fetch_reaches_the_same_address_as_connect() -> None:
    """Class, name, path, query and token arrive where a WebSocket would (T126)."""
    async with running() as agents:
        response = await agent_fetch(
            ChatRoom, "a b", "/status", host=agents.host, token="t0k", query={"x": 1, "n": None}
        )
        assert response.ok
        assert response.json() == {
            "method": "GET",
            "uri": "/base/agents/chat-room/a%20b/status?x=1",
            "body": "",
            "type": None,
            "authorization": "token t0k",
        }
        assert response.headers["x-many"] == "a,b"
        assert "t0k" not in response.url


@pytest.mark.parametrize("method", ["POST", "put", "PATCH", "DELETE"])
async def test_fetch_sends_method_and_body(method: str) -> None:
    """Every method works, with a body or without (T126)."""
    async with running() as agents:
        told = (await agent_fetch("room", host=agents.host, method=method, body={"a": 1})).json()
        assert (told["method"], told["body"]) == (method.upper(), '{"a":1}')
        told = (await agent_fetch("room", host=agents.host, method=method)).json()
        assert told["body"] == ""


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"a": 1}, "application/json"),
        ([1], "application/json"),
        ("text", "text/plain; charset=utf-8"),
        (b"raw", "application/octet-stream"),
        (bytearray(b"raw"), "application/octet-stream"),
    ],
)
async def test_fetch_says_what_its_body_is(body: Any, kind: str) -> None:
    """Text, bytes and everything else have each their type, unless the user says one."""
    async with running() as agents:
        sent = {"host": agents.host, "method": "POST", "body": body}
        assert (await agent_fetch("room", **sent)).json()["type"] == kind
        own = await agent_fetch("room", **sent, headers={"content-type": "x/y"})
        assert own.json()["type"] == "x/y"


async def test_fetch_by_base_path() -> None:
    """Where the server chooses the instance, the base path is the whole path (T126)."""
    async with running() as agents:
        response = await agent_fetch("room", base_path="http/me", path="x", host=agents.host)
        assert response.json()["uri"] == "/base/http/me/x"


@pytest.mark.parametrize("status", [404, 500, 302])
async def test_fetch_gives_error_statuses_as_answers(status: int) -> None:
    """An error status is the agent's answer; a redirect is not followed, the token might leak."""
    async with running() as agents:
        response = await agent_fetch(
            "room", base_path="http/x", query={"status": status}, host=agents.host
        )
        assert (response.status, response.ok) == (status, False)


async def test_fetch_without_an_answer_fails() -> None:
    """No server is an OSError, none in time a TimeoutError; a wrong address is named first."""
    async with running() as agents:
        with pytest.raises(TimeoutError):
            await agent_fetch("room", query={"slow": 1}, host=agents.host, timeout=0.05)
        port = agents.port
    with pytest.raises(OSError, match="refused"):
        await agent_fetch("room", host=f"127.0.0.1:{port}")
    with pytest.raises(AddressError):
        await agent_fetch("room", "", host="localhost")


def test_response_decodes_its_body() -> None:
    """Text is UTF-8 as far as it is, JSON must be JSON."""
    assert FetchResponse(200, body=b"a\xff").text == "a\ufffd"
    with pytest.raises(ValueError, match="truncated"):
        FetchResponse(200, body=b"{").json()
