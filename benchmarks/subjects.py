"""What is measured: servers as processes, started, addressed and watched alike.

A subject says where to connect, which frames mean what, and how much CPU time and memory its
processes have used. How peers serve is in `peers.py`; the product runs in a real Jupyter Server
and a real kernel.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import CALL, TEXT
from scripts.jupyter_process import JupyterProcess

if TYPE_CHECKING:
    from scripts.jupyter_kernel import Kernel

HERE = Path(__file__).parent
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
MASK = b"\x1f\x2e\x3d\x4c"
AGENT = """
import json
import os
from jupyter_agents import Agent, callable_method, serve
from benchmarks.peers import LARGE, NEWS, ROWS, TEXT

class Bench(Agent):
    def on_message(self, connection, message):
        if isinstance(message, str):
            connection.send(message)
        elif len(message) == 1:
            self.broadcast(TEXT)
        elif len(message) == 2:
            self.set_state({**self.state, "count": self.state["count"] + 1})
        else:
            self.broadcast(LARGE if len(message) == 3 else NEWS)

    @callable_method
    def add(self, a: int, b: int) -> int:
        return a + b

class Board(Bench):
    initial_state = {"count": 100_000_000, "rows": ROWS}

class Big(Bench):
    initial_state = {"count": 100_000_000, "pages": [ROWS] * 100}

    def on_message(self, connection, message):
        if len(message) == 5:
            state = {**self.state, "count": self.state["count"] + 1}
            self.broadcast(json.dumps({"type": "cf_agent_state", "state": state}))
        else:
            super().on_message(connection, message)

bench = serve(Bench, storage="memory")
serve(Board, storage="memory")
serve(Big, storage="memory")
print(os.getpid())
"""


def masked(payload: bytes, opcode: int = 1) -> bytes:
    """One whole frame as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8, "big")
    key = int.from_bytes((MASK * (size // 4 + 1))[:size], "big")
    body = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
    return head + MASK + body


def cpu_clock_s(pid: int) -> float:
    """User and system time of all threads of a process so far, to the nanosecond on Linux."""
    if sys.platform == "linux":
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def rss_kib(pid: int) -> float:
    """Resident memory of a process."""
    import psutil

    return psutil.Process(pid).memory_info().rss / 1024


def place(pids: list[int], cpus: set[int]) -> None:
    """Have every thread of these processes run on these CPUs only."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # numbers, not paths
            try:
                os.sched_setaffinity(int(thread), cpus)
            except ProcessLookupError:
                pass


KINDS = {"state": "board", "big": "big", "big?_ja=1": "big"}
"""Rooms whose agents greet with a state: one of 10 KB, one of 1 MB; with ``_ja`` it is patched."""


def agent_path(room: str) -> str:
    """Where a room is, at servers of agents."""
    return f"/agents/{KINDS.get(room, 'bench')}/{room}"


class Subject:
    """One server under test.

    Attributes
    ----------
    name : str
        As the tables call it.
    port : int
        On 127.0.0.1.
    pids : dict
        Its processes by role: ``server``, and ``kernel`` where there is one.
    commands : dict
        The frames a client sends: ``echo``, ``all``, ``state``, ``large``, ``call``.
    first : bytes
        Frames that a client sends before anything else.
    hello : bytes
        What the answer to the first message has in it.
    headers : str
        Lines of the upgrade request.
    """

    name = ""
    note = ""
    first = b""
    hello = b"hello, anybody there?"
    headers = ""
    has_calls = has_state = has_large = True
    echo_overhead = 0

    def __init__(self) -> None:
        self.port = 0
        self.pids: dict[str, int] = {}
        self.commands = {
            "echo": masked(TEXT.encode()),
            "all": masked(b"1", 2),
            "state": masked(b"12", 2),
            "large": masked(b"123", 2),
            "news": masked(b"1234", 2),
            "dumps": masked(b"12345", 2),
            "call": masked(CALL.encode()),
        }
        self._process: subprocess.Popen[str] | None = None

    def why_not(self) -> str:
        """Why it cannot be started here; empty when it can."""
        return ""

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            self.command(), stdout=subprocess.PIPE, text=True, cwd=HERE.parent,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} did not start")
        self.port = self.read_port(line)
        self.pids = {"server": self._process.pid}

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def command(self) -> list[str]:
        """What starts it; it prints its port."""
        raise NotImplementedError

    def read_port(self, line: str) -> int:
        """The port out of the first line it printed."""
        return int(line)

    def path(self, room: str) -> str:
        """The URL's path, for the members of one room."""
        return f"/{room}"

    def message(self, text: str) -> bytes:
        """A frame whose text comes back."""
        return masked(text.encode())

    def cpu_s(self) -> dict[str, float]:
        """CPU time of each of its processes so far."""
        return {role: cpu_clock_s(pid) for role, pid in self.pids.items()}

    def rss_kib(self) -> dict[str, float]:
        """Resident memory of each of its processes."""
        return {role: rss_kib(pid) for role, pid in self.pids.items()}


class Peer(Subject):
    """A peer of `peers.py`."""

    def __init__(self, kind: str, name: str, *needs: str) -> None:
        super().__init__()
        self.kind, self.name, self._needs = kind, name, needs

    def why_not(self) -> str:
        missing = [name for name in self._needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(missing)} cannot be imported" if missing else ""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.peers", self.kind]


class DeflatingPeer(Peer):
    """A peer whose clients can inflate, and that compresses everything."""

    headers = DEFLATE
    hello = b""


class SocketIO(Peer):
    """python-socketio: its messages are events in frames of its own."""

    has_calls = has_large = False
    headers = ""
    first = masked(b"40")

    def __init__(self) -> None:
        super().__init__("socketio", "python-socketio", "socketio", "uvicorn")
        self.commands |= {
            "echo": self.message(TEXT),
            "all": masked(b'42["b","1"]'),
            "state": masked(b'42["b","12"]'),
            "large": masked(b'42["b","123"]'),
        }

    def path(self, room: str) -> str:
        return "/socket.io/?EIO=4&transport=websocket"

    def message(self, text: str) -> bytes:
        return masked(f'42["m",{json.dumps(text)}]'.encode())


class InC(Subject):
    """The limit: `climit.c`."""

    name = "C, one send each"
    has_calls = has_state = False

    def why_not(self) -> str:
        has = sys.platform == "linux" and shutil.which("cc")
        return "" if has else "needs Linux and a C compiler, cc"

    def command(self) -> list[str]:
        self._home = tempfile.TemporaryDirectory()
        program = Path(self._home.name) / "climit"
        subprocess.run(["cc", "-O2", str(HERE / "climit.c"), "-o", str(program)], check=True)
        return [str(program)]


class Workerd(Subject):
    """The real Agents SDK, bundled into one module, in a durable object of workerd."""

    name = "Agents SDK on workerd"
    folder = HERE / "workerd"

    def why_not(self) -> str:
        if not (self.folder / "node_modules").is_dir():
            return "`npm install` in benchmarks/workerd brings it"
        return "" if shutil.which("node") else "needs Node"

    def command(self) -> list[str]:
        subprocess.run(["node", "build.mjs"], cwd=self.folder, check=True)
        self._home = tempfile.TemporaryDirectory()
        program = self.folder / "node_modules" / "workerd" / "bin" / "workerd"
        return [
            str(program), "serve", str(self.folder / "config.capnp"),
            "--socket-addr=http=127.0.0.1:0", f"--directory-path=disk={self._home.name}",
            "--control-fd=1",
        ]  # fmt: skip

    def read_port(self, line: str) -> int:
        return int(json.loads(line)["port"])

    def path(self, room: str) -> str:
        return agent_path(room)


class InJupyter(Subject):
    """Something in a real Jupyter Server, signed in by token."""

    extension = "jupyter_agents"
    options: tuple[str, ...] = ()
    more_headers = ""

    def start(self) -> None:
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.jupyter = JupyterProcess(Path(self._home.name), options=self.options)
        _enable(self.jupyter, self.extension)
        self.jupyter.start()
        assert self.jupyter.process is not None
        self.port = self.jupyter.port
        self.headers = f"Authorization: token {self.jupyter.token}\r\n{self.more_headers}"
        self.pids = {"server": self.jupyter.process.pid}

    def stop(self) -> None:
        self.jupyter.stop()
        self._home.cleanup()


class HandlerInJupyter(InJupyter):
    """Tornado's WebSocketHandler behind Jupyter's sign-in, without agents."""

    name = "WebSocketHandler in Jupyter"
    extension = "benchmarks.peers"

    def path(self, room: str) -> str:
        return f"/echo/{room}"


class Product(InJupyter):
    """jupyter_agents: Jupyter Server, and the agent in a kernel of it."""

    name = "jupyter_agents"
    kernel: Kernel

    def start(self) -> None:
        super().start()
        self.kernel = self.jupyter.kernel()
        self.pids["kernel"] = int(self.kernel.run(AGENT).text.split()[-1])

    def path(self, room: str) -> str:
        return agent_path(room)


class Deflating(Product):
    """The product with compression switched on, and clients that can inflate."""

    name = "jupyter_agents, compressing"
    options = ("--AgentsApp.compression=True",)
    more_headers = DEFLATE


def _enable(jupyter: JupyterProcess, extension: str) -> None:
    path = jupyter.home / "config" / "jupyter_server_config.json"
    config = json.loads(path.read_text())
    config["ServerApp"]["jpserver_extensions"][extension] = True
    path.write_text(json.dumps(config))


def all_subjects() -> dict[str, Subject]:
    """Everything there is, by the name that ``--peers`` takes; the product first."""
    return {
        "product": Product(),
        "tornado": Peer("tornado", "Tornado"),
        "websockets": Peer("websockets", "websockets", "websockets"),
        "starlette": Peer("starlette", "Starlette + uvicorn", "starlette", "uvicorn"),
        "aiohttp": Peer("aiohttp", "aiohttp", "aiohttp"),
        "picows": Peer("picows", "picows", "picows"),
        "socketio": SocketIO(),
        "workerd": Workerd(),
        "deflate": Deflating(),
        "tornado-deflate": DeflatingPeer("tornado_deflate", "Tornado, compressing"),
        "handler": HandlerInJupyter(),
        "c": InC(),
    }
