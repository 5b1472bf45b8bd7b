"""The host: which classes and instances live in this process, and the frames for them.

On the agents' thread, or on a test's loop; turns and threads are `thread.py`'s. Its other half, in
the server, is `link/relay.py`.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import AgentNotFound, ServeError
from jupyter_agents.host.connection import Connection
from jupyter_agents.host.mirror import Mirrors
from jupyter_agents.host.thread import AgentLoop
from jupyter_agents.instance.hosted import Hosted
from jupyter_agents.instance.instance import AgentInstance
from jupyter_agents.instance.receipts import Receipts
from jupyter_agents.instance.requests import Requests
from jupyter_agents.instance.rest import Rest
from jupyter_agents.instance.tally import Tallies
from jupyter_agents.link.frames import Kind, unpack_object
from jupyter_agents.protocol.names import spellings
from jupyter_agents.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jupyter_agents.host.namespace import Viewer
    from jupyter_agents.host.storage import Storage
    from jupyter_agents.host.uplink import Uplink

__all__ = ["AgentHost", "HostEvent", "HostLimits", "Hosted"]

_log = logging.getLogger("jupyter_agents")
_CLOSED = struct.Struct(">HB")
_LAST_MESSAGE = int(Kind.BINARY)  # a member of an enum takes longer to find than all else here


@dataclass(frozen=True)
class HostLimits:
    """What the agents of one process may use: for ``serve(…, limits=HostLimits(idle_s=60))``.

    ValueError for a number that makes no sense.
    """

    max_running: int = 1_000
    """Handlers of one connection that may be under way (awaiting) at once.

    Then its sender waits.
    """

    inbox_bytes: int = 1024 * 1024
    """Bytes of one connection that may wait for its agent before its sender is made to wait."""

    outbox_bytes: int = 256 * 1024 * 1024
    """Bytes that agents may have sent and the link has not taken.

    Past it a send raises LinkError.
    """

    settle_s: float = 0.1
    """How long a state must be quiet before SDK clients that wrote it are told what holds."""

    stop_s: float = 2.0
    """How long `on_stop` and `on_close` may take when the kernel shuts down, or `on_stop` alone
    when an instance falls asleep."""

    idle_s: float = 600.0
    """How long an instance that nobody uses stays awake; 0 keeps it awake."""

    max_awake: int = 10_000
    """Instances awake at once; past it those fall asleep that nobody has used for longest."""

    max_asleep: int = 10_000
    """Sleeping instances that are remembered.

    Past it those that sleep longest are no longer listed; what is stored of them stays.
    """

    switch_interval_s: float = 0.0
    """How often a cell that computes lets agents run: `sys.setswitchinterval`; 0 leaves it be."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name.endswith(("_s", "_asleep")) else 1
            if not (isinstance(value, (int, float)) and value >= least):
                raise ValueError(f"{name} must be a number from {least} on, not {value!r}")


@dataclass(frozen=True, slots=True)
class HostEvent:
    """Something an observer may show.

    ``connect``, ``message``, ``broadcast``, ``state``, ``call``, ``error``, …
    """

    kind: str
    agent: str
    name: str
    data: dict[str, Any]
    time: float


class AgentHost(AgentLoop):
    """Runs agents on one loop.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Where agents run.
    thread_id : int
        The loop's thread; work from any other is posted.
    limits : HostLimits
        What is bounded.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread_id: int | None = None,
        limits: HostLimits | None = None,
    ) -> None:
        self.limits = limits or HostLimits()
        super().__init__(loop, thread_id, self.limits.outbox_bytes)
        self.classes: dict[str, Hosted] = {}
        self.connections: dict[int, Connection] = {}
        self.mirrors = Mirrors()
        """Handles to tell of a changed state."""
        self.server: dict[str, Any] = {}
        self.watched = self.is_stopping = False
        self.viewer: Viewer | None = None
        self.dropped = 0
        self.receipts = Receipts(self)
        self.rest = Rest(self)
        self.tallies = Tallies(self)
        self.sharing = Sharing(self)
        self._requests = Requests(self)
        self._numbers = count(1)
        self._agreements: dict[int, tuple[Hosted, asyncio.Future[None]]] = {}
        self._offered_again: set[int] = set()
        self._lookers: list[Callable[[], None]] = []
        self._watchers: list[Callable[[HostEvent], None]] = []
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.OPEN: self._open,
            Kind.CLOSED: self._closed,
            Kind.FAILED: self._failed,
            Kind.PROBE: lambda number, payload: self.send(Kind.PROBE, number),
            Kind.REQUEST: self._requests.request,
            Kind.ABANDON: self._requests.abandon,
            Kind.ASK: self._requests.ask,
            Kind.SERVED: self._served,
            Kind.TAKEN: self._taken,
            Kind.TALLY: self.tallies.heed,
            Kind.SHARED: self.sharing.answered,
        }

    # -- frames from the link ------------------------------------------------------------------

    def frames(self, frames: Iterable[tuple[int, int, bytes]]) -> None:
        """Take what one read of the link brought, then end the turn; a bad one harms no other."""
        if self.is_stopping:
            return  # what is not begun waits for the next kernel
        connections = self.connections
        self._turn_planned = True  # as `begin_turn`
        for kind, number, payload in frames:
            try:
                if kind <= _LAST_MESSAGE:
                    connection = connections.get(number)
                    if connection is None:
                        self.dropped += 1
                        continue
                    connection.messages_in += 1
                    connection.bytes_in += len(payload)
                    instance = connection._instance
                    if (
                        # The common case: it is taken now. As nothing of it waits or is under
                        # way, it comes before nothing that came earlier.
                        connection.accepted
                        and instance.started
                        and not (connection.running or connection.inbox)
                    ):
                        instance.door.take(connection, payload, kind == _LAST_MESSAGE)
                    else:
                        instance.door.received(connection, payload, kind == _LAST_MESSAGE)
                else:
                    self._handlers[kind](number, payload)
            except BaseException:  # sys.exit() in what an author wrote must not end every agent
                _log.exception("A frame of kind %s could not be handled", kind)
        self.end_turn()

    def link_up(self, uplink: Uplink, server: dict[str, Any]) -> None:
        """The link stands: say again what is served.

        Another server than before knows none of our connections.
        """
        if server.get("server_id") != self.server.get("server_id"):
            self.receipts.disown_all()
        self.server, self.uplink = server, uplink
        self._offered_again = {self._offer(hosted) for hosted in self.classes.values()}
        for instance in chain(self.rest.awake, self.rest.asleep):
            self._say_how(instance, "awake" if instance.started else "asleep")
        self.lost.tell(_log)

    def link_down(self) -> None:
        """The link is gone; the server keeps the clients meanwhile."""
        self.uplink = None
        self.link_has_room()  # what waited for the link waits no more

    def _open(self, number: int, payload: bytes) -> None:
        about = unpack_object(payload)
        if self.receipts.answer_returning(number, about):
            return  # the link broke for a moment, this process and the connection lived on
        hosted = self.classes.get(about["agent"])
        if hosted is None:
            return  # withdrawn meanwhile: the server closes it
        instance = self.instance(hosted, about["name"])
        connection = Connection(
            instance,
            number,
            about["id"],
            about["request"],
            extended=bool(about.get("extended")),
            opened_at=float(about.get("opened_at") or 0),
            readonly=bool(about.get("readonly")),
        )
        self.receipts.mark_for(connection, about)
        self.connections[number] = connection
        instance.door.opened(
            connection, about.get("attached") or {}, resumed=bool(about.get("resumed"))
        )

    def _closed(self, number: int, payload: bytes) -> None:
        connection = self.connections.pop(number, None)
        if connection is not None:
            code, was_clean = _CLOSED.unpack_from(payload)
            reason = payload[_CLOSED.size :].decode("utf-8", "replace")
            connection._instance.door.closed(connection, code, reason, bool(was_clean))
        for look in self._lookers:
            look()

    def _failed(self, number: int, payload: bytes) -> None:
        connection = self.connections.get(number)
        if connection is not None:
            connection._instance.door.failed(connection, payload.decode("utf-8", "replace"))

    def _offer(self, hosted: Hosted) -> int:
        number, agreed = next(self._numbers), self.loop.create_future()
        self._agreements[number] = hosted, agreed
        agreed.add_done_callback(lambda f: f.cancelled() or f.exception())
        is_returning = any(c._instance.hosted is hosted for c in self.connections.values())
        wish = {
            **hosted.registration(),
            **self.receipts.word(hosted.cls),
            "returning": is_returning,
        }
        self.send_object(Kind.SERVE, number, wish)
        return number

    def _served(self, number: int, payload: bytes) -> None:
        hosted, agreed = self._agreements.pop(number)
        word = unpack_object(payload)
        error, known = word.get("error"), word.get("known")
        if known is not None:
            self.receipts.disown_all(but=frozenset(known), of=hosted)
        if error is not None:
            _log.warning("%s is not served: %s", hosted.cls.__name__, error)
            if not hosted.instances:
                self.classes.pop(hosted.agent, None)
            elif number in self._offered_again:
                self._lost(hosted)  # another kernel serves it since the link broke
        if agreed.done():
            return
        if error is None:
            agreed.set_result(None)
        else:
            agreed.set_exception(ServeError(str(error)))

    def _taken(self, number: int, payload: bytes) -> None:
        agent = str(unpack_object(payload)["agent"])
        hosted = self.classes.pop(agent, None)
        if hosted is None:
            return
        _log.warning("%s was taken over by another kernel", hosted.cls.__name__)
        self._lost(hosted)

    def _lost(self, hosted: Hosted) -> None:
        self.classes.pop(hosted.agent, None)
        for number, connection in list(self.connections.items()):
            if connection._instance.hosted is hosted:
                del self.connections[number]
                connection._instance.delist(connection, "closed")
        for instance in list(hosted.instances.values()):
            instance.end()  # first: what is stored is the other kernel's now
            instance.stop()
        self._close_unused(hosted.storage)

    async def emptied(self, instances: Iterable[AgentInstance]) -> None:
        """Return when the clients of these are gone, or after the time limit for stopping."""
        left = set(instances)
        emptied = asyncio.Event()

        def look() -> None:
            if not any(c._instance in left for c in self.connections.values()):
                emptied.set()

        self._lookers.append(look)
        look()
        try:
            await asyncio.wait_for(emptied.wait(), self.limits.stop_s)
        except (asyncio.TimeoutError, TimeoutError):
            _log.warning("Clients did not go in time")
        finally:
            self._lookers.remove(look)

    def set_limits(self, limits: HostLimits) -> None:
        """Bound by these from now on."""
        self.limits, self._outbox_limit = limits, limits.outbox_bytes
        self.rest.plan()

    # -- classes -------------------------------------------------------------------------------

    async def serve(self, hosted: Hosted) -> None:
        """Take a class in, or its new code; returns when the server agreed.

        Raises
        ------
        ServeError
            When the server did not; what was served before goes on.
        """
        number = self.take(hosted)
        await self._agreements[number][1]

    def take(self, hosted: Hosted) -> int:
        """Take a class in without waiting for the server."""
        known = self.classes.get(hosted.agent)
        hosted.check_spellings(self.classes.values())
        if known is not None:
            self._close_unused(known.renew(hosted))
            hosted = known
        self.classes[hosted.agent] = hosted
        return self._offer(hosted)

    async def withdraw(self, agent: str, reason: str = "The agent was stopped") -> None:
        """Serve a class no longer: clients are closed with 1001, `on_close` and `on_stop` run."""
        hosted = self.classes.pop(agent, None)
        if hosted is None:
            return
        self.send_object(Kind.WITHDRAW, 0, {"agent": agent, "reason": reason})
        await self.emptied(hosted.instances.values())
        for instance in list(hosted.instances.values()):
            instance.stop()
        await self.idle()
        for instance in hosted.instances.values():
            instance.end()
        self._close_unused(hosted.storage)

    def _close_unused(self, storage: Storage | None) -> None:
        """Let go of a file that no class is stored in any more; its next use opens it again."""
        if storage is not None and all(h.storage is not storage for h in self.classes.values()):
            self.safely(storage.close)

    def find(self, agent: str | type) -> Hosted:
        """The class served under this spelling, or this very class; LookupError otherwise."""
        for hosted in self.classes.values():
            if hosted.cls is agent or agent in hosted.spellings:
                return hosted
        if isinstance(agent, type):
            return self.find(spellings(agent.__name__)[0])
        raise AgentNotFound(str(agent), tuple(self.classes))

    def instance(self, hosted: Hosted, name: str, props: Any = None) -> AgentInstance:
        """The instance of this name, taken in on first use; it starts with its first arrival."""
        instance = hosted.instances.get(name)
        if instance is None:
            instance = hosted.instances[name] = AgentInstance(self, hosted, name, props)
            self.rest.sleeps(instance)
        elif props is not None and not instance.started:
            instance.props = props
        return instance

    def remove(self, instance: AgentInstance) -> None:
        """The instance has ended; its name is free."""
        if instance.hosted.instances.get(instance.name) is instance:
            del instance.hosted.instances[instance.name]
        self.instance_is(instance, "gone")

    def instance_is(self, instance: AgentInstance, state: str) -> None:
        """Let the server and observers know that an instance woke, fell asleep or ended."""
        {"awake": self.rest.wakes, "asleep": self.rest.sleeps, "gone": self.rest.ends}[state](
            instance
        )
        self._say_how(instance, state)
        self.event("instance", instance, {"state": state})

    def _say_how(self, instance: AgentInstance, state: str) -> None:
        word = {"agent": instance.hosted.agent, "name": instance.name, "state": state}
        self.send_object(Kind.INSTANCE, 0, word)

    # -- watching and ending -------------------------------------------------------------------

    def watch(self, listener: Callable[[HostEvent], None]) -> Callable[[], None]:
        """Hear of everything, on the agents' thread; returns what ends it.

        Costs nothing while nobody does.
        """
        self._watchers.append(listener)
        self.watched = True

        def unwatch() -> None:
            if listener in self._watchers:
                self._watchers.remove(listener)
            self.watched = bool(self._watchers)

        return unwatch

    def event(self, kind: str, instance: AgentInstance, data: dict[str, Any]) -> None:
        """Tell the watchers; one that fails is heard no more."""
        if not self.watched:
            return
        event = HostEvent(kind, instance.hosted.agent, instance.name, data, self.loop.time())
        for listener in list(self._watchers):
            try:
                listener(event)
            except Exception:
                _log.exception("A listener of the agents' host failed and is removed")
                self._watchers.remove(listener)

    async def idle(self) -> None:
        """Return when no handler is under way, or after the time limit for stopping."""
        tasks = {t for t in self.tasks if t is not asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=self.limits.stop_s)

    async def stop(self) -> None:
        """The kernel goes: `on_stop` runs everywhere, within its time limit, and all is saved."""
        self.is_stopping = True
        for hosted in self.classes.values():
            for instance in list(hosted.instances.values()):
                instance.stop()
        await self.idle()
        self.end_turn()
        for storage in {hosted.storage for hosted in self.classes.values()}:
            self.safely(storage.close)
        self.refuse_work()
