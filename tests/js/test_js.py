"""The plain JavaScript modules: their own suite, their types, and the committed declaration."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "jupyter_agents" / "static"
TSC = HERE.parent / "conformance" / "node_modules" / ".bin" / "tsc"


@pytest.fixture
def node() -> str:
    """Node's path."""
    return _found(shutil.which("node"), "Node.js is not installed")


@pytest.fixture
def tsc(node: str) -> str:
    """The pinned TypeScript compiler's path."""
    return _found(TSC if TSC.exists() else None, "run `npm ci` in tests/conformance")


def _found(path: str | Path | None, why_not: str) -> str:
    """Without the tool a developer's run skips; CI must not."""
    if path is None and not os.environ.get("CI"):
        pytest.skip(why_not)
    assert path is not None, why_not
    return str(path)


def run(*command: str) -> None:
    """Run to the end; the failure is what the command printed."""
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("suite", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_suite_passes(node, suite):
    """Every suite of the JavaScript modules passes under `node --test`."""
    run(node, "--test", "--test-reporter=spec", suite)


def test_types_are_clean(tsc):
    """`tsc --checkJs --strict` has nothing to say about the plain JavaScript modules."""
    run(tsc, "-p", "tsconfig.json")


def test_declaration_is_up_to_date(tsc, tmp_path):
    """The committed `agent-client.d.ts` is what `tsc -p tsconfig.types.json` makes today."""
    run(tsc, "-p", "tsconfig.types.json", "--outDir", str(tmp_path))
    made = (tmp_path / "agent-client.d.ts").read_text("utf-8")
    assert made == (STATIC / "agent-client.d.ts").read_text("utf-8")
