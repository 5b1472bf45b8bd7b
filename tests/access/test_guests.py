"""Who comes in without signing in, and what an agent learns of it."""

from __future__ import annotations

import json

import pytest

from jupyter_agents.access.capability import Capability
from jupyter_agents.access.guests import by_link, of_public, of_user
from jupyter_agents.access.shares import Shared

SECRET = "jas.0a1b2c3d.the-secret-of-this-link.and-its-signature"


def guest(*, readonly=False, label=""):
    """Who comes by a link."""
    link = Capability("0123456789abcdef", "chat-room", "lobby", 99, readonly, 3)
    return by_link(Shared(link, label, 1.0), SECRET)


def test_identity_says_that_it_is_a_guest():
    """The agent sees a guest, by which link and with which rights."""
    user = guest(readonly=True).user
    assert user["kind"] == "share"
    assert user["username"] == "guest-012345"
    assert user["share"] == "0123456789abcdef"
    assert user["readonly"] is True
    assert user["name"] == user["display_name"] == "Guest"
    json.dumps(user)


def test_a_label_names_the_guest():
    """What the author called the link is the guest's name."""
    assert guest(label="Class 3b").user["display_name"] == "Class 3b"


def test_the_secret_stays_out():
    """Neither identity nor text shows what opened the door."""
    one = guest()
    assert SECRET not in json.dumps(one.user)
    assert SECRET not in repr(one)
    assert SECRET not in str([one])


@pytest.mark.parametrize(
    ("method", "may"),
    [("GET", True), ("HEAD", True), ("OPTIONS", True), ("POST", False), ("PUT", False),
     ("PATCH", False), ("DELETE", False), ("", False)],
)  # fmt: skip
def test_a_reader_sends_nothing(method, may):
    """A read-only guest asks; everyone else may send, too."""
    assert guest(readonly=True).may_ask(method) is may
    assert guest().may_ask(method)


def test_the_public_comes_from_anywhere():
    """Anybody has no name, and no page is foreign; a link is for our own pages."""
    assert of_public().from_anywhere
    assert of_public().user["kind"] == "public"
    assert not guest().from_anywhere


def test_who_signed_in_keeps_the_name():
    """A ticket's holder is the one who took it."""
    assert of_user({"username": "ann"}).user == {"username": "ann"}
    assert of_user(None).user is None
    assert of_user(None).username == "guest"
