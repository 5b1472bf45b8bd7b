"""Calls from a view, and the list of calls."""

from __future__ import annotations

import threading

import pytest

from jupyter_agents import Agent, callable_method
from jupyter_agents.instance.hooks import get_current_agent
from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets import call_form
from jupyter_agents.widgets.call_form import CallForm
from tests.widgets.conftest import Room, namespace


async def test_forms_are_described_by_the_class(front):
    """A view gets each callable with its parameters; a new class brings new ones."""
    async with AgentHarness(Room) as harness:
        widget = CallForm(namespace(harness))
        view = front(widget).hello()
        found = {one["name"]: one for one in view.messages[0]["calls"]["callables"]}
        assert list(found) == ["add", "count", "wait", "fail"]
        assert found["add"]["parameters"][1]["default"] == 1
        assert found["count"]["streaming"]
        await harness.serve(type("Room", (Agent,), {"only": callable_method(lambda self: 1)}))
        widget._feed.sections["calls"].tick()
        await view.until(lambda: len(view.messages) > 1)
        assert [c["name"] for c in view.messages[-1]["calls"]["callables"]] == ["only"]


async def test_call_is_answered_and_listed(front):
    """A call gives its result, and is listed with its arguments and its time."""
    async with AgentHarness(Room) as harness:
        view = front(CallForm(namespace(harness))).hello()
        assert await view.ask("call", method="add", args=[40, 2]) == 42
        (call,) = view.calls.values()
        assert (call["method"], call["args"], call["who"]) == ("add", "40, 2", None)
        assert call["seconds"] >= 0
        assert "error" not in call


async def test_arguments_are_checked(front):
    """A wrong argument is refused in the words that clients get, and the method does not run."""
    async with AgentHarness(Room) as harness:
        view = front(CallForm(namespace(harness))).hello()
        with pytest.raises(RuntimeError, match="argument 'a'"):
            await view.ask("call", method="add", args=["x"])
        with pytest.raises(RuntimeError, match="list"):
            await view.ask("call", method="add", args="x")
        with pytest.raises(RuntimeError, match=r"not callable|does not exist"):
            await view.ask("call", method="set_state", args=[{}])


async def test_stream_comes_in_batches_before_its_end(front):
    """The chunks of a stream come in order, all of them before the answer."""
    async with AgentHarness(Room) as harness:
        view = front(CallForm(namespace(harness))).hello()
        await view.ask("call", method="count", args=[1_000])
        assert view.chunks == list(range(1_000))
        assert len([m for m in view.messages if "chunks" in m.get("calls", {})]) < 20


async def test_stream_waits_for_a_view_that_is_slow(front, monkeypatch):
    """A stream that runs ahead of the batches waits; what it has not sent is not kept."""
    monkeypatch.setattr(call_form, "CHUNKS_WAITING", 10)
    async with AgentHarness(Room) as harness:
        view = front(CallForm(namespace(harness))).hello()
        await view.ask("call", method="count", args=[60])
        assert view.chunks == list(range(60))


async def test_call_can_be_cancelled(front):
    """Cancelling raises CancelledError in the method, and the call ends as cancelled."""
    async with AgentHarness(Room) as harness:
        view = front(CallForm(namespace(harness))).hello()
        answer = view.begin("call", method="wait", args=[])
        await view.until(lambda: view.calls)
        number = next(iter(view._asks))
        await view.ask("cancel", ask=number)
        with pytest.raises(RuntimeError, match=r"[Cc]ancelled"):
            await answer
        assert view.calls[1]["error"] == "Cancelled"


async def test_clients_call_is_listed_and_can_be_cancelled(front):
    """What a client calls is listed as running, with who calls, and can be cancelled from here."""
    async with AgentHarness(Room) as harness:
        client = await harness.connect(Room, "lobby", connection_id="me")
        view = front(CallForm(namespace(harness))).hello()
        await client.send_json({"type": "rpc", "id": "1", "method": "wait", "args": []})
        await view.until(lambda: view.calls)
        assert view.calls[1]["who"]["id"] == "me"
        assert "seconds" not in view.calls[1]
        await view.ask("cancel", n=1)
        await view.until(lambda: "seconds" in view.calls[1])


async def test_failed_call_is_told_and_reported(front, caplog):
    """An error of a method is told to who called, and logged as one of a client's call is."""
    async with AgentHarness(Room) as harness:
        view = front(CallForm(namespace(harness))).hello()
        with pytest.raises(RuntimeError, match="out of tea"):
            await view.ask("call", method="fail", args=[])
        assert view.calls[1]["error"] == "out of tea"
        assert "out of tea" in caplog.text


async def test_method_runs_on_the_agents_thread_in_its_own_context(front):
    """A call from a view runs where clients' calls run, and knows its agent."""
    seen = []

    class Spy(Agent):
        @callable_method
        async def look(self):
            seen.append((threading.get_ident(), get_current_agent().agent is self))

    async with AgentHarness(Spy) as harness:
        view = front(CallForm(namespace(harness, Spy))).hello()
        await view.ask("call", method="look", args=[])
        assert seen == [(harness.host.thread_id, True)]
