"""Which server to talk to when nobody says: this kernel's own, or the newest that runs.

Reads the small files that servers leave in Jupyter's runtime directory; asks no network, and
does not import Jupyter Server, which takes longer than connecting. Its other halves are Jupyter
Server itself and `standalone`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["RunningServer", "ServerNotFound", "find_server", "running_servers"]

NOBODY = (
    "No running Jupyter Server was found: start `jupyter lab`, or say where one is: "
    'host="http://HOST:PORT/", token="…"'
)


class ServerNotFound(ConnectionError):  # named as its cousins in errors
    """No server is known; the sentence says what to do about it."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that says it is running.

    Attributes
    ----------
    url : str
        Ends in its base_url.
    token : str
        Its login token; empty where it has none.
    pid : int
        Its process; 0 when not known.
    """

    url: str
    token: str = ""
    pid: int = 0


def find_server(
    environ: Mapping[str, str] | None = None,
    runtime_dir: Path | None = None,
    is_alive: Callable[[int], bool] | None = None,
) -> RunningServer:
    """Give the server that host=None means.

    In this order: agents that this very process serves without Jupyter; the server that started
    this kernel; the server whose terminal this is (``JUPYTER_SERVER_URL``); the newest one that
    runs.

    Raises
    ------
    ServerNotFound
        When there is none.
    """
    environ = os.environ if environ is None else environ
    servers = running_servers(runtime_dir, is_alive)
    parent = environ.get("JPY_PARENT_PID", "")
    for pid in (os.getpid(), int(parent) if parent.isdigit() else 0):
        for server in servers:
            if pid and server.pid == pid:
                return server
    return _from_environment(environ, servers) or _first(servers)


def running_servers(
    runtime_dir: Path | None = None, is_alive: Callable[[int], bool] | None = None
) -> list[RunningServer]:
    """List the servers of this user on this machine whose process lives, newest first."""
    alive = is_alive or _is_alive
    folder = _runtime_dir() if runtime_dir is None else runtime_dir
    files = [*folder.glob("jpserver-*.json"), *folder.glob("jpagents-*.json")]
    found = [_read(path) for path in sorted(files, key=_age)]
    return [server for server in found if server is not None and alive(server.pid)]


def _first(servers: list[RunningServer]) -> RunningServer:
    if not servers:
        raise ServerNotFound(NOBODY)
    return servers[0]


def _from_environment(
    environ: Mapping[str, str], servers: list[RunningServer]
) -> RunningServer | None:
    url = environ.get("JUPYTER_SERVER_URL", "")
    if not url:
        return None
    known = next((each for each in servers if each.url.rstrip("/") == url.rstrip("/")), None)
    token = environ.get("JUPYTER_TOKEN", "") or environ.get("JUPYTERHUB_API_TOKEN", "")
    return known or RunningServer(url, token)


def _read(path: Path) -> RunningServer | None:
    """Read what a server says about itself; None if half-written, or out of our reach."""
    try:
        info: dict[str, Any] = json.loads(path.read_text("utf-8"))
        url, pid = str(info["url"]), int(info["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not url.startswith(("http://", "https://")):
        # A server on a Unix socket (http+unix://) has no address for a WebSocket client.
        return None
    base = str(info.get("base_url") or "/").strip("/")
    if base and not url.rstrip("/").endswith(f"/{base}"):
        url = f"{url.rstrip('/')}/{base}/"
    return RunningServer(url, str(info.get("token") or ""), pid)


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def _runtime_dir() -> Path:
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir())


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return _is_alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except PermissionError:
        # It lives, but belongs to someone else.
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0


def _is_alive_on_windows(pid: int) -> bool:
    # os.kill would end the process there.
    import ctypes

    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined]
    handle = kernel32.OpenProcess(0x100000, 0, pid)
    if handle:
        kernel32.CloseHandle(handle)
    return bool(handle)
