"""A front end that is not there: comms that remember, and a view that asks like the browser's."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import comm
import pytest
from comm.base_comm import BaseComm
from ipywidgets import Widget

from jupyter_agents import Agent, callable_method
from jupyter_agents.host.namespace import AgentNamespace
from jupyter_agents.widgets import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jupyter_agents.testing import AgentHarness

LIMIT_S = 5.0


class RecordingComm(BaseComm):
    """Keeps what is published instead of sending it."""

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        """Keep one message."""
        sent = self.__dict__.setdefault("sent", [])
        sent.append((msg_type, data, list(buffers or ())))
        for listener in self.__dict__.setdefault("listeners", []):
            listener(data, list(buffers or ()))
        if msg_type == "comm_close":
            self._msg_callback = None  # tests hold comms; the comms must not hold their widgets


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RecordingComm]]:
    """Every comm that a test's widgets open; the widgets are closed at the end."""
    made: list[RecordingComm] = []

    def create(**arguments: Any) -> RecordingComm:
        made.append(RecordingComm(**arguments))
        return made[-1]

    monkeypatch.setattr(comm, "create_comm", create)
    yield made
    Widget.close_all()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds that flush and tick fast; tests of the pace itself set it."""
    monkeypatch.setattr(feed, "FLUSH_S", 0.02)
    monkeypatch.setattr(feed, "SETTLE_S", 0.002)
    monkeypatch.setattr(feed, "TICK_S", 0.05)


class Front:
    """One view of a widget, as `static/live-view.js` behaves: it puts batches together."""

    def __init__(self, widget: Any, view: str = "one") -> None:
        self.widget = widget
        self.view = view
        self.messages: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self.entries: list[dict[str, Any]] = []
        self.rows: dict[int, dict[str, Any]] = {}
        self.calls: dict[int, dict[str, Any]] = {}
        self.chunks: list[Any] = []
        self._asks: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Event()
        widget.comm.__dict__.setdefault("listeners", []).append(self._take)

    # -- down ----------------------------------------------------------------------------------

    def _take(self, data: dict[str, Any], buffers: list[bytes]) -> None:
        if (data or {}).get("method") != "custom":
            return
        content = json.loads(json.dumps(data["content"]))  # it must be JSON
        if content.get("to") not in (None, self.view):
            return
        self.messages.append(content)
        if content["kind"] == "answer":
            self._answered(content)
        elif content["kind"] in ("snapshot", "batch"):
            self._merge(content, buffers)
        self._changed.set()

    def _answered(self, content: dict[str, Any]) -> None:
        future = self._asks.pop(content["ask"])
        if "error" in content:
            future.set_exception(RuntimeError(content["error"]))
        else:
            future.set_result(content["value"])

    def _merge(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        if content["kind"] == "snapshot":
            self.facts, self.entries, self.rows, self.calls = {}, [], {}, {}
        self.facts["about"] = {**self.facts.get("about", {}), **content.get("about", {})}
        self._merge_rows(content.get("connections", {}))
        self.entries += content.get("messages", {}).get("entries", [])
        self.calls |= {call["n"]: call for call in content.get("calls", {}).get("calls", [])}
        for _, _, chunks in content.get("calls", {}).get("chunks", []):
            self.chunks += chunks
        self.facts.setdefault("problems", []).extend(
            content.get("problems", {}).get("entries", [])
        )
        if "state" in content:
            known = self.facts.get("state", {})
            self.facts["state"] = {**known, **content["state"]}
            now = content["state"]["now"]
            self.facts["value"] = None if now is None else self._value(now, buffers)

    def _merge_rows(self, part: dict[str, Any]) -> None:
        self.rows |= {row["n"]: row for row in part.get("rows", [])}
        for number, *counts in part.get("counts", []):
            self.rows[number]["counts"] = counts
        for number in part.get("gone", []):
            del self.rows[number]
        self.facts["total"] = part.get("total", self.facts.get("total"))

    @staticmethod
    def _value(moment: dict[str, Any], buffers: list[bytes]) -> Any:
        reference = moment.get("value", {})
        return json.loads(buffers[reference["buffer"]]) if "buffer" in reference else None

    @property
    def kinds(self) -> list[str]:
        """Of the messages, in order."""
        return [message["kind"] for message in self.messages]

    async def until(self, condition: Callable[[], Any], what: str = "it") -> None:
        """Return when the view shows it."""
        deadline = asyncio.get_running_loop().time() + LIMIT_S
        while not condition():
            self._changed.clear()
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except (asyncio.TimeoutError, TimeoutError):
                pytest.fail(f"The view never showed {what}; the last: {self.messages[-1:]}")

    # -- up ------------------------------------------------------------------------------------

    def say(self, do: str, buffers: tuple[bytes, ...] = (), **more: Any) -> None:
        """Send one message as ipywidgets delivers it."""
        content = {"do": do, "view": self.view, **more}
        data = {"method": "custom", "content": content}
        self.widget._handle_msg({"content": {"data": data}, "buffers": list(buffers)})

    def hello(self) -> Front:
        """Appear."""
        self.say("hello")
        return self

    def begin(self, what: str, *buffers: bytes, **given: Any) -> asyncio.Future[Any]:
        """Ask for something; the future is the answer."""
        number = len(self.messages) + len(self._asks) + 1
        while number in self._asks:
            number += 1
        self._asks[number] = asyncio.get_running_loop().create_future()
        answer = self._asks[number]
        self.say("ask", buffers, ask=number, what=what, given=given)
        return answer

    async def ask(self, what: str, *buffers: bytes, **given: Any) -> Any:
        """Ask for something and wait for the answer; RuntimeError with the refusal."""
        return await asyncio.wait_for(self.begin(what, *buffers, **given), LIMIT_S)


@pytest.fixture
def front(comms: list[RecordingComm]) -> type[Front]:
    """``front(widget).hello()``: a view of it."""
    return Front


class Room(Agent):
    """An agent with a bit of everything."""

    initial_state = {"topic": "tea", "n": 0, "list": [1, 2]}

    def get_connection_tags(self, connection, ctx):
        """One tag."""
        return ["blue"]

    def on_message(self, connection, message):
        """Count, and pass on; "boom" fails."""
        if message == "boom":
            raise ValueError("no such tea")
        self.update_state(n=self.state["n"] + 1)
        self.broadcast(message)

    @callable_method
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @callable_method
    async def count(self, to: int):
        """Count in a stream."""
        for number in range(to):
            yield number

    @callable_method
    async def wait(self) -> None:
        """Never end."""
        await asyncio.Event().wait()

    @callable_method
    def fail(self) -> None:
        """Raise."""
        raise ValueError("out of tea")


@pytest.fixture
def room() -> type[Room]:
    """The agent class `Room`."""
    return Room


def namespace(harness: AgentHarness, cls: type[Agent] = Room) -> AgentNamespace:
    """What `serve` would have returned."""
    return AgentNamespace(harness.host, harness.host.find(cls))
