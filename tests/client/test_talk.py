"""What happens on a connection, for futures and listeners: `jupyter_agents.client.talk`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from jupyter_agents.errors import CallAborted, ConnectionClosed
from jupyter_agents.protocol.backoff import ReconnectPolicy
from jupyter_agents.protocol.names import Address
from tests.client.fakes import FakeServer, settle


async def test_queued_messages_leave_before_the_open_event(server: FakeServer) -> None:
    """What waited is sent, in order, before listeners hear of the connection (T131)."""
    seen: list[Any] = []
    client = server.client(on_open=lambda: seen.append(list(server.line.sent)))
    client.send("a")
    client.send(b"b")
    client.start()
    client.send("c")
    await settle()
    assert seen == [["a", b"b", "c"]]
    client.close()


async def test_queue_limit_is_the_policys(server: FakeServer) -> None:
    """The message beyond the limit is dropped, and `send` says so (T132)."""
    client = server.client(reconnect=ReconnectPolicy(max_queued=2))
    assert [client.send(text) for text in "abc"] == [True, True, False]
    with pytest.raises(CallAborted, match="queue is full"):
        await client.call("a")
    client.start()
    await settle()
    assert server.line.sent == ["a", "b"]
    client.close()


async def test_close_tells_at_once(server: FakeServer) -> None:
    """Closing while connecting tells its listeners before it returns, once (T135, T136)."""
    heard: list[ConnectionClosed] = []
    server.gate = asyncio.Event()
    client = server.client(on_close=heard.append)
    client.start()
    await settle()
    client.close(4000, "bye")
    assert [(event.code, event.reason) for event in heard] == [(4000, "bye")]
    assert client.ready_state == "closed"
    client.close()
    assert len(heard) == 1
    await client.wait_closed()
    assert server.connections == []


async def test_close_before_any_connection_is_harmless(server: FakeServer) -> None:
    """A client that was never started can be closed (T137), and stays closed."""
    heard: list[ConnectionClosed] = []
    client = server.client(on_close=heard.append)
    client.close()
    client.start()
    await settle()
    assert (heard, server.attempts, client.ready_state) == ([], 0, "closed")
    await client.wait_closed()


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (2000, ""), (1000, "x" * 124)])
async def test_close_refuses_what_cannot_be_sent(
    server: FakeServer, code: int, reason: str
) -> None:
    """A reserved code or too long a reason raises, and the client stays open."""
    client = server.client()
    await server.opened(client)
    with pytest.raises(ValueError, match="close"):
        client.close(code, reason)
    assert client.ready_state == "open"
    client.close()


async def test_close_sends_code_and_reason(server: FakeServer) -> None:
    """The agent learns how the client left, and so does whoever waits for an answer."""
    client = server.client()
    await server.opened(client)
    call = client.call("slow")
    client.close(4100, "done")
    assert server.line.closed == (4100, "done")
    with pytest.raises(CallAborted, match="Connection closed with 4100: done"):
        await call
    await client.wait_closed()


async def test_close_during_the_wait_ends_the_waiting(server: FakeServer) -> None:
    """A client that waits to come back has no timer left after a close."""
    client = server.client()
    await server.opened(client)
    server.line.drop()
    client.close()
    assert server.clock.pending() == []
    await server.clock.advance(100)
    assert server.attempts == 1


async def test_reconnect_after_close_opens_again(server: FakeServer) -> None:
    """Who closed the client may open it again; readers and calls work as before."""
    client = server.client()
    await server.opened(client)
    client.close()
    client.reconnect()
    await settle()
    server.line.greet()
    await client.ready
    server.line.say("hello")
    assert await client.recv() == "hello"
    call = client.call("a")
    server.line.answer(result=1)
    assert await call == 1
    client.close()
    await client.wait_closed()


async def test_reconnect_of_an_open_client_fails_what_was_sent(server: FakeServer) -> None:
    """A wish for a new connection ends the present one: listeners and callers hear of it."""
    heard: list[ConnectionClosed] = []
    client = server.client(on_close=heard.append)
    await server.opened(client)
    call = client.call("a")
    client.reconnect(4000, "again")
    assert server.line.closed == (4000, "again")
    assert [event.code for event in heard] == [4000]
    with pytest.raises(CallAborted):
        await call
    client.close()


async def test_reconnect_starts_a_client(server: FakeServer) -> None:
    """Before the start, a wish to reconnect is a wish to connect."""
    client = server.client()
    client.reconnect()
    await settle()
    assert client.ready_state == "open"
    client.close()


async def test_start_twice_is_once(server: FakeServer) -> None:
    """Starting a started client does nothing."""
    client = server.client()
    client.start()
    client.start()
    await settle()
    assert server.attempts == 1
    client.close()


async def test_ready_is_of_the_present_connection(server: FakeServer) -> None:
    """After a drop `ready` is a new wait, and `identified` is false meanwhile (T124)."""
    client = server.client()
    client.start()
    first = asyncio.ensure_future(client.ready)
    await settle()
    assert not first.done()
    server.line.greet()
    await first
    assert client.identified
    server.line.drop()
    assert not client.identified
    second = asyncio.ensure_future(client.ready)
    await server.clock.advance(10)
    assert not second.done()
    server.line.greet()
    await second
    client.close()


async def test_ready_can_be_given_up(server: FakeServer) -> None:
    """One who stops waiting does not take `ready` from the others."""
    client = server.client()
    client.start()
    hasty, patient = asyncio.ensure_future(client.ready), asyncio.ensure_future(client.ready)
    await settle()
    hasty.cancel()
    await settle()
    server.line.greet()
    await patient
    client.close()


async def test_ready_fails_when_the_client_is_closed(server: FakeServer) -> None:
    """Nobody waits for a connection that will not come, and looking at `ready` starts nothing."""
    client = server.client()
    client.start()
    waiting = asyncio.ensure_future(client.ready)
    await settle()
    repr(client.ready)
    client.close()
    with pytest.raises(ConnectionClosed):
        await waiting
    with pytest.raises(ConnectionClosed):
        await client.ready


async def test_identity_is_told_on_every_connection(server: FakeServer) -> None:
    """Listeners hear name and agent each time; the first is no change (T026, T125)."""
    told: list[Any] = []
    client = server.client(
        on_identity=lambda *who: told.append(who),
        on_identity_change=lambda *who: told.append(("change", *who)),
    )
    await server.opened(client)
    assert client.identity == Address("room", "lobby")
    client.reconnect()
    await settle()
    server.line.greet()
    assert told == [("lobby", "room"), ("lobby", "room")]
    client.reconnect()
    await settle()
    server.line.greet("elsewhere", "hall")
    assert told[2:] == [("elsewhere", "hall"), ("change", "lobby", "elsewhere", "room", "hall")]
    client.close()


async def test_identity_change_unheard_is_a_warning(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody listens, another instance than before is at least named in the log."""
    client = server.client()
    await server.opened(client)
    client.reconnect()
    await settle()
    with caplog.at_level(logging.WARNING, "jupyter_agents.client"):
        server.line.greet("elsewhere")
    assert "room/elsewhere instead of room/lobby" in caplog.text
    client.close()


async def test_close_listener_may_call_the_client(server: FakeServer) -> None:
    """A listener that sends, calls or closes while the client ends finds it in order."""
    client = server.client()
    outcome: list[Any] = []

    def listener(closed: ConnectionClosed) -> None:
        outcome.append(client.send("again"))
        outcome.append(client.ready_state)

    client.on_close(listener)
    await server.opened(client)
    server.line.drop()
    assert outcome == [True, "connecting"]
    client.close()
    assert outcome[2:] == [False, "closed"]


async def test_message_listener_may_close(server: FakeServer) -> None:
    """After a close nothing more is told, though more had come."""
    client = server.client()
    heard: list[Any] = []

    def listener(message: Any) -> None:
        heard.append(message)
        client.close()

    client.on_message(listener)
    await server.opened(client)
    server.line.say("a")
    server.line.say("b")
    assert heard == ["a"]
    await client.wait_closed()


async def test_wait_closed_waits_for_listeners(server: FakeServer) -> None:
    """A listener that is a coroutine is not cut off by leaving."""
    done = []

    async def listener(closed: ConnectionClosed) -> None:
        await asyncio.sleep(0)
        done.append(closed.code)

    client = server.client(on_close=listener)
    await server.opened(client)
    client.close()
    await client.wait_closed()
    assert done == [1000]
