"""One living agent under its address: when its object is made, starts, sleeps, and what it sends.

Everything here runs on the agents' thread; nothing is half done between two turns of its loop. The
other parts of an instance are `hooks` (calling), `door` (connections), `calls` and `sync` (state).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import StateError
from jupyter_agents.host.connection import Connections, to_payload
from jupyter_agents.instance.calls import Calls
from jupyter_agents.instance.door import Door
from jupyter_agents.instance.hooks import Hooks, get_current_agent, outcome
from jupyter_agents.instance.hosted import hand_over
from jupyter_agents.instance.sync import Sync
from jupyter_agents.link.frames import Kind, pack_numbers
from jupyter_agents.protocol import closing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.host import AgentHost, Hosted

__all__ = ["AgentInstance"]

# a member of an enum is slow to find
_TEXT_MANY, _BINARY_MANY = int(Kind.TEXT_MANY), int(Kind.BINARY_MANY)


class AgentInstance:
    """The seat of one agent object.

    Parameters
    ----------
    host : AgentHost
        Whose frames it sends.
    hosted : Hosted
        The class, as it was last served.
    name : str
        The instance's name.
    props : Any
        Handed to `on_start`.
    """

    def __init__(self, host: AgentHost, hosted: Hosted, name: str, props: Any = None) -> None:
        self.host = host
        self.hosted = hosted
        self.name = name
        self.props = props
        self.log = logging.getLogger(f"jupyter_agents.{hosted.agent}")
        self.members: dict[int, Connection] = {}
        self.object: Agent | None = None
        self.started = self.starting = self.has_old_code = False
        self.used_at = host.loop.time()
        self.is_wanted = False
        """Set on any thread: it has been used since `Rest` looked."""
        self._under_way = 0
        self.leaving: asyncio.Future[None] | None = None
        """Done when it sleeps, while `on_stop` runs before that."""
        self.heed_class()
        self._arrivals: list[tuple[Callable[[], None], Callable[[BaseException], None]]] = []
        self._before: Callable[[], Agent | None] = _nothing
        self._cancel_start: Callable[[], object] = _nothing
        self._everyone: bytes | None = None
        self.hooks = Hooks(self, host)
        self.door = Door(self, host)
        self.calls = Calls(self, host)
        self.sync = Sync(self, host)

    # -- life ----------------------------------------------------------------------------------

    @property
    def agent(self) -> Agent:
        """The author's object; made now where there is none."""
        if self.object is None:
            self.object = self._make(self.hosted.cls)
            before, self._before = self._before(), _nothing
            if before is not None:
                self._goes_on(before, self.object)
            self._introduce()
        return self.object

    def _make(self, cls: type[Agent]) -> Agent:
        agent = cls.__new__(cls)
        agent.name = self.name
        agent._instance = self
        self.hooks.context(agent=agent).run(agent.__init__)  # type: ignore[misc]
        self.sync.load_into(agent)
        return agent

    def arrive(self, work: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        """Do `work` once `on_start` has ended; `failed` instead when it raised.

        The next arrival tries again.
        """
        if self.started:
            work()
            return
        self._arrivals.append((work, failed))
        if not self.starting and self.leaving is None:
            self._start()

    def _start(self) -> None:
        self.starting = True
        try:
            agent = self.agent
            context = self.hooks.context()
            self.host.running = agent.on_start
            result = context.run(agent.on_start, self.props)
        except BaseException as error:  # sys.exit(), too, ends but this start
            self._start_ended(self.object, None, error)
            return
        ended = partial(self._start_ended, agent)
        if inspect.isawaitable(result):
            self._cancel_start = self.host.spawn(outcome(result), context, ended)
        else:
            ended(None, None)

    def _start_anew(self) -> None:
        """Have `on_start` run again, now if it was under way."""
        was_starting, self.started, self.starting = self.starting, False, False
        cancel, self._cancel_start = self._cancel_start, _nothing
        cancel()
        if was_starting or self._arrivals:
            self._start()

    def _start_ended(self, agent: Agent | None, value: Any, error: BaseException | None) -> None:
        if agent is not self.object or not self.starting:
            return  # another object has taken its place meanwhile
        self._cancel_start = _nothing
        self.starting = False
        self.started = error is None
        arrivals, self._arrivals = self._arrivals, []
        if error is not None:
            self.hooks.report(None, "on_start", error)
        else:
            self.host.instance_is(self, "awake")
        for work, failed in arrivals:
            if error is None:
                self.host.safely(work)
            else:
                self.host.safely(failed, error)

    def replace_class(self, cls: type[Agent]) -> Callable[[], None]:
        """Make a new object of `cls` with the state and the fields of the old one.

        Call the result to go on with it.

        In two steps, so that a class that fails for one instance replaces it for none.
        """
        old = self.object
        if old is None:
            return self.heed_class
        self.sync.flush()
        new = self._make(cls)
        hand_over(old, new)
        changed = getattr(new, "on_code_changed", None)
        if changed is not None:
            self.hooks.context(agent=new).run(changed, old)

        def adopt() -> None:
            self.object = new
            self._goes_on(old, new)
            self.heed_class()
            if self.starting:
                self._start_anew()
            self._introduce()

        return adopt

    def _introduce(self) -> None:
        """From now on handlers of the connections know this object as theirs."""
        for connection in self.members.values():
            connection._context = self.hooks.context(connection)

    def _goes_on(self, old: Agent, new: Agent) -> None:
        old._kept = new._kept  # what a handler of the old object still sets is not lost
        self.has_old_code = True

    def still_used(self) -> Agent | None:
        """The object; a handler that outlived its sleep keeps the one it has."""
        if self.object is None:
            self.object, self._before = self._before(), _nothing
        return self.object

    def heed_class(self) -> None:
        """Take over what each message asks of the class."""
        self.redelivers = self.hosted.cls.redelivery == "at_least_once"
        self.coroutines: dict[str, bool] = {}

    async def outside(self, work: Callable[[Agent], Any]) -> Any:
        """Do `work` with the started agent for a cell or another agent.

        What it returns is awaited if it must be.
        """
        self._under_way += 1  # as in_use, in less time
        try:
            await self.until_started()
            return await outcome(self.perform(work))
        finally:
            self._under_way -= 1
            self.used_at = self.host.loop.time()

    def at_once(self, work: Callable[[Agent], Any]) -> Any:
        """Do `work` for a caller on the agents' thread, who cannot wait.

        RuntimeError while `on_start` of another agent is under way.
        """
        errors: list[BaseException] = []
        if not self._is_ready():
            self.arrive(lambda: None, errors.append)
        if errors:
            raise errors[0]
        if not self._is_ready():
            raise RuntimeError(
                f"on_start of {self.hosted.cls.__name__} {self.name!r} has not ended; "
                "wait for it with await get_agent_by_name(…)"
            )
        return self.perform(work)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Stay awake meanwhile; for what has no connection."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self.used_at = self.host.loop.time()

    def _is_ready(self) -> bool:
        self.used_at = self.host.loop.time()
        # in its own on_start an agent may use itself, also by a handle
        return self.started or (
            self.object is not None and get_current_agent().agent is self.object
        )

    async def until_started(self) -> None:
        """Return when `on_start` has ended; raises what it raised."""
        if self._is_ready():
            return
        errors: list[BaseException | None] = []
        arrived = asyncio.Event()

        def tell(error: BaseException | None = None) -> None:
            errors.append(error)
            arrived.set()

        self.arrive(tell, tell)
        try:
            await arrived.wait()
        except asyncio.CancelledError:
            with suppress(ValueError):  # who waits no longer is not to be told
                self._arrivals.remove((tell, tell))
            raise
        if errors[0] is not None:
            raise errors[0]

    def perform(self, work: Callable[[Agent], Any]) -> Any:
        """Do `work` with the agent now, in its context, on the agents' thread."""
        agent = self.agent
        self.host.running = work
        return self.hooks.context().run(work, agent)

    @property
    def is_in_use(self) -> bool:
        """Whether somebody waits for it, is served by it without a connection, or is there."""
        return bool(
            self._under_way or self.members or self._arrivals or self.starting or self.leaving
        )

    @property
    def may_be_forgotten(self) -> bool:
        """Whether nothing is left of it but its name and what is stored."""
        return not (self.started or self.is_in_use) and self._before() is None

    def sleep(self) -> None:
        """Let the object go; sockets stay, the next arrival wakes it with its stored state."""
        self.leaving = None
        self.sync.hear()
        self._before = _nothing if self.object is None else weakref.ref(self.object)
        self.object = self.host.running = None
        self._introduce()
        self.host.instance_is(self, "asleep")
        self._start_anew()

    def stop(self) -> None:
        """Run `on_stop`; whoever asked for it closes the connections."""
        self.sync.flush()
        if self.object is not None and self.started:
            self.hooks.call(None, "on_stop")

    def destroy(self) -> None:
        """Drop what is stored and end: see `Agent.destroy`."""
        for connection in list(self.members.values()):
            self.door.close(connection, closing.GOING_AWAY, "The agent was destroyed")
        self.end()
        self.sync.clear()
        self.host.remove(self)

    def end(self) -> None:
        """Save and tell nothing more: what is stored belongs to whoever comes after."""
        self.leaving = None
        self.host.rest.ends(self)
        self.sync.end()
        self._cancel_start()
        error = StateError(f"{self.hosted.cls.__name__} {self.name!r} has ended")
        arrivals, self._arrivals = self._arrivals, []
        for _, failed in arrivals:
            self.host.safely(failed, error)

    def reset(self) -> None:
        """Drop what is stored, keep the connections, and start anew with the initial state."""
        self.sync.clear()
        self.object, self._before = None, _nothing
        self._start_anew()
        self.arrive(self.sync.announce, lambda error: None)

    # -- connections ---------------------------------------------------------------------------

    def enlist(self, connection: Connection) -> None:
        """From now on it is listed and gets broadcasts."""
        connection.ready_state = "open"
        connection.takes_frames = connection.accepted
        self.members[connection.number] = connection
        self._everyone = None
        self.host.event("connect", self, {"connection": connection})

    def delist(self, connection: Connection, ready_state: Any) -> None:
        """From now on it is not."""
        connection.ready_state = ready_state
        connection.takes_frames = False
        if self.members.pop(connection.number, None) is not None:
            self._everyone = None
            self.sync.leave(connection)
            self.host.event("disconnect", self, {"connection": connection})

    def connections(self, tag: str | None = None) -> Connections:
        """A snapshot of the open ones."""
        members = list(self.members.values())
        return Connections([c for c in members if tag is None or tag in c.tags])

    def connection(self, connection_id: str) -> Connection | None:
        """The newest open one with this id."""
        found = [c for c in list(self.members.values()) if c.id == connection_id]
        return found[-1] if found else None

    # -- from any thread -----------------------------------------------------------------------

    def attach(self, connection: Connection, **what: Any) -> None:
        """Have the server's record remember `what`, for when this kernel is gone."""
        self.host.do(self.host.send_object, Kind.ATTACH, connection.number, what)

    def set_flag(self, connection: Connection, name: str, on: bool) -> None:
        """Change a flag that only we see, here and in the server's record."""
        connection.flags[name] = bool(on)
        self.attach(connection, flags=dict(connection.flags))

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """See `Connection.close`."""
        self.host.do(self.door.close, connection, code, reason)

    def post_send(self, connection: Connection, payload: bytes, kind: int) -> bool:
        """`send` from any thread, in order."""
        if connection.ready_state not in ("open", "connecting"):
            return False
        self.host.do(self.send, connection, payload, kind)
        return True

    def broadcast(self, message: Any, without: Iterable[str], tag: str | None) -> None:
        """One message to many; it crosses the link once."""
        if type(message) is str:  # as `to_payload`, in fewer steps
            payload, kind = message.encode("utf-8", "replace"), _TEXT_MANY
        else:
            payload, binary = to_payload(message)
            kind = _BINARY_MANY if binary else _TEXT_MANY
        if without == () and tag is None:
            self.host.do(self._broadcast, payload, kind)
        elif isinstance(without, (str, bytes)):
            raise TypeError("without takes a list of connection ids, not one string")
        else:
            self.host.do(self._broadcast, payload, kind, frozenset(without), tag)

    # -- on the agents' thread -----------------------------------------------------------------

    def send(self, connection: Connection, payload: bytes, kind: int) -> bool:
        """One message to one connection; False when it is closed already."""
        host = self.host
        if connection.takes_frames:
            if self.sync.is_dirty:
                self.sync.flush()
            connection.messages_out += 1
            connection.bytes_out += len(payload)
            host.send(kind, connection.number, payload)
        elif connection.ready_state in ("open", "connecting"):
            self.sync.flush()
            connection.held.append((kind, payload, True))
        else:
            return False
        if host.watched:
            facts = {"connection": connection, "payload": payload, "binary": kind == Kind.BINARY}
            host.event("sent", self, facts)
        return True

    def _broadcast(
        self, payload: bytes, kind: int, left_out: Collection[str] = (), tag: str | None = None
    ) -> None:
        if self.sync.is_dirty:
            self.sync.flush()
        everyone = None if left_out or tag is not None else self._everyone
        if everyone is None:
            everyone = self._choose(payload, kind, left_out, tag)
        host = self.host
        if everyone:
            host.send(kind, len(everyone) // 4, everyone + payload)
        if host.watched:
            facts = {"payload": payload, "binary": kind == _BINARY_MANY}
            host.event("broadcast", self, {**facts, "recipients": len(everyone) // 4})

    def _choose(
        self, payload: bytes, kind: int, left_out: Collection[str], tag: str | None
    ) -> bytes:
        single = Kind.BINARY if kind == _BINARY_MANY else Kind.TEXT
        chosen, waiting = [], False
        for connection in self.members.values():
            if connection.id in left_out or (tag is not None and tag not in connection.tags):
                continue
            if connection.accepted:
                chosen.append(connection.number)
            else:
                waiting = True
                connection.held.append((single, payload, False))
        numbers = pack_numbers(chosen)
        if not waiting and not left_out and tag is None:
            self._everyone = numbers
        return numbers


def _nothing() -> None:
    pass
