"""A server to attack, and a calm client of it that must notice nothing.

``JUPYTER_AGENTS_FUZZ=5000`` tries that many examples of each kind instead of a few.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from hypothesis import HealthCheck, settings
from websockets.asyncio.client import connect

from scripts.jupyter_process import ROOT

EXAMPLES = int(os.environ.get("JUPYTER_AGENTS_FUZZ", "20"))
LIMIT_S = 30.0
MIB = 1 << 20

short = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""How long a test tries."""


class Server:
    """A real server in its own process; see ``target.py``."""

    def __init__(self, **limits):
        command = [sys.executable, "-m", "tests.hostile.target", json.dumps(limits)]
        self._log = TemporaryFile("w+")  # noqa: SIM115  # a pipe that nobody reads would stop it
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.port = int(self.process.stdout.readline())

    @property
    def memory(self):
        """Bytes of memory that it has in use."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def connect(self, name, query="", **options):
        """A WebSocket of the agent."""
        options = {"max_size": None, "proxy": None, "compression": None, **options}
        return connect(f"ws://127.0.0.1:{self.port}/agents/target/{name}{query}", **options)

    def end(self):
        """Stop it; returns what it logged."""
        self.process.kill()
        self.process.communicate()
        with self._log:
            self._log.seek(0)
            return self._log.read()


@pytest.fixture
def attacked():
    """``attacked(max_message_bytes=…)``: a server whose log has no traceback in the end."""
    started = []

    def start(**limits):
        started.append(Server(**limits))
        return started[-1]

    yield start
    for server in started:
        assert "Traceback" not in (log := server.end()), log


@asynccontextmanager
async def bystander(server, limit_s=5.0):
    """A calm client: it asks again and again, and each answer comes within the limit."""
    slowest, is_over = 0.0, False

    async def ask(socket):
        nonlocal slowest
        number = 0
        while not is_over:
            number += 1
            began = time.monotonic()
            await socket.send(f"ping {number}")
            assert await asyncio.wait_for(socket.recv(), LIMIT_S) == f"ping {number}"
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.005)

    async with server.connect("calm") as socket:
        await socket.recv()
        await socket.recv()
        asking = asyncio.create_task(ask(socket))
        try:
            yield
        finally:
            is_over = True
            await asking
    assert slowest < limit_s, f"an answer took {slowest:.1f} s"
