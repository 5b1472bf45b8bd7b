"""The agents of the recordings in Python: each does what its TypeScript twin did when recorded.

Method names are the recorded ones. What they wait is a tenth of what it was: order matters, not
time.
"""

from __future__ import annotations

import asyncio
import json
import time

from jupyter_agents import Agent, callable_method, get_current_agent
from jupyter_agents.errors import ConnectionReadonly

TENTH_MS = 0.0001


class Noted(Agent):
    """Notes what its hooks were told, as the recorder's server log did."""

    def __init__(self):
        self.closes = []
        self.errors = []

    def on_close(self, connection, code, reason, was_clean):
        listed = connection in list(self.get_connections())
        self.closes.append((code, reason, was_clean, listed))

    def on_error(self, connection, error):
        self.errors.append(str(error))


class CounterAgent(Noted):
    initial_state = {"count": 0}
    notAFunction = 1  # noqa: N815

    def validate_state_change(self, next_state, source):
        if not isinstance(next_state, dict) or not isinstance(next_state.get("count"), int):
            raise TypeError("count must be a number")
        if "forbidden" in next_state:
            raise ValueError("forbidden")

    def on_state_changed(self, state, source):
        if state.get("label") == "hook-throws":
            raise RuntimeError("hook boom")

    def on_message(self, connection, message):
        if isinstance(message, bytes):
            facts = {"ctor": "ArrayBuffer", "isArrayBuffer": True, "isView": False}
            message = {"type": "binary", **facts, "length": len(message)}
        connection.send_json({"fallthrough": message})

    @callable_method
    def increment(self, by=1):
        self.set_state({"count": self.state["count"] + by})
        return self.state["count"]

    @callable_method
    async def slowAdd(self, a, b, *more):
        await asyncio.sleep(10 * TENTH_MS)
        return a + b

    @callable_method
    def nothing(self):
        pass

    @callable_method
    def nul(self):
        return None

    @callable_method
    def echoArgs(self, *args):
        return {"n": len(args), "args": args}

    @callable_method
    def whoami(self):
        who = get_current_agent()
        return {"connectionId": who.connection.id, "hasRequest": False, "name": who.agent.name}

    @callable_method
    def fail(self, text):
        raise RuntimeError(text)

    @callable_method
    async def failAsync(self):
        await asyncio.sleep(0)
        raise RuntimeError("async boom")

    def notCallable(self):
        pass

    @callable_method
    def bigint(self):
        return object()

    @callable_method
    def cyclic(self):
        found = {}
        found["a"] = found
        return found

    @callable_method
    def setBad(self):
        self.set_state({"count": "x"})

    @callable_method(streaming=True)
    async def stream(self, stream, n, ms=0):
        for i in range(n):
            await stream.send({"i": i})
            await asyncio.sleep(ms * TENTH_MS)
        stream.end({"total": n})

    @callable_method(streaming=True)
    async def streamThrows(self, stream):
        await stream.send("one")
        raise RuntimeError("stream boom")

    @callable_method(streaming=True)
    async def streamError(self, stream):
        await stream.send("one")
        stream.error("explicit error")
        await stream.send("after")

    @callable_method(streaming=True)
    def streamEmpty(self, stream):
        stream.end()

    @callable_method(streaming=True)
    async def streamReturns(self, stream):
        await stream.send("c")
        stream.end("final")

    @callable_method(streaming=True)
    async def streamNoEnd(self, stream):
        await stream.send("only")


class BareAgent(Noted):
    pass


class NullStateAgent(Noted):
    initial_state = None


class NoIdentityAgent(Noted):
    initial_state = {"v": 1}
    send_identity_on_connect = False


class QuietAgent(Noted):
    initial_state = {"v": 1}

    def should_send_protocol_messages(self, connection, ctx):
        return ctx.query.get("proto") == "1"

    def on_message(self, connection, message):
        connection.send(f"echo:{message}" if isinstance(message, str) else message)

    @callable_method
    def bump(self):
        self.set_state({"v": self.state["v"] + 1})
        return self.state["v"]


class ReadonlyAgent(QuietAgent):
    def should_connection_be_readonly(self, connection, ctx):
        return ctx.query.get("mode") == "view"

    def should_send_protocol_messages(self, connection, ctx):
        return True

    def on_message(self, connection, message):
        value = json.loads(message)
        if "setStateFromMessage" in value:
            try:
                self.set_state({"v": value["setStateFromMessage"]})
            except ConnectionReadonly as error:
                connection.send_json({"error": {"name": "Error", "message": str(error)}})
            return
        facts = {"readonly": connection.readonly, "connectionState": connection.state}
        connection.send_json({"fallthrough": value, **facts})

    @callable_method
    def read(self):
        return self.state

    @callable_method
    def setReadonly(self, connection_id, on):
        self.set_connection_readonly(self.get_connection(connection_id), on)
        return True


class EchoAgent(Noted):
    def on_message(self, connection, message):
        connection.send(message)


class RoomAgent(Noted):
    def on_message(self, connection, message):
        self.broadcast(message)


class ChatAgent(Noted):
    def on_connect(self, connection, ctx):
        if "token" not in ctx.query:
            connection.close(4001, "Unauthorized")
            return
        user = ctx.query.get("userId", "anonymous")
        connection.set_state({"authenticated": True, "userId": user, "role": "user"})

    def on_message(self, connection, message):
        asked = json.loads(message)
        command = asked.get("cmd")
        told = json.dumps({"from": connection.id, "message": asked.get("message")})
        if command == "whoami":
            connection.send_json({"id": connection.id, "state": connection.state})
        elif command == "broadcast":
            self.broadcast(told)
        elif command == "broadcastOthers":
            self.broadcast(told, without=[connection.id])
        elif command == "broadcastWithout":
            self.broadcast(told, without=asked["without"])
        elif command == "broadcastBinary":
            self.broadcast(bytes([1, 2, 3, 255]))
        elif command == "broadcastBuffer":
            self.broadcast(memoryview(b"\x09\x08\x07"))
        else:
            connection.send_json({"received": asked})

    def on_close(self, connection, code, reason, was_clean):
        super().on_close(connection, code, reason, was_clean)
        if connection.state is not None:
            user = connection.state["userId"]
            self.broadcast_json({"event": "user-left", "userId": user}, without=[connection.id])


class CloseAgent(Noted):
    def __init__(self):
        super().__init__()
        self.sent_after = []

    def on_connect(self, connection, ctx):
        if "code" in ctx.query:
            if ctx.query.get("sendFirst"):
                connection.send("before close")
            connection.close(int(ctx.query["code"]), ctx.query.get("reason", ""))

    async def on_message(self, connection, message):
        await asyncio.sleep(json.loads(message)["slowClose"] * TENTH_MS)
        self.sent_after.append(connection.send("too late"))

    def on_close(self, connection, code, reason, was_clean):
        super().on_close(connection, code, reason, was_clean)
        if reason == "override":
            connection.close(4111, "server override")


class SlowAgent(Noted):
    async def on_connect(self, connection, ctx):
        connection.send("connect:start")
        await asyncio.sleep(int(ctx.query.get("wait", 0)) * TENTH_MS)
        connection.send("connect:end")

    async def on_message(self, connection, message):
        asked = json.loads(message)
        connection.send(f"start:{asked['n']}")
        if asked.get("kind") == "block":
            time.sleep(asked["ms"] * TENTH_MS)  # noqa: ASYNC251 - that is what the recorded one did
        elif "ms" in asked:
            await asyncio.sleep(asked["ms"] * TENTH_MS)
        connection.send(f"end:{asked['n']}")

    @callable_method
    async def slow(self, value, ms):
        await asyncio.sleep(ms * TENTH_MS)
        return value


ALL = (
    CounterAgent,
    BareAgent,
    NullStateAgent,
    NoIdentityAgent,
    QuietAgent,
    ReadonlyAgent,
    EchoAgent,
    RoomAgent,
    ChatAgent,
    CloseAgent,
    SlowAgent,
)
