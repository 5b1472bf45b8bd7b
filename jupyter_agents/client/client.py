"""Talk to an agent from a coroutine, over one connection that comes back.

    async with connect("chat-room", "lobby") as client:
        await client.call("shout", ["hi"])

Promises the SDK client's surface in Python's spelling. What may happen when is
`protocol.client_side`'s, the connection is `channel`'s; here the two meet futures and
listeners. Its other half is `instance`.
"""

from __future__ import annotations

import asyncio
import random as dice
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import fields, replace
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from jupyter_agents.client.address import Destination, Given, agent_slug
from jupyter_agents.client.inbox import Ended, Stream
from jupyter_agents.client.stub import Stub
from jupyter_agents.client.talk import Talk
from jupyter_agents.client.transport import Opener, TornadoOpener
from jupyter_agents.errors import CallAborted, ConnectionClosed
from jupyter_agents.protocol.backoff import ReconnectPolicy
from jupyter_agents.protocol.client_side import Message, Phase
from jupyter_agents.protocol.messages import MISSING, encode
from jupyter_agents.protocol.names import Address, check_connection_id

if TYPE_CHECKING:
    from types import TracebackType

    from jupyter_agents.client.channel import Clock
    from jupyter_agents.client.listeners import Listener

__all__ = ["AgentClient", "connect"]

P = ParamSpec("P")
T = TypeVar("T")


class AgentClient(Talk):
    """A client of one agent instance.

    Nothing happens before ``async with client``, ``await client`` or ``client.start()``. It
    then keeps a connection up until `close`, a final close code (1008, 4000-4999), or the end
    of the retries.

    Parameters
    ----------
    agent : type or str
        The agent's class, its name or slug, or what `serve` returned.
    name : str
        The instance.
    host : str or None
        ``"localhost:8888"`` or a URL that may end in a base_url. None finds the running Jupyter
        Server and its token: the one this notebook belongs to, or the newest of this machine.
    query : Mapping or Callable
        For the URL; a function or coroutine function is asked at each connection. None values
        are left out.
    protocol, prefix, base_path, path : str
        Parts of the URL, see `client.address.find_target`.
    id : str or None
        The connection's id, kept across reconnects; None makes one up.
    token : str or None
        For the server's sign-in; sent as a header, so that it is in no URL and no log.
    headers : Mapping or Callable
        For the handshake, like `query`.
    extended : bool
        False speaks exactly as the SDK's client does: writes are not acknowledged, calls not
        cancelled.
    reconnect : ReconnectPolicy
    should_reconnect : Callable or None
        Asked with a `ConnectionClosed` after each end that is not final; False makes it final.
    timeout : float or None
        Seconds for a call or a write that names none; None and 0 wait for ever.
    wait_for : {"ready", "open"}
        What ``async with`` and ``await`` wait for. An agent that sends neither identity nor
        state nor anything else is never ready.
    open_timeout : float or None
        Seconds that they wait.
    max_received : int
        Messages that wait for `recv`, beyond which the oldest is dropped and a warning logged;
        and chunks of one stream, beyond which the stream fails.
    max_message_bytes : int
        A longer message closes the connection.
    heartbeat : float
        Seconds between pings; a silent server is found dead within two of them. 0 sends none.
    opener, clock, random : optional
        What opens connections, tells the time and throws dice, for tests: see `client.transport`.
    **listeners : Callable
        ``on_message=…`` and so on: see `Listeners`.

    Attributes
    ----------
    id : str
    stub : Stub
        ``await client.stub.add(1, 2)``.
    should_reconnect : Callable or None
        May be replaced.
    connection_error : ConnectionClosed or None
        Why this client stopped by itself.
    suspended : bool
        Whether the agent's kernel is away, as the server said; the connection stays meanwhile.

    Thread
    ------
    Everything on the loop it was started on. For plain code there is `client.sync`.
    """

    def __init__(
        self,
        agent: object,
        name: str = "default",
        host: str | None = None,
        *,
        query: Given = None,
        protocol: str | None = None,
        prefix: str = "agents",
        base_path: str | None = None,
        path: str | None = None,
        id: str | None = None,  # the wire's word
        token: str | None = None,
        headers: Given = None,
        extended: bool = True,
        reconnect: ReconnectPolicy | None = None,
        should_reconnect: Callable[[ConnectionClosed], bool] | None = None,
        timeout: float | None = 30.0,
        wait_for: Literal["ready", "open"] = "ready",
        open_timeout: float | None = 30.0,
        max_received: int = 10_000,
        max_message_bytes: int = 32 << 20,
        heartbeat: float = 20.0,
        opener: Opener | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = dice.random,
        **listeners: Listener | None,
    ) -> None:
        policy = reconnect or ReconnectPolicy()
        super().__init__(
            check_connection_id(id if id is not None else str(uuid.uuid4())),
            Destination(
                agent=agent,
                name=name,
                host=host,
                protocol=protocol,
                prefix=prefix,
                base_path=base_path,
                path=path,
                query=query,
                token=token,
                headers=headers,
            ),
            extended=extended,
            policy=policy,
            opener=opener or _tornado(policy, heartbeat, max_message_bytes),
            clock=clock,
            dice=random,
            max_received=max_received,
            listeners=listeners,
        )
        self.stub = Stub(self)
        self.should_reconnect = should_reconnect
        self._timeout = timeout
        self._wait_for: Literal["ready", "open"] = wait_for
        self._open_timeout = open_timeout

    def __repr__(self) -> str:
        to = self._destination
        return f"<AgentClient {agent_slug(to.agent)}/{to.name} {self.ready_state}>"

    # ── Coming and going ────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> AgentClient:
        self.start()
        try:
            await asyncio.wait_for(self._arrive(self._wait_for), self._open_timeout)
        except asyncio.TimeoutError:
            where = f"{self.agent}/{self.name}"
            await self._leave()
            raise TimeoutError(
                f"{where} was not {self._wait_for} within {self._open_timeout:g} s"
            ) from None
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()

    def __await__(self) -> Generator[Any, None, AgentClient]:
        return self.__aenter__().__await__()

    async def _leave(self) -> None:
        self.close()
        await self.wait_closed()

    @property
    def ready(self) -> Awaitable[None]:
        """Await it: the server has said whom this client reached, and the state if there is one.

        Of the present connection, or the next. Fails when there will be none.
        """
        return _Arrival(self)

    def update_properties(self, **changes: Any) -> None:
        """Change where to go, or with which credentials.

        New credentials (query, token, headers) are shown from the next connection on, and what
        waits goes out then. A new address (agent, name, host, protocol, prefix, base_path, path)
        is gone to at once; what waited was meant for the old one and fails.

        Raises
        ------
        AddressError
            When the new address cannot be used; nothing is changed then.
        """
        unknown = set(changes) - {field.name for field in fields(Destination)}
        if unknown:
            raise TypeError(f"unknown properties: {', '.join(sorted(unknown))}")
        old, self._destination = self._destination, replace(self._destination, **changes)
        if not self._destination.leads_elsewhere(old):
            return
        self._dispatch(self._side.readdressed())
        stopped_by_user = self._side.phase is Phase.CLOSED and self.connection_error is None
        if self._channel is not None and not stopped_by_user:
            self.reconnect()

    # ── What it knows ───────────────────────────────────────────────────────────────────────

    @property
    def agent(self) -> str:
        """The class's spelling on the URL."""
        return agent_slug(self._destination.agent)

    @property
    def name(self) -> str:
        """The instance that was asked for; see `identity` for the one that was reached."""
        return self._destination.name

    @property
    def identity(self) -> Address | None:
        """Whom the server said this client reached last."""
        return self._side.identity

    @property
    def identified(self) -> bool:
        """Whether the server said so on this connection."""
        return self._side.is_identified

    @property
    def state(self) -> Any:
        """A copy of the shared state as known here, own pending writes included; None at first."""
        return self._side.replica.state

    @property
    def buffered_amount(self) -> int:
        """Bytes that wait: for a connection, or for the socket to take them."""
        return self._side.queued_bytes + self._in_socket()

    # ── Messages ────────────────────────────────────────────────────────────────────────────

    def send(self, message: str | bytes | bytearray | memoryview) -> bool:
        """Send text or bytes, now or once there is a connection.

        Returns
        -------
        bool
            False when it is dropped: the client is closed, or `ReconnectPolicy.max_queued` or
            ``max_queued_bytes`` is reached.

        Raises
        ------
        TypeError
            When it is neither text nor bytes; see `send_json`.
        """
        taken = not self._is_backlogged() and self._side.send(message)
        self._flush()
        return taken

    def send_json(self, value: object) -> bool:
        """Send a value as JSON text; like `send`."""
        return self.send(encode(value).decode())

    def drain_queued_messages(self) -> list[Message]:
        """Take back the messages that wait for a connection; calls and writes keep waiting."""
        return self._side.drain_messages()

    async def recv(self, timeout: float | None = None) -> Message:
        """Give the agent's next message: text as str, binary as bytes.

        What comes while nobody reads waits here, unless there are `on_message` listeners.

        Raises
        ------
        ConnectionClosed
            When there is none and the client is closed for good.
        TimeoutError
            When none comes within `timeout` seconds.
        """
        self._is_read = True
        try:
            return await asyncio.wait_for(self._inbox.get(), timeout)
        except Ended as end:
            raise end.error or ConnectionClosed(1000, was_clean=True, final=True) from None
        except asyncio.TimeoutError:
            raise TimeoutError(f"no message within {timeout:g} s") from None

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Give messages as `recv` does, until `close`; raise when something else ended it."""
        self._is_read = True
        while True:
            try:
                yield await self._inbox.get()
            except Ended as end:
                if end.error is not None:
                    raise end.error from None
                return

    # ── Calls ───────────────────────────────────────────────────────────────────────────────

    def call(
        self, method: str, args: Iterable[object] = (), *, timeout: float | None = None
    ) -> asyncio.Future[Any]:
        """Call a method: ``await client.call("add", [1, 2])``.

        It is sent at once, awaited or not. Cancelling it, or the task that awaits it, cancels
        the method.

        Parameters
        ----------
        timeout : float or None
            Seconds; None is the client's own, 0 waits for ever.

        Returns
        -------
        Future
            What the method returned. It fails with `CallFailed` when the method did, with
            `CallTimeout`, or with `CallAborted` when the connection ended first; its
            `transmitted` says if the method may have run.
        """
        limit = self._timeout if timeout is None else timeout
        try:
            call = self._side.call(method, self._checked(method, args), timeout=limit)
        except CallAborted as error:
            return _failed(error)
        future = self._waiting.future(call, limit, self._time())
        self._flush()
        return future

    def stream(self, method: str, args: Iterable[object] = ()) -> Stream:
        """Call a streaming method: ``async for chunk in client.stream("count", [3])``.

        It has no time limit.

        Raises
        ------
        CallAborted
            When the client is closed or its queue is full. Other errors come out of the iteration.
        """
        call = self._side.call(method, self._checked(method, args))
        stream = self._waiting.stream(call)
        self._flush()
        return stream

    def set_state(self, state: object, *, timeout: float | None = None) -> asyncio.Future[Any]:
        """Replace the shared state; shown here at once, and rolled back if the agent refuses it.

        Parameters
        ----------
        state : Any or Callable
            The next state, or a function that computes it from the present one; the function is
            asked again when somebody else's write came first, so that none is lost.
        timeout : float or None
            Seconds; None is the client's own, 0 waits for ever.

        Returns
        -------
        Future
            The state as the agent accepted it. It fails with `StateRejected` (why it was
            refused; also when it was made without a connection and somebody else's write came
            first), `ConnectionReadonly`, `CallTimeout` or `CallAborted`.
        """
        limit = self._timeout if timeout is None else timeout
        update = state if callable(state) else None
        try:
            self._check_backlog("set_state")
            write, events = self._side.write(MISSING if update else state, update)
        except CallAborted as error:
            return _failed(error)
        future = self._waiting.future(write, limit, self._time())
        self._dispatch(events)
        self._flush()
        return future

    def _checked(self, method: str, args: Iterable[object]) -> Iterable[object]:
        if isinstance(args, (str, bytes, Mapping)) or not isinstance(args, Iterable):
            raise TypeError(f"args is a list of arguments, not {type(args).__name__!r}")
        self._check_backlog(method)
        return args


class _Arrival:
    """What `AgentClient.ready` gives: looking at it starts nothing."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    def __await__(self) -> Generator[Any, None, None]:
        return self._client._arrive("ready").__await__()


def _tornado(policy: ReconnectPolicy, heartbeat: float, max_message_bytes: int) -> Opener:
    return TornadoOpener(
        timeout=policy.connect_timeout, heartbeat=heartbeat, max_message_bytes=max_message_bytes
    )


def _failed(error: Exception) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _starting_with(make: Callable[P, T]) -> Callable[P, T]:
    @partial(update_wrapper, wrapped=make, assigned=(), updated=())
    def connect(*args: P.args, **kwargs: P.kwargs) -> T:
        """Give a client to enter or to await: ``async with connect("chat-room") as client``.

        The arguments are those of `AgentClient`.
        """
        return make(*args, **kwargs)

    return connect


connect = _starting_with(AgentClient)
