"""Calls of an instance's methods by its clients.

Each answered by its id, overlapping, cancellable.

Binding and checking of arguments is `host/callables.py`; here is who waits for what.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_agents.host.callables import CallRefused, start_call
from jupyter_agents.link.frames import Kind
from jupyter_agents.protocol import messages
from jupyter_agents.protocol.messages import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.instance.instance import AgentInstance

__all__ = ["CallReply", "Calls"]

_TEXT = int(Kind.TEXT)  # a member of an enum is slow to find


class CallReply:
    """One call's way back to its caller; `False` means that nobody is there to hear it."""

    __slots__ = ("_connection", "_host", "_instance", "_seq", "id", "is_over")

    def __init__(
        self, instance: AgentInstance, host: AgentHost, connection: Connection, call_id: str
    ) -> None:
        self._instance = instance
        self._host = host
        self._connection = connection
        self._seq = 0
        self.id = call_id
        self.is_over = False

    def chunk(self, value: Any) -> bool:
        """One part of a stream."""
        if not self._is_heard():
            return False
        seq = self._seq if self._connection.extended else None
        self._send(messages.rpc_result(self.id, value, done=False, seq=seq))
        self._seq += 1
        return True

    def done(self, value: Any = MISSING) -> bool:
        """The end, with or without a result."""
        if not self._is_heard():
            return False
        payload = messages.rpc_result(self.id, value)
        self.is_over = True
        self._send(payload)
        return True

    def fail(self, text: str, data: Any = None) -> bool:
        """The end, by an error."""
        if not self._is_heard():
            return False
        payload = messages.rpc_error(self.id, text, data)
        self.is_over = True
        self._send(payload)
        return True

    async def drain(self) -> None:
        """Wait until the link takes more."""
        await self._host.drained()

    def _is_heard(self) -> bool:
        return not self.is_over and self._connection.ready_state == "open"

    def _send(self, payload: bytes) -> None:
        sync, connection = self._instance.sync, self._connection
        if sync.is_dirty:
            sync.flush()
        connection.messages_out += 1
        connection.bytes_out += len(payload)
        self._host.send(_TEXT, connection.number, payload)


class Calls:
    """The calls under way at one instance."""

    def __init__(self, instance: AgentInstance, host: AgentHost) -> None:
        self._instance = instance
        self._host = host
        self._cancels: dict[tuple[int, str], Callable[[], object]] = {}

    def start(self, connection: Connection, call: messages.CallReceived) -> None:
        """Answer a call now, or make the rest of it a task."""
        reply = CallReply(self._instance, self._host, connection, call.id)
        agent = self._instance.agent
        began = time.monotonic()
        self._host.running = partial(_named, call.method)
        if self._host.watched:
            facts = {"connection": connection, "id": call.id, "method": call.method}
            self._host.event("call", self._instance, {**facts, "args": call.args})
        rest = connection._context.run(start_call, agent, call.method, call.args, reply)
        if rest is not None and inspect.iscoroutine(rest):
            self._go_on(connection, call, reply, rest, began)
        else:
            self._answered(connection, call, began, rest)  # type: ignore[arg-type]

    def _go_on(
        self,
        connection: Connection,
        call: messages.CallReceived,
        reply: CallReply,
        rest: Any,
        began: float,
    ) -> None:
        key = (connection.number, call.id)
        connection.running += 1  # AgentHost.frames looks here whether something is under way
        ordinal = self._host.receipts.postpone(connection)
        timers: list[asyncio.TimerHandle] = []

        def ended(outcome: Any, error: BaseException | None) -> None:
            for timer in timers:
                timer.cancel()
            if self._cancels.get(key) is cancel:
                del self._cancels[key]
            connection.running -= 1
            if connection.held_back:
                self._instance.door.mind(connection)
            self._answered(connection, call, began, error or outcome)
            self._host.receipts.end(connection, ordinal)

        cancel = self._host.spawn(rest, connection._context, ended)
        connection.latest = self._host.under_way.spawned
        self._cancels[key] = cancel
        if call.deadline_ms is not None and connection.extended:
            seconds = call.deadline_ms / 1000
            timer = self._host.loop.call_later(seconds, self._too_late, reply, call, cancel)
            timers.append(timer)

    def _too_late(
        self, reply: CallReply, call: messages.CallReceived, cancel: Callable[[], object]
    ) -> None:
        reply.fail(f"{call.method} did not end within {call.deadline_ms:g} ms")
        cancel()

    def _answered(
        self,
        connection: Connection,
        call: messages.CallReceived,
        began: float,
        error: BaseException | None,
    ) -> None:
        if self._host.watched:
            facts = {"connection": connection, "id": call.id, "method": call.method}
            seconds = time.monotonic() - began
            self._host.event(
                "answer", self._instance, {**facts, "error": error, "seconds": seconds}
            )
        if self._host.tallies.is_on:
            self._host.tallies.call(self._instance, call.method, error)
        if error is not None and not isinstance(error, (CallRefused, asyncio.CancelledError)):
            self._instance.hooks.report(connection, call.method, error)

    def refuse(self, connection: Connection, call: messages.CallMalformed) -> None:
        """Answer a call that cannot be made (the SDK leaves its caller waiting)."""
        CallReply(self._instance, self._host, connection, call.id).fail(call.text)

    def cancel(self, connection: Connection, call_id: str) -> None:
        """The caller gave it up: CancelledError in the method."""
        cancel = self._cancels.get((connection.number, call_id))
        if cancel is not None:
            cancel()

    def disconnected(self, connection: Connection) -> None:
        """The caller is gone; its calls run on unless the class wants them cancelled."""
        if self._instance.hosted.cls.cancel_on_disconnect:
            for (number, _), cancel in list(self._cancels.items()):
                if number == connection.number:
                    cancel()


def _named(method: str) -> str:
    return method
