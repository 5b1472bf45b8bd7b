"""The decision who enters without signing in, with the clock in the test's hand."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from jupyter_agents.access.credentials import COOKIE
from jupyter_agents.access.gate import REVOKED, Gate, GateLimits, NotAdmitted
from jupyter_agents.access.guests import of_public, of_user
from jupyter_agents.errors import ShareError

PLACE = ("chat-room", "lobby")


class Clock:
    """Seconds, as a test says."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Socket:
    """A guest's socket: remembers how it was closed."""

    closed: tuple[int, str] | None = None

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)


@pytest.fixture
def clock():
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def gate(clock, tmp_path):
    """A gate with its files in a folder."""
    made = Gate(GateLimits(max_share_s=1000), tmp_path, clock)
    yield made
    made.close()


def asks(query: str = "", **headers: str) -> HTTPServerRequest:
    """A request as Tornado makes it."""
    named = HTTPHeaders({"Host": "h", **headers})

    class Context:
        remote_ip, protocol = "10.0.0.1", "http"

    class Wire:
        context = Context()

    line = RequestStartLine("GET", f"/agents/chat-room/lobby?{query}", "HTTP/1.1")
    return HTTPServerRequest(start_line=line, headers=named, connection=Wire())


def share(gate, **options):
    """A link to the lobby: its id and its secret."""
    shared, secret = gate.share(*PLACE, options.pop("expires_s", 100.0), **options)
    return shared.capability.id, secret


def enter(gate, request, access="link", place=PLACE, socket=True):
    """Whom the gate sees."""
    return gate.invited(request, access, *place, socket=socket)


@pytest.mark.parametrize("how", ["query", "bearer", "token"])
@pytest.mark.parametrize("access", ["link", "public"])
def test_a_link_opens_its_instance(gate, how, access):
    """In the query, or where a token would be, a link lets its bearer in as its guest."""
    link_id, secret = share(gate, readonly=True, label="Ann")
    request = {
        "query": asks(f"x=1&share={quote(secret)}"),
        "bearer": asks(Authorization=f"Bearer {secret}"),
        "token": asks(f"token={secret}"),
    }[how]
    guest = enter(gate, request, access)
    assert (guest.kind, guest.share, guest.readonly) == ("share", link_id, True)
    assert guest.user["display_name"] == "Ann"


@pytest.mark.parametrize("query", ["", "share=", "share=mine", "share=jas", "ticket=mine&token=x"])
def test_an_agents_own_words_are_its_own(gate, query):
    """A ``share`` or ``ticket`` that is not of our form is nobody's credential."""
    assert enter(gate, asks(query)) is None


def refused(gate, request, **where):
    """Why the gate does not let in."""
    with pytest.raises(NotAdmitted) as no:
        enter(gate, request, **where)
    return no.value.status, no.value.text


@pytest.mark.parametrize("place", [("chat-room", "office"), ("other", "lobby"), ("x", "y")])
def test_a_link_opens_nothing_else(gate, place):
    """At any other instance it is no link at all, even where a class is public."""
    _, secret = share(gate)
    for access in ("link", "public"):
        status, text = refused(gate, asks(f"share={secret}"), place=place, access=access)
        assert (status, text) == (403, "Forbidden: this link opens nothing here")


def test_a_link_expires(gate, clock):
    """At its time it opens nothing, and its holder is told why."""
    _, secret = share(gate, expires_s=100)
    clock.now += 99.9
    assert enter(gate, asks(f"share={secret}"))
    clock.now += 0.1
    assert refused(gate, asks(f"share={secret}")) == (403, "Forbidden: this link has expired")


def test_a_link_is_revoked_for_good(gate, clock, tmp_path):
    """A revoked link opens nothing, here, in another server of the user, after a restart."""
    other = Gate(GateLimits(), tmp_path, clock)
    link_id, secret = share(gate)
    assert enter(other, asks(f"share={secret}"))
    assert gate.revoke(link_id)
    for one in (gate, other, later := Gate(GateLimits(), tmp_path, clock)):
        assert refused(one, asks(f"share={secret}")) == (403, "Forbidden: this link was revoked")
    other.close()
    later.close()


def test_a_class_can_take_no_links(gate):
    """Where the class wants a sign-in again, or the server allows no links, they open nothing."""
    _, secret = share(gate)
    assert refused(gate, asks(f"share={secret}"), access="jupyter")[0] == 403
    gate.limits = GateLimits(allow_links=False)
    assert refused(gate, asks(f"share={secret}"))[0] == 403


@pytest.mark.parametrize(
    "secret",
    [
        f"jas.0a1b2c3d.{'A' * 80}.{'B' * 43}",
        f"jas.{'x' * 9000}",
        "jas.a.b.c",
        f"jat.{'A' * 43}",
    ],
)
def test_a_made_up_link_does_not_fall_back(gate, secret):
    """What has a link's or ticket's form and is none is refused, whatever else is shown."""
    name = "share" if secret.startswith("jas") else "ticket"
    assert refused(gate, asks(f"{name}={secret}"), access="public")[0] == 403


def test_links_survive_a_rotation_of_keys(gate, clock):
    """After a rotation old links go on until they expire, and new ones are signed anew."""
    _, old = share(gate, expires_s=100)
    gate.rotate()
    _, new = share(gate, expires_s=500)
    assert old.split(".")[1] != new.split(".")[1]
    assert enter(gate, asks(f"share={old}"))
    assert enter(gate, asks(f"share={new}"))


def test_keys_are_rotated_by_age(clock, tmp_path):
    """A key that is a month old signs no more; its links go on until they expire."""
    month = 30 * 24 * 3600.0
    gate = Gate(GateLimits(max_share_s=3 * month), tmp_path, clock)
    _, old = share(gate, expires_s=2 * month)
    clock.now += month
    _, same = share(gate)
    clock.now += 1
    _, new = share(gate)
    first, second, third = (text.split(".")[1] for text in (old, same, new))
    assert first == second != third
    assert enter(gate, asks(f"share={old}"))
    clock.now += month
    assert refused(gate, asks(f"share={old}"))[0] == 403
    gate.close()


# -- who shows nothing -------------------------------------------------------------------------


def test_a_public_class_lets_everyone_in(gate):
    """Who shows nothing enters a public class, and no other."""
    assert gate.uninvited(asks(), "public", *PLACE).kind == "public"
    assert gate.uninvited(asks(), "link", *PLACE) is None
    assert gate.uninvited(asks(), "jupyter", *PLACE) is None


def test_a_cookie_of_the_link_is_the_link(gate, clock):
    """The page can be loaded again by its cookie, for as long as the link is good."""
    link_id, secret = share(gate)
    request = asks(Cookie=f"{COOKIE}={secret}")
    assert enter(gate, request) is None  # it does not stand before a sign-in
    guest = gate.uninvited(request, "link", *PLACE)
    assert guest.share == link_id
    assert guest.by_cookie
    assert not enter(gate, asks(f"share={secret}")).by_cookie
    assert gate.uninvited(request, "link", "chat-room", "office") is None
    gate.revoke(link_id)
    assert gate.uninvited(request, "link", *PLACE) is None
    assert gate.uninvited(request, "public", *PLACE).kind == "public"


# -- who is inside -----------------------------------------------------------------------------


def test_connections_by_a_link_are_counted(gate):
    """As many as the link allows are inside at once; who leaves makes room."""
    link_id, secret = share(gate, max_connections=2)
    guest = enter(gate, asks(f"share={secret}"))
    first, second, third = Socket(), Socket(), Socket()
    assert gate.has_room(guest)
    assert gate.entered(guest, first, "chat-room")
    assert gate.entered(guest, second, "chat-room")
    assert not gate.has_room(guest)
    assert not gate.entered(guest, third, "chat-room")
    assert gate.count(link_id) == 2
    gate.left(third)
    gate.left(first)
    assert gate.entered(guest, third, "chat-room")


def test_revoking_sends_its_guests_away_and_no_other(gate):
    """At once, with a final code; guests by other links stay."""
    link_id, secret = share(gate)
    _, other = share(gate)
    mine, theirs = Socket(), Socket()
    gate.entered(enter(gate, asks(f"share={secret}")), mine, "chat-room")
    gate.entered(enter(gate, asks(f"share={other}")), theirs, "chat-room")
    gate.revoke(link_id)
    assert mine.closed == (REVOKED, "This link was revoked")
    assert theirs.closed is None


def test_time_sends_guests_away(gate, clock, tmp_path):
    """With the link's expiry, a revocation elsewhere, or a class that takes no links any more."""
    allowed = {"chat-room": "link"}
    other = Gate(GateLimits(), tmp_path, clock)
    sockets = {}
    for name, seconds in (("short", 10), ("revoked", 100), ("long", 1000)):
        link_id, secret = share(gate, expires_s=seconds)
        sockets[name] = Socket()
        gate.entered(enter(gate, asks(f"share={secret}")), sockets[name], "chat-room")
        if name == "revoked":
            other.revoke(link_id)
    gate.tick(allowed.get)
    assert [name for name, s in sockets.items() if s.closed] == ["revoked"]
    clock.now += 10
    gate.tick(allowed.get)
    assert sockets["short"].closed == (REVOKED, "This link has expired")
    allowed["chat-room"] = "jupyter"
    gate.tick(allowed.get)
    assert sockets["long"].closed == (REVOKED, "This agent takes no links any more")
    other.close()


def test_a_register_that_fails(gate, clock, monkeypatch):
    """Nobody comes in by a link or is kept from signing in; who is inside stays its time."""

    def fail(share_id):
        raise ShareError("The register of links cannot be used: database is locked")

    _, secret = share(gate, expires_s=10)
    inside = Socket()
    gate.entered(enter(gate, asks(f"share={secret}")), inside, "chat-room")
    monkeypatch.setattr(gate.shares, "get", fail)
    assert refused(gate, asks(f"share={secret}"))[0] == 503
    assert gate.uninvited(asks(Cookie=f"{COOKIE}={secret}"), "link", *PLACE) is None
    gate.tick(lambda agent: "link")
    assert inside.closed is None
    clock.now += 10
    gate.tick(lambda agent: "link")
    assert inside.closed == (REVOKED, "This link has expired")


def test_a_class_that_is_public_no_more(gate):
    """Sends away who came without a name."""
    anyone = Socket()
    gate.entered(gate.uninvited(asks(), "public", *PLACE), anyone, "chat-room")
    gate.tick(lambda agent: "public")
    assert anyone.closed is None
    gate.tick(lambda agent: "link")
    assert anyone.closed == (REVOKED, "This agent is not public any more")


# -- making links and tickets ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"expires_s": 0}, "max_share_s"),
        ({"expires_s": 1001}, "max_share_s"),
        ({"expires_s": float("nan")}, "max_share_s"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_connections": -1}, "max_connections"),
        ({"label": "x" * 81}, "label"),
    ],
)
def test_a_link_has_limits(gate, wish, words):
    """What no link can be is refused in words that name the setting."""
    with pytest.raises(ShareError, match=words):
        share(gate, **wish)


def test_a_server_can_allow_no_links(clock):
    """Then none is made, and the sentence says who decided that."""
    with pytest.raises(ShareError, match="allow_links"):
        share(Gate(GateLimits(allow_links=False), None, clock))


def ticket(gate, guest, place=PLACE):
    """The text of a ticket."""
    return gate.ticket(guest, *place)["ticket"]


def test_a_ticket_opens_one_socket_from_anywhere(gate):
    """Once, for a WebSocket, as the one who took it."""
    text = ticket(gate, of_user({"username": "ann"}))
    guest = enter(gate, asks(f"ticket={text}"))
    assert guest.user == {"username": "ann"}
    assert guest.from_anywhere
    assert refused(gate, asks(f"ticket={text}"))[0] == 403


def test_a_ticket_opens_nothing_but_a_socket(gate):
    """Over HTTP, where it could be traded for another, it is worth nothing, and used up."""
    text = ticket(gate, of_user({"username": "ann"}))
    assert refused(gate, asks(f"ticket={text}"), socket=False)[0] == 403
    assert refused(gate, asks(f"ticket={text}"))[0] == 403


def test_a_ticket_ends_with_its_link(gate):
    """A ticket that a guest took opens nothing once the link is revoked."""
    link_id, secret = share(gate, readonly=True)
    guest = enter(gate, asks(f"share={secret}"))
    good, late = ticket(gate, guest), ticket(gate, guest)
    entered = enter(gate, asks(f"ticket={good}"))
    assert (entered.share, entered.readonly, entered.from_anywhere) == (link_id, True, True)
    gate.revoke(link_id)
    assert refused(gate, asks(f"ticket={late}")) == (403, "Forbidden: this link was revoked")


def test_a_ticket_of_a_public_class_ends_with_that(gate):
    """A ticket that anybody took opens nothing once its class is public no more."""
    text = ticket(gate, of_public())
    assert refused(gate, asks(f"ticket={text}"), access="link")[0] == 403
    assert enter(gate, asks(f"ticket={ticket(gate, of_public())}"), access="public")


def test_tickets_are_bounded(clock):
    """One more than may be out is refused for now."""
    gate = Gate(GateLimits(max_tickets=1), None, clock)
    ticket(gate, of_user(None))
    with pytest.raises(NotAdmitted) as no:
        ticket(gate, of_user(None))
    assert no.value.status == 503
    clock.now += 30
    assert ticket(gate, of_user(None))


def test_nothing_of_this_is_logged(gate, caplog, clock):
    """No link, ticket or key appears in a log at any level."""
    caplog.set_level(logging.DEBUG)
    link_id, secret = share(gate)
    guest = enter(gate, asks(f"share={secret}"))
    text = ticket(gate, guest)
    refused(gate, asks(f"share={secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}"))
    gate.rotate()
    gate.revoke(link_id)
    refused(gate, asks(f"ticket={text}"))
    for word in (secret, text, gate.keys.signing(clock.now).secret.hex()):
        assert word not in caplog.text
