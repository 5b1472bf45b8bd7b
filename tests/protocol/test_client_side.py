"""The client's machine: `jupyter_agents.protocol.client_side`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jupyter_agents.errors import CallAborted, CallFailed, LocalProtocolError
from jupyter_agents.protocol.client_side import (
    CALL_MOVES,
    MOVES,
    CallDone,
    CallPhase,
    ChunkCame,
    ClientEvent,
    ClientSide,
    Identified,
    MessageCame,
    Phase,
    Ready,
    StrayReply,
)
from jupyter_agents.protocol.messages import AwayTold
from jupyter_agents.protocol.names import Address
from jupyter_agents.protocol.replica import Settled, StateChanged


def opened(**options: Any) -> ClientSide:
    """A machine whose connection is open."""
    side = ClientSide(**options)
    side.connecting()
    side.opened()
    return side


def identity(name: str = "lobby", **more: Any) -> str:
    """The server's first frame."""
    return json.dumps({"type": "cf_agent_identity", "name": name, "agent": "room", **more})


def reply(call_id: str, **fields: Any) -> str:
    """A frame that answers a call."""
    return json.dumps({"type": "rpc", "id": call_id, "success": True, "done": True, **fields})


def state(value: Any, version: int = 1) -> str:
    """A whole state."""
    return json.dumps({"type": "cf_agent_state", "state": value, "version": version})


def sent(side: ClientSide) -> list[Any]:
    """What the machine gives to send now, decoded where it is JSON."""
    frames, _ = side.take()
    return [json.loads(f) if isinstance(f, str) and f.startswith("{") else f for f in frames]


def feed(side: ClientSide, *frames: str | bytes) -> list[ClientEvent]:
    """All that comes of these frames."""
    return [event for frame in frames for event in side.received(frame)]


# ── Moves ────────────────────────────────────────────────────────────────────────────────────

ACTS = {
    "connect": ClientSide.connecting,
    "open": ClientSide.opened,
    "lose": ClientSide.lost,
    "end": ClientSide.ended,
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", ACTS)
def test_moves_are_those_of_the_table(phase: Phase, event: str) -> None:
    """A move of the table leads where the table says; any other is refused and changes nothing."""
    side = ClientSide()
    side.phase = phase
    if event in MOVES[phase]:
        ACTS[event](side)  # type: ignore[operator]
        assert side.phase is MOVES[phase][event]
    else:
        with pytest.raises(LocalProtocolError, match=phase.name):
            ACTS[event](side)  # type: ignore[operator]
        assert side.phase is phase


def test_moves_reach_every_phase_and_name_all() -> None:
    """No phase is forgotten in the tables, and none but the first is out of reach."""
    assert set(MOVES) == set(Phase)
    assert set(CALL_MOVES) == set(CallPhase)
    assert {to for row in MOVES.values() for to in row.values()} == set(Phase) - {Phase.IDLE}


def test_call_that_is_over_cannot_end_again() -> None:
    """A call ends once: a second end is a mistake of ours and is refused."""
    side = opened()
    call = side.call("m")
    side.give_up(call)
    with pytest.raises(LocalProtocolError, match="DONE"):
        call.move("end")


# ── Messages and the queue ───────────────────────────────────────────────────────────────────


def test_take_gives_what_waited_in_order() -> None:
    """What was handed in before the connection leaves in order once it is there (T131)."""
    side = ClientSide()
    side.send("a")
    side.call("m", [1])
    side.send(b"b")
    side.write({"n": 1})
    side.connecting()
    assert sent(side) == []
    side.opened()
    call, write = {"type": "rpc", "id": "1", "method": "m", "args": [1]}, {"n": 1}
    frames = sent(side)
    assert frames[:3] == ["a", call, b"b"]
    assert (frames[3]["type"], frames[3]["state"]) == ("cf_agent_state", write)


def test_send_says_when_the_queue_is_full() -> None:
    """The message beyond the limit is not taken, and the ones before it stay (T132)."""
    side = ClientSide(max_queued=2)
    assert [side.send(text) for text in "abc"] == [True, True, False]
    with pytest.raises(CallAborted, match="queue is full") as caught:
        side.call("m")
    assert not caught.value.transmitted
    with pytest.raises(CallAborted, match="queue is full"):
        side.write(1)
    assert side.replica.state is None
    side.connecting()
    side.opened()
    assert sent(side) == ["a", "b"]
    assert side.send("c")


def test_send_counts_bytes_too() -> None:
    """The queue is bounded in bytes as well, however few the messages; text and binary count."""
    side = ClientSide(max_queued_bytes=5)
    assert side.send(b"abc")
    assert side.send("de")
    assert side.queued_bytes == 5
    assert not side.send("f")


@pytest.mark.parametrize("buffer", [bytearray(b"ab"), memoryview(b"ab")])
def test_send_copies_buffers(buffer: Any) -> None:
    """A buffer goes out as it was when handed in."""
    side = opened()
    side.send(buffer)
    if isinstance(buffer, bytearray):
        buffer[0] = 0
    assert sent(side) == [b"ab"]


@pytest.mark.parametrize("wrong", [1, None, {"a": 1}, ["x"]])
def test_send_takes_text_and_bytes_only(wrong: Any) -> None:
    """Anything else is a mistake that is named at once."""
    with pytest.raises(TypeError, match=type(wrong).__name__):
        ClientSide().send(wrong)


def test_drain_messages_leaves_calls() -> None:
    """Draining gives the waiting messages back and keeps the calls (T134)."""
    side = ClientSide()
    side.send("a")
    side.call("m")
    side.send(b"b")
    assert side.drain_messages() == ["a", b"b"]
    assert side.drain_messages() == []
    side.connecting()
    side.opened()
    assert [frame["method"] for frame in sent(side)] == ["m"]


@pytest.mark.parametrize("data", ["hi", "", "{", "null", b"", b'{"type":"rpc"}', '{"type":"rpc"}'])
def test_received_hands_on_what_is_not_ours(data: str | bytes) -> None:
    """What is no frame of ours is the agent's message, unchanged; binary always is."""
    side = opened()
    side.received(identity())
    assert side.received(data) == [MessageCame(data)]


# ── Calls ────────────────────────────────────────────────────────────────────────────────────


def test_call_ends_with_its_own_answer() -> None:
    """Answers are matched by id, in whatever order they come (T101)."""
    side = opened()
    first, second = side.call("a"), side.call("b")
    side.take()
    found = feed(side, reply(second.id, result=2), reply(first.id, result=1))
    done = [(event.call, event.value) for event in found if isinstance(event, CallDone)]
    assert done == [(second, 2), (first, 1)]


def test_call_without_result_is_none() -> None:
    """A call that returns nothing, or null, has the value None."""
    side = opened()
    calls = [side.call("a"), side.call("b")]
    side.take()
    found = feed(side, reply(calls[0].id), reply(calls[1].id, result=None))
    assert [event.value for event in found if isinstance(event, CallDone)] == [None, None]


def test_call_fails_with_the_agents_words() -> None:
    """An error answer carries the agent's message, and its public data."""
    side = opened()
    call = side.call("a")
    side.take()
    (*_, event) = feed(side, reply(call.id, success=False, error="no", data={"x": 1}))
    assert isinstance(event, CallDone)
    assert isinstance(event.error, CallFailed)
    assert (str(event.error), event.error.data, event.error.method) == ("no", {"x": 1}, "a")


def test_call_refuses_arguments_json_cannot_carry() -> None:
    """Bad arguments raise where they are given, and leave nothing behind."""
    side = opened()
    with pytest.raises(TypeError, match="object"):
        side.call("a", [object()])
    assert sent(side) == []


@pytest.mark.parametrize(("extended", "deadline"), [(True, {"deadline_ms": 1500}), (False, {})])
def test_call_tells_its_deadline(extended: bool, deadline: dict[str, int]) -> None:
    """Our agents learn how long the caller waits; an SDK server sees the SDK's frame."""
    side = opened(extended=extended)
    side.call("a", [1], timeout=1.5)
    assert sent(side) == [{"type": "rpc", "id": "1", "method": "a", "args": [1], **deadline}]


def test_lost_ends_what_was_sent_and_keeps_the_rest() -> None:
    """A transmitted call fails on a drop, one made meanwhile survives more (T110, T111)."""
    side = opened()
    transmitted = side.call("a")
    side.take()
    (event,) = side.lost()
    assert isinstance(event, CallDone)
    assert isinstance(event.error, CallAborted)
    assert (event.call, event.error.transmitted) == (transmitted, True)
    waiting = side.call("b")
    side.connecting()
    assert side.lost() == []
    side.connecting()
    side.opened()
    assert [frame["id"] for frame in sent(side)] == [waiting.id]
    assert side.received(reply(waiting.id, result=3))[-1] == CallDone(waiting, 3)


def test_ended_ends_everything() -> None:
    """A final end fails calls of both kinds, and each says whether it was sent (T109, T116)."""
    side = opened()
    side.call("a")
    side.take()
    side.lost()
    side.connecting()
    side.opened()
    side.call("b")
    side.take()
    side.call("c")
    found = {
        event.call.method: event.error.transmitted
        for event in side.ended("Unauthorized")
        if isinstance(event, CallDone) and isinstance(event.error, CallAborted)
    }
    assert found == {"b": True, "c": False}
    with pytest.raises(CallAborted, match="closed"):
        side.call("d")
    assert not side.send("e")


def test_reply_to_a_call_that_was_not_sent_is_nobodys() -> None:
    """A server cannot answer a call before it was made."""
    side = opened()
    side.received(identity())
    call = side.call("a")
    assert side.received(reply(call.id)) == []
    assert call.phase is CallPhase.QUEUED


def test_give_up_cancels_what_runs() -> None:
    """Giving up a running call tells the agent; one that waits is just forgotten (T207)."""
    side = opened()
    running = side.call("a")
    side.take()
    waiting = side.call("b")
    side.give_up(waiting)
    side.give_up(running)
    side.give_up(running)
    assert sent(side) == [{"type": "rpc_cancel", "id": running.id}]


def test_give_up_is_silent_towards_an_sdk_server() -> None:
    """Without our extension nothing is sent: the SDK would take it for a message."""
    side = opened(extended=False)
    call = side.call("a")
    side.take()
    side.give_up(call)
    assert sent(side) == []


def test_late_answer_is_reported_after_a_timeout_only() -> None:
    """An answer after a timeout is named once; after a cancel nobody hears of it (T115)."""
    side = opened()
    side.received(identity())
    late, cancelled = side.call("a"), side.call("b")
    side.take()
    side.give_up(late, timed_out=True)
    side.give_up(cancelled)
    assert side.received(reply(cancelled.id)) == []
    assert side.received(reply(late.id)) == [StrayReply(late.id, "a")]
    assert side.received(reply(late.id)) == []


def test_answer_to_the_cancel_of_a_timed_out_call_is_no_news() -> None:
    """An error after a timeout says that the cancel was heeded; SDK servers know no cancel."""
    for extended, expected in ((True, 0), (False, 1)):
        side = opened(extended=extended)
        side.received(identity())
        call = side.call("a")
        side.take()
        side.give_up(call, timed_out=True)
        assert len(side.received(reply(call.id, success=False, error="cancelled"))) == expected


def test_timed_out_calls_are_not_remembered_for_ever() -> None:
    """A server that never answers does not make the client grow."""
    side = opened()
    side.received(identity())
    for _ in range(1500):
        call = side.call("a")
        side.take()
        side.give_up(call, timed_out=True)
    assert side.received(reply("1")) == []
    assert side.received(reply(call.id)) == [StrayReply(call.id, "a")]


def test_chunks_come_in_order_before_the_end() -> None:
    """A stream gives its chunks, then its final value (T095)."""
    side = opened()
    side.received(identity())
    call = side.call("count")
    side.take()
    chunks = [reply(call.id, result=n, done=False, seq=n) for n in range(3)]
    assert feed(side, *chunks, reply(call.id, result="end")) == [
        *(ChunkCame(call, n) for n in range(3)),
        CallDone(call, "end"),
    ]


def test_chunks_without_numbers_are_fine() -> None:
    """An SDK server does not number its chunks."""
    side = opened(extended=False)
    side.received(identity())
    call = side.call("count")
    side.take()
    chunks = [reply(call.id, result=n, done=False) for n in (7, 7)]
    assert feed(side, *chunks) == [ChunkCame(call, 7), ChunkCame(call, 7)]


@pytest.mark.parametrize("seq", [0, 2])
def test_chunk_out_of_turn_ends_the_stream(seq: int) -> None:
    """A repeated or missing chunk is never passed over: the call fails and is cancelled."""
    side = opened()
    side.received(identity())
    call = side.call("count")
    side.take()
    side.received(reply(call.id, result=0, done=False, seq=0))
    (event,) = side.received(reply(call.id, result=1, done=False, seq=seq))
    assert isinstance(event, CallDone)
    assert f"chunk 1 was expected, {seq} came" in str(event.error)
    assert sent(side) == [{"type": "rpc_cancel", "id": call.id}]


# ── Identity and readiness ───────────────────────────────────────────────────────────────────


def test_ready_at_identity_without_state() -> None:
    """Without a state to follow, the identity makes the client ready."""
    assert opened().received(identity()) == [Identified(Address("room", "lobby")), Ready()]


def test_ready_waits_for_the_state_that_follows() -> None:
    """When the server says that a state follows, ready comes after it is applied (T130)."""
    side = opened()
    assert Ready() not in side.received(identity(stateFollows=True))
    assert side.received(state({"n": 1})) == [StateChanged("server"), Ready()]


@pytest.mark.parametrize("first", [state(None), "hello", b"x"])
def test_ready_without_identity(first: str | bytes) -> None:
    """An agent that hides its identity is ready with its first frame: none of ours follows it."""
    assert Ready() in opened().received(first)


def test_identity_again_after_a_reconnect() -> None:
    """`is_ready` and `is_identified` are of the present connection (T026, T124)."""
    side = opened()
    side.received(identity())
    assert (side.is_ready, side.is_identified) == (True, True)
    side.lost()
    assert (side.is_ready, side.is_identified) == (False, False)
    side.connecting()
    side.opened()
    assert side.received(identity()) == [Identified(Address("room", "lobby"), None), Ready()]


def test_identity_change_names_the_former() -> None:
    """The first identity is no change; another one after a reconnect is (T125)."""
    side = opened()
    side.received(identity("a"))
    side.lost()
    side.connecting()
    side.opened()
    (event, _) = side.received(identity("b"))
    assert event == Identified(Address("room", "b"), Address("room", "a"))


# ── Writes on the queue, and another address ─────────────────────────────────────────────────


def test_write_goes_out_at_its_place() -> None:
    """A write leaves between the messages it was made between, and its value is shown at once."""
    side = opened()
    feed(side, identity(stateFollows=True), state(0))
    side.send("a")
    _, events = side.write(1)
    side.send("b")
    assert events == [StateChanged("client")]
    assert side.replica.state == 1
    assert sent(side) == ["a", {"type": "cf_agent_state", "state": 1, "write": "1"}, "b"]


def test_write_ends_with_its_acknowledgement() -> None:
    """An acknowledged write is settled, and nothing else is shown than before."""
    side = opened()
    feed(side, identity(stateFollows=True), state(0))
    write, _ = side.write(1)
    side.take()
    ack = json.dumps({"type": "cf_agent_state_ack", "write": write.id, "version": 2})
    assert side.received(ack) == [Settled(write)]
    assert (side.replica.state, side.replica.version) == (1, 2)


def test_write_fails_on_a_drop() -> None:
    """A write that was sent and not answered fails with the connection, and is rolled back."""
    side = opened()
    feed(side, identity(stateFollows=True), state(0))
    write, _ = side.write(1)
    side.take()
    changed, settled = side.lost()
    assert changed == StateChanged("server")
    assert isinstance(settled, Settled)
    assert settled.write is write
    assert isinstance(settled.error, CallAborted)
    assert side.replica.state == 0


def test_readdressed_rejects_what_was_for_the_old_address() -> None:
    """Nothing that waits is sent to another instance, and the old one's state is gone (T120)."""
    side = opened()
    feed(side, identity(stateFollows=True), state(5))
    side.lost()
    side.send("a")
    call = side.call("m")
    write, _ = side.write(6)
    events = side.readdressed()
    ends = [event.call for event in events if isinstance(event, CallDone)]
    assert ends == [call]
    assert [event.write for event in events if isinstance(event, Settled)] == [write]
    assert side.replica.state is None
    side.connecting()
    side.opened()
    assert sent(side) == []
    assert side.received(identity("other"))[0] == Identified(Address("room", "other"), None)


@pytest.mark.parametrize(("word", "is_away"), [("suspended", True), ("resumed", False)])
def test_notices_of_the_server_are_events_and_no_messages(word: str, is_away: bool) -> None:
    """That the kernel is away is told, also before the identity, and makes no client ready."""
    side = opened()
    assert feed(side, json.dumps({"type": f"cf_agent_{word}"})) == [AwayTold(is_away)]
    assert not side.is_ready
