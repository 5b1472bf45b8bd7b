"""A connection that comes back: `jupyter_agents.client.channel`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_agents.client.discovery import ServerNotFound
from jupyter_agents.client.transport import HandshakeRefused
from jupyter_agents.protocol.backoff import ReconnectPolicy
from tests.client.fakes import FakeServer, settle

if TYPE_CHECKING:
    from jupyter_agents.errors import ConnectionClosed

STEADY = ReconnectPolicy(jitter=False)


async def test_waits_grow_until_a_connection_lasts(server: FakeServer) -> None:
    """A connection that dies young does not reset the waits, one that lasted does (T139)."""
    client = server.client(reconnect=STEADY)
    client.start()
    await settle()
    waits = []
    for uptime in (0, 1, 100, 0):
        await server.clock.advance(uptime)
        server.line.drop()
        waits += server.clock.pending()
        await server.clock.advance(waits[-1])
    assert waits == [3.0, 3.9, 3.0, 3.9]
    client.close()


async def test_return_after_a_restart_is_immediate(server: FakeServer) -> None:
    """1012 says that the server will be back: no time passes before the next attempt."""
    client = server.client()
    await server.opened(client)
    server.line.drop(1012)
    await server.clock.advance(0)
    assert server.attempts == 2
    client.close()


@pytest.mark.parametrize("limit", [0, 2])
async def test_retries_are_limited(server: FakeServer, limit: int) -> None:
    """Exactly so many retries, then an error; a wish to reconnect starts from zero (T138)."""
    server.refusal = ConnectionRefusedError("down")
    client = server.client(reconnect=ReconnectPolicy(max_retries=limit))
    client.start()
    await server.clock.advance(1000)
    assert server.attempts == 1 + limit
    assert client.connection_error is not None
    with pytest.raises(ConnectionRefusedError):
        await client.ready
    client.reconnect()
    await server.clock.advance(1000)
    assert server.attempts == 2 * (1 + limit)


async def test_slow_attempt_is_given_up(server: FakeServer) -> None:
    """An attempt that takes too long is an error and is made again (T141)."""
    errors: list[Exception] = []
    server.gate = asyncio.Event()
    client = server.client(on_error=errors.append, reconnect=STEADY)
    client.start()
    await server.clock.advance(3.9)
    assert errors == []
    await server.clock.advance(0.1)
    assert [type(error) for error in errors] == [TimeoutError]
    assert "4 s" in str(errors[0])
    server.gate.set()
    await server.clock.advance(3)
    assert client.ready_state == "open"
    assert (server.attempts, len(server.connections)) == (2, 1)
    client.close()


async def test_connection_that_comes_too_late_is_closed(server: FakeServer) -> None:
    """A connection that opens in the very turn the client closes is not left behind."""
    server.gate = asyncio.Event()
    client = server.client()
    client.start()
    await settle()
    server.gate.set()
    await asyncio.sleep(0)
    client.close()
    await client.wait_closed()
    assert server.open_lines == []


async def test_repeated_reconnect_leaves_one_socket(server: FakeServer) -> None:
    """However often and fast `reconnect` is called, one connection remains (T142)."""
    client = server.client()
    await server.opened(client)
    for turns in (0, 1, 2, 3, 0, 0):
        client.reconnect()
        for _ in range(turns):
            await asyncio.sleep(0)
    await settle()
    assert len(server.open_lines) == 1
    assert client.ready_state == "open"
    client.close()
    await client.wait_closed()
    assert server.open_lines == []


async def test_old_connection_is_not_heard_any_more(server: FakeServer) -> None:
    """What an earlier connection still says, its end included, does not reach the client."""
    client = server.client()
    old = await server.opened(client)
    client.reconnect()
    await settle()
    old.say("ghost")
    old.drop(4001)
    server.line.greet()
    server.line.say("alive")
    assert await client.recv() == "alive"
    assert client.connection_error is None
    client.close()


@pytest.mark.parametrize("kind", ["raises", "raises later", "is a list", "gives a number"])
async def test_wrong_query_is_an_error_and_a_retry(server: FakeServer, kind: str) -> None:
    """A query provider that fails or gives nonsense ends in an error and another try (T140)."""
    broken = True

    async def later() -> dict[str, Any]:
        if broken:
            raise ZeroDivisionError
        return {}

    def now() -> Any:
        if broken and kind == "raises":
            raise ZeroDivisionError
        if broken:
            return [1] if kind == "is a list" else 7
        return {}

    errors: list[Exception] = []
    query = later if kind == "raises later" else now
    client = server.client(query=query, on_error=errors.append)
    client.start()
    await settle()
    expected = ZeroDivisionError if "raises" in kind else TypeError
    assert [type(error) for error in errors] == [expected]
    assert server.attempts == 0
    broken = False
    await server.clock.advance(10)
    assert client.ready_state == "open"
    client.close()


async def test_query_is_not_asked_after_a_final_close(server: FakeServer) -> None:
    """No credentials are fetched for a server that sent the client away (T118)."""
    asked: list[int] = []
    client = server.client(query=lambda: asked.append(1))
    await server.opened(client)
    server.line.drop(4001)
    await server.clock.advance(1000)
    assert asked == [1]


async def test_own_rule_is_combined_with_the_final_codes(server: FakeServer) -> None:
    """The user's rule can stop a return, never allow a forbidden one; the latest counts (T117)."""
    asked: list[int] = []

    def never(closed: ConnectionClosed) -> bool:
        asked.append(closed.code)
        return False

    client = server.client(should_reconnect=lambda closed: True)
    await server.opened(client)
    server.line.drop(1011)
    await server.clock.advance(10)
    assert server.attempts == 2
    client.should_reconnect = never
    server.line.drop(1011)
    await server.clock.advance(100)
    assert (server.attempts, asked) == (2, [1011])
    assert client.connection_error is not None
    client.should_reconnect = lambda closed: True
    client.reconnect()
    await settle()
    server.line.drop(1008)
    await server.clock.advance(100)
    assert server.attempts == 3


async def test_own_rule_that_fails_does_not_keep_away(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the user's rule is logged, and the client comes back."""
    client = server.client(should_reconnect=lambda closed: 1 / 0)
    await server.opened(client)
    server.line.drop()
    await server.clock.advance(10)
    assert server.attempts == 2
    assert "should_reconnect failed" in caplog.text
    client.close()


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (HandshakeRefused(403), 1),
        (HandshakeRefused(404), 1),
        (ServerNotFound("none"), 1),
        (HandshakeRefused(429), 2),
        (HandshakeRefused(503), 2),
        (OSError("reset"), 2),
    ],
)
async def test_first_attempt_tells_hopeless_from_passing(
    server: FakeServer, error: Exception, attempts: int
) -> None:
    """A wrong address or credential ends the first attempt for good, a passing trouble not."""
    server.refusal = error
    client = server.client()
    client.start()
    await server.clock.advance(3)
    assert server.attempts == attempts
    assert (client.connection_error is not None) == (attempts == 1)
    client.close()


@pytest.mark.parametrize("status", [403, 404])
async def test_later_attempts_are_patient(server: FakeServer, status: int) -> None:
    """A server that restarts has no agents for a while: its clients keep trying (T149)."""
    client = server.client()
    await server.opened(client)
    server.refusal = HandshakeRefused(status)
    server.line.drop(1012)
    await server.clock.advance(30)
    assert client.connection_error is None
    server.refusal = None
    await server.clock.advance(10)
    assert client.ready_state == "open"
    client.close()


async def test_failing_attempts_are_said_aloud_once(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong port is no silent wait, and no flood either."""
    server.refusal = ConnectionRefusedError("nobody there")
    client = server.client()
    client.start()
    with caplog.at_level(logging.WARNING, "jupyter_agents.client"):
        await server.clock.advance(60)
    assert server.attempts > 3
    assert caplog.text.count("nobody there") == 1
    client.close()


async def test_what_comes_before_the_opener_returns_is_kept(server: FakeServer) -> None:
    """Frames, and even the end, that arrive with the handshake are told after "open"."""
    told: list[Any] = []

    async def opener(url: str, headers: Any, receiver: Any) -> Any:
        transport = await server(url, headers, receiver)
        transport.greet()
        transport.say("first")
        transport.drop(4001, "no")
        return transport

    client = server.client(
        opener=opener,
        on_open=lambda: told.append("open"),
        on_message=told.append,
        on_close=lambda closed: told.append(closed.code),
    )
    client.start()
    await settle()
    assert told == ["open", "first", 4001]
    await client.wait_closed()
