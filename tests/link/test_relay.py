"""The relay: who gets which frame, what waits, what is remembered, what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from jupyter_agents.errors import LinkError
from jupyter_agents.link.frames import Kind, pack_numbers
from tests.link.fakes import Scene


@pytest.fixture
def scene():
    """A relay with nobody there."""
    return Scene(waiting_bytes=200, waiting_total_bytes=300, grace_s=10.0, max_connections=5)


@pytest.fixture
def host(scene):
    """A kernel that serves ChatRoom."""
    found = scene.host(notebook="a.ipynb")
    assert found.serve() == {"agent": "chat-room"}
    return found


def opened(number, name="lobby", resumed=False, attached=None, **more):
    """The OPEN frame that a host expects."""
    word = {"id": "me", "agent": "chat-room", "name": name, "resumed": resumed}
    return ("OPEN", number, {**word, "opened_at": 0.0, **more, "attached": attached or {}})


# -- open, talk, close -------------------------------------------------------------------------


def test_open_talk_close(scene, host):
    """A connection is opened, its messages pass in order, its end is told, and it is forgotten."""
    record = scene.open(uri="u")
    scene.relay.take(record, Kind.TEXT, b"hi")
    scene.relay.take(record, Kind.BINARY, b"\0")
    scene.relay.take(record, Kind.TEXT, b"")
    scene.relay.closed(record, 4000, "bye", True)
    assert host.take() == [
        opened(1, uri="u"),
        ("TEXT", 1, b"hi"),
        ("BINARY", 1, b"\0"),
        ("TEXT", 1, b""),
        ("CLOSED", 1, (4000, "bye", True)),
    ]
    assert not scene.relay.records
    assert not scene.relay.find("chat-room").records


def test_end_is_told_once(scene, host):
    """A second end of the same socket is nothing."""
    record = scene.open()
    scene.relay.closed(record, 1000, "", True)
    scene.relay.closed(record, 1006, "", False)
    assert [frame[0] for frame in host.take()] == ["OPEN", "CLOSED"]


def test_broken_rule_is_told_before_the_end(scene, host):
    """The host learns why a connection was cut, then that it is gone."""
    record = scene.open()
    scene.relay.failed(record, "text is not UTF-8 \ud800")
    scene.relay.closed(record, 1007, "", False)
    assert host.take()[1:] == [
        ("FAILED", 1, b"text is not UTF-8 ?"),
        ("CLOSED", 1, (1007, "", False)),
    ]


def test_reason_that_is_no_text(scene, host):
    """A reason that UTF-8 cannot carry does not break the link."""
    scene.relay.closed(scene.open(), 1000, "x\ud800", True)
    assert host.take()[-1] == ("CLOSED", 1, (1000, "x?", True))


@pytest.mark.parametrize(
    ("kind", "wrapped"),
    [
        (Kind.TEXT, (b"x", False, False)),
        (Kind.BINARY, (b"x", True, False)),
    ],
)
def test_message_to_one(scene, host, kind, wrapped):
    """A message reaches its connection, with what the socket needs to know of it."""
    one, other = scene.open(), scene.open()
    host.says(kind, one.number, b"x")
    assert one.socket.take() == [("send", wrapped)]
    assert other.socket.take() == []


@pytest.mark.parametrize(
    ("kind", "wrapped"),
    [
        (Kind.TEXT_MANY, (b"x", False, False)),
        (Kind.BINARY_MANY, (b"x", True, False)),
        (Kind.STATE_MANY, (b"x", False, True)),
    ],
)
def test_broadcast_is_wrapped_once(scene, host, kind, wrapped):
    """One object goes to every recipient, unknown ones are skipped, and nobody else gets it."""
    records = [scene.open() for _ in range(4)]
    host.broadcast(kind, b"x", 1, 99, 3, 4)
    found = [record.socket.take() for record in records]
    assert found == [[("send", wrapped)], [], [("send", wrapped)], [("send", wrapped)]]
    assert scene.wrapped == 1
    assert found[0][0][1] is found[2][0][1]


def test_broadcast_to_nobody(scene, host):
    """A broadcast without recipients is fine."""
    host.broadcast(Kind.TEXT_MANY, b"x")
    assert scene.wrapped == 1


def test_host_closes(scene, host):
    """A close reaches the socket with code and reason."""
    record = scene.open()
    host.close(1, 4001, "Größe")
    assert record.socket.take() == [("close", 4001, "Größe")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
def test_close_codes_are_checked(scene, host, code):
    """A code that may not stand on the wire never reaches a socket."""
    record = scene.open()
    with pytest.raises(LinkError, match="CLOSE frame"):
        host.close(1, code)
    assert record.socket.take() == []


@pytest.mark.parametrize(
    "frame",
    [
        (Kind.TEXT, 1, b"x"),
        (Kind.BINARY, 1, b"x"),
        (Kind.TEXT_MANY, 1, pack_numbers([1]) + b"x"),
        (Kind.STATE_MANY, 1, pack_numbers([1]) + b"x"),
        (Kind.CLOSE, 1, struct.pack(">H", 1000)),
        (Kind.ATTACH, 1, b'{"accepted":true}'),
        (Kind.HOLD, 1, b""),
        (Kind.RELEASE, 1, b""),
        (Kind.WITHDRAW, 0, b'{"agent":"chat-room"}'),
        (Kind.INSTANCE, 0, b'{"agent":"chat-room","name":"x","state":"awake"}'),
    ],
)
def test_foreign_hosts_frames_do_nothing(scene, host, frame):
    """A host reaches its own connections and classes only, whatever numbers it names."""
    record = scene.open()
    other = scene.host("k2")
    other.says(*frame)
    assert record.socket.take() == []
    assert record.attached == {}
    assert record.held is False
    assert scene.relay.find("chat-room").instances == {}


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (0, b""),
        (99, b""),
        (Kind.OPEN, b"{}"),
        (Kind.CLOSED, b""),
        (Kind.SERVED, b"{}"),
        (Kind.HELLO, b"{}"),
        (Kind.TEXT_MANY, b"abc"),
        (Kind.CLOSE, b""),
        (Kind.CLOSE, b"\x03"),
        (Kind.ATTACH, b"[]"),
        (Kind.ATTACH, b"x"),
        (Kind.RESPONSE, b"xyz"),
        (Kind.RESPONSE, b"\x00\x00\x00\x09{}"),
        (Kind.ANSWER, b"1"),
        (Kind.SERVE, b"{}"),
        (Kind.SERVE, b'{"agent":"a","class":"A"}'),
        (Kind.SERVE, b'{"agent":"a","class":"A","spellings":7}'),
        (Kind.SERVE, b'{"agent":["a"],"class":"A","spellings":[]}'),
        (Kind.SERVE, b'{"agent":"a","class":"A","spellings":["a"],"options":1}'),
        (Kind.WITHDRAW, b"{}"),
        (Kind.INSTANCE, b'{"agent":"chat-room"}'),
        (Kind.INSTANCE, b'{"agent":"chat-room","name":"x"}'),
    ],
)
def test_nonsense_is_a_link_error(scene, host, kind, payload):
    """A frame that is malformed, or not a host's to send, is an error and changes nothing."""
    record = scene.open()
    with pytest.raises(LinkError):
        host.says(kind, 1, payload)
    assert list(scene.relay.served) == ["chat-room"]
    assert record.socket.take() == []
    assert record.attached == {}


def test_unknown_numbers_are_ignored(scene, host):
    """Frames for a connection that has just gone are nothing."""
    scene.relay.closed(scene.open(), 1000, "", True)
    host.says(Kind.TEXT, 1, b"x")
    host.says(Kind.HOLD, 1)
    host.says(Kind.RELEASE, 1)
    host.says(Kind.ATTACH, 1, {"accepted": True})
    host.close(1, 1000)
    host.says(Kind.RESPONSE, 1, b"\x00\x00\x00\x02{}")


# -- who serves --------------------------------------------------------------------------------


def test_serve_is_refused_in_words(scene, host):
    """A second kernel hears whose class it is, and takes nothing."""
    other = scene.host("k2")
    assert "served already, by a.ipynb" in other.serve()["error"]
    assert scene.relay.find("chat-room").host is host


def test_cell_run_again(scene, host):
    """Serving again from the same kernel changes the options and nothing for the connections."""
    record = scene.open()
    host.take()
    assert host.serve(options={"gate": True}) == {"agent": "chat-room"}
    assert scene.relay.find("chat-room").options == {"gate": True}
    assert host.take() == []
    assert record.socket.take() == []


def test_takeover(scene, host):
    """A kernel that takes over says so; the first one hears it, the connections go over."""
    record = scene.open()
    host.accept(1, state="1")
    waiting = scene.open(id="new")
    asked = []
    scene.relay.request(
        scene.relay.find("chat-room"), {}, b"", lambda about, body: asked.append(about), 0.0
    )
    host.take()
    other = scene.host("k2")
    assert other.serve(takeover=True) == {"agent": "chat-room"}
    assert host.take() == [("TAKEN", 0, {"agent": "chat-room"})]
    assert asked == [{"status": 503, "error": "The agent is away"}]
    accepted = {"accepted": True, "state": "1"}
    assert other.take() == [
        opened(1, resumed=True, attached=accepted),
        ("OPEN", 2, {**opened(2)[2], "id": "new"}),
    ]
    host.says(Kind.TEXT, 1, b"from the past")
    assert ("send", (b"from the past", False, False)) not in record.socket.take()
    scene.relay.take(waiting, Kind.TEXT, b"x")
    assert (host.take(), other.take()) == ([], [("TEXT", 2, b"x")])


def test_withdraw(scene, host):
    """A class that its host withdraws is gone: clients are sent away, requests answered."""
    record = scene.open()
    answers = []
    served = scene.relay.find("chat-room")
    scene.relay.ask(served, {"do": "x"}, lambda about, body: answers.append(about), 0.0)
    host.says(Kind.WITHDRAW, 0, {"agent": "chat-room", "reason": "Stopped by ann"})
    assert record.socket.take() == [("close", 1001, "Stopped by ann")]
    assert answers == [{"status": 503, "error": "The agent is away"}]
    assert not scene.relay.served
    host.take()
    scene.relay.closed(record, 1001, "", True)
    assert host.take() == [("CLOSED", 1, (1001, "", True))]
    assert not scene.relay.records
    late = scene.relay.open(served, "x", "me", type(record.socket)(), {}, 0.0)
    assert late.socket.take() == [("close", 1013, "Try again later")]
    assert not scene.relay.records


def test_instances_are_listed(scene, host):
    """What the host says of its instances is kept, until it says that they are gone."""
    served = scene.relay.find("chat-room")
    for name, state in (("a", "awake"), ("b", "asleep"), ("a", "asleep"), ("b", "gone")):
        host.says(Kind.INSTANCE, 0, {"agent": "chat-room", "name": name, "state": state})
    assert served.instances == {"a": "asleep"}
    host.says(Kind.INSTANCE, 0, {"agent": "nobody", "name": "a", "state": "awake"})
    scene.relay.host_left(host, 0.0)
    host.serve()
    assert served.instances == {}


# -- parking -----------------------------------------------------------------------------------


def test_park_and_resume(scene, host):
    """While the kernel is away messages wait; it comes back to its connections and their state."""
    record, half_open = scene.open(), scene.open(id="new")
    host.accept(1, state="1", tags=["me"])
    host.says(Kind.ATTACH, 2, {"state": "not accepted yet"})
    host.take()
    scene.relay.host_left(host, 5.0)
    scene.relay.take(record, Kind.TEXT, b"one")
    scene.relay.take(record, Kind.BINARY, b"two")
    scene.relay.take(half_open, Kind.TEXT, b"three")
    assert host.take() == []
    again = scene.host("k1")
    again.serve()
    attached = {"accepted": True, "state": "1", "tags": ["me"]}
    assert again.take() == [
        opened(1, resumed=True, attached=attached),
        ("TEXT", 1, b"one"),
        ("BINARY", 1, b"two"),
        ("OPEN", 2, {**opened(2)[2], "id": "new"}),
        ("TEXT", 2, b"three"),
    ]
    scene.relay.take(record, Kind.TEXT, b"four")
    assert again.take() == [("TEXT", 1, b"four")]


def test_open_while_parked(scene, host):
    """A client that comes while the kernel is away waits, and is opened as new."""
    scene.relay.host_left(host, 0.0)
    record = scene.open()
    scene.relay.take(record, Kind.TEXT, b"early")
    host.serve()
    assert host.take() == [opened(1), ("TEXT", 1, b"early")]


def test_gone_while_parked(scene, host):
    """An end while the kernel is away is told when it is back, behind the messages."""
    record = scene.open()
    host.accept(1)
    host.take()
    scene.relay.host_left(host, 0.0)
    scene.relay.take(record, Kind.TEXT, b"last")
    scene.relay.closed(record, 4000, "bye", True)
    scene.relay.take(record, Kind.TEXT, b"after the end")
    assert scene.relay.records
    host.serve()
    assert host.take() == [
        opened(1, resumed=True, attached={"accepted": True}),
        ("TEXT", 1, b"last"),
        ("CLOSED", 1, (4000, "bye", True)),
    ]
    assert not scene.relay.records


def test_gone_before_it_was_accepted(scene, host):
    """A connection whose on_connect never ended is owed nothing."""
    record = scene.open()
    scene.relay.host_left(host, 0.0)
    scene.relay.closed(record, 1006, "", False)
    assert not scene.relay.records
    host.take()
    host.serve()
    assert host.take() == []


def test_ends_that_are_owed_are_limited():
    """Only so many ends are remembered for a kernel that is away."""
    scene = Scene(max_parked_gone=2)
    host = scene.host()
    host.serve()
    records = [scene.open() for _ in range(3)]
    for record in records:
        host.accept(record.number)
    scene.relay.host_left(host, 0.0)
    for record in records:
        scene.relay.closed(record, 1000, "", True)
    assert sorted(scene.relay.records) == [1, 2]
    host.take()
    host.serve()
    assert [f[:2] for f in host.take()] == [
        ("OPEN", 1), ("CLOSED", 1), ("OPEN", 2), ("CLOSED", 2),
    ]  # fmt: skip
    again = scene.open()
    host.accept(again.number)
    scene.relay.host_left(host, 0.0)
    scene.relay.closed(again, 1000, "", True)
    assert scene.relay.records


def test_too_much_waits_for_one(scene, host):
    """A client that sends more than may wait is closed 1013, the others stay."""
    one, other = scene.open(), scene.open()
    scene.relay.host_left(host, 0.0)
    one.socket.take()
    other.socket.take()
    scene.relay.take(one, Kind.TEXT, b"x" * 136)
    assert one.socket.take() == []
    scene.relay.take(one, Kind.TEXT, b"")
    [(what, code, _)] = one.socket.take()
    assert (what, code) == ("close", 1013)
    scene.relay.take(other, Kind.TEXT, b"x")
    assert other.socket.take() == []
    assert ("drop", scene.events[-1][1])[0] == scene.events[-1][0]


def test_too_much_waits_in_all(scene, host):
    """All connections together have a limit, too; what leaves makes room."""
    records = [scene.open() for _ in range(3)]
    scene.relay.host_left(host, 0.0)
    for record in records:
        record.socket.take()
        scene.relay.take(record, Kind.TEXT, b"x" * 36)
    assert [record.socket.take() for record in records] == [[], [], []]
    scene.relay.take(records[0], Kind.TEXT, b"x")
    assert records[0].socket.take()[0][1] == 1013
    scene.relay.closed(records[0], 1013, "", True)
    scene.relay.take(records[1], Kind.TEXT, b"x")
    assert records[1].socket.take() == []
    host.serve()
    scene.relay.host_left(host, 0.0)
    records[1].socket.take()
    scene.relay.take(records[1], Kind.TEXT, b"x" * 100)
    assert records[1].socket.take() == []


@pytest.mark.parametrize(("after", "is_closed"), [(9.9, False), (10.0, True)])
def test_grace_ends(scene, host, after, is_closed):
    """Connections wait for the grace time and are closed with 1012 then; the class is gone."""
    record = scene.open()
    scene.relay.host_left(host, 100.0)
    record.socket.take()
    scene.relay.tick(100.0 + after)
    closed = [("close", 1012, "The agent's kernel is gone")]
    assert record.socket.take() == (closed if is_closed else [])
    assert bool(scene.relay.served) is not is_closed


def test_grace_begins_anew(scene, host):
    """A kernel that came back and left again has the whole time again."""
    scene.open()
    scene.relay.host_left(host, 0.0)
    host.serve()
    scene.relay.tick(50.0)
    scene.relay.host_left(host, 50.0)
    scene.relay.tick(59.0)
    assert scene.relay.served


def test_ends_after_the_grace(scene, host):
    """When the grace ends, what was owed is forgotten and what closes later leaves nothing."""
    gone, open_still = scene.open(), scene.open()
    for record in (gone, open_still):
        host.accept(record.number)
    scene.relay.host_left(host, 0.0)
    scene.relay.take(gone, Kind.TEXT, b"x")
    scene.relay.closed(gone, 1000, "", True)
    scene.relay.tick(10.0)
    assert list(scene.relay.records) == [open_still.number]
    scene.relay.closed(open_still, 1012, "", True)
    assert not scene.relay.records
    host.serve()
    scene.relay.host_left(host, 0.0)
    for _ in range(3):
        scene.relay.take(scene.open(), Kind.TEXT, b"x" * 30)
    assert len(scene.relay.records) == 3


def test_forgotten_kernel(scene, host):
    """A kernel that is gone for good takes what it left with it, and only that."""
    record = scene.open()
    scene.relay.forget_host("k1")
    assert scene.relay.served
    scene.relay.host_left(host, 0.0)
    record.socket.take()
    scene.relay.forget_host("k2")
    assert record.socket.take() == []
    scene.relay.forget_host("k1")
    assert record.socket.take() == [("close", 1012, "The agent's kernel is gone")]
    assert not scene.relay.served


def test_only_its_own_classes_are_parked(scene, host):
    """A kernel that leaves takes nothing of another's."""
    other = scene.host("k2")
    other.serve("Counter", "counter")
    scene.relay.host_left(host, 0.0)
    assert scene.relay.find("counter").host is other
    assert scene.relay.find("chat-room").host is None


# -- back-pressure -----------------------------------------------------------------------------


def test_full_link_pauses_its_own(scene, host):
    """A full link has its own sockets wait; then those go on that are not held."""
    one, two = scene.open(), scene.open()
    other = scene.host("k2")
    other.serve("Counter", "counter")
    elsewhere = scene.open(agent="counter")
    host.says(Kind.HOLD, two.number)
    for record in (one, two, elsewhere):
        record.socket.take()
    host.full = True
    scene.relay.host_full(host, True)
    assert [r.socket.take() for r in (one, two, elsewhere)] == [[("pause",)], [("pause",)], []]
    host.full = False
    scene.relay.host_full(host, False)
    assert [r.socket.take() for r in (one, two, elsewhere)] == [[("resume",)], [], []]


def test_open_on_a_full_link(scene, host):
    """A socket that opens while the link is full waits from the start."""
    host.full = True
    assert scene.open().socket.take() == [("pause",)]


def test_release_while_the_link_is_full(scene, host):
    """A released connection goes on only when its link takes frames again."""
    record = scene.open()
    host.says(Kind.HOLD, 1)
    host.full = True
    host.says(Kind.RELEASE, 1)
    assert record.socket.take() == [("pause",)]
    host.full = False
    scene.relay.host_full(host, False)
    assert record.socket.take() == [("resume",)]


def test_parked_connections_are_read(scene, host):
    """A held connection is read again when its kernel is gone, so that its end is noticed."""
    record = scene.open()
    host.accept(1)
    host.says(Kind.HOLD, 1)
    record.socket.take()
    scene.relay.host_left(host, 0.0)
    assert record.socket.take() == [("resume",)]
    host.serve()
    assert record.held is False


def test_requests_wait_for_a_full_link(scene, host):
    """HTTP does not pile up on a link that is full; it goes out when there is room."""
    served = scene.relay.find("chat-room")
    host.full = True
    scene.relay.request(served, {"request": 1}, b"body", lambda about, body: None, 0.0)
    assert host.take() == []
    host.full = False
    scene.relay.host_full(host, False)
    assert host.take() == [("REQUEST", 1, ({"request": 1}, b"body"))]


# -- limits and ends ---------------------------------------------------------------------------


def test_connections_are_limited(scene, host):
    """One connection too many is closed with 1013 and not opened; one that ends makes room."""
    records = [scene.open() for _ in range(5)]
    late = scene.open()
    assert late.socket.take() == [("close", 1013, "Try again later")]
    scene.relay.take(late, Kind.TEXT, b"x")
    scene.relay.closed(late, 1013, "", True)
    assert len([f for f in host.take() if f[0] == "OPEN"]) == 5
    scene.relay.closed(records[0], 1000, "", True)
    assert scene.open().socket.take() == []


def test_stop(scene, host):
    """A stopping server sends everyone away and answers every request."""
    record = scene.open()
    answers = []
    served = scene.relay.find("chat-room")
    scene.relay.request(served, {}, b"", lambda about, body: answers.append(about["status"]), 0.0)
    scene.relay.stop()
    assert record.socket.take() == [("close", 1001, "Server is shutting down")]
    assert answers == [503]


def test_response_carries_object_and_body(scene, host):
    """HTTP's answer arrives with its body; an action's with its object."""
    answers = []
    served = scene.relay.find("chat-room")
    for put in (
        lambda answer: scene.relay.request(served, {"a": 1}, b"in", answer, 0.0),
        lambda answer: scene.relay.ask(served, {"do": "x"}, answer, 0.0),
    ):
        put(lambda about, body: answers.append((about, body)))
    assert host.take() == [("REQUEST", 1, ({"a": 1}, b"in")), ("ASK", 2, {"do": "x"})]
    host.respond(1, {"status": 201}, b"out")
    host.says(Kind.ANSWER, 2, {"done": True})
    assert answers == [({"status": 201}, b"out"), ({"done": True}, b"")]


def test_events(scene, host):
    """Observers hear of each change with facts that JSON can carry."""
    record = scene.open()
    host.says(Kind.INSTANCE, 0, {"agent": "chat-room", "name": "lobby", "state": "awake"})
    host.accept(1)
    scene.relay.host_left(host, 0.0)
    host.serve()
    scene.relay.closed(record, 1000, "bye", True)
    host.says(Kind.WITHDRAW, 0, {"agent": "chat-room"})
    me = {"agent": "chat-room", "name": "lobby", "id": "me"}
    where = {"agent": "chat-room", "where": "a.ipynb", "class": "ChatRoom"}
    assert scene.events == [
        ("serve", where),
        ("open", me),
        ("instance", {"agent": "chat-room", "name": "lobby", "state": "awake"}),
        ("park", {"agent": "chat-room", "connections": 1}),
        ("serve", where),
        ("resume", {"agent": "chat-room", "connections": 1}),
        ("close", {**me, "code": 1000, "reason": "bye"}),
        ("withdraw", {"agent": "chat-room", "code": 1001}),
    ]


# -- any course of events ----------------------------------------------------------------------


class Ledger:
    """What one host's world looks like if the relay keeps its promises."""

    def __init__(self, host):
        self.host = host
        self.open = set()
        self.got = {}

    def read(self):
        """Take in the new frames; every one must make sense to a host that has just started."""
        for kind, number, value in self.host.take():
            if kind == "OPEN":
                assert number not in self.open
                self.open.add(number)
                self.got.setdefault(number, [])
            elif kind == "CLOSED":
                self.open.remove(number)
            elif kind == "TEXT":
                assert number in self.open
                self.got[number].append(int(value))


class AnyCourse(RuleBasedStateMachine):
    """Clients and kernels come and go: order holds, nothing twice, nothing forgotten."""

    clients = Bundle("clients")

    @initialize()
    def begin(self):
        self.scene = Scene(waiting_bytes=2000, waiting_total_bytes=4000, grace_s=10.0)
        self.relay = self.scene.relay
        self.ledger = None
        self.sent = {}
        self.delivered = {}
        self.now = 0.0
        self.kernel_comes()

    @rule(target=clients)
    def client_comes(self):
        try:
            record = self.scene.open(now=self.now)
        except LookupError:
            return None
        self.sent[record.number] = 0
        return record

    @rule(client=clients, count=st.integers(1, 3))
    def client_speaks(self, client, count):
        if client is None or client.gone is not None:
            return
        for _ in range(count):
            if ("close", 1013, "The agent is away, too much is waiting") in client.socket.calls:
                return
            self.sent[client.number] += 1
            self.relay.take(client, Kind.TEXT, b"%d" % self.sent[client.number])

    @rule(client=consumes(clients))
    def client_goes(self, client):
        if client is not None:
            self.relay.closed(client, 1000, "", True)

    @rule(client=clients)
    def agent_accepts(self, client):
        if client is not None and self.ledger is not None:
            self.ledger.host.accept(client.number)

    @rule(client=clients, hold=st.booleans())
    def agent_holds(self, client, hold):
        if client is not None and self.ledger is not None:
            self.ledger.host.says(Kind.HOLD if hold else Kind.RELEASE, client.number)

    @rule()
    def kernel_goes(self):
        if self.ledger is not None:
            self.relay.host_left(self.ledger.host, self.now)
            self._settle()
            self.ledger = None

    @rule()
    def kernel_comes(self):
        if self.ledger is None:
            self.ledger = Ledger(self.scene.host())
            assert "error" not in self.ledger.host.serve()

    @rule()
    def kernel_withdraws(self):
        if self.ledger is not None:
            self.ledger.host.says(Kind.WITHDRAW, 0, {"agent": "chat-room"})
            assert "error" not in self.ledger.host.serve()

    @rule(seconds=st.floats(0.0, 11.0))
    def time_passes(self, seconds):
        self.now += seconds
        self.relay.tick(self.now)

    def _settle(self):
        self.ledger.read()
        for number, got in self.ledger.got.items():
            self.delivered.setdefault(number, []).extend(got)
            got.clear()

    @invariant()
    def order_holds_and_nothing_comes_twice(self):
        if self.ledger is not None:
            self._settle()
        for number, got in self.delivered.items():
            assert got == list(range(1, len(got) + 1))
            assert len(got) <= self.sent[number]

    @invariant()
    def a_living_kernel_has_everything(self):
        if self.ledger is None:
            return
        self._settle()
        attached = {r.number for r in self.relay.records.values() if r.host is self.ledger.host}
        assert attached == self.ledger.open
        for number in attached:
            assert len(self.delivered.get(number, [])) == self.sent[number]

    @invariant()
    def the_books_are_right(self):
        records = list(self.relay.records.values())
        news = 64 + 3  # that a client is gone is kept in any case
        owed = sum(r.gone is not None for r in records)
        assert self.relay._inbound._bytes == sum(r.set_aside for r in records)
        assert self.relay._inbound._bytes <= 4000 + news * owed
        assert len(self.relay._owed) == owed
        for record in records:
            assert record.kept_bytes == sum(len(p) + 64 for _, p in record.kept.values())
            assert record.kept_bytes <= 2000 + news * (record.gone is not None)
            assert record.host is None or not record.kept
            assert record.served.records[record.number] is record
            assert record.gone is None or record.host is None


AnyCourse.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyCourse = AnyCourse.TestCase
