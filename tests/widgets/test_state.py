"""The live state: shown, edited in place, and looked at in its past."""

from __future__ import annotations

import pytest
from traitlets import Float, Unicode

from jupyter_agents import Agent
from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets import state as states
from jupyter_agents.widgets.section import AskError
from jupyter_agents.widgets.state import StateView, changed_at, removed_at
from tests.widgets.conftest import Room, namespace


class Thermostat(Agent):
    """A typed state."""

    target = Float(20.0, min=5, max=30, help="In degrees").tag(sync=True)
    label = Unicode("hall", read_only=True).tag(sync=True)


START = {"topic": "tea", "n": 0, "list": [1, 2]}


async def test_change_is_shown_with_its_author(front):
    """A client's write is shown, with who wrote it; the agent's own has no author."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby", connection_id="me")
        view = front(StateView(namespace(harness))).hello()
        assert view.facts["value"] == START
        await client.set_state({"topic": "coffee"})
        await view.until(lambda: view.facts["value"] == {"topic": "coffee"})
        assert view.facts["state"]["now"]["by"]["id"] == "me"
        harness.agent(Room, "lobby").set_state({"topic": "milk"})
        await view.until(lambda: view.facts["value"] == {"topic": "milk"})
        assert view.facts["state"]["now"]["by"] is None


async def test_edit_reaches_clients_and_is_marked_as_the_panels(front):
    """An edit of one place changes that place only, for everyone."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        view = front(StateView(namespace(harness))).hello()
        await view.ask("edit", path=["list", 1], value="two")
        wanted = {**START, "list": [1, "two"]}
        assert view.facts["value"] == wanted
        assert view.facts["state"]["now"]["by"] == {"panel": True}
        await client.until_state(wanted)


async def test_edit_keeps_what_changed_meanwhile(front):
    """An edit of one place does not undo what others did to the rest before it arrived."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        view = front(StateView(namespace(harness))).hello()
        answer = view.begin("edit", path=["topic"], value="coffee")
        harness.agent(Room, "lobby").update_state(n=7)
        await answer
        await view.until(lambda: view.facts["value"] == {**START, "topic": "coffee", "n": 7})


async def test_remove_takes_one_place_away(front):
    """`remove` takes a key or an item away."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        view = front(StateView(namespace(harness))).hello()
        await view.ask("remove", path=["list", 0])
        await view.ask("remove", path=["topic"])
        assert view.facts["value"] == {"n": 0, "list": [2]}


async def test_typed_field_refuses_in_words_and_keeps_its_value(front):
    """A value that a trait refuses is answered with the trait's words; nothing changes."""
    async with AgentHarness(Thermostat) as harness:
        await harness.connect(Thermostat, "kitchen")
        view = front(StateView(namespace(harness, Thermostat))).hello()
        assert view.facts["state"]["fields"]["target"]["takes"] == "a float"
        assert view.facts["state"]["fields"]["target"]["help"] == "In degrees"
        assert view.facts["state"]["fields"]["label"]["readonly"]
        with pytest.raises(RuntimeError, match="target"):
            await view.ask("edit", path=["target"], value=31)
        assert harness.agent(Thermostat, "kitchen").target == 20.0
        await view.ask("edit", path=["target"], value=21)
        assert harness.agent(Thermostat, "kitchen").target == 21.0


@pytest.mark.parametrize("path", ["n", None, [None], [1.5], [[]]])
async def test_path_that_is_none_is_refused(front, path):
    """A path is a list of keys and indexes."""
    async with AgentHarness(Room) as harness:
        view = front(StateView(namespace(harness))).hello()
        with pytest.raises(RuntimeError, match="path"):
            await view.ask("edit", path=path, value=1)


async def test_edit_wakes_a_sleeping_instance(front):
    """The stored state of a sleeping instance is shown, and an edit wakes it."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        await client.set_state({"topic": "milk"})
        instance = harness.instance(Room, "lobby")
        instance.sleep()
        view = front(StateView(namespace(harness))).hello()
        assert view.facts["about"]["light"] == "asleep"
        assert view.facts["value"] == {"topic": "milk"}
        assert instance.object is None
        await view.ask("edit", path=["topic"], value="tea")
        assert harness.agent(Room, "lobby").state == {"topic": "tea"}


async def test_past_is_told_to_a_new_view(front):
    """A view that comes later can look at the moments before."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        widget = StateView(namespace(harness))
        view = front(widget, "first").hello()
        for topic in ("one", "two"):
            await view.ask("edit", path=["topic"], value=topic)
        later = front(widget, "later").hello()
        assert [moment["version"] for moment in later.facts["state"]["past"]] == [1, 2]
        assert later.facts["state"]["now"]["version"] == 3


async def test_changes_between_two_batches_are_one_moment(front):
    """What changes faster than it is shown is one moment, which says how many changes it took."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        view = front(StateView(namespace(harness))).hello()
        agent = harness.agent(Room, "lobby")
        for number in range(1, 6):
            agent.update_state(n=number)
            await harness.idle()
        await view.until(lambda: view.facts["value"]["n"] == 5)
        assert view.facts["state"]["now"]["changes"] == 5


async def test_past_is_bounded(front, monkeypatch):
    """The past is bounded in moments and in bytes."""
    monkeypatch.setattr(states, "HISTORY_BYTES", 3_000)
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        widget = StateView(namespace(harness))
        view = front(widget).hello()
        for number in range(8):
            await view.ask("edit", path=[], value=[number, "x" * 1000])
        past = widget._feed.sections["state"]._past
        assert 1 < sum(len(moment.packed) for moment in past) <= 3_000
        assert past.maxlen == states.HISTORY


async def test_huge_state_is_named_not_sent(front, monkeypatch):
    """A state past the limit is told by its size."""
    monkeypatch.setattr(states, "SHOWN_BYTES", 100)
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        view = front(StateView(namespace(harness))).hello()
        harness.agent(Room, "lobby").set_state("x" * 200)
        await view.until(lambda: view.facts["state"]["now"]["size"] == 202)
        assert "value" not in view.facts["state"]["now"]


async def test_large_state_is_sent_less_often_and_ends_right(front, monkeypatch):
    """A large state keeps to its bytes per second; the last one comes."""
    monkeypatch.setattr(states, "BYTES_PER_S", 10_000)
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        view = front(StateView(namespace(harness))).hello()
        agent = harness.agent(Room, "lobby")
        agent.set_state(["x" * 4_000, 1])
        await view.until(lambda: view.facts["value"] == ["x" * 4_000, 1])
        agent.set_state(["x" * 4_000, 2])
        await harness.idle()
        sent = [m for m in view.messages if m["kind"] == "batch" and "state" in m]
        assert len(sent) == 1
        await view.until(lambda: view.facts["value"] == ["x" * 4_000, 2])


async def test_state_that_was_reset_is_shown(front):
    """After a reset the initial state is shown, and the one before is past."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        await client.set_state({"topic": "milk"})
        view = front(StateView(namespace(harness))).hello()
        harness.instance(Room, "lobby").reset()
        await view.until(lambda: view.facts["value"] == START)


@pytest.mark.parametrize(
    ("value", "path", "wanted"),
    [
        (1, [], 9),
        ({"a": 1}, ["a"], {"a": 9}),
        ({"a": 1}, ["b"], {"a": 1, "b": 9}),
        ({"a": [1, {"b": 2}]}, ["a", 1, "b"], {"a": [1, {"b": 9}]}),
        ([1], [1], [1, 9]),
        ([1, 2], [0], [9, 2]),
    ],
)
def test_changed_at_makes_a_new_value(value, path, wanted):
    """A value with one place changed; a new key or the next item may be added."""
    assert changed_at(value, path, 9) == wanted


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (1, ["a"]),
        ({}, ["a", "b"]),
        ({}, [0]),
        ([1], ["a"]),
        ([1], [2]),
        ([1], [-1]),
        ([1], [1, "a"]),
        (None, ["a"]),
    ],
)
def test_place_that_is_gone_is_named(value, path):
    """A place that is not there any more is refused in words."""
    with pytest.raises(AskError, match="meanwhile"):
        changed_at(value, path, 9)


@pytest.mark.parametrize(
    ("value", "path", "wanted"),
    [
        ({"a": 1, "b": 2}, ["a"], {"b": 2}),
        ({"a": [1, 2, 3]}, ["a", 1], {"a": [1, 3]}),
        ([[1]], [0, 0], [[]]),
        ({"a": 1}, [], None),
    ],
)
def test_removed_at_takes_a_place_away(value, path, wanted):
    """A value without one of its places."""
    assert removed_at(value, path) == wanted


@pytest.mark.parametrize(("value", "path"), [({}, ["a"]), ([1], [1]), (1, ["a"]), ({}, ["a", 0])])
def test_removing_what_is_gone_is_refused(value, path):
    """What is not there any more cannot be removed."""
    with pytest.raises(AskError):
        removed_at(value, path)
