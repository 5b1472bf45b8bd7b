"""From class, name and host to a URL: `jupyter_agents.client.address`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_agents.client.address import Destination, agent_slug, find_target
from jupyter_agents.errors import AddressError


class ChatRoom:
    """A class as users write it."""


class Named:
    """A class that says its slug."""

    slug = "My-Name"


def url(
    agent: Any = "chat-room", name: str = "lobby", host: str = "localhost", **more: Any
) -> str:
    """The URL of these arguments."""
    return find_target(agent, name, host=host, **more).url()


@pytest.mark.parametrize(
    ("agent", "slug"),
    [
        (ChatRoom, "chat-room"),
        ("ChatRoom", "chat-room"),
        ("chat-room", "chat-room"),
        ("AIThing", "a-i-thing"),
        ("MY_UPPER", "my-upper"),
        (Named, "My-Name"),
        (SimpleNamespace(agent="served-slug"), "served-slug"),
    ],
)
def test_agent_is_spelled_as_the_sdk_does(agent: Any, slug: str) -> None:
    """CamelCase becomes kebab-case; a slug, and what `serve` returned, stay (T123)."""
    assert agent_slug(agent) == slug


@pytest.mark.parametrize(
    ("wrong", "error"), [("", AddressError), ("a/b", AddressError), (5, TypeError)]
)
def test_agent_that_cannot_be_is_refused(wrong: Any, error: type[Exception]) -> None:
    """Nothing else names an agent."""
    with pytest.raises(error):
        agent_slug(wrong)


def test_name_is_default_unless_given() -> None:
    """Without a name the instance is "default" (T123)."""
    assert find_target("room", host="localhost").path == "/agents/room/default"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:8888", "ws://localhost:8888/agents/chat-room/lobby"),
        ("http://localhost:8888/", "ws://localhost:8888/agents/chat-room/lobby"),
        ("https://example.org//", "wss://example.org/agents/chat-room/lobby"),
        (" ws://example.org ", "ws://example.org/agents/chat-room/lobby"),
        ("WSS://example.org/", "wss://example.org/agents/chat-room/lobby"),
        ("http://h:1/user/alice/", "ws://h:1/user/alice/agents/chat-room/lobby"),
        ("[::1]:8888", "ws://[::1]:8888/agents/chat-room/lobby"),
    ],
)
def test_host_is_cleaned(host: str, expected: str) -> None:
    """A scheme, slashes and a base_url on the host are understood (T144, T201)."""
    assert url(host=host) == expected


@pytest.mark.parametrize(
    ("host", "scheme"),
    [
        ("localhost", "ws"),
        ("app.localhost:80", "ws"),
        ("127.0.0.1:8888", "ws"),
        ("10.1.2.3", "ws"),
        ("192.168.0.1", "ws"),
        ("172.16.0.1", "ws"),
        ("172.31.255.255", "ws"),
        ("172.15.0.1", "wss"),
        ("172.32.0.1", "wss"),
        ("[::1]", "ws"),
        ("[2606:4700::1]", "wss"),
        ("8.8.8.8", "wss"),
        ("example.org", "wss"),
        ("notlocalhost", "wss"),
        ("10.example.org", "wss"),
    ],
)
def test_protocol_is_plain_nearby_only(host: str, scheme: str) -> None:
    """This machine and private networks are reached without TLS, all others with (T145)."""
    assert url(host=host).startswith(f"{scheme}://")
    assert find_target("a", host=host).url(scheme="http").startswith(scheme.replace("ws", "http"))


@pytest.mark.parametrize("wrong", ["", "http://", "a b", "h?x=1", "me:pw@h", "ftp://h"])
def test_host_that_cannot_be_is_refused(wrong: str) -> None:
    """What is no host and port is named as such."""
    with pytest.raises(AddressError):
        url(host=wrong)


def test_protocol_given_wins() -> None:
    """The user's word on TLS is the last."""
    assert url(host="example.org", protocol="ws").startswith("ws://")
    assert url(host="http://localhost", protocol="wss").startswith("wss://")
    with pytest.raises(AddressError, match="protocol"):
        url(protocol="http")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"prefix": "api/v1/bots"}, "/api/v1/bots/chat-room/lobby"),
        ({"prefix": "/x/"}, "/x/chat-room/lobby"),
        ({"path": "a/b"}, "/agents/chat-room/lobby/a/b"),
        ({"base_path": "user-agent"}, "/user-agent"),
        ({"base_path": "me", "prefix": "x", "path": "p"}, "/me/p"),
    ],
)
def test_paths_are_put_together(parts: dict[str, str], expected: str) -> None:
    """The prefix may have segments, a base path stands for all (T146), a path is appended."""
    assert url(**parts) == f"ws://localhost{expected}"


def test_path_with_a_slash_in_front_is_refused() -> None:
    """As in the SDK, because it would not mean the root (T143)."""
    with pytest.raises(AddressError, match="slash"):
        url(path="/x")


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("a b", "a%20b"), ("100%", "100%25"), ("ü?#", "%C3%BC%3F%23"), ("a.b-c_d~e", "a.b-c_d~e")],
)
def test_name_is_encoded_once(name: str, quoted: str) -> None:
    """Any name reaches the instance of that name."""
    assert url(name=name).endswith(f"/{quoted}")


def test_name_with_a_slash_warns() -> None:
    """It works here, but JavaScript clients would not find it (T148)."""
    with pytest.warns(UserWarning, match="slash"):
        assert url(name="a/b").endswith("/a%2Fb")


@pytest.mark.parametrize("wrong", ["", "x" * 1025, "é" * 513, "\ud800"])
def test_name_that_cannot_be_is_refused(wrong: str) -> None:
    """A name has 1 to 1024 bytes of Unicode."""
    with pytest.raises(AddressError):
        url(name=wrong)


def test_query_leaves_nothing_out_but_none() -> None:
    """None is left out (T147), booleans are JavaScript's, lists repeat, text is encoded."""
    target = find_target("a", host="h")
    query = {"n": None, "yes": True, "zero": 0, "empty": "", "many": [1, None, 2], "t": "a&b"}
    assert target.url(query).partition("?")[2] == "yes=true&zero=0&empty=&many=1&many=2&t=a%26b"
    assert "?" not in target.url({"n": None})


def test_destination_refuses_a_wrong_address_at_once() -> None:
    """A mistake in an argument does not wait for the first attempt."""
    with pytest.raises(AddressError):
        Destination(agent="room", path="/x")
    with pytest.raises(AddressError):
        Destination(agent="room", host="http://")


@pytest.mark.parametrize(
    ("change", "elsewhere"),
    [
        ({"name": "b"}, True),
        ({"host": "h"}, True),
        ({"token": "t"}, False),
        ({"query": {}}, False),
    ],
)
def test_destination_tells_address_from_credentials(
    change: dict[str, Any], elsewhere: bool
) -> None:
    """Another name is another place; another token is not."""
    old = Destination(agent="room")
    assert Destination(**{"agent": "room", **change}).leads_elsewhere(old) is elsewhere
