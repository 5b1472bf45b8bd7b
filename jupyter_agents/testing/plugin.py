"""The pytest fixtures that come with the package; nothing is imported until one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_agents.testing.sync import SyncHarness


@pytest.fixture
def agent_harness() -> Iterator[SyncHarness]:
    """Agents and clients without a server: ``client = agent_harness.connect(Room, "lobby")``."""
    from jupyter_agents.testing.sync import SyncHarness

    with SyncHarness() as harness:
        yield harness
