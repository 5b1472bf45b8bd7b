"""How connections come to an instance, talk to it, and go.

Life of a connection here::

    opened ─▶ (on_start) ─▶ tags, flags, on_connect ─▶ accepted ─▶ closed ─▶ on_close, once
       │                          │                       │
       └─ gone before: no hook    └─ raised: 1011         └─ identity, state, what was held,
                                                             then its messages

No message reaches the agent before `on_connect` has ended; what the agent sends meanwhile is held
and follows the protocol frames. A refused visitor gets what the agent sent to it, and the close.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import RemoteProtocolError
from jupyter_agents.link.frames import Kind
from jupyter_agents.protocol import closing, messages
from jupyter_agents.protocol.messages import FRAME_STARTS
from jupyter_agents.protocol.names import check_tags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.instance.instance import AgentInstance

__all__ = ["Door"]


class Door:
    """The connections of one instance, from their coming to their going."""

    def __init__(self, instance: AgentInstance, host: AgentHost) -> None:
        self._instance = instance
        self._host = host
        self._left_early: set[int] = set()  # while on_connect ran

    # -- coming --------------------------------------------------------------------------------

    def opened(self, connection: Connection, attached: dict[str, Any], *, resumed: bool) -> None:
        """A socket opened, or is handed over again after the kernel was away."""
        connection.recall(attached)
        if resumed:
            connection.accepted = connection.connect_ran = connection.greeted = True
            self._instance.enlist(connection)
            self._instance.sync.join(connection)
            self._instance.arrive(
                partial(self._resumed, connection), partial(self._lose, connection)
            )
        else:
            self._instance.arrive(
                partial(self._welcome, connection), partial(self._turn_away, connection)
            )

    def returned(self, connection: Connection) -> None:
        """The link is back: say again what was lost while it was down."""
        if connection.ready_state == "closing":
            self._host.send(Kind.CLOSE, connection.number, connection.shut_with)
        elif connection.accepted and connection.ready_state == "open":
            self._instance.sync.resume(connection)
        if connection.held_back:
            self._host.send(Kind.HOLD, connection.number)

    def _resumed(self, connection: Connection) -> None:
        self._refresh(connection)
        self._instance.sync.resume(connection)
        self.drain(connection)

    def _turn_away(self, connection: Connection, error: BaseException) -> None:
        self.shut(connection, closing.INTERNAL_ERROR, "Internal error")

    def _refresh(self, connection: Connection) -> None:
        connection._context = self._instance.hooks.context(connection)

    def _welcome(self, connection: Connection) -> None:
        if connection.ready_state != "connecting":
            return
        self._refresh(connection)
        self._instance.enlist(connection)
        connection.connect_ran = True
        steps, context = self._greeting(connection), connection._context.copy()
        try:
            waits_for = context.run(_advance, steps)
        except BaseException as error:  # sys.exit() in a hook must not end every agent
            self._greeted(connection, None, error)
            return
        if waits_for is None:
            self._greeted(connection, None, None)
        else:
            ended = partial(self._greeted, connection)
            self._host.spawn(_finish(steps, waits_for), context, ended)

    def _greeting(self, connection: Connection) -> Generator[Any, Any, None]:
        """The hooks of who comes, one by one: yields what each returned, is sent what it meant."""
        agent, ctx = self._instance.agent, connection.ctx
        tags = yield agent.get_connection_tags(connection, ctx)
        connection.tags = check_tags(connection.id, tags)
        readonly = yield agent.should_connection_be_readonly(connection, ctx)
        protocol = yield agent.should_send_protocol_messages(connection, ctx)
        # a link for looking only stays one, whatever the hook says
        readonly = connection.readonly or bool(readonly)
        connection.flags.update(readonly=readonly, protocol=bool(protocol))
        self._host.running = agent.on_connect
        yield agent.on_connect(connection, ctx)

    def _greeted(self, connection: Connection, value: Any, error: BaseException | None) -> None:
        connection.greeted = True
        left_early = connection.number in self._left_early
        self._left_early.discard(connection.number)
        if error is not None:
            self._instance.hooks.report(connection, "on_connect", error)
            self.shut(connection, closing.INTERNAL_ERROR, "Internal error")
        elif left_early:
            self.drain(connection)  # it came, spoke and went: it is heard
        if connection.ready_state == "open":
            self._accept(connection)
        elif connection.ending is not None:
            self._say_goodbye(connection)

    def _accept(self, connection: Connection) -> None:
        self._host.send_object(Kind.ATTACH, connection.number, connection.attachment())
        self._instance.sync.join(connection)
        connection.accepted = connection.takes_frames = True
        for kind, payload in self._instance.sync.greeting(connection):
            self._host.send(kind, connection.number, payload)
        for kind, payload, _own in connection.take_held():
            self._host.send(kind, connection.number, payload)
        self.drain(connection)

    # -- talking -------------------------------------------------------------------------------

    def received(self, connection: Connection, payload: bytes, binary: bool) -> None:
        """One message came; it is handled now, or waits for `on_start` and `on_connect`.

        The host calls `take` where it is plain that nothing has to be waited for.
        """
        if (
            self._may_take(connection)
            and not connection.inbox
            and (
                connection.latest <= self._host.under_way.begun
                or self._begins_later(connection, payload, binary)
            )
        ):
            self.take(connection, payload, binary)
            return
        connection.keep(payload, binary)
        self.mind(connection)
        if connection.accepted and not self._instance.started and len(connection.inbox) == 1:
            self._wake_for(connection)

    def _may_take(self, connection: Connection) -> bool:
        return (
            connection.accepted
            and self._instance.started
            and connection.running < self._host.limits.max_running
        )

    def _wake_for(self, connection: Connection) -> None:
        self._instance.arrive(partial(self.drain, connection), partial(self._lose, connection))

    def _lose(self, connection: Connection, error: BaseException) -> None:
        self._host.receipts.drop(connection)
        self.mind(connection)

    def drain(self, connection: Connection) -> None:
        """Handle what waits, as far as the limit on running handlers allows.

        Then the close, if it came.

        A close lifts the limit: `on_close` need not wait for a handler that hangs.
        """
        limit = self._host.limits.max_running
        while connection.inbox and (connection.running < limit or connection.ending is not None):
            if self._is_early(connection, *connection.inbox[0]):
                return
            self.take(connection, *connection.next_kept())
        if connection.held_back:
            self.mind(connection)
        if (
            connection.ending is not None
            and not connection.inbox
            and not self._is_early(connection, None)
        ):
            self._say_goodbye(connection)

    def _is_early(
        self, connection: Connection, payload: bytes | None, binary: bool = False
    ) -> bool:
        """Whether this would begin before something that came earlier; it is drained soon then.

        A coroutine begins with the loop's next turn, plain code at once.
        """
        if connection.latest <= self._host.under_way.begun:
            return False
        if payload is not None and self._begins_later(connection, payload, binary):
            return False
        if not connection.is_drained_soon:
            connection.is_drained_soon = True
            self._host.loop.call_soon(self._drain_now, connection)
        return True

    def _drain_now(self, connection: Connection) -> None:
        connection.is_drained_soon = False
        if self._host.is_stopping:
            return  # what is not begun waits for the next kernel
        self._host.begin_turn()
        self._host.safely(self.drain if self._instance.started else self._wake_for, connection)
        if connection.number not in self._host.connections:
            self._host.send(Kind.PROBE, connection.number)  # the server looked too early
        self._host.end_turn()

    def _begins_later(self, connection: Connection, payload: bytes, binary: bool) -> bool:
        """Whether it will be a task, too, which begins after those that are there."""
        name = "on_message"
        if not binary and b'"type"' in payload:
            text = payload.decode("utf-8", "replace")
            frame = messages.read_client_frame(text, extended=connection.extended)
            if isinstance(frame, messages.CallReceived):
                name = frame.method
            elif frame is not None:
                return False
        known = self._instance.coroutines
        return known[name] if name in known else self._is_coroutine(name)

    def _is_coroutine(self, name: str) -> bool:
        function = getattr(self._instance.hosted.cls, name, None)
        found = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        if function is not None:  # a client may name what is not there
            self._instance.coroutines[name] = found
        return found

    def mind(self, connection: Connection) -> None:
        """Keep the balance of one connection.

        Stop its sender while its agent is behind, let it go on after.
        """
        limits = self._host.limits
        if connection.inbox and self._may_take(connection):
            self._host.later(self.drain, connection)
        behind = (
            connection.inbox_bytes > limits.inbox_bytes or connection.running >= limits.max_running
        )
        if behind and not connection.held_back:
            connection.held_back = True
            self._host.send(Kind.HOLD, connection.number)
        elif connection.held_back and not behind and not connection.inbox:
            connection.held_back = False
            self._host.send(Kind.RELEASE, connection.number)

    def take(self, connection: Connection, payload: bytes, binary: bool) -> None:
        """Handle one message now: a frame of ours, or the author's `on_message`."""
        instance, host = self._instance, self._host
        ordinal = connection.taken = connection.taken + 1
        if instance.redelivers:
            connection.current = ordinal
        else:
            connection.marks[connection.slot] = ordinal
        try:
            message: str | bytes
            if binary:
                message = payload
            else:
                message = payload.decode("utf-8", "replace")
                if message[:1] in FRAME_STARTS and self._is_ours(connection, message):
                    return
            if host.watched:
                facts = {"connection": connection, "message": message}
                host.event("message", instance, facts)
            # as `Hooks.run`, in fewer steps: nothing is called as often as this
            agent = instance.object
            if agent is None:
                agent = instance.agent
            host.running = function = agent.on_message
            context = connection._context
            try:
                result = context.run(function, connection, message)
            except BaseException as error:
                instance.hooks.report(connection, "on_message", error)
            else:
                if result is not None:
                    instance.hooks.go_on(connection, context, "on_message", result)
        finally:
            if connection.current:
                connection.current = 0
                host.receipts.end(connection, ordinal)

    def _is_ours(self, connection: Connection, message: str) -> bool:
        frame = messages.read_client_frame(message, extended=connection.extended)
        if frame is None:
            return False
        instance = self._instance
        if isinstance(frame, messages.CallReceived):
            instance.calls.start(connection, frame)
        elif isinstance(frame, messages.StateReceived):
            instance.sync.client_write(connection, frame)
        elif isinstance(frame, messages.CancelReceived):
            instance.calls.cancel(connection, frame.id)
        elif isinstance(frame, messages.StateWanted):
            instance.sync.whole(connection)
        else:
            instance.calls.refuse(connection, frame)
            return False
        return True

    # -- going ---------------------------------------------------------------------------------

    def failed(self, connection: Connection, text: str) -> None:
        """The client broke a rule of the wire; the close follows."""
        if self._instance.started:
            self._instance.hooks.report(connection, "the client", RemoteProtocolError(text))

    def closed(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        """The socket is gone.

        `on_close` runs once if `on_connect` did, after the messages that came before.
        """
        connection.ending = (code, reason, was_clean)
        if connection.ready_state == "open" and not connection.greeted:
            self._left_early.add(connection.number)
        self._instance.delist(connection, "closed")
        self._instance.calls.disconnected(connection)
        if not connection.connect_ran:
            self._host.receipts.drop(connection)
        elif not self._instance.started:
            self._wake_for(connection)
        elif connection.accepted:
            self.drain(connection)
        elif connection.greeted:
            self._say_goodbye(connection)

    def _say_goodbye(self, connection: Connection) -> None:
        ending, connection.ending = connection.ending, None
        if ending is None:
            return
        self._refresh(connection)
        receipts = self._host.receipts
        receipts.drop(connection)
        ordinal = connection.taken = connection.taken + 1
        if self._instance.redelivers:
            connection.current = ordinal
        else:
            connection.marks[connection.slot] = ordinal
        self._instance.hooks.call(connection, "on_close", connection, *ending)
        self._host.later(connection.let_go)  # after the hooks that this turn still owes it
        if connection.current:
            connection.current = 0
            receipts.end(connection, ordinal)

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """Close from this side; the first close wins, and what was sent before goes out before."""
        if connection.ready_state not in ("connecting", "open"):
            return
        self._instance.sync.flush()
        for kind, payload, own in connection.take_held():
            if own:
                self._host.send(kind, connection.number, payload)
        self.shut(connection, code, reason)

    def shut(self, connection: Connection, code: int, reason: str) -> None:
        """The close frame itself; the connection is no longer listed."""
        if connection.ready_state in ("connecting", "open"):
            self._instance.delist(connection, "closing")
            connection.shut_with = code.to_bytes(2, "big") + reason.encode()
            self._host.send(Kind.CLOSE, connection.number, connection.shut_with)


def _advance(steps: Generator[Any, Any, None], value: Any = None) -> Awaitable[Any] | None:
    """Go on until something has to be awaited; None at the end."""
    try:
        while True:
            value = steps.send(value)
            if value is not None and inspect.isawaitable(value):
                return value
    except StopIteration:
        return None


async def _finish(steps: Generator[Any, Any, None], waits_for: Awaitable[Any] | None) -> None:
    while waits_for is not None:
        waits_for = _advance(steps, await waits_for)
