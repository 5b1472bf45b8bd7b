"""Broadcasts: who gets them, in which order, and which of them travel as one."""

from __future__ import annotations

import gc
import weakref

import pytest

from jupyter_agents.errors import LinkError
from jupyter_agents.link import fanout
from jupyter_agents.link.frames import Kind, pack_numbers
from jupyter_agents.link.relay import Relay
from tests.link.fakes import Scene


class JoiningScene(Scene):
    """Joins messages to a list."""

    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay(self._wrap, None, self._event, join=lambda payloads, binary: payloads)


@pytest.fixture
def scene():
    """A relay that may join messages, with one kernel's connections 1, 2 and 3."""
    made = JoiningScene()
    made.kernel = made.host()
    made.kernel.serve()
    made.records = [made.open() for _ in range(3)]
    return made


def heard(scene):
    """What each connection was sent since the last look: payloads, joined ones as a list."""
    return [
        [
            call[1] if isinstance(call[1], list) else call[1][0]
            for call in record.socket.take()
            if call[0] == "send"
        ]
        for record in scene.records
    ]


def test_broadcasts_of_one_read_travel_as_one(scene):
    """While frames follow, what goes to the same recipients is gathered, each sent once."""
    scene.relay.fan_out.hold()
    for text in (b"a", b"b", b"c"):
        scene.kernel.broadcast(Kind.TEXT_MANY, text, 1, 3)
    assert heard(scene) == [[], [], []]
    scene.relay.fan_out.release()
    assert heard(scene) == [[[b"a", b"b", b"c"]], [], [[b"a", b"b", b"c"]]]


def test_messages_to_one_travel_as_one(scene):
    """So does what one connection gets, while it is of one kind and nothing comes between."""
    scene.relay.fan_out.hold()
    for kind, number, text in (
        (Kind.TEXT, 1, b"a"), (Kind.TEXT, 1, b"b"), (Kind.TEXT, 2, b"c"), (Kind.TEXT, 1, b"d"),
        (Kind.BINARY, 1, b"e"), (Kind.BINARY, 1, b"f"), (Kind.TEXT, 9, b"g"),
    ):  # fmt: skip
        scene.kernel.says(kind, number, text)
    scene.relay.fan_out.release()
    assert heard(scene) == [[[b"a", b"b"], b"d", [b"e", b"f"]], [b"c"], []]


def test_alone_each_is_sent_at_once(scene):
    """Nothing waits for a release that nobody announced."""
    scene.kernel.broadcast(Kind.TEXT_MANY, b"a", 1)
    scene.kernel.broadcast(Kind.TEXT_MANY, b"b", 1)
    assert heard(scene)[0] == [b"a", b"b"]


def test_order_is_kept(scene):
    """Another message, other recipients, a state: none overtakes what was gathered before."""
    scene.relay.fan_out.hold()
    scene.kernel.broadcast(Kind.TEXT_MANY, b"0", 1, 2)
    scene.kernel.broadcast(Kind.BINARY_MANY, b"1", 1, 2)
    scene.kernel.broadcast(Kind.BINARY_MANY, b"2", 1, 2)
    scene.kernel.says(Kind.TEXT, 1, b"3")
    scene.kernel.broadcast(Kind.TEXT_MANY, b"4", 1, 2)
    scene.kernel.broadcast(Kind.TEXT_MANY, b"5", 1, 2, 3)
    scene.kernel.broadcast(Kind.STATE_MANY, b"6", 1, 2, 3)
    scene.kernel.broadcast(Kind.TEXT_MANY, b"7", 1, 2, 3)
    scene.relay.fan_out.release()
    assert heard(scene) == [
        [b"0", [b"1", b"2"], b"3", b"4", b"5", b"6", b"7"],
        [b"0", [b"1", b"2"], b"4", b"5", b"6", b"7"],
        [b"5", b"6", b"7"],
    ]


def test_close_stays_behind(scene):
    """A connection that is closed after a broadcast gets the broadcast first."""
    scene.relay.fan_out.hold()
    scene.kernel.broadcast(Kind.TEXT_MANY, b"bye", 1, 2)
    scene.kernel.close(1, 1000)
    assert [call[0] for call in scene.records[0].socket.take()] == ["send", "close"]


def test_much_is_not_joined(scene, monkeypatch):
    """A queue takes or refuses a whole bundle, so a bundle is small."""
    monkeypatch.setattr(fanout, "_JOINED_BYTES", 5)
    scene.relay.fan_out.hold()
    for text in (b"123", b"456", b"789", b"0"):
        scene.kernel.broadcast(Kind.TEXT_MANY, text, 1)
    scene.relay.fan_out.release()
    assert heard(scene)[0] == [[b"123", b"456"], [b"789", b"0"]]


def test_states_are_never_joined(scene):
    """A slow client may be spared all but the last, so each is a message of its own."""
    scene.relay.fan_out.hold()
    scene.kernel.broadcast(Kind.STATE_MANY, b"1", 1)
    scene.kernel.broadcast(Kind.STATE_MANY, b"2", 1)
    assert heard(scene)[0] == [b"1", b"2"]


def test_who_comes_and_goes_is_heeded(scene):
    """A remembered list of recipients is looked up again when a connection came or went."""
    scene.kernel.broadcast(Kind.TEXT_MANY, b"a", 1, 2, 4)
    scene.relay.closed(scene.records[0], 1000, "", True)
    fourth = scene.open()
    scene.kernel.broadcast(Kind.TEXT_MANY, b"b", 1, 2, 4)
    assert heard(scene) == [[b"a"], [b"a", b"b"], []]
    assert [call[1][0] for call in fourth.socket.take()] == [b"b"]


def test_parked_connections_hear_nothing(scene):
    """A host that lost its link, or its class, reaches nobody by a list of before."""
    scene.kernel.broadcast(Kind.TEXT_MANY, b"a", 1)
    scene.relay.host_left(scene.kernel, 0.0)
    scene.kernel.broadcast(Kind.TEXT_MANY, b"b", 1)
    found = heard(scene)[0]
    assert found[0] == b"a"
    assert b"b" not in found


def test_another_host_uses_no_list_of_the_first(scene):
    """The same numbers, said by a host that they do not belong to, reach nobody."""
    scene.kernel.broadcast(Kind.TEXT_MANY, b"a", 1, 2)
    heard(scene)
    scene.host("k2").broadcast(Kind.TEXT_MANY, b"b", 1, 2)
    assert heard(scene) == [[], [], []]


def test_gathered_messages_of_two_hosts_are_kept_apart(scene):
    """What one host gathered is sent to its own before another's frame is looked at."""
    scene.relay.fan_out.hold()
    scene.kernel.broadcast(Kind.TEXT_MANY, b"a", 1)
    scene.host("k2").broadcast(Kind.TEXT_MANY, b"b", 1)
    scene.relay.fan_out.release()
    assert heard(scene)[0] == [b"a"]


def test_cut_off_list_breaks_the_link(scene):
    """A list shorter than it says is a fault of the host, told at that frame."""
    scene.relay.fan_out.hold()
    scene.kernel.broadcast(Kind.TEXT_MANY, b"a", 1)
    with pytest.raises(LinkError, match="TEXT_MANY"):
        scene.kernel.says(Kind.TEXT_MANY, 3, pack_numbers([1, 2]))
    scene.relay.fan_out.release()
    assert heard(scene)[0] == [b"a"]


def test_who_left_is_not_held(scene):
    """After a broadcast nothing here keeps the socket of a client that goes."""
    scene.kernel.broadcast(Kind.TEXT_MANY, b"a", 1)
    record = scene.records.pop(0)
    socket = weakref.ref(record.socket)
    scene.relay.closed(record, 1000, "", True)
    del record
    gc.collect()
    assert socket() is None


def test_memory_is_bounded(scene, monkeypatch):
    """However many different lists come, only so many recipients are remembered."""
    monkeypatch.setattr(fanout, "_REMEMBERED", 10)
    fan_out = scene.relay.fan_out
    for number in range(100):
        scene.kernel.broadcast(Kind.TEXT_MANY, b"a", 1, 2, number)
    assert sum(len(numbers) // 4 for _, numbers in fan_out._crowds) <= 10
    scene.kernel.broadcast(Kind.TEXT_MANY, b"b", *range(1, 50))
    assert heard(scene)[2][-1] == b"b"
