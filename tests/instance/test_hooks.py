"""Hooks are called in the right context, and no error is lost."""

from __future__ import annotations

import asyncio
import contextvars

from jupyter_agents import Agent, get_current_agent
from jupyter_agents.host.host import Hosted
from jupyter_agents.testing import AgentHarness

where = contextvars.ContextVar("where", default="nowhere")


class Placed(Agent):
    def on_message(self, connection, message):
        connection.send(where.get())

    async def on_close(self, connection, code, reason, was_clean):
        await asyncio.sleep(0)
        raise RuntimeError("in a task")

    def on_error(self, connection, error):
        raise ValueError("even here")


async def test_hooks_run_in_a_copy_of_the_serving_cells_context():
    """What a hook prints goes to the cell that served last: its context is the cell's."""
    clients = []
    async with AgentHarness() as harness:
        for cell in ("first cell", "second cell"):
            token = where.set(cell)
            await harness.host.serve(
                Hosted(Placed, "placed", ("placed",), harness.storage, contextvars.copy_context())
            )
            where.reset(token)
            clients = clients or [await harness.connect("placed", "x")]
            await clients[0].send("?")
            assert await clients[0].receive() == cell


async def test_errors_in_tasks_and_in_on_error_are_logged(caplog):
    """A raising async hook is logged with agent and hook, and so is a raising `on_error`."""
    async with AgentHarness(Placed) as harness:
        client = await harness.connect(Placed, "x")
        await client.close()
        await harness.idle()
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "Placed 'x': on_close: RuntimeError: in a task" in text
    assert "Placed 'x': on_error: ValueError: even here" in text


async def test_background_task_of_a_hook_knows_its_agent():
    """A task that a hook starts still finds its agent and connection."""
    found = []

    class Background(Agent):
        def on_message(self, connection, message):
            async def later():
                await asyncio.sleep(0)
                found.append(get_current_agent())

            self.task = asyncio.ensure_future(later())

    async with AgentHarness(Background) as harness:
        client = await harness.connect(
            Background, "x", connection_id="A", user={"username": "ann"}
        )
        await client.send("go")
        await harness.idle()
        await harness.agent(Background, "x").task
        (current,) = found
        assert current.agent.name == "x"
        assert current.connection.id == "A"
        assert current.user == {"username": "ann"}
        assert current.request.name == "x"


def test_outside_everything_nobody_is_served():
    """L11: outside of agent code all fields are None."""
    assert get_current_agent() == (None, None, None, None)
