"""A real Jupyter Server in a process of its own, and kernels in it, driven as a browser would.

For the demo, the tests marked `processes` and `browser`, and the benchmarks. Uses only what
Jupyter Server itself installs. All is blocking code: the process under test runs the loops.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import websocket

from scripts.jupyter_kernel import JupyterProcessError, Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]
LOG_TAIL = 60
OTHER_EXTENSIONS = (
    "jupyter_lsp", "jupyter_server_terminals", "jupyterlab", "jupyterlab_jupytext", "jupytext",
    "notebook", "notebook_shim",
)  # fmt: skip

# These servers are on this machine: a proxy from the environment would only be in the way.
_open = build_opener(ProxyHandler({})).open


@dataclass
class JupyterProcess:
    """A running ``jupyter server`` (or ``lab``) with directories, port and token of its own.

    Parameters
    ----------
    home : Path
        An empty folder for all it writes: HOME, configuration, runtime files, notebooks, log.
    base_url : str
        Starts and ends with a slash; ``/user/ann/`` is what JupyterHub would set.
    app : str
        The Jupyter subcommand, ``server`` or ``lab``.
    options : sequence of str
        More command-line options, such as ``--AgentsApp.park_grace_s=2``.
    token : str or None
        None draws one; "" switches sign-in off.
    env : dict
        More environment variables for the server and its kernels.
    """

    home: Path
    base_url: str = "/"
    app: str = "server"
    options: Sequence[str] = ()
    token: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.token = secrets.token_hex(16) if self.token is None else self.token
        self.port = self.port or free_port()
        for name in ("config", "data", "runtime", "notebooks", "workspaces", "settings"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        self._configure()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT{base_url}``, with the slash at its end."""
        return f"http://127.0.0.1:{self.port}{self.base_url}"

    @property
    def ws_url(self) -> str:
        """The same for WebSockets."""
        return self.url.replace("http", "ws", 1)

    @property
    def notebooks(self) -> Path:
        """The folder that the server shows."""
        return self.home / "notebooks"

    @property
    def log_path(self) -> Path:
        """Where the server's output goes."""
        return self.home / "server.log"

    def start(self, limit_s: float = 60) -> JupyterProcess:
        """Start the process and wait until it answers."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(), cwd=self.home, env=self._environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + limit_s
        while not self._answers():
            if self.process.poll() is not None:
                raise self.problem(f"It ended with {self.process.returncode} while starting")
            if time.monotonic() > deadline:
                self.stop()
                raise self.problem(f"It did not answer within {limit_s:g} s")
            time.sleep(0.05)
        return self

    def stop(self, limit_s: float = 10) -> None:
        """Ask it to end, and its kernels with it; after the limit end the whole process group."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would: kill -9, of the server alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def request(self, method: str, path: str, body: Any = None, limit_s: float = 30) -> Any:
        """Call its REST API below the base URL, signed in, and return the JSON answer."""
        status, answer = self.fetch(method, path, body, limit_s=limit_s)
        if status >= 400:
            raise self.problem(f"{method} {path} was answered with {status}: {answer[:500]!r}")
        return json.loads(answer) if answer else None

    def fetch(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        limit_s: float = 30,
    ) -> tuple[int, bytes]:
        """Return status and body of any request; `headers` replace the signed-in ones."""
        data = None if body is None else json.dumps(body).encode()
        signed_in = {"Authorization": f"token {self.token}"} if self.token else {}
        request = Request(self.url + path, data, headers or signed_in, method=method)
        try:
            with _open(request, timeout=limit_s) as response:
                return response.status, response.read()
        except HTTPError as error:
            return error.code, error.read()
        except URLError as error:
            raise self.problem(f"{method} {path}: {error.reason}") from error

    def connect(self, path: str, *, token: bool = True, **options: Any) -> websocket.WebSocket:
        """Open a WebSocket below the base URL; signed in by header unless `token` is false."""
        header = [f"Authorization: token {self.token}"] if token and self.token else []
        options = {"timeout": 30, "header": header, "http_no_proxy": ["127.0.0.1"], **options}
        return websocket.create_connection(self.ws_url + path, **options)

    def kernel(self, path: str | None = None) -> Kernel:
        """Start a kernel as a notebook at `path` would, through the sessions API."""
        path = path or f"{uuid.uuid4().hex}.ipynb"
        model = {"path": path, "name": Path(path).name, "type": "notebook", "kernel": {}}
        session = self.request("POST", "api/sessions", model, limit_s=60)
        return Kernel(self, session["kernel"]["id"], session["id"])

    def log(self) -> str:
        """Everything it has printed so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def problem(self, sentence: str) -> JupyterProcessError:
        """Describe what went wrong, with the end of the log, as an exception to raise."""
        tail = "\n".join(self.log().splitlines()[-LOG_TAIL:])
        return JupyterProcessError(f"{sentence}\n--- the end of {self.log_path} ---\n{tail}")

    def _configure(self) -> None:
        # The lab needs its own; `jupyter server` starts in half the time without the others
        others = {} if self.app == "lab" else dict.fromkeys(OTHER_EXTENSIONS, False)
        config = {"ServerApp": {"jpserver_extensions": {**others, "jupyter_agents": True}}}
        path = self.home / "config" / "jupyter_server_config.json"
        path.write_text(json.dumps(config))
        # Lab would open a dialog that asks whether it may look for news
        page = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
        (self.home / "config" / "labconfig").mkdir(exist_ok=True)
        (self.home / "config" / "labconfig" / "page_config.json").write_text(json.dumps(page))

    def _answers(self) -> bool:
        try:
            with _open(f"{self.url}api?token={self.token}", timeout=2) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False

    def _command(self) -> list[str]:
        config = {
            "ip": "127.0.0.1",
            "port": self.port,
            "port_retries": 0,
            "base_url": self.base_url,
            "root_dir": self.notebooks,
            "open_browser": False,
            "allow_root": True,
        }
        fixed = [f"--ServerApp.{name}={value}" for name, value in config.items()]
        sign_in = f"--IdentityProvider.token={self.token}"
        return [sys.executable, "-m", "jupyter", self.app, *fixed, sign_in, *self.options]

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JUPYTER", "JPY_", "PYTEST", "COV_"))
        }
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return {
            **inherited,
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}",
            "PYTHONPATH": python_path,
            "PYTHONUNBUFFERED": "1",
            "JUPYTER_CONFIG_DIR": str(self.home / "config"),
            "JUPYTER_DATA_DIR": str(self.home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.home / "runtime"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.home / "workspaces"),
            "JUPYTERLAB_SETTINGS_DIR": str(self.home / "settings"),
            **self.env,
        }


@contextmanager
def jupyter_process(home: Path, **options: Any) -> Iterator[JupyterProcess]:
    """Run a server for the length of a block."""
    server = JupyterProcess(home, **options)
    try:
        yield server.start()
    finally:
        server.stop()


def free_port(wanted: int = 0) -> int:
    """Return the port that was wanted if nobody has it, else one that is free."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
