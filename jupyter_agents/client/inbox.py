"""Who waits for what the agent says: the reader of messages, the caller, the reader of a stream.

Promises bounds, that an end is told after what came before it, and that each question ends
once: with its answer, at its time limit, or because nobody waits for it any more. Must not know
frames or connections: that is `protocol.client_side`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jupyter_agents.errors import CallAborted, CallTimeout
from jupyter_agents.protocol.client_side import Call
from jupyter_agents.protocol.replica import Write

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from jupyter_agents.client.channel import Clock, Timer

__all__ = ["Asked", "Ended", "Inbox", "Stream", "Waiting"]

T = TypeVar("T")
Asked = Call | Write


class Ended(Exception):  # no error: a reader's way out
    """Nothing will come any more; `error` says why, None if all is well."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(error)
        self.error = error


class Inbox(Generic[T]):
    """A queue with a limit and an end.

    Parameters
    ----------
    limit : int
        How many items may wait.
    """

    def __init__(self, limit: int) -> None:
        self._items: deque[T] = deque()
        self._limit = limit
        self._end: Ended | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Add an item; False, and nothing is added, when the inbox is full."""
        if len(self._items) >= self._limit:
            return False
        self._items.append(item)
        self._wake()
        return True

    def drop_oldest(self) -> None:
        """Make room for one more."""
        if self._items:
            self._items.popleft()

    def end(self, error: Exception | None = None) -> None:
        """Tell readers, once they have read all, that nothing will come any more."""
        self._end = Ended(error)
        self._wake()

    def reopen(self) -> None:
        """Take the end back."""
        self._end = None

    async def get(self) -> T:
        """Give the next item, when there is one.

        Raises
        ------
        Ended
            When nothing is left and nothing will come.
        """
        while not self._items:
            if self._end is not None:
                raise Ended(self._end.error)
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return self._items.popleft()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class StreamFeed:
    """The client's end of a stream: what a call's answers are put into.

    It outlives nothing: the reader's end, `Stream`, is not referenced from here, so that a
    reader that walked away is noticed.
    """

    def __init__(self, method: str, limit: int) -> None:
        self.chunks: Inbox[Any] = Inbox(limit)
        self.is_over = False
        self.result: Any = None
        self._method = method

    def chunk(self, value: Any) -> CallAborted | None:
        """Take a chunk; the error, if the reader is too far behind."""
        if self.chunks.put(value):
            return None
        why = f"the reader is {len(self.chunks)} chunks behind"
        return CallAborted(self._method, transmitted=True, why=why)

    def done(self, value: Any, error: Exception | None) -> None:
        """Take the end."""
        if not self.is_over:
            self.is_over, self.result = True, value
            self.chunks.end(error)


class Stream:
    """The values of a streaming call, as they come: ``async for chunk in client.stream(…)``.

    Leaving the loop early, or the ``async with`` around it, cancels the call. Afterwards
    `result` is what the method ended with.

    Thread
    ------
    The client's loop only.
    """

    def __init__(self, feed: StreamFeed, cancel: Callable[[], None]) -> None:
        self._feed = feed
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()

    @property
    def result(self) -> Any:
        """The value the method ended with; None before, and when there is none."""
        return self._feed.result

    def cancel(self) -> None:
        """End the call: the method gets `asyncio.CancelledError`, and iterating stops."""
        if not self._feed.is_over:
            self._feed.done(None, None)
            self._cancel()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._feed.chunks.get()
        except Ended as end:
            if end.error is not None:
                raise end.error from None
            raise StopAsyncIteration from None
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        # A `break` leaves nobody to read the rest. This may run on any thread, and after the loop.
        if not self._feed.is_over:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_cancel_unread, self._feed, self._cancel)


def _cancel_unread(feed: StreamFeed, cancel: Callable[[], None]) -> None:
    if not feed.is_over:
        feed.done(None, None)
        cancel()


class Waiting:
    """Who waits for which answer.

    Parameters
    ----------
    forget : Callable
        ``forget(asked, timed_out)``: nobody waits any more.
    max_chunks : int
        How far the reader of a stream may fall behind.
    """

    def __init__(self, forget: Callable[[Asked, bool], None], max_chunks: int) -> None:
        self._forget = forget
        self._max_chunks = max_chunks
        self._futures: dict[Asked, tuple[asyncio.Future[Any], Timer | None]] = {}
        self._feeds: dict[Call, StreamFeed] = {}

    def future(self, asked: Asked, timeout: float | None, clock: Clock) -> asyncio.Future[Any]:
        """Give a future for the answer; cancelling it, or its time limit, gives the question up.

        Parameters
        ----------
        timeout : float or None
            Seconds; None and 0 wait for ever.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        timer = clock.call_later(timeout, self._expire, asked, timeout) if timeout else None
        self._futures[asked] = (future, timer)
        future.add_done_callback(partial(self._future_done, asked))
        return future

    def stream(self, call: Call) -> Stream:
        """Give a stream for the chunks of a call."""
        feed = self._feeds[call] = StreamFeed(call.method, self._max_chunks)
        return Stream(feed, partial(self._stream_cancelled, call))

    def chunk(self, call: Call, value: Any) -> None:
        """Pass a chunk on; a reader too far behind ends its stream."""
        feed = self._feeds.get(call)
        error = None if feed is None else feed.chunk(value)
        if feed is not None and error is not None:
            del self._feeds[call]
            feed.done(None, error)
            self._forget(call, False)

    def settle(self, asked: Asked, value: Any = None, error: Exception | None = None) -> None:
        """Pass an answer on."""
        feed = self._feeds.pop(asked, None) if isinstance(asked, Call) else None
        if feed is not None:
            feed.done(value, error)
        future, timer = self._futures.pop(asked, (None, None))
        if timer is not None:
            timer.cancel()
        if future is not None and not future.done():
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _expire(self, asked: Asked, seconds: float) -> None:
        method = asked.method if isinstance(asked, Call) else "set_state"
        # Settled first: what `forget` lets happen must not find it waiting.
        self.settle(asked, error=CallTimeout(method, seconds, asked.id))
        self._forget(asked, True)

    def _future_done(self, asked: Asked, future: asyncio.Future[Any]) -> None:
        if future.cancelled() and asked in self._futures:
            self.settle(asked)
            self._forget(asked, False)

    def _stream_cancelled(self, call: Call) -> None:
        if self._feeds.pop(call, None) is not None:
            self._forget(call, False)
