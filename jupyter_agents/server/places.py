"""Where a server and its kernels meet on one machine: the link's socket, and memory they share.

All of it is this user's alone (0600), and what a server that was killed left behind is swept.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import socket
import tempfile
import time
from pathlib import Path

from jupyter_agents.link.marks import MARK_BYTES, SLOTS, Marks

__all__ = ["SharedMarks", "bind_unix", "remove", "socket_path", "sweep"]

_MAX_PATH_BYTES = 100  # sockaddr_un holds 104 on macOS, 108 on Linux
_STALE_S = 3600.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a file with an unguessable name, 0600


class SharedMarks:
    """Memory that one kernel writes and the server reads, by a file that both map.

    Parameters
    ----------
    runtime_dir : Path
        Where the file is, if the system has no place for files in memory.

    Raises
    ------
    OSError
        When there is no such memory to be had.
    """

    def __init__(self, runtime_dir: Path) -> None:
        in_memory = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
        folder = _SHARED_MEMORY if in_memory else runtime_dir
        self.path = folder / f"jpagents-{os.getpid()}-{secrets.token_hex(8)}.marks"
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Written, not only sized: a store into a page that a full disk cannot give kills.
            os.write(file, bytes(SLOTS * MARK_BYTES))
            self.marks = Marks(memoryview(mmap.mmap(file, SLOTS * MARK_BYTES)))
        except BaseException:
            self.hide()
            raise
        finally:
            os.close(file)

    def hide(self) -> None:
        """Remove the file: who has mapped it keeps it, nobody else can."""
        with contextlib.suppress(OSError):
            self.path.unlink()


def sweep(runtime_dir: Path) -> None:
    """Remove the sockets of servers that were killed: nobody listens there any more."""
    for folder in {runtime_dir, _SHARED_MEMORY}:
        for path in folder.glob("jpagents-*.marks"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()
    if not hasattr(socket, "AF_UNIX"):
        return
    short = (path for folder in _short_folders() for path in folder.glob("jpagents-*.sock"))
    for path in (*runtime_dir.glob("jpagents-*.sock"), *short):
        if not _is_alive(path):
            remove(path)


def _short_folders() -> list[Path]:
    """The folders of this user's servers whose runtime directory has too long a path."""
    found = []
    for folder in Path(tempfile.gettempdir()).glob("jpagents-*/"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                found.append(folder)
    return found


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def socket_path(runtime_dir: Path) -> Path:
    """Name a socket that kernels find, short enough for the system."""
    name = f"jpagents-{os.getpid()}-{secrets.token_hex(4)}.sock"
    path = runtime_dir / name
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path
    # Not found by a scan of the runtime directory then, but by the environment.
    return Path(tempfile.mkdtemp(prefix="jpagents-")) / name


def bind_unix(path: Path) -> socket.socket:
    """Listen at a path that only this user can open."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):
            # Linux gives the file this mode from its first moment on
            os.fchmod(bound.fileno(), 0o600)
        bound.bind(str(path))
        path.chmod(0o600)
        bound.setblocking(False)
        bound.listen(128)
    except BaseException:
        bound.close()
        raise
    return bound


def remove(path: Path) -> None:
    """Remove a socket, and the folder that was made for it."""
    path.unlink(missing_ok=True)
    if path.parent.name.startswith("jpagents-"):
        with contextlib.suppress(OSError):
            path.parent.rmdir()
