"""The Autobahn WebSocket cases, whole, against the fast socket path.

They are the suite's own case files, driven by kosoku (`pip install kosoku`) in a process of its
own, as it patches the standard library to run them. By default the compression cases (12, 13) run
for four of their eighteen message sizes; ``JUPYTER_AGENTS_CONFORMANCE=full`` runs all of them and
takes some minutes more.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from jupyter_agents.websocket.protocol import Deflate, SocketOptions
from tests.websocket.echo import echo_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(find_spec("kosoku") is None, reason="needs kosoku"),
]

IS_FULL = os.environ.get("JUPYTER_AGENTS_CONFORMANCE") == "full"
SIZES = range(1, 19) if IS_FULL else (1, 6, 11, 16)
# Everything has to be compressed: kosoku hands on an uncompressed text of the compression cases as
# str, and then fails to hash it.
COMPRESS_ALL = SocketOptions(compression=Deflate(min_bytes=0))
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
# Bad UTF-8 within a frame that has not come whole: we judge whole frames, which the suite allows.
NON_STRICT = {"6.4.3", "6.4.4"}

PLAIN = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
COMPRESSED = [
    f"{group}.{kind}.{size}"
    for group, kinds in ((12, 5), (13, 7))
    for kind in range(1, kinds + 1)
    for size in SIZES
]


async def verdicts(options: SocketOptions, cases: list[str], folder: Path) -> dict[str, str]:
    """Case by case what the suite says; a case fails by its messages or by its close."""
    async with echo_server(options) as server:
        include = [f"--include={case}" for case in cases]
        suite = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from kosoku._cli import main; main()"),
            *(f"ws://127.0.0.1:{server.port}/", *include),
            *("--parallelism=4", f"--outdir={folder}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await suite.communicate()
    index = folder / "index.json"
    assert index.exists(), output.decode()
    (results,) = json.loads(index.read_text()).values()
    return {case: _worse(r["behavior"], r["behaviorClose"]) for case, r in results.items()}


def _worse(by_messages: str, by_close: str) -> str:
    return by_messages if by_close in PASSED else by_close


@pytest.mark.parametrize(
    ("options", "cases", "count"),
    [
        pytest.param(SocketOptions(), PLAIN, 301, id="plain"),
        pytest.param(SocketOptions(leaves_stream=False), PLAIN, 301, id="stream"),
        pytest.param(COMPRESS_ALL, PLAIN, 301, id="permessage-deflate"),
        pytest.param(COMPRESS_ALL, COMPRESSED, 12 * len(SIZES), id="compression"),
    ],
)
async def test_all_cases_pass(
    options: SocketOptions, cases: list[str], count: int, tmp_path: Path
):
    """Every case passes, and all but two of them strictly."""
    results = await verdicts(options, cases, tmp_path)
    assert len(results) == count
    assert {case: v for case, v in results.items() if v not in PASSED} == {}
    assert {case for case, v in results.items() if v == "NON-STRICT"} <= NON_STRICT
