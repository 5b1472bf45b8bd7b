"""One-time tickets: good once, for one instance, for a moment."""

from __future__ import annotations

from itertools import count

import pytest

from jupyter_agents.access.credentials import has_pass
from jupyter_agents.access.tickets import FORM, Tickets

PLACE = ("chat-room", "lobby")


@pytest.fixture
def tickets():
    """A desk that gives three at a time, for half a minute."""
    return Tickets(30.0, 3)


def test_a_ticket_is_good_once(tickets):
    """The first who shows it gets what was granted; the second gets nothing."""
    text = tickets.give(*PLACE, "ann", 100.0)
    assert tickets.take(text, *PLACE, 129.9) == "ann"
    assert tickets.take(text, *PLACE, 129.9) is None


def test_a_ticket_grows_old(tickets):
    """After its time it opens nothing."""
    text = tickets.give(*PLACE, "ann", 100.0)
    assert tickets.take(text, *PLACE, 130.0) is None


@pytest.mark.parametrize("place", [("chat-room", "office"), ("other", "lobby")])
def test_a_ticket_is_for_one_instance(tickets, place):
    """At any other instance it opens nothing, and is used up by the try."""
    text = tickets.give(*PLACE, "ann", 100.0)
    assert tickets.take(text, *place, 101.0) is None
    assert tickets.take(text, *PLACE, 101.0) is None


@pytest.mark.parametrize("text", ["", "jat.", "jat." + "A" * 43, "é"])
def test_a_stranger_guesses_in_vain(tickets, text):
    """What was not given opens nothing."""
    tickets.give(*PLACE, "ann", 100.0)
    assert tickets.take(text, *PLACE, 101.0) is None


def test_tickets_are_bounded(tickets):
    """When too many are out there is none, until some are used or old."""
    given = [tickets.give(*PLACE, n, 100.0 + n) for n in range(3)]
    assert tickets.give(*PLACE, "x", 103.0) is None
    assert tickets.take(given[1], *PLACE, 103.0) == 1
    assert tickets.give(*PLACE, "y", 103.0)
    assert tickets.give(*PLACE, "z", 103.0) is None
    assert tickets.give(*PLACE, "z", 130.0)


def test_every_ticket_is_another():
    """No two are the same, they can stand in a URL, and logs know their form."""
    tickets = Tickets(30.0, 1000)
    texts = {tickets.give(*PLACE, None, 0.0) for _ in range(200)}
    assert len(texts) == 200
    assert all(FORM.fullmatch(text) and has_pass(text) for text in texts)


def test_dice_come_from_outside():
    """A test may say what is random."""
    numbers = count()
    tickets = Tickets(1.0, 9, lambda n: f"{next(numbers)}".rjust(43, "0"))
    assert tickets.give(*PLACE, None, 0.0) == "jat." + "0" * 43
