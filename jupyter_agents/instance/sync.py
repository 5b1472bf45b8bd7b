"""The telling of an instance's state: saved first, then sent, before any later message.

The state itself, its rules and its value are `host/state.py`; which frame goes to whom is
`protocol/agent_side.py`. Here is *when*: changes within one uninterrupted stretch of agent code
travel as one frame, `flush` is called before anything else of this instance is sent, and the
storage's transaction is committed before the frames leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import ConnectionReadonly, LinkError, StateError, StateRejected
from jupyter_agents.host.state import (
    Stateful,
    apply_client_state,
    has_view,
    load_state,
    snapshot_json,
    snapshot_private_json,
    snapshot_value,
    state_version,
)
from jupyter_agents.host.storage import StoredInstance
from jupyter_agents.instance.hooks import Serving, current
from jupyter_agents.link.frames import Kind, pack_numbers
from jupyter_agents.protocol import messages
from jupyter_agents.protocol.agent_side import AgentSide, Snapshot
from jupyter_agents.protocol.messages import MISSING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.host.state import Source
    from jupyter_agents.host.storage import Storage
    from jupyter_agents.instance.instance import AgentInstance
    from jupyter_agents.protocol.agent_side import Outgoing

__all__ = ["Sync"]

MAX_WRITES = 16
"""How many of a connection's writes are remembered as applied, should they be offered again."""


class Sync:
    """What `host.state.StateHost` asks for, for one instance."""

    def __init__(self, instance: AgentInstance, host: AgentHost) -> None:
        self._instance = instance
        self._host = host
        self._side = AgentSide(instance.hosted.agent, instance.name)
        self.is_dirty = self._is_following = self._is_over = False
        self._least_version = 0
        self._writer: int | None = None
        self._heard: list[tuple[Any, Source]] = []
        self._settling: asyncio.TimerHandle | None = None

    # -- asked by host/state.py ----------------------------------------------------------------

    def may_write(self, source: Source) -> None:
        """Raise ConnectionReadonly where this source may only look."""
        self._instance.still_used()
        connection = current.get(Serving()).connection if source == "server" else source
        if connection is None or connection.agent is not self._instance.object:
            return
        if connection.readonly:
            raise ConnectionReadonly(connection.id)

    def changed(self, source: Source, sent: Any = MISSING) -> None:
        """A new state is kept.

        It is saved and told at the next flush, and `on_state_changed` runs after that.
        """
        if self._is_over or self._is_following:
            return
        self._instance.still_used()
        if self._instance.has_old_code:
            self._follow()
        is_only_change = not self.is_dirty
        self._writer = source.number if source != "server" and is_only_change else None
        self.is_dirty = True
        agent = self._instance.object
        if agent is not None:
            self._heard.append((agent.state if _hears(agent) else MISSING, source))
        self._host.later(self.hear)

    def _follow(self) -> None:
        agent = self._instance.object
        if agent is not None and agent._state_fields:
            self._is_following = True
            try:
                agent._follow()
            finally:
                self._is_following = False
            agent._kept.json, agent._kept.live = agent._fields_json(), MISSING

    def cleared(self) -> None:
        """What was stored is unreadable, and nothing takes its place."""
        storage = self._instance.hosted.storage
        storage.save(self._instance.hosted.agent, self._instance.name, state_json=None, version=0)
        self._host.touched(storage)

    def private_changed(self) -> None:
        """The private state is saved with this turn."""
        if self._is_over:
            return
        self._instance.still_used()
        agent, storage = self._instance.agent, self._instance.hosted.storage
        packed = snapshot_private_json(agent)
        storage.save_private(self._instance.hosted.agent, self._instance.name, private_json=packed)
        self._host.touched(storage)

    def hear(self) -> None:
        """Tell what changed, and have the author's hook hear of it."""
        self.flush()
        heard, self._heard = self._heard, []
        for state, source in heard:
            if state is not MISSING:
                connection = None if source == "server" else source
                self._instance.hooks.call(connection, "on_state_changed", state, source)

    # -- waking and forgetting -----------------------------------------------------------------

    def load_into(self, agent: Agent) -> None:
        """Give a new object the stored state, or have it keep its initial one."""
        agent._state_host = self
        hosted = self._instance.hosted
        stored = hosted.storage.load(hosted.agent, self._instance.name)
        # after a reset a version must not come again: clients write on the one that they hold
        version = max(stored.version, self._least_version)
        load_state(agent, stored._replace(version=version))

    def move_from(self, left: Storage) -> None:
        """Another place keeps the instance from now on: bring along what is kept."""
        hosted, name, agent = self._instance.hosted, self._instance.name, self._instance.object
        try:
            if agent is None:
                kept = left.load(hosted.agent, name)
            else:
                private, version = snapshot_private_json(agent), state_version(agent)
                kept = StoredInstance(snapshot_json(agent), version, private)
        except StateError as error:  # perhaps why another place was chosen
            self._instance.log.error("%r stays where it was stored: %s", name, error)
            return
        storage = hosted.storage
        if kept.state_json is not None:
            storage.save(hosted.agent, name, state_json=kept.state_json, version=kept.version)
        if kept.private_json is not None:
            storage.save_private(hosted.agent, name, private_json=kept.private_json)
        self._host.touched(storage)

    def clear(self) -> None:
        """Drop everything stored."""
        self.is_dirty, self._heard = False, []
        hosted = self._instance.hosted
        if self._instance.object is not None:
            self._least_version = state_version(self._instance.object)
        hosted.storage.clear(hosted.agent, self._instance.name)
        self._host.touched(hosted.storage)
        self._host.mirrors.tell(hosted.agent, self._instance.name, None)

    def end(self) -> None:
        """From now on save and tell nothing."""
        self._is_over = True

    def announce(self) -> None:
        """Tell everyone the state as it is."""
        self.is_dirty = snapshot_json(self._instance.agent) is not None
        self.flush()

    # -- telling -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Save and tell the state if it changed since.

        Nothing of this instance may be sent before.
        """
        if not self.is_dirty or self._is_over:
            return
        self.is_dirty = False
        agent, hosted = self._instance.agent, self._instance.hosted
        snapshot = self._snapshot(agent)
        if snapshot is None:
            return
        hosted.storage.save(
            hosted.agent, self._instance.name, state_json=snapshot.json, version=snapshot.version
        )
        self._host.touched(hosted.storage)
        self._tell(self._side.tell(snapshot, writer=self._writer, views=self._views(agent)))
        self._writer = None
        self._settle_later()
        self._host.mirrors.tell(hosted.agent, self._instance.name, snapshot.json)
        if self._host.watched or self._host.tallies.is_on:
            source = self._heard[-1][1] if self._heard else "server"
            if self._host.tallies.is_on:
                self._host.tallies.state(self._instance, snapshot.version, source)
            facts = {"state": snapshot_value(agent), "version": snapshot.version, "source": source}
            self._host.event("state", self._instance, facts)

    def _snapshot(self, agent: Agent) -> Snapshot | None:
        packed = snapshot_json(agent)
        return None if packed is None else Snapshot(version=state_version(agent), json=packed)

    def mirrored(self) -> bytes | None:
        """The state as JSON, for a handle."""
        agent = self._instance.agent
        self.flush()
        return snapshot_json(agent)

    def _views(self, agent: Agent) -> Any:
        if not has_view(agent):
            return None
        value, version = snapshot_value(agent), state_version(agent)

        def view(number: int) -> Snapshot:
            connection = self._instance.members.get(number)
            if connection is None:  # it has left
                return Snapshot(None, version)
            try:
                return Snapshot(
                    version=version, json=messages.encode(agent.view_state(value, connection))
                )
            except BaseException as error:  # it must not see what it may not, nor stop the rest
                self._instance.hooks.report(connection, "view_state", error)
                return Snapshot(None, version)

        return view

    def _tell(self, outgoing: Iterable[Outgoing]) -> None:
        try:
            self._send(outgoing)
        except LinkError:  # the link takes nothing: all are told what holds once it does
            for connection in self._instance.members.values():
                if connection.accepted:
                    self._side.resume(connection.number)
            self._settle_later()

    def _send(self, outgoing: Iterable[Outgoing]) -> None:
        for out in outgoing:
            kind = Kind.STATE_MANY if out.is_state else Kind.TEXT_MANY
            self._host.send(kind, len(out.keys), pack_numbers(out.keys) + out.payload)

    def _settle_later(self) -> None:
        if not self._side.needs_settling:
            return
        if self._settling is not None:
            self._settling.cancel()
        self._settling = self._host.loop.call_later(self._host.limits.settle_s, self._settle)

    def _settle(self) -> None:
        self._settling = None
        self.flush()
        agent = self._instance.object
        snapshot = None if agent is None else self._snapshot(agent)
        if agent is not None and snapshot is not None:
            self._tell(self._side.settle(snapshot, views=self._views(agent)))
            self._host.turn()

    # -- connections ---------------------------------------------------------------------------

    def join(self, connection: Connection) -> None:
        """It takes part from now on."""
        self._side.join(
            connection.number,
            extended=connection.extended,
            protocol=connection.flags["protocol"],
            identity=self._instance.hosted.cls.send_identity_on_connect,
        )

    def leave(self, connection: Connection) -> None:
        """It no longer does."""
        self._side.leave(connection.number)

    def greeting(self, connection: Connection) -> list[tuple[int, bytes]]:
        """Identity and state for a connection that was just accepted."""
        self.flush()
        agent = self._instance.agent
        snapshot = self._snapshot(agent)
        frames = self._side.greet(connection.number, self._seen_by(connection, snapshot))
        return [(Kind.TEXT, payload) for payload in frames]

    def resume(self, connection: Connection) -> None:
        """Take over a connection that was greeted before the kernel went away.

        It is told what holds now.
        """
        self._side.resume(connection.number)
        self._settle_later()

    def _seen_by(self, connection: Connection, snapshot: Snapshot | None) -> Snapshot | None:
        views = self._views(self._instance.agent)
        return snapshot if views is None or snapshot is None else views(connection.number)

    def whole(self, connection: Connection) -> None:
        """A client lost track of versions."""
        self.flush()
        agent = self._instance.agent
        snapshot = self._seen_by(connection, self._snapshot(agent))
        self._send(self._side.whole(connection.number, snapshot))

    def client_write(self, connection: Connection, frame: Any) -> None:
        """A client wrote the state: applied and acknowledged, or refused with a reason."""
        self.flush()
        agent = self._instance.agent
        if frame.write is not None and frame.write in connection.writes:
            self._acknowledge(connection, frame, b"")  # offered again: our answer was lost
            return
        if frame.base is not None and frame.base != state_version(agent):
            self._refuse(connection, frame, messages.STALE)
            return
        sent = messages.encode(frame.state)  # now: validators may change the object
        try:
            context = connection._context
            context.run(apply_client_state, agent, frame.state, connection)
        except StateRejected as error:
            self._refuse(connection, frame, error.reason)
        except ConnectionReadonly:
            self._refuse(connection, frame, None, readonly=True)
        except StateError as error:
            self._instance.hooks.report(connection, "the state's storage", error)
            self._refuse(connection, frame, None)
        except BaseException as error:  # also of a validator that calls sys.exit()
            self._instance.log.info("A client's state was refused: %s", error)
            self._refuse(connection, frame, None)
        else:
            self.flush()
            if frame.write is not None:
                connection.writes = (*connection.writes[1 - MAX_WRITES :], frame.write)
            self._acknowledge(connection, frame, sent)

    def _acknowledge(self, connection: Connection, frame: Any, sent: bytes) -> None:
        snapshot = self._seen_by(connection, self._snapshot(self._instance.agent))
        if snapshot is not None and connection.ready_state == "open":
            self._send(self._side.ack(connection.number, frame.write, snapshot, sent))
            self._settle_later()

    def _refuse(
        self, connection: Connection, frame: Any, reason: str | None, *, readonly: bool = False
    ) -> None:
        self.flush()
        snapshot = self._seen_by(connection, self._snapshot(self._instance.agent))
        self._send(
            self._side.refuse(
                connection.number, frame.write, snapshot, reason=reason, readonly=readonly
            )
        )
        self._settle_later()


def _hears(agent: Agent) -> bool:
    """Whether the author wants to hear of this change: it is decoded for that."""
    function = getattr(agent.on_state_changed, "__func__", None)
    return function is not Stateful.on_state_changed
