"""The server's own view: what it lists and does, who may, and the event stream."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

import pytest
from tornado.web import RequestHandler

from jupyter_agents.link.frames import Kind, unpack_object
from jupyter_agents.server import api
from tests.server.fake_host import KERNEL, LIMIT_S
from tests.server.jupyter import *  # noqa: F403
from tests.server.jupyter import TOKEN

RIGHT = {"Authorization": f"token {TOKEN}"}
ROOM = "agents/chat-room/lobby"
VIEW = "api/agents/chat-room/lobby"


async def read(client):
    """The next frame of the event stream."""
    message = await asyncio.wait_for(client.read_message(), LIMIT_S)
    return None if message is None else json.loads(message)


async def get(visitor, path):
    """A JSON answer, which must be 200."""
    response = await visitor.http(path, headers=RIGHT)
    assert response.code == 200, response.body
    return json.loads(response.body)


async def post(visitor, path, body=None):
    """Status and JSON of a POST."""
    data = b"" if body is None else json.dumps(body).encode()
    response = await visitor.http(path, "POST", data, RIGHT)
    return response.code, json.loads(response.body)


async def connected(visitor, host, query=""):
    """A client, and the number under which the host knows it."""
    client = await visitor.ws(ROOM + query, RIGHT)
    number, _ = await host.expect_open()
    return client, number


# -- what there is -----------------------------------------------------------------------------


async def test_nothing_is_served(visitor):
    """An idle server has no hosts."""
    assert await get(visitor, "api/agents") == {"hosts": []}


async def test_hosts_are_listed(visitor):
    """Kernel, notebook, classes, instances with their state and number of connections."""
    async with visitor.host() as host:
        await connected(visitor, host)
        await connected(visitor, host)
        host.say(Kind.INSTANCE, {"agent": "chat-room", "name": "lobby", "state": "awake"})
        host.say(Kind.INSTANCE, {"agent": "chat-room", "name": "attic", "state": "asleep"})
        await host.serve("Counter", "counter")
        assert await get(visitor, "api/agents") == {
            "hosts": [
                {
                    "id": KERNEL,
                    "kernel_id": KERNEL,
                    "notebook": "work/chat.ipynb",
                    "agents": [
                        {
                            "agent": "chat-room",
                            "class": "ChatRoom",
                            "kernel_id": KERNEL,
                            "state": "live",
                            "instances": [
                                {"name": "lobby", "state": "awake", "connections": 2},
                                {"name": "attic", "state": "asleep", "connections": 0},
                            ],
                        },
                        {
                            "agent": "counter",
                            "class": "Counter",
                            "kernel_id": KERNEL,
                            "state": "live",
                            "instances": [],
                        },
                    ],
                }
            ]
        }


async def test_kernel_that_is_away_is_listed(visitor, agents, eventually):
    """What a lost kernel left behind is parked, with its connections."""
    async with visitor.host() as host:
        await connected(visitor, host)
    await eventually(lambda: not agents.downlink.links)
    [host] = (await get(visitor, "api/agents"))["hosts"]
    assert host["kernel_id"] == KERNEL
    assert host["notebook"] == "work/chat.ipynb"
    [agent] = host["agents"]
    assert agent["state"] == "parked"
    assert agent["instances"] == [{"name": "lobby", "state": "asleep", "connections": 1}]


async def test_instance_is_described(visitor):
    """One instance: its connections as the server sees them, and what the host adds."""
    async with visitor.host() as host:
        client, number = await connected(visitor, host, "?_pk=me")
        host.say(
            Kind.ATTACH,
            {"accepted": True, "tags": ["me", "vip"], "flags": {"readonly": True}},
            number,
        )
        await client.write_message("12345")
        await host.expect(Kind.TEXT)
        host.text(number, "123")
        await client.read_message()
        asking = asyncio.ensure_future(get(visitor, "api/agents/ChatRoom/lobby"))
        asked, payload = await host.expect(Kind.ASK)
        assert unpack_object(payload) == {"do": "describe", "agent": "chat-room", "name": "lobby"}
        facts = {
            "callables": [{"name": "add"}],
            "state_kind": "free",
            "fields": [],
            "started": True,
        }
        host.say(Kind.ANSWER, facts, asked)
        answer = await asking
    [connection] = answer.pop("connections")
    assert answer == {
        **facts,
        "agent": "chat-room",
        "class": "ChatRoom",
        "name": "lobby",
        "state": "live",
    }
    assert datetime.fromisoformat(connection.pop("since").replace("Z", "+00:00")).year >= 2024
    assert connection.pop("user")["username"]
    assert connection.pop("bytes_in") >= 5
    assert connection.pop("bytes_out") >= 3
    assert connection == {
        "id": "me",
        "remote_ip": "127.0.0.1",
        "messages_in": 1,
        "messages_out": 1,
        "queued_bytes": 0,
        "round_trip_s": None,
        "tags": ["me", "vip"],
        "readonly": True,
    }


async def test_instance_of_a_deaf_host(visitor, monkeypatch):
    """A host that does not answer, or cannot, leaves its part out; the rest is there."""
    monkeypatch.setattr(api, "_ASK_S", 0.05)
    async with visitor.host() as host:
        await connected(visitor, host)
        answer = await get(visitor, VIEW)
        assert answer["callables"] is None
        assert len(answer["connections"]) == 1
        await host.expect(Kind.ASK)
        await host.expect(Kind.ABANDON)


async def test_instance_of_a_parked_agent(visitor, agents, eventually):
    """While the kernel is away nobody is asked."""
    async with visitor.host() as host:
        await connected(visitor, host)
    await eventually(lambda: not agents.downlink.links)
    answer = await get(visitor, VIEW)
    assert (answer["state"], answer["callables"]) == ("parked", None)
    assert len(answer["connections"]) == 1
    assert not agents.door.relay.requests


async def test_names_are_decoded(visitor):
    """An instance's name may hold a slash or any other character, percent-encoded."""
    async with visitor.host() as host:
        await visitor.ws("agents/chat-room/a%2Fb%20%C3%A9", RIGHT)
        await host.expect_open()
        asking = asyncio.ensure_future(get(visitor, "api/agents/chat-room/a%2Fb%20%C3%A9"))
        asked, _ = await host.expect(Kind.ASK)
        host.say(Kind.ANSWER, {}, asked)
        answer = await asking
        assert answer["name"] == "a/b é"
        assert len(answer["connections"]) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "api/agents/nobody/x"),
        ("POST", "api/agents/nobody/x/close"),
        ("POST", "api/agents/nobody/x/stop"),
        ("POST", "api/agents/nobody/x/reset"),
        ("POST", "api/agents/nobody/x/readonly"),
        ("GET", "api/agents/chat-room"),
        ("POST", "api/agents/chat-room/lobby/explode"),
    ],
)
async def test_unknown_addresses(visitor, method, path):
    """404 for agents that are not served and for paths that are not ours."""
    async with visitor.host():
        body = b'{"id": "x"}' if method == "POST" else None
        assert (await visitor.http(path, method, body, RIGHT)).code == 404


# -- doing something ---------------------------------------------------------------------------


async def test_close_a_connection(visitor, agents):
    """Every connection with this id is closed, and the host hears of it as of any end."""
    async with visitor.host() as host:
        client, number = await connected(visitor, host, "?_pk=me")
        await connected(visitor, host, "?_pk=you")
        assert await post(visitor, f"{VIEW}/close", {"id": "me"}) == (200, {"closed": 1})
        assert await client.read_message() is None
        assert (client.close_code, client.close_reason) == (1000, "Closed by hand")
        assert (await host.expect_closed())[0] == number
        assert [record.id for record in agents.door.relay.records.values()] == ["you"]


async def test_close_with_a_code(visitor):
    """Code and reason are the caller's."""
    async with visitor.host() as host:
        client, _ = await connected(visitor, host, "?_pk=me")
        wish = {"id": "me", "code": 4003, "reason": "Not you"}
        assert (await post(visitor, f"{VIEW}/close", wish))[0] == 200
        assert await client.read_message() is None
        assert (client.close_code, client.close_reason) == (4003, "Not you")


async def test_close_works_while_the_kernel_is_away(visitor, agents, eventually):
    """A stuck or lost kernel does not keep a connection open that a person wants closed."""
    async with visitor.host() as host:
        client, _ = await connected(visitor, host, "?_pk=me")
    await eventually(lambda: not agents.downlink.links)
    assert await post(visitor, f"{VIEW}/close", {"id": "me"}) == (200, {"closed": 1})
    assert await client.read_message() is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "nobody"}, 404),
        ({}, 400),
        ({"id": 7}, 400),
        ([], 400),
        (None, 400),
        ({"id": "me", "code": 1005}, 400),
        ({"id": "me", "code": "1000"}, 400),
        ({"id": "me", "code": True}, 400),
        ({"id": "me", "reason": "x" * 124}, 400),
        ({"id": "me", "reason": None}, 400),
    ],
)
async def test_close_refuses_nonsense(visitor, body, status):
    """What cannot be a close is refused in a sentence, and closes nothing."""
    async with visitor.host() as host:
        await connected(visitor, host, "?_pk=me")
        code, answer = await post(visitor, f"{VIEW}/close", body)
        assert code == status
        assert answer["message"]
        assert host.is_quiet()


async def test_body_that_is_not_json(visitor):
    """Bad JSON is a 400."""
    async with visitor.host():
        assert (await visitor.http(f"{VIEW}/close", "POST", b"{", RIGHT)).code == 400


@pytest.mark.parametrize("action", ["stop", "reset"])
async def test_actions_are_the_hosts(visitor, action):
    """The host is asked, and what it says is the answer, an error with its status."""
    async with visitor.host() as host:
        for answer, expected in (
            ({}, (200, {})),
            ({"status": 404, "error": "no instance"}, (404, {"message": "no instance"})),
            ({"error": "went wrong"}, (500, {"message": "went wrong"})),
        ):
            asking = asyncio.ensure_future(post(visitor, f"{VIEW}/{action}"))
            asked, payload = await host.expect(Kind.ASK)
            word = {"do": action, "agent": "chat-room", "name": "lobby"}
            assert unpack_object(payload) == word
            host.say(Kind.ANSWER, answer, asked)
            assert await asking == expected


@pytest.mark.parametrize(
    ("body", "readonly"),
    [
        ({"id": "me"}, True),
        ({"id": "me", "readonly": False}, False),
        ({"id": "me", "do": "reset", "name": "attic"}, True),
    ],
)
async def test_make_readonly(visitor, body, readonly):
    """The host is asked for this connection, and for nothing else that the body may say."""
    async with visitor.host() as host:
        asking = asyncio.ensure_future(post(visitor, f"{VIEW}/readonly", body))
        asked, payload = await host.expect(Kind.ASK)
        assert unpack_object(payload) == {
            "do": "readonly",
            "agent": "chat-room",
            "name": "lobby",
            "id": "me",
            "readonly": readonly,
        }
        host.say(Kind.ANSWER, {}, asked)
        assert await asking == (200, {})


@pytest.mark.parametrize("body", [None, [], {}, {"id": 7}, {"id": "me", "readonly": "yes"}])
async def test_readonly_refuses_nonsense(visitor, body):
    """What names no connection, or no truth, is refused before the host hears of it."""
    async with visitor.host() as host:
        code, answer = await post(visitor, f"{VIEW}/readonly", body)
        assert code == 400
        assert answer["message"]
        assert host.is_quiet()


@pytest.mark.parametrize("action", ["stop", "reset"])
async def test_actions_without_an_answer(visitor, agents, action, monkeypatch, eventually):
    """A silent host is a 504 soon, an absent one a 503 at once."""
    monkeypatch.setattr(api, "_ASK_S", 0.05)
    async with visitor.host() as host:
        assert (await post(visitor, f"{VIEW}/{action}"))[0] == 504
        assert not host.is_quiet()
    await eventually(lambda: not agents.downlink.links)
    assert (await post(visitor, f"{VIEW}/{action}"))[0] == 503
    assert not agents.door.relay.requests


# -- the event stream --------------------------------------------------------------------------


async def test_events_begin_with_a_snapshot(visitor):
    """A listener first learns what there is, then each change with what led to it."""
    async with visitor.host() as host:
        listener = await visitor.ws("api/agents/events", RIGHT)
        first = await read(listener)
        assert first["type"] == "snapshot"
        assert first["hosts"] == (await get(visitor, "api/agents"))["hosts"]
        await connected(visitor, host, "?_pk=me")
        change = await read(listener)
        assert change["type"] == "changes"
        assert change["events"] == [
            {"kind": "open", "agent": "chat-room", "name": "lobby", "id": "me"}
        ]
        assert change["lost"] == 0
        [instance] = change["hosts"][0]["agents"][0]["instances"]
        assert instance["connections"] == 1


async def test_events_are_coalesced(visitor, agents):
    """A burst is one frame, and what is more than a frame holds is counted."""
    async with visitor.host():
        listener = await visitor.ws("api/agents/events", RIGHT)
        await read(listener)
        for number in range(250):
            agents.observers.tell("instance", {"name": str(number)})
        change = await read(listener)
        assert len(change["events"]) == 200
        assert change["lost"] == 50
        agents.observers.tell("instance", {"name": "later"})
        change = await read(listener)
        assert (change["events"], change["lost"]) == ([{"kind": "instance", "name": "later"}], 0)


async def test_listener_goes(visitor, agents, eventually):
    """A listener that left is told nothing more, and what it says is ignored."""
    listener = await visitor.ws("api/agents/events", RIGHT)
    await read(listener)
    await listener.write_message("ignored")
    agents.observers.tell("x", {})
    assert (await read(listener))["events"] == [{"kind": "x"}]
    listener.close()
    await eventually(lambda: not agents.observers._listeners)
    agents.observers.tell("x", {})


async def test_listeners_are_told_of_the_end(visitor, agents):
    """A stopping server closes the streams with 1001."""
    listener = await visitor.ws("api/agents/events", RIGHT)
    await read(listener)
    await agents.stop_extension()
    assert await read(listener) is None
    assert listener.close_code == 1001


# -- who may -----------------------------------------------------------------------------------

MATRIX = [
    ("GET", "api/agents", "read"),
    ("GET", VIEW, "read"),
    ("GET", "api/agents/events", "read"),
    ("POST", f"{VIEW}/close", "execute"),
    ("POST", f"{VIEW}/stop", "execute"),
    ("POST", f"{VIEW}/reset", "write"),
    ("POST", f"{VIEW}/readonly", "execute"),
]


async def knock(visitor, method, path, headers, query=""):
    """The status that a visitor gets; the stream is a WebSocket."""
    if path.endswith("events"):
        got = await visitor.ws(path + query, headers)
        return got if isinstance(got, int) else 101
    body = b'{"id": "nobody"}' if method == "POST" else None
    return (await visitor.http(path + query, method, body, headers)).code


@pytest.mark.parametrize(("method", "path", "action"), MATRIX)
async def test_who_may(visitor, method, path, action, monkeypatch):
    """The matrix of credentials for every URL: Jupyter's rules, as for its own APIs."""
    monkeypatch.setattr(api, "_ASK_S", 0.01)
    passes = {"GET": {200, 101}, "POST": {404, 504}}[method]
    own, foreign = {"Origin": visitor.origin}, {"Origin": "https://evil.example"}
    cookie, page = await visitor.sign_in(), await visitor.page()
    stream = path.endswith("events")
    closed = {403}
    async with visitor.host():
        for name, headers, query, expected in [
            ("nothing", {}, "", closed),
            ("wrong token", {}, "?token=wrong", closed),
            ("wrong header", {"Authorization": "token wrong"}, "", closed),
            ("token", {}, f"?token={TOKEN}", passes),
            ("header", RIGHT, "", passes),
            ("header, foreign", {**RIGHT, **foreign}, "", passes),
            ("cookie", cookie, "", passes if method == "GET" else closed),
            ("page", {**page, **own}, "", passes),
            ("cookie, foreign", {**cookie, **foreign}, "", closed if stream else {403, 404}),
            ("page, foreign", {**page, **foreign}, "", closed if stream else {403, 404}),
        ]:
            got = await knock(visitor, method, path, headers, query)
            if expected is closed and got == 302:
                pytest.fail(f"{name} was redirected")
            assert got in expected, (name, got)


class TestAuthorizer:
    """An authorizer that knows who may do what."""

    @pytest.fixture
    def server_config(self):
        return {"ServerApp": {"authorizer_class": "tests.server.authorizer.Listed"}}

    @pytest.mark.parametrize(("method", "path", "action"), MATRIX)
    async def test_actions_are_kept_apart(
        self, visitor, agents, method, path, action, monkeypatch
    ):
        """Each URL takes its own action on ``agents``; the two others are not enough."""
        monkeypatch.setattr(api, "_ASK_S", 0.01)
        authorizer = agents.serverapp.web_app.settings["authorizer"]
        async with visitor.host():
            authorizer.allowed = tuple({"read", "write", "execute"} - {action})
            assert await knock(visitor, method, path, RIGHT) == 403
            authorizer.allowed = (action,)
            assert await knock(visitor, method, path, RIGHT) in (200, 101, 404, 504)
            assert set(authorizer.asked) == {(action, "agents")}


def mark_of(function):
    """``open`` or ``closed``, as the function's decorator says; None without one."""
    marked = getattr(function, "__allow_unauthenticated", None)
    if marked is not None:
        return "open" if marked else "closed"
    wrapper = (
        function.__code__.co_filename.replace("\\", "/") if hasattr(function, "__code__") else ""
    )
    return (
        "closed"
        if wrapper.endswith("tornado/web.py") and hasattr(function, "__wrapped__")
        else None
    )


async def test_no_handler_lacks_its_decorator(agents):
    """Every method of every URL of ours says who may call it, so that none is open by omission."""
    marks = {
        f"{handler.__name__}.{method}": mark_of(getattr(handler, method.lower()))
        for _, handler, *_ in agents.handlers
        for method in RequestHandler.SUPPORTED_METHODS
        if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower())
    }
    assert len(marks) > 12
    assert [name for name, mark in marks.items() if mark is None] == []
    # OPTIONS of the API is Jupyter's own, which answers preflights and nothing else.
    assert {name for name, mark in marks.items() if mark == "open" and "OPTIONS" not in name} == {
        "StaticHandler.GET",
        "StaticHandler.HEAD",
    }
