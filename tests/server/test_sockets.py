"""The door in plain Tornado: addresses, messages, gates, HTTP, CORS, pages and files."""

from __future__ import annotations

import asyncio
import json

import pytest
from tornado.httpclient import HTTPClientError
from tornado.websocket import WebSocketHandler

from jupyter_agents.link.frames import Kind
from jupyter_agents.server.sockets import AgentHandler
from tests.server.fake_host import LIMIT_S
from tests.server.plain_server import plain_server


async def read(client):
    """The next message of a client; None is its end."""
    return await asyncio.wait_for(client.read_message(), LIMIT_S)


async def refusal(server, path, **headers):
    """Status and JSON of an upgrade that was refused."""
    with pytest.raises(HTTPClientError) as caught:
        await server.ws(path, **headers)
    return caught.value.code, json.loads(caught.value.response.body)


async def test_messages_go_both_ways():
    """Text and binary, empty ones too, reach the host and come back as they were."""
    async with plain_server() as server:
        await server.host.serve()
        client = await server.ws("/agents/chat-room/lobby")
        number, opened = await server.host.expect_open()
        assert (opened["agent"], opened["name"], opened["resumed"]) == (
            "chat-room",
            "lobby",
            False,
        )
        for message in ("hello", "", "π ☃"):
            await client.write_message(message)
            assert await server.host.expect(Kind.TEXT) == (number, message.encode())
            server.host.text(number, message)
            assert await read(client) == message
        for message in (b"\x00\xff", b""):
            await client.write_message(message, binary=True)
            assert await server.host.expect(Kind.BINARY) == (number, message)
            server.host.send(Kind.BINARY, number, message)
            assert await read(client) == message


async def test_broadcast_reaches_its_recipients_only():
    """One frame with two numbers goes to these two connections and to no third."""
    async with plain_server() as server:
        await server.host.serve()
        clients = [await server.ws("/agents/chat-room/lobby") for _ in range(3)]
        numbers = [(await server.host.expect_open())[0] for _ in clients]
        server.host.broadcast("news", numbers[0], numbers[2])
        server.host.text(numbers[1], "for you")
        assert [await read(client) for client in clients] == ["news", "for you", "news"]


@pytest.mark.parametrize(
    ("path", "agent", "name", "tail"),
    [
        ("/agents/chat-room/lobby", "chat-room", "lobby", ""),
        ("/agents/ChatRoom/lobby", "chat-room", "lobby", ""),
        ("//agents//chat-room///lobby//x//y", "chat-room", "lobby", "/x/y"),
        ("/agents/chat-room/a%2Fb%20%C3%A9", "chat-room", "a/b é", ""),
        ("/agents/chat-room/100%2525", "chat-room", "100%25", ""),
        ("/agents/chat-room/agents/x", "chat-room", "agents", "/x"),
        ("/agents/chat-room/" + "n" * 1024, "chat-room", "n" * 1024, ""),
    ],
)
async def test_address_is_read_from_the_path(path, agent, name, tail):
    """The name is decoded once, doubled slashes count once, the class's name will do."""
    async with plain_server() as server:
        await server.host.serve()
        await server.ws(path)
        _, opened = await server.host.expect_open()
        assert (opened["agent"], opened["name"]) == (agent, name)
        assert opened["request"]["path"] == tail
        assert (opened["request"]["agent"], opened["request"]["name"]) == (agent, name)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/agents/nobody/lobby", 404, "served now: chat-room"),
        ("/agents/chat-room", 404, "{agent}/{name}"),
        ("/agents/chat-room/", 404, "{agent}/{name}"),
        ("/agents/", 404, "{agent}/{name}"),
        ("/agents/chat-room/" + "n" * 1025, 400, "longer than 1024 bytes"),
        ("/agents/chat-room/%ff", 400, "UTF-8"),
        ("/agents/chat-room/lobby?_pk=" + "x" * 257, 400, "longer than 256 characters"),
    ],
)
async def test_bad_address_is_refused_before_the_upgrade(path, status, words):
    """Unknown agents get 404 and unusable addresses 400, as JSON, over both protocols."""
    async with plain_server() as server:
        await server.host.serve()
        code, facts = await refusal(server, path)
        assert code == status
        assert words in facts["error"]
        if "_pk" not in path:
            response = await server.http(path)
            assert (response.code, json.loads(response.body)) == (status, facts)
        assert server.host.is_quiet()
        assert not server.relay.records


async def test_not_found_names_what_is_served():
    """The 404 lists the agents, for people and for programs."""
    async with plain_server() as server:
        await server.host.serve("ChatRoom", "chat-room")
        await server.host.serve("Counter", "counter")
        _, facts = await refusal(server, "/agents/chatroom/x")
        assert facts["agents"] == ["chat-room", "counter"]


async def test_paths_beside_the_prefix_are_not_ours():
    """What does not begin with the prefix is left to the application's other routes."""
    async with plain_server(base_url="/user/x/", prefix="live/agents") as server:
        await server.host.serve()
        await server.ws("/user/x/live/agents/chat-room/lobby")
        _, opened = await server.host.expect_open()
        assert opened["name"] == "lobby"
        for path in (
            "/agents/chat-room/x",
            "/user/x/agents/chat-room/x",
            "/user/x/live/agentsx/a/b",
        ):
            assert (await server.http(path)).code == 404


async def test_connection_id_is_the_first_pk():
    """``_pk`` names the connection, percent-decoded; empty or absent means a generated id."""
    async with plain_server() as server:
        await server.host.serve()
        ids = []
        for query in ("?_pk=a%20b&_pk=c", "?_pk=", "", "?_pk=" + "x" * 256):
            await server.ws(f"/agents/chat-room/lobby{query}")
            ids.append((await server.host.expect_open())[1]["id"])
        assert ids[0] == "a b"
        assert ids[3] == "x" * 256
        assert len(ids[1]) == len(ids[2]) == 21
        assert ids[1] != ids[2]


async def test_opening_request_is_told_whole():
    """The host learns URL, query, headers, cookies and address of who connects."""
    async with plain_server() as server:
        await server.host.serve()
        await server.ws(
            "/agents/chat-room/lobby/deep?room=a&room=b&empty=&_ja=1",
            X_Mine="yes",
            Cookie="flavour=oat; _xsrf=2|secret; username-localhost-8888=me; jupyterhub-session=s",
        )
        _, opened = await server.host.expect_open()
        request = opened["request"]
        assert opened["extended"] is True
        assert request["user"] is None
        assert request["remote_ip"] == "127.0.0.1"
        url = f"{server.url('/agents/chat-room/lobby/deep')}?room=a&room=b&empty=&_ja=1"
        assert request["url"] == url
        assert request["query"] == {"room": ["a", "b"], "empty": [""], "_ja": ["1"]}
        assert request["cookies"] == {"flavour": "oat"}
        headers = {name.lower(): value for name, value in request["headers"]}
        assert headers["x-mine"] == "yes"
        assert headers["cookie"] == "flavour=oat"
        assert request["method"] == "GET"


async def test_extension_is_off_unless_asked_for():
    """Only ``_ja=1`` negotiates our own frames."""
    async with plain_server() as server:
        await server.host.serve()
        for query in ("", "?_ja=0", "?_ja=11"):
            await server.ws(f"/agents/chat-room/lobby{query}")
            assert (await server.host.expect_open())[1]["extended"] is False


# -- the end of a connection -------------------------------------------------------------------


async def test_client_closes():
    """The host hears the client's code and reason; the record is gone."""
    async with plain_server() as server:
        await server.host.serve()
        client = await server.ws("/agents/chat-room/lobby")
        number, _ = await server.host.expect_open()
        client.close(4100, "bye")
        assert await server.host.expect_closed() == (number, 4100, True, "bye")
        assert not server.relay.records
        assert not server.door.sockets


async def test_host_closes():
    """A CLOSE frame closes with its code and reason; the host hears the answer."""
    async with plain_server() as server:
        await server.host.serve()
        client = await server.ws("/agents/chat-room/lobby")
        number, _ = await server.host.expect_open()
        server.host.text(number, "last words")
        server.host.shut(number, 4001, "Unauthorized")
        assert await read(client) == "last words"
        assert await read(client) is None
        assert (client.close_code, client.close_reason) == (4001, "Unauthorized")
        assert await server.host.expect_closed() == (number, 4001, True, "")


async def test_client_vanishes():
    """A peer that drops the line without a word counts as 1006, not clean."""
    async with plain_server() as server:
        await server.host.serve()
        client = await server.ws("/agents/chat-room/lobby")
        number, _ = await server.host.expect_open()
        client.protocol.stream.close()
        assert await server.host.expect_closed() == (number, 1006, False, "")


async def test_too_long_a_message():
    """One byte past the limit closes with 1009, and the host hears why."""
    async with plain_server(max_message_bytes=1000) as server:
        await server.host.serve()
        client = await server.ws("/agents/chat-room/lobby")
        number, _ = await server.host.expect_open()
        await client.write_message("x" * 1000)
        assert (await server.host.expect(Kind.TEXT))[0] == number
        await client.write_message("x" * 1001)
        assert await read(client) is None
        assert client.close_code == 1009
        assert (await server.host.expect(Kind.FAILED))[0] == number
        assert (await server.host.expect_closed())[1] == 1009


async def test_one_connection_too_many():
    """Past the limit of connections a client is told to try again later."""
    async with plain_server(max_connections=1) as server:
        await server.host.serve()
        await server.ws("/agents/chat-room/lobby")
        late = await server.ws("/agents/chat-room/lobby")
        assert await read(late) is None
        assert late.close_code == 1013
        await server.host.expect_open()
        assert server.host.is_quiet()


async def test_stop_sends_everyone_away(eventually):
    """A stopping server closes with 1001, tells the host, and lets nobody in any more."""
    async with plain_server() as server:
        await server.host.serve()
        client = await server.ws("/agents/chat-room/lobby")
        number, _ = await server.host.expect_open()
        stopped = asyncio.ensure_future(server.door.stop())
        assert await read(client) is None
        assert client.close_code == 1001
        await stopped
        assert await server.host.expect_closed() == (number, 1001, True, "")
        assert (await refusal(server, "/agents/chat-room/lobby"))[0] == 503
        assert (await server.http("/agents/chat-room/lobby")).code == 503


async def test_stop_does_not_wait_for_the_deaf():
    """A client that never answers the close frame is cut when the time is up."""
    async with plain_server(stop_timeout_s=0.05, close_timeout_s=60.0) as server:
        await server.host.serve()
        _, writer = await raw_websocket(server, "/agents/chat-room/lobby")
        number, _ = await server.host.expect_open()
        await asyncio.wait_for(server.door.stop(), LIMIT_S)
        assert await server.host.expect_closed() == (number, 1006, False, "")
        writer.close()


async def raw_websocket(server, path):
    """A socket behind the 101 that does nothing by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
    assert head.startswith(b"HTTP/1.1 101"), head
    return reader, writer


async def test_other_versions_are_told_ours():
    """A client of an older WebSocket draft gets 426 and the version that is spoken."""
    async with plain_server() as server:
        await server.host.serve()
        response = await server.http(
            "/agents/chat-room/lobby",
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "8",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
        )
        assert response.code == 426
        # Tornado before 6.6 still names drafts that it no longer speaks
        assert "13" in response.headers["Sec-WebSocket-Version"]
        assert not server.relay.records


# -- back-pressure -----------------------------------------------------------------------------


async def test_held_connection_is_not_read(eventually):
    """After HOLD nothing of this connection arrives until RELEASE, and nothing is lost."""
    async with plain_server() as server:
        await server.host.serve()
        held, free = [await server.ws("/agents/chat-room/lobby") for _ in range(2)]
        numbers = [(await server.host.expect_open())[0] for _ in range(2)]
        server.host.send(Kind.HOLD, numbers[0])
        await held.write_message("waits")
        await free.write_message("passes")
        assert await server.host.expect(Kind.TEXT) == (numbers[1], b"passes")
        await free.write_message("passes too")
        assert await server.host.expect(Kind.TEXT) == (numbers[1], b"passes too")
        server.host.send(Kind.RELEASE, numbers[0])
        assert await server.host.expect(Kind.TEXT) == (numbers[0], b"waits")


async def test_parked_messages_wait_and_arrive_in_order():
    """While the host is away messages wait; the next host gets the connection and all of them."""
    async with plain_server() as server:
        await server.host.serve()
        client = await server.ws("/agents/chat-room/lobby?_pk=me")
        number, _ = await server.host.expect_open()
        server.host.say(Kind.ATTACH, {"accepted": True, "state": "{}"}, number)
        server.relay.host_left(server.host.port, 0.0)
        for word in ("one", "two"):
            await client.write_message(word)
        await client.write_message(b"three", binary=True)
        server.host.offer()
        await server.host.expect(Kind.SERVED)
        again, opened = await server.host.expect_open()
        assert (again, opened["resumed"], opened["id"]) == (number, True, "me")
        assert opened["attached"] == {"accepted": True, "state": "{}"}
        assert await server.host.expect(Kind.TEXT) == (number, b"one")
        assert await server.host.expect(Kind.TEXT) == (number, b"two")
        assert await server.host.expect(Kind.BINARY) == (number, b"three")


# -- the gate ----------------------------------------------------------------------------------


async def test_gate_lets_in():
    """A class with a gate is asked before the upgrade and may put another request in the place."""
    async with plain_server() as server:
        await server.host.serve(gate=True)
        opening = asyncio.ensure_future(server.ws("/agents/chat-room/lobby?_pk=me&x=1"))
        number, about, body = await server.host.expect_request()
        assert about["gate"] is True
        assert body == b""
        assert about["request"]["query"] == {"_pk": ["me"], "x": ["1"]}
        assert not opening.done()
        replaced = {**about["request"], "url": "http://elsewhere/x?y=2", "query": {"y": ["2"]}}
        server.host.let_in(number, replaced)
        await opening
        _, opened = await server.host.expect_open()
        assert opened["request"] == replaced
        assert opened["id"] == "me"


async def test_gate_passes_what_it_was_asked():
    """Passing without a request lets the client in with its own."""
    async with plain_server() as server:
        await server.host.serve(gate=True)
        opening = asyncio.ensure_future(server.ws("/agents/chat-room/lobby?x=1"))
        number, about, _ = await server.host.expect_request()
        server.host.let_in(number)
        await opening
        assert (await server.host.expect_open())[1]["request"] == about["request"]


@pytest.mark.parametrize("status", [302, 401, 403, 418])
async def test_gate_refuses(status):
    """The response of a gate is what the client gets instead of a 101; nothing is opened."""
    async with plain_server() as server:
        await server.host.serve(gate=True)
        opening = asyncio.ensure_future(
            server.http(
                "/agents/chat-room/lobby",
                headers={
                    "Upgrade": "websocket",
                    "Connection": "Upgrade",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                },
            )
        )
        number, _, _ = await server.host.expect_request()
        headers = [("Content-Type", "text/plain"), ("Location", "/elsewhere")]
        server.host.respond(number, b"not you", status, headers)
        response = await opening
        assert (response.code, response.body) == (status, b"not you")
        assert response.headers["Location"] == "/elsewhere"
        assert not server.relay.records


async def test_client_gives_up_at_the_gate(eventually):
    """When the client leaves while the gate is asked, the host is told not to bother."""
    async with plain_server() as server:
        await server.host.serve(gate=True)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET /agents/chat-room/lobby HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        number, _, _ = await server.host.expect_request()
        writer.close()
        assert await server.host.expect(Kind.ABANDON) == (number, b"")
        assert not server.relay.requests
        assert not server.relay.records


async def test_foreign_page_does_not_reach_the_gate():
    """The origin is checked before the agent is asked anything."""
    async with plain_server() as server:
        await server.host.serve(gate=True)
        code, _ = await refusal(server, "/agents/chat-room/lobby", Origin="https://evil.example")
        assert code == 403
        assert server.host.is_quiet()


# -- HTTP --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_reaches_the_agent(method):
    """Method, tail, query, headers and body arrive; status, headers and body come back."""
    async with plain_server() as server:
        await server.host.serve()
        body = b"\x00body\xff" if method in ("POST", "PUT", "PATCH") else None
        answer = asyncio.ensure_future(
            server.http("/agents/chat-room/lobby/a/b?x=1", method, body, {"X-Mine": "yes"})
        )
        number, about, got = await server.host.expect_request()
        assert "gate" not in about
        assert got == (body or b"")
        request = about["request"]
        assert (request["method"], request["path"]) == (method, "/a/b")
        assert request["query"] == {"x": ["1"]}
        assert ["X-Mine", "yes"] in request["headers"]
        server.host.respond(number, b"made", 201, [("Content-Type", "text/x-mine"), ("X-A", "b")])
        response = await answer
        assert response.code == 201
        assert response.body == (b"" if method == "HEAD" else b"made")
        assert response.headers["Content-Type"] == "text/x-mine"
        assert response.headers["X-A"] == "b"
        assert response.headers["Content-Length"] == "4"
        assert "Etag" not in response.headers


async def test_headers_of_the_transport_are_ours():
    """An agent sets its own headers, repeated cookies too, but none that frame the answer."""
    async with plain_server() as server:
        await server.host.serve()
        answer = asyncio.ensure_future(server.http("/agents/chat-room/lobby"))
        number, _, _ = await server.host.expect_request()
        server.host.respond(
            number,
            b"four",
            headers=[
                ("Content-Length", "99"),
                ("Transfer-Encoding", "chunked"),
                ("Connection", "upgrade"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("Set-Cookie", "_xsrf=stolen"),
                ("Set-Cookie", "username-localhost-8888=evil; Path=/"),
                ("Vary", "X"),
                ("Vary", "Y"),
            ],
        )
        response = await answer
        assert response.body == b"four"
        assert response.headers["Content-Length"] == "4"
        assert response.headers.get_list("Set-Cookie") == ["a=1", "b=2"]
        assert response.headers.get_list("Vary") == ["X", "Y"]
        assert "Content-Type" not in response.headers


@pytest.mark.parametrize("status", [204, 304])
async def test_bodyless_answers(status):
    """204 and 304 go out without a body."""
    async with plain_server() as server:
        await server.host.serve()
        answer = asyncio.ensure_future(server.http("/agents/chat-room/lobby"))
        number, _, _ = await server.host.expect_request()
        server.host.respond(number, b"", status)
        response = await answer
        assert (response.code, response.body) == (status, b"")


async def test_body_limit():
    """A body at the limit passes; one past it gets 413 unread, announced or chunked."""
    async with plain_server(max_http_body_bytes=100) as server:
        await server.host.serve()
        answer = asyncio.ensure_future(server.http("/agents/chat-room/x", "POST", b"x" * 100))
        number, _, body = await server.host.expect_request()
        assert len(body) == 100
        server.host.respond(number)
        assert (await answer).code == 200

        too_long = await server.http("/agents/chat-room/x", "POST", b"x" * 101)
        assert too_long.code == 413
        assert "100 bytes" in json.loads(too_long.body)["error"]
        assert (await raw_http(server, CHUNKED)).startswith(b"HTTP/1.1 413")
        assert server.host.is_quiet()


CHUNKED = (
    b"POST /agents/chat-room/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"32\r\n" + b"x" * 50 + b"\r\n33\r\n" + b"x" * 51 + b"\r\n0\r\n\r\n"
)  # fmt: skip


async def raw_http(server, request):
    """What the server answers to these bytes, as far as its headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
    finally:
        writer.close()


async def test_client_gives_up_on_an_answer():
    """When the client leaves, the host is told, and a late answer is dropped."""
    async with plain_server() as server:
        await server.host.serve()
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /agents/chat-room/lobby HTTP/1.1\r\nHost: x\r\n\r\n")
        number, _, _ = await server.host.expect_request()
        writer.close()
        assert await server.host.expect(Kind.ABANDON) == (number, b"")
        server.host.respond(number, b"too late")
        assert not server.relay.requests


@pytest.mark.parametrize(("is_away", "status"), [(True, 503), (False, 504)])
async def test_agent_that_does_not_answer(is_away, status, eventually):
    """A request times out with 503 when its agent was away and with 504 when it was asked."""
    async with plain_server(request_timeout_s=10.0) as server:
        await server.host.serve()
        if is_away:
            server.relay.host_left(server.host.port, server.door.clock())
        answer = asyncio.ensure_future(server.http("/agents/chat-room/lobby"))
        await eventually(lambda: server.relay.requests)
        server.relay.tick(server.door.clock() + 11.0)
        response = await answer
        assert response.code == status
        assert "error" in json.loads(response.body)
        assert response.headers.get("Retry-After") == ("5" if is_away else None)


async def test_failures_of_the_relay_are_json():
    """What the relay itself answers says why, and when to come again."""
    async with plain_server(max_requests=1) as server:
        await server.host.serve()
        first = asyncio.ensure_future(server.http("/agents/chat-room/lobby"))
        number, _, _ = await server.host.expect_request()
        second = await server.http("/agents/chat-room/lobby")
        assert (second.code, second.headers["Retry-After"]) == (503, "5")
        assert json.loads(second.body) == {"error": "Too many requests are under way"}
        server.host.respond(number)
        assert (await first).code == 200


async def test_malformed_answer_is_an_error(caplog):
    """An answer that cannot be sent becomes a 500 without details, and the log says where."""
    async with plain_server() as server:
        await server.host.serve()
        answer = asyncio.ensure_future(server.http("/agents/chat-room/lobby?token=private"))
        number, _, _ = await server.host.expect_request()
        server.host.respond(number, headers=[("X-Bad", "two\nlines")])
        response = await answer
        assert response.code == 500
        assert json.loads(response.body) == {"error": "Internal Server Error"}
        assert "GET /agents/chat-room/lobby" in caplog.text
        assert "private" not in caplog.text


# -- CORS --------------------------------------------------------------------------------------

ORIGIN = "https://x.example"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
EXACT = {"Access-Control-Allow-Origin": ORIGIN, "Access-Control-Allow-Credentials": "true"}


def cors_of(response):
    """The CORS headers of a response."""
    return {
        name: value
        for name, value in response.headers.get_all()
        if name.startswith("Access-Control-")
    }


@pytest.mark.parametrize(
    ("cors", "headers"),
    [
        (
            True,
            {
                "Access-Control-Allow-Origin": "*",
                "Access-Control-Allow-Methods": "GET, POST, HEAD, OPTIONS",
                "Access-Control-Allow-Headers": "*",
                "Access-Control-Max-Age": "86400",
            },
        ),
        (EXACT, EXACT),
    ],
)
async def test_cors_on(cors, headers):
    """With CORS on, preflights are answered here, and every answer carries the headers."""
    async with plain_server() as server:
        await server.host.serve(cors=cors)
        preflight = await server.http("/agents/chat-room/x", "OPTIONS", None, PREFLIGHT)
        assert (preflight.code, preflight.body, cors_of(preflight)) == (200, b"", headers)
        assert server.host.is_quiet()
        for status in (200, 404, 500):
            answer = asyncio.ensure_future(
                server.http("/agents/chat-room/x", "POST", b"", {"Origin": ORIGIN})
            )
            number, _, _ = await server.host.expect_request()
            server.host.respond(number, b"", status)
            assert cors_of(await answer) == headers


async def test_cors_never_on_an_upgrade():
    """A 101 carries no CORS headers, and CORS does not open the WebSocket to foreign pages."""
    async with plain_server() as server:
        await server.host.serve(cors=True)
        client = await server.ws("/agents/chat-room/x")
        assert "Access-Control-Allow-Origin" not in client.headers
        assert (await refusal(server, "/agents/chat-room/x", Origin=ORIGIN))[0] == 403


async def test_cors_off_by_default():
    """Without CORS a preflight and a request of a foreign page are refused before the agent."""
    async with plain_server() as server:
        await server.host.serve()
        preflight = await server.http("/agents/chat-room/x", "OPTIONS", None, PREFLIGHT)
        assert (preflight.code, cors_of(preflight)) == (403, {})
        foreign = await server.http("/agents/chat-room/x", headers={"Origin": ORIGIN})
        assert (foreign.code, cors_of(foreign)) == (403, {})
        assert server.host.is_quiet()


async def test_cors_of_an_unknown_agent():
    """A preflight for what is not served gets the 404 and no headers."""
    async with plain_server() as server:
        await server.host.serve(cors=True)
        preflight = await server.http("/agents/nobody/x", "OPTIONS", None, PREFLIGHT)
        assert (preflight.code, cors_of(preflight)) == (404, {})
        assert b"chat-room" not in preflight.body  # it is asked without credentials


# -- the token of a server without Jupyter -------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "headers", "enters"),
    [
        ("", {}, False),
        ("?token=wrong", {}, False),
        ("?token=", {}, False),
        ("?token=right-token", {}, True),
        ("?token=right-token", {"Origin": ORIGIN}, True),
        ("", {"Authorization": "Bearer right-token"}, True),
        ("", {"Authorization": "token right-token"}, True),
        ("", {"Authorization": "Basic right-token"}, False),
        ("", {"Authorization": "Bearer right-token-and-more"}, False),
        ("?token=right-token&token=wrong", {}, True),
    ],
)
async def test_token(query, headers, enters):
    """The token opens the door by query or header, for any origin; nothing else does."""
    async with plain_server(token="right-token") as server:
        await server.host.serve()
        path = f"/agents/chat-room/lobby{query}"
        if not enters:
            assert (await refusal(server, path, **headers))[0] == 403
            assert (await server.http(path, headers=headers)).code == 403
            assert server.host.is_quiet()
            return
        await server.ws(path, **headers)
        _, opened = await server.host.expect_open()
        assert "right-token" not in json.dumps(opened)


async def test_token_is_needed_before_the_body():
    """A stranger's body is not read: the refusal comes while it is still to be sent."""
    async with plain_server(token="right-token") as server:
        await server.host.serve()
        announced = b"POST /agents/chat-room/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        assert (await raw_http(server, announced)).startswith(b"HTTP/1.1 403")


async def test_token_does_not_stop_a_preflight():
    """A preflight comes without credentials: the class's CORS alone answers it."""
    async with plain_server(token="right-token") as server:
        await server.host.serve(cors=True)
        preflight = await server.http("/agents/chat-room/x", "OPTIONS", None, PREFLIGHT)
        assert preflight.code == 200


async def test_logs_hold_no_token(caplog):
    """Neither the access log nor a refusal's log line shows the query."""
    caplog.set_level(0)
    async with plain_server(token="right-token") as server:
        await server.host.serve()
        await server.ws("/agents/chat-room/lobby?token=right-token")
        await server.http("/agents/nobody/x?token=right-token")
        await server.http("/agents/chat-room/x?token=not-right")
    assert "/agents/nobody/x" in caplog.text
    assert "right" not in caplog.text


# -- pages and files ---------------------------------------------------------------------------

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_console_page_where_the_agent_has_no_answer():
    """A browser that looks at an agent without pages gets the console, escaped."""
    async with plain_server(base_url="/user/x/") as server:
        await server.host.serve()
        answer = asyncio.ensure_future(
            server.http("/user/x/agents/ChatRoom/%22%3Cscript%3E", headers=BROWSER)
        )
        number, _, _ = await server.host.expect_request()
        server.host.respond(number, b"Not implemented", 404, unanswered=True)
        response = await answer
        page = response.body.decode()
        assert response.code == 200
        assert response.headers["Content-Type"] == "text/html; charset=UTF-8"
        assert "&quot;&lt;script&gt;" in page
        assert '"<script>' not in page
        assert "chat-room" in page
        assert "/user/x/" in page
        assert "{{" not in page


@pytest.mark.parametrize(
    ("path", "method", "headers", "about"),
    [
        ("/agents/chat-room/x", "GET", {}, {"unanswered": True}),
        ("/agents/chat-room/x/tail", "GET", BROWSER, {"unanswered": True}),
        ("/agents/chat-room/x", "POST", BROWSER, {"unanswered": True}),
        ("/agents/chat-room/x", "GET", BROWSER, {}),
    ],
)
async def test_console_page_for_nothing_else(path, method, headers, about):
    """Programs, sub-paths, other methods and an agent's own 404 get what the agent said."""
    async with plain_server() as server:
        await server.host.serve()
        body = b"" if method == "POST" else None
        answer = asyncio.ensure_future(server.http(path, method, body, headers))
        number, _, _ = await server.host.expect_request()
        server.host.respond(number, b"Not implemented", 404, **about)
        response = await answer
        assert (response.code, response.body) == (404, b"Not implemented")


async def test_modules_are_public():
    """Modules need no token, may be imported anywhere, and are rechecked each time."""
    async with plain_server(base_url="/user/x/", token="right-token") as server:
        response = await server.http("/user/x/agents-static/agent-client.js")
        assert response.code == 200
        assert response.headers["Content-Type"].startswith("text/javascript")
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Cache-Control"] == "no-cache"
        again = await server.http(
            "/user/x/agents-static/agent-client.js",
            headers={"If-None-Match": response.headers["Etag"]},
        )
        assert again.code == 304
        fixed = await server.http("/user/x/agents-static/agent-client.js?v=1")
        assert "max-age" in fixed.headers["Cache-Control"]


@pytest.mark.parametrize(
    "path", ["agent-console.html", "nothing.js", "../errors.py", "..%2Ferrors.py", ""]
)
async def test_nothing_else_is_a_file(path):
    """The console's template and whatever lies outside the folder are not to be had."""
    async with plain_server() as server:
        assert (await server.http(f"/agents-static/{path}")).code in (403, 404)


def test_no_method_of_tornado_is_hidden_by_chance():
    """A handler's names mean what Tornado means by them: whoever reuses one says so here."""
    meant = {
        "_request_summary", "_stream_request_body", "check_origin", "compute_etag",
        "data_received", "delete", "finish", "get", "get_websocket_protocol", "head",
        "initialize", "log_exception", "on_connection_close",
        "open", "options", "patch", "post", "prepare", "put", "write_error",
    }  # fmt: skip
    classes = [cls for cls in AgentHandler.__mro__ if cls.__module__.startswith("jupyter_agents")]
    ours = {name for cls in classes for name in vars(cls) if not name.startswith("__")}
    assert ours & set(dir(WebSocketHandler)) == meant
