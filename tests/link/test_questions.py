"""Questions to hosts: each is answered exactly once, whatever happens to the host."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jupyter_agents.link.frames import Kind
from jupyter_agents.link.questions import Questions
from jupyter_agents.link.records import RelayLimits, Served


class Port:
    """A host that keeps what it is sent."""

    def __init__(self):
        self.full = False
        self.frames = []

    def send(self, kind, number, payload=b""):
        self.frames.append((kind, number, payload))


class Asker:
    """Somebody who waits for one answer."""

    def __init__(self):
        self.answers = []

    def __call__(self, about, body):
        self.answers.append((about.get("status"), body))


def served_by(host):
    """A class, live or parked."""
    return Served("a", "A", ("a",), host, {})


def put(questions, served, payload=b"?", number=1, now=0.0):
    """Ask; returns who asked and the question."""
    asker = Asker()
    return asker, questions.put(number, served, Kind.REQUEST, payload, asker, now)


@pytest.fixture
def questions():
    """At most three at once, ten bytes waiting, five seconds each."""
    return Questions(RelayLimits(max_requests=3, waiting_total_bytes=10, request_timeout_s=5.0))


def test_question_goes_out_and_is_answered_once(questions):
    """A live host gets the question; its answer arrives, a second one is nobody's."""
    host = Port()
    asker, _ = put(questions, served_by(host))
    assert host.frames == [(Kind.REQUEST, 1, b"?")]
    questions.answered(host, 1, {"status": 200}, b"!")
    questions.answered(host, 1, {"status": 200}, b"again")
    assert asker.answers == [(200, b"!")]
    assert not questions.pending


def test_another_hosts_answer_is_nobodys(questions):
    """A host cannot answer what another was asked, nor what nobody asked."""
    host = Port()
    asker, _ = put(questions, served_by(host))
    questions.answered(Port(), 1, {"status": 200}, b"lie")
    questions.answered(host, 99, {"status": 200}, b"?")
    assert asker.answers == []


@pytest.mark.parametrize("is_parked", [True, False])
def test_question_waits_for_its_host(questions, is_parked):
    """While the host is away or behind questions wait, then they go out in order."""
    host = Port()
    served = served_by(None if is_parked else host)
    host.full = not is_parked
    for number in (1, 2, 3):
        put(questions, served, b"%d" % number, number)
    assert host.frames == []
    served.host, host.full = host, False
    questions.resume(served, host)
    assert [frame[1:] for frame in host.frames] == [(1, b"1"), (2, b"2"), (3, b"3")]
    assert served.waiting == []


def test_host_that_fills_up_again(questions):
    """What a host does not take when it resumes goes on waiting."""
    host = Port()
    served = served_by(None)
    for number in (1, 2):
        put(questions, served, b"x", number)
    send = host.send

    def takes_one(*frame):
        send(*frame)
        host.full = True

    host.send = takes_one
    served.host = host
    questions.resume(served, host)
    assert [frame[1] for frame in host.frames] == [1]
    host.full = False
    questions.resume(served, host)
    assert [frame[1] for frame in host.frames] == [1, 2]


def test_too_many_questions(questions):
    """One question past the limit is answered 503 at once; one that ends makes room."""
    host = Port()
    served = served_by(host)
    for number in (1, 2, 3):
        put(questions, served, number=number)
    late, _ = put(questions, served, number=4)
    assert late.answers == [(503, b"")]
    questions.answered(host, 1, {}, b"")
    again, _ = put(questions, served, number=5)
    assert again.answers == []


def test_too_many_bytes_wait(questions):
    """Bytes that wait for hosts are bounded in all; what leaves by any door makes room."""
    parked, other = served_by(None), served_by(None)
    _, first = put(questions, parked, b"x" * 6, 1)
    late, _ = put(questions, other, b"x" * 5, 2)
    assert late.answers == [(503, b"")]
    put(questions, other, b"x" * 4, 3)
    questions.abandon(first)
    asker, _ = put(questions, parked, b"x" * 6, 4)
    questions.tick(5.0)
    assert asker.answers == [(503, b"")]
    waits, _ = put(questions, parked, b"x" * 10, 5, now=5.0)
    host = Port()
    parked.host = host
    questions.resume(parked, host)
    parked.host = None
    more, _ = put(questions, parked, b"x" * 10, 6, now=5.0)
    assert waits.answers == more.answers == []


def test_a_live_host_is_not_bound_by_waiting_bytes(questions):
    """What goes out at once does not wait: the link's own limit counts it."""
    asker, _ = put(questions, served_by(Port()), b"x" * 1000)
    assert asker.answers == []


def test_abandoned_question(questions):
    """A host that was asked is told; one that was not asked never hears of it."""
    host = Port()
    asker, question = put(questions, served_by(host))
    questions.abandon(question)
    questions.abandon(question)
    assert host.frames[1:] == [(Kind.ABANDON, 1, b"")]
    parked = served_by(None)
    _, waiting = put(questions, parked, number=2)
    questions.abandon(waiting)
    questions.resume(parked, host)
    assert len(host.frames) == 2
    assert asker.answers == []


@pytest.mark.parametrize(
    ("is_asked", "now", "answers"),
    [
        (True, 4.9, []),
        (True, 5.0, [(504, b"")]),
        (False, 4.9, []),
        (False, 5.0, [(503, b"")]),
    ],
)
def test_timeout(questions, is_asked, now, answers):
    """A host that was asked and is silent is 504, one that was away 503, at the deadline."""
    host = Port()
    asker, _ = put(questions, served_by(host if is_asked else None))
    questions.tick(now)
    assert asker.answers == answers
    assert bool(questions.pending) is (not answers)
    if is_asked and answers:
        assert host.frames[-1] == (Kind.ABANDON, 1, b"")


def test_host_leaves(questions):
    """What it had been asked is 503; what waits, and what others were asked, goes on."""
    host = Port()
    served, other = served_by(host), served_by(Port())
    asked, _ = put(questions, served, number=1)
    elsewhere, _ = put(questions, other, number=2)
    served.host = None
    waits, _ = put(questions, served, number=3)
    questions.parked(served)
    assert (asked.answers, elsewhere.answers, waits.answers) == ([(503, b"")], [], [])
    questions.dropped(served)
    assert waits.answers == [(503, b"")]
    questions.stop()
    assert elsewhere.answers == [(503, b"")]
    assert not questions.pending


class OneAnswerEach(RuleBasedStateMachine):
    """Any course of events: every asker hears exactly once, and every byte is counted."""

    LIMITS = RelayLimits(max_requests=5, waiting_total_bytes=30, request_timeout_s=5.0)

    def __init__(self):
        super().__init__()
        self.questions = Questions(self.LIMITS)
        self.host = Port()
        self.served = [served_by(self.host), served_by(None)]
        self.asked = []
        self.left = set()
        self.now = 0.0

    @rule(which=st.integers(0, 1), size=st.integers(0, 20))
    def ask(self, which, size):
        number = len(self.asked) + 1
        self.asked.append(
            put(self.questions, self.served[which], b"x" * size, number, now=self.now)
        )

    @precondition(lambda self: self.asked)
    @rule(pick=st.integers(0, 1000))
    def leave(self, pick):
        asker, question = self.asked[pick % len(self.asked)]
        if not asker.answers:
            self.left.add(question.number)
        self.questions.abandon(question)

    @precondition(lambda self: self.asked)
    @rule(pick=st.integers(0, 1000))
    def answer(self, pick):
        number = pick % len(self.asked) + 1
        self.questions.answered(self.host, number, {"status": 200}, b"")

    @rule(which=st.integers(0, 1))
    def host_comes(self, which):
        self.served[which].host = self.host
        self.questions.resume(self.served[which], self.host)

    @rule(which=st.integers(0, 1))
    def host_goes(self, which):
        self.served[which].host = None
        self.questions.parked(self.served[which])

    @rule(full=st.booleans())
    def host_fills(self, full):
        self.host.full = full
        if not full:
            for served in self.served:
                if served.host is not None:
                    self.questions.resume(served, self.host)

    @rule(seconds=st.floats(0.0, 6.0))
    def time_passes(self, seconds):
        self.now += seconds
        self.questions.tick(self.now)

    @invariant()
    def nobody_is_forgotten(self):
        for asker, question in self.asked:
            is_open = question.number in self.questions.pending
            has_left = question.number in self.left
            assert len(asker.answers) == (0 if is_open or has_left else 1)

    @invariant()
    def bytes_are_counted(self):
        waiting = [q for served in self.served for q in served.waiting]
        assert self.questions._waiting_bytes == sum(len(q.payload) for q in waiting) <= 30
        assert all(q.number in self.questions.pending for q in waiting)

    def teardown(self):
        self.questions.stop()
        self.nobody_is_forgotten()
        assert self.questions._waiting_bytes == 0


OneAnswerEach.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOneAnswerEach = OneAnswerEach.TestCase
