"""One kernel of a real Jupyter Server that serves the agents of this folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live import (  # noqa: F401
    jupyter_server_process,
    pytest_runtest_makereport,
    start_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.jupyter_process import JupyterProcess

HERE = Path(__file__).parent
AGENTS = Path(__file__).with_name("agents.py")


@pytest.fixture(scope="session")
def node() -> str:
    """Node's path; without Node or the packages a developer's run skips, CI must not."""
    found = shutil.which("node")
    problem = None if found else "Node.js is not installed"
    if not (HERE / "node_modules" / "agents").is_dir():
        problem = "run `npm ci` in tests/conformance"
    if problem and not os.environ.get("CI"):
        pytest.skip(problem)
    assert problem is None, problem
    return str(found)


@pytest.fixture(scope="session")
def served_agents(jupyter_server_process: JupyterProcess) -> Iterator[dict[str, str]]:  # noqa: F811
    """What a runner needs to know: AGENT_HOST, AGENT_PREFIX and AGENT_TOKEN."""
    server = jupyter_server_process
    kernel = server.kernel()
    kernel.run(AGENTS.read_text("utf-8") + "\nserved = serve_all()")
    scheme, _, rest = server.url.partition("://")
    host, _, base = rest.partition("/")
    yield {
        "AGENT_HOST": f"{scheme}://{host}",
        "AGENT_PREFIX": f"{base}agents",
        "AGENT_TOKEN": server.token,
    }
    kernel.shutdown()
