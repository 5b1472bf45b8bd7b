"""The log of messages, and the box that sends."""

from __future__ import annotations

import base64

import pytest

from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets import broadcasts
from jupyter_agents.widgets.broadcasts import BroadcastLog
from tests.widgets.conftest import Room, namespace


async def test_log_tells_direction_kind_and_partner(front):
    """Received, sent and broadcast messages, comings and goings are told apart."""
    async with AgentHarness(Room) as harness:
        view = front(BroadcastLog(namespace(harness))).hello()
        client = await harness.connect(Room, "lobby", connection_id="me")
        await client.send("hi")
        await harness.idle()
        harness.agent(Room, "lobby").get_connections()[0].send(b"\x00\x01")
        await client.close()
        await view.until(lambda: view.entries and view.entries[-1]["do"] == "left")
        seen = [(e["do"], e.get("kind"), (e.get("who") or {}).get("id")) for e in view.entries]
        assert seen == [
            ("came", None, "me"),
            ("in", "text", "me"),
            ("all", "text", None),
            ("out", "binary", "me"),
            ("left", None, "me"),
        ]
        assert base64.b64decode(view.entries[3]["data"]) == b"\x00\x01"
        assert view.entries[2]["count"] == 1


async def test_long_messages_are_cut_and_say_so(front):
    """Of a long message the start is shown, with its size in bytes."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        view = front(BroadcastLog(namespace(harness))).hello()
        await client.send("ä" * 5_000)
        await client.send(b"\xff" * 5_000)
        await view.until(lambda: len(view.entries) == 4)
        text, broadcast, binary, _ = view.entries
        assert (text["size"], text["cut"]) == (10_000, True)
        assert (broadcast["size"], broadcast["cut"]) == (10_000, True)
        assert text["data"] == broadcast["data"] == "ä" * broadcasts.TEXT_LENGTH
        assert binary["size"] == 5_000
        assert len(base64.b64decode(binary["data"])) == broadcasts.BINARY_BYTES


async def test_flood_is_sampled_from_its_end_and_counted(front):
    """Of more than a batch holds, the newest are shown and the rest is counted."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        view = front(BroadcastLog(namespace(harness))).hello()
        agent = harness.agent(Room, "lobby")
        for number in range(250):
            agent.broadcast(str(number))
        await view.until(lambda: view.entries)
        part = view.messages[-1]["messages"]
        assert part["skipped"] == 150
        assert [e["data"] for e in part["entries"]] == [str(n) for n in range(150, 250)]


async def test_ring_is_bounded(front, monkeypatch):
    """A view that comes late gets at most `KEPT` messages."""
    monkeypatch.setattr(broadcasts, "KEPT", 5)
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        widget = BroadcastLog(namespace(harness))
        for number in range(9):
            harness.agent(Room, "lobby").broadcast(str(number))
        view = front(widget).hello()
        assert [e["data"] for e in view.entries] == list("45678")


async def test_send_reaches_everyone_or_one(front):
    """`send` broadcasts, or goes to one connection; a buffer goes out as binary."""
    async with AgentHarness(Room) as harness:
        one = await harness.connect(Room, "lobby")
        two = await harness.connect(Room, "lobby")
        view = front(BroadcastLog(namespace(harness))).hello()
        assert await view.ask("send", text="to all") == 2
        assert await view.ask("send", text="to two", to=2) == 1
        await view.ask("send", b"\x01", to=1)
        assert [await two.receive(), await two.receive()] == ["to all", "to two"]
        assert [await one.receive(), await one.receive()] == ["to all", b"\x01"]


async def test_nobody_to_send_to_is_said(front):
    """Where nobody hears, the sender is told."""
    async with AgentHarness(Room) as harness:
        view = front(BroadcastLog(namespace(harness))).hello()
        with pytest.raises(RuntimeError, match="Nobody is connected"):
            await view.ask("send", text="hello?")
        await harness.connect(Room, "lobby")
        await harness.idle()
        with pytest.raises(RuntimeError, match="closed already"):
            await view.ask("send", text="hello?", to=99)
