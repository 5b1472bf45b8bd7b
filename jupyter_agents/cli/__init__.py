"""``jupyter agents``: look at agents, talk to them, and host them, from a terminal."""

from __future__ import annotations

from jupyter_agents.cli.command import main

__all__ = ["main"]
