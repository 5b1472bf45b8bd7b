"""Fixtures for tests against real servers, for the conftest of each folder that needs them.

A failing test's report ends with the last lines that its servers logged.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.sync.client import ClientConnection, connect

from scripts.jupyter_process import LOG_TAIL, JupyterProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from scripts.jupyter_kernel import Kernel

RUNNING = pytest.StashKey[list[JupyterProcess]]()


def connected(server: JupyterProcess, path: str) -> ClientConnection:
    """Open a signed-in WebSocket that answers pings and closes by itself; use it in a `with`."""
    header = {"Authorization": f"token {server.token}"}
    return connect(server.ws_url + path, additional_headers=header, proxy=None)


@pytest.fixture
def start_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``start_server(base_url="/user/x/", options=[…])``: a server for this test alone (1.5 s)."""
    running = _running(request.config)
    started: list[JupyterProcess] = []

    def start(**options: Any) -> JupyterProcess:
        server = JupyterProcess(tmp_path / f"jupyter{len(started)}", **options)
        started.append(server)
        running.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()
        running.remove(server)


@contextmanager
def running(config: pytest.Config, home: Path, **options: Any) -> Iterator[JupyterProcess]:
    """Run a server for the length of a block; while it runs, failures show its log."""
    server = JupyterProcess(home, **options)
    _running(config).append(server)
    try:
        yield server.start()
    finally:
        server.stop()
        _running(config).remove(server)


@pytest.fixture(scope="session")
def jupyter_server_process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JupyterProcess]:
    """One server with a token at ``/user/x/`` for all tests that do no harm to it."""
    home = tmp_path_factory.mktemp("jupyter")
    with running(request.config, home, base_url="/user/x/") as server:
        yield server


@pytest.fixture
def kernel(jupyter_server_process: JupyterProcess) -> Iterator[Kernel]:
    """A fresh kernel of the shared server, which the test may restart, kill or leave running."""
    fresh = jupyter_server_process.kernel()
    yield fresh
    fresh.shutdown()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the end of each running server's log to the report of a failure."""
    report = yield
    if report.failed:
        for server in item.config.stash.get(RUNNING, []):
            tail = "\n".join(server.log().splitlines()[-LOG_TAIL:])
            report.sections.append((f"log of {server.url}", tail))
    return report


def _running(config: pytest.Config) -> list[JupyterProcess]:
    return config.stash.setdefault(RUNNING, [])
