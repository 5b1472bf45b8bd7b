"""The server's own two frames: `jupyter_agents.link.notices`."""

from __future__ import annotations

import json

import pytest

from jupyter_agents.link.notices import RESUMED, SUSPENDED
from tests.link.fakes import Scene


@pytest.fixture
def scene() -> Scene:
    """A relay with default limits."""
    return Scene()


def told(record) -> list[bytes]:
    """What a client was sent since the last look."""
    return [call[1][0] for call in record.socket.take() if call[0] == "send"]


def test_notices_are_json_that_clients_read():
    """Both are objects with nothing but a type."""
    assert json.loads(SUSPENDED) == {"type": "cf_agent_suspended"}
    assert json.loads(RESUMED) == {"type": "cf_agent_resumed"}


def test_client_that_negotiated_them_is_told_once_each(scene):
    """The kernel goes and comes back: one notice each; an SDK client gets none."""
    host = scene.host()
    host.serve()
    ours, sdk = scene.open(extended=True), scene.open()
    for record in (ours, sdk):
        host.accept(record.number)
    scene.relay.host_left(host, 0.0)
    scene.relay.tick(1.0)
    assert told(ours) == [SUSPENDED]
    back = scene.host()
    back.serve()
    back.serve()
    assert told(ours) == [RESUMED]
    assert told(sdk) == []


def test_client_that_comes_while_the_kernel_is_away_is_told(scene):
    """It learns at once why nothing answers."""
    host = scene.host()
    host.serve()
    scene.relay.host_left(host, 0.0)
    record = scene.open(extended=True)
    assert told(record) == [SUSPENDED]
    scene.host().serve()
    assert told(record) == [RESUMED]


def test_connection_without_protocol_messages_gets_no_notice(scene):
    """What `should_send_protocol_messages` refused holds for the server's frames, too."""
    host = scene.host()
    host.serve()
    record = scene.open(extended=True)
    host.accept(record.number, flags={"protocol": False})
    scene.relay.host_left(host, 0.0)
    assert told(record) == []


def test_take_over_by_another_kernel_is_no_absence(scene):
    """Clients of a class that another kernel takes over hear nothing."""
    scene.host("k1").serve()
    record = scene.open(extended=True)
    assert "error" not in scene.host("k2").serve(takeover=True)
    assert told(record) == []
