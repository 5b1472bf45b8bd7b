"""Jupyter's sign-in before the door: who gets in, and what the agent learns of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from urllib.parse import quote

import pytest
from prometheus_client import REGISTRY

from jupyter_agents.link.frames import Kind
from tests.server.authorizer import HubLike
from tests.server.jupyter import *  # noqa: F403
from tests.server.jupyter import TOKEN

FOREIGN = {"Origin": "https://evil.example"}
RIGHT = {"Authorization": f"token {TOKEN}"}
WRONG = {"Authorization": "token wrong"}
ROOM = "agents/chat-room/lobby"


async def test_token_in_the_header(visitor):
    """A script with the token gets in, and messages flow both ways over the real link."""
    async with visitor.host() as host:
        client = await visitor.ws(ROOM, RIGHT)
        number, opened = await host.expect_open()
        assert opened["request"]["user"]["username"]
        await client.write_message("hello")
        assert await host.expect(Kind.TEXT) == (number, b"hello")
        host.text(number, "back")
        assert await client.read_message() == "back"
        client.close(4000, "done")
        assert await host.expect_closed() == (number, 4000, True, "done")


# -- who gets in -------------------------------------------------------------------------------


async def credentials(visitor):
    """Each kind of visitor by a name: query and headers."""
    cookie, page = await visitor.sign_in(), await visitor.page()
    own = {"Origin": visitor.origin}
    return {
        "nothing": ("", {}),
        "wrong token": ("?token=wrong", {}),
        "wrong header": ("", WRONG),
        "token": (f"?token={TOKEN}", {}),
        "token, foreign page": (f"?token={TOKEN}", FOREIGN),
        "header": ("", RIGHT),
        "header, foreign page": ("", {**RIGHT, **FOREIGN}),
        "bearer": ("", {"Authorization": f"Bearer {TOKEN}"}),
        "cookie": ("", cookie),
        "cookie, own page": ("", {**cookie, **own}),
        "cookie, foreign page": ("", {**cookie, **FOREIGN}),
        "cookie, wrong token": ("?token=wrong", cookie),
        "page": ("", {**page, **own}),
        "page, foreign": ("", {**page, **FOREIGN}),
        "forged cookie": ("", {"Cookie": "username-127-0-0-1=2|1:0|evil; _xsrf=x"}),
    }


SOCKET = {
    "nothing": 403,
    "wrong token": 403,
    "wrong header": 403,
    "token": 101,
    "token, foreign page": 101,
    "header": 101,
    "header, foreign page": 101,
    "bearer": 101,
    "cookie": 101,
    "cookie, own page": 101,
    "cookie, foreign page": 403,
    "cookie, wrong token": 101,
    "page": 101,
    "page, foreign": 403,
    "forged cookie": 403,
}
# Reading: as the socket, 404 for an unknown tail's agent aside.
READS = {name: 200 if status == 101 else status for name, status in SOCKET.items()}
# Writing by cookie needs the XSRF word, from Jupyter's own origin.
WRITES = {
    **READS,
    "cookie": 403,
    "cookie, own page": 403,
    "cookie, foreign page": 404,
    "cookie, wrong token": 403,
    "page, foreign": 404,
    "nothing": 403,
    "forged cookie": 403,
}


async def test_who_opens_a_socket(visitor):
    """The matrix of credentials, for WebSockets: refused before the upgrade, never redirected."""
    async with visitor.host() as host:
        for name, (query, headers) in (await credentials(visitor)).items():
            got = await visitor.ws(ROOM + query, headers)
            entered = not isinstance(got, int)
            assert (101 if entered else got) == SOCKET[name], name
            if entered:
                await host.expect_open()
                got.close()
                await host.expect_closed()
            assert host.is_quiet(), name


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_who_asks_over_http(visitor, method):
    """The matrix of credentials for every HTTP method; only who may reaches the agent."""
    expected = READS if method in ("GET", "HEAD", "OPTIONS") else WRITES
    body = b"x" if method in ("POST", "PUT", "PATCH") else None
    async with visitor.host() as host:
        for name, (query, headers) in (await credentials(visitor)).items():
            asking = asyncio.ensure_future(visitor.http(ROOM + query, method, body, headers))
            if expected[name] == 200:
                number, _, _ = await host.expect_request()
                host.respond(number)
            response = await asking
            assert response.code == expected[name], (name, method)
            assert host.is_quiet(), name


@pytest.mark.parametrize("path", ["agents/nobody/x", "agents/chat-room", ROOM])
async def test_strangers_learn_nothing(visitor, path):
    """Without credentials every agent's address looks the same, whether it is served or not."""
    async with visitor.host():
        assert await visitor.ws(path) == 403
        response = await visitor.http(path)
        assert response.code == 403
        assert b"chat" not in response.body


async def test_browser_is_sent_to_the_login_page(visitor):
    """A person who is not signed in lands on Jupyter's login page; nobody else does."""
    page = {"Accept": "text/html"}
    response = await visitor.http(ROOM, headers=page)
    assert response.code == 302
    location = response.headers["Location"]
    assert location.startswith("/a%40b/login?next=")
    assert "chat-room" in location
    assert (await visitor.http(ROOM, "POST", b"", page)).code == 403
    upgrade = {**page, "Upgrade": "websocket", "Connection": "Upgrade"}
    assert (await visitor.http(ROOM, headers=upgrade)).code == 403


async def test_stranger_cannot_upload(visitor, agents):
    """The refusal comes before the body, however long that is announced to be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", visitor.port)
    writer.write(
        f"POST /a%40b/{ROOM} HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\n"
        "Content-Length: 1000000\r\n\r\n".encode()
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 403")
    writer.close()
    await writer.wait_closed()


class TestWithoutSignIn:
    """A server that lets everybody in: Jupyter's own rules of origin are what is left."""

    @pytest.fixture
    def server_config(self):
        # pytest-jupyter makes a token unless this deprecated trait stands there, too.
        return {"IdentityProvider": {"token": ""}, "ServerApp": {"token": ""}}

    async def test_everybody_but_foreign_pages(self, visitor):
        """Anyone but a foreign page opens a socket, and ``?token=`` is the agent's own."""
        async with visitor.host() as host:
            client = await visitor.ws(f"{ROOM}?token=abc")
            _, opened = await host.expect_open()
            assert opened["request"]["query"] == {"token": ["abc"]}
            client.close()
            assert await visitor.ws(ROOM, FOREIGN) == 403


class TestOpenToTheUnauthenticated:
    """``allow_unauthenticated_access``: Jupyter lets everyone by, our handlers do not."""

    @pytest.fixture
    def server_config(self):
        return {"ServerApp": {"allow_unauthenticated_access": True}}

    async def test_agents_stay_closed(self, visitor):
        """Agents run code: they need a sign-in whatever the server allows elsewhere."""
        async with visitor.host() as host:
            assert await visitor.ws(ROOM) == 403
            assert (await visitor.http(ROOM)).code == 403
            assert (await visitor.http(ROOM, headers={"Accept": "text/html"})).code == 302
            assert (await visitor.http(ROOM, "OPTIONS")).code == 403
            assert host.is_quiet()


class TestAllowedOrigin:
    """``ServerApp.allow_origin`` opens the door to pages of that origin, with a cookie."""

    @pytest.fixture
    def server_config(self):
        return {"ServerApp": {"allow_origin": FOREIGN["Origin"]}}

    async def test_socket_of_an_allowed_page(self, visitor):
        """A page of the allowed origin opens a socket, one of any other does not."""
        cookie = await visitor.sign_in()
        async with visitor.host() as host:
            client = await visitor.ws(ROOM, {**cookie, **FOREIGN})
            await host.expect_open()
            assert "Access-Control-Allow-Origin" not in client.headers
            client.close()
            await host.expect_closed()
            other = {**cookie, "Origin": "https://other.example"}
            assert await visitor.ws(ROOM, other) == 403


class TestAuthorizer:
    """An authorizer that knows who may do what."""

    @pytest.fixture
    def server_config(self):
        return {"ServerApp": {"authorizer_class": "tests.server.authorizer.Listed"}}

    @pytest.mark.parametrize("allowed", [("execute",), ("read", "write"), ()])
    async def test_agents_are_executed(self, visitor, agents, allowed):
        """To talk to an agent takes ``execute`` on ``agents``, whatever the method."""
        authorizer = agents.serverapp.web_app.settings["authorizer"]
        authorizer.allowed = allowed
        async with visitor.host() as host:
            got = await visitor.ws(ROOM, RIGHT)
            if "execute" in allowed:
                await host.expect_open()
                got.close()
                await host.expect_closed()
            else:
                assert got == 403
                for method in ("GET", "POST", "OPTIONS"):
                    assert (await visitor.http(ROOM, method, headers=RIGHT)).code == 403
            assert set(authorizer.asked) == {("execute", "agents")}
            assert host.is_quiet()


# -- what the agent learns ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (f"?token={TOKEN}&x=1", {}),
        (f"?x=1&token={TOKEN}", {}),
        (f"?x=1&TOKEN={TOKEN}", RIGHT),
        ("?x=1", RIGHT),
        ("?x=1", {"Authorization": f"Bearer {TOKEN}"}),
        ("?x=1", {**RIGHT, "Referer": f"http://127.0.0.1/lab?token={TOKEN}&reset=1"}),
        ("?x=1", {**RIGHT, "X-Forwarded-Uri": f"/a?token={TOKEN}"}),
        (
            "?x=1",
            {**RIGHT, "Cookie": "_xsrf=2|word; username-h-8888=me; mine=1", "X-XSRFToken": "w"},
        ),
    ],
)
async def test_credentials_are_consumed(visitor, query, headers):
    """However the token came, no agent sees it, nor Jupyter's cookies; the rest stays."""
    async with visitor.host(gate=True) as host:
        opening = asyncio.ensure_future(visitor.ws(ROOM + query, headers))
        number, about, _ = await host.expect_request()
        host.let_in(number)
        client = await opening
        _, opened = await host.expect_open()
        for word in (about, opened):
            text = json.dumps(word)
            assert TOKEN not in text
            assert "xsrf" not in text.lower()
            assert "username-" not in text
        assert opened["request"]["query"] == {"x": ["1"]}
        assert opened["request"]["url"] == f"{visitor.origin}/a%40b/{ROOM}?x=1"
        client.close()


async def test_credentials_are_consumed_over_http(visitor):
    """The same for HTTP, and what only looks like a credential arrives."""
    async with visitor.host() as host:
        headers = {"Cookie": "token=mine; xsrf=mine", "X-Api-Key": "k"}
        asking = asyncio.ensure_future(
            visitor.http(f"{ROOM}?token={TOKEN}&state=s", "POST", b"token=abc", headers)
        )
        number, about, body = await host.expect_request()
        host.respond(number)
        await asking
        assert TOKEN not in json.dumps(about)
        assert body == b"token=abc"
        assert about["request"]["cookies"] == {"token": "mine", "xsrf": "mine"}
        assert about["request"]["query"] == {"state": ["s"]}


async def test_an_agents_own_token_reaches_it(visitor):
    """Signed in by cookie, an application's own ``?token=`` and bearer are left alone."""
    cookie = await visitor.sign_in()
    async with visitor.host() as host:
        client = await visitor.ws(f"{ROOM}?token=abc", {**cookie, "Authorization": "Bearer app"})
        _, opened = await host.expect_open()
        assert opened["request"]["query"] == {"token": ["abc"]}
        assert ["Authorization", "Bearer app"] in opened["request"]["headers"]
        client.close()


async def test_right_token_beside_a_cookie_is_still_consumed(visitor):
    """Jupyter's token is taken out, also where the cookie would have done."""
    cookie = await visitor.sign_in()
    async with visitor.host() as host:
        client = await visitor.ws(f"{ROOM}?token={TOKEN}", cookie)
        _, opened = await host.expect_open()
        assert opened["request"]["query"] == {}
        client.close()


class TestPersonalTokens:
    """An identity provider with tokens that our code does not know, such as JupyterHub's."""

    @pytest.fixture
    def server_config(self):
        return {"ServerApp": {"identity_provider_class": HubLike}}

    @pytest.mark.parametrize(
        ("query", "headers"),
        [
            ("", {"Authorization": f"Bearer {HubLike.PERSONAL}"}),
            (f"?token={quote(HubLike.PERSONAL)}", {}),
        ],
    )
    async def test_personal_token_is_consumed(self, visitor, query, headers):
        """A token that some provider accepted is no more the agent's business than Jupyter's."""
        async with visitor.host() as host:
            assert await visitor.ws(ROOM, WRONG) == 403
            client = await visitor.ws(ROOM + query, headers)
            _, opened = await host.expect_open()
            assert opened["request"]["user"]["username"] == "ann"
            assert "personal" not in json.dumps(opened)
            client.close()


async def test_identity_is_told(visitor):
    """The same person is the same user over socket and HTTP, with all of Jupyter's identity."""
    cookie = await visitor.sign_in()
    async with visitor.host() as host:
        client = await visitor.ws(ROOM, cookie)
        _, opened = await host.expect_open()
        asking = asyncio.ensure_future(visitor.http(ROOM, headers=cookie))
        number, about, _ = await host.expect_request()
        host.respond(number)
        await asking
        client.close()
    user = opened["request"]["user"]
    assert {"username", "name", "display_name", "initials"} <= set(user)
    assert about["request"]["user"] == opened["request"]["user"] == user


async def test_identity_is_what_jupyter_makes_of_the_user(visitor, jp_serverapp, monkeypatch):
    """The stock provider's model is told field by field, another's as it makes it."""
    cookie = await visitor.sign_in()
    made = []

    def model(user):
        made.append(user)
        return {"username": user.username, "team": "blue"}

    async with visitor.host() as host:
        await visitor.ws(ROOM, cookie)
        _, stock = await host.expect_open()
        monkeypatch.setattr(jp_serverapp.identity_provider, "identity_model", model, raising=False)
        await visitor.ws(ROOM, cookie)
        _, own = await host.expect_open()
    [user] = made
    assert stock["request"]["user"] == dataclasses.asdict(user)
    assert own["request"]["user"] == {"username": user.username, "team": "blue"}


async def test_credentials_that_change_are_consumed_at_once(visitor, jp_serverapp):
    """A token set anew is taken from the next request on; the old one is nobody's by then."""
    async with visitor.host() as host:
        await visitor.ws(f"{ROOM}?token={TOKEN}")
        _, before = await host.expect_open()
        jp_serverapp.identity_provider.token = "another-token-of-this-server"
        assert await visitor.ws(f"{ROOM}?token={TOKEN}") == 403
        await visitor.ws(f"{ROOM}?token=another-token-of-this-server&old={TOKEN}")
        _, after = await host.expect_open()
    assert before["request"]["query"] == {}
    assert after["request"]["query"] == {"old": [TOKEN]}


async def test_host_header_is_checked(visitor):
    """A name that only resolves here (DNS rebinding) is refused as Jupyter refuses it."""
    async with visitor.host() as host:
        headers = {**RIGHT, "Host": "evil.example"}
        assert await visitor.ws(ROOM, headers) == 403
        assert (await visitor.http(ROOM, headers=headers)).code == 403
        assert host.is_quiet()


# -- answers -----------------------------------------------------------------------------------


async def test_answers_carry_no_cors_by_themselves(visitor):
    """A token opens no agent's answer to other origins; the class's CORS does."""
    headers = {**RIGHT, **FOREIGN}
    for options in ({}, {"cors": True}):
        async with visitor.host(**options) as host:
            asking = asyncio.ensure_future(visitor.http(ROOM, headers=headers))
            number, _, _ = await host.expect_request()
            host.respond(number, b"x")
            response = await asking
            expected = "*" if options else None
            assert response.headers.get("Access-Control-Allow-Origin") == expected


async def test_preflight_needs_no_credentials(visitor):
    """A browser's preflight is answered for a class with CORS, and for nothing else."""
    preflight = {**FOREIGN, "Access-Control-Request-Method": "POST"}
    async with visitor.host() as host:
        assert (await visitor.http(ROOM, "OPTIONS", headers=preflight)).code == 403
    async with visitor.host(cors=True) as host:
        response = await visitor.http(ROOM, "OPTIONS", headers=preflight)
        assert response.code == 200
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert host.is_quiet()


async def test_agents_pages_have_jupyters_headers(visitor):
    """An agent's page may not be framed by strangers unless the agent says so itself."""
    async with visitor.host() as host:
        for own, expected in (
            ((), "frame-ancestors 'self'"),
            ([["Content-Security-Policy", "x"]], "x"),
        ):
            asking = asyncio.ensure_future(visitor.http(ROOM, headers=RIGHT))
            number, _, _ = await host.expect_request()
            host.respond(number, b"<p>", headers=own)
            response = await asking
            assert response.headers["Content-Security-Policy"].startswith(expected)
            assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_console_page(visitor):
    """A signed-in browser that looks at an agent without pages gets the console."""
    async with visitor.host() as host:
        asking = asyncio.ensure_future(
            visitor.http(ROOM, headers={**RIGHT, "Accept": "text/html"})
        )
        number, _, _ = await host.expect_request()
        host.respond(number, b"Not implemented", 404, unanswered=True)
        response = await asking
        assert response.code == 200
        assert b'data-base-url="/a%40b/"' in response.body
        assert TOKEN.encode() not in response.body


async def test_modules_need_no_sign_in(visitor):
    """Pages import the client from the server without credentials; nothing beside it is public."""
    response = await visitor.http("agents-static/agent-client.js")
    assert response.code == 200
    assert response.headers["Content-Type"].startswith("text/javascript")
    assert (await visitor.http("agents-static/agent-client.js", "HEAD")).code == 200
    assert (await visitor.http("agents-static/../handlers.py")).code in (403, 404)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
async def test_jupyter_logs_and_counts_a_socket(visitor, jp_serverapp, caplog, level):
    """Jupyter's line for a 101 is there for whoever listens to DEBUG, its metric always."""
    logger = jp_serverapp.log
    usual, logger.handlers = logger.handlers, []
    caplog.handler.setLevel(level)
    counted = {"method": "GET", "handler": "jupyter_agents.server.handlers.AgentHandler"}
    metric = "http_request_duration_seconds_count", {**counted, "status_code": "101"}
    before = REGISTRY.get_sample_value(*metric) or 0
    try:
        async with visitor.host() as host:
            await visitor.ws(ROOM, RIGHT)
            await host.expect_open()
    finally:
        logger.handlers = usual
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("101 GET")]
    assert len(lines) == (level == logging.DEBUG)
    assert REGISTRY.get_sample_value(*metric) == before + 1


async def test_logs_hold_no_token(visitor, caplog):
    """No log line shows the token, whatever went wrong."""
    caplog.set_level(0)
    async with visitor.host() as host:
        for path in (ROOM, "agents/nobody/x", "agents/chat-room", f"{ROOM}/%ff"):
            got = await visitor.ws(f"{path}?token={TOKEN}")
            if not isinstance(got, int):
                got.close()
        await host.expect_open()
    assert "chat-room" in caplog.text
    ours = [r.getMessage() for r in caplog.records if r.name != "tornado.curl_httpclient"]
    assert not [line for line in ours if TOKEN in line]
