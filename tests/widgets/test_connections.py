"""The live table of connections: what a row says, and what can be done to it."""

from __future__ import annotations

import pytest

from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets import connections
from jupyter_agents.widgets.connections import ConnectionsTable
from tests.widgets.conftest import Room, namespace


async def test_row_says_who_and_how_much(front):
    """A row has the connection's id, user, tags and counters."""
    async with AgentHarness(Room) as harness:
        user = {"username": "ann", "display_name": "Ann Other"}
        client = await harness.connect(Room, "lobby", connection_id="me", user=user)
        view = front(ConnectionsTable(namespace(harness))).hello()
        await client.send("four")
        await view.until(lambda: view.rows[1]["counts"][0] == 1)
        row = view.rows[1]
        assert (row["id"], row["user"], row["tags"]) == ("me", "Ann Other", ["blue"])
        assert row["counts"][2] == len("four")
        assert not row["readonly"]


async def test_rows_come_and_go(front):
    """Who connects gets a row, who leaves loses it; the total is right."""
    async with AgentHarness(Room) as harness:
        view = front(ConnectionsTable(namespace(harness))).hello()
        clients = [await harness.connect(Room, "lobby") for _ in range(3)]
        await view.until(lambda: len(view.rows) == 3)
        await clients[1].close()
        await view.until(lambda: len(view.rows) == 2)
        assert view.facts["total"] == 2
        assert clients[1].id not in {row["id"] for row in view.rows.values()}


async def test_visitor_who_left_between_two_batches_is_never_shown(front):
    """A connection that came and went unseen is neither listed nor taken away."""
    async with AgentHarness(Room) as harness:
        view = front(ConnectionsTable(namespace(harness), "lobby")).hello()
        client = await harness.connect(Room, "lobby")
        await client.close()
        await harness.connect(Room, "lobby", connection_id="stays")
        await view.until(lambda: view.rows)
        parts = [m["connections"] for m in view.messages if "connections" in m]
        assert [row["id"] for part in parts for row in part["rows"]] == ["stays"]
        assert not any(part.get("gone") for part in parts)


async def test_counters_alone_travel_as_numbers(front):
    """A row that only counts on is not sent again."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        view = front(ConnectionsTable(namespace(harness))).hello()
        await client.send("hi")
        await view.until(lambda: view.rows[1]["counts"][0] == 1)
        assert all(not m.get("connections", {}).get("rows") for m in view.messages[1:])


async def test_more_than_the_limit_are_counted_but_not_listed(front, monkeypatch):
    """At most `MAX_ROWS` are listed; the total counts all."""
    monkeypatch.setattr(connections, "MAX_ROWS", 2)
    async with AgentHarness(Room) as harness:
        ids = ["a", "b", "c"]
        for one in ids:
            await harness.connect(Room, "lobby", connection_id=one)
        view = front(ConnectionsTable(namespace(harness))).hello()
        assert [row["id"] for row in view.rows.values()] == ["b", "c"]
        assert view.facts["total"] == 3


async def test_close_sends_the_client_away(front):
    """`close` closes the connection with the code and reason that were asked for."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        view = front(ConnectionsTable(namespace(harness))).hello()
        await view.ask("close", n=1, code=4001, reason="Bye")
        closed = await client.until_closed()
        assert (closed.code, closed.reason) == (4001, "Bye")
        await view.until(lambda: not view.rows)


async def test_close_with_a_forbidden_code_is_refused(front):
    """A code that an author may not send either is refused, and the client stays."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        view = front(ConnectionsTable(namespace(harness))).hello()
        with pytest.raises(RuntimeError):
            await view.ask("close", n=1, code=1006)
        assert client.closed is None


async def test_readonly_is_shown_and_holds(front):
    """`readonly` forbids writes, shows in the row, and can be taken back."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        view = front(ConnectionsTable(namespace(harness))).hello()
        await view.ask("readonly", n=1, readonly=True)
        await view.until(lambda: view.rows[1]["readonly"])
        await client.set_state({"topic": "coffee"})
        assert harness.agent(Room, "lobby").state["topic"] == "tea"
        await view.ask("readonly", n=1, readonly=False)
        await client.set_state({"topic": "coffee"})
        assert harness.agent(Room, "lobby").state == {"topic": "coffee"}


async def test_flag_that_the_author_sets_is_seen_at_the_next_tick(front):
    """What changes without an event, such as `set_connection_readonly`, is found by looking."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        table = ConnectionsTable(namespace(harness))
        view = front(table).hello()
        agent = harness.agent(Room, "lobby")
        agent.set_connection_readonly(agent.get_connections()[0])
        table._feed.sections["connections"].tick()
        await view.until(lambda: view.rows[1]["readonly"])


async def test_details_tell_the_url_and_the_connections_own_state(front):
    """`connection` answers with what a row has no room for."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby", query={"seat": "12"})
        harness.agent(Room, "lobby").get_connections()[0].set_state({"seat": 12})
        view = front(ConnectionsTable(namespace(harness))).hello()
        facts = await view.ask("connection", n=1)
        assert facts["uri"].endswith("?seat=12")
        assert facts["state"] == '{"seat": 12}'


@pytest.mark.parametrize("what", ["close", "readonly", "connection"])
async def test_connection_that_is_gone_is_named(front, what):
    """What is asked of a connection that has left is answered in words."""
    async with AgentHarness(Room) as harness:
        view = front(ConnectionsTable(namespace(harness))).hello()
        with pytest.raises(RuntimeError, match="closed already"):
            await view.ask(what, n=99)
