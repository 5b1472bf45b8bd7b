"""Who may enter, on plain Tornado: by token, link and ticket; and what a guest does not get."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import pytest
from tornado.httpclient import HTTPClientError

from jupyter_agents.access.credentials import COOKIE
from jupyter_agents.link.frames import Kind
from tests.server.plain_server import plain_server

TOKEN = "the-token-of-this-server"
ROOM = "/agents/chat-room/lobby"
TICKET = "/api/agents/chat-room/lobby/ticket"
FOREIGN = {"Origin": "https://evil.example"}
PAGE = {"Accept": "text/html"}


@asynccontextmanager
async def guarded(access="link", token=TOKEN, **limits):
    """A server with a token that serves ``chat-room``."""
    async with plain_server(token=token, allow_public=True, **limits) as server:
        await server.host.serve(access=access)
        yield server


def share(server, **options):
    """A link's id and secret."""
    shared, secret = server.door.gate.share("chat-room", "lobby", 60.0, **options)
    return shared.capability.id, secret


async def status(server, path, headers=None):
    """What opening a WebSocket comes to: 101, or the refusal."""
    try:
        client = await server.ws(path, **(headers or {}))
    except HTTPClientError as error:
        return error.code
    await server.host.expect_open()
    client.close()
    await server.host.expect_closed()
    return 101


async def answered(server, path, method="GET", body=None, headers=None):
    """An HTTP request that its agent answers."""
    asking = asyncio.ensure_future(server.http(path, method, body, headers))
    number, about, _ = await server.host.expect_request()
    server.host.respond(number, b"<p>hello")
    return await asking, about["request"]


async def test_a_link_opens_socket_and_http():
    """Without the token, as a guest, and the agent does not learn the link."""
    async with guarded() as server:
        link_id, secret = share(server)
        client = await server.ws(f"{ROOM}?x=1&share={secret}")
        _, opened = await server.host.expect_open()
        assert opened["readonly"] is False
        request = opened["request"]
        assert request["user"]["share"] == link_id
        assert request["query"] == {"x": ["1"]}
        assert secret not in json.dumps(opened)
        client.close()
        await server.host.expect_closed()
        for headers in ({}, {"Authorization": f"Bearer {secret}"}):
            path = ROOM if headers else f"{ROOM}/tail?share={secret}"
            response, request = await answered(server, path, "POST", b"x", headers)
            assert response.code == 200
            assert request["user"]["share"] == link_id
            assert secret not in json.dumps(request)


async def test_every_spelling_of_the_class_is_the_same_agent():
    """A link is to the agent, not to a spelling of its address."""
    async with plain_server(token=TOKEN) as server:
        await server.host.serve("ChatRoom", "chat-room", access="link")
        _, secret = share(server)
        assert await status(server, f"/agents/ChatRoom/lobby?share={secret}") == 101
        assert await status(server, f"/agents//chat-room//l%6Fbby?share={secret}") == 101


@pytest.mark.parametrize("access", ["jupyter", "link", "public"])
async def test_who_opens_a_socket(access):
    """What each kind of class lets in."""
    async with guarded(access) as server:
        _, secret = share(server)
        gone, revoked = share(server)
        server.door.gate.revoke(gone)
        office = server.door.gate.share("chat-room", "office", 60.0)[1]
        outcome = {
            "nothing": await status(server, ROOM),
            "token": await status(server, f"{ROOM}?token={TOKEN}"),
            "link": await status(server, f"{ROOM}?share={secret}"),
            "revoked link": await status(server, f"{ROOM}?share={revoked}"),
            "another's link": await status(server, f"{ROOM}?share={office}"),
            "token, bad link": await status(server, f"{ROOM}?share={revoked}&token={TOKEN}"),
            "link, foreign page": await status(server, f"{ROOM}?share={secret}", FOREIGN),
            "nothing, foreign page": await status(server, ROOM, FOREIGN),
        }
        linked, public = (access != "jupyter"), access == "public"
        assert outcome == {
            "nothing": 101 if public else 403,
            "token": 101,
            "link": 101 if linked else 403,
            "revoked link": 403,
            "another's link": 403,
            "token, bad link": 403,
            "link, foreign page": 403,
            "nothing, foreign page": 101 if public else 403,
        }
        assert server.host.is_quiet()


async def test_a_public_class_needs_the_servers_consent():
    """Where the configuration does not allow it the class is refused with what to do."""
    async with plain_server() as server:
        server.host.offer(access="public")
        _, payload = await server.host.expect(Kind.SERVED)
        assert "allow_public" in json.loads(payload)["error"]
        server.host.offer(access="friends")
        _, payload = await server.host.expect(Kind.SERVED)
        assert "not 'friends'" in json.loads(payload)["error"]


async def test_a_read_only_link_sends_nothing_over_http():
    """It asks with GET; the flag goes to the host with the connection."""
    async with guarded() as server:
        _, secret = share(server, readonly=True)
        response, request = await answered(server, f"{ROOM}?share={secret}")
        assert response.code == 200
        assert request["user"]["readonly"] is True
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            response = await server.http(f"{ROOM}?share={secret}", method, b"x")
            assert response.code == 403
        await server.ws(f"{ROOM}?share={secret}")
        _, opened = await server.host.expect_open()
        assert opened["readonly"] is True


async def test_connections_are_counted():
    """One more than the link allows gets 429 before the upgrade; who leaves makes room."""
    async with guarded() as server:
        _, secret = share(server, max_connections=1)
        first = await server.ws(f"{ROOM}?share={secret}")
        await server.host.expect_open()
        assert await status(server, f"{ROOM}?share={secret}") == 429
        first.close()
        await server.host.expect_closed()
        assert await status(server, f"{ROOM}?share={secret}") == 101


async def test_two_who_come_at_once_do_not_share_one_place():
    """While the agent is asked about both, there is room; the later one is sent away."""
    async with guarded() as server:
        server.host.offer(access="link", gate=True)
        await server.host.expect(Kind.SERVED)
        _, secret = share(server, max_connections=1)
        opening = [asyncio.ensure_future(server.ws(f"{ROOM}?share={secret}")) for _ in range(2)]
        numbers = [(await server.host.expect_request())[0] for _ in opening]
        for number in numbers:
            server.host.let_in(number)
        clients = [await one for one in opening]
        await server.host.expect_open()
        ends = [asyncio.ensure_future(client.read_message()) for client in clients]
        done, _ = await asyncio.wait(ends, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        [end] = done
        assert end.result() is None
        assert clients[ends.index(end)].close_code == 1013
        assert server.host.is_quiet()


async def test_revoking_closes_what_came_in():
    """With a final code, so that clients of the SDK do not come back."""
    async with guarded() as server:
        link_id, secret = share(server)
        client = await server.ws(f"{ROOM}?share={secret}")
        await server.host.expect_open()
        server.door.gate.revoke(link_id)
        assert await client.read_message() is None
        assert (client.close_code, client.close_reason) == (4001, "This link was revoked")
        assert (await server.host.expect_closed())[1] == 4001


async def test_the_clock_closes_what_came_in():
    """A link that expires takes its visitors along with the server's next tick."""
    async with guarded() as server:
        now = server.door.clock()
        server.door.gate._clock = lambda: now
        _, secret = share(server)
        client = await server.ws(f"{ROOM}?share={secret}")
        await server.host.expect_open()
        server.door.gate._clock = lambda: now + 61
        server.door.tick()
        assert await client.read_message() is None
        assert (client.close_code, client.close_reason) == (4001, "This link has expired")


async def test_a_link_opens_nothing_but_its_instance():
    """No other instance, no other agent, and not even the list of what there is."""
    async with guarded() as server:
        await server.host.serve("Other", access="link")
        _, secret = share(server)
        for path in ("/agents/chat-room/office", "/agents/other/lobby", "/agents/nobody/lobby"):
            response = await server.http(f"{path}?share={secret}")
            assert response.code == 403
            assert b"other" not in response.body
        server.host.say(Kind.WITHDRAW, {"agent": "chat-room"})
        response = await server.http(f"{ROOM}?share={secret}")
        assert response.code == 404
        assert json.loads(response.body) == {"error": "This agent is not here now"}
        assert server.host.is_quiet()


# -- pages -------------------------------------------------------------------------------------


async def test_a_page_can_be_loaded_again():
    """A page that came by a link sets a cookie for its own path: a reload needs no link."""
    async with guarded() as server:
        link_id, secret = share(server)
        response, _ = await answered(server, f"{ROOM}?share={secret}", headers=PAGE)
        cookie = response.headers["Set-Cookie"]
        assert cookie.startswith(f"{COOKIE}={secret};")
        for word in ("HttpOnly", f"Path={ROOM};", "SameSite=Strict", "expires="):
            assert word in cookie
        assert response.headers["Referrer-Policy"] == "no-referrer"
        again = {"Cookie": f"{COOKIE}={secret}; mine=1"}
        response, request = await answered(server, ROOM, headers={**PAGE, **again})
        assert request["user"]["share"] == link_id
        assert request["cookies"] == {"mine": "1"}
        assert secret not in json.dumps(request)
        assert await status(server, ROOM, again) == 101
        assert await status(server, ROOM, {**again, **FOREIGN}) == 403
        server.door.gate.revoke(link_id)
        assert await status(server, ROOM, again) == 403


async def test_an_address_adds_nothing_to_the_cookie():
    """A semicolon in the path begins no attribute of the cookie, and is no error."""
    async with guarded() as server:
        _, secret = share(server)
        path = f"{ROOM}/x//y;Domain=example.org?share={secret}"  # a tail with a doubled slash
        response, _ = await answered(server, path, headers=PAGE)
        assert response.code == 200
        assert "Domain=example.org" not in response.headers["Set-Cookie"].split(";")


async def test_a_cookie_is_worth_nothing_to_other_pages():
    """Not even where the class answers other origins: what these show, they have to have."""
    async with guarded() as server:
        server.host.offer(access="link", cors=True)
        await server.host.expect(Kind.SERVED)
        _, secret = share(server)
        by_cookie = {"Cookie": f"{COOKIE}={secret}", **FOREIGN}
        assert (await server.http(ROOM, "POST", b"x", by_cookie)).code == 403
        assert server.host.is_quiet()
        response, _ = await answered(server, f"{ROOM}?share={secret}", headers=FOREIGN)
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_no_cookie_for_who_needs_none():
    """A script by a link, and a page that showed the token, get no cookie of ours."""
    async with guarded() as server:
        _, secret = share(server)
        response, _ = await answered(server, f"{ROOM}?share={secret}")
        assert "Set-Cookie" not in response.headers
        response, _ = await answered(server, f"{ROOM}?token={TOKEN}", headers=PAGE)
        assert "Set-Cookie" not in response.headers


async def test_an_agent_cannot_set_the_links_cookie():
    """No agent signs anybody in, by a link neither."""
    async with guarded() as server:
        asking = asyncio.ensure_future(server.http(f"{ROOM}?token={TOKEN}"))
        number, _, _ = await server.host.expect_request()
        server.host.respond(number, headers=[["Set-Cookie", f"{COOKIE}=x"]])
        assert "Set-Cookie" not in (await asking).headers


# -- tickets -----------------------------------------------------------------------------------


async def take(server, path=TICKET, **headers):
    """A ticket, by a credential."""
    response = await server.http(path, "POST", b"", headers)
    assert response.code == 200, response.body
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    answer = json.loads(response.body)
    assert answer["expires_in"] == 30
    return answer["ticket"]


@pytest.mark.parametrize("access", ["jupyter", "link"])
async def test_a_ticket_lets_a_foreign_page_in_once(access):
    """By the token, from another origin: one socket, at this instance, and no second."""
    async with guarded(access) as server:
        by_token = {"Authorization": f"token {TOKEN}"}
        ticket = await take(server, **by_token, **FOREIGN)
        assert await status(server, f"{ROOM}?ticket={ticket}", FOREIGN) == 101
        assert await status(server, f"{ROOM}?ticket={ticket}", FOREIGN) == 403
        ticket = await take(server, **by_token)
        assert await status(server, f"/agents/chat-room/office?ticket={ticket}") == 403


async def test_a_guest_takes_a_ticket():
    """By the link, as bearer or in the query; what comes in by it is the link's guest."""
    async with guarded() as server:
        link_id, secret = share(server, max_connections=1)
        ticket = await take(server, f"{TICKET}?share={secret}", **FOREIGN)
        client = await server.ws(f"{ROOM}?ticket={ticket}", **FOREIGN)
        _, opened = await server.host.expect_open()
        assert opened["request"]["user"]["share"] == link_id
        assert ticket not in json.dumps(opened)
        second = await take(server, Authorization=f"Bearer {secret}")
        assert await status(server, f"{ROOM}?ticket={second}") == 429
        server.door.gate.revoke(link_id)
        assert await client.read_message() is None
        assert client.close_code == 4001


async def test_who_gets_no_ticket():
    """Strangers, bearers of links to other instances, and tickets themselves."""
    async with guarded() as server:
        _, secret = share(server)
        office = server.door.gate.share("chat-room", "office", 60.0)[1]
        ticket = await take(server, f"{TICKET}?share={secret}")
        for query in ("", "?token=wrong", f"?share={office}", f"?ticket={ticket}"):
            response = await server.http(TICKET + query, "POST", b"")
            assert response.code == 403, query
            assert set(json.loads(response.body)) == {"error"}
        by_cookie = {"Cookie": f"{COOKIE}={secret}", **FOREIGN}
        assert (await server.http(TICKET, "POST", b"", by_cookie)).code == 403
        right = {"Authorization": f"token {TOKEN}"}
        path = "/api/agents/nobody/x/ticket"
        assert (await server.http(path, "POST", b"", right)).code == 404


async def test_a_reader_takes_a_ticket_that_reads():
    """A page of another origin needs one to look, too; what comes by it stays read-only."""
    async with guarded() as server:
        _, secret = share(server, readonly=True)
        ticket = await take(server, f"{TICKET}?share={secret}")
        await server.ws(f"{ROOM}?ticket={ticket}")
        _, opened = await server.host.expect_open()
        assert opened["readonly"] is True


async def test_a_browser_may_ask_for_a_ticket_from_anywhere():
    """The preflight is answered without credentials; cookies are not asked for."""
    async with guarded() as server:
        preflight = {**FOREIGN, "Access-Control-Request-Method": "POST"}
        response = await server.http(TICKET, "OPTIONS", headers=preflight)
        assert response.code == 204
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "authorization" in response.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers


async def test_secrets_stay_out_of_logs(caplog):
    """Links and tickets, good or bad, are in no log line at any level, nor in an error's body."""
    caplog.set_level(logging.DEBUG)
    async with guarded() as server:
        link_id, secret = share(server)
        ticket = await take(server, f"{TICKET}?share={secret}")
        await answered(server, f"{ROOM}?share={secret}", headers=PAGE)
        bad = f"{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}"
        for query in (f"share={bad}", f"share={secret}&token=x", f"ticket={ticket}&y=1"):
            await status(server, f"/agents/chat-room/office?{query}")
        server.door.gate.revoke(link_id)
        bodies = [(await server.http(f"{ROOM}?share={s}")).body for s in (secret, bad)]
    told = caplog.text + b"".join(bodies).decode()
    for word in (secret, bad, ticket, secret.split(".")[2]):
        assert word not in told
