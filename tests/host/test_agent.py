"""The base class: what an author gets without writing anything."""

from __future__ import annotations

import pytest

from jupyter_agents import Agent, callable_method
from jupyter_agents.testing import AgentHarness


class Plain(Agent):
    @callable_method
    def hello(self):
        """Say hello."""
        return "hello"


async def test_agent_without_hooks_accepts_and_ignores():
    """Every hook has a default: connect, message, close, and HTTP is a 404."""
    async with AgentHarness(Plain) as harness:
        client = await harness.connect(Plain, "x")
        await client.send("anything")
        await client.expect_nothing()
        assert (await harness.request(Plain, "x")).status == 404
        await client.close()


def test_callable_methods_are_listed():
    """R2: name → metadata."""
    assert list(Plain.get_callable_methods()) == ["hello"]
    assert Plain.get_callable_methods()["hello"].description == "Say hello."


async def test_name_is_there_in_the_constructor():
    """T002: the name is right before ``__init__`` runs."""
    names = []

    class Named(Agent):
        def __init__(self):
            super().__init__()
            names.append(self.name)

    async with AgentHarness(Named) as harness:
        await harness.connect(Named, "kitchen")
        assert names == ["kitchen"]
        assert repr(harness.agent(Named, "kitchen")) == "<Named 'kitchen'>"
        assert harness.agent(Named, "kitchen").log.name == "jupyter_agents.named"


def test_unhosted_agent_says_so():
    """What needs a host raises a sentence where there is none."""
    with pytest.raises(RuntimeError, match="not hosted"):
        Plain().get_connections()
