"""The seam to real sockets: `jupyter_agents.client.transport`."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import pytest
from tornado.websocket import WebSocketProtocol13

from jupyter_agents.client.client import AgentClient, connect
from jupyter_agents.client.transport import HandshakeRefused, TornadoOpener
from jupyter_agents.errors import AgentNotFound, CallAborted, ConnectionClosed
from jupyter_agents.protocol.backoff import ReconnectPolicy
from tests.client.tornado_server import Agents, running

HASTY = ReconnectPolicy(min_delay=0.01, max_delay=0.02, min_uptime=0)


def client_of(agents: Agents, **options: Any) -> AgentClient:
    """A client of this server."""
    return AgentClient("room", "x", host=agents.host, reconnect=HASTY, **options)


class Listener:
    """A receiver that writes down what it hears."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def on_message(self, data: Any) -> None:
        self.messages.append(data)

    def on_closed(self, code: int, reason: str) -> None:
        self.closed.set_result((code, reason))


async def test_whole_conversation() -> None:
    """Identity, state, messages, calls, streams and writes work over a real socket."""
    async with running() as agents, client_of(agents, token="t0k") as client:
        assert (client.state, client.identified) == ({"n": 0}, True)
        assert await client.call("add", [1, 2]) == 3
        stream = client.stream("count", [3])
        assert [chunk async for chunk in stream] == [0, 1, 2]
        assert await client.set_state({"n": 5}) == {"n": 5}
        client.send("hi")
        client.send(b"\x00\xff")
        assert [await client.recv(), await client.recv()] == ["hi", b"\x00\xff"]
        request = agents.requests[0]
        assert request.path == "/base/agents/room/x"
        assert request.headers["Authorization"] == "token t0k"
        assert "t0k" not in request.uri


async def test_order_under_load() -> None:
    """Thousands of messages and calls come back complete and in order (T149)."""
    async with running() as agents, client_of(agents) as client:
        calls = []
        for n in range(1000):
            client.send(str(n))
            calls.append(client.call("add", [n, 1]))
        assert [await client.recv() for _ in range(1000)] == [str(n) for n in range(1000)]
        assert await asyncio.gather(*calls) == list(range(1, 1001))
        assert client.buffered_amount == 0


async def test_client_returns_after_a_server_restart() -> None:
    """A server that stops and starts again finds its client back, and it works (T149)."""
    async with running() as agents, client_of(agents) as client:
        dropped = asyncio.Event()
        client.on_close(lambda closed: dropped.set())
        await agents.stop()
        await dropped.wait()
        call = client.call("add", [2, 2])
        agents.start(agents.port)
        assert await call == 4
        assert client.identified


@pytest.mark.parametrize("code", [1008, 4001])
async def test_close_right_behind_the_handshake_is_understood(code: int) -> None:
    """Code and reason of a server that refuses after the 101 are not lost."""
    async with running() as agents:
        agents.close_at_once = (code, "Unauthorized")
        client = client_of(agents)
        closed: asyncio.Future[ConnectionClosed] = asyncio.get_running_loop().create_future()
        client.on_connection_error(closed.set_result)
        client.start()
        error = await closed
        assert (error.code, error.reason, error.was_clean) == (code, "Unauthorized", True)
        await client.wait_closed()


async def test_client_close_reaches_the_server() -> None:
    """The server learns code and reason, and the socket is gone when the client has left."""
    async with running() as agents:
        client = await client_of(agents)
        client.close(4100, "done")
        await client.wait_closed()
        assert agents.closes == [(4100, "done")]


async def test_refusal_is_told_with_status_and_body() -> None:
    """An HTTP answer instead of a WebSocket is an error that knows both."""
    async with running() as agents:
        agents.refusal = 404
        with pytest.raises(AgentNotFound, match="clock"):
            await client_of(agents)
        agents.refusal = 403
        with pytest.raises(HandshakeRefused, match="token") as caught:
            await client_of(agents)
        assert (caught.value.status, b"refused" in caught.value.body) == (403, True)


async def test_message_over_the_limit_closes() -> None:
    """A longer message than allowed is not taken: the connection ends instead."""
    async with running() as agents:
        agents.greeting = ["x" * 2000]
        listener = Listener()
        opener = TornadoOpener(max_message_bytes=1000)
        transport = await opener(f"ws://127.0.0.1:{agents.port}/base/agents/a/x", {}, listener)
        await listener.closed
        assert len(listener.messages) == 2
        transport.close(1000, "")


async def test_nagle_is_off() -> None:
    """A call must not wait for the acknowledgement of the one before."""
    async with running() as agents:
        transport = await TornadoOpener()(
            f"ws://127.0.0.1:{agents.port}/base/agents/a/x", {}, listener := Listener()
        )
        sock = transport._connection.protocol.stream.socket
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close(1000, "")
        await listener.closed


async def test_send_after_the_end_is_dropped() -> None:
    """A transport whose connection is gone takes messages without a word."""
    async with running() as agents:
        transport = await TornadoOpener()(
            f"ws://127.0.0.1:{agents.port}/base/agents/a/x", {}, listener := Listener()
        )
        transport.close(1000, "")
        await listener.closed
        transport.send("late")
        assert transport.buffered == 0


class DeafServer:
    """Answers the handshake and is silent ever after, like a machine that lost its power."""

    def __init__(self) -> None:
        self.accepted = 0

    async def __aenter__(self) -> DeafServer:
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = re.search(r"(?i)sec-websocket-key: (\S+)", request)[1]
        accept = WebSocketProtocol13.compute_accept_value(key)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
        )
        self.accepted += 1

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()


async def test_silent_server_is_found_dead_within_two_intervals(ms: float) -> None:
    """Nothing comes for two pings' time: the client gives the connection up (T206)."""
    interval = 50 * ms
    async with DeafServer() as deaf:
        loop = asyncio.get_running_loop()
        listener = Listener()
        opener = TornadoOpener(heartbeat=interval)
        started = loop.time()
        transport = await opener(f"ws://127.0.0.1:{deaf.port}/", {}, listener)
        assert await listener.closed == (1006, "The server is silent")
        assert interval * 0.9 < loop.time() - started < 4 * interval
        transport.close(1000, "")


async def test_client_of_a_silent_server_comes_back(ms: float, eventually: Any) -> None:
    """The client behind it fails its calls, tries again, and leaves no socket behind."""
    async with DeafServer() as deaf:
        client = connect(
            "room",
            host=f"127.0.0.1:{deaf.port}",
            opener=TornadoOpener(heartbeat=30 * ms, close_timeout=30 * ms),
            reconnect=HASTY,
            wait_for="open",
        )
        async with client:
            with pytest.raises(CallAborted) as caught:
                await client.call("a")
            assert caught.value.transmitted
            await eventually(lambda: deaf.accepted >= 3)


async def test_close_does_not_wait_long_for_a_silent_server(ms: float) -> None:
    """A server that does not answer the close is left all the same."""
    async with DeafServer() as deaf:
        listener = Listener()
        opener = TornadoOpener(close_timeout=30 * ms)
        transport = await opener(f"ws://127.0.0.1:{deaf.port}/", {}, listener)
        transport.close(1000, "")
        assert (await asyncio.wait_for(listener.closed, 2000 * ms))[0] == 1006


async def test_living_server_is_left_alone(ms: float) -> None:
    """Pongs are signs of life, however little is said."""
    async with running() as agents:
        listener = Listener()
        opener = TornadoOpener(heartbeat=20 * ms)
        transport = await opener(f"ws://127.0.0.1:{agents.port}/base/agents/a/x", {}, listener)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(listener.closed), 150 * ms)
        transport.close(1000, "")
        await listener.closed


async def test_abandoned_attempt_leaves_no_socket(eventually: Any) -> None:
    """A connection that comes after its attempt was cancelled is closed at once."""
    async with running() as agents:
        attempt = asyncio.ensure_future(
            TornadoOpener()(f"ws://127.0.0.1:{agents.port}/base/agents/a/x", {}, Listener())
        )
        await asyncio.sleep(0)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await eventually(lambda: len(agents.closes) == len(agents.requests) == 1)
