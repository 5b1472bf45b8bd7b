"""The client without ``await``, for scripts, cells and tests.

    from jupyter_agents.client.sync import connect

    with connect("chat-room", "lobby") as client:
        client.call("shout", ["hi"])

Each client has a thread with a loop of its own, so that it works where another loop runs
already, as in a notebook. What it does is `client.AgentClient`'s.

Thread
------
Any. Listeners are called on the client's own thread, where they must not call it back and wait.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from jupyter_agents.client.client import AgentClient
from jupyter_agents.client.stub import Stub
from jupyter_agents.errors import ConnectionClosed
from jupyter_agents.protocol.closing import NORMAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from types import TracebackType

    from jupyter_agents.client.inbox import Stream
    from jupyter_agents.protocol.client_side import Message
    from jupyter_agents.protocol.names import Address

__all__ = ["SyncAgentClient", "SyncStream", "connect"]

P = ParamSpec("P")
T = TypeVar("T")


class _LoopThread:
    """A loop on a thread of its own."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(started)),
            name="jupyter-agents-client",
            daemon=True,
        )
        self._thread.start()
        self._loop = started.result()

    async def _live(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it there, and wait for the outcome. An interrupt of the one who waits cancels it."""
        if self.is_here:
            raise RuntimeError("a listener cannot wait for its own client")

        async def worker() -> T:
            return await work()

        coroutine = worker()
        try:
            outcome = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _over() from None
        try:
            return outcome.result()
        except CancelledError:
            # Closed by another thread in the meantime.
            raise _over() from None
        except BaseException:
            outcome.cancel()
            raise

    def do(self, work: Callable[[], T]) -> T:
        """Do something there that does not wait."""
        if self.is_here:
            return work()

        async def worker() -> T:
            return work()

        return self.run(worker)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_here(self) -> bool:
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End loop and thread."""
        if self.is_alive:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()


def _over() -> ConnectionClosed:
    return ConnectionClosed(NORMAL, "The client is closed", was_clean=True, final=True)


class SyncStream:
    """The values of a streaming call: ``for chunk in client.stream(…)``."""

    def __init__(self, loop: _LoopThread, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream

    @property
    def result(self) -> Any:
        """The value the method ended with; None before, and when there is none."""
        return self._stream.result

    def cancel(self) -> None:
        """End the call."""
        if self._loop.is_alive:
            self._loop.do(self._stream.cancel)

    def __iter__(self) -> SyncStream:
        return self

    def __next__(self) -> Any:
        try:
            return self._loop.run(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


class SyncAgentClient:
    """A client of one agent instance; its arguments and methods are `AgentClient`'s.

    It is connected when it is made, and must be closed.

    Attributes
    ----------
    stub : Stub
        ``client.stub.add(1, 2)``.
    """

    def __init__(self, make: Callable[[], AgentClient]) -> None:
        self._loop = _LoopThread()
        self._closing = threading.Lock()
        try:
            self._client = self._loop.do(make)
            self._client = self._loop.run(self._client.__aenter__)
        except BaseException:
            self._loop.stop()
            raise
        self.stub = Stub(self)

    def __repr__(self) -> str:
        return f"<Sync{repr(self._client)[1:]}"

    def __enter__(self) -> SyncAgentClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close for good, and end the thread (a listener closes only: it runs on that thread)."""
        if self._loop.is_here:
            self._client.close(code, reason)
            return
        with self._closing:
            if self._loop.is_alive:
                self._loop.do(partial(self._client.close, code, reason))
                self._loop.run(self._client.wait_closed)
                self._loop.stop()

    def reconnect(self) -> None:
        """Connect anew, and return when that is done."""
        self._loop.do(self._client.reconnect)
        self._client = self._loop.run(self._client.__aenter__)

    @property
    def id(self) -> str:
        """The connection's id."""
        return self._client.id

    @property
    def ready_state(self) -> str:
        """``"connecting"``, ``"open"`` or ``"closed"``."""
        return self._client.ready_state

    @property
    def identity(self) -> Address | None:
        """Whom the server said this client reached last."""
        return self._client.identity

    @property
    def connection_error(self) -> ConnectionClosed | None:
        """Why this client stopped by itself."""
        return self._client.connection_error

    @property
    def state(self) -> Any:
        """A copy of the shared state as known here; None at first."""
        return self._get(lambda: self._client.state)

    def set_state(self, state: object, *, timeout: float | None = None) -> Any:
        """Replace the shared state, and give it as the agent accepted it."""
        return self._loop.run(partial(self._client.set_state, state, timeout=timeout))

    def call(
        self, method: str, args: Iterable[object] = (), *, timeout: float | None = None
    ) -> Any:
        """Call a method, and give what it returned."""
        return self._loop.run(partial(self._client.call, method, args, timeout=timeout))

    def stream(self, method: str, args: Iterable[object] = ()) -> SyncStream:
        """Call a streaming method: ``for chunk in client.stream("count", [3])``."""
        stream = self._loop.do(partial(self._client.stream, method, args))
        return SyncStream(self._loop, stream)

    def send(self, message: str | bytes | bytearray | memoryview) -> bool:
        """Send text or bytes; False when it is dropped."""
        return self._get(partial(self._client.send, message))

    def send_json(self, value: object) -> bool:
        """Send a value as JSON text; like `send`."""
        return self._get(partial(self._client.send_json, value))

    def recv(self, timeout: float | None = None) -> Message:
        """Give the agent's next message, waiting up to `timeout` seconds for one."""
        return self._loop.run(partial(self._client.recv, timeout))

    def __iter__(self) -> Iterator[Message]:
        """Give messages, until the client is closed."""
        messages = aiter(self._client)
        while True:
            try:
                yield self._loop.run(messages.__anext__)
            except StopAsyncIteration:
                return

    def listen(self, event: str, listener: Callable[..., object]) -> Callable[[], None]:
        """Hear of an event (``"message"``, ``"state_update"``, …); gives the removal."""
        return self._get(partial(self._client.listen, event, listener))

    def _get(self, work: Callable[[], T]) -> T:
        # A closed client's loop is gone; what it knew last can still be read.
        return self._loop.do(work) if self._loop.is_alive else work()


def _made_by(make: Callable[P, AgentClient]) -> Callable[P, SyncAgentClient]:
    @partial(update_wrapper, wrapped=make, assigned=(), updated=())
    def connect(*args: P.args, **kwargs: P.kwargs) -> SyncAgentClient:
        """Give a connected client: ``with connect("chat-room", "lobby") as client``.

        The arguments are those of `AgentClient`.
        """
        return SyncAgentClient(partial(make, *args, **kwargs))

    return connect


connect = _made_by(AgentClient)
