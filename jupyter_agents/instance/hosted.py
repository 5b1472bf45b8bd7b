"""A class as it was last served, with its instances, and how other threads reach one of them.

Running the serving cell again renews it: new code and a new place for all instances, or for none.
The host, in `host/host.py`, says when; one instance's part is `instance.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from traitlets import TraitError

from jupyter_agents.errors import AgentNotFound, ServeError
from jupyter_agents.host.agent import Agent
from jupyter_agents.host.storage import is_same_place
from jupyter_agents.protocol import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.host.storage import Storage
    from jupyter_agents.instance.instance import AgentInstance

__all__ = ["Hosted", "Reach", "hand_over"]

STUCK_S = 60.0
"""How long a call waits for the agents' thread to begin with it, before it gives up."""

QUEUED_SIZE = 4096
"""A handle's broadcast of more characters or bytes waits until it is sent: what is queued is
bounded by number (`host.thread.MAX_POSTED`), and so by size."""

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

    def check_spellings(self, others: Iterable[Hosted]) -> None:
        """Raise ServeError where one of these has an address of ours."""
        for other in others:
            shared = set(other.spellings) & set(self.spellings)
            is_new_code = other.agent == self.agent and other.cls.__name__ == self.cls.__name__
            if shared and not is_new_code:
                raise ServeError(
                    f"{self.cls.__name__} and {other.cls.__name__} meet at agents/{min(shared)}; "
                    'give one of them another address: serve(…, slug="…")'
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


class Reach:
    """The way to one instance, by name: for a handle, whose calls come from any thread.

    It stays the same while the class is stopped and served anew and the instance sleeps.
    """

    def __init__(self, host: AgentHost, hosted: Hosted, name: str) -> None:
        self.host = host
        self.hosted = hosted
        self.agent = hosted.agent
        self.name = name

    @property
    def cls(self) -> type[Agent]:
        """The class as it is served now, or was last."""
        return self.host.classes.get(self.agent, self.hosted).cls

    def instance(self) -> AgentInstance:
        """On the agents' thread: the instance, taken in if there is none."""
        hosted = self.host.classes.get(self.agent)
        if hosted is None:
            raise AgentNotFound(f"{self.agent}/{self.name}", tuple(self.host.classes))
        return self.host.instance(hosted, self.name)

    def ask(self, work: Callable[[Agent], Any]) -> Any:
        """Have `work` done with the started agent on its thread; its result or its error."""
        host = self.host
        if host.is_here():
            instance = self.instance()
            result = instance.at_once(work)
            instance.sync.flush()  # visible to the caller, who goes on within this turn
            return result
        began = threading.Event()

        def begin(agent: Agent) -> Any:
            began.set()
            return work(agent)

        begin.__qualname__ = work.__qualname__
        future = host.submit(self.outside, begin)
        return host.result(future, began, STUCK_S, self._obstacle)

    async def there(self, work: Callable[[Agent], Any]) -> Any:
        """The same for who awaits it, as long as it takes."""
        if self.host.is_here():
            return await self.outside(work)
        return await asyncio.wrap_future(self.host.submit(self.outside, work))

    async def outside(self, work: Callable[[Agent], Any]) -> Any:
        """Do it there, for who submits this to the host."""
        instance = self.instance()
        result = await instance.outside(work)
        instance.sync.flush()
        return result

    def _obstacle(self) -> str:
        hosted = self.host.classes.get(self.agent)
        instance = None if hosted is None else hosted.instances.get(self.name)
        if instance is not None and instance.starting:
            return f"on_start of {self.cls.__name__} {self.name!r} has not ended"
        running = self.host.running
        name = getattr(running, "__qualname__", repr(running))
        return f"{name} keeps the agents' thread; make it async, or use asyncio.to_thread"

    def broadcast(
        self,
        message: str | bytes | bytearray | memoryview,
        without: Iterable[str] = (),
        tag: str | None = None,
    ) -> None:
        """`Agent.broadcast`, queued: a cell's loop of them does not wait for each.

        It waits, as any call does, for an agent that has yet to start, and where the message is
        long or the queue is full. Errors in the arguments are raised at once.
        """
        host = self.host
        hosted = host.classes.get(self.agent)
        instance = None if hosted is None else hosted.instances.get(self.name)
        if (
            instance is not None
            and instance.started
            and isinstance(message, (str, bytes))
            and len(message) <= QUEUED_SIZE
            and threading.get_ident() != host.thread_id
        ):
            instance.is_wanted = True
            instance.broadcast(message, without, tag)
        else:
            self.ask(lambda agent: agent.broadcast(message, without, tag))

    def broadcast_json(
        self, value: Any, without: Iterable[str] = (), tag: str | None = None
    ) -> None:
        """`Agent.broadcast_json`, queued likewise."""
        self.broadcast(messages.encode(value).decode(), without, tag)
