"""Cloudflare's client and ours stay through a restart of the kernel and of the server.

Each is one Node process that is told what to call and tells what it sees: ``returning.mjs``.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.conformance.conftest import AGENTS

HERE = Path(__file__).parent
LIMIT_S = 30
CELL = AGENTS.read_text("utf-8") + "\nserved = serve(Counter)"


class Client:
    """One client in a Node process."""

    def __init__(self, kind: str, server) -> None:
        env = {
            **os.environ,
            "AGENT_HOST": f"http://127.0.0.1:{server.port}",
            "AGENT_PREFIX": f"{server.base_url[1:]}agents",
            "AGENT_TOKEN": server.token,
            "AGENT_NAME": kind,
        }
        self.process = subprocess.Popen(
            [shutil.which("node") or "node", "returning.mjs", kind],
            cwd=HERE, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._told: queue.Queue[dict] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._told.put(json.loads(line))

    def call(self, method, *args):
        self.process.stdin.write(json.dumps([method, *args]) + "\n")
        self.process.stdin.flush()

    def told(self, *facts):
        """Wait until these were told, and nothing between them."""
        for wanted in facts:
            found = self._told.get(timeout=LIMIT_S)
            assert found == wanted, (found, wanted)

    def returned(self, code):
        """It lost its connection with this code, and is back, however often it tried."""
        self.told({"close": code})
        while "open" not in (fact := self._told.get(timeout=LIMIT_S)):
            assert set(fact) == {"close"}, fact

    def end(self):
        self.process.stdin.close()
        self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        self.process.stdout.close()


@pytest.mark.parametrize("kind", ["ours", "sdk"])
def test_client_stays_through_restarts(node, start_server, kind):
    """A kernel's restart leaves the socket; after a server's it comes back. State is kept."""
    server = start_server(base_url="/user/x/")
    kernel = served_anew(server)
    client = Client(kind, server)
    try:
        client.told({"open": True})
        client.call("increment", 3)
        client.told({"result": 3, "state": {"count": 3}})
        kernel.restart()
        client.call("increment", 1)
        kernel.run(CELL)
        client.told({"result": 4, "state": {"count": 4}})
        for end, code, count in ((server.stop, 1001, 5), (server.kill, 1006, 6)):
            kernel._forget()
            end()
            server.start()
            kernel = served_anew(server)
            client.returned(code)
            client.call("increment", 1)
            client.told({"result": count, "state": {"count": count}})
        kernel.shutdown()
    finally:
        client.end()


def served_anew(server):
    """A new kernel in which the cell was run."""
    kernel = server.kernel()
    kernel.run(CELL)
    return kernel
