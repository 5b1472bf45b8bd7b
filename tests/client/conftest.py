"""Fixtures of the client's tests."""

from __future__ import annotations

import pytest

from tests.client.fakes import FakeServer


@pytest.fixture
def server() -> FakeServer:
    """A server without sockets, on a clock of its own."""
    return FakeServer()
