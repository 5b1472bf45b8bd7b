"""A class as it was last served, with its instances and the place where they are stored.

Running the serving cell again renews it: new code and a new place for all instances, or for none.
The host, in `host/host.py`, says when; one instance's part is `instance.py`.
"""

from __future__ import annotations

import contextvars
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from traitlets import TraitError

from jupyter_agents.errors import ServeError
from jupyter_agents.host.agent import Agent
from jupyter_agents.host.storage import is_same_place

if TYPE_CHECKING:
    from jupyter_agents.host.storage import Storage
    from jupyter_agents.instance.instance import AgentInstance

__all__ = ["Hosted", "hand_over"]

_OURS = ("_trait", "_cross_validation", "_state", "_all_trait", "_static_immutable")
_OWN = ("name", "notify_change", "_instance", "_kept", "_touched")


@dataclass(eq=False)
class Hosted:
    """A class as it was last served."""

    cls: type[Agent]
    agent: str
    spellings: tuple[str, ...]
    storage: Storage
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    takeover: bool = False
    autostart: str = ""
    """The cell's source, which the server runs again when the kernel is back."""
    instances: dict[str, AgentInstance] = field(default_factory=dict)
    """Those that are awake, and those that slept and are not forgotten yet."""
    handle_class: Any = None
    """Made by `handle.py`; its traits are the fields of `cls`."""

    def __post_init__(self) -> None:
        if self.cls.redelivery not in ("at_most_once", "at_least_once"):
            raise ServeError(
                f'{self.cls.__name__}.redelivery is "at_most_once" or "at_least_once", '
                f"not {self.cls.redelivery!r}"
            )

    def registration(self) -> dict[str, Any]:
        """The object of a SERVE frame."""
        gate = self.cls.on_before_connect.__func__ is not Agent.on_before_connect.__func__  # type: ignore[attr-defined]
        cors = self.cls.cors if isinstance(self.cls.cors, bool) else dict(self.cls.cors)
        return {
            "agent": self.agent,
            "class": self.cls.__name__,
            "spellings": self.spellings,
            "takeover": self.takeover,
            "autostart": self.autostart,
            "options": {"gate": gate, "cors": cors, "access": self.cls.access},
        }

    def renew(self, new: Hosted) -> Storage | None:
        """Take over what was served anew; returns the storage that is used no more, if any.

        Raises
        ------
        Exception
            What the new class raises for one of the instances; nothing has changed then.
        """
        old_cls, old_context = self.cls, self.context
        self.cls, self.context = new.cls, new.context
        try:
            adopt = [instance.replace_class(new.cls) for instance in self.instances.values()]
        except BaseException:
            self.cls, self.context = old_cls, old_context
            raise
        self.takeover, self.autostart = new.takeover, new.autostart
        for go_on in adopt:
            go_on()
        return self._move_to(new.storage)

    def _move_to(self, storage: Storage) -> Storage | None:
        """From now on keep instances there; those in memory take their state along."""
        if is_same_place(self.storage, storage):
            return None  # memory would forget those asleep, and a file needs no second reader
        left, self.storage = self.storage, storage
        for instance in self.instances.values():
            instance.sync.move_from(left)
        return left


def hand_over(old: Agent, new: Agent) -> None:
    """Give a new object the attributes of the old one, except its state, which is loaded."""
    found = {k: v for k, v in vars(old).items() if not k.startswith(_OURS) and k not in _OWN}
    new.__dict__.update(found)
    for name in old._trait_values.keys() & new._traits.keys() - set(new._state_fields):
        with suppress(TraitError):  # the new code may have other ideas of it
            new.set_trait(name, old._trait_values[name])
