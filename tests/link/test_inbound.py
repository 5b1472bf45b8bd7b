"""What is kept of what clients sent: `jupyter_agents.link.inbound`, through the relay."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jupyter_agents.link.frames import Kind, pack_settled
from jupyter_agents.link.marks import MARK_BYTES, Marks
from tests.link.fakes import FakeHost, Scene


class Kernel:
    """A host that says what it began and what ended, one message at a time.

    Parameters
    ----------
    session : str
        One life of it; a link that breaks does not end it.
    late : bool
        Messages are settled when they end (``at_least_once``), not when they begin.
    """

    def __init__(self, scene: Scene, session: str, *, late: bool = False) -> None:
        self.scene = scene
        self.session = session
        self.late = late
        self.inbox: dict[int, list[tuple[str, bytes]]] = {}
        self.taken: dict[int, int] = {}
        self.running: set[tuple[int, int]] = set()
        self.slots: dict[int, tuple[memoryview, int]] = {}
        self.connect()

    def connect(self, slots: int = 64) -> None:
        self.host: FakeHost = self.scene.host()
        self.host.ledger = Marks(bytearray(slots * MARK_BYTES))
        assert "error" not in self.host.serve(session=self.session)

    def read(self) -> None:
        """Take everything from the link."""
        for kind, number, value in self.host.take():
            if kind == "OPEN":
                self._opened(number, value)
            elif kind in ("TEXT", "CLOSED"):
                self.inbox[number].append((kind, value))
            elif kind == "PROBE":
                self.host.says(Kind.PROBE, number)

    def _opened(self, number: int, about: dict) -> None:
        if about.get("returning") and number not in self.taken:
            self.host.says(Kind.ATTACH, number, {"arrived": -1})
            self.read()
        elif about.get("returning"):
            arrived = self.taken[number] + len(self.inbox[number])
            waiting = range(self.taken[number] + 1, arrived + 1)
            running = [ordinal for n, ordinal in self.running if n == number]
            word = {"arrived": arrived, "unsettled": [*running, *waiting]}
            self.host.says(Kind.ATTACH, number, word)
        else:
            self.inbox[number], self.taken[number] = [], 0
            self.slots[number] = self.host.ledger.numbers, about["slot"]

    def _mark(self, number: int) -> None:
        if not self.late:
            numbers, slot = self.slots[number]
            numbers[slot] = self.taken[number]

    def begin(self, number: int) -> tuple[int, str, bytes] | None:
        """Begin with the next message of a connection; returns its ordinal and what it is."""
        if not self.inbox.get(number):
            return None
        kind, value = self.inbox[number].pop(0)
        self.taken[number] += 1
        self._mark(number)
        if self.late:
            self.running.add((number, self.taken[number]))
        return self.taken[number], kind, value

    def end(self, number: int, ordinal: int) -> None:
        """A handler has ended, and its turn's frames leave."""
        self.running.discard((number, ordinal))
        self.host.says(Kind.SETTLED, 1, pack_settled([(number, ordinal, 1)]))

    def begin_all(self) -> list[bytes]:
        """Read and begin everything; returns the texts."""
        self.read()
        found = []
        for number in self.inbox:
            while (one := self.begin(number)) is not None:
                found.append(one[2])
        return found

    def lose_link(self) -> None:
        """What was on its way is lost."""
        self.host.take()
        self.scene.relay.host_left(self.host, 0.0)


@pytest.fixture
def scene() -> Scene:
    """A relay that keeps 1000 bytes of one connection and 1500 of all."""
    return Scene(waiting_bytes=1000, waiting_total_bytes=1500, max_parked_gone=2)


def accepted(scene: Scene, kernel: Kernel):
    """A connection whose on_connect has ended."""
    record = scene.open()
    kernel.read()
    kernel.host.accept(record.number)
    return record


def test_message_that_was_not_read_comes_again(scene):
    """A kernel dies before it reads: its successor gets the message, in order."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    for text in (b"1", b"2"):
        scene.relay.take(record, Kind.TEXT, text)
    kernel.lose_link()
    scene.relay.take(record, Kind.TEXT, b"3")
    assert Kernel(scene, "two").begin_all() == [b"1", b"2", b"3"]


def test_message_that_was_begun_does_not_come_again(scene):
    """A kernel dies in a handler: what it began is not sent again, the rest is."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    for text in (b"1", b"2", b"3"):
        scene.relay.take(record, Kind.TEXT, text)
    kernel.read()
    kernel.begin(record.number)
    kernel.begin(record.number)
    kernel.lose_link()
    assert Kernel(scene, "two").begin_all() == [b"3"]


def test_message_that_has_not_ended_comes_again_where_that_is_chosen(scene):
    """At least once: of two that were begun, the one that ended is settled."""
    kernel = Kernel(scene, "one", late=True)
    record = accepted(scene, kernel)
    for text in (b"1", b"2"):
        scene.relay.take(record, Kind.TEXT, text)
    kernel.read()
    kernel.begin(record.number)
    ordinal, _, _ = kernel.begin(record.number)
    kernel.end(record.number, ordinal)
    kernel.lose_link()
    assert Kernel(scene, "two", late=True).begin_all() == [b"1"]


def test_client_that_goes_right_after_it_sent_is_not_forgotten(scene):
    """Its message and the news of its end outlive the kernel that had not begun with them."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    scene.relay.take(record, Kind.TEXT, b"last")
    scene.relay.closed(record, 1000, "bye", True)
    kernel.lose_link()
    successor = Kernel(scene, "two")
    assert successor.begin_all() == [b"last", (1000, "bye", True)]
    scene.relay.tick(1.0)
    assert scene.relay.records == {}


def test_client_that_is_gone_is_forgotten_when_its_agent_heard_of_it(scene):
    """The host's answer to the probe behind the CLOSED is enough: no tick is needed."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    scene.relay.closed(record, 1000, "", True)
    assert record.number in scene.relay.records
    frames = kernel.host.take()
    assert [kind for kind, _, _ in frames] == ["CLOSED", "PROBE"]
    kernel.host.ledger.numbers[record.slot] = 1
    kernel.host.says(Kind.PROBE, record.number)
    assert scene.relay.records == {}


def test_only_so_many_ends_are_remembered(scene):
    """Past `max_parked_gone` a host is told of an end, and it is not remembered."""
    kernel = Kernel(scene, "one")
    records = [accepted(scene, kernel) for _ in range(3)]
    for record in records:
        scene.relay.closed(record, 1000, "", True)
    assert list(scene.relay.records) == [records[0].number, records[1].number]
    assert [f[0] for f in kernel.host.take() if f[1] == records[2].number] == ["CLOSED"]


def test_client_waits_while_its_agent_has_much_to_do(scene):
    """Past the limit a client is not read until the agent has begun; it is never given up."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    record.socket.take()
    scene.relay.take(record, Kind.TEXT, b"x" * 900)
    assert record.socket.take() == []
    scene.relay.take(record, Kind.TEXT, b"y" * 900)
    assert record.socket.take() == [("pause",)]
    kernel.read()
    assert record.socket.take() == []
    assert kernel.begin_all() == [b"x" * 900, b"y" * 900]
    scene.relay.tick(1.0)
    assert record.socket.take() == [("resume",)]


def test_busy_agent_that_keeps_pace_makes_nobody_wait(scene):
    """What was begun counts no more at the limit, and is not kept."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    record.socket.take()
    for _ in range(50):
        scene.relay.take(record, Kind.TEXT, b"x" * 300)
        kernel.begin_all()
    assert record.socket.take() == []
    assert len(record.kept) == 1
    scene.relay.tick(1.0)
    assert record.kept == {}
    assert scene.relay._inbound._holding == {}


def test_much_of_others_makes_a_client_wait_for_its_own(scene):
    """Where all together keep too much, each goes on as soon as its own is begun."""
    kernel = Kernel(scene, "one")
    records = [accepted(scene, kernel) for _ in range(3)]
    for record in records:
        record.socket.take()
        scene.relay.take(record, Kind.TEXT, b"x" * 600)
    assert [r.socket.take() for r in records] == [[], [], [("pause",)]]
    kernel.read()
    kernel.begin(records[2].number)
    scene.relay.tick(1.0)
    assert [r.socket.take() for r in records] == [[], [], [("resume",)]]


def test_what_is_set_aside_counts_for_nobody_elses_limit():
    """Room that others have and do not use makes no client wait, and closes none."""
    scene = Scene(waiting_bytes=50_000, waiting_total_bytes=60_000)
    kernel = Kernel(scene, "one")
    busy = [accepted(scene, kernel) for _ in range(12)]
    for record in busy:
        scene.relay.take(record, Kind.TEXT, b"hi")
    kernel.begin_all()
    assert scene.relay._inbound._bytes > 40_000
    last = accepted(scene, kernel)
    last.socket.take()
    scene.relay.take(last, Kind.TEXT, b"x" * 40_000)
    assert last.socket.take() == []
    assert scene.relay._inbound._bytes == last.set_aside
    kernel.lose_link()
    last.socket.take()
    scene.relay.take(last, Kind.TEXT, b"x" * 9_000)
    assert last.socket.take() == []


def test_kernel_that_goes_lets_waiting_clients_speak(scene):
    """Parked, a client that had to wait is read again: 1013 tells it when too much waits."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    scene.relay.take(record, Kind.TEXT, b"x" * 2000)
    record.socket.take()
    kernel.lose_link()
    assert record.socket.take() == [("resume",)]
    scene.relay.take(record, Kind.TEXT, b"y")
    [(what, code, _)] = record.socket.take()
    assert (what, code) == ("close", 1013)


def test_taken_over_messages_stay_with_the_old_kernel(scene):
    """A kernel that lives on has what it was sent; the one that takes over gets what follows."""
    old = Kernel(scene, "one")
    record = accepted(scene, old)
    scene.relay.take(record, Kind.TEXT, b"old")
    new = scene.host("k2")
    new.ledger = Marks(bytearray(8 * MARK_BYTES))
    assert "error" not in new.serve(session="two", takeover=True)
    scene.relay.take(record, Kind.TEXT, b"new")
    assert [value for kind, _, value in new.take() if kind == "TEXT"] == [b"new"]


def test_host_without_a_mark_for_it_gets_everything_once(scene):
    """Where no mark is left, a message counts as begun when it is sent, unless ends are told."""
    kernel = Kernel(scene, "one")
    kernel.lose_link()
    kernel.connect(slots=1)
    first, second = scene.open(), scene.open()
    for record in (first, second):
        scene.relay.take(record, Kind.TEXT, b"x")
    assert (len(first.kept), len(second.kept)) == (1, 0)
    assert "error" not in kernel.host.serve(session=kernel.session, marks=False)
    third = scene.open()
    scene.relay.take(third, Kind.TEXT, b"x")
    assert len(third.kept) == 1


def test_settled_frames_of_a_stranger_settle_nothing(scene):
    """A host speaks of its own connections only, and of what was sent to them."""
    kernel = Kernel(scene, "one", late=True)
    record = accepted(scene, kernel)
    scene.relay.take(record, Kind.TEXT, b"x")
    stranger = scene.host("k2")
    stranger.says(Kind.SETTLED, 1, pack_settled([(record.number, 1, 1)]))
    assert len(record.kept) == 1
    kernel.host.says(Kind.SETTLED, 2, pack_settled([(999, 1, 1), (record.number, 1, 2**32 - 1)]))
    assert record.kept == {}


def test_returning_host_goes_on_where_it_was(scene):
    """The link broke, the kernel lives: nothing is lost, nothing comes twice."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    for text in (b"1", b"2"):
        scene.relay.take(record, Kind.TEXT, text)
    kernel.read()
    kernel.begin(record.number)
    scene.relay.take(record, Kind.TEXT, b"3")
    kernel.lose_link()
    scene.relay.take(record, Kind.TEXT, b"4")
    kernel.connect()
    scene.relay.take(record, Kind.TEXT, b"5")
    assert record.host is None
    assert kernel.begin_all() == [b"2"]
    assert record.host is kernel.host
    assert kernel.begin_all() == [b"3", b"4", b"5"]


def test_what_ended_while_the_link_was_broken_is_settled_on_return(scene):
    """A returning host need not repeat what nobody heard: it says what has not ended."""
    kernel = Kernel(scene, "one", late=True)
    record = accepted(scene, kernel)
    for text in (b"1", b"2", b"3"):
        scene.relay.take(record, Kind.TEXT, text)
    kernel.read()
    kernel.begin(record.number)
    kernel.begin(record.number)
    kernel.lose_link()
    kernel.end(record.number, 1)
    kernel.connect()
    assert kernel.begin_all() == [b"3"]
    kernel.lose_link()
    assert Kernel(scene, "two", late=True).begin_all() == [b"2", b"3"]


def test_returning_host_that_forgot_is_given_the_connection_anew(scene):
    """A host may say that it knows nothing of it: then it gets all that is kept."""
    kernel = Kernel(scene, "one")
    record = accepted(scene, kernel)
    scene.relay.take(record, Kind.TEXT, b"1")
    kernel.lose_link()
    kernel.connect()
    kernel.host.take()
    kernel.host.says(Kind.ATTACH, record.number, {"accepted": True})
    assert record.host is None
    kernel.host.says(Kind.ATTACH, record.number, {"arrived": -1})
    assert record.host is kernel.host
    frames = kernel.host.take()
    assert [frame[:2] for frame in frames] == [("OPEN", record.number), ("TEXT", record.number)]
    assert frames[0][2]["resumed"]
    assert "returning" not in frames[0][2]


class Messages(RuleBasedStateMachine):
    """Whatever happens to kernels and links, each message is begun once, in order.

    Where handlers are cut off by a death, ``late`` kernels begin them again.
    """

    late = False

    @initialize()
    def begin(self):
        self.scene = Scene(waiting_bytes=10**6)
        self.lives = 0
        self.kernel: Kernel | None = None
        self.linked = False
        self.records: list = []
        self.sent: dict[int, int] = {}
        self.begun: dict[int, list[int]] = {}
        self.ended: dict[int, set[int]] = {}
        self.texts: dict[tuple[int, int], int] = {}
        self.goodbyes: dict[int, int] = {}
        self.kernel_comes()
        self.client_comes()

    @rule()
    def kernel_comes(self):
        if self.kernel is None:
            self.lives += 1
            self.texts = {}
            self.kernel = Kernel(self.scene, f"life {self.lives}", late=self.late)
            self.linked = True

    @precondition(lambda self: self.kernel and not self.linked)
    @rule()
    def link_returns(self):
        self.kernel.connect()
        self.linked = True

    @precondition(lambda self: self.linked)
    @rule()
    def link_breaks(self):
        self.kernel.lose_link()
        self.linked = False

    @precondition(lambda self: self.kernel)
    @rule()
    def kernel_dies(self):
        if self.linked:
            self.kernel.lose_link()
        self.kernel, self.linked = None, False

    @precondition(lambda self: len(self.records) < 4)
    @rule()
    def client_comes(self):
        record = self.scene.open()
        self.records.append(record)
        self.sent[record.number], self.begun[record.number] = 0, []
        self.ended[record.number], self.goodbyes[record.number] = set(), 0
        if self.linked:
            self.kernel.read()
            self.kernel.host.accept(record.number)

    @rule(index=st.integers(0, 3), count=st.integers(1, 3))
    def client_speaks(self, index, count):
        for record in self.records[index : index + 1]:
            for _ in range(count if record.gone is None else 0):
                self.sent[record.number] += 1
                self.scene.relay.take(record, Kind.TEXT, b"%d" % self.sent[record.number])

    @rule(index=st.integers(0, 3))
    def client_goes(self, index):
        for record in self.records[index : index + 1]:
            self.scene.relay.closed(record, 1000, "", True)

    @precondition(lambda self: self.linked)
    @rule()
    def kernel_reads(self):
        self.kernel.read()
        for record in self.records:
            if record.host is self.kernel.host:
                self.kernel.host.accept(record.number)

    @precondition(lambda self: self.kernel)
    @rule(index=st.integers(0, 3))
    def kernel_begins(self, index):
        for record in self.records[index : index + 1]:
            one = self.kernel.begin(record.number)
            if one is None:
                return
            ordinal, kind, value = one
            if kind == "CLOSED":
                self.goodbyes[record.number] += 1
            else:
                self.begun[record.number].append(int(value))
            self.texts[record.number, ordinal] = -1 if kind == "CLOSED" else int(value)

    @precondition(lambda self: self.linked and self.kernel.running)
    @rule(data=st.data())
    def handler_ends(self, data):
        number, ordinal = data.draw(st.sampled_from(sorted(self.kernel.running)))
        record = self.scene.relay.records.get(number)
        if record is None or record.host is not self.kernel.host:
            return
        self.kernel.end(number, ordinal)
        self.ended[number].add(self.texts[number, ordinal])

    @rule()
    def time_passes(self):
        self.scene.relay.tick(0.0)

    @invariant()
    def each_is_begun_once_and_in_order(self):
        for number, begun in self.begun.items():
            if not self.late:
                assert begun == list(range(1, len(begun) + 1))
                assert self.goodbyes[number] <= 1
            else:
                assert set(begun) == set(range(1, len(set(begun)) + 1))

    @invariant()
    def books_are_right(self):
        records = self.scene.relay.records.values()
        assert self.scene.relay._inbound._bytes == sum(r.set_aside for r in records)
        for record in records:
            assert record.kept_bytes == sum(len(p) + 64 for _, p in record.kept.values())

    def teardown(self):
        """At last a kernel comes and does everything: nothing was lost."""
        if not hasattr(self, "kernel"):
            return
        if self.kernel is not None:
            self.kernel_dies()
        self.kernel_comes()
        self.kernel.read()
        for number in list(self.kernel.inbox):
            while one := self.kernel.begin(number):
                ordinal, kind, value = one
                if kind == "CLOSED":
                    self.goodbyes[number] += 1
                else:
                    assert int(value) not in self.ended[number]
                    self.begun[number].append(int(value))
                if self.late:
                    self.kernel.end(number, ordinal)
        self.scene.relay.tick(0.0)
        self.each_is_begun_once_and_in_order()
        for record in self.records:
            number = record.number
            if record.gone is None:
                assert set(self.begun[number]) == set(range(1, self.sent[number] + 1))
            elif number in self.kernel.inbox:
                assert self.goodbyes[number] >= 1
            assert record.gone is None or number not in self.scene.relay.records


class MessagesAtLeastOnce(Messages):
    """The same where messages are settled at their end."""

    late = True


Messages.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
MessagesAtLeastOnce.TestCase.settings = Messages.TestCase.settings
TestMessages = Messages.TestCase
TestMessagesAtLeastOnce = MessagesAtLeastOnce.TestCase
