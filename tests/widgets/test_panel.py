"""The whole panel, and its log of problems."""

from __future__ import annotations

import logging

from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets.panel import AgentPanel
from tests.widgets.conftest import Room, namespace


async def test_panel_has_every_section(front):
    """One snapshot tells of all sections."""
    async with AgentHarness(Room) as harness:
        view = front(AgentPanel(namespace(harness))).hello()
        sections = ("about", "connections", "state", "messages", "calls", "problems")
        assert set(sections) <= set(view.messages[0])


async def test_error_of_a_hook_is_shown_with_its_traceback(front):
    """T214: an exception in a hook is shown, with its traceback and whose message it was."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby", connection_id="me")
        view = front(AgentPanel(namespace(harness))).hello()
        await client.send("boom")
        await view.until(lambda: view.facts["problems"])
        (problem,) = view.facts["problems"]
        assert (problem["level"], problem["where"]) == ("error", "on_message")
        assert problem["text"] == "ValueError: no such tea"
        assert "in on_message" in problem["trace"]
        assert problem["who"]["id"] == "me"


async def test_refused_call_is_shown_as_refused(front):
    """Input that did not fit is shown without a traceback: it is no fault of the author's."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby")
        view = front(AgentPanel(namespace(harness))).hello()
        await client.replies("add", "x")
        await view.until(lambda: view.facts["problems"])
        (problem,) = view.facts["problems"]
        assert (problem["level"], problem["trace"]) == ("refused", "")
        assert "argument 'a'" in problem["text"]


async def test_warning_of_the_host_is_shown_and_other_logs_are_not(front):
    """A warning such as a slow hook's is shown; other agents' and other libraries' are not."""
    async with AgentHarness(Room) as harness:
        view = front(AgentPanel(namespace(harness))).hello()
        logging.getLogger("jupyter_agents.other").warning("not mine")
        logging.getLogger("else").warning("not mine")
        logging.getLogger("jupyter_agents").warning("%s is slow", "on_message")
        await view.until(lambda: view.facts["problems"])
        assert [p["text"] for p in view.facts["problems"]] == ["on_message is slow"]


async def test_closed_panel_listens_no_more(front):
    """After `close` neither the host nor the log knows the panel."""
    async with AgentHarness(Room) as harness:
        handlers = list(logging.getLogger("jupyter_agents").handlers)
        panel = AgentPanel(namespace(harness))
        front(panel).hello()
        panel.close()
        assert not harness.host.watched
        assert logging.getLogger("jupyter_agents").handlers == handlers
