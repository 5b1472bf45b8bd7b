"""Calls that read like method calls: `jupyter_agents.client.stub`."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from typing import Any

import pytest

from jupyter_agents.client.stub import Stub


class Caller:
    """Writes down what is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __repr__(self) -> str:
        return "<caller>"

    def call(self, method: str, args: Any = ()) -> Any:
        self.calls.append((method, args))
        return len(self.calls)


def test_stub_calls() -> None:
    """A method of the stub is a call with the same name and arguments."""
    caller = Caller()
    stub = Stub(caller)
    assert stub.add(1, 2) == 1
    later = stub.shout
    assert (later.__name__, later("hi")) == ("shout", 2)
    assert caller.calls == [("add", (1, 2)), ("shout", ("hi",))]


LOOKS = [
    repr,
    str,
    dir,
    bool,
    hash,
    callable,
    inspect.isawaitable,
    inspect.iscoroutinefunction,
    inspect.getmembers,
    lambda stub: hasattr(stub, "_ipython_display_"),
    lambda stub: hasattr(stub, "_repr_html_"),
    lambda stub: hasattr(stub, "_ipython_canary_method_should_not_exist_"),
    lambda stub: hasattr(stub, "__wrapped__"),
    lambda stub: hasattr(stub, "then"),
    lambda stub: getattr(stub, "toJSON", None),
    lambda stub: stub == stub,
    lambda stub: stub.anything,
]


@pytest.mark.parametrize("look", LOOKS)
def test_looking_at_a_stub_sends_nothing(look: Any) -> None:
    """Printing, inspecting and probing a stub calls no method (T128)."""
    caller = Caller()
    look(Stub(caller))
    assert caller.calls == []


@pytest.mark.parametrize("handle", [json.dumps, copy.copy, pickle.dumps, iter, len])
def test_handling_a_stub_sends_nothing(handle: Any) -> None:
    """Whatever a library tries with it, it is an error and not a call (T128)."""
    caller = Caller()
    try:
        handle(Stub(caller))
    except (TypeError, AttributeError, pickle.PicklingError):
        pass
    assert caller.calls == []


async def test_awaiting_a_stub_sends_nothing() -> None:
    """A stub is not awaitable (T128)."""
    caller = Caller()
    with pytest.raises(TypeError):
        await Stub(caller)  # type: ignore[misc]
    assert caller.calls == []


@pytest.mark.parametrize("name", ["_private", "__len__", "toJSON", "then"])
def test_names_that_no_agent_offers_do_not_exist(name: str) -> None:
    """The error says how to call it all the same."""
    with pytest.raises(AttributeError, match=rf"call\('{name}'\)"):
        getattr(Stub(Caller()), name)


def test_ipython_shows_a_stub_without_calling() -> None:
    """A stub as a cell's result is shown by IPython's formatters, and nothing is sent (T128)."""
    formatters = pytest.importorskip("IPython.core.formatters")
    caller = Caller()
    data, _ = formatters.DisplayFormatter().format(Stub(caller))
    assert "<stub of <caller>>" in data["text/plain"]
    assert caller.calls == []
