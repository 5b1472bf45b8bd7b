"""What an author writes against: the `Agent` base class.

Hooks may be ``def`` or ``async def``. They run on the agents' thread, one at a time between
awaits; a blocking ``def`` hook delays every agent of this kernel, so wait with ``await`` or
``asyncio.to_thread``. The machinery behind an instance is the room `instance/`; the state is in
`state.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jupyter_agents.host.callables import get_callable_methods
from jupyter_agents.host.state import Stateful
from jupyter_agents.protocol import messages

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Mapping

    from jupyter_agents.host.callables import CallableMetadata
    from jupyter_agents.host.connection import Connection, ConnectionContext, Connections
    from jupyter_agents.instance.instance import AgentInstance
    from jupyter_agents.protocol.http import Request, Response

__all__ = ["Agent"]


class Agent(Stateful):
    """A small stateful server with a name; subclass it in a cell and `serve` the class.

    One instance lives per name. It is made on first use, and made anew after the kernel restarted
    or nobody used it for a while, with its stored state; other attributes start fresh. Override
    the hooks you need; each may be ``async``.
    """

    send_identity_on_connect: ClassVar[bool] = True
    """Whether a client is told the instance's name when it connects."""

    cors: ClassVar[bool | Mapping[str, str]] = False
    """Cross-origin headers on HTTP answers: True for open ones, or the exact headers."""

    access: ClassVar[Literal["jupyter", "link", "public"]] = "jupyter"
    """Who may talk to its instances.

    ``"jupyter"``: who signs in to Jupyter. ``"link"``: also who has a link that `ns.share` made.
    ``"public"``: everyone who reaches the server, if its configuration has ``allow_public``.
    """

    cancel_on_disconnect: ClassVar[bool] = False
    """Whether a call is cancelled when its caller's connection ends."""

    hibernate: ClassVar[bool] = True
    """Whether an instance that nobody uses may leave memory; the next arrival wakes it.

    It wakes as after a kernel restart: `on_start` runs, `state` and `private_state` are back,
    other attributes are fresh. Nothing falls asleep while a connection is there, or anything that
    a hook began (a task, a timer).
    """

    redelivery: ClassVar[Literal["at_most_once", "at_least_once"]] = "at_most_once"
    """What becomes of a message whose handler was cut off because the kernel died.

    ``"at_least_once"`` runs the handler again when the class is served again, so it should bear
    being run twice; ``"at_most_once"`` does not. A message whose handler had not begun is
    delivered in any case, and one whose handler had ended in none.
    """

    name: str
    """The instance's name, as in its address; set before ``__init__`` runs."""

    _instance: AgentInstance | None = None

    # -- hooks ---------------------------------------------------------------------------------

    def on_start(self, props: Any = None) -> Any:
        """Run once before anything else, also after a kernel restart, or when it slept.

        An error is retried on the next arrival.
        """

    def on_connect(self, connection: Connection, ctx: ConnectionContext) -> Any:
        """Greet a client, or refuse it with ``connection.close(4001, "why")``.

        It cannot send before this ends.
        """

    def on_message(self, connection: Connection, message: str | bytes) -> Any:
        """Take a client's message: text as ``str``, binary as ``bytes``."""

    def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> Any:
        """Run once for every connection whose `on_connect` ran.

        Code 1006 when the client just vanished.
        """

    def on_error(self, connection: Connection | None, error: BaseException) -> Any:
        """Hear of an error in a hook; `connection` is None when it belongs to none.

        It is logged anyway.
        """

    def on_request(self, request: Request) -> Any:
        """Answer HTTP: a Response, dict, list, str, bytes or ``(status, body)``; None is 404."""
        return None

    def on_stop(self) -> Any:
        """Run when the instance leaves memory in good order.

        The class was stopped, the instance falls asleep, or the kernel shuts down.
        """

    @classmethod
    def on_before_connect(cls, request: Request) -> Request | Response | None:
        """Refuse (a Response) or replace (a Request) an upgrade, before the instance wakes."""
        return None

    @classmethod
    def on_before_request(cls, request: Request) -> Request | Response | None:
        """The same for HTTP."""
        return None

    def get_connection_tags(self, connection: Connection, ctx: ConnectionContext) -> Iterable[str]:
        """Tags of a new connection for `get_connections` and `broadcast`.

        At most 9, of 1–256 characters.
        """
        return ()

    def should_connection_be_readonly(
        self, connection: Connection, ctx: ConnectionContext
    ) -> bool:
        """Whether this connection may look at the state but not change it."""
        return False

    def should_send_protocol_messages(
        self, connection: Connection, ctx: ConnectionContext
    ) -> bool:
        """Whether this connection gets identity and state frames at all."""
        return True

    # -- talking to clients --------------------------------------------------------------------

    def broadcast(
        self,
        message: str | bytes | bytearray | memoryview,
        without: Iterable[str] = (),
        tag: str | None = None,
    ) -> None:
        """Send one message to every open connection of this instance, the sender included.

        Parameters
        ----------
        message : str or bytes-like
            Text or binary.
        without : iterable of str
            Ids of connections to leave out; unknown ones are fine.
        tag : str, optional
            Only connections with this tag.

        Raises
        ------
        TypeError
            For any other message, and when `without` is one string.

        Thread
        ------
        Any; from outside the agents' thread it is queued, in order.
        """
        self._seat().broadcast(message, without, tag)

    def broadcast_json(
        self, value: Any, without: Iterable[str] = (), tag: str | None = None
    ) -> None:
        """`broadcast` a value as JSON text; TypeError for what JSON cannot carry."""
        self._seat().broadcast(messages.encode(value).decode(), without, tag)

    def get_connections(self, tag: str | None = None) -> Connections:
        """A snapshot of the open connections, by tag if one is given; has a length."""
        return self._seat().connections(tag)

    def get_connection(self, connection_id: str) -> Connection | None:
        """The open connection with this id, the newest where two share it, or None."""
        return self._seat().connection(connection_id)

    # -- who may do what -----------------------------------------------------------------------

    def set_connection_readonly(self, connection: Connection, readonly: bool = True) -> None:
        """Forbid, or allow again, that a connection changes the state."""
        self._seat().set_flag(connection, "readonly", readonly)

    def is_connection_readonly(self, connection: Connection) -> bool:
        """Whether a connection may not change the state."""
        return connection.readonly

    def is_connection_protocol_enabled(self, connection: Connection) -> bool:
        """Whether a connection gets identity and state frames."""
        return connection.flags["protocol"]

    # -- life ----------------------------------------------------------------------------------

    async def destroy(self) -> None:
        """Drop everything stored, close the connections, and end this instance.

        The next arrival starts anew.
        """
        self._seat().destroy()

    @classmethod
    def get_callable_methods(cls) -> dict[str, CallableMetadata]:
        """Name → description, signature and parameters of each callable method."""
        return get_callable_methods(cls)

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines name this instance."""
        return self._seat().log

    def _seat(self) -> AgentInstance:
        if self._instance is None:
            raise RuntimeError(
                f"This {type(self).__name__} is not hosted: serve(…) makes the instances"
            )
        return self._instance

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, 'name', '?')!r}>"
