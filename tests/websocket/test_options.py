"""What a socket may use where nobody says otherwise: `jupyter_agents.websocket.options`."""

from __future__ import annotations

import dataclasses

import pytest

from jupyter_agents.websocket.options import SocketOptions


def test_everything_is_bounded_by_itself():
    """A socket that nobody configured has limits and times, and compresses nothing."""
    options = SocketOptions()
    assert options.max_message_bytes > 0
    assert options.max_queue_bytes > 0
    assert options.close_timeout_s > 0
    assert options.ping_interval_s > 0
    assert options.compression is None


def test_one_object_serves_all_sockets():
    """Options are shared, so nobody can change them under the others."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SocketOptions().max_message_bytes = 1
