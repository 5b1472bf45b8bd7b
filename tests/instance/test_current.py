"""`get_current_agent` outside of agent code."""

from __future__ import annotations

from jupyter_agents import get_current_agent


def test_outside_everything_is_none():
    """L11: outside of agent code all fields are None."""
    assert get_current_agent() == (None, None, None, None)
