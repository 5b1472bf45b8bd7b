"""The agents' thread: its event loop, its turns, and the watchdog that names what blocks it.

Agents live beside the cells, so that they answer while a cell runs; an interrupt of a cell does
not reach them. A *turn* is one uninterrupted run of agent code: at its end what was put off is
done, the storage commits, and then the turn's frames leave in one write. In tests the loop is the
test's own, and no thread is started.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import HostStopped, LinkError
from jupyter_agents.host.storage import Commits
from jupyter_agents.host.uplink import LostFrames
from jupyter_agents.instance.hooks import Tasks
from jupyter_agents.link.frames import pack_object

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jupyter_agents.host.storage import Storage
    from jupyter_agents.host.uplink import Uplink

__all__ = ["AgentLoop", "AgentThread"]

_log = logging.getLogger("jupyter_agents")

MAX_POSTED = 10_000
"""What other threads may have posted and the agents' thread has not done; past it they wait."""

POSTS_A_TURN = 1_000
"""How much of it is done before the loop turns to clients."""

BYTES_A_WRITE = 1024 * 1024
"""What a turn for other threads has sent before it looks whether the link is full."""

SLICE_S = 0.5
"""Who waits looks up this often, so that an interrupt is heard on every platform."""


class AgentLoop:
    """Work on one loop, turn by turn, for callers on any thread.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Where agents run.
    thread_id : int, optional
        The loop's thread; the calling one by default.
    outbox_bytes : int
        What may wait for the link; past it a send raises LinkError.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, thread_id: int | None, outbox_bytes: int
    ) -> None:
        self.loop = loop
        self.uplink: Uplink | None = None
        self.lost = LostFrames()
        """Where frames go while there is no link."""
        self.running: Callable[..., Any] | None = None
        """The author's function that was called last, for the watchdog."""
        self.thread_id = thread_id or threading.get_ident()
        self._outbox: list[tuple[int, int, bytes]] = []
        self._outbox_bytes = 0
        self._outbox_limit = outbox_bytes
        self._turn_planned = False
        self._later: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._post_planned = False
        self._has_room = threading.Event()
        self._commits = Commits(loop, self.turn)
        self.under_way = Tasks(self)
        self._awaited: set[Future[Any]] = set()
        self._stopped = False

    # -- threads -------------------------------------------------------------------------------

    def is_here(self) -> bool:
        """Whether the caller is on the agents' thread."""
        return threading.get_ident() == self.thread_id

    def do(self, function: Callable[..., object], *args: Any) -> None:
        """Do it now on the agents' thread, else post it; order is kept per posting thread."""
        if threading.get_ident() == self.thread_id and not self.posted:
            function(*args)
        else:
            self.post(function, *args)

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Queue work for the agents' thread, with one wake-up however much is queued."""
        if len(self.posted) >= MAX_POSTED:
            self._wait_for_room()
        if self._stopped or self.loop.is_closed():
            raise HostStopped
        try:
            self.posted.append((function, args))
        finally:  # an interrupt of the cell leaves nothing in the queue that nobody looks for
            if not self._post_planned:
                self._plan_posted()

    def _plan_posted(self) -> None:
        self._post_planned = True
        try:
            self.loop.call_soon_threadsafe(self._run_posted)
        except RuntimeError:  # closed just now
            raise HostStopped from None
        except BaseException:  # an interrupt: the loop may not have heard of it
            self.loop.call_soon_threadsafe(self._run_posted)
            raise

    def _wait_for_room(self) -> None:
        # a cell that sends faster than the link takes it is slowed down here; nothing is lost
        while len(self.posted) >= MAX_POSTED and not self.is_here():
            self._has_room.clear()
            if self._stopped or self.loop.is_closed() or len(self.posted) < MAX_POSTED:
                break
            self._has_room.wait(SLICE_S)

    def _run_posted(self) -> None:
        self._post_planned = False
        posted = self.posted
        # A part of them, so that a cell that posts on and on leaves room for clients, and then
        # for the loop, which gives the cell its turn of the interpreter.
        for _ in range(0 if self._is_full() else min(len(posted), POSTS_A_TURN)):
            function, args = posted.popleft()
            self._turn_planned = True  # as `begin_turn`: the end of the turn follows below
            try:
                function(*args)
            except BaseException as error:
                _log_failure(error)
            if self._outbox_bytes >= BYTES_A_WRITE:
                self.end_turn()
                if self._is_full():
                    break
        self.end_turn()
        self._go_on_posted()

    def _go_on_posted(self) -> None:
        # half of the queue at a time: who waits is not woken for a single place
        if len(self.posted) <= MAX_POSTED // 2 and not self._has_room.is_set():
            self._has_room.set()
        if self.posted and not self._post_planned and not self._is_full():
            self._post_planned = True
            self.loop.call_soon(self._run_posted)

    def safely(self, function: Callable[..., None], *args: Any) -> None:
        """Call it; an error is logged, and ends neither the turn nor the thread."""
        try:
            function(*args)
        except BaseException as error:
            _log_failure(error)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function, sync or async, on the agents' thread, after what was posted before.

        The future fails with HostStopped when the thread ends first.
        """
        future: Future[Any] = Future()
        self._awaited.add(future)
        future.add_done_callback(self._awaited.discard)

        def work() -> None:
            if future.done():  # nobody waits any more
                return
            try:
                result = function(*args)
            except BaseException as error:
                self._deliver(future, None, error)
                return
            if inspect.isawaitable(result):
                self._resolve_later(future, result)
            else:
                self._deliver(future, result, None)

        if self.is_here():
            work()
        else:
            # in the caller's context: one wake-up does what several threads posted
            self.post(contextvars.copy_context().run, work)
        return future

    def _deliver(self, future: Future[Any], value: Any, error: BaseException | None) -> None:
        self.end_turn()  # what the caller did is saved and told before the caller goes on
        if self._stopped and isinstance(error, asyncio.CancelledError):
            error = HostStopped()
        with suppress(InvalidStateError):  # its caller gave up
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _resolve_later(self, future: Future[Any], result: Awaitable[Any]) -> None:
        cancel = self.spawn(result, contextvars.copy_context(), partial(self._deliver, future))

        def gave_up(future: Future[Any]) -> None:
            if future.cancelled() and not self.loop.is_closed():
                self.loop.call_soon_threadsafe(cancel)

        future.add_done_callback(gave_up)

    def result(
        self,
        future: Future[Any],
        began: threading.Event,
        limit_s: float,
        obstacle: Callable[[], str],
    ) -> Any:
        """What submitted work returned or raised, for a caller on another thread.

        Raises
        ------
        TimeoutError
            When the work has not begun within `limit_s`; it is not done then. `obstacle` says why.
        HostStopped
            When the thread ends first.
        """
        slices = max(1, round(limit_s / SLICE_S))
        while not wait([future], limit_s / slices).done:
            if self._stopped or not self.loop.is_running():
                raise HostStopped
            slices -= not began.is_set()
            if slices <= 0 and future.cancel():
                raise TimeoutError(f"no answer within {limit_s:g} s: {obstacle()}")
        return future.result()

    def refuse_work(self) -> None:
        """From now on nothing is taken; who waits for something hears HostStopped."""
        self._stopped = True
        self._commits.end()
        self._has_room.set()
        for future in list(self._awaited):
            with suppress(InvalidStateError):
                future.set_exception(HostStopped())

    def spawn(
        self,
        awaitable: Awaitable[Any],
        context: contextvars.Context,
        done: Callable[[Any, BaseException | None], None],
    ) -> Callable[[], object]:
        """Make a task of what a hook left to await; `done` gets its value or its error."""
        return self.under_way.spawn(awaitable, context, done)

    # -- the turn ------------------------------------------------------------------------------

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Queue one frame for the end of this turn."""
        waiting = self._outbox_bytes
        if waiting > self._outbox_limit:
            raise LinkError("Jupyter Server does not keep up with what the agents send")
        self._outbox.append((kind, number, payload))
        self._outbox_bytes = waiting + len(payload)
        if not self._turn_planned:
            self.turn()

    def send_object(self, kind: int, number: int, value: Any) -> None:
        """Queue one frame of our own control data."""
        self.send(kind, number, pack_object(value))

    def later(self, function: Callable[..., None], *args: Any) -> None:
        """Do it at the end of this turn, before its frames leave."""
        self._later.append((function, args))
        self.turn()

    def touched(self, storage: Storage) -> None:
        """This storage has something to commit with this turn."""
        self._commits.touched.add(storage)
        self.turn()

    def begin_turn(self) -> None:
        """Plan no other end of this turn: the caller's `end_turn` follows, whatever happens."""
        self._turn_planned = True

    def turn(self) -> None:
        """Make sure that the turn is ended soon."""
        if not self._turn_planned:
            self._turn_planned = True
            self.loop.call_soon(self.end_turn)

    @property
    def tasks(self) -> frozenset[asyncio.Task[Any]]:
        """What hooks left to await."""
        return frozenset(self.under_way.tasks)

    @property
    def is_busy(self) -> bool:
        """Whether something will happen without anything more coming in."""
        return bool(self._later or self.posted or self._outbox or self._turn_planned)

    def end_turn(self) -> None:
        """Finish what was put off, commit, and let the frames leave, in this order."""
        if self._later:
            self._do_later()
        if self._commits.touched:
            self._commits.commit()
        self._turn_planned = False
        outbox = self._outbox
        if outbox:
            uplink = self.uplink or self.lost
            if not uplink.is_full:
                self._outbox, self._outbox_bytes = [], 0
                uplink.send_frames(outbox)

    def _do_later(self) -> None:
        self._turn_planned = True  # what is done now need not plan another one
        rounds = len(self._later) + 10_000
        while self._later and rounds:
            rounds -= 1
            function, args = self._later.popleft()
            self.safely(function, *args)
        if self._later:
            self.loop.call_soon(self.end_turn)

    def _is_full(self) -> bool:
        return self.uplink is not None and self.uplink.is_full

    def link_has_room(self) -> None:
        """The link takes more: what waited goes on."""
        self.end_turn()
        self._go_on_posted()

    async def drained(self) -> None:
        """Return when the link has room."""
        if self.uplink is not None:
            self.end_turn()
            await self.uplink.drained()


def _log_failure(error: BaseException) -> None:  # sys.exit(), too
    _log.error("Work for the agents' thread failed: %r", error, exc_info=error)


class AgentThread:
    """Starts on creation; `stop` ends it.

    Parameters
    ----------
    name : str
        The thread's name, seen in debuggers.
    on_stall : callable, optional
        Called on the watchdog's thread with the seconds that the loop has not turned, once per
        stall.
    stall_s : float
        How long the loop may stand still before `on_stall`.
    """

    def __init__(
        self,
        name: str = "jupyter-agents",
        on_stall: Callable[[float], None] | None = None,
        stall_s: float = 1.0,
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self._on_stall = on_stall
        self._stall_s = stall_s
        self._stopped = threading.Event()
        # an empty context: the thread must not hold on to the cell that happened to start it
        context = contextvars.Context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name=name, daemon=True
        )
        self._thread.start()
        if on_stall is not None:
            threading.Thread(target=self._watch, name=f"{name}-watchdog", daemon=True).start()

    @property
    def ident(self) -> int:
        """The thread's identity, for `threading.get_ident`."""
        return self._thread.ident or 0

    @property
    def is_alive(self) -> bool:
        """Whether the loop still turns."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._wind_down()

    def _wind_down(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the loop; returns when it has ended, or after `timeout_s` when a hook blocks it."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.get_ident() != self.ident:
            self._thread.join(timeout_s)

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Run something on the loop, soon."""
        self.loop.call_soon_threadsafe(function, *args)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            turned = threading.Event()
            try:
                self.loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return
            if not turned.wait(self._stall_s) and not self._stopped.is_set():
                assert self._on_stall is not None
                self._on_stall(self._stall_s)
                turned.wait()
            self._stopped.wait(self._stall_s / 2)
