"""The still picture of a view, for exports."""

from __future__ import annotations

from html import unescape

import pytest
from nbconvert import HTMLExporter
from nbformat import v4

from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets.panel import AgentPanel
from jupyter_agents.widgets.still import still_html
from tests.widgets.conftest import Room, namespace


async def picture_of(harness, message="hello"):
    """A picture with one connection and one message."""
    panel = AgentPanel(namespace(harness))
    client = await harness.connect(Room, "lobby", connection_id="me", user={"name": "ann"})
    await client.send(message)
    await harness.idle()
    return panel, panel._feed.picture()


async def test_picture_shows_what_there_was(comms):
    """A still has the address, the state, who was connected, what was said, what can be called."""
    async with AgentHarness(Room) as harness:
        _, picture = await picture_of(harness)
        html = still_html(picture)
        for part in ("Room", "agents/room/lobby", "topic", "me", "ann", "hello", "add(a, b)"):
            assert part in html
        assert "1 connection<" in html


async def test_picture_is_escaped(comms):
    """What clients said cannot become part of the page."""
    async with AgentHarness(Room) as harness:
        _, picture = await picture_of(harness, "<script>alert(1)</script>")
        html = still_html(picture)
        assert "<script>" not in html
        assert "&lt;script&gt;alert(1)" in html


def test_empty_picture_is_no_error():
    """A part of the panel has fewer facts."""
    assert "Run the cell" in still_html({"about": {"class": "Room"}})


async def test_state_that_is_too_large_is_named(comms):
    """A state too large for a picture shows its size."""
    async with AgentHarness(Room) as harness:
        panel, _ = await picture_of(harness)
        harness.agent(Room, "lobby").set_state("x" * 100_000)
        await harness.idle()
        assert "100002 bytes" in still_html(panel._feed.picture())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_exported_notebook_has_the_picture(comms):
    """HTML by nbconvert shows the picture where the widget's state was not saved."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby", connection_id="me")
        await client.send("hello")
        await harness.idle()
        data, metadata = AgentPanel(namespace(harness))._repr_mimebundle_()
        output = v4.new_output("execute_result", data, metadata=metadata, execution_count=1)
        notebook = v4.new_notebook(cells=[v4.new_code_cell("serve(Room)", outputs=[output])])
        html, _ = HTMLExporter().from_notebook_node(notebook)
        assert "agents/room/lobby" in html
        assert '"topic": "tea"' in unescape(html)
