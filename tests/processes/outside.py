"""A kernel that a Jupyter Server uses but did not start: it lives on when the server goes."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jupyter_client.connect import write_connection_file

from scripts.jupyter_kernel import Kernel
from tests.processes.keeper import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.jupyter_process import JupyterProcess

OPTIONS = ("--ServerApp.allow_external_kernels=True",)


class OutsideKernel(Kernel):
    """Runs cells, and goes by itself when it is asked to; nobody kills it.

    Parameters
    ----------
    server : JupyterProcess
        Whose folders it shares; started with `OPTIONS`.
    """

    def __init__(self, server: JupyterProcess) -> None:
        folder = server.home / "runtime" / "external_kernels"
        folder.mkdir(exist_ok=True)
        # the server reads the name to know what it is
        path = str(folder / "kernel-outside.json")
        key = secrets.token_hex(16).encode()
        write_connection_file(path, key=key, kernel_name="python3")
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", path]
        with (server.home / "outside.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=server._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        (found,) = server.request("GET", "api/kernels")
        super().__init__(server, found["id"], "")

    def ask_to_go(self) -> int:
        """Send it a shutdown request, and return its exit code once it has gone."""
        message = self._message("shutdown_request", uuid.uuid4().hex, {"restart": False})
        self._channels().send(json.dumps({**message, "channel": "control"}))
        return self.process.wait(LIMIT_S)


@contextmanager
def outside_kernel(server: JupyterProcess) -> Iterator[OutsideKernel]:
    """A kernel for the length of a block."""
    kernel = OutsideKernel(server)
    try:
        yield kernel
    finally:
        kernel._forget()
        kernel.process.kill()
        kernel.process.wait()
