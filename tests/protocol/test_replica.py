"""A client's copy of the state: `jupyter_agents.protocol.replica`."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agents.errors import (
    CallAborted,
    ConnectionReadonly,
    LocalProtocolError,
    StateRejected,
)
from jupyter_agents.protocol.messages import (
    MISSING,
    StateAcked,
    StateErrorReceived,
    StatePatched,
    StateSent,
)
from jupyter_agents.protocol.replica import (
    MAX_ATTEMPTS,
    WRITE_MOVES,
    Replica,
    Settled,
    StateChanged,
    StateErrored,
    Write,
    WritePhase,
)

SERVER, CLIENT = StateChanged("server"), StateChanged("client")


def known(value: Any = 0, version: int | None = 1) -> Replica:
    """A replica that has been told a state."""
    replica = Replica()
    replica.received(StateSent(value, version))
    return replica


def write(
    replica: Replica, value: Any = MISSING, *, update: Any = None, ready: bool = True
) -> Write:
    """Make a write whose turn has come at once."""
    made = replica.make(f"w{next(NUMBERS)}", value, update)
    replica.add(made, ready=ready)
    made.move("release")
    return made


NUMBERS = itertools.count()


def sent(replica: Replica, *, ready: bool = True) -> list[dict[str, Any]]:
    """The frames that may go out now, decoded, less their type."""
    frames, _ = replica.take(ready=ready)
    found = [json.loads(frame) for frame in frames]
    return [{key: frame[key] for key in frame if key != "type"} or frame for frame in found]


# ── Moves ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("phase", WritePhase)
@pytest.mark.parametrize("event", ["release", "send", "retry", "end"])
def test_write_moves_are_those_of_the_table(phase: WritePhase, event: str) -> None:
    """A move of the table leads where the table says; any other is refused."""
    made = Write("1", phase=phase)
    if event in WRITE_MOVES[phase]:
        made.move(event)
        assert made.phase is WRITE_MOVES[phase][event]
    else:
        with pytest.raises(LocalProtocolError, match=phase.name):
            made.move(event)


# ── What is shown ────────────────────────────────────────────────────────────────────────────


def test_state_is_none_until_told() -> None:
    """Nothing is known at first; then the server's state is shown, null included (T122)."""
    replica = Replica()
    assert (replica.state, replica.shown) == (None, MISSING)
    assert replica.received(StateSent(None, 1)) == [SERVER]
    assert (replica.state, replica.shown) == (None, None)


def test_state_shows_the_last_pending_write() -> None:
    """A write is shown at once, over whatever the server says meanwhile, and until it is over."""
    replica = known(0)
    first, second = write(replica, 1), write(replica, 2)
    replica.take(ready=True)
    assert replica.state == 2
    assert replica.received(StateSent(9, 2)) == []
    assert replica.state == 2
    replica.received(StateAcked(first.id, 3))
    assert replica.state == 2
    assert replica.received(StateAcked(second.id, 4)) == [Settled(second)]
    assert (replica.state, replica.version) == (2, 4)


def test_state_is_a_copy() -> None:
    """Changing what `state` returned, or what was written, changes neither replica nor frames."""
    replica = known({"list": [1]})
    replica.state["list"].append(2)
    replica.received(StatePatched([{"op": "add", "path": "/list/-", "value": 5}], 2, 1))
    assert replica.state == {"list": [1, 5]}
    mine = {"a": [1]}
    write(replica, mine)
    mine["a"].append(2)
    assert sent(replica)[0]["state"] == replica.state == {"a": [1]}


def test_write_is_shown_as_others_will_see_it() -> None:
    """What JSON turns into something else is shown so at once: a tuple is a list."""
    replica = known()
    write(replica, {"pair": (1, 2)})
    assert replica.state == {"pair": [1, 2]}


def test_write_of_the_impossible_is_refused() -> None:
    """A value JSON cannot carry raises where it is given, and is not shown."""
    replica = known(0)
    with pytest.raises(TypeError, match="object"):
        replica.make("1", object(), None)
    assert replica.state == 0


# ── Answers ──────────────────────────────────────────────────────────────────────────────────


def test_ack_with_a_state_shows_that_state() -> None:
    """Where the server settled on another value than was sent, that value is shown."""
    replica = known(0)
    made = write(replica, 99)
    replica.take(ready=True)
    assert replica.received(StateAcked(made.id, 2, 30)) == [SERVER, Settled(made)]
    assert replica.state == 30


def test_ack_of_an_older_version_does_not_go_back() -> None:
    """When a newer state came before the acknowledgement, the newer one stays."""
    replica = known(0)
    made = write(replica, 1)
    replica.take(ready=True)
    replica.received(StateSent(7, 3))
    assert replica.received(StateAcked(made.id, 2)) == [SERVER, Settled(made)]
    assert (replica.state, replica.version) == (7, 3)


def test_refusal_rolls_back_and_tells_why() -> None:
    """A refused write leaves no trace, and whoever made it gets the reason (T204)."""
    replica = known({"n": 1})
    made = write(replica, {"n": -1})
    replica.take(ready=True)
    frame = StateErrorReceived("n must be >= 0", made.id, {"n": 1}, 1)
    changed, errored, settled = replica.received(frame)
    assert (changed, errored) == (SERVER, StateErrored("n must be >= 0"))
    assert isinstance(settled, Settled)
    assert isinstance(settled.error, StateRejected)
    assert settled.error.reason == "n must be >= 0"
    assert replica.state == {"n": 1}


def test_refusal_without_state_shows_the_confirmed_one() -> None:
    """A refusal that does not say what holds rolls back to what was confirmed last."""
    replica = known(5)
    made = write(replica, 6)
    replica.take(ready=True)
    replica.received(StateErrorReceived("no", made.id))
    assert (replica.state, replica.version) == (5, 1)


def test_refusal_of_a_readonly_connection_has_its_own_error() -> None:
    """The SDK's sentence for readonly connections becomes `ConnectionReadonly`."""
    replica = known(5)
    made = write(replica, 6)
    replica.take(ready=True)
    settled = replica.received(StateErrorReceived("Connection is readonly", made.id, 5, 1))[-1]
    assert isinstance(settled, Settled)
    assert isinstance(settled.error, ConnectionReadonly)


def test_refusal_without_id_is_reported_only() -> None:
    """A refusal that names no write (an SDK server's) is reported and rolls nothing back."""
    replica = known(5)
    assert replica.received(StateErrorReceived("no")) == [StateErrored("no")]
    assert replica.state == 5


def test_refused_write_leaves_the_later_one_in_place() -> None:
    """Only the refused write goes; a later one stays shown, and holds when acknowledged."""
    replica = known(0)
    bad, good = write(replica, -1), write(replica, 2)
    replica.take(ready=True)
    replica.received(StateErrorReceived("no", bad.id, 0, 1))
    assert replica.state == 2
    replica.received(StateAcked(good.id, 2))
    assert replica.state == 2


# ── Writes made while away ───────────────────────────────────────────────────────────────────


def test_online_write_overwrites_any_version() -> None:
    """Online the last writer wins: no base is sent."""
    replica = known(0, 4)
    made = write(replica, 1)
    assert sent(replica) == [{"state": 1, "write": made.id}]


def test_offline_write_carries_the_version_it_was_made_on() -> None:
    """Made while away, a write must not overwrite what its author never saw (T203)."""
    replica = known(0, 4)
    replica.lost()
    made = write(replica, 1, ready=False)
    assert sent(replica, ready=False) == [{"state": 1, "write": made.id, "base": 4}]
    *_, settled = replica.received(StateErrorReceived("The state has changed", made.id, 8, 5))
    assert isinstance(settled, Settled)
    assert isinstance(settled.error, StateRejected)
    assert (replica.state, replica.version) == (8, 5)


def test_offline_writes_do_not_refuse_each_other() -> None:
    """A chain of offline writes goes out one by one, each on the version its forerunner made."""
    replica = known(0, 4)
    replica.lost()
    first, second = write(replica, 1, ready=False), write(replica, 2, ready=False)
    assert [frame["base"] for frame in sent(replica)] == [4]
    assert sent(replica) == []
    replica.received(StateAcked(first.id, 5))
    assert sent(replica) == [{"state": 2, "write": second.id, "base": 5}]


def test_writes_without_an_answer_are_offered_again_when_the_kernel_is_back() -> None:
    """They keep their ids, and must not overwrite what came in between; one after the other."""
    replica = known(0, 4)
    first, second = write(replica, 1), write(replica, 2)
    assert len(sent(replica)) == 2
    replica.resumed()
    assert sent(replica) == [{"state": 1, "write": first.id, "base": 4}]
    assert sent(replica) == []
    replica.received(StateAcked(first.id, 5))
    assert sent(replica) == [{"state": 2, "write": second.id, "base": 5}]
    assert replica.received(StateAcked(second.id, 6)) == [Settled(second)]
    replica.resumed()
    assert sent(replica) == []


def test_write_that_holds_already_when_offered_again_is_no_failure() -> None:
    """It had been applied, and its answer was lost: a refusal with its own value says so."""
    replica = known(0, 4)
    first, second = write(replica, 1), write(replica, 2)
    replica.take(ready=True)
    replica.resumed()
    replica.take(ready=True)
    assert replica.received(StateErrorReceived("stale", first.id, 1, 5)) == [Settled(first)]
    replica.take(ready=True)
    _, settled = replica.received(StateErrorReceived("stale", second.id, 9, 7))[-2:]
    assert isinstance(settled, Settled)
    assert isinstance(settled.error, StateRejected)
    assert replica.state == 9


def test_function_offered_again_is_computed_again() -> None:
    """A write by a function starts from what the server confirmed last, and counts no attempt."""
    replica = known(0, 4)
    made = write(replica, update=lambda n: n + 1)
    for version in range(4, 4 + 2 * MAX_ATTEMPTS):
        replica.received(StateSent(10 * version, version))
        [frame] = sent(replica)
        assert frame == {"state": 10 * version + 1, "write": made.id, "base": version}
        replica.resumed()


def test_offline_chain_after_a_refused_one_keeps_its_base() -> None:
    """When the first of a chain is stale, the next is tried on the version it was made on."""
    replica = known(0, 4)
    replica.lost()
    first, second = write(replica, 1, ready=False), write(replica, 2, ready=False)
    replica.take(ready=True)
    replica.received(StateErrorReceived("stale", first.id, 9, 7))
    assert sent(replica) == [{"state": 2, "write": second.id, "base": 4}]


def test_online_write_waits_behind_an_offline_one() -> None:
    """The order in which writes were made is the order in which they go out."""
    replica = known(0, 4)
    replica.lost()
    away = write(replica, 1, ready=False)
    back = write(replica, 2)
    assert [frame["state"] for frame in sent(replica)] == [1]
    replica.received(StateAcked(away.id, 5))
    assert sent(replica) == [{"state": 2, "write": back.id}]


def test_online_write_that_a_drop_left_unsent_gets_a_base() -> None:
    """A write that leaves on a later connection is as careful as one made offline."""
    replica = known(0, 4)
    replica.lost()
    write(replica, 1, ready=False)
    behind = write(replica, 2)
    replica.take(ready=True)
    replica.lost()
    assert sent(replica) == [{"state": 2, "write": behind.id, "base": 4}]


def test_first_write_of_all_has_no_base() -> None:
    """Before the first connection there is no version to go by."""
    replica = Replica()
    made = write(replica, 1, ready=False)
    assert sent(replica, ready=False) == [{"state": 1, "write": made.id}]


# ── Writes by a function ─────────────────────────────────────────────────────────────────────


def increased(state: Any) -> Any:
    """One more than before."""
    return {"n": (state or {"n": 0})["n"] + 1}


def test_function_sees_what_is_confirmed_and_names_its_version() -> None:
    """A function's write carries the version it was computed from."""
    replica = known({"n": 4}, 7)
    made = write(replica, update=increased)
    assert replica.state == {"n": 5}
    assert sent(replica) == [{"state": {"n": 5}, "write": made.id, "base": 7}]


def test_function_is_computed_anew_when_stale() -> None:
    """When another write came first, the function runs again on the newer state."""
    replica = known({"n": 4}, 7)
    made = write(replica, update=increased)
    replica.take(ready=True)
    assert replica.received(StateErrorReceived("stale", made.id, {"n": 10}, 8)) == []
    assert sent(replica) == [{"state": {"n": 11}, "write": made.id, "base": 8}]
    assert replica.received(StateAcked(made.id, 9))[-1] == Settled(made)


def test_function_gives_up_at_last() -> None:
    """A function that always comes too late is refused after a bounded number of attempts."""
    replica = known({"n": 0}, 0)
    made = write(replica, update=increased)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert len(sent(replica)) == 1
        events = replica.received(StateErrorReceived("stale", made.id, {"n": 0}, attempt))
    settled = events[-1]
    assert isinstance(settled, Settled)
    assert isinstance(settled.error, StateRejected)
    assert str(MAX_ATTEMPTS) in str(settled.error)
    assert sent(replica) == []


def test_function_is_not_retried_when_a_validator_refuses() -> None:
    """A refusal on the very version it was computed from is final, whatever its words."""
    replica = known({"n": 4}, 7)
    made = write(replica, update=increased)
    replica.take(ready=True)
    settled = replica.received(StateErrorReceived("stale", made.id, {"n": 4}, 7))[-1]
    assert isinstance(settled, Settled)
    assert isinstance(settled.error, StateRejected)


def test_function_waits_for_the_state() -> None:
    """Before the server said what holds, a function cannot be computed; it shows nothing."""
    replica = Replica()
    made = write(replica, update=increased, ready=False)
    assert replica.state is None
    assert sent(replica, ready=False) == []
    replica.received(StateSent({"n": 1}, 3))
    assert sent(replica) == [{"state": {"n": 2}, "write": made.id, "base": 3}]


def test_function_on_no_state_at_all_gets_none() -> None:
    """Where the agent has no state, the function starts from None and overwrites nothing."""
    replica = Replica()
    made = write(replica, update=increased)
    assert sent(replica) == [{"state": {"n": 1}, "write": made.id}]


def test_function_waits_for_the_writes_before_it() -> None:
    """A function sees the outcome of the writes before it, not their hopes."""
    replica = known({"n": 0}, 1)
    before = write(replica, {"n": 50})
    after = write(replica, update=increased)
    assert [frame["write"] for frame in sent(replica)] == [before.id]
    assert replica.state == {"n": 51}
    replica.received(StateErrorReceived("no", before.id, {"n": 0}, 1))
    assert sent(replica) == [{"state": {"n": 1}, "write": after.id, "base": 1}]


def test_function_may_change_its_argument() -> None:
    """A function gets a copy: spoiling it spoils nothing."""
    replica = known({"n": 0})

    def spoil(state: Any) -> Any:
        state["n"] += 1
        return state

    made = write(replica, update=spoil)
    assert sent(replica)[0]["state"] == {"n": 1}
    replica.received(StateErrorReceived("no", made.id))
    assert replica.state == {"n": 0}


def test_function_that_raises_at_once_is_not_taken() -> None:
    """Its author sees the error where the function was given."""
    replica = known({"n": 0})
    with pytest.raises(ZeroDivisionError):
        replica.make("1", MISSING, lambda state: 1 // state["n"])
    assert replica.pending == []


def test_function_that_raises_later_ends_its_write() -> None:
    """An error on a newer state ends the write, and the ones behind it go on."""
    replica = known({"n": 1}, 1)
    made = write(replica, update=lambda state: {"n": 1 // state["n"]})
    behind = write(replica, {"n": 3})
    replica.take(ready=True)
    replica.received(StateErrorReceived("stale", made.id, {"n": 0}, 2))
    frames, events = replica.take(ready=True)
    assert [json.loads(frame)["write"] for frame in frames] == [behind.id]
    (settled,) = [event for event in events if isinstance(event, Settled)]
    assert isinstance(settled.error, ZeroDivisionError)


# ── Patches, and losing track ────────────────────────────────────────────────────────────────

ADD_B = [{"op": "add", "path": "/b", "value": 2}]


def test_patch_applies_to_its_base() -> None:
    """A patch on the version that is known turns it into the next."""
    replica = known({"a": 1}, 3)
    assert replica.received(StatePatched(ADD_B, 4, 3)) == [SERVER]
    assert (replica.state, replica.version) == ({"a": 1, "b": 2}, 4)
    assert sent(replica) == []


@pytest.mark.parametrize(
    "patch", [StatePatched(ADD_B, 9, 8), StatePatched([{"op": "remove", "path": "/x"}], 4, 3)]
)
def test_patch_that_does_not_fit_asks_for_the_whole(patch: StatePatched) -> None:
    """On another base, or when it fails, nothing changes; the whole is asked for, once."""
    replica = known({"a": 1}, 3)
    assert replica.received(patch) == []
    replica.received(patch)
    assert (replica.state, replica.version) == ({"a": 1}, 3)
    assert sent(replica) == [{"type": "cf_agent_state_get"}]
    assert sent(replica) == []
    replica.received(StateSent({"a": 5}, 9))
    replica.received(patch)
    assert sent(replica) == [{"type": "cf_agent_state_get"}]


def test_patch_without_any_state_asks_for_the_whole() -> None:
    """A patch of nothing means nothing."""
    replica = Replica()
    replica.received(StatePatched(ADD_B, 1, 0))
    assert sent(replica) == [{"type": "cf_agent_state_get"}]


def test_question_is_asked_again_on_a_new_connection() -> None:
    """A question that a drop left unanswered does not keep the client from asking later."""
    replica = known({"a": 1}, 3)
    replica.received(StatePatched(ADD_B, 9, 8))
    replica.take(ready=True)
    replica.lost()
    replica.opened()
    replica.received(StatePatched(ADD_B, 9, 8))
    assert sent(replica) == [{"type": "cf_agent_state_get"}]


def test_ack_of_a_forgotten_write_asks_for_the_whole() -> None:
    """A write nobody waits for any more may hold all the same: the whole is asked for."""
    replica = known(0)
    made = write(replica, 1)
    replica.take(ready=True)
    assert replica.give_up(made) == [SERVER]
    assert replica.state == 0
    assert replica.received(StateAcked(made.id, 2)) == []
    assert sent(replica) == [{"type": "cf_agent_state_get"}]


def test_give_up_before_sending_sends_nothing() -> None:
    """A write that was given up while it waited never leaves."""
    replica = known(0)
    made = write(replica, 1, ready=False)
    replica.give_up(made)
    assert sent(replica) == []


# ── Drops and ends ───────────────────────────────────────────────────────────────────────────


def test_lost_fails_what_was_sent_only() -> None:
    """A drop fails the unanswered write and keeps the one that never left."""
    replica = known(0)
    gone = write(replica, 1)
    replica.take(ready=True)
    kept = write(replica, 2, ready=False)
    (settled,) = [event for event in replica.lost() if isinstance(event, Settled)]
    assert settled.write is gone
    assert isinstance(settled.error, CallAborted)
    assert settled.error.transmitted
    assert replica.pending == [kept]
    assert replica.state == 2


def test_ended_fails_all() -> None:
    """A final end fails every write, each saying whether it was sent."""
    replica = known(0)
    write(replica, 1)
    replica.take(ready=True)
    write(replica, 2)
    ends = [event for event in replica.ended("over") if isinstance(event, Settled)]
    assert [getattr(end.error, "transmitted", None) for end in ends] == [True, False]
    assert replica.state == 0


def test_vanished_forgets() -> None:
    """When the agent has no state (any more), none is shown."""
    replica = known(3)
    assert replica.vanished() == [SERVER]
    assert (replica.state, replica.version) == (None, None)
    assert replica.vanished() == []


# ── Servers that do not know our extension ───────────────────────────────────────────────────


def test_plain_write_is_the_sdks() -> None:
    """Without the extension a write is the SDK's frame, and over once it is sent."""
    replica = Replica(extended=False)
    made = write(replica, 1)
    frames, events = replica.take(ready=True)
    assert [json.loads(frame) for frame in frames] == [{"type": "cf_agent_state", "state": 1}]
    assert events == [Settled(made)]
    assert replica.state == 1


def test_uncounted_state_unmasks_an_sdk_server() -> None:
    """A state without a version says that nothing will be acknowledged."""
    replica = Replica()
    made = write(replica, 1)
    replica.take(ready=True)
    assert replica.received(StateSent(5)) == [SERVER, Settled(made)]
    assert replica.state == 5
    later = write(replica, 6)
    frames, events = replica.take(ready=True)
    assert "write" not in json.loads(frames[0])
    assert events == [Settled(later)]


def test_next_server_may_be_ours_again() -> None:
    """What one connection's server cannot do is not held against the next."""
    replica = known(5, None)
    replica.lost()
    replica.opened()
    made = write(replica, 6)
    assert sent(replica) == [{"state": 6, "write": made.id}]


# ── Every replica ends equal to the server (T202, T203) ──────────────────────────────────────


class Server:
    """The rules of WIRE 3 and 4, and one ordered pipe each way per client."""

    def __init__(self, clients: int) -> None:
        self.state: dict[str, int] = {"n": 0}
        self.version = 1
        self.clients = [Client(self) for _ in range(clients)]

    def write(self, state: dict[str, int], by: Client | None = None) -> None:
        self.state, self.version = state, self.version + 1
        for client in self.clients:
            if client is not by and client.online:
                client.inbox.append(StateSent(state, self.version))

    def handle(self, client: Client, frame: dict[str, Any]) -> None:
        if "write" not in frame:
            client.inbox.append(StateSent(self.state, self.version))
            return
        base, state = frame.get("base"), frame["state"]
        if (base is not None and base != self.version) or state["n"] % 7 == 3:
            why = StateErrorReceived("refused", frame["write"], self.state, self.version)
            client.inbox.append(why)
            return
        self.write(state, by=client)
        client.inbox.append(StateAcked(frame["write"], self.version))


class Client:
    """A replica between two pipes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.replica = Replica()
        self.online = self.ready = False
        self.inbox: list[Any] = []
        self.outbox: list[dict[str, Any]] = []
        self.count = 0

    def toggle(self) -> None:
        self.inbox, self.outbox, self.ready = [], [], False
        self.online = not self.online
        if self.online:
            self.replica.opened()
            self.inbox.append(StateSent(self.server.state, self.server.version))
            self.pump()
        else:
            self.replica.lost()

    def change(self, value: int, *, by_function: bool) -> None:
        self.count += 1
        update = (lambda state: {"n": (state or {"n": 0})["n"] + value}) if by_function else None
        made = self.replica.make(str(self.count), {"n": value}, update)
        self.replica.add(made, ready=self.ready)
        made.move("release")
        self.pump()

    def pump(self) -> None:
        if self.online:
            frames, _ = self.replica.take(ready=self.ready)
            self.outbox += [json.loads(frame) for frame in frames]

    def hear(self) -> None:
        if self.inbox:
            frame = self.inbox.pop(0)
            self.replica.received(frame)
            self.ready = self.ready or isinstance(frame, StateSent)
            self.pump()

    def speak(self) -> None:
        if self.outbox:
            self.server.handle(self, self.outbox.pop(0))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["toggle", "set", "add", "hear", "hear", "speak", "speak", "server"]),
        st.integers(0, 2),
        st.integers(0, 20),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_replica_ends_equal_to_the_server(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is written, refused, lost and delayed: in the end all show the server's state."""
    server = Server(3)
    for step, who, value in steps:
        client = server.clients[who]
        if step == "set":
            client.change(value, by_function=False)
        elif step == "add":
            client.change(value, by_function=True)
        elif step == "server":
            server.write({"n": value})
        else:
            getattr(client, step)()
    for client in server.clients:
        if not client.online:
            client.toggle()
    while any(client.inbox or client.outbox for client in server.clients):
        for client in server.clients:
            client.speak()
            client.hear()
    for client in server.clients:
        assert client.replica.pending == []
        assert (client.replica.state, client.replica.version) == (server.state, server.version)
