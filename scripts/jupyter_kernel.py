"""A kernel of a real Jupyter Server, driven through its WebSocket as a notebook does."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import websocket

if TYPE_CHECKING:
    from scripts.jupyter_process import JupyterProcess


class JupyterProcessError(AssertionError):
    """Something in a server or kernel went wrong; the sentence carries the end of the log."""


@dataclass
class Outputs:
    """What one cell printed and showed."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    status: str = ""

    @property
    def text(self) -> str:
        """Everything printed, and the plain text of everything shown, in order."""
        parts = []
        for message in self.messages:
            content = message["content"]
            if message["msg_type"] == "stream":
                parts.append(content["text"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                parts.append(content["data"].get("text/plain", "") + "\n")
        return "".join(parts)

    @property
    def error(self) -> str:
        """The traceback without its colours, or ""."""
        for message in self.messages:
            if message["msg_type"] == "error":
                content = message["content"]
                return f"{content['ename']}: {content['evalue']}"
        return ""

    def data(self, mime: str) -> list[Any]:
        """All that was shown of one media type."""
        shown = [m["content"].get("data", {}) for m in self.messages]
        return [bundle[mime] for bundle in shown if mime in bundle]


class Kernel:
    """A kernel of that server, reached through the server's own WebSocket as the notebook does.

    Parameters
    ----------
    server : JupyterProcess
        Where it runs.
    kernel_id, session_id : str
        As the sessions API named them.
    """

    def __init__(self, server: JupyterProcess, kernel_id: str, session_id: str) -> None:
        self.server = server
        self.id = kernel_id
        self.session_id = session_id
        self._client = uuid.uuid4().hex
        self._socket: websocket.WebSocket | None = None
        self._waiting: dict[str, tuple[Outputs, set[str]]] = {}

    def run(self, code: str, limit_s: float = 30, *, check: bool = True) -> Outputs:
        """Execute a cell to its end; an error in it is raised unless `check` is false."""
        return self.wait(self.begin(code), limit_s, check=check)

    def begin(self, code: str) -> str:
        """Send a cell to be executed and return at once; `wait` takes what this returns."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        request = uuid.uuid4().hex
        self._waiting[request] = (Outputs(), {"reply", "idle"})
        self._channels().send(json.dumps(self._message("execute_request", request, content)))
        return request

    def wait(self, request: str, limit_s: float = 30, *, check: bool = True) -> Outputs:
        """Return what a cell sent by `begin` printed and showed, once it has ended."""
        outputs, missing = self._waiting[request]
        deadline = time.monotonic() + limit_s
        while missing:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.server.problem(f"A cell did not end within {limit_s:g} s: {outputs}")
            self._read(left)
        if check and outputs.status != "ok":
            raise self.server.problem(f"A cell failed: {outputs.error or outputs.status}")
        return outputs

    def outputs(self, request: str, limit_s: float = 0.1) -> Outputs:
        """Return what came under a cell so far, also after its end, read for `limit_s`."""
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            self._read(left)
        return self._waiting[request][0]

    def restart(self, limit_s: float = 30) -> None:
        """Restart it as the menu does: the same id, a new process, an empty memory."""
        self._forget()
        self.server.request("POST", f"api/kernels/{self.id}/restart", {}, limit_s)
        self._channels()

    def interrupt(self) -> None:
        """Interrupt the running cell as the menu does."""
        self.server.request("POST", f"api/kernels/{self.id}/interrupt", {})

    def shutdown(self) -> None:
        """End it and its session."""
        self._forget()
        self.server.request("DELETE", f"api/sessions/{self.session_id}")

    def pid(self) -> int:
        """Return its process id."""
        return int(self.run("import os; print(os.getpid())").text)

    def kill(self) -> None:
        """End its process at once, as a crash would (kill -9); the server notices by itself."""
        os.kill(self.pid(), signal.SIGKILL)
        self._forget()

    def _message(self, kind: str, request: str, content: dict[str, Any]) -> dict[str, Any]:
        header = {
            "msg_id": request,
            "msg_type": kind,
            "session": self._client,
            "username": "",
            "version": "5.3",
        }
        return {
            "channel": "shell",
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "buffers": [],
        }

    def _channels(self) -> websocket.WebSocket:
        if self._socket is None:
            path = f"api/kernels/{self.id}/channels?session_id={quote(self._client)}"
            self._socket = self.server.connect(path)
        return self._socket

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._waiting.clear()

    def _read(self, limit_s: float) -> None:
        channels = self._channels()
        channels.settimeout(limit_s)
        try:
            text = channels.recv()
        except websocket.WebSocketTimeoutException:
            return
        except (websocket.WebSocketException, OSError) as error:
            raise self.server.problem(f"The kernel's channel closed: {error}") from error
        if isinstance(text, str) and text:
            self._take(json.loads(text))

    def _take(self, message: dict[str, Any]) -> None:
        entry = self._waiting.get(message["parent_header"].get("msg_id", ""))
        if entry is None:
            return
        outputs, missing = entry
        kind, content = message["msg_type"], message["content"]
        if kind == "execute_reply":
            outputs.status = content["status"]
            missing.discard("reply")
        elif kind == "status" and content["execution_state"] == "idle":
            missing.discard("idle")
        elif message["channel"] == "iopub":
            outputs.messages.append(message)
