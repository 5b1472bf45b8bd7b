"""Probes and counts of the server's own: measured, said once, and no traffic."""

from __future__ import annotations

import pytest

from jupyter_agents.link.chores import Chores
from jupyter_agents.link.frames import Kind, unpack_object

ANSWER = (Kind.PROBE, 0, b"")


@pytest.fixture
def sent():
    """Frames that left."""
    return []


@pytest.fixture
def chores(sent):
    """A link's chores."""
    return Chores(lambda *frame: sent.append(frame))


def test_round_trip_is_measured(chores, sent):
    """From the probe to its answer, among whatever frames that is."""
    assert chores.round_trip_s(0.0) is None
    chores.probe(10.0)
    assert sent == [ANSWER]
    chores.heard([(Kind.TEXT, 1, b"x"), ANSWER], 10.25)
    assert chores.round_trip_s(99.0) == 0.25
    assert chores.frames == 2


def test_late_answer_shows_by_its_age(chores, sent):
    """A kernel that is stuck looks slower and slower, and is not asked again meanwhile."""
    chores.probe(10.0)
    chores.heard([ANSWER], 10.5)
    chores.probe(20.0)
    assert chores.round_trip_s(20.1) == 0.5
    assert chores.round_trip_s(27.0) == 7.0
    chores.probe(25.0)
    assert len(sent) == 2
    chores.heard([ANSWER], 28.0)
    assert chores.round_trip_s(28.0) == 8.0


def test_probes_of_connections_are_not_ours(chores):
    """The relay's probes have a connection's number; an answer nobody asked for is nothing."""
    chores.heard([ANSWER], 5.0)
    assert (chores.round_trip_s(5.0), chores.frames) == (None, 0)
    chores.probe(10.0)
    chores.heard([(Kind.PROBE, 7, b"")], 11.0)
    assert chores.is_probing


def test_listening_is_said_once(chores, sent):
    """The kernel is told when somebody begins to listen and when all have gone, not each time."""
    for every_s in (0.0, 1.0, 1.0, 0.0, 0.0):
        chores.tally(every_s)
    assert [(kind, unpack_object(payload)) for kind, _, payload in sent] == [
        (Kind.TALLY, {"every_s": 1.0}),
        (Kind.TALLY, {"every_s": 0.0}),
    ]
