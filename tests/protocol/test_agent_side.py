"""Which connection is sent what about the state."""

from __future__ import annotations

import json

import pytest

from jupyter_agents.protocol import messages
from jupyter_agents.protocol.agent_side import AgentSide, Outgoing, Snapshot, is_stale
from jupyter_agents.protocol.messages import STALE

SDK, OTHER, OURS, OURS2, DEAF = 1, 2, 3, 4, 5


def one(value, version=1):
    return Snapshot(value, version)


def shown(outgoing):
    """What each connection is sent, as JSON without the type's prefix."""
    seen = {}
    for out in outgoing:
        assert isinstance(out, Outgoing)
        for key in out.keys:
            seen.setdefault(key, []).append(json.loads(out.payload))
    return seen


def state(value, version=None):
    frame = {"type": "cf_agent_state", "state": value}
    return frame if version is None else frame | {"version": version}


@pytest.fixture
def side():
    """Two SDK connections, two of ours and one without protocol, greeted while the state was 0."""
    side = AgentSide("room", "lobby", patch_over_bytes=100)
    for key in (SDK, OTHER, OURS, OURS2, DEAF):
        side.join(key, extended=key in (OURS, OURS2), protocol=key != DEAF)
        side.greet(key, one(0, 1))
    return side


# ── Snapshots ──


def test_snapshot_is_encoded_once_and_shares_nothing():
    """A snapshot's JSON is the value when it was first read."""
    value = {"n": 1}
    snapshot = Snapshot(value, 3)
    assert snapshot.json is snapshot.json
    value["n"] = 2
    assert snapshot.json == b'{"n":1}'


def test_snapshot_takes_json_that_is_there():
    """A host that has the JSON needs no value."""
    assert Snapshot(version=2, json=b"[1]").json == b"[1]"


def test_snapshots_are_equal_by_version_and_json():
    """Two snapshots of one change are one; another version of the same value is another."""
    assert Snapshot([1], 2) == Snapshot(version=2, json=b"[1]")
    assert len({Snapshot([1], 2), Snapshot([1], 2), Snapshot([1], 3), Snapshot([2], 2)}) == 3
    assert Snapshot(1) != 1


# ── Greetings ──


@pytest.mark.parametrize("value", [None, 0, False, "", {}])
def test_greeting_announces_a_falsy_state(value):
    """Any state at all is announced and follows the identity."""
    side = AgentSide("room", "lobby")
    side.join(SDK, extended=False, protocol=True)
    identity, first = map(json.loads, side.greet(SDK, one(value)))
    assert identity == {
        "type": "cf_agent_identity", "name": "lobby", "agent": "room", "stateFollows": True
    }  # fmt: skip
    assert first == state(value)


def test_greeting_without_a_state_is_the_identity():
    """Where there is no state, none is promised."""
    side = AgentSide("room", "lobby")
    side.join(SDK, extended=False, protocol=True)
    (identity,) = map(json.loads, side.greet(SDK, None))
    assert identity == {"type": "cf_agent_identity", "name": "lobby", "agent": "room"}


def test_greeting_without_identity_is_the_state():
    """``send_identity_on_connect = False`` drops the identity only."""
    side = AgentSide("room", "lobby")
    side.join(OURS, extended=True, protocol=True, identity=False)
    assert [json.loads(frame) for frame in side.greet(OURS, one(5, 2))] == [state(5, 2)]


def test_connection_without_protocol_is_told_nothing(side):
    """Without protocol messages there is no greeting and no state, whoever writes."""
    quiet = AgentSide("room", "lobby")
    quiet.join(DEAF, extended=False, protocol=False)
    assert quiet.greet(DEAF, one(0)) == []
    assert DEAF not in shown(side.tell(one(1, 2)))
    assert side.whole(DEAF, one(1, 2)) == []
    assert side.ack(DEAF, None, one(1, 2), 1) == []
    assert not side.needs_settling


def test_connection_is_told_nothing_before_its_greeting():
    """Who joined and is not greeted yet misses nothing: the greeting has the state."""
    side = AgentSide("room", "lobby")
    side.join(SDK, extended=False, protocol=True)
    assert side.tell(one(1)) == []


# ── Telling ──


def test_change_is_told_to_everyone_but_the_writer(side):
    """One frame serves all SDK connections, another all of ours; the writer is left out."""
    out = side.tell(one(7, 2), writer=OTHER)
    assert shown(out) == {SDK: [state(7)], OURS: [state(7, 2)], OURS2: [state(7, 2)]}
    assert [o.keys for o in out] == [(SDK,), (OURS, OURS2)]
    assert all(o.is_state for o in out)


@pytest.mark.parametrize("writer", [SDK, OTHER, OURS, OURS2])
def test_writer_of_either_kind_is_left_out(side, writer):
    """Whose write it is hears of it by its answer only."""
    assert set(shown(side.tell(one(7, 2), writer=writer))) == {SDK, OTHER, OURS, OURS2} - {writer}


def test_state_is_encoded_once(side, monkeypatch):
    """However many look on, and also for the acknowledgement, a state is encoded once."""
    calls = []
    encode = messages.encode
    monkeypatch.setattr(messages, "encode", lambda value: calls.append(value) or encode(value))
    value = {"n": 1}
    snapshot = one(value, 2)
    side.tell(snapshot, writer=OURS)
    side.ack(OURS, "w", snapshot)
    assert [call for call in calls if call is value] == [value]


def test_nobody_is_told_when_only_the_writer_listens():
    """There is no frame for nobody."""
    side = AgentSide("room", "lobby")
    for key in (SDK, OURS):
        side.join(key, extended=key == OURS, protocol=True)
    side.greet(SDK, one(0))
    assert side.tell(one(1, 2), writer=SDK) == []


def test_who_left_is_told_nothing(side):
    """After `leave` a connection is not told, not settled, not answered; leaving twice is fine."""
    side.refuse(SDK, None, one(0))
    for key in (SDK, SDK, OURS, 99):
        side.leave(key)
    assert not side.needs_settling
    assert set(shown(side.tell(one(1, 2)))) == {OTHER, OURS2}
    assert side.ack(SDK, None, one(1, 2), 1) == side.refuse(OURS, "w", one(1, 2)) == []
    assert side.whole(OURS, one(1, 2)) == []


LARGE = [{"id": i, "text": "some text"} for i in range(40)]


def test_small_change_of_a_large_state_is_a_patch(side):
    """Ours get the operations against the version that they hold, SDK clients always the whole."""
    side.tell(one(LARGE, 2))
    changed = [*LARGE, {"id": 40}]
    out = side.tell(one(changed, 5))
    patch = {
        "type": "cf_agent_state_patch",
        "ops": [{"op": "add", "path": "/-", "value": {"id": 40}}],
        "version": 5,
        "base": 2,
    }
    assert shown(out)[SDK] == [state(changed)]
    assert shown(out)[OURS] == shown(out)[OURS2] == [patch]
    assert [o.is_state for o in out] == [True, False]
    assert len(out[1].payload) < 200


def test_patch_is_against_what_was_told_and_not_what_is_there(side):
    """An author who changes a state in place changes neither the base nor what was told."""
    value = [dict(item) for item in LARGE]
    side.tell(one(value, 2))
    value[3]["text"] = "changed in place"
    (ops,) = [f["ops"] for f in shown(side.tell(one(value, 3)))[OURS]]
    assert ops == [{"op": "replace", "path": "/3/text", "value": "changed in place"}]


def test_patch_that_is_not_smaller_is_not_sent(side):
    """Where the operations are larger, or too many, the whole goes out."""
    side.tell(one(LARGE, 2))
    renamed = [{"id": -i} for i in range(40)]
    assert shown(side.tell(one(renamed, 3)))[OURS] == [state(renamed, 3)]
    long_text = ["x" * 50, "y" * 50, "z" * 50]
    side.tell(one(long_text, 4))
    other = ["a" * 50, "b" * 50, "c" * 50]
    assert shown(side.tell(one(other, 5)))[OURS] == [state(other, 5)]


def test_small_state_travels_whole(side):
    """Below the threshold nobody computes differences."""
    assert shown(side.tell(one({"n": 1}, 2)))[OURS] == [state({"n": 1}, 2)]
    assert shown(side.tell(one({"n": 2}, 3)))[OURS] == [state({"n": 2}, 3)]


def test_connections_that_hold_different_versions_get_different_patches(side):
    """After one of ours asked for a newer whole, each gets a patch with its own base."""
    side.tell(one(LARGE, 2))
    newer = one([*LARGE, 1], 3)
    side.whole(OURS, newer)
    seen = shown(side.tell(one([*LARGE, 1, 2], 4)))
    assert [f["base"] for f in seen[OURS] + seen[OURS2]] == [3, 2]
    # Now both hold the same, and share a frame again.
    assert (OURS, OURS2) in [o.keys for o in side.tell(one([*LARGE, 1, 2, 3], 5))]


def test_each_connection_may_have_its_own_view(side):
    """With views each connection is told its projection; equal ones share a frame."""

    def view(key):
        return one({"for": "even" if key % 2 == 0 else "odd"}, 2)

    side.join(6, extended=False, protocol=True)
    side.greet(6, view(6))
    out = side.tell(one("secret", 2), views=view)
    assert shown(out) == {
        SDK: [state({"for": "odd"})],
        OTHER: [state({"for": "even"})],
        6: [state({"for": "even"})],
        OURS: [state({"for": "odd"}, 2)],
        OURS2: [state({"for": "even"}, 2)],
    }
    assert (OTHER, 6) in [o.keys for o in out]


def test_views_are_patched_against_themselves(side):
    """A patch of a view is one against that connection's former view."""
    side.tell(one("secret", 2), views=lambda key: one([*LARGE, key], 2))
    seen = shown(side.tell(one("secret", 3), views=lambda key: one([*LARGE, key, 0], 3)))
    op = {"op": "add", "path": "/-", "value": 0}
    assert [f["ops"] for f in seen[OURS] + seen[OURS2]] == [[op], [op]]
    assert "secret" not in str(seen)


# ── Answers ──


def test_accepted_write_of_ours_is_acknowledged(side):
    """The writer learns the version, and the state only where another holds than it sent."""
    assert shown(side.ack(OURS, "w", one(5, 2), 5)) == {
        OURS: [{"type": "cf_agent_state_ack", "write": "w", "version": 2}]
    }
    assert shown(side.ack(OURS, 1, one(5, 3), 6)) == {
        OURS: [{"type": "cf_agent_state_ack", "write": 1, "version": 3, "state": 5}]
    }
    assert shown(side.ack(OURS, 2, one(None, 4)))[OURS][0]["state"] is None
    assert "state" not in shown(side.ack(OURS, 3, one([5], 5), b"[5]"))[OURS][0]


def test_acknowledged_version_is_the_base_of_the_next_patch(side):
    """What was acknowledged is what the writer holds."""
    side.tell(one(LARGE, 2), writer=OURS)
    side.ack(OURS, "w", one(LARGE, 2), LARGE)
    assert shown(side.tell(one([*LARGE, 1], 3)))[OURS][0]["base"] == 2


def test_write_of_ours_without_an_id_is_answered_by_the_state(side):
    """Who cannot be acknowledged is sent what holds."""
    assert shown(side.ack(OURS, None, one(5, 2), 5)) == {OURS: [state(5, 2)]}


def test_sdk_writer_whose_value_was_changed_is_told_at_once(side):
    """Where a validator made another value of it, an SDK writer gets the state, too."""
    assert shown(side.ack(SDK, None, one(100, 2), 500)) == {SDK: [state(100)]}
    assert not side.needs_settling


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "State update rejected"),
        ({"reason": "too low"}, "too low"),
        ({"reason": STALE}, "State has changed meanwhile"),
        ({"readonly": True, "reason": "x"}, "Connection is readonly"),
    ],
)
def test_refused_write_of_ours_has_its_reason(side, options, text):
    """Ours learn the reason, the write, and what holds instead."""
    assert shown(side.refuse(OURS, "w", one(5, 2), **options)) == {
        OURS: [
            {
                "type": "cf_agent_state_error",
                "error": text,
                "write": "w",
                "state": 5,
                "version": 2,
            }
        ]
    }


def test_refused_write_without_any_state_has_its_reason(side):
    """Where there is no state, the answer has none."""
    assert shown(side.refuse(OURS, "w", None))[OURS] == [
        {"type": "cf_agent_state_error", "error": "State update rejected", "write": "w"}
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"reason": "secret"}, "State update rejected"),
        ({"readonly": True}, "Connection is readonly"),
    ],
)
@pytest.mark.parametrize("key", [SDK, DEAF])
def test_refused_sdk_write_gets_the_fixed_sentence(side, key, options, text):
    """An SDK client never sees more than the SDK's two sentences, also without protocol."""
    assert shown(side.refuse(key, None, one(0), **options)) == {
        key: [{"type": "cf_agent_state_error", "error": text}]
    }


@pytest.mark.parametrize(
    ("base", "snapshot", "stale"),
    [
        (None, one(0, 5), False),
        (5, one(0, 5), False),
        (4, one(0, 5), True),
        (6, one(0, 5), True),
        (0, None, False),
        (1, None, True),
        (-1, one(0, 5), True),
    ],
)
def test_write_on_another_version_is_stale(base, snapshot, stale):
    """A write with a base holds only on that version; without any state the version is 0."""
    assert is_stale(base, snapshot) is stale


# ── Settling ──


def test_sdk_writer_who_was_sent_a_state_is_settled(side):
    """A frame may have crossed its write, so it gets the state once; others get nothing."""
    side.tell(one(5, 2), writer=SDK)
    assert side.ack(SDK, None, one(5, 2), 5) == []
    assert side.needs_settling
    assert shown(side.settle(one(5, 2))) == {SDK: [state(5)]}
    assert not side.needs_settling
    assert side.settle(one(5, 2)) == []


def test_sdk_writer_who_was_never_sent_a_state_needs_no_settling():
    """Where no state frame can have crossed the write, there is no echo."""
    side = AgentSide("room", "lobby")
    side.join(SDK, extended=False, protocol=True)
    side.greet(SDK, None)
    side.ack(SDK, None, one(5), 5)
    assert not side.needs_settling
    side.tell(one(6, 2))
    side.ack(SDK, None, one(7, 3), 7)
    assert side.needs_settling


def test_refused_sdk_writer_is_settled():
    """An SDK client keeps its refused value until it is sent what holds."""
    side = AgentSide("room", "lobby")
    side.join(SDK, extended=False, protocol=True)
    side.greet(SDK, None)
    side.refuse(SDK, None, None)
    assert side.settle(one(5)) == [Outgoing((SDK,), messages.state(b"5"), is_state=True)]


def test_state_told_after_the_write_settles(side):
    """Any later state frame settles a writer, so that no echo follows it."""
    side.ack(SDK, None, one(5, 2), 5)
    side.tell(one(6, 3), writer=OTHER)
    assert not side.needs_settling


def test_nothing_settles_without_a_state(side):
    """Where there is no state there is nothing to send, and nobody is waited for."""
    side.refuse(SDK, None, None)
    assert side.settle(None) == []
    assert not side.needs_settling


def test_answers_settle_ours(side):
    """One of ours needs settling after a resume only, and its answers do that, too."""
    for answer in (
        lambda: side.ack(OURS, "w", one(5, 2), 5),
        lambda: side.refuse(OURS, "w", one(5, 2)),
        lambda: side.whole(OURS, one(5, 2)),
        lambda: side.tell(one(5, 2)),
    ):
        side.resume(OURS)
        assert side.needs_settling
        answer()
        assert not side.needs_settling


def test_settling_shows_each_its_view(side):
    """Views hold for settling as well."""
    side.resume(SDK)
    side.resume(OURS)
    seen = shown(side.settle(one("secret", 2), views=lambda key: one(key, 2)))
    assert seen == {SDK: [state(SDK)], OURS: [state(OURS, 2)]}


# ── Other hosts, other flags ──


def test_resumed_connections_are_told_without_a_greeting():
    """After a kernel's restart a connection is told changes, and what it may have missed."""
    side = AgentSide("room", "lobby")
    for key in (SDK, OURS, DEAF):
        side.join(key, extended=key == OURS, protocol=key != DEAF)
        side.resume(key)
    assert shown(side.settle(one(LARGE, 8))) == {SDK: [state(LARGE)], OURS: [state(LARGE, 8)]}
    assert set(shown(side.tell(one(1, 9)))) == {SDK, OURS}


def test_protocol_messages_can_be_switched(side):
    """Switched off a connection is told nothing; switched on it is sent what it missed, whole."""
    for key in (SDK, OURS):
        side.set_protocol(key, False)
        side.set_protocol(key, False)
    assert not set(shown(side.tell(one(LARGE, 2)))) & {SDK, OURS}
    for key in (SDK, OURS, DEAF):
        side.set_protocol(key, True)
    assert shown(side.settle(one(LARGE, 2))) == {
        SDK: [state(LARGE)], DEAF: [state(LARGE)], OURS: [state(LARGE, 2)]
    }  # fmt: skip


def test_patch_is_not_sent_to_one_who_missed_something(side):
    """Who was deaf for a while gets the whole, even if the next change comes before settling."""
    side.tell(one(LARGE, 2))
    side.set_protocol(OURS, False)
    side.tell(one([*LARGE, 1], 3))
    side.set_protocol(OURS, True)
    assert shown(side.tell(one([*LARGE, 1, 2], 4)))[OURS][0]["type"] == "cf_agent_state"


def test_protocol_switched_on_before_the_greeting_changes_the_greeting():
    """The flag counts when the greeting is made."""
    side = AgentSide("room", "lobby")
    side.join(SDK, extended=False, protocol=False)
    side.set_protocol(SDK, True)
    assert not side.needs_settling
    assert len(side.greet(SDK, one(1))) == 2
