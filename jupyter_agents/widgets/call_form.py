"""What can be called: a form for each callable method, what runs, and the newest calls."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from jupyter_agents.host.callables import (
    CallRefused,
    as_json,
    get_callable_methods,
    start_call,
)
from jupyter_agents.widgets.about import About
from jupyter_agents.widgets.section import AskError, Ring, Section, shortened, who
from jupyter_agents.widgets.view import LiveView

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.host.host import HostEvent
    from jupyter_agents.widgets.feed import Feed
    from jupyter_agents.widgets.section import Ask, Parcel

__all__ = ["CallForm", "Calls"]

KEPT = 100
A_FLUSH = 50
ARGS_LENGTH = 200
CHUNKS_WAITING = 500
"""Chunks of a stream that may wait for the next batch; then the stream waits."""


class Calls(Section):
    """What clients and views call, and how it went.

    A call is ``{"n", "at", "who", "method", "args", "seconds"?, "error"?}``; it runs while it has
    no `seconds`.
    """

    key = "calls"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._ring = Ring(KEPT)
        self._running: dict[tuple[Any, str], int] = {}
        self._dirty: set[int] = set()
        self._mine: dict[tuple[str, int], _ViewCall] = {}
        self._cls: type | None = None
        self._told_cls: type | None = None

    def begin(self) -> None:
        """Start with nothing."""
        self._ring.clear()
        self._running.clear()
        self._dirty.clear()

    def end(self) -> None:
        """Let go of what was kept; calls that run go on, and streams wait for nobody."""
        self.begin()
        for call in self._mine.values():
            call.take()

    # -- what clients call ---------------------------------------------------------------------

    def hear(self, event: HostEvent) -> None:
        """Keep a call, or its end."""
        data = event.data
        if event.kind == "call":
            self.began(data["connection"], data["id"], data["method"], data["args"])
        elif event.kind == "answer":
            self.ended(data["connection"], data["id"], data["seconds"], data["error"])

    def began(self, connection: Any, call_id: str, method: str, args: Any) -> None:
        """A call came in; from a view, `connection` is None."""
        entry = {
            "at": time.time(),
            "who": who(connection),
            "id": call_id,
            "method": method,
            "args": shortened(json.dumps(args, ensure_ascii=False)[1:-1], ARGS_LENGTH),
        }
        number = self._ring.add(entry)
        self._running[_key(connection, call_id)] = number
        self._dirty.add(number)
        self.feed.touch()

    def ended(
        self, connection: Any, call_id: str, seconds: float, error: BaseException | None
    ) -> None:
        """It is answered."""
        number = self._running.pop(_key(connection, call_id), 0)
        entry = self._ring.entries.get(number)
        if entry is None:
            return
        entry["seconds"] = round(seconds, 6)
        if error is not None:
            entry["error"] = shortened(_error_text(error), 1_000)
        self._dirty.add(number)
        self.feed.touch()

    def tick(self) -> None:
        """The class may be another one: its cell ran again."""
        hosted = self.feed.hosted
        if hosted is not None and hosted.cls is not self._told_cls:
            self.feed.touch()

    def whole(self, parcel: Parcel) -> Any:
        """``{"callables", "calls"}``."""
        self._dirty.clear()
        return {
            "callables": self._callables(),
            "calls": [{"n": n, **entry} for n, entry in self._ring.entries.items()],
        }

    def changes(self, parcel: Parcel) -> Any:
        """``{"callables"?, "calls", "chunks"}``."""
        told: dict[str, Any] = {}
        hosted = self.feed.hosted
        if hosted is not None and hosted.cls is not self._told_cls:
            told["callables"] = self._callables()
        known = sorted(self._dirty & self._ring.entries.keys())[-A_FLUSH:]
        if known:
            told["calls"] = [{"n": n, **self._ring.entries[n]} for n in known]
        self._dirty.clear()
        chunks = [[*key, call.take()] for key, call in self._mine.items() if call.chunks]
        if chunks:
            told["chunks"] = chunks
        return told or None

    def _callables(self) -> list[dict[str, Any]]:
        hosted = self.feed.hosted
        if hosted is None:
            return []
        self._told_cls = hosted.cls
        return [
            {
                "name": name,
                "description": method.description,
                "streaming": method.streaming,
                "parameters": method.parameters,
            }
            for name, method in get_callable_methods(hosted.cls).items()
        ]

    # -- what a view calls ---------------------------------------------------------------------

    def asked(self, ask: Ask) -> Any:
        """``call`` a method; ``cancel`` an own call by its ``ask``, or a client's by ``n``."""
        if ask.what == "call":
            return self._call(ask)
        if ask.what == "cancel":
            return self._cancel(ask)
        return NotImplemented

    async def _call(self, ask: Ask) -> Any:
        method, args = str(ask.given.get("method", "")), ask.given.get("args")
        if not isinstance(args, list):
            raise AskError("Arguments are a list")
        key, call = (ask.view, ask.number), _ViewCall(self.feed)
        self._mine[key] = call
        began, error = time.monotonic(), None
        self.began(None, _own_id(key), method, args)
        try:
            agent = await self.feed.awake(lambda agent: agent)
            error = await call.run(agent, self.feed.instance, method, args)
        except BaseException as failure:
            error = failure
            raise
        finally:
            self.feed.flush()
            del self._mine[key]
            self.ended(None, _own_id(key), time.monotonic() - began, error)
        if error is not None:
            self._report(method, error)
        if call.failure is not None:
            raise AskError(call.failure)
        return call.value

    def _report(self, method: str, error: BaseException) -> None:
        instance = self.feed.instance
        if instance is not None and not isinstance(error, (CallRefused, asyncio.CancelledError)):
            instance.hooks.report(None, method, error)

    def _cancel(self, ask: Ask) -> None:
        mine = self._mine.get((ask.view, ask.given.get("ask", -1)))
        if mine is not None:
            mine.cancel()
            return
        entry = self._ring.entries.get(ask.given.get("n", -1))
        if entry is None or "seconds" in entry:
            return
        for key, call in self._mine.items():
            if entry["who"] is None and entry["id"] == _own_id(key):
                call.cancel()
        instance = self.feed.instance
        if entry["who"] is not None and instance is not None:
            connection = instance.members.get(entry["who"]["n"])
            if connection is not None:
                instance.calls.cancel(connection, entry["id"])


class _ViewCall:
    """A call that a view made, and its way back: chunks leave with the next batch."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._cancel: Callable[[], object] | None = None
        self._taken = asyncio.Event()
        self.chunks: list[Any] = []
        self.value: Any = None
        self.failure: str | None = None

    async def run(self, agent: Any, instance: Any, method: str, args: list[Any]) -> Any:
        """Call it in the agent's own context; returns the error, for the log."""
        context = instance.hooks.context()
        self._feed.host.running = getattr(agent, method, None)
        rest = context.run(start_call, agent, method, args, self)
        if not asyncio.iscoroutine(rest):
            return rest
        over = self._feed.host.loop.create_future()

        def ended(outcome: Any, error: BaseException | None) -> None:
            if not over.done():
                over.set_result(error or outcome)

        self._cancel = self._feed.host.spawn(rest, context, ended)
        return await over

    def cancel(self) -> None:
        """CancelledError in the method."""
        if self._cancel is not None:
            self._cancel()

    def take(self) -> list[Any]:
        """The chunks since the last time."""
        chunks, self.chunks = self.chunks, []
        self._taken.set()
        return chunks

    def chunk(self, value: Any) -> bool:
        """One part of a stream; the oldest is dropped where nobody waits and nobody looks."""
        self.chunks.append(as_json(value))
        if len(self.chunks) > CHUNKS_WAITING * 4:
            del self.chunks[0]
        self._feed.touch()
        return True

    def done(self, value: Any = None) -> bool:
        """The end, with or without a result; None is none."""
        self.value = as_json(value)
        return True

    def fail(self, text: str, data: Any = None) -> bool:
        """The end, by an error."""
        self.failure = text
        return True

    async def drain(self) -> None:
        """Wait until the views have what there is."""
        if len(self.chunks) > CHUNKS_WAITING and self._feed.is_seen:
            self._taken.clear()
            await self._taken.wait()


def _own_id(key: tuple[str, int]) -> str:
    return f"{key[0]}-{key[1]}"


def _key(connection: Any, call_id: str) -> tuple[Any, str]:
    return (None if connection is None else connection.number, call_id)


def _error_text(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "Cancelled"
    return str(error) or type(error).__name__


class CallForm(LiveView):
    """A form for each callable method of one instance, and the newest calls.

    Parameters
    ----------
    shown : AgentNamespace or AgentHandle
        What `serve` returned, or one instance of it.
    name : str, optional
        Which instance; by default the handle's, or the first that lives.
    """

    part = "calls"
    sections = (About, Calls)
