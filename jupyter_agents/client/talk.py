"""A client's inner life: what happens on the connection, turned into futures and listeners' calls.

Promises that listeners and futures see one order of things: first what was answered, then what
ended. What may happen when is `protocol.client_side`'s, the connection is `channel`'s, and
`client` adds what its user calls.

Thread
------
The loop it was started on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Literal

from jupyter_agents.client.address import Destination, agent_slug
from jupyter_agents.client.channel import Channel, Clock
from jupyter_agents.client.inbox import Asked, Inbox, Waiting
from jupyter_agents.client.listeners import Listener, Listeners
from jupyter_agents.client.transport import HandshakeRefused, Opener
from jupyter_agents.errors import AgentNotFound, CallAborted, ConnectionClosed
from jupyter_agents.protocol.client_side import (
    Call,
    CallDone,
    ChunkCame,
    ClientEvent,
    ClientSide,
    Identified,
    Message,
    MessageCame,
    Phase,
    Ready,
    StrayReply,
)
from jupyter_agents.protocol.closing import NORMAL, check_close
from jupyter_agents.protocol.messages import AwayTold, decode
from jupyter_agents.protocol.replica import Settled, StateChanged, StateErrored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.protocol.backoff import ReconnectPolicy

__all__ = ["Talk"]

log = logging.getLogger("jupyter_agents.client")


class Talk(Listeners):
    """One client's talk with one agent instance.

    Parameters
    ----------
    id : str
        The connection's.
    destination : Destination
    side : ClientSide
    policy : ReconnectPolicy
    opener : Opener
    clock : Clock or None
        None is the loop it is started on.
    dice : Callable
    max_received : int
    listeners : Mapping
    """

    def __init__(
        self,
        id: str,  # the wire's word
        destination: Destination,
        *,
        extended: bool,
        policy: ReconnectPolicy,
        opener: Opener,
        clock: Clock | None,
        dice: Callable[[], float],
        max_received: int,
        listeners: Mapping[str, Listener | None],
    ) -> None:
        super().__init__(listeners)
        self.id = id
        self.should_reconnect: Callable[[ConnectionClosed], bool] | None = None
        self.connection_error: ConnectionClosed | None = None
        self.suspended = False
        self._destination = destination
        self._extended = extended
        self._policy = policy
        self._opener = opener
        self._clock = clock
        self._dice = dice
        self._channel: Channel | None = None
        self._side = ClientSide(
            extended=extended,
            max_queued=policy.max_queued,
            max_queued_bytes=policy.max_queued_bytes,
        )
        self._waiting = Waiting(self._forget, max_received)
        self._inbox: Inbox[Message] = Inbox(max_received)
        self._is_read = self._was_warned = False
        self._arrivals: dict[str, asyncio.Future[None]] = {}
        self._failure: Exception | None = None

    # ── Its life ────────────────────────────────────────────────────────────────────────────

    @property
    def ready_state(self) -> Literal["connecting", "open", "closed"]:
        """The connection's; ``"connecting"`` also while waiting to come back."""
        if self._side.phase is Phase.OPEN:
            return "open"
        return "closed" if self._side.phase in (Phase.IDLE, Phase.CLOSED) else "connecting"

    def start(self) -> None:
        """Start to connect, and return at once. Does nothing when it was started before."""
        if self._side.phase is Phase.IDLE:
            self._channel = Channel(self, self._policy, self._opener, self._time(), self._dice)
            self._channel.start()

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close for good: what waits fails, and listeners hear of it, before this returns.

        Raises
        ------
        ValueError
            When the code or the reason cannot be sent.
        """
        check_close(code, reason)
        phase = self._side.phase
        if phase is Phase.CLOSED:
            return
        if self._channel is not None:
            self._channel.stop(code, reason)
        closed = ConnectionClosed(code, reason, was_clean=True, final=True)
        self._finish(closed, closed)
        self._inbox.end()
        if phase is not Phase.IDLE:
            self._fire("close", closed)

    def reconnect(self, code: int = NORMAL, reason: str = "") -> None:
        """Connect anew at once, with all retries; also after `close` or a final end."""
        if self._channel is None:
            self.start()
            return
        phase = self._side.phase
        self._channel.stop(code, reason)
        events = self._side.lost() if phase in (Phase.OPEN, Phase.CONNECTING) else []
        self.connection_error = self._failure = None
        self._inbox.reopen()
        self._channel.start()
        self._dispatch(events)
        if phase is Phase.OPEN:
            self._fire("close", ConnectionClosed(code, reason, was_clean=True))

    async def wait_closed(self) -> None:
        """Return when the closed sockets are gone and listeners' coroutines are done."""
        if self._channel is not None:
            await self._channel.wait_stopped()
        if self._still_running():
            await asyncio.wait(self._still_running())

    def _time(self) -> Clock:
        return self._clock if self._clock is not None else asyncio.get_running_loop()

    async def _arrive(self, at: Literal["open", "ready"]) -> None:
        """Return once there is a connection and it is open or ready; raise if none will be."""
        if self._failure is not None:
            raise self._failure
        if (self._side.phase is Phase.OPEN) if at == "open" else self._side.is_ready:
            return
        arrival = self._arrivals.get(at)
        if arrival is None:
            arrival = self._arrivals[at] = asyncio.get_running_loop().create_future()
        await asyncio.shield(arrival)

    def _arrived(self, at: str, failure: Exception | None = None) -> None:
        arrival = self._arrivals.pop(at, None)
        if arrival is None:
            return
        if failure is None:
            arrival.set_result(None)
        else:
            arrival.set_exception(failure)
            # Whoever waited may be gone: then nobody else needs to hear of it.
            arrival.exception()

    def _finish(self, closed: ConnectionClosed, failure: Exception) -> None:
        """End everything that waits."""
        self._failure = failure
        self._dispatch(self._side.ended(str(closed)))
        for at in ("open", "ready"):
            self._arrived(at, failure)

    # ── The channel tells ───────────────────────────────────────────────────────────────────

    async def where(self) -> tuple[str, Mapping[str, str]]:
        """Give URL and headers for the next attempt."""
        more = {"_pk": self.id, "_ja": "1"} if self._extended else {"_pk": self.id}
        return await self._destination.resolve(more)

    def on_connecting(self) -> None:
        """Note that an attempt starts."""
        self._side.connecting()

    def on_opened(self) -> None:
        """Send what waited, then tell."""
        self.suspended = False
        self._side.opened()
        self._flush()
        self._arrived("open")
        self._fire("open")

    def on_data(self, data: Message) -> None:
        """Take one message."""
        self._dispatch(self._side.received(data))
        self._flush()

    def on_failed(self, error: Exception) -> None:
        """Tell that an attempt failed."""
        self._fire("error", error)

    def may_return(self, closed: ConnectionClosed) -> bool:
        """Ask the user's own rule; one that fails does not keep the client away."""
        if self.should_reconnect is None:
            return True
        try:
            return bool(self.should_reconnect(closed))
        except Exception:
            log.exception("should_reconnect failed")
            return True

    def on_lost(self, closed: ConnectionClosed) -> None:
        """Fail what was under way, then tell."""
        was_open = self._side.phase is Phase.OPEN
        self._dispatch(self._side.lost())
        if was_open:
            self._fire("close", closed)

    def on_ended(self, closed: ConnectionClosed) -> None:
        """Fail everything, then tell."""
        was_open = self._side.phase is Phase.OPEN
        self.connection_error = closed
        self._finish(closed, self._failure_of(closed))
        self._inbox.end(closed)
        if was_open:
            self._fire("close", closed)
        self._fire("connection_error", closed)

    def _failure_of(self, closed: ConnectionClosed) -> Exception:
        """Give the error that says best why there is no connection."""
        cause = closed.__cause__
        if isinstance(cause, HandshakeRefused) and cause.status == 404:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                served = tuple(map(str, decode(cause.body)["agents"]))
                return AgentNotFound(agent_slug(self._destination.agent), served)
        return cause if isinstance(cause, Exception) else closed

    def _check_backlog(self, method: str) -> None:
        if self._is_backlogged():
            raise CallAborted(method, transmitted=False, why="The socket is full")

    def _is_backlogged(self) -> bool:
        return self._in_socket() > self._policy.max_queued_bytes

    def _in_socket(self) -> int:
        transport = None if self._channel is None else self._channel.transport
        return 0 if transport is None else transport.buffered

    # ── What comes of it ────────────────────────────────────────────────────────────────────

    def _flush(self) -> None:
        """Send what may be sent now."""
        frames, events = self._side.take()
        transport = None if self._channel is None else self._channel.transport
        if transport is not None:
            for frame in frames:
                transport.send(frame)
        self._dispatch(events)

    def _forget(self, asked: Asked, timed_out: bool) -> None:
        """Give up what nobody waits for any more."""
        if isinstance(asked, Call):
            self._side.give_up(asked, timed_out=timed_out)
        else:
            self._dispatch([*self._side.replica.give_up(asked)])
        self._flush()

    def _dispatch(self, events: list[ClientEvent]) -> None:
        for event in events:
            self._act(event)

    def _act(self, event: ClientEvent) -> None:
        if isinstance(event, MessageCame):
            self._message(event.data)
        elif isinstance(event, ChunkCame):
            self._waiting.chunk(event.call, event.value)
        elif isinstance(event, CallDone):
            self._waiting.settle(event.call, event.value, event.error)
        elif isinstance(event, StateChanged):
            self._fire("state_update", self._side.replica.state, event.source)
        elif isinstance(event, Settled):
            self._waiting.settle(event.write, event.write.value, event.error)
        elif isinstance(event, StateErrored):
            self._fire("state_update_error", event.text)
        elif isinstance(event, Identified):
            self._identified(event)
        elif isinstance(event, Ready):
            self._arrived("ready")
        elif isinstance(event, AwayTold):
            self.suspended = event.is_away
            self._fire("suspended" if event.is_away else "resumed")
        elif isinstance(event, StrayReply):
            log.warning("An answer of %s came after its time limit", event.method)

    def _identified(self, event: Identified) -> None:
        new, old = event.address, event.previous
        self._fire("identity", new.name, new.agent)
        if old is None:
            return
        if not self._has_listener("identity_change"):
            log.warning("The server now leads to %s instead of %s", new, old)
        self._fire("identity_change", old.name, new.name, old.agent, new.agent)

    def _message(self, data: Message) -> None:
        """Give a message to the listeners, or keep it for a reader."""
        if self._has_listener("message"):
            self._fire("message", data)
            if not self._is_read:
                return
        if not self._inbox.put(data):
            self._inbox.drop_oldest()
            self._inbox.put(data)
            if self._is_read and not self._was_warned:
                self._was_warned = True
                log.warning("Messages come faster than they are read: the oldest are dropped")
