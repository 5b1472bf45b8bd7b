"""The state of an agent: one road for every change, whoever makes it.

Promises that a change is validated, kept and handed to the host in that order, and that a refused
one changes nothing. Must not persist or send: a `StateHost` does, told through `changed`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from traitlets import MetaHasTraits

from jupyter_agents.errors import StateError, StateRejected
from jupyter_agents.host.callables import belongs_to_base, is_callable_method
from jupyter_agents.instance.fields import Fielded, check_json, find_fields
from jupyter_agents.protocol.messages import MISSING, decode, encode

if TYPE_CHECKING:
    from typing import TypeAlias

    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.storage import StoredInstance

    Source: TypeAlias = Connection | Literal["server"]

__all__ = [
    "StateHost",
    "Stateful",
    "apply_client_state",
    "field_names",
    "has_view",
    "load_state",
    "snapshot_json",
    "snapshot_private_json",
    "snapshot_value",
    "state_version",
]

_log = logging.getLogger("jupyter_agents.state")


class StateHost(Protocol):
    """What a state needs of its host, set as ``agent._state_host`` before `load_state`.

    Thread
    ------
    All of it runs on the agents' thread. Only `may_write` may raise.
    """

    def may_write(self, source: Source) -> None:
        """Raise ConnectionReadonly when this may not change the state.

        For ``"server"`` the host knows whose call or message is being served, and whether that
        connection is readonly.
        """
        ...

    def changed(self, source: Source, sent: Any = MISSING) -> None:
        """Save `snapshot_json` and `state_version`, tell, and run `on_state_changed` later.

        `sent` is the value as a client wrote it, MISSING for changes of the server's own.
        """
        ...

    def cleared(self) -> None:
        """Drop the stored state, which is unreadable and has no successor. There is no news."""
        ...

    def private_changed(self) -> None:
        """Save `snapshot_private_json`."""
        ...


# ── What an author sees ──────────────────────────────────────────────────────────────────


class _StatefulMeta(MetaHasTraits):
    """Tells a finished instance from one whose constructor still runs."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # in a metaclass
        instance = super().__call__(*args, **kwargs)
        instance._kept.constructed = True
        return instance


@dataclass(slots=True)
class _Kept:
    """One instance's state as it was kept last, and what is going on with it."""

    json: bytes | None = None
    version: int = 0
    private_json: bytes | None = None
    live: Any = MISSING  # json decoded, handed out by `state`; an author may change it in place
    live_private: Any = MISSING
    constructed: bool = False
    loaded: bool = False
    validating: bool = False
    tasks: set[asyncio.Future[Any]] = field(default_factory=set)


class Stateful(Fielded, metaclass=_StatefulMeta):
    """The base of Agent: a state that is validated, persisted and told to clients.

    The state is either free-form, any JSON value, which starts as `initial_state`; or typed, the
    dict of all traits tagged ``sync=True``. Assigning such a trait, `set_state`, `update_state`
    and a client's write all go one road: traitlets' validation, `validate_state_change`, kept and
    told, observers, `on_state_changed`. An exception before that refuses the change as a whole.

    A ``with self.hold_trait_notifications():`` block is one change; if it raises, none.

    What the constructor sets is the starting value; a stored state wins over it.
    """

    initial_state: Any = MISSING
    """The first state of a new instance, copied for each; leave it out for none."""

    client_writes: ClassVar[Literal["open", "closed"]] = "open"
    """Whether clients may write the state themselves, or by callable methods only."""

    _state_host: StateHost | None = None
    _kept: _Kept

    def setup_instance(self, /, *args: Any, **kwargs: Any) -> None:
        """Prepare what must be there before ``__init__``, which an author may override."""
        self._kept = _Kept()
        super().setup_instance(*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._state_fields = find_fields(cls)
        _check_class(cls)

    # -- reading and writing -------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """The state as plain JSON values, None when there is none.

        A change in place is told by ``self.set_state(self.state)`` and undone if that is refused.
        """
        kept = self._settled()
        if kept.live is MISSING:
            json = kept.json if kept.loaded else self._starting_json()
            kept.live = None if json is None else decode(json)
        return kept.live

    def set_state(self, next_state: Any) -> None:
        """Replace the state.

        Parameters
        ----------
        next_state : JSON value
            For a typed state a mapping; fields that are not in it keep their values.

        Raises
        ------
        StateRejected, TraitError, or what the author's validators raise
            When it is refused; nothing has changed then.
        ConnectionReadonly
            When this runs for a connection that may not write.
        TypeError
            When JSON cannot carry it.

        Wire
        ----
        ``{"type": "cf_agent_state", "state": any}`` to every connection.
        """
        self._write(next_state, "server")

    def update_state(self, **fields: Any) -> None:
        """Replace some fields of a state that is an object, or None yet; raises as `set_state`."""
        if not self._state_fields:
            now = {} if self.state is None else self.state
            if not isinstance(now, dict):
                raise TypeError(f"update_state needs an object, not {type(now).__name__!r}")
            fields = {**now, **fields}
        self._write(fields, "server")

    @property
    def private_state(self) -> Any:
        """A JSON value that is persisted but never sent; None at first. Assign it to keep it."""
        kept = self._settled()
        if kept.live_private is MISSING:
            kept.live_private = None if kept.private_json is None else decode(kept.private_json)
        return kept.live_private

    @private_state.setter
    def private_state(self, value: Any) -> None:
        self.set_private_state(value)

    def set_private_state(self, value: Any) -> None:
        """Replace the private state; TypeError for what JSON cannot carry."""
        kept = self._settled()
        kept.private_json, kept.live_private = encode(value), MISSING
        if kept.loaded and self._state_host:
            self._state_host.private_changed()

    # -- hooks ---------------------------------------------------------------------------------

    def validate_state_change(self, next_state: Any, source: Source) -> None:
        """Refuse a next state by raising; `next_state` is a copy, so changing it has no effect.

        Raise `StateRejected` with a reason that clients may see. `source` is the Connection that
        wrote, or ``"server"``. Must not be ``async`` and must not change the state.
        """

    def on_state_changed(self, state: Any, source: Source) -> Any:
        """Hear of a change once it is kept and told; an error here does not undo it."""

    def view_state(self, state: Any, connection: Connection) -> Any:
        """Return what one connection sees of the state; not ``async``, and not changing it."""
        return state

    # -- the road ------------------------------------------------------------------------------

    def _write(self, value: Any, source: Source, sent: Any = MISSING) -> None:
        kept = self._unlocked()
        try:
            if self._state_fields:
                self._write_fields(value, source, sent)
            elif kept.loaded:
                self._accept(encode(value), source)
                self._announce(source, sent)
            else:
                kept.json = encode(value)
                kept.live = MISSING
        except BaseException:
            kept.live = MISSING  # undoes what was changed in place
            raise

    def _accept(self, json: bytes, source: Source) -> None:
        """Validate and keep the next state; whatever raises here keeps the old one."""
        kept = self._kept
        if self._state_host:
            self._state_host.may_write(source)
        self._validate_change(json, source)
        kept.json, kept.live, kept.version = json, MISSING, kept.version + 1

    def _announce(self, source: Source, sent: Any = MISSING) -> None:
        if self._state_host:
            self._state_host.changed(source, sent)
        else:
            self._call_on_state_changed(source)

    def _validate_change(self, json: bytes, source: Source) -> None:
        if type(self).validate_state_change is Stateful.validate_state_change:
            return
        self._kept.validating = True
        try:
            self.validate_state_change(decode(json), source)
        finally:
            self._kept.validating = False

    def _call_on_state_changed(self, source: Source) -> None:
        """Run the hook without a host, as in a test of the class alone."""
        result = self.on_state_changed(self.state, source)
        if not inspect.iscoroutine(result):
            return
        try:
            task = asyncio.get_running_loop().create_task(result)
        except RuntimeError:
            asyncio.run(result)
        else:
            self._kept.tasks.add(task)
            task.add_done_callback(self._kept.tasks.discard)

    def _unlocked(self) -> _Kept:
        if self._kept.validating:
            raise StateError("validate_state_change must not change the state")
        return self._settled()

    def _settled(self) -> _Kept:
        """Return what is kept; without a host an instance settles for its starting state."""
        kept = self._kept
        if kept.constructed and not (kept.loaded or kept.validating or self._state_host):
            self._settle(validate=True)
        return kept

    def _settle(self, *, validate: bool) -> None:
        kept, json = self._kept, self._starting_json()
        if json is not None and validate:
            self._validate_change(json, "server")
        kept.json, kept.live, kept.loaded = json, MISSING, True
        self._touched.clear()

    def _starting_json(self) -> bytes | None:
        if self._state_fields:
            return self._fields_json()
        if self._kept.json is not None or self.initial_state is MISSING:
            return self._kept.json
        return encode(self.initial_state)

    def _write_fields(self, fields: Any, source: Any, sent: Any = MISSING) -> None:
        if self._state_host and self._kept.loaded:
            self._state_host.may_write(source)  # first, so that no other refusal hides this one
        known = ", ".join(self._state_fields)
        if not isinstance(fields, Mapping):
            raise StateRejected(f"The state of {type(self).__name__} is an object with {known}")
        for name in fields:
            if name not in self._state_fields:
                raise StateRejected(f"Unknown field {name!r}; {type(self).__name__} has {known}")
        super()._write_fields(fields, source, sent)

    def _kept_fields(self) -> dict[str, Any] | None:
        kept = self._settled()
        return decode(kept.json) if kept.loaded and kept.json else None

    def _before_assignment(self) -> None:
        self._settled()

    def _accept_fields(self, source: Source) -> bool:
        if not self._unlocked().loaded:
            return False
        json = self._fields_json()
        if json == self._kept.json:
            return False
        self._accept(json, source)
        return True


# ── What the host uses ───────────────────────────────────────────────────────────────────


def load_state(agent: Stateful, stored: StoredInstance) -> None:
    """Give an instance its stored state, or its starting one. Once, before `on_start`.

    A starting state, and one that had to be repaired, is announced by ``changed("server")``; a
    stored one is not news. ``StoredInstance(version=n)`` starts afresh, counting on from n.

    Raises
    ------
    Exception
        What `validate_state_change` raises about a starting state; the instance cannot wake then.
    """
    kept, host = agent._kept, agent._state_host
    kept.version = stored.version
    _load_private(agent, stored.private_json)
    value = _read(agent, "state", stored.state_json)
    if agent._state_fields and value is not MISSING:
        value = agent._restore(value)
    elif value is not MISSING:
        kept.json = stored.state_json
    agent._settle(validate=value is MISSING)
    if kept.json is None:
        if stored.state_json is not None and host:
            host.cleared()
    elif value is MISSING or (agent._state_fields and decode(kept.json) != value):
        kept.version += 1
        if host:
            host.changed("server")


def _load_private(agent: Stateful, stored_json: bytes | None) -> None:
    kept, host = agent._kept, agent._state_host
    if _read(agent, "private state", stored_json) is not MISSING:
        kept.private_json, kept.live_private = stored_json, MISSING
    elif host and (kept.private_json is not None or stored_json is not None):
        host.private_changed()


def _read(agent: Stateful, what: str, stored_json: bytes | None) -> Any:
    if stored_json is None:
        return MISSING
    try:
        return decode(stored_json)
    except ValueError as error:
        _log.warning("The stored %s of %r is unreadable (%s); it is dropped", what, agent, error)
        return MISSING


def apply_client_state(agent: Stateful, value: Any, connection: Connection) -> Any:
    """Apply a client's write; return the state that holds then, which must not be changed.

    Raises
    ------
    ConnectionReadonly
        From the host's `may_write`.
    StateRejected
        From the author, or because clients may not write, or not this field: the reason may be
        shown. Whatever else is raised refuses the write, too, but its text is not for clients.
    """
    if agent._state_host:
        agent._state_host.may_write(connection)
    if agent.client_writes == "closed":
        raise StateRejected("Clients may not write this agent's state")
    if agent._cross_validation_lock:
        raise StateRejected("The agent is changing its state; try again")
    agent._write(value, connection, value)
    return agent.state


def snapshot_json(agent: Stateful) -> bytes | None:
    """Return the kept state as JSON, None when there is none: what is saved and told."""
    return agent._kept.json


def snapshot_value(agent: Stateful) -> Any:
    """Return a fresh copy of the kept state, MISSING when there is none."""
    return MISSING if agent._kept.json is None else decode(agent._kept.json)


def snapshot_private_json(agent: Stateful) -> bytes | None:
    """Return the private state as JSON, None when there is none."""
    return agent._kept.private_json


def state_version(agent: Stateful) -> int:
    """Return how many changes the state has seen, over all kernels."""
    return agent._kept.version


def has_view(agent: Stateful) -> bool:
    """Whether each connection has its own view, because the class overrides `view_state`."""
    return type(agent).view_state is not Stateful.view_state


def field_names(cls: type[Stateful]) -> tuple[str, ...]:
    """Return the fields of a typed state in order of definition; empty for free-form state."""
    return cls._state_fields


# ── Classes ──────────────────────────────────────────────────────────────────────────────


def _check_class(cls: type[Stateful]) -> None:
    """Refuse at definition what could only go wrong later."""
    name, fields = cls.__name__, cls._state_fields
    if fields and cls.initial_state is not MISSING:
        raise TypeError(
            f"{name} mixes initial_state with traits tagged sync=True ({', '.join(fields)}): "
            "a state is either free-form or made of traits"
        )
    if cls.initial_state is not MISSING and not isinstance(cls.initial_state, property):
        check_json(f"{name}.initial_state", cls.initial_state)
    if cls.client_writes not in ("open", "closed"):
        raise TypeError(f'{name}.client_writes is "open" or "closed", not {cls.client_writes!r}')
    if hasattr(cls, "on_state_update"):
        raise TypeError(f"{name}.on_state_update: the hook is on_state_changed(state, source)")
    for hook in ("validate_state_change", "view_state"):
        if inspect.iscoroutinefunction(getattr(cls, hook)):
            raise TypeError(f"{name}.{hook} must not be async: its answer is needed at once")
    offered = [n for n, value in vars(cls).items() if n in fields or is_callable_method(value)]
    for attribute in offered:
        if attribute.startswith("_") or belongs_to_base(cls, attribute):
            raise TypeError(f"{name}.{attribute}: clients cannot use a name of Agent's, or _…")
