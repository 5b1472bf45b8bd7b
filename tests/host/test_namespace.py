"""What `serve` returns to a cell."""

from __future__ import annotations

from jupyter_agents import Agent
from jupyter_agents.host.namespace import AgentNamespace
from jupyter_agents.testing import AgentHarness


class Room(Agent):
    initial_state = {"n": 0}


async def test_namespace_knows_addresses_and_instances():
    """url, page, instances, membership and a one-line repr."""
    async with AgentHarness(Room) as harness:
        harness.host.server["url"] = "http://h:1/user/x/"
        ns = AgentNamespace(harness.host, harness.host.find(Room))
        assert ns.url("a b/c") == "ws://h:1/user/x/agents/room/a%20b%2Fc"
        assert ns.page("lobby") == "http://h:1/user/x/agents/room/lobby"
        await harness.connect(Room, "lobby")
        assert ns.instances == ["lobby"]
        assert "lobby" in ns
        assert list(ns) == ["lobby"]
        assert len(ns) == 1
        assert repr(ns) == "<agents Room at ws://h:1/user/x/agents/room/…, 1 instances>"
        assert ns.agent_class is Room
        assert ns.is_served
        await harness.host.withdraw("room")
        assert "stopped" in repr(ns)


async def test_namespace_sleeps_and_resets():
    """L15: `sleep` drops the object, `reset` what is stored."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "x")
        ns = AgentNamespace(harness.host, harness.host.find(Room))
        await ns.sleep("x")
        assert not harness.instance(Room, "x").started
        await client.set_state({"n": 3})
        assert harness.agent(Room, "x").state == {"n": 3}
        harness.host.submit(ns._now, "x", lambda instance: instance.reset())
        await harness.idle()
        assert harness.agent(Room, "x").state == {"n": 0}
