"""Who wants to hear: `jupyter_agents.client.listeners`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jupyter_agents.client.listeners import EVENTS, Listeners


def test_listeners_are_called_in_order_until_removed() -> None:
    """Each hears every event in the order they came, until it is removed; twice is fine."""
    told: list[Any] = []
    listeners = Listeners({"on_message": lambda text: told.append(("given", text))})
    remove = listeners.on_message(lambda text: told.append(("added", text)))
    listeners._fire("message", "a")
    remove()
    remove()
    listeners._fire("message", "b")
    assert told == [("given", "a"), ("added", "a"), ("given", "b")]


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_has_its_method_and_argument(event: str) -> None:
    """What can be heard can be asked for by method, by name and by keyword."""
    told: list[str] = []
    listeners = Listeners({f"on_{event}": lambda *_: told.append("keyword")})
    getattr(listeners, f"on_{event}")(lambda *_: told.append("method"))
    listeners.listen(event, lambda *_: told.append("name"))
    listeners._fire(event, 1, 2)
    assert told == ["keyword", "method", "name"]


@pytest.mark.parametrize("wrong", ["on_nonsense", "message", "on_"])
def test_unknown_argument_names_the_known(wrong: str) -> None:
    """A misspelled keyword is an error that lists what there is."""
    with pytest.raises(TypeError, match=f"{wrong}.*on_message"):
        Listeners({wrong: print})


def test_listener_must_be_callable() -> None:
    """A forgotten function is found where it is given; None is none."""
    with pytest.raises(TypeError, match="int"):
        Listeners({}).on_open(5)  # type: ignore[arg-type]
    Listeners({"on_open": None})._fire("open")


async def test_listeners_error_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that fails, at once or later, is logged with its event; the others hear."""
    told: list[int] = []

    async def late() -> None:
        raise ZeroDivisionError

    listeners = Listeners({"on_open": lambda: 1 / 0})
    listeners.on_open(late)
    listeners.on_open(lambda: told.append(1))
    listeners._fire("open")
    await asyncio.wait(listeners._still_running())
    assert told == [1]
    assert caplog.text.count("A listener of on_open failed") == 2
    assert not listeners._still_running()


def test_listener_may_remove_itself() -> None:
    """A listener that leaves while it is called does not make the next one miss the event."""
    told: list[str] = []
    listeners = Listeners({})

    def once() -> None:
        told.append("once")
        remove()

    remove = listeners.on_open(once)
    listeners.on_open(lambda: told.append("always"))
    listeners._fire("open")
    listeners._fire("open")
    assert told == ["once", "always", "always"]
