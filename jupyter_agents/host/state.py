"""The state of an agent. (Skeleton: signatures stand, bodies follow.)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from traitlets import HasTraits

from jupyter_agents.protocol.messages import MISSING

if TYPE_CHECKING:
    from jupyter_agents.host.connection import Connection
    from jupyter_agents.host.storage import StoredInstance

Source = "Connection | Literal['server']"


class StateHost(Protocol):
    """What an instance's state needs of its host; the host sets ``agent._state_host`` right after making it.

    None of these may call back into `set_state` synchronously; `changed` and the other two must not raise.
    """

    def may_write(self, source: Connection | Literal["server"]) -> None:
        """Raise ConnectionReadonly when this may not change the state (the host knows who is being served)."""

    def changed(self, source: Connection | Literal["server"], sent: Any = MISSING) -> None:
        """A new state is kept: save `snapshot_json` and `state_version`, tell, and run on_state_changed later.

        `sent` is the value as the client wrote it, MISSING for the server's own changes.
        """

    def cleared(self) -> None:
        """What was stored is unreadable and nothing takes its place: drop the stored state. Nothing to tell."""

    def private_changed(self) -> None:
        """The private state changed: save `snapshot_private_json`."""


class Stateful(HasTraits):
    """The base of Agent: everything about state that an author sees."""

    initial_state: Any = MISSING
    client_writes: ClassVar[Literal["open", "closed"]] = "open"

    _state_host: StateHost | None = None

    @property
    def state(self) -> Any:
        """The state as it was kept and told last; None when there is none."""
        raise NotImplementedError

    def set_state(self, next_state: Any) -> None:
        """Replace the state."""
        raise NotImplementedError

    def update_state(self, **fields: Any) -> None:
        """Replace some fields of a state that is an object."""
        raise NotImplementedError

    @property
    def private_state(self) -> Any:
        """A value that is kept but never sent; None at first."""
        raise NotImplementedError

    @private_state.setter
    def private_state(self, value: Any) -> None:
        raise NotImplementedError

    def set_private_state(self, value: Any) -> None:
        """Replace the private state."""
        raise NotImplementedError

    def view_state(self, state: Any, connection: Connection) -> Any:
        """Give a connection its own view of the state."""
        return state

    def validate_state_change(self, next_state: Any, source: Connection | Literal["server"]) -> None:
        """Raise to refuse a next state."""

    def on_state_changed(self, state: Any, source: Connection | Literal["server"]) -> Any:
        """Hear of a change that is kept and told already."""


def load_state(agent: Stateful, stored: StoredInstance) -> None:
    """Give an instance its stored state, or its initial one. Call once, after ``__init__``, before `on_start`.

    Until then, what the constructor sets is only the starting value. Initial and repaired states are announced through
    ``agent._state_host.changed("server")``. Raises what `validate_state_change` raises for the initial state.
    """
    raise NotImplementedError


def snapshot_json(agent: Stateful) -> bytes | None:
    """The kept state as JSON, None when there is none: what is saved and told."""
    raise NotImplementedError


def snapshot_value(agent: Stateful) -> Any:
    """A fresh copy of the kept state, MISSING when there is none."""
    raise NotImplementedError


def snapshot_private_json(agent: Stateful) -> bytes | None:
    """The private state as JSON, None when never set."""
    raise NotImplementedError


def state_version(agent: Stateful) -> int:
    """How many changes the state has seen, over all kernels; goes up by one with each."""
    raise NotImplementedError


def apply_client_state(agent: Stateful, value: Any, connection: Connection) -> Any:
    """Apply a client's write; returns a copy of the state that holds then.

    Raises
    ------
    ConnectionReadonly
        From the host's `may_write`.
    StateRejected
        ``client_writes = "closed"``, unknown or read-only field, not an object, or the author's own: its reason may
        be shown. Any other exception (TraitError, ValueError, …) is the author's or traitlets': refused, reason kept.
    """
    raise NotImplementedError


def has_view(agent: Stateful) -> bool:
    """Whether the class overrides `view_state`, so that each connection needs its own frame."""
    raise NotImplementedError


def field_names(cls: type[Stateful]) -> tuple[str, ...]:
    """The fields of a typed state (traits tagged ``sync=True``), in order of definition; empty for free-form state."""
    raise NotImplementedError
