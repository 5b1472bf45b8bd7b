from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traitlets import Dict, Float, HasTraits, Int, List, TraitError, Unicode, observe, validate

from jupyter_agents.errors import ConnectionReadonly, StateError, StateRejected
from jupyter_agents.host.callables import callable_method
from jupyter_agents.host.state import (
    Stateful,
    apply_client_state,
    field_names,
    has_view,
    load_state,
    snapshot_json,
    snapshot_private_json,
    snapshot_value,
    state_version,
)
from jupyter_agents.host.storage import StoredInstance
from jupyter_agents.protocol.messages import MISSING, decode

CLIENT = "a connection"  # any object: state only hands it on


class FakeHost:
    """Writes down what an instance's state asks of its host."""

    def __init__(self, agent):
        self.agent = agent
        self.log = []
        self.readonly = False

    def may_write(self, source):
        if self.readonly:
            raise ConnectionReadonly("c1")

    def changed(self, source, sent=MISSING):
        told = (source, decode(snapshot_json(self.agent)), state_version(self.agent))
        self.log.append(told if sent is MISSING else (*told, sent))

    def cleared(self):
        self.log.append("cleared")

    def private_changed(self):
        self.log.append(("private", snapshot_private_json(self.agent)))


def hosted(cls, stored=None, *, version=0, private=None):
    """A hosted instance and its host's log, as after waking."""
    agent = cls.__new__(cls)
    agent._state_host = host = FakeHost(agent)
    agent.__init__()
    load_state(agent, StoredInstance(stored, version, private))
    return agent, host


def quiet(cls, *args, **kwargs):
    """The same with the waking's entries dropped from the log."""
    agent, host = hosted(cls, *args, **kwargs)
    host.log.clear()
    return agent, host


class Room(Stateful):
    initial_state = {"n": 0}


class Bare(Stateful):
    """Free-form without a first state."""


class Thermostat(Stateful):
    target = Float(20.0, min=5, max=30).tag(sync=True)
    mode = Unicode("auto").tag(sync=True)
    history = List(Int()).tag(sync=True)
    local = Int(0)

    @validate("mode")
    def _known_mode(self, proposal):
        if proposal["value"] not in ("auto", "heat", "off"):
            raise TraitError("no such mode")
        return proposal["value"]


START = {"target": 20.0, "mode": "auto", "history": []}


# ── Waking ───────────────────────────────────────────────────────────────────────────────


def test_initial_state_is_announced_on_waking():
    """A new instance has its initial state, and the host hears of it as of any change (T051)."""
    room, host = hosted(Room)
    assert room.state == {"n": 0}
    assert host.log == [("server", {"n": 0}, 1)]


def test_no_initial_state_is_no_state():
    """Without one, the state is None and nothing is kept (T052, T056)."""
    bare, host = hosted(Bare)
    assert bare.state is None
    assert snapshot_json(bare) is None
    assert snapshot_value(bare) is MISSING
    assert state_version(bare) == 0
    assert host.log == []


def test_state_set_without_an_initial_one():
    """It can be set all the same (T053)."""
    bare, host = hosted(Bare)
    bare.set_state([1])
    assert bare.state == [1]
    assert host.log == [("server", [1], 1)]


def test_stored_state_wins():
    """What was stored holds, not the initial state, and is no news (T054)."""
    room, host = hosted(Room, b'{"n":5}', version=9)
    assert room.state == {"n": 5}
    assert state_version(room) == 9
    assert host.log == []
    room.set_state({"n": 6})
    assert host.log == [("server", {"n": 6}, 10)]


@pytest.mark.parametrize("falsy", [b"null", b"0", b"false", b'""', b"[]", b"{}"])
def test_falsy_stored_states_are_states(falsy):
    """null, 0, False and "" are kept as exactly that (T055)."""
    room, host = hosted(Room, falsy, version=2)
    assert room.state == decode(falsy)
    assert type(room.state) is type(decode(falsy))
    assert snapshot_json(room) == falsy
    assert host.log == []


@pytest.mark.parametrize("falsy", [None, 0, False, "", [], {}])
def test_falsy_states_can_be_set(falsy):
    """Setting null is setting a state, not removing it (T055)."""
    room, host = quiet(Room)
    room.set_state(falsy)
    assert room.state == falsy
    assert host.log == [("server", falsy, 2)]


@pytest.mark.parametrize("corrupt", [b"{", b"", b"\xff", b"[" * 10_000])
def test_corrupt_state_falls_back_to_the_initial_one(corrupt, caplog):
    """The initial state takes its place and is saved, with a warning (T057)."""
    room, host = hosted(Room, corrupt, version=4)
    assert room.state == {"n": 0}
    assert host.log == [("server", {"n": 0}, 5)]
    assert "unreadable" in caplog.text
    assert "Room" in caplog.text


def test_corrupt_state_without_an_initial_one_is_cleared(caplog):
    """The row is dropped, so that the next waking is clean (T058)."""
    bare, host = hosted(Bare, b"{")
    assert bare.state is None
    assert host.log == ["cleared"]
    assert "unreadable" in caplog.text


def test_initial_state_is_validated():
    """An initial state that the class itself refuses keeps the instance from waking."""

    class Wrong(Stateful):
        initial_state = {"n": -1}

        def validate_state_change(self, next_state, source):
            assert source == "server"
            if next_state["n"] < 0:
                raise StateRejected("n must be >= 0")

    with pytest.raises(StateRejected, match="n must be >= 0"):
        hosted(Wrong)
    agent, _ = hosted(Wrong, b'{"n":1}')
    assert agent.state == {"n": 1}


def test_stored_state_is_not_validated():
    """A validator that was tightened since does not lock the instance out of its own state."""

    class Strict(Stateful):
        initial_state = 0

        def validate_state_change(self, next_state, source):
            raise StateRejected("never")

    agent, _ = hosted(Strict, b"7")
    assert agent.state == 7


def test_initial_state_is_not_shared():
    """Each instance has a copy; the class's own dict is never handed out."""
    one, _ = hosted(Room)
    two, _ = hosted(Room)
    one.state["n"] = 5
    one.set_state(one.state)
    assert two.state == {"n": 0}
    assert Room.initial_state == {"n": 0}
    assert hosted(Room)[0].state == {"n": 0}


def test_initial_state_may_be_computed():
    """As a property it can depend on the instance."""

    class Computed(Stateful):
        def __init__(self):
            super().__init__()
            self.size = 3

        @property
        def initial_state(self):
            return [0] * self.size

    assert hosted(Computed)[0].state == [0, 0, 0]


def test_constructor_sets_the_starting_state():
    """What the constructor sets is announced like an initial state, unless something is stored."""

    class Made(Stateful):
        initial_state = {"n": 0}

        def __init__(self):
            super().__init__()
            assert self.state == {"n": 0}
            self.state["n"] = 1
            self.set_state(self.state)
            self.update_state(m=2)
            self.private_state = "p"

    agent, host = hosted(Made)
    assert agent.state == {"n": 1, "m": 2}
    assert agent.private_state == "p"
    assert host.log == [("private", b'"p"'), ("server", {"n": 1, "m": 2}, 1)]
    agent, host = hosted(Made, b"7", private=b'"stored"')
    assert agent.state == 7
    assert agent.private_state == "stored"
    assert host.log == []


def test_version_goes_on_over_kernels():
    """A stored version is counted on from, also where no state came with it."""
    room, host = hosted(Room, None, version=41)
    assert host.log == [("server", {"n": 0}, 42)]
    assert state_version(room) == 42


# ── Free-form ────────────────────────────────────────────────────────────────────────────


def test_set_state_replaces():
    """The whole value is replaced, nothing is merged (S3)."""
    room, host = quiet(Room)
    room.set_state({"m": 1})
    assert room.state == {"m": 1}
    assert host.log == [("server", {"m": 1}, 2)]


def test_setting_the_same_again_is_a_change():
    """As in the SDK, `set_state` always tells (T065)."""
    room, host = quiet(Room)
    room.set_state({"n": 0})
    room.set_state({"n": 0})
    assert [version for _, _, version in host.log] == [2, 3]


def test_update_state_replaces_fields():
    """The other fields stay."""
    room, host = quiet(Room)
    room.update_state(m=1)
    room.update_state(n=2)
    assert host.log[-1] == ("server", {"n": 2, "m": 1}, 3)


def test_update_state_of_nothing_makes_an_object():
    """None counts as an object without fields, as a state that was never set does."""
    bare, _ = hosted(Bare)
    bare.update_state(a=1)
    assert bare.state == {"a": 1}
    bare.set_state(None)
    bare.update_state(b=2)
    assert bare.state == {"b": 2}


def test_update_state_needs_an_object():
    """A list or number has no fields."""
    room, host = quiet(Room, b"[1]")
    with pytest.raises(TypeError, match="update_state needs an object, not 'list'"):
        room.update_state(a=1)
    assert room.state == [1]
    assert host.log == []


def test_change_in_place_is_told_when_set():
    """``self.state["n"] += 1; self.set_state(self.state)`` is a change like any other."""
    room, host = quiet(Room)
    for n in (1, 2):
        room.state["n"] += 1
        room.set_state(room.state)
        assert host.log[-1] == ("server", {"n": n}, n + 1)


def test_change_in_place_without_set_is_not_told():
    """What was only changed in place is not kept, and the next snapshot does not have it."""
    room, host = quiet(Room)
    room.state["n"] = 5
    assert snapshot_value(room) == {"n": 0}
    assert host.log == []


def test_state_is_plain_json():
    """After a set the state is what the next kernel will read: lists, text keys, no classes."""
    room, _ = quiet(Room)
    room.set_state({1: (1, 2)})
    assert room.state == {"1": [1, 2]}


def test_state_is_independent_of_what_was_set():
    """Changing the object that was passed changes nothing."""
    mine = {"n": 1}
    room, _ = quiet(Room)
    room.set_state(mine)
    mine["n"] = 2
    assert room.state == {"n": 1}
    assert snapshot_value(room) == {"n": 1}


def test_deep_state_is_kept():
    """A nested state comes back equal (T060)."""
    deep = {"a": [{"b": [{"c": {"d": [None, 1.5, "x"]}}]}]}
    room, host = quiet(Room)
    room.set_state(deep)
    assert room.state == deep
    assert host.log == [("server", deep, 2)]


@pytest.mark.parametrize("value", [object(), {"a": object()}, {(1, 2): 1}])
def test_what_json_cannot_carry_is_refused(value):
    """The TypeError is raised where the author set it, and nothing changes."""
    room, host = quiet(Room)
    with pytest.raises(TypeError):
        room.set_state(value)
    assert room.state == {"n": 0}
    assert host.log == []


def test_unsendable_change_in_place_is_undone():
    """A refused change changes nothing, not even what was changed in place."""
    room, host = quiet(Room)
    room.state["n"] = object()
    with pytest.raises(TypeError):
        room.set_state(room.state)
    assert room.state == {"n": 0}
    assert host.log == []


def test_state_has_no_setter():
    """Assigning `state` is an error, since it could not be told apart from a plain attribute."""
    room, _ = quiet(Room)
    with pytest.raises(AttributeError):
        room.state = {}


# ── Validating ───────────────────────────────────────────────────────────────────────────


class Score(Stateful):
    initial_state = {"score": 0}

    def __init__(self):
        super().__init__()
        self.asked = []

    def validate_state_change(self, next_state, source):
        self.asked.append((next_state, source))
        if next_state["score"] < 0:
            raise StateRejected("score must be >= 0")
        next_state["score"] = "scribbled on"


def test_validator_refuses_the_servers_change():
    """The caller gets the error; nothing is kept or told (T064)."""
    score, host = quiet(Score)
    with pytest.raises(StateRejected, match="score must be >= 0"):
        score.set_state({"score": -1})
    assert score.state == {"score": 0}
    assert state_version(score) == 1
    assert host.log == []


def test_validator_undoes_a_change_in_place():
    """The state is as it was, although the author had it in hand."""
    score, _ = quiet(Score)
    score.state["score"] = -1
    with pytest.raises(StateRejected):
        score.set_state(score.state)
    assert score.state == {"score": 0}


def test_validator_that_accepts_leads_to_one_change():
    """Exactly one change is handed over (T065), and scribbling on the copy has no effect."""
    score, host = quiet(Score)
    score.set_state({"score": 2})
    assert host.log == [("server", {"score": 2}, 2)]
    assert score.state == {"score": 2}


def test_validator_sees_next_and_old_state():
    """It gets what would be, and who wants it; `self.state` is still what is."""

    class Rising(Stateful):
        initial_state = 0

        def validate_state_change(self, next_state, source):
            if self.state is not None and next_state < self.state:
                raise StateRejected(f"{source}: {self.state} -> {next_state}")

    agent, _ = quiet(Rising)
    agent.set_state(3)
    with pytest.raises(StateRejected, match="server: 3 -> 2"):
        agent.set_state(2)
    with pytest.raises(StateRejected, match="a connection: 3 -> 1"):
        apply_client_state(agent, 1, CLIENT)


@pytest.mark.parametrize("typed", [False, True])
def test_validator_must_not_change_the_state(typed):
    """Setting the state inside is refused, and with it the change in question."""

    def validate_state_change(self, next_state, source):
        if next_state.get("n") == 1:
            self.set_state({"n": 2})

    body = {"n": Int(0).tag(sync=True)} if typed else {"initial_state": {"n": 0}}
    cls = type("Meddler", (Stateful,), {**body, "validate_state_change": validate_state_change})
    agent, host = quiet(cls)
    with pytest.raises(StateError, match="validate_state_change must not change the state"):
        agent.set_state({"n": 1})
    assert agent.state == {"n": 0}
    assert host.log == []
    agent.set_state({"n": 3})
    assert agent.state == {"n": 3}


# ── Clients ──────────────────────────────────────────────────────────────────────────────


def test_client_write_has_the_connection_as_source():
    """The host hears who wrote, and what was sent (T063)."""
    room, host = quiet(Room)
    assert apply_client_state(room, {"n": 1}, CLIENT) == {"n": 1}
    assert host.log == [(CLIENT, {"n": 1}, 2, {"n": 1})]


def test_client_write_is_validated():
    """The validator gets the connection, and its refusal leaves all as it was (T071)."""
    score, host = quiet(Score)
    with pytest.raises(StateRejected) as caught:
        apply_client_state(score, {"score": -1}, CLIENT)
    assert caught.value.reason == "score must be >= 0"
    assert score.asked[-1] == ({"score": -1}, CLIENT)
    assert score.state == {"score": 0}
    assert host.log == []


def test_validators_own_errors_come_through():
    """Whatever a validator raises refuses the write, and is not taken for a public reason."""

    class Broken(Stateful):
        initial_state = 0

        def validate_state_change(self, next_state, source):
            if next_state:
                raise KeyError("secret")

    agent, host = quiet(Broken)
    with pytest.raises(KeyError):
        apply_client_state(agent, 1, CLIENT)
    assert agent.state == 0
    assert host.log == []


def test_readonly_connection_may_not_write():
    """The host's verdict comes first, whatever else is wrong with the write (T078)."""
    agent, host = quiet(Thermostat)
    host.readonly = True
    with pytest.raises(ConnectionReadonly, match="Connection is readonly"):
        apply_client_state(agent, {"target": "no number"}, CLIENT)
    assert agent.state == START


@pytest.mark.parametrize(
    "change",
    [
        lambda agent: agent.set_state({"target": 21}),
        lambda agent: agent.set_state({"target": "no number"}),
        lambda agent: agent.update_state(target=21),
        lambda agent: setattr(agent, "target", 21),
    ],
)
def test_server_code_for_a_readonly_connection_may_not_write(change):
    """Every way to change the state asks the host, who knows whom it serves (T079)."""
    agent, host = quiet(Thermostat)
    host.readonly = True
    with pytest.raises(ConnectionReadonly):
        change(agent)
    assert agent.state == START
    assert agent.target == 20.0
    host.readonly = False
    change_again = {"target": 22}
    agent.set_state(change_again)  # T081
    assert agent.target == 22.0


def test_free_form_state_asks_the_host_too():
    """The same for free-form state (T079)."""
    room, host = quiet(Room)
    host.readonly = True
    for change in (lambda: room.set_state(1), lambda: room.update_state(n=1)):
        with pytest.raises(ConnectionReadonly):
            change()
    assert room.state == {"n": 0}


def test_private_state_may_be_written_for_anyone():
    """Readonly is about the shared state."""
    room, host = quiet(Room)
    host.readonly = True
    room.private_state = 1
    assert room.private_state == 1


def test_closed_class_takes_no_client_writes():
    """With ``client_writes = "closed"`` the state changes by methods only."""

    class Closed(Room):
        client_writes = "closed"

    room, host = quiet(Closed)
    with pytest.raises(StateRejected, match="Clients may not write"):
        apply_client_state(room, {"n": 1}, CLIENT)
    assert host.log == []
    room.set_state({"n": 1})
    assert host.log == [("server", {"n": 1}, 2)]


# ── Typed ────────────────────────────────────────────────────────────────────────────────


def test_fields_are_the_tagged_traits():
    """Traits tagged sync=True, in order of definition, are the state; others are not."""
    agent, host = hosted(Thermostat)
    assert field_names(Thermostat) == ("target", "mode", "history")
    assert field_names(Room) == ()
    assert agent.state == START
    assert list(agent.state) == ["target", "mode", "history"]
    assert host.log == [("server", START, 1)]
    agent.local = 5
    assert len(host.log) == 1


def test_fields_are_inherited():
    """A child adds fields behind its parent's, and may take one away."""

    class Child(Thermostat):
        fan = Int(0).tag(sync=True)
        mode = Unicode("plain")

    assert field_names(Child) == ("target", "history", "fan")
    assert hosted(Child)[0].state == {"target": 20.0, "history": [], "fan": 0}


def test_assigning_a_trait_is_a_change_of_state():
    """It is validated, kept, told, and the observers run."""
    agent, host = quiet(Thermostat)
    seen = []
    agent.observe(lambda change: seen.append((change.old, change.new, len(host.log))), "target")
    agent.target = 21
    assert host.log == [("server", {**START, "target": 21.0}, 2)]
    assert agent.state["target"] == 21.0
    assert seen == [(20.0, 21.0, 1)]  # told first, then observed


def test_assigning_the_same_value_is_no_change():
    """As with any HasTraits (T210: no echo)."""
    agent, host = quiet(Thermostat)
    agent.target = 20
    agent.set_state(agent.state)
    agent.update_state(mode="auto")
    assert apply_client_state(agent, START, CLIENT) == START
    assert host.log == []


@pytest.mark.parametrize(
    ("name", "value"), [("target", "warm"), ("target", 99), ("mode", "party"), ("history", ["x"])]
)
def test_refused_assignment_changes_nothing(name, value):
    """The error of traitlets is raised; value, state and observers are untouched."""
    agent, host = quiet(Thermostat)
    agent.observe(lambda change: pytest.fail(f"observed {change}"))
    with pytest.raises(TraitError):
        setattr(agent, name, value)
    assert agent.state == START
    assert getattr(agent, name) == START[name]
    assert host.log == []


class Picky(Thermostat):
    def __init__(self):
        super().__init__()
        self.asked = []

    def validate_state_change(self, next_state, source):
        self.asked.append((next_state, source))
        if next_state["target"] == 13:
            raise StateRejected("unlucky")


@pytest.mark.parametrize(
    "change",
    [
        lambda agent: setattr(agent, "target", 13),
        lambda agent: agent.set_trait("target", 13),
        lambda agent: agent.update_state(target=13),
        lambda agent: agent.set_state({"mode": "heat", "target": 13, "history": [1]}),
    ],
)
def test_every_way_is_validated(change):
    """validate_state_change gets the whole next state; its refusal changes nothing."""
    agent, host = quiet(Picky)
    agent.observe(lambda change: pytest.fail(f"observed {change}"))
    agent.asked.clear()
    with pytest.raises(StateRejected, match="unlucky"):
        change(agent)
    ((asked, source),) = agent.asked
    assert asked["target"] == 13.0
    assert list(asked) == list(START)
    assert source == "server"
    assert agent.state == START
    assert (agent.target, agent.mode, agent.history) == (20.0, "auto", [])
    assert host.log == []


def test_change_after_a_refused_one_works():
    """Nothing of a refused change lingers."""
    agent, host = quiet(Picky)
    with pytest.raises(StateRejected):
        agent.set_state({"mode": "heat", "target": 13})
    agent.target = 14
    assert host.log == [("server", {**START, "target": 14.0}, 2)]


def test_several_fields_are_one_change():
    """`set_state` of several fields is told once, and observers see all new values."""
    agent, host = quiet(Picky)
    agent.asked.clear()
    seen = []
    agent.observe(lambda change: seen.append((change.name, agent.target, agent.mode)))
    agent.set_state({"target": 22, "mode": "heat"})
    assert host.log == [("server", {"target": 22.0, "mode": "heat", "history": []}, 2)]
    assert len(agent.asked) == 1
    assert seen == [("target", 22.0, "heat"), ("mode", 22.0, "heat")]


@pytest.mark.parametrize(
    ("write", "text"),
    [
        ({"target": 21, "nope": 1}, "Unknown field 'nope'; Thermostat has target, mode, history"),
        ({"local": 1}, "Unknown field 'local'"),
        ({"state": 1}, "Unknown field 'state'"),
        ([1], "The state of Thermostat is an object with target, mode, history"),
        (None, "The state of Thermostat is an object"),
        ({"target": 21, "mode": 3}, "The 'mode' trait of a Thermostat instance"),
        ({"target": True}, "The 'target' trait of a Thermostat instance expected a float"),
        ({"mode": "heat", "target": None}, "The 'target' trait"),
        ({"mode": "heat", "target": 31}, "the 'target' trait .* should not be greater than 30"),
        ({"target": 21, "mode": "party"}, "no such mode"),
        ({"target": 21, "history": [1, "x"]}, "The 'history' trait"),
    ],
)
@pytest.mark.parametrize("way", ["client", "set", "hold"])
def test_wrong_writes_are_refused_whole(way, write, text):
    """Unknown fields and wrong types are named; no field of the write is applied."""
    agent, host = quiet(Thermostat)
    agent.observe(lambda change: pytest.fail(f"observed {change}"))
    with pytest.raises((StateRejected, TraitError), match=text):
        perform(agent, way, write)
    assert agent.state == START
    assert (agent.target, agent.mode, agent.history) == (20.0, "auto", [])
    assert host.log == []


def test_fields_left_out_keep_their_values():
    """A write of some fields leaves the others as they are."""
    agent, host = quiet(Thermostat)
    assert apply_client_state(agent, {"target": 21}, CLIENT) == {**START, "target": 21.0}
    assert host.log == [(CLIENT, {**START, "target": 21.0}, 2, {"target": 21})]


def test_client_write_changes_the_trait_once():
    """The bound trait changes once, the source is the client, and nothing echoes (T210)."""
    agent, host = quiet(Thermostat)
    seen = []
    agent.observe(lambda change: seen.append(change.new), "target")
    apply_client_state(agent, {**START, "target": 21}, CLIENT)
    assert seen == [21.0]
    assert [entry[0] for entry in host.log] == [CLIENT]


def test_observers_changes_are_changes_of_their_own():
    """What an observer sets follows as the server's own change, in order."""

    class Logger(Thermostat):
        @observe("target")
        def _remember(self, change):
            self.history = [*self.history, int(change.new)]

    agent, host = quiet(Logger)
    applied = apply_client_state(agent, {"target": 21}, CLIENT)
    assert applied["history"] == [21]
    assert [(source, state["target"], state["history"]) for source, state, *_ in host.log] == [
        (CLIENT, 21.0, []),
        ("server", 21.0, [21]),
    ]
    assert state_version(agent) == 3


def test_observer_that_raises_does_not_undo():
    """The change was told already; the error is the caller's to see, as with any HasTraits."""
    agent, host = quiet(Thermostat)

    def fail(change):
        raise RuntimeError("observer")

    agent.observe(fail, "target")
    with pytest.raises(RuntimeError, match="observer"):
        agent.target = 21
    assert agent.state["target"] == 21.0
    assert len(host.log) == 1


def test_cross_validation_may_correct():
    """A @validate method's value is what is kept and told; the applied state says so."""

    class Rounding(Stateful):
        n = Float(0).tag(sync=True)

        @validate("n")
        def _round(self, proposal):
            return float(round(proposal["value"]))

    agent, host = quiet(Rounding)
    assert apply_client_state(agent, {"n": 1.4}, CLIENT) == {"n": 1.0}
    assert host.log == [(CLIENT, {"n": 1.0}, 2, {"n": 1.4})]


def test_cross_validation_sees_all_fields_of_a_write():
    """Fields that depend on each other can be written together, in any order."""

    class Span(Stateful):
        low = Int(0).tag(sync=True)
        high = Int(10).tag(sync=True)

        @validate("low", "high")
        def _ordered(self, proposal):
            if self.low > self.high:
                raise TraitError("low must not exceed high")
            return proposal["value"]

    agent, host = quiet(Span)
    for write in ({"low": 20, "high": 30}, {"high": 5, "low": 1}):
        assert apply_client_state(agent, write, CLIENT) == write
    with pytest.raises(TraitError, match="low must not exceed high"):
        apply_client_state(agent, {"low": 6}, CLIENT)
    assert agent.state == {"low": 1, "high": 5}
    assert len(host.log) == 2


def test_container_changed_in_place_and_assigned_again_is_told():
    """To traitlets there is no change in ``self.history = self.history``; the state does."""
    agent, host = quiet(Thermostat)
    agent.history.append(1)
    agent.history = agent.history
    assert host.log == [("server", {**START, "history": [1]}, 2)]
    agent.history = agent.history
    assert len(host.log) == 1


def test_refused_container_changed_in_place_is_undone():
    """The refused value is gone from the trait, too."""

    class Short(Thermostat):
        def validate_state_change(self, next_state, source):
            if len(next_state["history"]) > 1:
                raise StateRejected("too long")

    agent, host = quiet(Short)
    agent.history = [1]
    agent.history.append(2)
    with pytest.raises(StateRejected):
        agent.history = agent.history
    assert agent.history == [1]
    assert agent.state["history"] == [1]
    assert len(host.log) == 1


def test_typed_state_changed_in_place_is_told_when_set():
    """``self.state["target"] += 1; self.set_state(self.state)`` works with traits as well."""
    agent, host = quiet(Thermostat)
    agent.state["target"] += 1
    agent.set_state(agent.state)
    assert agent.target == 21.0
    assert host.log == [("server", {**START, "target": 21.0}, 2)]


def test_container_changed_in_place_is_told_by_set_state():
    """``self.history.append(1); self.set_state(self.state)`` tells what the trait holds."""
    agent, host = quiet(Thermostat)
    agent.history.append(1)
    agent.set_state(agent.state)
    assert agent.state["history"] == [1]
    assert host.log == [("server", {**START, "history": [1]}, 2)]


def test_hold_is_one_change():
    """Assignments in a hold block are told as one."""
    agent, host = quiet(Thermostat)
    with agent.hold_trait_notifications():
        agent.target = 21
        agent.mode = "heat"
        agent.set_state({"history": [1]})
        assert host.log == []
    assert host.log == [("server", {"target": 21.0, "mode": "heat", "history": [1]}, 2)]


def test_client_does_not_write_into_a_hold():
    """A block that awaits inside is not mixed with a client's write; the client may try again."""
    agent, host = quiet(Thermostat)
    with agent.hold_trait_notifications():
        agent.target = 21
        with pytest.raises(StateRejected, match="try again"):
            apply_client_state(agent, {"mode": "heat"}, CLIENT)
    assert host.log == [("server", {**START, "target": 21.0}, 2)]


def test_read_only_field():
    """Clients cannot change it, the server can with `set_state`; sending it unchanged is fine."""

    class Meter(Stateful):
        reading = Int(5, read_only=True).tag(sync=True)
        note = Unicode("").tag(sync=True)

    agent, _ = quiet(Meter)
    with pytest.raises(StateRejected, match="Field 'reading' is read-only"):
        apply_client_state(agent, {"note": "x", "reading": 6}, CLIENT)
    assert agent.state == {"reading": 5, "note": ""}
    assert apply_client_state(agent, {"note": "x", "reading": 5}, CLIENT)["note"] == "x"
    agent.update_state(reading=7)
    assert agent.state == {"reading": 7, "note": "x"}
    with pytest.raises(TraitError, match="read-only"):
        agent.reading = 8


def test_field_that_json_cannot_carry_is_named():
    """The error says which field it was."""

    class Holder(Stateful):
        good = Int(1).tag(sync=True)
        bad = Dict().tag(sync=True)

    agent, host = quiet(Holder)
    with pytest.raises(TypeError, match=r"Holder\.bad: .*object"):
        agent.bad = {"a": object()}
    assert agent.bad == {}
    assert host.log == []


def test_links_between_traits_stay_equal():
    """Links to another HasTraits to another HasTraits work in both directions (T210)."""
    from traitlets import link

    class Slider(HasTraits):
        value = Float(0)

    agent, host = quiet(Thermostat)
    slider = Slider()
    link((agent, "target"), (slider, "value"))
    assert slider.value == 20.0
    slider.value = 25
    apply_client_state(agent, {"target": 26}, CLIENT)
    assert slider.value == 26.0
    assert [entry[1]["target"] for entry in host.log] == [25.0, 26.0]
    with pytest.raises(TraitError):
        slider.value = 99
    assert agent.target == 26.0


def test_traits_added_later_are_fields():
    """`add_traits` on an instance adds to its state."""
    agent, host = quiet(Thermostat)
    agent.add_traits(fan=Int(2).tag(sync=True))
    agent.fan = 3
    assert host.log == [("server", {**START, "fan": 3}, 2)]


# ── Typed, from storage ──────────────────────────────────────────────────────────────────


def test_stored_fields_win():
    """Stored values are set on the traits; that is no news (T054)."""
    agent, host = hosted(Thermostat, b'{"target":25.0,"mode":"off","history":[1]}', version=3)
    assert (agent.target, agent.mode, agent.history) == (25.0, "off", [1])
    assert agent.state == {"target": 25.0, "mode": "off", "history": [1]}
    assert state_version(agent) == 3
    assert host.log == []


def test_stored_fields_win_over_the_constructors():
    """What the constructor assigns is a starting value."""

    class Made(Thermostat):
        def __init__(self):
            super().__init__(mode="heat")
            self.target = 6

    assert hosted(Made)[0].state == {"target": 6.0, "mode": "heat", "history": []}
    agent, _ = hosted(Made, b'{"target":25.0,"mode":"off","history":[]}')
    assert (agent.target, agent.mode) == (25.0, "off")


def test_observers_hear_of_stored_values():
    """What an author derives from a field in an observer is right after waking."""

    class Derived(Thermostat):
        double = Float(0)

        @observe("target")
        def _double(self, change):
            self.double = change.new * 2

    agent, host = hosted(Derived, b'{"target":25.0,"mode":"off","history":[]}')
    assert agent.double == 50.0
    assert host.log == []


def test_stored_fields_that_no_longer_fit(caplog):
    """Unknown ones are dropped, wrong ones fall back to defaults; both are said and repaired."""
    stored = b'{"target":99,"mode":"off","gone":1,"history":"x"}'
    agent, host = hosted(Thermostat, stored, version=3)
    assert agent.state == {**START, "mode": "off"}
    assert host.log == [("server", {**START, "mode": "off"}, 4)]
    for word in ("gone", "target", "history"):
        assert word in caplog.text
    assert all(r.levelno == logging.WARNING for r in caplog.records)


def test_new_field_starts_with_its_default(caplog):
    """A class that gained a field wakes with the stored rest, without a warning."""
    agent, host = hosted(Thermostat, b'{"target":25.0}', version=3)
    assert agent.state == {**START, "target": 25.0}
    assert host.log == [("server", {**START, "target": 25.0}, 4)]
    assert not caplog.records


@pytest.mark.parametrize("stored", [b"[1]", b"null", b"7", b"{"])
def test_stored_value_without_fields(stored, caplog):
    """A class that was free-form before starts with its traits' defaults, with a warning."""
    agent, host = hosted(Thermostat, stored, version=3)
    assert agent.state == START
    assert host.log == [("server", START, 4)]
    assert caplog.records


def test_class_that_became_free_form_keeps_the_object():
    """The other way round, the fields are the state."""
    assert hosted(Room, b'{"target":25.0}')[0].state == {"target": 25.0}


def test_stored_fields_that_depend_on_each_other():
    """Cross validation sees them together, as when they were written."""

    class Span(Stateful):
        low = Int(0).tag(sync=True)
        high = Int(10).tag(sync=True)

        @validate("low", "high")
        def _ordered(self, proposal):
            if self.low > self.high:
                raise TraitError("low must not exceed high")
            return proposal["value"]

    agent, host = hosted(Span, b'{"low":20,"high":30}')
    assert agent.state == {"low": 20, "high": 30}
    assert host.log == []


# ── Private state and views ──────────────────────────────────────────────────────────────


def test_private_state_is_kept_and_not_told():
    """It goes to the host for saving only, and never into the state."""
    room, host = quiet(Room)
    assert room.private_state is None
    room.private_state = {"key": 1}
    room.set_private_state({**room.private_state, "more": 2})
    assert host.log == [("private", b'{"key":1}'), ("private", b'{"key":1,"more":2}')]
    assert room.state == {"n": 0}
    assert state_version(room) == 1


def test_private_state_comes_back():
    """A stored private state is there after waking, whatever the state."""
    bare, host = hosted(Bare, private=b'{"key":1}')
    assert bare.private_state == {"key": 1}
    assert bare.state is None
    assert host.log == []


def test_private_state_changed_in_place():
    """Assigning it again keeps what was changed in place."""
    room, host = quiet(Room, private=b"[1]")
    room.private_state.append(2)
    room.private_state = room.private_state
    assert host.log == [("private", b"[1,2]")]


def test_corrupt_private_state_is_dropped(caplog):
    """It is None then, and dropped from storage, with a warning."""
    room, host = hosted(Room, b'{"n":1}', private=b"{")
    assert room.private_state is None
    assert host.log == [("private", None)]
    assert "private state" in caplog.text


def test_unsendable_private_state_is_refused():
    """It must be JSON, and the old one stays."""
    room, host = quiet(Room, private=b"1")
    with pytest.raises(TypeError):
        room.private_state = object()
    assert room.private_state == 1
    assert host.log == []


def test_view_is_the_state_unless_overridden():
    """The host can tell whether each connection needs a frame of its own."""

    class Secretive(Room):
        def view_state(self, state, connection):
            return {**state, "for": connection}

    room, _ = quiet(Room)
    assert room.view_state(room.state, CLIENT) is room.state
    assert not has_view(room)
    other, _ = quiet(Secretive)
    assert other.view_state(other.state, CLIENT) == {"n": 0, "for": CLIENT}
    assert has_view(other)


# ── Definitions ──────────────────────────────────────────────────────────────────────────


def define(**body):
    return type("Wrong", (Stateful,), body)


async def anything(self, *args): ...


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"initial_state": {}, "n": Int().tag(sync=True)},
            r"mixes initial_state with traits tagged sync=True \(n\)",
        ),
        ({"initial_state": {"a": object()}}, r"Wrong\.initial_state: "),
        ({"client_writes": "some"}, r"client_writes is \"open\" or \"closed\", not 'some'"),
        ({"on_state_update": anything}, r"the hook is on_state_changed\(state, source\)"),
        ({"validate_state_change": anything}, "validate_state_change must not be async"),
        ({"view_state": anything}, "view_state must not be async"),
        ({"state": Dict().tag(sync=True)}, r"Wrong\.state: clients cannot use a name of Agent's"),
        ({"_n": Int().tag(sync=True)}, r"Wrong\._n: clients cannot use"),
        ({"set_state": callable_method(lambda self: 1)}, r"Wrong\.set_state: clients cannot use"),
        ({"_run": callable_method(lambda self: 1)}, r"Wrong\._run: clients cannot use"),
    ],
)
def test_wrong_definitions_are_refused(body, text):
    """What could only go wrong later is an error where the class is written."""
    with pytest.raises(TypeError, match=text):
        define(**body)


def test_mixing_is_refused_over_inheritance():
    """A free-form parent and a typed child do not go together either."""
    with pytest.raises(TypeError, match="mixes initial_state"):
        type("Child", (Room,), {"n": Int().tag(sync=True)})
    with pytest.raises(TypeError, match="mixes initial_state"):
        type("Child", (Thermostat,), {"initial_state": 1})


def test_old_and_new_hook_names_together_are_refused():
    """A class overriding both names of the hook is a clear error (T067)."""
    with pytest.raises(TypeError, match="on_state_update"):
        define(on_state_update=anything, on_state_changed=anything)


def test_untagged_traits_go_with_free_form_state():
    """Only tagged traits make a state typed."""
    agent, _ = hosted(define(initial_state=1, n=Int(3)))
    assert agent.state == 1
    assert agent.n == 3


# ── Without a host ───────────────────────────────────────────────────────────────────────


class Alone(Room):
    def __init__(self):
        super().__init__()
        self.heard = []

    def on_state_changed(self, state, source):
        self.heard.append((state, source))


def test_class_alone_keeps_state_in_memory():
    """In a plain test of the class everything works, without storage or clients (T211)."""
    room = Alone()
    assert room.state == {"n": 0}
    room.set_state({"n": 1})
    room.update_state(m=2)
    assert apply_client_state(room, {"n": 3}, CLIENT) == {"n": 3}
    assert room.state == {"n": 3}


def test_class_alone_runs_on_state_changed():
    """Once per change, with state and source (T062, T063)."""
    room = Alone()
    room.set_state({"n": 1})
    apply_client_state(room, {"n": 2}, CLIENT)
    assert room.heard == [({"n": 1}, "server"), ({"n": 2}, CLIENT)]


def test_class_alone_validates():
    """Also the starting state, at first use."""
    score = Score()
    with pytest.raises(StateRejected):
        score.set_state({"score": -1})
    assert score.state == {"score": 0}
    assert score.asked[0] == ({"score": "scribbled on"}, "server")


def test_typed_class_alone():
    """Constructor arguments are starting values; assignments take the road."""
    agent = Picky()
    agent.target = 21
    assert [source for _, source in agent.asked] == ["server", "server"]
    with pytest.raises(StateRejected):
        agent.target = 13
    assert agent.target == 21.0
    warm = Thermostat(target=29, local=1)
    assert warm.state == {**START, "target": 29.0}
    assert state_version(warm) == 0


def test_error_of_on_state_changed_does_not_undo():
    """The state stays (T066); alone, the test sees the error."""

    class Loud(Thermostat):
        def on_state_changed(self, state, source):
            raise RuntimeError("loud")

    agent = Loud()
    for change in (
        lambda: setattr(agent, "target", 21),
        lambda: agent.set_state({"mode": "heat"}),
        lambda: setattr(agent, "history", [1]),
    ):
        with pytest.raises(RuntimeError, match="loud"):
            change()
    assert agent.state == {"target": 21.0, "mode": "heat", "history": [1]}
    assert (agent.target, agent.mode, agent.history) == (21.0, "heat", [1])


def test_async_hook_alone_runs_without_a_loop():
    """In a plain test an async on_state_changed has run when `set_state` returns."""
    heard = []

    class Later(Room):
        async def on_state_changed(self, state, source):
            await asyncio.sleep(0)
            heard.append(state)

    Later().set_state(1)
    assert heard == [1]


async def test_async_hook_alone_runs_on_the_loop():
    """In an async test it is a task."""
    heard = asyncio.Event()

    class Later(Room):
        async def on_state_changed(self, state, source):
            heard.set()

    room = Later()
    room.set_state(1)
    assert not heard.is_set()
    await asyncio.wait_for(heard.wait(), 5)


def test_block_that_fails_in_the_constructor():
    """Before there is a state, a refused block puts the traits back as well."""

    class Trying(Thermostat):
        def __init__(self):
            super().__init__()
            with pytest.raises(RuntimeError), self.hold_trait_notifications():  # noqa: PT012
                self.target = 6
                self.history = self.history
                raise RuntimeError

    assert hosted(Trying)[0].state == START
    assert Trying().state == START


def test_stored_values_without_a_host():
    """`load_state` needs nobody to tell: it falls back all the same."""
    bare = Bare()
    load_state(bare, StoredInstance(b"{", 3, b"{"))
    assert (bare.state, bare.private_state) == (None, None)
    room = Room()
    load_state(room, StoredInstance(b"{", 3))
    assert room.state == {"n": 0}
    assert state_version(room) == 4


def test_constructor_without_super_init():
    """An author may forget ``super().__init__()``."""

    class Forgetful(Thermostat):
        def __init__(self):
            self.cache = {}

    agent, host = quiet(Forgetful)
    agent.target = 21
    assert host.log == [("server", {**START, "target": 21.0}, 2)]


# ── Against a model ──────────────────────────────────────────────────────────────────────

FIELD_WRITES = st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from([6, 7.5, 13, 99, "x", True, None]),
        "mode": st.sampled_from(["auto", "heat", "party", 1]),
        "history": st.sampled_from([[], [1], [1, 2], ["x"], 3]),
        "nope": st.just(1),
    },
)
WAYS = st.sampled_from(["set", "client", "assign", "hold"])


def is_fine(write):
    return (
        write.get("target", 6) in (6, 7.5)
        and write.get("target") is not True
        and write.get("mode", "auto") in ("auto", "heat")
        and write.get("history", []) in ([], [1], [1, 2])
        and "nope" not in write
    )


def perform(agent, way, write):
    if way == "set":
        agent.set_state(write)
    elif way == "client":
        apply_client_state(agent, write, CLIENT)
    elif way == "hold":
        with agent.hold_trait_notifications():
            agent.set_state(write)
    else:
        with agent.hold_trait_notifications():
            for name, value in write.items():
                if name == "nope" or isinstance(value, bool):  # traitlets takes True for a float
                    raise TraitError("not a field")
                setattr(agent, name, value)


@given(st.lists(st.tuples(WAYS, FIELD_WRITES), max_size=12))
@settings(max_examples=150, deadline=None)
def test_writes_are_whole_or_not_at_all(writes):
    """Whatever is written in whatever way: state, traits, log and version always agree."""
    agent, host = quiet(Picky)
    model, changes = dict(START), 0
    for way, write in writes:
        after = {**model, **write}
        if is_fine(write):
            perform(agent, way, write)
            changes += after != model
            model = after
        else:
            with pytest.raises((TraitError, StateRejected)):
                perform(agent, way, write)
        assert agent.state == model
        assert {name: getattr(agent, name) for name in model} == model
        assert len(host.log) == changes
        assert state_version(agent) == 1 + changes
        assert snapshot_value(agent) == model
        if changes:
            assert host.log[-1][1] == model
