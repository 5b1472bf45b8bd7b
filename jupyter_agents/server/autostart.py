"""Cells that are run again by the server: of classes served with ``autostart=True``.

Promises one run in each process of a kernel that has left such a class parked, in the order in
which the classes were served, and a line in the log for a cell that fails. Runs nothing in a
process that served the class already: a link that broke comes back by itself. Its other half is
`serving.py`, which sends the source along.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jupyter_agents.link.records import Served

__all__ = ["Autostart", "Processes"]

_log = logging.getLogger(__name__)

_READY_S = 60.0


class Processes(Protocol):
    """What is needed of the server's kernels."""

    def process(self, kernel_id: str) -> int | None:
        """The process id of the kernel as it is now; None while there is none."""

    def client(self, kernel_id: str) -> Any:
        """A new client of the kernel, as jupyter_client makes it for a coroutine."""


class Autostart:
    """Looks now and then for kernels that are back, and has their cells run.

    Parameters
    ----------
    served : callable
        Every class that is served or parked, in the order of serving.
    kernels : Processes
        The server's.
    log : logging.Logger
        Where people look.
    """

    def __init__(
        self,
        served: Callable[[], Iterable[Served]],
        kernels: Processes,
        log: logging.Logger | Any = _log,
    ) -> None:
        self._served = served
        self._kernels = kernels
        self._log = log
        self._tried: dict[str, int] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}

    def tick(self) -> None:
        """Begin with the kernels that are back; call it every second or so."""
        left: dict[str, list[Served]] = {}
        for served in self._served():
            if served.host is None and served.autostart:
                left.setdefault(str(served.about.get("kernel_id")), []).append(served)
        for kernel_id in self._tried.keys() - left.keys():
            del self._tried[kernel_id]
        for kernel_id, run in self._runs.items():
            if self._kernels.process(kernel_id) is None:
                run.cancel()  # it talks to a process that is no more
        for kernel_id, parked in left.items():
            process = self._kernels.process(kernel_id)
            ran = {self._tried.get(kernel_id), *(one.about.get("pid") for one in parked)}
            if process is not None and process not in ran:
                self._tried[kernel_id] = process
                self._begin(kernel_id, parked)

    def _begin(self, kernel_id: str, parked: list[Served]) -> None:
        if (before := self._runs.pop(kernel_id, None)) is not None:
            before.cancel()  # it talks to a process that is no more
        task = asyncio.get_running_loop().create_task(self._run(kernel_id, parked))
        self._runs[kernel_id] = task
        task.add_done_callback(lambda task: self._ended(kernel_id, task))

    def _ended(self, kernel_id: str, task: asyncio.Task[None]) -> None:
        if self._runs.get(kernel_id) is task:
            del self._runs[kernel_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("Autostart: kernel %s cannot be asked: %r", kernel_id, error)

    async def stop(self) -> None:
        """Ask no kernel any more."""
        runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    async def _run(self, kernel_id: str, parked: list[Served]) -> None:
        client = self._kernels.client(kernel_id)
        client.start_channels(stdin=False, hb=False)
        try:
            await client.wait_for_ready(timeout=_READY_S)
            ran: set[str] = set()
            for served in parked:
                # A person, or a cell before this one, may have been quicker.
                if served.host is None and served.autostart not in ran:
                    ran.add(served.autostart)
                    self._report(served, await _execute(client, served.autostart))
        finally:
            client.stop_channels()

    def _report(self, served: Served, reply: dict[str, Any]) -> None:
        what = f"Autostart of {served.class_name} ({served.where})"
        if reply.get("status") == "ok":
            self._log.info("%s: its cell was run again", what)
            return
        name, value = reply.get("ename", "error"), reply.get("evalue", "")
        hint = ""
        if name in ("NameError", "ImportError", "ModuleNotFoundError"):
            hint = "; only the cell that serves is run again, so it must import and define all"
        self._log.error("%s failed, its clients go on waiting: %s: %s%s", what, name, value, hint)


async def _execute(client: Any, source: str) -> dict[str, Any]:
    # Cells that a person has queued behind it run even if this one fails.
    request = client.execute(
        source, silent=False, store_history=False, allow_stdin=False, stop_on_error=False
    )
    while True:
        reply = await client.get_shell_msg()
        if reply["parent_header"].get("msg_id") == request:
            return dict(reply["content"])
