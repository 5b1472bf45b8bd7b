"""The agents that every client has to get along with; `scenarios.json` says what happens to them.

A cell runs this file and then `serve_all`, so it may use nothing of the tests.
"""

from __future__ import annotations

import asyncio
import json

from jupyter_agents import (
    Agent,
    StateRejected,
    StreamingResponse,
    callable_method,
    get_current_agent,
    serve,
)


class EchoRoom(Agent):
    """Sends back what it gets, or does as a JSON message says. It has no state."""

    def on_connect(self, connection, ctx):
        if "greet" in ctx.query:
            connection.send("first")
            connection.send("second")

    def on_message(self, connection, message):
        order = self._order(message)
        if order is None:
            connection.send(message)
        elif "close" in order:
            connection.close(*order["close"])
        elif "broadcast" in order:
            self.broadcast(order["broadcast"], without=order.get("without", ()))
        else:
            connection.send_json({"received": order})

    def on_request(self, request):
        told = {"method": request.method, "path": request.path, "query": dict(request.query)}
        return {**told, "body": request.text, "name": self.name}

    @callable_method
    def my_id(self) -> str:
        return get_current_agent().connection.id

    @callable_method
    def seen_query(self) -> dict:
        return dict(get_current_agent().request.query)

    def _order(self, message):
        try:
            order = json.loads(message) if isinstance(message, str) else None
        except ValueError:
            return None
        return order if isinstance(order, dict) else None


class Counter(Agent):
    """A state that must not go below zero."""

    initial_state = {"count": 0}

    def validate_state_change(self, next_state, source):
        if next_state["count"] < 0:
            raise StateRejected("count must not be negative")

    @callable_method
    def increment(self, by: int = 1) -> int:
        self.set_state({"count": self.state["count"] + by})
        return self.state["count"]

    @callable_method
    def grow(self, size: int) -> int:
        self.set_state({"count": self.state["count"], "list": list(range(size))})
        return size

    @callable_method
    def append(self, value: int) -> None:
        self.set_state({**self.state, "list": [*self.state["list"], value]})

    @callable_method
    def seen(self):
        return self.state


class Falsy(Counter):
    """A state that is null, and still a state."""

    initial_state = None

    def validate_state_change(self, next_state, source):
        pass


class Gallery(Counter):
    """Some only look."""

    def should_connection_be_readonly(self, connection, ctx):
        return ctx.query.get("mode") == "view"

    @callable_method
    def look(self) -> int:
        return self.state["count"]


class Caller(Agent):
    """Methods of every kind."""

    @callable_method
    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @callable_method
    async def later(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @callable_method
    def nothing(self):
        pass

    @callable_method
    def fail(self):
        raise ValueError("no tea left")

    @callable_method
    def unspeakable(self):
        return {1j}

    def hidden(self):
        return "secret"

    @callable_method(streaming=True)
    def count(self, stream: StreamingResponse, n: int):
        for i in range(n):
            stream.send(i)
        stream.end("done")

    @callable_method
    async def generate(self, n: int):
        for i in range(n):
            yield i
            await asyncio.sleep(0)

    @callable_method(streaming=True)
    def forgets_the_end(self, stream: StreamingResponse):
        stream.send("only")

    @callable_method
    async def breaks(self):
        yield "one"
        raise ValueError("the string broke")

    @callable_method
    async def endless(self):
        self.cancelled = False
        try:
            yield 0
            await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled = True
            raise

    @callable_method
    async def was_cancelled(self) -> bool:
        return getattr(self, "cancelled", False)


class Gate(Agent):
    """Lets in who knows the word."""

    initial_state = "behind the gate"

    def on_connect(self, connection, ctx):
        if ctx.query.get("word") != "sesame":
            connection.close(4001, "Unauthorized")


class Nameless(Agent):
    """Does not say who it is."""

    initial_state = "still told"
    send_identity_on_connect = False


class Silent(Counter):
    """Tells nothing of itself to those who do not want it."""

    def should_send_protocol_messages(self, connection, ctx):
        return ctx.query.get("protocol") != "false"


ALL = [EchoRoom, Counter, Falsy, Gallery, Caller, Gate, Nameless, Silent]


def serve_all():
    """Serve every class, from memory."""
    return [serve(cls, storage="memory") for cls in ALL]
