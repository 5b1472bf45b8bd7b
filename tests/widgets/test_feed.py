"""When a feed listens, sends and rests."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets import feed as feeds
from jupyter_agents.widgets.panel import AgentPanel
from tests.widgets.conftest import Room, namespace


async def test_hello_is_answered_with_everything(front):
    """A view that says hello gets all that happened before, and the changes from then on."""
    async with AgentHarness(Room) as harness:
        panel = AgentPanel(namespace(harness))
        client = await harness.connect(Room, "lobby")
        await client.send("before")
        await harness.idle()
        view = front(panel).hello()
        assert view.kinds == ["snapshot"]
        assert view.facts["about"]["name"] == "lobby"
        assert [e["data"] for e in view.entries if e["do"] == "in"] == ["before"]
        await client.send("after")
        await view.until(lambda: view.facts["value"] == {"topic": "tea", "n": 2, "list": [1, 2]})


async def test_nothing_is_sent_before_a_view_speaks(comms, room):
    """Without a view nothing leaves the kernel but the widget's own opening."""
    async with AgentHarness(Room) as harness:
        AgentPanel(namespace(harness))
        client = await harness.connect(Room, "lobby")
        for number in range(50):
            await client.send(str(number))
        await asyncio.sleep(feeds.FLUSH_S * 2)
        assert [kind for kind, *_ in comms[0].sent] == ["comm_open"]


async def test_silent_view_is_forgotten_and_the_host_is_watched_no_more(front, monkeypatch):
    """When no view answered for long, the feed rests; a word of the view wakes it anew."""
    monkeypatch.setattr(feeds, "TICK_S", 0.005)
    monkeypatch.setattr(feeds, "VIEW_S", 0.03)
    async with AgentHarness(Room) as harness:
        panel = AgentPanel(namespace(harness))
        monkeypatch.setattr(panel._feed, "_first_view_by", 0.0)
        view = front(panel).hello()
        assert harness.host.watched
        await _until(lambda: not harness.host.watched)
        sent = len(view.messages)
        client = await harness.connect(Room, "lobby")
        await client.send("unheard")
        await asyncio.sleep(feeds.FLUSH_S * 1.5)
        assert len(view.messages) == sent
        view.say("alive")
        assert view.kinds[-1] == "snapshot"
        assert view.facts["total"] == 1
        panel.close()


async def test_panel_that_nobody_opens_rests(comms, monkeypatch):
    """A panel whose view never comes stops watching after its first grace."""
    monkeypatch.setattr(feeds, "TICK_S", 0.005)
    monkeypatch.setattr(feeds, "FIRST_VIEW_S", 0.02)
    async with AgentHarness(Room) as harness:
        AgentPanel(namespace(harness))
        assert harness.host.watched
        await _until(lambda: not harness.host.watched)


async def test_busy_main_thread_keeps_a_view_alive(front, monkeypatch):
    """While a cell runs, a view's words may wait: it is not forgotten, and the light says so."""
    monkeypatch.setattr(feeds, "TICK_S", 0.005)
    monkeypatch.setattr(feeds, "VIEW_S", 0.05)
    monkeypatch.setattr(feeds, "BUSY_S", 0.01)
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        panel = AgentPanel(namespace(harness))
        monkeypatch.setattr(panel._feed._probe, "loop", _StuckLoop())
        view = front(panel).hello()
        await view.until(lambda: view.facts["about"]["light"] == "busy")
        await asyncio.sleep(0.1)
        assert harness.host.watched
        panel.close()


class _StuckLoop:
    def is_closed(self):
        return False

    def call_soon_threadsafe(self, function):
        pass


async def test_burst_leaves_in_few_messages_and_the_last_value_is_right(front, monkeypatch):
    """T209: a thousand events in a second leave as at most twenty messages, the last one right."""
    monkeypatch.setattr(feeds, "FLUSH_S", 0.1)
    async with AgentHarness(Room) as harness:
        view = front(AgentPanel(namespace(harness))).hello()
        client = await harness.connect(Room, "lobby")
        await view.until(lambda: view.facts["about"]["name"] == "lobby")
        await harness.idle()
        began, before = asyncio.get_running_loop().time(), len(view.messages)
        for batch in range(50):
            for number in range(20):
                await client.send(str(batch * 20 + number))
            await asyncio.sleep(0.02)
        await view.until(lambda: view.facts["value"]["n"] == 1000, "the last state")
        await view.until(lambda: view.rows and _only(view.rows)["counts"][0] == 1000, "the count")
        seconds = asyncio.get_running_loop().time() - began
        assert len(view.messages) - before <= seconds / feeds.FLUSH_S + 3
        assert view.entries[-1]["data"] == "999"


def _only(rows):
    (row,) = rows.values()
    return row


async def test_hidden_view_is_told_less_often(front, monkeypatch):
    """A view in a hidden tab hears slowly; in sight again it is brought up to date at once."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        view = front(AgentPanel(namespace(harness))).hello()
        view.say("alive", hidden=True)
        count = len(view.messages)
        await client.send("unseen")
        await asyncio.sleep(feeds.FLUSH_S * 2)
        assert len(view.messages) == count
        view.say("alive", hidden=False)
        assert view.facts["value"]["n"] == 1


async def test_second_view_gets_its_own_snapshot(front):
    """Another view's hello repeats nothing to the first."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        panel = AgentPanel(namespace(harness))
        first = front(panel, "first").hello()
        await client.send("one")
        await first.until(lambda: first.entries and first.entries[-1]["data"] == "one")
        second = front(panel, "second").hello()
        assert first.kinds.count("snapshot") == 1
        assert [e["data"] for e in second.entries if "data" in e] == ["one", "one"]
        await client.send("two")
        await second.until(lambda: second.entries[-1]["data"] == "two")
        said = [e["n"] for e in first.entries]
        assert said == sorted(set(said))


async def test_panel_follows_the_first_instance_and_turns_to_another(front):
    """Without a name the first instance that lives is shown; `select` turns to another one."""
    async with AgentHarness(Room) as harness:
        view = front(AgentPanel(namespace(harness))).hello()
        assert view.facts["about"]["name"] == "default"
        await harness.connect(Room, "one")
        await view.until(lambda: view.facts["about"]["name"] == "one")
        await harness.connect(Room, "two", connection_id="me")
        await harness.idle()
        await view.ask("select", name="two")
        assert view.facts["about"]["name"] == "two"
        assert [row["id"] for row in view.rows.values()] == ["me"]


async def test_looking_at_an_instance_does_not_wake_it(front):
    """Showing a panel makes no instance and wakes none."""
    async with AgentHarness(Room) as harness:
        view = front(AgentPanel(namespace(harness), "nobody")).hello()
        assert harness.host.find(Room).instances == {}
        assert view.facts["about"]["light"] == "ready"


@pytest.mark.parametrize(
    "content",
    [None, [], "x", {}, {"view": 3}, {"view": "x" * 65}, {"view": "v", "do": "dance"}],
)
async def test_nonsense_is_dropped(front, content):
    """What is no message of a view of ours changes nothing and raises nothing."""
    async with AgentHarness(Room) as harness:
        panel = AgentPanel(namespace(harness))
        panel._heard(panel, content, [])
        assert front(panel).hello().kinds == ["snapshot"]


async def test_unknown_question_is_answered_with_an_error(front):
    """Every question gets an answer, also one that nobody understands."""
    async with AgentHarness(Room) as harness:
        view = front(AgentPanel(namespace(harness))).hello()
        with pytest.raises(RuntimeError, match="dance"):
            await view.ask("dance")


async def _until(condition):
    deadline = asyncio.get_running_loop().time() + 5
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.002)
