"""Who gets what: every URL of ours, every method, every kind of credential.

The rows come from the server's own table of routes. A new route, or a method that a handler begins
to answer, fails here until somebody has written down who may.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging

import pytest
from tornado.web import RequestHandler

from jupyter_agents.link.frames import Kind
from tests.server.jupyter import *  # noqa: F403
from tests.server.jupyter import TOKEN

ROOM = "agents/chat-room/lobby"
API = "api/agents/chat-room/lobby"
FOREIGN = "https://evil.example"
METHODS = (*(m for m in RequestHandler.SUPPORTED_METHODS if m != "CONNECT"), "WS")

STRANGERS = frozenset(
    {
        "nothing",
        "wrong token",
        "expired link",
        "revoked link",
        "forged link",
        "another agent's link",
        "another instance's link",
        "used ticket",
        "another instance's ticket",
        "cookie of a revoked link",
        "signed in, not authorised",
        "link, foreign page",
    }
)
"""Who gets nothing anywhere that is not open to all."""

GUESTS = frozenset({"link", "read-only link", "cookie of a link", "ticket"})
EVERYONE = STRANGERS | GUESTS | {"signed in"}
READERS = frozenset({"signed in", "link", "read-only link", "cookie of a link"})
BEARERS = READERS | {"link, foreign page"}
"""Who may take a ticket: a page of another origin needs one, and a link is no cookie."""

WRITERS = frozenset({"signed in", "link", "cookie of a link"})


@dataclasses.dataclass(frozen=True)
class Row:
    """One URL: which answer each method has for whom; everybody else gets a 403."""

    path: str
    answers: dict[str, tuple[int, frozenset[str]]]
    other: int = 405
    """What a method that is not there answers to who may come this far."""
    near: frozenset[str] = frozenset({"signed in", "signed in, not authorised"})
    """Who comes so far as to learn that a method is not there."""


SIGNED_IN = frozenset({"signed in"})
AGENT = {
    **dict.fromkeys(("GET", "HEAD"), (200, READERS)),
    "OPTIONS": (200, READERS),
    **dict.fromkeys(("POST", "PUT", "PATCH", "DELETE"), (200, WRITERS)),
    "WS": (101, READERS | {"ticket"}),
}
OPEN = {"OPTIONS": (200, EVERYONE)}
"""Jupyter's own answer to a preflight: no data, and it says so to everyone."""

ROWS = {
    "/(?:/*)agents/(?:.*)": Row(ROOM, AGENT),
    "/agents-static/(.*)": Row(
        "agents-static/agent-client.js",
        {**dict.fromkeys(("GET", "HEAD", "WS"), (200, EVERYONE)), "OPTIONS": (405, EVERYONE)},
        near=frozenset(),  # Tornado asks for an XSRF word first
    ),
    "/api/agents/([^/]+)/([^/]+)/ticket": Row(
        f"{API}/ticket",
        {"POST": (200, BEARERS), "OPTIONS": (204, BEARERS)},
        near=BEARERS,
    ),
    "/api/agents": Row("api/agents", {"GET": (200, SIGNED_IN), "WS": (200, SIGNED_IN), **OPEN}),
    "/api/agents/events": Row(
        "api/agents/events", {"GET": (400, SIGNED_IN), "WS": (101, SIGNED_IN)}
    ),
    "/api/agents/([^/]+)/([^/]+)": Row(
        API, {"GET": (200, SIGNED_IN), "WS": (200, SIGNED_IN), **OPEN}
    ),
    "/api/agents/([^/]+)/([^/]+)/close": Row(f"{API}/close", {"POST": (400, SIGNED_IN), **OPEN}),
    "/api/agents/([^/]+)/([^/]+)/readonly": Row(
        f"{API}/readonly", {"POST": (400, SIGNED_IN), **OPEN}
    ),
    "/api/agents/([^/]+)/([^/]+)/stop": Row(f"{API}/stop", {"POST": (200, SIGNED_IN), **OPEN}),
    "/api/agents/([^/]+)/([^/]+)/reset": Row(f"{API}/reset", {"POST": (200, SIGNED_IN), **OPEN}),
}


class Desk:
    """Hands out every kind of credential there is."""

    def __init__(self, visitor, agents):
        self.visitor, self.agents, self.gate = visitor, agents, agents.door.gate
        self.secrets: list[str] = [TOKEN]
        self.told: list[object] = []
        self.shown: dict[str, tuple[str, dict[str, str]]] = {}
        agents.observers.add(lambda *event: self.told.append(event), lambda: None)

    def link(self, agent="chat-room", name="lobby", *, revoked=False, **options):
        """The secret of a link."""
        shared, secret = self.gate.share(agent, name, 600.0, **options)
        if revoked:
            self.gate.revoke(shared.capability.id)
        self.secrets.append(secret)
        return secret

    def expired(self):
        """A link whose time is over."""
        now = self.gate._clock
        self.gate._clock = lambda: now() - 1000
        secret = self.link()
        self.gate._clock = now
        return secret

    async def ticket(self, name="lobby"):
        """A ticket that nobody has used."""
        path = f"api/agents/chat-room/{name}/ticket?token={TOKEN}"
        ticket = json.loads((await self.visitor.http(path, "POST", b"")).body)["ticket"]
        self.secrets.append(ticket)
        return ticket

    async def used(self):
        """A ticket that opened a socket."""
        ticket = await self.ticket()
        (await self.visitor.ws(f"{ROOM}?ticket={ticket}")).close()
        return ticket

    def links(self):
        """Links of every kind, made once: the register is a file."""
        good, dead = self.link(), self.link(revoked=True)
        forged = f"{good[:-2]}{'AA' if good[-2:] != 'AA' else 'BB'}"
        query = {
            "nothing": "",
            "wrong token": "?token=wrong",
            "signed in": f"?token={TOKEN}",
            "signed in, not authorised": f"?token={TOKEN}",
            "link": f"?share={good}",
            "read-only link": f"?share={self.link(readonly=True)}",
            "link, foreign page": f"?share={good}",
            "expired link": f"?share={self.expired()}",
            "revoked link": f"?share={dead}",
            "forged link": f"?share={forged}",
            "another agent's link": f"?share={self.link('other')}",
            "another instance's link": f"?share={self.link(name='office')}",
        }
        shown = {kind: (text, {}) for kind, text in query.items()}
        shown["link, foreign page"] = (query["link"], {"Origin": FOREIGN})
        for kind, secret in (("cookie of a link", good), ("cookie of a revoked link", dead)):
            shown[kind] = ("", {"Cookie": f"jupyter-agents-share={secret}"})
        return shown

    async def show(self, kind):
        """Query and headers of a visitor of this kind."""
        self.shown = self.shown or self.links()
        if kind in self.shown:
            return self.shown[kind]
        ticket = {
            "ticket": self.ticket,
            "used ticket": self.used,
            "another instance's ticket": lambda: self.ticket("office"),
        }[kind]
        return f"?ticket={await ticket()}", {}


async def _answer(host):
    """Say 200 to requests, and yes to questions."""
    while True:
        kind, number, _ = await host.arrived.get()
        if kind == Kind.REQUEST:
            host.respond(number, b"")
        elif kind == Kind.ASK:
            host.say(Kind.ANSWER, {}, number)


class TestMatrix:
    """A server with an authorizer, and an agent that takes links and answers everything."""

    @pytest.fixture
    def server_config(self):
        return {"ServerApp": {"authorizer_class": "tests.server.authorizer.Listed"}}

    @pytest.fixture
    def desk(self, visitor, agents):
        return Desk(visitor, agents)

    async def outcome(self, desk, row, method, kind):
        """The status that a visitor of this kind gets, and the body."""
        authorizer = desk.agents.serverapp.web_app.settings["authorizer"]
        authorizer.allowed = ("read", "write", "execute")
        query, headers = await desk.show(kind)
        if "not authorised" in kind:
            authorizer.allowed = ()
        path = row.path + query
        if method == "WS" and row.answers.get("WS", (0,))[0] != 101:
            method, headers = "GET", {**headers, "Upgrade": "websocket", "Connection": "Upgrade"}
        if method == "WS":
            got = await desk.visitor.ws(path, headers)
            if isinstance(got, int):
                return got, b""
            got.close()
            return 101, b""
        body = b"" if method in ("POST", "PUT", "PATCH") else None
        response = await desk.visitor.http(path, method, body, headers)
        return response.code, response.body

    async def check(self, desk, pattern, kinds=EVERYONE):
        """Every method of one row."""
        row, wrong = ROWS[pattern], []
        for method in METHODS:
            status, entering = row.answers.get(method, (row.other, row.near))
            for kind in sorted(kinds):
                got, body = await self.outcome(desk, row, method, kind)
                # Jupyter's APIs say 404 to a foreign page
                refusals = (403, 404) if "foreign" in kind else (403,)
                expected = (status,) if kind in entering else refusals
                if got not in expected:
                    wrong.append(f"{method} {row.path} as {kind}: {got}, not {expected}")
                if any(secret.encode() in body for secret in desk.secrets):
                    wrong.append(f"{method} {row.path} as {kind} tells a secret")
        assert not wrong, "\n".join(wrong)

    @contextlib.asynccontextmanager
    async def agent(self, visitor, access):
        """An agent that says 200 to every request."""
        async with visitor.host(access=access) as host:
            answering = asyncio.ensure_future(_answer(host))
            try:
                yield host
            finally:
                answering.cancel()

    async def test_every_route_has_its_row(self, agents):
        """The table is the server's, no more and no less."""
        assert {route[0] for route in agents.handlers} == set(ROWS)

    @pytest.mark.parametrize("pattern", ROWS)
    async def test_who_gets_what(self, visitor, desk, pattern, caplog):
        """Each credential opens what its row says; nothing of it is logged or told."""
        caplog.set_level(logging.DEBUG)
        async with self.agent(visitor, "link"):
            await self.check(desk, pattern)
        assert [s for s in desk.secrets if s in caplog.text] == []
        events = json.dumps(desk.told, default=str)
        assert [s for s in desk.secrets if s in events] == []

    async def test_who_gets_what_without_links(self, visitor, desk):
        """At an agent that takes no links, links and what came of them open nothing."""
        async with self.agent(visitor, "jupyter"):
            row = ROWS["/(?:/*)agents/(?:.*)"]
            for method in ("GET", "POST", "WS"):
                for kind in sorted(EVERYONE - {"signed in", "ticket"}):
                    got, _ = await self.outcome(desk, row, method, kind)
                    assert got == 403, (method, kind)
            assert (await self.outcome(desk, row, "WS", "ticket"))[0] == 101
