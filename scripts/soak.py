"""Holds many connections for a long time, and tells what that costs in memory.

``python scripts/soak.py --connections 5000 --minutes 60``: a real Jupyter Server with a kernel.
Each client says something every half a minute or so and must be answered; 1 if any was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.jupyter_process import JupyterProcess, jupyter_process  # noqa: E402

CELL = """
import os
from jupyter_agents import Agent, serve

class Soak(Agent):
    initial_state = {"n": 0}

    def on_message(self, connection, message):
        connection.send(message)

served = serve(Soak, storage="memory")
print(os.getpid())
"""
ROOMS = 50
AT_ONCE = 50
MIB = 1 << 20


class Soak:
    """The clients, and what became of them.

    Parameters
    ----------
    server : JupyterProcess
    every_s : float
        How long a client is silent, on average.
    """

    def __init__(self, server: JupyterProcess, every_s: float) -> None:
        self._server = server
        self._every_s = every_s
        self._opening = asyncio.Semaphore(AT_ONCE)
        self.answers = 0
        self.slowest = 0.0
        self.open = 0
        self.opened = asyncio.Event()

    async def hold(self, number: int) -> None:
        """One client, until it is cancelled; a lost connection or answer is an error."""
        url = f"{self._server.ws_url}agents/soak/room{number % ROOMS}"
        options: dict[str, Any] = {
            "additional_headers": {"Authorization": f"token {self._server.token}"},
            "proxy": None,
            "compression": None,
            "open_timeout": 60,
        }
        async with AsyncExitStack() as stack:
            async with self._opening:
                socket = await stack.enter_async_context(connect(url, **options))
                await socket.recv()
                await socket.recv()
            self.open += 1
            self.opened.set()
            try:
                while True:
                    await asyncio.sleep(random.uniform(0, 2 * self._every_s))
                    await self._ask(socket, f"{number} {self.answers}")
            finally:
                self.open -= 1

    async def _ask(self, socket: Any, text: str) -> None:
        began = time.monotonic()
        await socket.send(text)
        answer = await asyncio.wait_for(socket.recv(), 60)
        if answer != text:
            raise RuntimeError(f"{answer!r} came instead of {text!r}")
        self.answers += 1
        self.slowest = max(self.slowest, time.monotonic() - began)


async def soak(server: JupyterProcess, kernel_pid: int, options: argparse.Namespace) -> int:
    """Open, hold, report; returns how many clients were lost."""
    assert server.process is not None
    pids = {"server": server.process.pid, "kernel": kernel_pid}
    before = {name: memory(pid) for name, pid in pids.items()}
    clients = Soak(server, options.every)
    tasks = [asyncio.create_task(clients.hold(n)) for n in range(options.connections)]
    for task in tasks:
        task.add_done_callback(lambda task: clients.opened.set())
    while clients.open < options.connections and not any(task.done() for task in tasks):
        await clients.opened.wait()
        clients.opened.clear()
    print(f"{clients.open} connections are open")
    print("minute   server MiB  kernel MiB    answers  slowest ms")
    began = time.monotonic()
    while (passed := time.monotonic() - began) < options.minutes * 60:
        report(passed, pids, clients)
        await asyncio.sleep(min(options.report, options.minutes * 60 - passed))
    report(passed, pids, clients)
    for name, pid in pids.items():
        each = (memory(pid) - before[name]) / max(options.connections, 1)
        print(f"{name}: {each / 1024:.1f} KiB for each connection")
    lost = [task for task in tasks if task.done()]
    for task in lost[:5]:
        print(f"lost: {task.exception()!r}", file=sys.stderr)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return len(lost)


def report(passed: float, pids: dict[str, int], clients: Soak) -> None:
    """One line of the table."""
    sizes = [memory(pid) / MIB for pid in pids.values()]
    print(
        f"{passed / 60:6.1f}  {sizes[0]:10.1f}  {sizes[1]:10.1f}  "
        f"{clients.answers:9d}  {clients.slowest * 1000:10.0f}",
        flush=True,
    )
    clients.slowest = 0.0


def memory(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Run it; 0 when nobody was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=30, help="seconds between two messages")
    parser.add_argument("--report", type=float, default=60, help="seconds between two lines")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        jupyter_process(Path(home)) as server,
    ):
        kernel = server.kernel()
        kernel_pid = int(kernel.run(CELL).text)
        lost = asyncio.run(soak(server, kernel_pid, options))
        kernel.shutdown()
    print(f"{lost} connections were lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
