"""What an administrator hears of a real server with a real kernel."""

from __future__ import annotations

import json

import pytest

CELL = """
from jupyter_agents import Agent, callable_method, connect, serve

class Counter(Agent):
    initial_state = {"n": 0}

    @callable_method
    def add(self, by: int) -> int:
        self.set_state({"n": self.state["n"] + by})
        return self.state["n"]

serve(Counter, storage="memory", takeover=True)
"""
ACTIVITY = "https://events.jupyter.org/jupyter_agents/activity/v1"
UNTIL_HEARD = """
import asyncio
from jupyter_agents.serving import default_host
while not default_host().tallies.is_on:
    await asyncio.sleep(0.05)
"""
CALLS = """
async with connect(Counter, "watched") as client:
    for number in range(100):
        await client.call("add", [1])
"""


@pytest.fixture
def counter(kernel):
    """A kernel that serves the agent."""
    kernel.run(CELL)
    return kernel


def test_calls_and_states_are_heard(counter, jupyter_server_process):
    """Whoever subscribes to Jupyter's events hears, in few events, of all that agents do."""
    socket = jupyter_server_process.connect("api/events/subscribe")
    counter.run(UNTIL_HEARD)
    counter.run(CALLS)
    counts, events = {"call": 0, "state": 0}, []
    try:
        while min(counts.values()) < 100:
            event = json.loads(socket.recv())
            if event["schema_id"] == ACTIVITY:
                assert (event["agent"], event["name"]) == ("counter", "watched")
                counts[event["action"]] += event["count"]
                events.append(event)
    finally:
        socket.close()
        socket.shutdown()
    assert counts == {"call": 100, "state": 101}  # the initial state is one, too
    assert len(events) < 20
    assert events[-1].get("method") in (None, "add")


def test_link_latency_is_on_the_metrics_page(counter, jupyter_server_process):
    """The server measures each kernel's link by itself, and `/metrics` tells."""
    name = 'jupyter_agents_link_round_trip_seconds{agent="counter"}'

    def latency():
        status, body = jupyter_server_process.fetch("GET", "metrics")
        assert status == 200
        [line] = [line for line in body.decode().splitlines() if line.startswith(name)]
        return float(line.rsplit(" ", 1)[1])

    while not latency():
        counter.run("import time\ntime.sleep(0.2)")
    assert 0 < latency() < 5
