"""What agents do is counted while somebody listens, told seldom, and gives nothing away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from jupyter_agents import Agent, callable_method
from jupyter_agents.errors import CallFailed, LinkError
from jupyter_agents.link.frames import Kind, pack_object, unpack_object
from jupyter_agents.testing import AgentHarness

LIMIT_S = 5.0


class Counter(Agent):
    initial_state = {"n": 0}

    def on_message(self, connection, message):
        raise ValueError(message)

    @callable_method
    def add(self, by: int) -> int:
        self.set_state({"n": self.state["n"] + by})
        return self.state["n"]

    @callable_method
    async def fail(self, secret: str) -> None:
        raise KeyError(secret)


@asynccontextmanager
async def listened(every_s=0.05):
    """A harness whose server listens, and the reports that it gets."""
    async with AgentHarness(Counter) as harness:
        reports = asyncio.Queue()
        harness.relay.handlers[Kind.TALLY] = lambda host, number, payload: reports.put_nowait(
            unpack_object(payload)["tallies"]
        )
        switch(harness, every_s)
        yield harness, reports


def switch(harness, every_s):
    """The server begins to listen, or ends."""
    harness.host.frames([(Kind.TALLY, 0, pack_object({"every_s": every_s}))])


async def next_of(reports):
    """The next report."""
    return await asyncio.wait_for(reports.get(), LIMIT_S)


async def test_many_are_one_report():
    """However much happens, one report tells how often, and of the last more closely."""
    async with listened() as (harness, reports):
        client = await harness.connect(Counter, "x")
        await next_of(reports)  # the initial state
        for _ in range(5):
            await client.call("add", 2)
        other = await harness.connect(Counter, "y")
        await other.call("add", 1)
        seen = [await next_of(reports)]
        while sum(t["count"] for r in seen for t in r if t["action"] == "call") < 6:
            seen.append(await next_of(reports))
        last = {tally["action"]: tally for tally in seen[-1]}
        assert last["call"]["name"] == last["state"]["name"] == "y"
        assert (last["call"]["method"], last["call"]["failed"]) == ("add", 0)
        assert last["state"]["source"] == "server"
        assert {tally["agent"] for report in seen for tally in report} == {"counter"}


async def test_interval_is_kept():
    """Between two reports lies the interval that the server asked for."""
    async with listened(every_s=0.2) as (harness, reports):
        client = await harness.connect(Counter, "x")
        times = []
        while len(times) < 3:
            await client.call("add", 1)
            if not reports.empty():
                reports.get_nowait()
                times.append(asyncio.get_running_loop().time())
        assert times[1] - times[0] >= 0.19
        assert times[2] - times[1] >= 0.19


async def test_writes_of_clients_are_told_from_the_agents():
    """A state that a client wrote has `client` for its source."""
    async with listened() as (harness, reports):
        client = await harness.connect(Counter, "x")
        await next_of(reports)
        await client.set_state({"n": 7})
        [tally] = await next_of(reports)
        assert (tally["action"], tally["source"]) == ("state", "client")


async def test_nothing_is_given_away():
    """No argument, message, error's text or made-up method name is told; errors are by class."""
    async with listened() as (harness, reports):
        client = await harness.connect(Counter, "x")
        await next_of(reports)
        for method in ("fail", "secret-method"):
            try:
                await client.call(method, "secret-argument")
            except CallFailed:
                pass
        await client.send("secret-message")
        tallies = {}
        while not tallies.keys() >= {"call", "error"} or tallies["error"]["where"] == "fail":
            tallies.update({tally["action"]: tally for tally in await next_of(reports)})
        assert "secret" not in repr(tallies)
        assert tallies["call"]["failed"] >= 1
        assert (tallies["error"]["where"], tallies["error"]["type"]) == (
            "on_message",
            "ValueError",
        )


async def test_nothing_is_counted_while_nobody_listens():
    """Off is off: nothing is kept and nothing is told."""
    async with listened() as (harness, reports):
        switch(harness, 0)
        client = await harness.connect(Counter, "x")
        await client.call("add", 1)
        assert not harness.host.tallies.is_on
        assert not harness.host.tallies._since
        switch(harness, 0.01)
        await client.call("add", 1)
        assert {tally["count"] for tally in await next_of(reports)} == {1}


async def test_full_link_delays_the_report(monkeypatch):
    """What a full link does not take is told with the next report; no count is lost."""
    async with listened() as (harness, reports):
        client = await harness.connect(Counter, "x")
        await next_of(reports)
        real, refused = harness.host.send_object, asyncio.Event()

        def full_once(kind, number, value):
            if kind == Kind.TALLY and not refused.is_set():
                refused.set()
                raise LinkError("full")
            real(kind, number, value)

        monkeypatch.setattr(harness.host, "send_object", full_once)
        await client.call("add", 1)
        await asyncio.wait_for(refused.wait(), LIMIT_S)
        await client.call("add", 1)
        tallies = {tally["action"]: tally["count"] for tally in await next_of(reports)}
        assert tallies == {"state": 2, "call": 2}


async def test_lost_link_ends_it():
    """Without a link nothing piles up, and the next server says anew whether it listens."""
    async with listened() as (harness, _):
        await harness.connect(Counter, "x")
        harness.host.tallies._since["counter", "state"] = {"agent": "counter", "count": 1}
        harness.host.uplink = None
        harness.host.tallies._report()
        assert not harness.host.tallies.is_on
        assert not harness.host.tallies._since
