"""Who wants to hear of what happens to a client.

Promises that a listener's error is logged and harms nobody else. Must not decide what happens.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["EVENTS", "Listeners"]

Listener = Callable[..., object]
log = logging.getLogger("jupyter_agents.client")

EVENTS = (
    "open",
    "close",
    "error",
    "message",
    "state_update",
    "state_update_error",
    "identity",
    "identity_change",
    "connection_error",
    "suspended",
    "resumed",
)


class Listeners:
    """Listeners by event.

    Each ``on_…`` takes a function or coroutine function and returns its removal.

    Thread
    ------
    Listeners are called on the client's loop, in the order they were added.
    """

    def __init__(self, given: Mapping[str, Listener | None]) -> None:
        self._listeners: dict[str, list[Listener]] = {event: [] for event in EVENTS}
        self._running: set[asyncio.Task[None]] = set()
        for name, listener in given.items():
            if not name.startswith("on_") or name.removeprefix("on_") not in EVENTS:
                known = ", ".join(f"on_{event}" for event in EVENTS)
                raise TypeError(f"unexpected argument {name!r}; listeners are {known}")
            if listener is not None:
                self.listen(name.removeprefix("on_"), listener)

    def on_open(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Hear of each connection that was made; what waited has been sent."""
        return self.listen("open", listener)

    def on_close(self, listener: Callable[[Any], object]) -> Callable[[], None]:
        """Hear of each connection that ended: ``listener(ConnectionClosed)``."""
        return self.listen("close", listener)

    def on_error(self, listener: Callable[[Exception], object]) -> Callable[[], None]:
        """Hear of each attempt that failed: ``listener(error)``."""
        return self.listen("error", listener)

    def on_message(self, listener: Callable[[Any], object]) -> Callable[[], None]:
        """Hear the agent's messages: ``listener(text or bytes)``; earlier ones wait for `recv`."""
        return self.listen("message", listener)

    def on_state_update(self, listener: Callable[[Any, str], object]) -> Callable[[], None]:
        """Hear of another state: ``listener(state, "server" or "client")``, as in the SDK."""
        return self.listen("state_update", listener)

    def on_state_update_error(self, listener: Callable[[str], object]) -> Callable[[], None]:
        """Hear of a refused write: ``listener(text)``."""
        return self.listen("state_update_error", listener)

    def on_identity(self, listener: Callable[[str, str], object]) -> Callable[[], None]:
        """Hear whom this client reached: ``listener(name, agent)``, on every connection."""
        return self.listen("identity", listener)

    def on_identity_change(
        self, listener: Callable[[str, str, str, str], object]
    ) -> Callable[[], None]:
        """Hear of another one than before: ``listener(old_name, name, old_agent, agent)``."""
        return self.listen("identity_change", listener)

    def on_connection_error(self, listener: Callable[[Any], object]) -> Callable[[], None]:
        """Hear that this client will not come back by itself: ``listener(ConnectionClosed)``."""
        return self.listen("connection_error", listener)

    def on_suspended(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Hear that the agent's kernel is away: the connection stays, and what is sent waits."""
        return self.listen("suspended", listener)

    def on_resumed(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Hear that it is back, and that what waited is on its way to it."""
        return self.listen("resumed", listener)

    def listen(self, event: str, listener: Listener) -> Callable[[], None]:
        """Hear of an event by its name, one of `EVENTS`."""
        if not callable(listener):
            raise TypeError(f"a listener is a function, not {type(listener).__name__!r}")
        listeners = self._listeners[event]
        listeners.append(listener)

        def remove() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return remove

    def _has_listener(self, event: str) -> bool:
        return bool(self._listeners[event])

    def _fire(self, event: str, *arguments: object) -> None:
        for listener in list(self._listeners[event]):
            try:
                outcome = listener(*arguments)
                if inspect.isawaitable(outcome):
                    self._run(event, outcome)
            except Exception:
                log.exception("A listener of on_%s failed", event)

    def _run(self, event: str, outcome: Any) -> None:
        async def run() -> None:
            try:
                await outcome
            except Exception:
                log.exception("A listener of on_%s failed", event)

        task = asyncio.get_running_loop().create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _still_running(self) -> Iterable[asyncio.Task[None]]:
        """Listeners that are coroutines and have not ended."""
        return tuple(self._running)
