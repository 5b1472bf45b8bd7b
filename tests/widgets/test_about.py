"""The head of a live view."""

from __future__ import annotations

import time

import pytest

from jupyter_agents.access.desk import Desk
from jupyter_agents.access.gate import Gate, GateLimits
from jupyter_agents.link.frames import Kind
from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets.broadcasts import BroadcastLog
from tests.widgets.conftest import Room, namespace


async def test_light_follows_the_instance(front):
    """Ready, live, asleep, not linked, stopped: the light tells how the instance is."""
    async with AgentHarness(Room) as harness:
        widget = BroadcastLog(namespace(harness))
        view = front(widget).hello()
        about = widget._feed.sections["about"]
        assert view.facts["about"]["light"] == "ready"
        await harness.connect(Room, "lobby")
        await view.until(lambda: view.facts["about"]["light"] == "live")
        harness.instance(Room, "lobby").sleep()
        await view.until(lambda: view.facts["about"]["light"] == "asleep")
        await harness.connect(Room, "lobby")
        await view.until(lambda: view.facts["about"]["light"] == "live")
        harness.host.link_down()
        about.tick()
        await view.until(lambda: view.facts["about"]["light"] == "away")
        harness.link.connect()
        await harness.host.withdraw("room")
        about.tick()
        await view.until(lambda: view.facts["about"]["light"] == "stopped")


async def test_address_is_told(front):
    """The view learns the class, its path and where the server is, the name percent-encoded."""
    async with AgentHarness(Room) as harness:
        harness.host.server["url"] = "http://host/user/ann/"
        view = front(BroadcastLog(namespace(harness), "a room")).hello()
        about = view.facts["about"]
        assert (about["class"], about["base"]) == ("Room", "http://host/user/ann/")
        assert about["path"] == "agents/room/a%20room"


async def test_instances_are_listed_with_their_connections(front):
    """The selector's choices are the instances in memory, with how many are connected."""
    async with AgentHarness(Room) as harness:
        view = front(BroadcastLog(namespace(harness))).hello()
        for name in ("one", "two", "two"):
            await harness.connect(Room, name)
        await view.until(lambda: view.facts["about"]["names"] == [["one", 1], ["two", 2]])


async def test_rates_are_messages_a_second(front):
    """Rates count what came and what went, over the time since the last look."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        widget = BroadcastLog(namespace(harness))
        view = front(widget).hello()
        rates = widget._feed.sections["about"]._rates
        rates.take(100.0)
        for _ in range(10):
            await client.send("hi")
        await harness.idle()
        rates.take(102.0)
        assert rates.last == [5.0, 5.0]
        widget._feed.flush()
        assert view.facts["about"]["rates"] == [5.0, 5.0]
        rates.take(104.0)
        assert rates.last == [0.0, 0.0]


class Open(Room):
    """Takes links."""

    access = "link"


@pytest.fixture
def gate():
    """Where links are made, beside a harness that has no door."""
    made = Gate(GateLimits(), None, time.time)
    yield made
    made.close()


def with_a_gate(harness, gate):
    """A harness whose relay makes links."""
    harness.relay.handlers[Kind.SHARE] = Desk(gate, harness.relay.find).asked
    harness.host.server["sharing"] = True
    return harness


async def test_a_view_shares_its_instance(front, gate):
    """It gets link, QR code and words, under the address at which it found the server."""
    async with AgentHarness(Open) as harness:
        shown = namespace(with_a_gate(harness, gate), Open)
        view = front(BroadcastLog(shown, "a room")).hello()
        assert view.facts["about"]["shareable"] is True
        page = "https://h.example/user/ann/agents/open/a%20room?token=x"
        made = await view.ask("share", expires="30m", readonly=True, page=page)
        assert made["url"].startswith("https://h.example/user/ann/agents/open/a%20room?share=jas.")
        assert made["qr"].startswith("data:image/svg+xml")
        assert "read-only" in made["text"]
        shared = gate.shares.get(made["id"])
        link = shared.capability
        assert (link.agent, link.name, link.readonly) == ("open", "a room", True)
        assert 1790 < link.expires - shared.created <= 1800
        assert await view.ask("unshare", id=made["id"]) == {"revoked": True}
        assert gate.shares.get(made["id"]).revoked


async def test_what_cannot_be_shared_is_said(front, gate):
    """A class that takes no links, and a link that cannot be made, are answered in words."""
    async with AgentHarness(Room) as harness:
        view = front(BroadcastLog(namespace(with_a_gate(harness, gate)))).hello()
        assert view.facts["about"]["shareable"] is False
        for what, given, words in (
            ("share", {}, 'access = "link"'),
            ("share", {"expires": "for ever"}, "2h"),
            ("unshare", {"id": 7}, "no link"),
        ):
            with pytest.raises(RuntimeError, match=words):
                await view.ask(what, **given)
