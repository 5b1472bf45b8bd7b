"""Cloudflare's own clients and ours play the same scenarios against a real server.

The list is `scenarios.json`. Played are: our JavaScript client; `AgentClient` and React's
`useAgent` of npm ``agents``, pinned in ``package-lock.json``; and both kinds on one instance.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KINDS = ("ours", "sdk", "react", "mixed")
SCENARIOS = json.loads((HERE / "scenarios.json").read_text("utf-8"))["scenarios"]
LIMIT_S = 110


def dialect(kind: str) -> str:
    """Which wire a kind of client speaks."""
    return "extended" if kind == "ours" else "plain"


CASES = [
    pytest.param(kind, scenario["name"], id=f"{kind}: {scenario['name']}")
    for kind in KINDS
    for scenario in SCENARIOS
    if scenario.get("only", dialect(kind)) == dialect(kind)
]


@pytest.fixture(scope="session")
def played(node, served_agents):
    """``played(kind)``: what became of each scenario; one process plays all of a kind, once."""

    @cache
    def play(kind: str) -> tuple[dict[str, str | None], str]:
        done = subprocess.run(
            [node, "run.mjs", kind],
            cwd=HERE,
            env={**os.environ, **served_agents},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {line["scenario"]: line["error"] for line in lines}, done.stderr

    return play


@pytest.mark.parametrize(("kind", "scenario"), CASES)
def test_scenario(played, kind, scenario):
    """Every scenario goes for every client as `scenarios.json` says."""
    outcomes, errors = played(kind)
    assert scenario in outcomes, errors
    assert outcomes[scenario] is None, outcomes[scenario]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_unhandled(played, kind):
    """No promise of a client rejects without anybody to hear it."""
    outcomes, errors = played(kind)
    assert "unhandled rejection" not in outcomes, (outcomes, errors)


def test_the_pinned_sdk_is_the_one_installed(node):
    """The lock names npm agents 0.32.0, and that is what was played."""
    lock = json.loads((HERE / "package-lock.json").read_text("utf-8"))
    wanted = lock["packages"]["node_modules/agents"]["version"]
    about = json.loads((HERE / "node_modules" / "agents" / "package.json").read_text("utf-8"))
    assert (wanted, about["version"]) == ("0.32.0", "0.32.0")
